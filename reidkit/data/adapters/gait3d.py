"""Gait3D: 4,000 people in a supermarket under 39 cameras."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reidkit.data.adapters.gait_layouts import Layout, count_identities, find_walks, sift
from reidkit.data.adapters.gait_trees import Walk
from reidkit.data.benchmarks import BENCHMARKS, READERS, Finding, Reading, examples, settle
from reidkit.types import Benchmark, CheckLevel, EvalProtocol, Sample

NAME, LISTS = "gait3d", "Gait3D.json"
STATISTICS = {"train": 3000, "test": 1000, "probe": 1000}  # identities, identities, sequences
KEYS = ("TRAIN_SET", "TEST_SET", "PROBE_SET")
REPORT = ("rank-1", "rank-5", "rank-10", "mAP", "mINP")
SUBJECT = re.compile(r"\d{4}")
CONDITION = re.compile(r"camid(\d{1,4})_videoid\d+")
VIEW = re.compile(r"seq\d+")
LAYOUT = Layout(
    NAME,
    (
        *("2D_Silhouettes", "Gait3D", "Gait3D/2D_Silhouettes", "gait3d", "gait3d/2D_Silhouettes"),
        *("Gait3D-sils-64-64-pkl", "Gait3D-sils-64-44-pkl"),
    ),
    SUBJECT,
)


@dataclass(frozen=True, slots=True)
class Lists:
    """The lists of `Gait3D.json`: identities, identities, `0002-camid33_videoid2-seq0`."""

    train: frozenset[str]
    test: frozenset[str]
    probe: frozenset[str]


@BENCHMARKS.register(NAME)
def load(root: Path, check: CheckLevel = "strict") -> Benchmark:
    """Gait3D: Zheng et al., Gait Recognition in the Wild with Dense 3D Representations and A
    Benchmark, CVPR 2022.

    `root` is a packed store or the tree `0000/camid0_videoid2/seq0/*.png`, or holds one of them as
    `2D_Silhouettes`, `Gait3D`, `gait3d` or `gait3d.pack`. `Gait3D.json` of the authors, with
    TRAIN_SET, TEST_SET and PROBE_SET, lies in the tree, beside it, or in `root`. Each probe asks
    all other test sequences; those of its own camera count.
    """
    return settle(read(root), check)


@READERS.register(NAME)
def read(root: Path) -> Reading:
    """Everything readable of Gait3D under `root`, with what is wrong; see `load`."""
    findings: list[Finding] = []
    rules = EvalProtocol("nothing", report=REPORT)
    folder, found = find_walks(LAYOUT, root, findings)
    path = find_lists(root, folder)
    if path is None:
        what = f"no {LISTS} in {root}, which says who trains and which sequences ask"
        findings.append(Finding("error", what, f"{LAYOUT.expected}.", missing=True))
        return Reading(NAME, (), (), (), rules, tuple(findings))
    lists = read_lists(path, findings)
    walks = sift(found, fits, "0000/camid0_videoid2/seq0", findings)
    train = samples(walk for walk in walks if walk.subject in lists.train)
    tested = [walk for walk in walks if walk.subject in lists.test]
    query = samples(walk for walk in tested if key_of(walk) in lists.probe)
    gallery = samples(walk for walk in tested if key_of(walk) not in lists.probe)
    if found:
        findings += compare(walks, lists)
    return Reading(NAME, train, query, gallery, rules, tuple(findings))


def find_lists(root: Path, folder: Path) -> Path | None:
    """The file of lists in the set's folder, above it, or in `root`."""
    places = (folder, folder.parent, root, *(root / name for name in LAYOUT.usual))
    return next((place / LISTS for place in places if (place / LISTS).is_file()), None)


def read_lists(path: Path, findings: list[Finding]) -> Lists:
    """The lists in `path`; contradictions between them go to `findings`.

    Raises ValueError where it is no JSON or lacks one of the three lists of names.
    """
    try:
        plain = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{NAME}: {path} is no JSON ({error}). {LAYOUT.expected}") from error
    for key in KEYS:
        names = plain.get(key) if isinstance(plain, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(
                f"{NAME}: {path} has no list of names {key!r}; expected {', '.join(KEYS)}. "
                f"{LAYOUT.expected}"
            )
    lists = Lists(*(frozenset(plain[key]) for key in KEYS))
    both = sorted(lists.train & lists.test)
    if both:
        what = f"{len(both):,} identities are in both TRAIN_SET and TEST_SET of {path}"
        remedy = "They are left out of training; take the authors' file."
        findings.append(Finding("error", what, remedy, examples(both)))
    astray = sorted(name for name in lists.probe if name.partition("-")[0] not in lists.test)
    if astray:
        what = f"{len(astray):,} probes of {path} are of no identity in TEST_SET"
        findings.append(Finding("error", what, "Take the authors' file.", examples(astray)))
    return Lists(lists.train - lists.test, lists.test, lists.probe)


def fits(walk: Walk) -> bool:
    """Whether a sequence is named as Gait3D names them."""
    patterns = (SUBJECT, CONDITION, VIEW)
    return all(pattern.fullmatch(name) for pattern, name in zip(patterns, walk[:3], strict=True))


def key_of(walk: Walk) -> str:
    """A sequence as PROBE_SET lists it."""
    return f"{walk.subject}-{walk.condition}-{walk.view}"


def samples(walks: Iterable[Walk]) -> tuple[Sample, ...]:
    """The sequences as samples; cameras are counted from 0 in the names already."""
    found = []
    for walk in walks:
        match = CONDITION.fullmatch(walk.condition)
        camid = int(match[1]) if match else -1
        found.append(Sample(walk.frames, int(walk.subject), camid, walk.view, walk.condition, NAME))
    return tuple(found)


def compare(walks: list[Walk], lists: Lists) -> list[Finding]:
    """Errors where identities or probes are not those of the lists or not as many as published."""
    there = {walk.subject for walk in walks}
    findings = []
    for side, names in (("train", lists.train), ("test", lists.test)):
        findings += count_identities(side, len(names & there), STATISTICS[side], names - there)
    keys = {key_of(walk) for walk in walks}
    absent = sorted(lists.probe - keys)
    if len(lists.probe) != STATISTICS["probe"] or absent:
        what = f"{len(lists.probe & keys):,} probes are there, expected {STATISTICS['probe']:,}"
        where = examples(f"no {name}" for name in absent)
        findings.append(Finding("error", what, "Unpack the original archives again.", where))
    unlisted = sorted(there - lists.train - lists.test)
    if unlisted:
        what = f"{len(unlisted):,} identities are in neither list and are left out"
        findings.append(Finding("warning", what, where=examples(unlisted)))
    return findings
