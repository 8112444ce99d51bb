"""GREW: gait in the wild, 26,000 identities, 12,000 probes whose labels are hidden."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from reidkit.data.adapters.gait_layouts import (
    Layout,
    both_sides,
    count_identities,
    find_walks,
    sift,
)
from reidkit.data.adapters.gait_trees import Scan, Walk, scan_tree
from reidkit.data.benchmarks import BENCHMARKS, READERS, Finding, Reading, settle
from reidkit.types import UNKNOWN_CAMERA, Benchmark, CheckLevel, EvalProtocol, Sample

Protocol = Literal["local", "submission"]

NAME = "grew"
STATISTICS = {"train": 20000, "test": 6000}  # identities
SEQUENCES = {"gallery": 12000, "probe": 12000}  # two of each test identity on both sides
PROTOCOLS = ("local", "submission")
# 00001train and 00001 are two people; with this added to the first, the test keeps the numbers
# that a submission writes.
TRAIN_PIDS = 100_000
HIDDEN = -1
TRAIN, TEST = re.compile(r"\d{5}train"), re.compile(r"\d{5}")
PROBE, PROBE_CONDITION, TRAIN_CONDITION = "probe", "03", "00"
FIRST, SECOND = "01", "02"
REPORT = ("rank-1", "rank-5", "rank-10", "rank-20")


def scan(folder: Path) -> Scan:
    """The sequences of the archives, `train/{id}/{video}` and `test/{gallery/{id}, probe}/{video}`,
    or of the tree `{id}/{condition}/{video}` that OpenGait makes of them.

    The two videos of a gallery identity become conditions 01 and 02 by sorted order; OpenGait takes
    the order of its file system, so its two may be the other way round.
    """
    found = Scan(folder)
    if not (folder / "train").is_dir():
        return scan_tree(folder)
    for subject in found.subfolders("train"):
        for video in found.subfolders("train", subject):
            found.add(f"{subject}train", TRAIN_CONDITION, video, "train", subject, video)
    if (folder / "test" / "gallery").is_dir():
        for subject in found.subfolders("test", "gallery"):
            for number, video in enumerate(found.subfolders("test", "gallery", subject), start=1):
                found.add(subject, f"{number:02d}", video, "test", "gallery", subject, video)
    if (folder / "test" / PROBE).is_dir():
        for video in found.subfolders("test", PROBE):
            found.add(PROBE, PROBE_CONDITION, video, "test", PROBE, video)
    return found


def is_archive(folder: Path) -> bool:
    """Whether a folder holds `train` and `test/gallery`, as unpacked."""
    return os.path.isdir(folder / "train") and os.path.isdir(folder / "test" / "gallery")


LAYOUT = Layout(
    NAME,
    ("GREW", "grew", "GREW-raw", "GREW-rearranged", "GREW-pkl"),
    re.compile(r"\d{5}(?:train)?"),
    scan,
    is_archive,
)


@BENCHMARKS.register(NAME)
def load(root: Path, check: CheckLevel = "strict", *, protocol: Protocol = "local") -> Benchmark:
    """GREW: Zhu et al., Gait Recognition in the Wild: A Benchmark, ICCV 2021.

    `root` is a packed store, the unpacked archives (`train/00001/VIDEO`, `test/gallery/00001/VIDEO`
    and `test/probe/VIDEO`), or the same rearranged as `00001train/00/VIDEO`, `00001/01/VIDEO` and
    `probe/03/VIDEO`, or holds one of them as `GREW`, `grew` or `grew.pack`. The silhouettes are
    64 x 64 and aligned already.

    Protocol "local" asks the gallery's condition 01 with its condition 02: what one can score at
    home. "submission" has the probes as queries, of unknown identity (-1), and the whole gallery;
    `view` is the video's name, and nothing can be scored: `grew_submission` writes the file for the
    server. The numbers of the two are not comparable. Training identities have 100,000 added, so
    that 00001train (100001) and 00001 (1) remain two people.
    """
    return settle(read(root, protocol=protocol), check)


@READERS.register(NAME)
def read(root: Path, *, protocol: Protocol = "local") -> Reading:
    """Everything readable of GREW under `root`, with what is wrong; see `load`."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"{NAME}: protocol is {protocol!r}, expected {' or '.join(PROTOCOLS)}")
    findings: list[Finding] = []
    folder, found = find_walks(LAYOUT, root, findings)
    walks = sift(found, fits, "00001train/00/VIDEO, 00001/01/VIDEO or probe/03/VIDEO", findings)
    train = samples(walk for walk in walks if TRAIN.fullmatch(walk.subject))
    gallery = samples(walk for walk in walks if TEST.fullmatch(walk.subject))
    probe = samples(walk for walk in walks if walk.subject == PROBE)
    if found:
        for side, part in (("train", train), ("test", gallery)):
            findings += count_identities(side, len({one.pid for one in part}), STATISTICS[side])
        findings += count_sequences(gallery, probe)
    if protocol == "local":
        query = tuple(sample for sample in gallery if sample.condition == SECOND)
        gallery = tuple(sample for sample in gallery if sample.condition == FIRST)
        findings += both_sides(LAYOUT, train, query)
    else:
        query = probe
        if found and not probe:
            what = f"no folder of probes in {folder}"
            findings.append(Finding("error", what, f"{LAYOUT.expected}.", missing=True))
    rules = EvalProtocol("nothing", report=REPORT)
    return Reading(NAME, train, query, gallery, rules, tuple(findings))


def fits(walk: Walk) -> bool:
    """Whether a sequence is named as GREW names them."""
    if TEST.fullmatch(walk.subject):
        return walk.condition in (FIRST, SECOND)
    return walk.subject == PROBE or TRAIN.fullmatch(walk.subject) is not None


def samples(walks: Iterable[Walk]) -> tuple[Sample, ...]:
    """The sequences as samples; which of the hundreds of cameras saw them is not told."""
    return tuple(
        Sample(walk.frames, pid_of(walk.subject), UNKNOWN_CAMERA, walk.view, walk.condition, NAME)
        for walk in walks
    )


def pid_of(subject: str) -> int:
    """The identity by its folder: 1 for `00001`, 100001 for `00001train`, -1 for `probe`."""
    if subject == PROBE:
        return HIDDEN
    number = subject.removesuffix("train")
    return int(number) + (TRAIN_PIDS if number != subject else 0)


def count_sequences(gallery: tuple[Sample, ...], probe: tuple[Sample, ...]) -> list[Finding]:
    """Warnings where the sides hold other numbers of sequences than published."""
    found = {"gallery": len(gallery), "probe": len(probe)}
    return [
        Finding("warning", f"{side} has {found[side]:,} sequences, expected {expected:,}")
        for side, expected in SEQUENCES.items()
        if found[side] != expected
    ]
