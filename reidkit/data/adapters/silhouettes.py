"""Any packed store of silhouettes as a benchmark: one's own walkers, or a small set such as CASIA
Dataset A."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from reidkit.data.adapters.gait_layouts import PACK, PACKED, STORE, stored_walks
from reidkit.data.adapters.gait_trees import Walk
from reidkit.data.benchmarks import BENCHMARKS, READERS, Finding, Reading, examples, settle
from reidkit.data.silhouettes.store import SilhouetteStore, store_samples
from reidkit.types import Benchmark, CheckLevel, EvalProtocol, Sample

NAME, ALL = "silhouettes", "all"

Groups = dict[str, list[str]]


@BENCHMARKS.register(NAME)
def load(
    root: Path,
    check: CheckLevel = "strict",
    *,
    train: float | list[str] = 0.5,
    gallery: list[str] | None = None,
    probe: Groups | None = None,
) -> Benchmark:
    """A benchmark of the packed store `root`, as `reidkit data pack` writes it.

    `train` names the subjects to train with, or is the share of them, in sorted order, that does;
    all others are tested. `gallery` are conditions that answer, `probe` named groups of conditions
    that ask, the rows of the gait table. If one of the two is not given it is all conditions of the
    other's rest, in the group "all"; if neither is, the gallery is the first half of the sorted
    conditions. Views are compared with other views only.
    """
    return settle(read(root, train=train, gallery=gallery, probe=probe), check)


@READERS.register(NAME)
def read(
    root: Path,
    *,
    train: float | list[str] = 0.5,
    gallery: list[str] | None = None,
    probe: Groups | None = None,
) -> Reading:
    """Everything readable of a store with what is wrong; see `load`.

    Raises FileNotFoundError where `root` is no store, ValueError for a share outside (0, 1), for a
    subject or condition that the store does not have, and for a condition on both sides.
    """
    if not (root / STORE).is_file():
        raise FileNotFoundError(
            f"{NAME}: no packed store in {root}: no {STORE} there; write one with {PACK}"
        )
    findings: list[Finding] = []
    store = SilhouetteStore.open(root)
    walks = stored_walks(store, findings)
    domain = root.resolve().name.removesuffix(PACKED)
    views = sorted({walk.view for walk in walks}, key=by_angle)
    samples = [
        replace(sample, camid=views.index(sample.view)) for sample in store_samples(store, domain)
    ]
    trained = training_subjects(sorted({walk.subject for walk in walks}), train)
    sides: dict[bool, list[Sample]] = {True: [], False: []}
    for walk, sample in zip(walks, samples, strict=True):
        sides[walk.subject in trained].append(sample)
    tested = sides[False]
    conditions = sorted({sample.condition for sample in tested})
    answers, groups = split_conditions(conditions, gallery, probe)
    asked = {condition for names in groups.values() for condition in names}
    findings += repeated(walks)
    if walks and len(views) == 1:
        what = f"all sequences are of one view, {views[0]!r}; a gait table compares different views"
        findings.append(Finding("warning", what, "Nothing will be scored."))
    return Reading(
        NAME,
        tuple(sides[True]),
        tuple(sample for sample in tested if sample.condition in asked),
        tuple(sample for sample in tested if sample.condition in answers),
        EvalProtocol("same_view", report=("gait_table",), groups=groups),
        tuple(findings),
    )


def by_angle(view: str) -> tuple[float, str]:
    """The key that sorts views: angles by their number, other names after them."""
    return (float(view) if view.isdecimal() else float("inf"), view)


def training_subjects(subjects: Sequence[str], train: float | list[str]) -> frozenset[str]:
    """Those of the sorted `subjects` that train: the named ones, or the first share."""
    if isinstance(train, list):
        refuse_unknown("subject", train, subjects)
        return frozenset(train)
    if not 0 < train < 1:
        raise ValueError(
            f"{NAME}: train is {train}, expected a share between 0 and 1 or a list of subjects"
        )
    if len(subjects) < 2:
        raise ValueError(
            f"{NAME}: {len(subjects)} subjects cannot be shared out; expected at least 2, or "
            "train=[] to test all"
        )
    cut = min(max(round(train * len(subjects)), 1), len(subjects) - 1)
    return frozenset(subjects[:cut])


def split_conditions(
    conditions: Sequence[str],
    gallery: Sequence[str] | None,
    probe: Mapping[str, Sequence[str]] | None,
) -> tuple[frozenset[str], dict[str, tuple[str, ...]]]:
    """The conditions that answer and the groups that ask, of the sorted ones of the tested."""
    groups = {name: tuple(names) for name, names in (probe or {}).items()}
    asked = [condition for names in groups.values() for condition in names]
    refuse_unknown("condition", [*(gallery or ()), *asked], conditions)
    both = sorted(set(gallery or ()) & set(asked))
    if both:
        raise ValueError(
            f"{NAME}: conditions {', '.join(both)} are in both gallery and probe; give each to one"
        )
    if gallery is None:
        rest = [condition for condition in conditions if condition not in asked]
        gallery = rest if probe is not None else conditions[: (len(conditions) + 1) // 2]
    if probe is None:
        rest = [condition for condition in conditions if condition not in gallery]
        groups = {ALL: tuple(rest)}
    if not gallery or not groups or not all(groups.values()):
        raise ValueError(
            f"{NAME}: the tested subjects have the conditions {', '.join(conditions) or 'none'}; "
            "expected at least one for the gallery and one for each group of probes"
        )
    return frozenset(gallery), groups


def refuse_unknown(kind: str, names: Iterable[str], known: Sequence[str]) -> None:
    """A ValueError for names that the store does not have."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(
            f"{NAME}: the store has no {kind} {', '.join(map(repr, unknown))} to use; it has "
            f"{', '.join(examples(known))}"
        )


def repeated(walks: Iterable[Walk]) -> list[Finding]:
    """A warning for sequences of one subject, condition and view; all are used."""
    seen: set[str] = set()
    twice = []
    for walk in walks:
        if walk.place in seen:
            twice.append(walk.place)
        seen.add(walk.place)
    if not twice:
        return []
    what = f"{len(twice):,} sequences share subject, condition and view with another; all are used"
    return [Finding("warning", what, where=examples(twice))]
