"""CASIA-B: 124 people who walk normally, with a bag and in a coat, seen from 11 views."""

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
    walk_samples,
)
from reidkit.data.adapters.gait_trees import Walk
from reidkit.data.benchmarks import BENCHMARKS, READERS, Finding, Reading, examples, settle
from reidkit.types import Benchmark, CheckLevel, EvalProtocol

Split = Literal["LT", "MT", "ST"]
Protocol = Literal["casia_b", "casia_b_cross_view"]

NAME = "casia_b"
STATISTICS = {"identities": 124, "views": 11, "sequences": 13640}  # at most: some were never made
IDENTITIES = tuple(f"{number:03d}" for number in range(1, STATISTICS["identities"] + 1))
TRAINED = {"LT": 74, "MT": 62, "ST": 24}  # the first so many train, the others are tested
VIEWS = tuple(f"{angle:03d}" for angle in range(0, 181, 18))
CONDITIONS = (
    *(f"nm-{walk:02d}" for walk in range(1, 7)),
    *(f"bg-{walk:02d}" for walk in range(1, 3)),
    *(f"cl-{walk:02d}" for walk in range(1, 3)),
)
GALLERY = {
    "casia_b": ("nm-01", "nm-02", "nm-03", "nm-04"),
    "casia_b_cross_view": ("nm-02", "bg-02", "cl-02"),
}
PROBES: dict[str, dict[str, tuple[str, ...]]] = {
    "casia_b": {"NM": ("nm-05", "nm-06"), "BG": ("bg-01", "bg-02"), "CL": ("cl-01", "cl-02")},
    "casia_b_cross_view": {"NM": ("nm-01",), "BG": ("bg-01",), "CL": ("cl-01",)},
}
INCOMPLETE = "005"
LAYOUT = Layout(
    NAME,
    ("CASIA-B", "casia_b", "GaitDatasetB-silh", "CASIA-B-pkl"),
    re.compile(r"\d{3}"),
)
FRAME = re.compile(r"(\d{3}-[a-z]{2}-\d{2}-\d{3})-\d+\.\w+")


@BENCHMARKS.register(NAME)
def load(
    root: Path,
    check: CheckLevel = "strict",
    *,
    split: Split = "LT",
    subject_005: bool = True,
    protocol: Protocol = "casia_b",
) -> Benchmark:
    """CASIA-B: Yu, Tan and Tan, A Framework for Evaluating the Effect of View Angle, Clothing and
    Carrying Condition on Gait Recognition, ICPR 2006.

    `root` is a packed store or the tree `001/nm-01/090/001-nm-01-090-001.png`, or holds one of
    them as `CASIA-B`, `casia_b` or `casia_b.pack`. The splits LT, MT and ST train with the first
    74, 62 and 24 identities and test with the others. `subject_005=False` leaves that incomplete
    subject out, as the code of GaitSet does; OpenGait keeps it.

    Protocol "casia_b" compares nm-05, nm-06 (NM), bg-01, bg-02 (BG) and cl-01, cl-02 (CL) with a
    gallery of nm-01 to nm-04; "casia_b_cross_view" is OpenGait's newer one. Its numbers are others.
    """
    reading = read(root, split=split, subject_005=subject_005, protocol=protocol)
    return settle(reading, check)


@READERS.register(NAME)
def read(
    root: Path,
    *,
    split: Split = "LT",
    subject_005: bool = True,
    protocol: Protocol = "casia_b",
) -> Reading:
    """Everything readable of CASIA-B under `root`, with what is wrong; see `load`."""
    if split not in TRAINED:
        raise ValueError(f"{NAME}: split is {split!r}, expected one of {', '.join(TRAINED)}")
    if protocol not in PROBES:
        raise ValueError(f"{NAME}: protocol is {protocol!r}, expected one of {', '.join(PROBES)}")
    findings: list[Finding] = []
    _, found = find_walks(LAYOUT, root, findings)
    walks = sift(misfiled(found, findings), fits, "001/nm-01/090", findings)
    if found:
        findings += incomplete(walks)
    if not subject_005:
        walks = [walk for walk in walks if walk.subject != INCOMPLETE]
    trained = TRAINED[split]
    train = walk_samples((walk for walk in walks if int(walk.subject) <= trained), VIEWS, NAME)
    tested = walk_samples((walk for walk in walks if int(walk.subject) > trained), VIEWS, NAME)
    groups = PROBES[protocol]
    asked = {condition for conditions in groups.values() for condition in conditions}
    query = tuple(sample for sample in tested if sample.condition in asked)
    gallery = tuple(sample for sample in tested if sample.condition in GALLERY[protocol])
    findings += both_sides(LAYOUT, train, query)
    rules = EvalProtocol("same_view", report=("gait_table",), groups=groups)
    return Reading(NAME, train, query, gallery, rules, tuple(findings))


def fits(walk: Walk) -> bool:
    """Whether a sequence is named as CASIA-B names them."""
    subject, condition, view, _ = walk
    return subject in IDENTITIES and condition in CONDITIONS and view in VIEWS


def misfiled(walks: Iterable[Walk], findings: list[Finding]) -> list[Walk]:
    """The sequences without frames that by their own name belong to another one."""
    kept: list[Walk] = []
    wrong: list[str] = []
    for walk in walks:
        if isinstance(walk.frames, tuple):
            own = f"{walk.subject}-{walk.condition}-{walk.view}"
            strangers = {file for file in walk.frames if _sequence(file) not in ("", own)}
            if strangers:
                wrong += sorted(strangers)
                rest = tuple(file for file in walk.frames if file not in strangers)
                walk = walk._replace(frames=rest)
        if walk.frames:
            kept.append(walk)
    if wrong:
        what = f"{len(wrong):,} frames lie in the folder of another sequence and are left out"
        findings.append(Finding("error", what, "Move them to their own.", examples(wrong)))
    return kept


def _sequence(file: str) -> str:
    match = FRAME.fullmatch(os.path.basename(file))
    return match[1] if match else ""


def incomplete(walks: list[Walk]) -> list[Finding]:
    """An error for absent identities, a warning for sequences that those present lack."""
    subjects = {walk.subject for walk in walks}
    gone = [subject for subject in IDENTITIES if subject not in subjects]
    findings = count_identities("the set", len(subjects), len(IDENTITIES), gone)
    there = {walk.place for walk in walks}
    full = [
        f"{subject}/{condition}/{view}"
        for subject in sorted(subjects)
        for condition in CONDITIONS
        for view in VIEWS
    ]
    missing = [place for place in full if place not in there]
    if missing:
        what = (
            f"{len(missing):,} of {len(full):,} sequences of these {len(subjects)} identities are "
            "missing or unusable"
        )
        remedy = "A few are missing in the original too."
        findings.append(Finding("warning", what, remedy, examples(missing)))
    return findings
