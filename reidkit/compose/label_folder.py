"""The folder of found identities: a manifest to train from, the tree, pictures; and corrections."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit import data, visualise
from reidkit.data.adapters.table import INTEGER
from reidkit.engine import Console
from reidkit.files import replacing, write_atomically
from reidkit.report.tree_page import tree_page
from reidkit.types import Features, Sample, StoredFrames, path_of
from reidkit.unsupervised.identity_tree import IdentityTree

FACTS, LABELS, FEATURES, TREE = "label.json", "labels.csv", "features.npz", "tree.npz"
PAGE, PICTURE, SHEETS = "tree.html", "tree.png", "identities"
COLUMNS = ("path", "pid", "camid", "split", "tracklet", "frame", "view", "condition")
OWN = ("label", "label_confidence")
MOST_SHEETS = 200
CONFIDENCE = (
    "how much nearer, by cosine, a sample is to its own identity than to the next one: its "
    "silhouette, 0 where negative; not a probability"
)
MOST_DIGITS = 10
Row = dict[str, str]


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
                f"mean silhouette {quality['silhouette']:.3f} by cosine, from -1 (mixed up) to 1 "
                "(far apart)"
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

    A folder in which nothing but such a mark was left is taken, too. Raises FileExistsError for any
    other, and for one whose labels were corrected by hand.
    """
    if not (folder / FACTS).is_file():
        if folder.exists() and (
            not folder.is_dir() or any(not p.name.startswith(".") for p in folder.iterdir())
        ):
            raise FileExistsError(f"{folder} holds other things: name a new folder with --out")
        write_atomically(folder / FACTS, json.dumps({"of": mark}).encode())
        return
    facts = _facts(folder)
    if facts.get("corrected"):
        raise FileExistsError(
            f"{folder} holds labels that were corrected by hand: name a new folder with --out"
        )
    for key, what in (("model", "another model"), ("files", "another source, or files changed")):
        if facts["of"].get(key) == mark[key]:
            continue
        # Only a mark is there: a call that failed before it had any feature.
        if "quality" not in facts and not any((folder / n).exists() for n in (FEATURES, LABELS)):
            write_atomically(folder / FACTS, json.dumps({"of": mark}).encode())
            return
        raise FileExistsError(f"{folder} was begun with {what}: name a new folder with --out")


def read_facts(folder: Path) -> dict[str, Any]:
    """What was told of the labels in a folder.

    Raises FileNotFoundError where there are no labels, ValueError where it is not as `write` left
    it.
    """
    facts = _facts(folder) if (folder / FACTS).is_file() else {}
    if "quality" not in facts:
        raise FileNotFoundError(
            f"no labels in {folder} to correct: `reidkit label RUN SOURCE --out {folder}` finds "
            "them first"
        )
    kinds = {"run": (str, "a text"), "source": (str, "a text"), "settings": (dict, "an object")}
    for name, (kind, what) in kinds.items():
        if not isinstance(facts.get(name), kind):
            got = repr(facts[name])[:40] if name in facts else "nothing"
            raise ValueError(f"{folder / FACTS}: {name!r} is {got}, expected {what}: put it right")
    corrected = facts.setdefault("corrected", 0)
    if type(corrected) is not int or corrected < 0:
        raise ValueError(
            f"{folder / FACTS}: 'corrected' is {repr(corrected)[:40]}, expected how many labels "
            "were corrected, 0 or more: put it right"
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


def rows_of(samples: Sequence[Sample]) -> Iterator[Row]:
    """A manifest's rows, one a frame, whose labels are still to be filled in.

    `frame` is spread evenly from the first to the last moment of a tracklet, since the moments in
    between are not known here; in thousandths where the moments are no whole numbers.
    """
    known = any(sample.camid >= 0 for sample in samples)
    scale = _scale(samples)
    for number, sample in enumerate(samples, start=1):
        paths = paths_of(sample)
        moments = [""] * len(paths)
        if sample.span is not None:
            spread = scale * np.linspace(*sample.span, len(paths))
            moments = [str(round(moment)) for moment in spread.tolist()]
        camid = str(sample.camid) if known else ""
        for path, moment in zip(paths, moments, strict=True):
            row = (path, "", camid, "train", str(number), moment, sample.view, sample.condition)
            yield dict(zip(COLUMNS, row, strict=True))


def notes_of(samples: Sequence[Sample]) -> list[str]:
    """What to tell of the rows of these samples."""
    notes = []
    if _scale(samples) > 1:
        notes.append(f"{LABELS} gives times as whole numbers: thousandths of those of the source.")
    if any(isinstance(sample.frames, StoredFrames) for sample in samples):
        notes.append(
            f"{LABELS} lists packed sequences, which `manifest` cannot read: it holds their "
            "labels, but none can be trained on from there."
        )
    return notes


def _scale(samples: Sequence[Sample]) -> int:
    ends = (end for sample in samples if sample.span is not None for end in sample.span)
    return 1 if all(float(end).is_integer() for end in ends) else 1000


def rows_in(folder: Path) -> Iterator[Row]:
    """The rows of a folder's manifest with all their columns, the user's own among them."""
    return (row for _, row in _lines(folder / LABELS))


def _lines(path: Path, needed: Sequence[str] = ()) -> Iterator[tuple[int, Row]]:
    """Numbers and cells of a CSV's lines, one at a time; ValueError for the first that is none."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            columns = [name.strip() for name in next(reader, [])]
            for column in needed:
                if column not in columns:
                    raise ValueError(
                        f"{path} has no column {column!r}; it has: {', '.join(columns) or 'none'}. "
                        f"Expected {','.join(needed)}"
                    )
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(columns):
                    what = f"{len(cells)} cells, expected {len(columns)}"
                    raise ValueError(f"{path}, line {reader.line_num}: {what}")
                text = (cell.strip() for cell in cells)
                yield reader.line_num, dict(zip(columns, text, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} is no CSV file in UTF-8 with all its quotes closed: {error}"
        ) from error


def write(
    folder: Path,
    found: Found,
    rows: Iterable[Row],
    pictures: bool,
    console: Console,
    *,
    meanwhile: dict[str, Any],
) -> None:
    """Write all files of a folder, each replaced atomically; sheets of earlier labels go.

    `meanwhile` is what label.json says until all are there: after a kill in between it tells what
    may be overwritten.
    """
    samples, labels, tree = found.features.samples, found.labels, found.tree
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
    write_atomically(folder / FACTS, json.dumps(meanwhile, indent=2).encode())
    _write_table(folder / LABELS, found, rows)
    tree.save(folder / TREE)
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


def _write_table(path: Path, found: Found, rows: Iterable[Row]) -> None:
    """Rows with their labels, one at a time: all those of a large source would not fit."""
    rows = iter(rows)
    first = next(rows)
    columns = [*first, *(name for name in OWN if name not in first)]
    with replacing(path) as binary:
        file = io.TextIOWrapper(binary, encoding="utf-8", newline="")
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in chain([first], rows):
            place = int(row["tracklet"]) - 1
            label = int(found.labels[place])
            # Training wants an identity for each; in `test`, pid -1 is passed over by who reads it.
            if label < 0:
                row["split"] = "test"
            elif row["pid"] == "-1":
                row["split"] = "train"
            # From 1: a benchmark's pid 0 stands for distractors.
            row["pid"] = str(label + 1) if label >= 0 else "-1"
            row["label"], row["label_confidence"] = str(label), f"{found.confidences[place]:.4f}"
            writer.writerow([row[name] for name in columns])
        file.flush()
        file.detach()


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


def read(folder: Path) -> tuple[Features, IdentityTree, NDArray[np.int64]]:
    """Features, tree and labels (N,) of a folder; ValueError where they do not fit."""
    features = Features.load(folder / FEATURES)
    tree = IdentityTree.load(folder / TREE)
    if len(tree) != len(features):
        raise ValueError(
            f"{folder / TREE} is a tree of {len(tree):,} samples, expected the {len(features):,} "
            f"of {folder / FEATURES}: label into a new folder"
        )
    if list(map(path_of, tree.samples)) != list(map(path_of, features.samples)):
        raise ValueError(
            f"{folder / TREE} is a tree of other samples than {folder / FEATURES}: label into a "
            "new folder"
        )
    frames, labels = _frames_and_labels(folder, len(features))
    samples = tuple(
        sample
        if isinstance(sample.frames, StoredFrames)
        else replace(sample, frames=tuple(frames[place]))
        for place, sample in enumerate(features.samples)
    )
    return replace(features, samples=samples), tree, labels


def _frames_and_labels(folder: Path, count: int) -> tuple[dict[int, list[str]], NDArray[np.int64]]:
    """Paths and label of each of so many samples, from the manifest."""
    frames: dict[int, list[str]] = defaultdict(list)
    labels: dict[int, int] = {}
    for line, row in _lines(folder / LABELS, ("path", "pid", "split", "tracklet")):
        place, pid = (_number(row[name]) for name in ("tracklet", "pid"))
        if place is None or pid is None or not 1 <= place <= count:
            break
        if labels.setdefault(place - 1, max(pid - 1, -1)) != max(pid - 1, -1):
            raise ValueError(
                f"{folder / LABELS}, line {line}: pid {pid} for tracklet {place}, which has "
                f"{labels[place - 1] + 1} above"
            )
        frames[place - 1].append(row["path"])
    else:
        if len(frames) == count:
            return frames, np.array([labels[place] for place in range(count)], np.int64)
        line = 0
    where = f"line {line} is faulty" if line else "rows are missing"
    raise ValueError(
        f"{folder / LABELS} no longer fits {folder / FEATURES} ({where}): label into a new folder"
    )


def _number(text: str) -> int | None:
    """A whole number of -1 and more that is no nonsense."""
    if len(text) > MOST_DIGITS or not INTEGER.fullmatch(text) or not -1 <= int(text) <= 2**31:
        return None
    return int(text)


def corrected_labels(
    path: Path, samples: Sequence[Sample], before: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Labels (N,) as a CSV with the columns `path,label` corrects them; the others stay.

    A path may be any frame of its sample. Raises FileNotFoundError where there is no file,
    ValueError for the first line that means nothing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; tree.html exports one, with columns path,label")
    lines = [(n, row["path"], row["label"]) for n, row in _lines(path, ("path", "label"))]
    if not lines:
        raise ValueError(f"{path} corrects nothing: it has no line below its header")
    named = {name for _, name, _ in lines}
    place_of = {
        frame: place
        for place, sample in enumerate(samples)
        for frame in paths_of(sample)
        if frame in named
    }
    labels, told = before.copy(), dict[int, int]()
    for line, name, text in lines:
        label = _number(text)
        if label is None or label >= 2**31:
            short = text if len(text) <= 40 else f"{text[:40]}..."
            what = f"label {short!r}, expected an identity's number, or -1 for left out"
        elif name not in place_of:
            what = f"unknown path {name!r}, expected one of {LABELS}"
        elif told.setdefault(place_of[name], label) != label:
            what = f"label {label} for {name}, whose sample has {told[place_of[name]]} above"
        else:
            labels[place_of[name]] = label
            continue
        raise ValueError(f"{path}, line {line}: {what}")
    return labels
