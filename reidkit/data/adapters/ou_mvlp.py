"""OU-MVLP: 10,307 people who walk past 14 cameras twice."""

import re
from pathlib import Path

from reidkit.data.adapters.gait_layouts import (
    Layout,
    both_sides,
    count_identities,
    find_walks,
    sift,
    walk_samples,
)
from reidkit.data.adapters.gait_trees import Scan, Walk, scan_tree
from reidkit.data.benchmarks import BENCHMARKS, READERS, Finding, Reading, settle
from reidkit.data.silhouettes.sources import OUMVLP
from reidkit.types import Benchmark, CheckLevel, EvalProtocol

NAME = "ou_mvlp"
# Identities; and the test sequences that OpenGait counts, of 5,154 x 2 x 14 there might be.
STATISTICS = {"identities": 10307, "train": 5153, "test": 5154, "test sequences": 133780}
VIEWS = tuple(f"{angle:03d}" for angle in (*range(0, 91, 15), *range(180, 271, 15)))
PROBE, GALLERY = "00", "01"
GROUPS = {"00": (PROBE,)}
LAYOUT_NAMES = ("OU-MVLP", "OUMVLP", "ou_mvlp", "OUMVLP-raw", "OUMVLP-rearranged", "OUMVLP-pkl")


def scan(folder: Path) -> Scan:
    """The sequences of `Silhouette_{view}-{seq}/{id}/*.png`, or of the tree `{id}/{seq}/{view}`."""
    found = Scan(folder)
    parts = [(name, OUMVLP.fullmatch(name)) for name in found.subfolders()]
    if not any(match for _, match in parts):
        return scan_tree(folder)
    for name, match in parts:
        if match is None:
            found.others.append(name)
            continue
        for subject in found.subfolders(name):
            found.add(subject, match[2], match[1], name, subject)
    return found


LAYOUT = Layout(NAME, LAYOUT_NAMES, re.compile(rf"\d{{5}}|{OUMVLP.pattern}"), scan)


@BENCHMARKS.register(NAME)
def load(root: Path, check: CheckLevel = "strict") -> Benchmark:
    """OU-MVLP: Takemura et al., Multi-view Large Population Gait Dataset and its Performance
    Evaluation for Cross-view Gait Recognition, IPSJ Trans. Computer Vision and Applications 2018.

    `root` is a packed store, the tree `Silhouette_000-00/00001/0001.png`, or the same rearranged as
    `00001/00/000/0001.png`, or holds one of them as `OU-MVLP`, `OUMVLP`, `ou_mvlp` or
    `ou_mvlp.pack`. Odd identities train, even ones are tested, and 10307, the last, with these.
    Probes are walk 00, the gallery is walk 01. Many sequences were never made.
    """
    return settle(read(root), check)


@READERS.register(NAME)
def read(root: Path) -> Reading:
    """Everything readable of OU-MVLP under `root`, with what is wrong; see `load`."""
    findings: list[Finding] = []
    _, found = find_walks(LAYOUT, root, findings)
    walks = sift(found, fits, "00001/00/090", findings)
    train = walk_samples((walk for walk in walks if is_trained(int(walk.subject))), VIEWS, NAME)
    tested = walk_samples(
        (walk for walk in walks if not is_trained(int(walk.subject))), VIEWS, NAME
    )
    if found:
        for side, part in (("train", train), ("test", tested)):
            findings += count_identities(side, len({one.pid for one in part}), STATISTICS[side])
        findings += missing(walks, len(tested))
    query = tuple(sample for sample in tested if sample.condition == PROBE)
    gallery = tuple(sample for sample in tested if sample.condition == GALLERY)
    findings += both_sides(LAYOUT, train, query)
    rules = EvalProtocol("same_view", report=("gait_table",), groups=GROUPS)
    return Reading(NAME, train, query, gallery, rules, tuple(findings))


def is_trained(number: int) -> bool:
    """Whether the identity is for training: the odd ones but the last."""
    return number % 2 == 1 and number != STATISTICS["identities"]


def fits(walk: Walk) -> bool:
    """Whether a sequence is named as OU-MVLP names them."""
    subject, condition, view, _ = walk
    known = len(subject) == 5 and subject.isascii() and subject.isdigit()
    known = known and 1 <= int(subject) <= STATISTICS["identities"]
    return known and condition in (PROBE, GALLERY) and view in VIEWS


def missing(walks: list[Walk], tested: int) -> list[Finding]:
    """How many sequences the identities lack, and a warning for another number of test ones."""
    findings = []
    full = len({walk.subject for walk in walks}) * 2 * len(VIEWS)
    if len(walks) < full:
        what = f"{full - len(walks):,} of {full:,} sequences are missing or unusable"
        findings.append(Finding("note", what, "Many are missing in the original."))
    if tested != STATISTICS["test sequences"]:
        what = f"test has {tested:,} sequences, expected {STATISTICS['test sequences']:,}"
        findings.append(Finding("warning", what))
    return findings
