"""What the readers of silhouettes share: where a set lies, in which form, and sifting its
sequences."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reidkit.data.adapters.gait_trees import Scan, Walk, holds_pickles, scan_tree
from reidkit.data.benchmarks import Finding, examples
from reidkit.data.silhouettes.store import SilhouetteStore
from reidkit.types import Sample, StoredFrames

STORE, PACKED = "store.json", ".pack"
ARCHIVES = (".gz", ".tgz", ".zip", ".7z", ".tar")
PACK = "reidkit data pack SRC OUT"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one benchmark of silhouettes lies, and how its tree is read.

    `usual` are names that its folder has in a parent, as they are or with `.pack` behind; `top`
    fits the folders at the top of its tree, `scan` reads them. `also` knows a tree by other means.
    """

    name: str
    usual: tuple[str, ...]
    top: re.Pattern[str]
    scan: Callable[[Path], Scan] = scan_tree
    also: Callable[[Path], bool] = lambda _: False

    @property
    def expected(self) -> str:
        """The sentence that sends the reader to the layout."""
        return f"Expected layout: datasets/README.md#{self.name}"


def find_walks(layout: Layout, root: Path, findings: list[Finding]) -> tuple[Path, list[Walk]]:
    """The folder of a set and its usable sequences; what is odd about it is added to `findings`.

    A packed store is taken before a tree of PNG files. Raises FileNotFoundError where `root` is no
    folder, ValueError where there is only a tree of `.pkl`, and as `SilhouetteStore.open` does.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{layout.name}: no folder {root}. {layout.expected}")
    folder = find_folder(layout, root)
    if folder is None:
        findings.append(absent(layout, root))
        return root, []
    if (folder / STORE).is_file():
        return folder, stored_walks(SilhouetteStore.open(folder), findings)
    if holds_pickles(folder):
        raise ValueError(
            f"{layout.name}: {folder} holds the .pkl files of OpenGait, which are not read as they "
            f"are; pack it first: {PACK}"
        )
    scan = layout.scan(folder)
    findings += scan.findings()
    if not scan.walks:
        what = f"no sequence of silhouettes in {folder}"
        findings.append(Finding("error", what, f"{layout.expected}."))
    return folder, scan.walks


def find_folder(layout: Layout, root: Path) -> Path | None:
    """`root`, or what lies in it under a usual name: a store first, a tree of `.pkl` last."""
    names = [name for usual in layout.usual for name in (usual, usual + PACKED)]
    found = [
        folder
        for folder in (root, *(root / name for name in names))
        if (folder / STORE).is_file() or _has_top(folder, layout.top) or layout.also(folder)
    ]
    for folder in found:
        if (folder / STORE).is_file():
            return folder
    return next((folder for folder in found if not holds_pickles(folder)), next(iter(found), None))


def _has_top(folder: Path, top: re.Pattern[str]) -> bool:
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(top.fullmatch(entry.name) and entry.is_dir() for entry in entries)


def absent(layout: Layout, root: Path) -> Finding:
    """The finding that there is no such set in `root`; archives that wait there are named."""
    what = f"neither a tree of silhouettes nor a packed store in {root}"
    folders = [root, *(root / name for name in layout.usual if (root / name).is_dir())]
    archives = sorted(
        path.name for folder in folders for path in folder.iterdir() if path.suffix in ARCHIVES
    )
    if archives:
        return Finding("error", what, "Unpack the archives.", examples(archives), missing=True)
    return Finding("error", what, f"{layout.expected}.", missing=True)


def stored_walks(store: SilhouetteStore, findings: list[Finding]) -> list[Walk]:
    """The usable sequences of a packed store; what packing said of others goes to `findings`."""
    sides = {
        verdict: [f"{one.name}: {one.why}" for one in store.sequences if one.verdict == verdict]
        for verdict in ("rejected", "warned")
    }
    if sides["rejected"]:
        what = f"{len(sides['rejected']):,} sequences were rejected when {store.folder} was packed"
        findings.append(Finding("warning", what, where=examples(sides["rejected"])))
    if sides["warned"]:
        what = f"{len(sides['warned']):,} sequences are used that looked odd when packed"
        findings.append(Finding("note", what, where=examples(sides["warned"])))
    walks = [
        Walk(
            one.subject,
            one.condition,
            one.view,
            StoredFrames(str(store.folder), one.start, one.length),
        )
        for one in store.sequences
        if one.verdict != "rejected"
    ]
    if not walks:
        what = f"{store.folder} holds no usable sequence"
        findings.append(Finding("error", what, "Look into its sequences.csv."))
    return walks


def sift(
    walks: Iterable[Walk], fits: Callable[[Walk], bool], form: str, findings: list[Finding]
) -> list[Walk]:
    """The sequences that fit, each once, in sorted order; the others go to `findings`.

    `form` says what a sequence is called, `001/nm-01/090`.
    """
    kept: dict[tuple[str, str, str], Walk] = {}
    strange, twice = [], []
    for walk in walks:
        key = walk[:3]
        if not fits(walk):
            strange.append(walk.place)
        elif key in kept:
            twice.append(walk.place)
        else:
            kept[key] = walk
    if strange:
        what = f"{len(strange):,} sequences are not named like {form} and are left out"
        remedy = "Rename them or move them out of the folder."
        findings.append(Finding("error", what, remedy, examples(sorted(strange))))
    if twice:
        what = f"{len(twice):,} sequences are there more than once; the first is taken"
        remedy = "Take the others out, or pack the original tree again."
        findings.append(Finding("error", what, remedy, examples(sorted(twice))))
    return [kept[key] for key in sorted(kept)]


def count_identities(
    side: str, found: int, expected: int, gone: Iterable[str] = ()
) -> list[Finding]:
    """An error where the number of identities is not the published one; `gone` name some."""
    if found == expected:
        return []
    what = f"{side} has {found:,} identities, expected {expected:,}"
    missing = sorted(set(gone))
    where = examples(f"no {name}" for name in missing)
    return [Finding("error", what, "Unpack the original archives again.", where)]


def both_sides(layout: Layout, train: Sequence[Sample], query: Sequence[Sample]) -> list[Finding]:
    """An error for each side that is empty although there are sequences."""
    if not train and not query:
        return []  # said where nothing was found
    return [
        Finding("error", f"no sequence {purpose}", f"{layout.expected}.")
        for purpose, samples in (("to train on", train), ("to test with", query))
        if not samples
    ]


def walk_samples(walks: Iterable[Walk], views: Sequence[str], domain: str) -> tuple[Sample, ...]:
    """The sequences of numbered subjects as samples; the camera is the view's place in `views`."""
    return tuple(
        Sample(
            walk.frames,
            int(walk.subject),
            views.index(walk.view),
            walk.view,
            walk.condition,
            domain,
        )
        for walk in walks
    )
