"""Trees of silhouettes as PNG files, `{subject}/{condition}/{view}/*.png`: names only."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from reidkit.data.benchmarks import Finding, examples
from reidkit.data.silhouettes.sources import MEAN_IMAGE, is_frame, natural
from reidkit.types import StoredFrames

PICKLE = ".pkl"
DEPTH = 4  # folders above a frame, at most


class Walk(NamedTuple):
    """One sequence of silhouettes, named as OpenGait's trees are: subject, condition, view."""

    subject: str
    condition: str
    view: str
    frames: tuple[str, ...] | StoredFrames

    @property
    def place(self) -> str:
        """What to call this sequence in a message: `001/nm-01/090`."""
        return f"{self.subject}/{self.condition}/{self.view}"


@dataclass
class Scan:
    """Sequences found below a folder, and what was found instead of sequences."""

    folder: Path
    walks: list[Walk] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    pickled: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def subfolders(self, *parts: str) -> Iterator[str]:
        """Names of the folders in a folder below, sorted; files beside them are noted."""
        folder = os.path.join(self.folder, *parts)
        names = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    names.append(entry.name)
                else:
                    self.others.append("/".join((*parts, entry.name)))
        return iter(sorted(names))

    def add(self, subject: str, condition: str, view: str, *parts: str) -> None:
        """Take the frames in the folder `parts` for one sequence."""
        folder = os.path.join(self.folder, *parts)
        place = "/".join(parts)
        names, others = [], []
        for name in os.listdir(folder):
            if is_frame(name):
                names.append(name)
            elif not name.startswith("."):
                others.append(name)
        if names:
            # Numbers without leading zeros: f9999 comes before f10000, as it does when packed.
            names.sort(key=None if len({len(name) for name in names}) == 1 else natural)
            frames = tuple(os.path.join(folder, name) for name in names)
            self.walks.append(Walk(subject, condition, view, frames))
        elif any(name.endswith(PICKLE) for name in others):
            self.pickled.append(place)
            return
        else:
            self.empty.append(place)
        self.others += [f"{place}/{name}" for name in others if not name.endswith(MEAN_IMAGE)]

    def findings(self) -> list[Finding]:
        """What is to be said about everything that is no sequence."""
        found = []
        if self.pickled:
            what = f"{len(self.pickled):,} sequence folders hold a {PICKLE} and no frames"
            remedy = "Pack the tree first: reidkit data pack SRC OUT."
            found.append(Finding("error", what, remedy, examples(sorted(self.pickled))))
        if self.empty:
            what = f"{len(self.empty):,} sequence folders hold no frames and are left out"
            found.append(Finding("warning", what, where=examples(sorted(self.empty))))
        if self.others:
            what = f"{len(self.others):,} files that are no frames are ignored"
            found.append(Finding("note", what, where=examples(sorted(self.others))))
        return found


def scan_tree(folder: Path) -> Scan:
    """The sequences of a tree `{subject}/{condition}/{view}/*.png`."""
    scan = Scan(folder)
    for subject in scan.subfolders():
        for condition in scan.subfolders(subject):
            for view in scan.subfolders(subject, condition):
                scan.add(subject, condition, view, subject, condition, view)
    return scan


def holds_pickles(folder: Path) -> bool:
    """Whether the first data file of a tree, in sorted order, is a `.pkl` and no picture."""
    return _first_kind(str(folder), DEPTH) == PICKLE


def _first_kind(folder: str, depth: int) -> str:
    """`.pkl` or `.png` by the first file that is either, empty where there is none."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    folders = []
    for entry in found:
        if is_frame(entry.name):
            return ".png"
        if entry.name.endswith(PICKLE):
            return PICKLE
        if depth and not entry.name.startswith(".") and entry.is_dir():
            folders.append(entry.path)
    return next(filter(None, (_first_kind(path, depth - 1) for path in folders)), "")
