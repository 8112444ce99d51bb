"""The folder of found identities: a manifest to train from, the tree, pictures; and corrections."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit import data, visualise
from reidkit.data.adapters.table import INTEGER, read_csv
from reidkit.engine import Console
from reidkit.files import write_atomically
from reidkit.report.tree_page import tree_page
from reidkit.types import Features, Sample, StoredFrames, path_of
from reidkit.unsupervised.identity_tree import IdentityTree

FACTS, LABELS, FEATURES, TREE = "label.json", "labels.csv", "features.npz", "tree.npz"
PAGE, PICTURE, SHEETS = "tree.html", "tree.png", "identities"
COLUMNS = ("path", "pid", "camid", "split", "tracklet", "frame", "view", "condition")
OWN = ("label", "label_confidence")
MOST_SHEETS = 200
CONFIDENCE = (
    "how much nearer a sample is to its own identity than to the next one: its silhouette, 0 where "
    "negative; not a probability"
)
Table = list[dict[str, str]]


@dataclass(frozen=True, eq=False)
class Found:
    """Who is who: labels (N,) from 0, -1 for left out, a confidence (N,) in [0, 1] for each, the
    tree, and what there is to tell."""

    features: Features
    tree: IdentityTree
    labels: NDArray[np.int64]
    confidences: NDArray[np.float64]
    facts: dict[str, Any]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """A few lines a person can read."""
        quality = self.facts["quality"]
        sizes = quality["sizes"]
        lines = [
            f"{len(self.labels):,} samples: {quality['identities']:,} "
            f"{'identity' if quality['identities'] == 1 else 'identities'}, "
            f"{quality['left_out']:,} samples left out"
        ]
        if quality["identities"]:
            lines.append(
                f"an identity has {sizes['smallest']:,} to {sizes['largest']:,} samples, the "
                f"median is {sizes['median']:g}; {sizes['single']:,} have one"
            )
            lines.append(
                f"mean silhouette {quality['silhouette']:.3f}, from -1 (mixed up) to 1 (far apart)"
            )
        if quality["by_the_source"]:
            known = quality["by_the_source"]
            names = {"precision": "precision", "recall": "recall", "f1": "F", "purity": "purity"}
            words = [
                f"{word} {'-' if known[name] is None else f'{100 * known[name]:.1f} %'}"
                for name, word in names.items()
            ]
            lines.append(
                f"judged by the source's own identities ({known['true_identities']:,} in "
                f"{known['samples']:,} samples), over pairs: {', '.join(words)}"
            )
        return "\n".join((*lines, *self.notes))


def begin(folder: Path, mark: dict[str, str]) -> None:
    """Take a new folder, or one that was begun with the same model and source.

    Raises FileExistsError for any other, and for one whose labels were corrected by hand.
    """
    if not (folder / FACTS).is_file():
        if folder.exists() and (
            not folder.is_dir() or any(not p.name.startswith(".") for p in folder.iterdir())
        ):
            raise FileExistsError(f"{folder} holds other things: name a new folder with --out")
        write_atomically(folder / FACTS, json.dumps({"of": mark}).encode())
        return
    facts = _facts(folder)
    for key, what in (("model", "another model"), ("files", "another source, or files changed")):
        if facts["of"].get(key) != mark[key]:
            raise FileExistsError(f"{folder} was begun with {what}: name a new folder with --out")
    if facts.get("corrected"):
        raise FileExistsError(
            f"{folder} holds labels that were corrected by hand: name a new folder with --out"
        )


def read_facts(folder: Path) -> dict[str, Any]:
    """What was told of the labels in a folder; FileNotFoundError where there are none."""
    facts = _facts(folder) if (folder / FACTS).is_file() else {}
    if "quality" not in facts:
        raise FileNotFoundError(
            f"no labels in {folder} to correct: `reidkit label RUN SOURCE --out {folder}` finds "
            "them first"
        )
    return facts


def _facts(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / FACTS).read_text())
        if isinstance(facts["of"], dict):
            return dict(facts)
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"{folder / FACTS} is damaged: label into a new folder")


def paths_of(sample: Sample) -> list[str]:
    """The files of a sample; of a packed sequence its stretch of the store, which is no file."""
    if isinstance(sample.frames, StoredFrames) or not sample.frames:
        return [path_of(sample)]
    return list(sample.frames)


def table_of(samples: Sequence[Sample]) -> tuple[Table, list[str]]:
    """A manifest's rows, one a frame, whose labels are still to be filled in; and what to tell.

    `frame` is spread evenly from the first to the last moment of a tracklet, since the moments in
    between are not known here; in thousandths where the moments are no whole numbers.
    """
    known = any(sample.camid >= 0 for sample in samples)
    ends = [end for sample in samples if sample.span is not None for end in sample.span]
    scale = 1 if all(float(end).is_integer() for end in ends) else 1000
    rows = []
    for number, sample in enumerate(samples, start=1):
        paths = paths_of(sample)
        moments = [""] * len(paths)
        if sample.span is not None:
            spread = scale * np.linspace(*sample.span, len(paths))
            moments = [str(round(moment)) for moment in spread.tolist()]
        for path, moment in zip(paths, moments, strict=True):
            camid = str(sample.camid) if known else ""
            row = (path, "", camid, "train", str(number), moment, sample.view, sample.condition)
            rows.append(dict(zip(COLUMNS, row, strict=True)))
    notes = []
    if scale > 1:
        notes.append(f"{LABELS} gives times as whole numbers: thousandths of those of the source.")
    if any(isinstance(sample.frames, StoredFrames) for sample in samples):
        notes.append(
            f"{LABELS} lists packed sequences, which `manifest` cannot read: it holds their "
            "labels, but none can be trained on from there."
        )
    return rows, notes


def write(folder: Path, found: Found, rows: Table, pictures: bool, console: Console) -> None:
    """Write all files of a folder, each replaced atomically; sheets of earlier labels go."""
    samples, labels, tree = found.features.samples, found.labels, found.tree
    for row in rows:
        place = int(row["tracklet"]) - 1
        # Training wants an identity for each; in `test`, pid -1 is passed over by who reads this.
        if labels[place] < 0:
            row["split"] = "test"
        elif row["pid"] == "-1":
            row["split"] = "train"
        # From 1: a benchmark's pid 0 stands for distractors.
        row["pid"] = str(labels[place] + 1) if labels[place] >= 0 else "-1"
        row["label"], row["label_confidence"] = (
            str(labels[place]),
            f"{found.confidences[place]:.4f}",
        )
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / LABELS, text.getvalue().encode())
    tree.save(folder / TREE)
    console.say("drawing the tree")
    page = tree_page(
        f"Identities in {found.facts['source']}",
        tree.merges,
        tree.heights,
        samples,
        labels,
        show=data.show,
        confidences=found.confidences,
        **({} if pictures else {"most": 0}),
    )
    write_atomically(folder / PAGE, page.encode())
    sheets: set[str] = set()
    if pictures:
        visualise.dendrogram(
            folder / PICTURE, tree.merges, tree.heights, labels, samples, show=data.show
        )
        sheets = _write_sheets(folder / SHEETS, found, console)
    else:
        (folder / PICTURE).unlink(missing_ok=True)
    for old in (folder / SHEETS).glob("[0-9]*.jpg"):
        if old.name not in sheets:
            old.unlink()
    told = {"confidence": CONFIDENCE, "sheets": len(sheets), "notes": list(found.notes)}
    write_atomically(folder / FACTS, json.dumps(found.facts | told, indent=2).encode())


def _write_sheets(folder: Path, found: Found, console: Console) -> set[str]:
    """The contact sheets of the largest identities; returns their names."""
    names, counts = np.unique(found.labels[found.labels >= 0], return_counts=True)
    chosen = sorted(names[np.argsort(-counts, kind="stable")][:MOST_SHEETS].tolist())
    written = set()
    with console.bar("contact sheets", len(chosen)) as update:
        for done, label in enumerate(chosen, start=1):
            places = np.flatnonzero(found.labels == label)
            name = f"{label:04d}.jpg"
            visualise.contact_sheet(
                folder / name,
                [found.features.samples[place] for place in places],
                show=data.show,
                title=f"identity {label}, {len(places):,} of {len(found.labels):,} samples",
                confidences=found.confidences[places].tolist(),
            )
            written.add(name)
            update(done)
    if len(chosen) < len(names):
        console.say(f"contact sheets: the {len(chosen)} largest of {len(names):,} identities")
    return written


def read(folder: Path) -> tuple[Features, IdentityTree, Table, NDArray[np.int64]]:
    """Features, tree, manifest and labels (N,) of a folder; ValueError where they do not fit."""
    features = Features.load(folder / FEATURES)
    tree = IdentityTree.load(folder / TREE)
    lines, _, faults = read_csv(folder / LABELS)
    rows = [dict(line.text) for line in lines]
    frames: dict[int, list[str]] = defaultdict(list)
    labels: dict[int, int] = {}
    try:
        for row in rows:
            place, pid = int(row["tracklet"]) - 1, int(row["pid"])
            frames[place].append(row["path"])
            labels[place] = max(pid - 1, -1)
        if faults or sorted(frames) != list(range(len(features))):
            raise ValueError("rows are missing or faulty")
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{folder / LABELS} no longer fits {folder / FEATURES} ({error}): label into a new "
            "folder"
        ) from error
    samples = tuple(
        sample
        if isinstance(sample.frames, StoredFrames)
        else replace(sample, frames=tuple(frames[place]))
        for place, sample in enumerate(features.samples)
    )
    found = np.array([labels[place] for place in range(len(samples))], np.int64)
    return replace(features, samples=samples), tree, rows, found


def corrected_labels(path: Path, rows: Table, before: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels (N,) as a CSV with the columns `path,label` corrects them; the others stay.

    A path may be any frame of its sample. Raises FileNotFoundError where there is no file,
    ValueError for the first line that means nothing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; tree.html exports one, with columns path,label")
    try:
        lines, columns, faults = read_csv(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV file in UTF-8: {error}") from error
    for column in ("path", "label"):
        if column not in columns:
            raise ValueError(
                f"{path} has no column {column!r}; it has: {', '.join(columns) or 'none'}. "
                "Corrections need path,label"
            )
    if faults:
        raise ValueError(f"{path}, line {faults[0].line}: {faults[0].what}")
    if not lines:
        raise ValueError(f"{path} corrects nothing: it has no line below its header")
    place_of = {row["path"]: int(row["tracklet"]) - 1 for row in rows}
    labels, told = before.copy(), dict[int, int]()
    for line, text in lines:
        name, label = text["path"], text["label"]
        if not INTEGER.fullmatch(label) or not -1 <= int(label) < 2**31:
            what = f"label {label!r}, expected an identity's number, or -1 for left out"
        elif name not in place_of:
            what = f"unknown path {name!r}, expected one of {LABELS}"
        elif told.setdefault(place_of[name], int(label)) != int(label):
            what = f"label {label} for {name}, whose sample has {told[place_of[name]]} above"
        else:
            labels[place_of[name]] = int(label)
            continue
        raise ValueError(f"{path}, line {line}: {what}")
    return labels
