"""PRID 2011, the part with many pictures a person: 178 people, one tracklet from either camera."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from reidkit.data.adapters.matlab import find_in_mat, read_mat
from reidkit.data.adapters.tracklets import (
    PROTOCOL,
    Pair,
    People,
    assemble,
    halves,
    open_pair,
    pictures,
)
from reidkit.data.benchmarks import BENCHMARKS, READERS, Finding, Reading, settle
from reidkit.types import Benchmark, CheckLevel

PAIR = Pair(
    "prid2011",
    ("prid_2011", "prid2011/prid_2011", "PRID2011/prid_2011", "prid2011", "PRID2011"),
    ("multi_shot/cam_a", "multi_shot/cam_b"),
    re.compile(r"person_(\d+)"),
    "person_0001",
)
# identities, tracklets
STATISTICS = {"train": (89, 178), "query": (89, 89), "gallery": (89, 89)}
SPLIT_FILES = (
    "splits_prid2011.json",
    "splits_prid2011.mat",
    "splits_prid.mat",
    "train_test_splits_prid.mat",
)
SPLIT_FOLDER = "train-test people splits"
SHARED = 200  # the first so many people are the same in both cameras
SHORTEST = 27  # pictures in each camera, for those who count


@BENCHMARKS.register("prid2011")
def load(root: Path, check: CheckLevel = "strict", *, split: int = 1) -> Benchmark:
    """PRID 2011: Hirzer et al., Person Re-Identification by Descriptive and Discriminative
    Classification, SCIA 2011, with the splits of Wang et al., ECCV 2014.

    `root` holds `multi_shot`, or holds the folder `prid_2011` that does. In it, beside it, or in
    `root` lies the file of splits: `splits_prid2011.json`, a list of `{"train": [...], "test":
    [...]}` with names of folders, or `splits_prid2011.mat`, `splits_prid.mat` or
    `train_test_splits_prid.mat` with `ls_set` (10, 178), whose first half is tested. Both forms
    name the same people in the copies compared. `split` is one of ten, counted from 1; `cam_a` asks
    and `cam_b` answers. Papers give the mean over all ten.

    Numbers in `ls_set` are places in `select_idx`, the numbers of 178 people. Where that is absent,
    they are the people up to 200 with at least 27 pictures in both cameras (unverified).
    """
    return settle(read(root, split=split), check)


@READERS.register("prid2011")
def read(root: Path, *, split: int = 1) -> Reading:
    """Everything readable of PRID 2011 under `root`, with what is wrong; see `load`.

    Raises ValueError for a split outside 1 to 10 or a file of splits that cannot be used,
    FileNotFoundError where `root` is no folder.
    """
    folder, cameras, findings = open_pair(PAIR, root, split, "multi_shot")
    path = find_splits(root, folder)
    if path is None:
        what = f"no file of splits in {root}, such as {SPLIT_FILES[0]}"
        findings.append(Finding("error", what, f"{PAIR.expected}.", missing=True))
    if path is None or not all(cameras):
        return Reading(PAIR.name, (), (), (), PROTOCOL, tuple(findings))
    chosen = read_json(path, split) if path.suffix == ".json" else read_table(path, split, folder)
    return assemble(PAIR, folder, chosen, STATISTICS, findings)


def find_splits(root: Path, folder: Path) -> Path | None:
    """The first of the usual files of splits in the set's folder, beside it, or in `root`."""
    near = (folder, folder.absolute().parent, root)
    places = (place / inside for inside in ("", SPLIT_FOLDER) for place in near)
    files = (place / name for place in places for name in SPLIT_FILES)
    return next((file for file in files if file.is_file()), None)


def read_json(path: Path, split: int) -> People:
    """The people of split number `split` (from 1) of a list of `{"train": [...], "test": [...]}`.

    Raises ValueError where the file has another form, or where somebody is named twice.
    """
    try:
        splits = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{PAIR.name}: {path} is no JSON ({error}). {PAIR.expected}") from error
    if not isinstance(splits, list):
        raise ValueError(f"{path} is no list of splits; get the original file again")
    if split > len(splits):
        raise ValueError(f"{path} has {len(splits)} splits, so there is none of number {split}")
    sides = []
    for side in ("train", "test"):
        chosen = splits[split - 1]
        names = chosen.get(side) if isinstance(chosen, dict) else None
        if not isinstance(names, list) or not all(
            isinstance(name, str) and PAIR.person.fullmatch(name) for name in names
        ):
            raise ValueError(
                f"{path}: split {split} has no list {side!r} of names like {PAIR.form}; get the "
                "original file again"
            )
        sides.append(names)
    everyone = [name for names in sides for name in names]
    twice = sorted({name for name in everyone if everyone.count(name) > 1})
    if twice:
        raise ValueError(
            f"{path}: split {split} names {', '.join(twice[:5])} more than once; get the original "
            "file again"
        )
    return People(tuple(sorted(sides[0])), tuple(sorted(sides[1])))


def read_table(path: Path, split: int, folder: Path) -> People:
    """The people of split number `split` (from 1) of a MATLAB file; see `load`."""
    table = read_mat(path, "ls_set")
    numbers = find_in_mat(path, "select_idx")
    if numbers is None:
        people = [name for name in names_of(range(1, SHARED + 1)) if is_long(folder, name)]
    else:
        people = names_of(numbers.ravel().tolist())
        if numbers.min() < 1 or len(set(people)) < len(people):
            raise ValueError(
                f"{path}: 'select_idx' does not hold the number of each person once; get the "
                "original file again"
            )
    return halves(path, table, split, people)


def names_of(numbers: Iterable[int]) -> list[str]:
    """The folders of people with these numbers."""
    return [f"person_{number:04d}" for number in numbers]


def is_long(folder: Path, person: str) -> bool:
    """Whether a person has enough pictures in both cameras."""
    return all(len(pictures(folder / camera / person)) >= SHORTEST for camera in PAIR.cameras)
