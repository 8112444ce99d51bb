"""MARS: tracklets of 1,261 people in six cameras, cut by a tracker."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidkit.data.adapters.matlab import Integers, read_mat
from reidkit.data.adapters.tracklets import find_root, missing_frames
from reidkit.data.benchmarks import BENCHMARKS, READERS, Finding, Reading, examples, settle
from reidkit.types import Benchmark, CheckLevel, EvalProtocol, Sample

Protocol = Literal["mars", "without_queries"]

NAME = "mars"
PARENTS = ("MARS", "mars", "Mars")
LAYOUT = "Expected layout: datasets/README.md#mars"
REMEDY = "Get the files of `info` from the authors' evaluation code again."
CAMERAS = 6
JUNK, DISTRACTOR = -1, 0
SCORES = ("mAP", "mINP", "rank-1", "rank-5", "rank-10", "rank-20")
PROTOCOLS = {
    "mars": EvalProtocol("same_camera", SCORES, precision="trapezoid"),
    "without_queries": EvalProtocol("same_camera", SCORES, gallery="without_queries"),
}
FORM = "0001C1T0001F001.jpg"
FRAME = re.compile(r"\d{4}C\dT\d+F\d+\.jpe?g", re.IGNORECASE)
TIME = re.compile(r"F(\d+)\.")
FILES = (
    *("train_name.txt", "test_name.txt"),
    *("tracks_train_info.mat", "tracks_test_info.mat", "query_IDX.mat"),
)


class Count(NamedTuple):
    """How many tracklets, values of pid and frames, and the frames of the extreme tracklets."""

    tracklets: int
    pids: int
    frames: int
    shortest: int
    longest: int

    def __str__(self) -> str:
        return (
            f"{self.tracklets:,} tracklets of {self.pids:,} identities with {self.frames:,} frames "
            f"({self.shortest:,} to {self.longest:,} each)"
        )


# Counted in the `info` files of the authors' evaluation code.
STATISTICS = {
    "train": Count(8298, 625, 509914, 5, 900),
    "test": Count(12180, 636, 681089, 2, 920),
    "junk": Count(870, 1, 23380, 6, 226),
    "distractors": Count(3248, 1, 147743, 6, 734),
    "people": Count(8062, 634, 509966, 2, 920),
    "query": Count(1980, 626, 114493, 2, 880),
}


class Tracks(NamedTuple):
    """MARS' tables with everything counted from 0.

    `train` and `test` have rows (start, stop, pid, camid); the frames of a tracklet are
    `names[start:stop]` of its list. `query` are places in `test`.
    """

    train: Integers  # (N, 4)
    test: Integers  # (M, 4)
    query: Integers  # (Q,)


@BENCHMARKS.register(NAME)
def load(
    root: Path,
    check: CheckLevel = "strict",
    *,
    protocol: Protocol = "mars",
    times: bool = False,
) -> Benchmark:
    """MARS: Zheng et al., MARS: A Video Benchmark for Large-Scale Person Re-identification, ECCV
    2016.

    `root` holds `info`, `bbox_train` and `bbox_test`, or holds the folder `MARS` or `mars` that
    does. A sample is a tracklet. Those with pid 0 are distractors and stay; pid -1 is junk and is
    dropped. By `protocol` the gallery holds the queries too ("mars", the authors' own: the camera
    rule takes each out for itself, and all 1,980 count), or no query at all ("without_queries", as
    torchreid has it: 9,330 tracklets, in which 140 queries have no right answer).

    `times` takes the number behind the F of a name for the frame's in its camera's video, and gives
    each sample its `span`. Leave it off for the published set, which counts frames within the
    tracklet; sets in its layout may have real ones, those of `tools/cut_market_tracklets.py` do.
    """
    return settle(read(root, protocol=protocol, times=times, files=check != "off"), check)


@READERS.register(NAME)
def read(
    root: Path, *, protocol: Protocol = "mars", times: bool = False, files: bool = True
) -> Reading:
    """Everything readable of MARS under `root`, with what is wrong; see `load`.

    `files=False` leaves out the look whether the listed frames exist. Raises FileNotFoundError
    where `root` is no folder, ValueError where a table or a list of names cannot be read or there
    is no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"{NAME}: protocol is {protocol!r}, expected {' or '.join(PROTOCOLS)}")
    rules = PROTOCOLS[protocol]
    if not root.is_dir():
        raise FileNotFoundError(f"{NAME}: no folder {root}. {LAYOUT}")
    folder = find_root(root, PARENTS, "info")
    findings = absent(folder)
    if findings:
        return Reading(NAME, (), (), (), rules, tuple(findings))
    tracks = read_tracks(folder / "info")
    findings += compare(tracks)
    train = read_side(folder, "train", tracks.train, times, findings)
    test = read_side(folder, "test", tracks.test, times, findings)
    query = read_query(tracks, test, findings)
    asked = set(query) if protocol == "without_queries" else set()
    if files:
        for samples, part in ((train, "train"), (test, "test")):
            findings += missing_frames(samples.values(), folder / f"bbox_{part}")
    return Reading(
        NAME,
        tuple(train.values()),
        tuple(test[place] for place in query),
        tuple(sample for place, sample in test.items() if place not in asked),
        rules,
        tuple(findings),
    )


def absent(folder: Path) -> list[Finding]:
    """A finding for each file of `info` and each folder of frames that is not there."""
    remedy = f"{LAYOUT}."
    parts = ("bbox_train", "bbox_test")
    lost = [f"no folder {part!r}" for part in parts if not (folder / part).is_dir()]
    lost += [f"no file 'info/{name}'" for name in FILES if not (folder / "info" / name).is_file()]
    return [Finding("error", f"{what} in {folder}", remedy, missing=True) for what in lost]


def read_tracks(info: Path) -> Tracks:
    """The tables of a folder `info`, without a look at names or frames.

    Raises FileNotFoundError where one is not there, ValueError where it is no such table. What the
    numbers say is not judged here.
    """
    for name in FILES[2:]:
        if not (info / name).is_file():
            raise FileNotFoundError(f"{NAME}: no file {info / name}. {LAYOUT}")
    tables = []
    for split in ("train", "test"):
        path, key = info / f"tracks_{split}_info.mat", f"track_{split}_info"
        table = read_mat(path, key)
        if table.shape[1] != 4:
            raise ValueError(
                f"{path}: {key!r} has {table.shape[1]} columns, expected 4: start, end, pid, camera"
            )
        tables.append(table - (1, 0, 0, 1))
    query = read_mat(info / "query_IDX.mat", "query_IDX")
    if 1 not in query.shape:
        raise ValueError(f"{info / 'query_IDX.mat'}: shape {query.shape}, expected one row")
    return Tracks(tables[0], tables[1], query.ravel() - 1)


def count(table: Integers) -> Count:
    """What rows (start, stop, pid, camid) amount to."""
    if not len(table):
        return Count(0, 0, 0, 0, 0)
    length = table[:, 1] - table[:, 0]
    extremes = int(length.min()), int(length.max())
    return Count(len(table), len(np.unique(table[:, 2])), int(length.sum()), *extremes)


def statistics(tracks: Tracks) -> dict[str, Count]:
    """The counts of the tables and of the parts of the test side, named as in `STATISTICS`."""
    pid = tracks.test[:, 2]
    there = tracks.query[(tracks.query >= 0) & (tracks.query < len(pid))]
    parts = {
        "train": tracks.train,
        "test": tracks.test,
        "junk": tracks.test[pid == JUNK],
        "distractors": tracks.test[pid == DISTRACTOR],
        "people": tracks.test[pid > DISTRACTOR],
        "query": tracks.test[there],
    }
    return {name: count(rows) for name, rows in parts.items()}


def compare(tracks: Tracks) -> list[Finding]:
    """An error for each part that is not as large as published."""
    found = statistics(tracks)
    return [
        Finding("error", f"{name} has {found[name]}, expected {expected}", REMEDY)
        for name, expected in STATISTICS.items()
        if found[name] != expected
    ]


def read_side(
    folder: Path, split: str, table: Integers, times: bool, findings: list[Finding]
) -> dict[int, Sample]:
    """The samples of one table by their rows (from 0), without junk, with spans by `times`.

    Rows that contradict the list of names are left out and added to `findings`.
    """
    names = read_names(folder / "info" / f"{split}_name.txt")
    faults = row_faults(table, names, lowest=1 if split == "train" else JUNK)
    samples: dict[int, Sample] = {}
    for row, (start, stop, pid, camid) in enumerate(table.tolist()):
        # Names of junk are not held against a copy: nothing of it is used.
        if row in faults or pid == JUNK:
            continue
        prefix = f"{pid:04d}C{camid + 1}"
        chunk = names[start:stop]
        astray = next((name for name in chunk if not fits(name, prefix)), None)
        if astray is not None:
            faults[row] = f"pid {pid}, camera {camid + 1}, but it holds {astray!r}"
            continue
        place = f"{folder}/bbox_{split}/{pid:04d}/"
        frames = tuple([place + name for name in chunk])
        span = span_of(chunk) if times else None
        samples[row] = Sample(frames, pid, camid, domain=NAME, span=span)
    if faults:
        what = f"{len(faults):,} rows of tracks_{split}_info.mat are wrong and left out"
        where = examples(f"row {row + 1}: {faults[row]}" for row in sorted(faults))
        findings.append(Finding("error", what, REMEDY, where))
    elif stray := uncovered(table, names):
        what = f"{len(stray):,} names of {split}_name.txt are in no row of tracks_{split}_info.mat"
        findings.append(Finding("error", what, REMEDY, examples(stray)))
    if junk := int((table[:, 2] == JUNK).sum()):
        what = f"{junk:,} junk tracklets (pid -1) of {split} are left out, as the protocol says"
        findings.append(Finding("note", what))
    return samples


def span_of(names: list[str]) -> tuple[float, float]:
    """The first and the last frame number in names of MARS' form."""
    moments = [float(TIME.findall(name)[-1]) for name in names]
    return min(moments), max(moments)


def read_names(path: Path) -> list[str]:
    """The names of all frames of one side, a line each, in the order the tables count them.

    Raises ValueError where the file is no text.
    """
    try:
        lines = path.read_text("utf-8-sig").rstrip().split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}). {REMEDY}") from error
    return [line.strip() for line in lines]


def row_faults(table: Integers, names: list[str], lowest: int) -> dict[int, str]:
    """What is wrong with the numbers of a table, by row (from 0); `lowest` is the least pid."""
    start, stop, pid, camid = table.T
    order = np.argsort(start, kind="stable")
    # How far the tracklets that start earlier go; one that goes too far takes no other with it.
    reach = np.zeros_like(stop)
    reach[order[1:]] = np.maximum.accumulate(np.where(stop > len(names), 0, stop)[order])[:-1]
    checks: list[tuple[NDArray[np.bool_], Callable[[int], str]]] = [
        (start < 0, lambda row: f"starts at {start[row] + 1}, expected 1 or more"),
        (stop <= start, lambda row: f"starts at {start[row] + 1:,} and ends at {stop[row]:,}"),
        (
            stop > len(names),
            lambda row: f"ends at {stop[row]:,}, but the list has {len(names):,} names",
        ),
        (pid < lowest, lambda row: f"pid {pid[row]}, expected {lowest} or more"),
        (
            (camid < 0) | (camid >= CAMERAS),
            lambda row: f"camera {camid[row] + 1}, expected 1 to {CAMERAS}",
        ),
        (
            start < reach,
            lambda row: f"starts at {start[row] + 1:,}, where another goes to {reach[row]:,}",
        ),
    ]
    faults: dict[int, str] = {}
    for wrong, say in checks:
        for row in np.flatnonzero(wrong).tolist():
            faults.setdefault(row, say(row))
    return faults


def uncovered(table: Integers, names: list[str]) -> list[str]:
    """The names that are in no tracklet of a table without faults."""
    level = np.zeros(len(names) + 1, np.int64)
    np.add.at(level, table[:, 0], 1)
    np.add.at(level, table[:, 1], -1)
    return [names[place] for place in np.flatnonzero(np.cumsum(level)[:-1] == 0)]


def fits(name: str, prefix: str) -> bool:
    """Whether a name has the form of MARS' names and begins as its row says."""
    return name.startswith(prefix) and FRAME.fullmatch(name) is not None


def read_query(tracks: Tracks, test: dict[int, Sample], findings: list[Finding]) -> list[int]:
    """The rows of the queries in the table of `test`, as listed; wrong ones go to `findings`."""
    query: dict[int, None] = {}
    faults = []
    for number, row in enumerate(tracks.query.tolist(), start=1):
        what = ""
        if not 0 <= row < len(tracks.test):
            what = f"is row {row + 1}, expected 1 to {len(tracks.test):,}"
        elif row in query:
            what = f"is row {row + 1} a second time"
        elif (pid := int(tracks.test[row, 2])) <= DISTRACTOR:
            what = f"is row {row + 1} with pid {pid}, expected a person's"
        elif row not in test:
            what = f"is row {row + 1}, which is left out"
        else:
            query[row] = None
        if what:
            faults.append(f"query {number} {what}")
    if faults:
        what = f"{len(faults):,} entries of query_IDX.mat are wrong and left out"
        findings.append(Finding("error", what, REMEDY, examples(faults)))
    return list(query)
