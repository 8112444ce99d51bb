"""What the readers of video benchmarks share: sets of two cameras, and frames that are listed."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reidkit.data.adapters.matlab import Integers
from reidkit.data.benchmarks import UNPACK, Finding, Reading, examples, is_image, wrong_counts
from reidkit.types import EvalProtocol, Sample

SPLITS = 10
PROTOCOL = EvalProtocol("same_camera", ("rank-1", "rank-5", "rank-10", "rank-20", "mAP"))


class People(NamedTuple):
    """The people of one split, by the names of their folders."""

    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A set that shows each person once to either of two cameras.

    `parents` are the usual names of its folder, `cameras` the folders in it, the first of the
    queries; `person` fits the folder of a person and has the number as its group, as in `form`.
    """

    name: str
    parents: tuple[str, ...]
    cameras: tuple[str, str]
    person: re.Pattern[str]
    form: str

    @property
    def expected(self) -> str:
        """The sentence that sends the reader to the layout."""
        return f"Expected layout: datasets/README.md#{self.name}"


def find_root(root: Path, parents: Iterable[str], inside: str) -> Path:
    """The folder that has `inside`: `root`, or one of the usual names in it; else `root`."""
    places = (root, *(root / parent for parent in parents))
    return next((place for place in places if (place / inside).is_dir()), root)


def open_pair(
    pair: Pair, root: Path, split: int, inside: str
) -> tuple[Path, list[list[str]], list[Finding]]:
    """The folder of a set of two cameras, the people of each, and what is odd about them.

    `inside` is the folder that the set's own folder has. Raises ValueError for a split outside 1 to
    10, FileNotFoundError where `root` is no folder.
    """
    check_split(pair.name, split)
    if not root.is_dir():
        raise FileNotFoundError(f"{pair.name}: no folder {root}. {pair.expected}")
    folder = find_root(root, pair.parents, inside)
    findings: list[Finding] = []
    return folder, list_people(pair, folder, findings), findings


def check_split(name: str, split: int) -> None:
    """Raise a ValueError unless `split` is one of 1 to 10."""
    if not 1 <= split <= SPLITS:
        raise ValueError(f"{name}: split {split}, expected 1 to {SPLITS}")


def halves(path: Path, table: Integers, split: int, people: list[str]) -> People:
    """The people of split number `split` (from 1) in a table of shuffled numbers, a row a split.

    The first half of a row is for testing (Wang et al., ECCV 2014). Numbers count from 1 and are
    places in `people`. Raises ValueError where the row is not there or does not name each person
    once.
    """
    if split > len(table):
        raise ValueError(f"{path} has {len(table)} splits, so there is none of number {split}")
    row = table[split - 1]
    if len(row) != len(people):
        raise ValueError(
            f"{path} splits {len(row)} people, but there are {len(people)}; the numbers in it are "
            "places in the list of all of them"
        )
    if not np.array_equal(np.sort(row), np.arange(1, len(people) + 1)):
        raise ValueError(
            f"{path}: row {split} does not name each of 1 to {len(people)} once; get the original "
            "file again"
        )
    half = len(row) // 2
    test, train = (sorted(people[place - 1] for place in part) for part in (row[:half], row[half:]))
    return People(tuple(train), tuple(test))


def list_people(pair: Pair, folder: Path, findings: list[Finding]) -> list[list[str]]:
    """The folders of people of each camera, sorted; other folders there go to `findings`.

    A camera without a folder gives a finding and an empty list.
    """
    found: list[list[str]] = []
    for camera in pair.cameras:
        names: list[str] = []
        if (folder / camera).is_dir():
            with os.scandir(folder / camera) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir())
        else:
            what = f"no folder {camera!r} in {folder}"
            findings.append(Finding("error", what, f"{pair.expected}.", missing=True))
        found.append([name for name in names if pair.person.fullmatch(name)])
        strange = [name for name in names if not pair.person.fullmatch(name)]
        if strange:
            what = f"{len(strange):,} folders in {camera} are not named like {pair.form}"
            remedy = "Rename them or move them out of the folder."
            findings.append(Finding("error", what, remedy, examples(strange)))
    return found


def assemble(
    pair: Pair,
    folder: Path,
    people: People,
    expected: Mapping[str, tuple[int, int]],
    findings: list[Finding],
) -> Reading:
    """The reading of one split: both cameras train, the first asks, the second answers.

    What is missing, and where identities and tracklets are not as many as `expected`, is added to
    `findings`.
    """
    names = sorted({*people.train, *people.test})
    seen: dict[tuple[str, int], Sample] = {}
    for camid, camera in enumerate(pair.cameras):
        empty = []
        for name in names:
            frames = pictures(folder / camera / name)
            if frames:
                seen[name, camid] = Sample(frames, number(pair, name), camid, domain=pair.name)
            else:
                empty.append(name)
        if empty:
            what = f"{len(empty):,} people of this split have no pictures in {camera}"
            findings.append(Finding("error", what, UNPACK, examples(empty)))
    sides = {
        side: tuple(seen[name, camid] for name in some for camid in camids if (name, camid) in seen)
        for side, some, camids in (
            ("train", people.train, (0, 1)),
            ("query", people.test, (0,)),
            ("gallery", people.test, (1,)),
        )
    }
    findings += wrong_counts(sides, expected, "identities", "tracklets")
    train, query, gallery = sides.values()
    return Reading(pair.name, train, query, gallery, PROTOCOL, tuple(findings))


def pictures(folder: Path) -> tuple[str, ...]:
    """The pictures in a folder, sorted by name; nothing where there is no folder."""
    if not folder.is_dir():
        return ()
    return tuple(str(path) for path in sorted(folder.iterdir()) if is_image(path))


def number(pair: Pair, person: str) -> int:
    """The number in the name of a person's folder."""
    match = pair.person.fullmatch(person)
    assert match is not None, "names that do not fit were sifted out"
    return int(match[1])


def missing_frames(samples: Iterable[Sample], folder: Path) -> list[Finding]:
    """An error where listed frames are not there; folders are listed, no file is looked at."""
    listed: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        listed[os.path.dirname(sample.frames[0])] += sample.frames
    lost: list[str] = []
    for place, frames in listed.items():
        there = set(os.listdir(place)) if os.path.isdir(place) else set()
        lost += [frame for frame in frames if os.path.basename(frame) not in there]
    if not lost:
        return []
    what = f"{len(lost):,} listed frames are not in {folder}"
    return [Finding("error", what, UNPACK, examples(sorted(lost)))]
