"""Omniglot: handwritten characters, whole alphabets for training and others for testing."""

import re
from pathlib import Path

from reidkit.data.benchmarks import (
    BENCHMARKS,
    READERS,
    Finding,
    Reading,
    examples,
    is_image,
    settle,
)
from reidkit.data.splits import by_fraction, by_name
from reidkit.types import Benchmark, CheckLevel, EvalProtocol, Sample

# alphabets, characters, drawings of the two parts of the release; twenty people drew each character
STATISTICS = {"images_background": (30, 964, 19280), "images_evaluation": (20, 659, 13180)}
DRAWERS = 20
PARENTS = ("omniglot", "omniglot-small", "omniglot-py", "omniglot/python", "omniglot-master/python")
LAYOUT = "Expected layout: datasets/README.md#omniglot"
CHARACTER = re.compile(r"character\d+")
NAME = re.compile(r"\d+_(\d+)\.png", re.IGNORECASE)
TRAIN_FRACTION = 0.6
PROTOCOL = EvalProtocol("itself", ("R@1", "R@2", "R@4", "R@8", "MAP@R", "mAP"))


@BENCHMARKS.register("omniglot")
def load(
    root: Path,
    check: CheckLevel = "strict",
    *,
    train: list[str] | None = None,
    test: list[str] | None = None,
) -> Benchmark:
    """Omniglot: Lake, Salakhutdinov, Tenenbaum, Human-level concept learning through probabilistic
    program induction, Science 2015. 1,623 characters of 50 alphabets, drawn by 20 people each.

    `root` holds alphabets, or `images_background` and `images_evaluation`, or a folder such as
    `omniglot` that does; a part of the alphabets will do. `train` and `test` name alphabets; one
    of them alone leaves all others to the other side, and without both the first 60 % in sorted
    order train. A class is a character of an alphabet, numbered from 1 over all there are; the
    drawer, counted from 0, is the camera, the alphabet the condition. Each test drawing asks all
    other test drawings.
    """
    return settle(read(root, train=train, test=test), check)


@READERS.register("omniglot")
def read(root: Path, *, train: list[str] | None = None, test: list[str] | None = None) -> Reading:
    """Everything readable of Omniglot under `root`, with what is wrong; see `load`.

    Raises FileNotFoundError where `root` is no folder, ValueError for an alphabet that is not
    there or is on both lists.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"omniglot: no folder {root}. {LAYOUT}")
    alphabets = find_alphabets(root)
    if not alphabets:
        what = f"no folders Alphabet/characterNN in {root}"
        findings = (Finding("error", what, f"{LAYOUT}.", missing=True),)
        return Reading("omniglot", (), (), (), PROTOCOL, findings)
    sides = choose(sorted(alphabets), train, test)
    found: list[Finding] = []
    drawings = read_characters(alphabets, found)
    found += count_faults(alphabets, drawings)
    trained, tested = (
        tuple(sample for name in sorted(side) for sample in drawings[name]) for side in sides
    )
    unused = sorted(alphabets.keys() - {name for side in sides for name in side})
    if unused:
        what = f"{len(unused)} alphabets are neither in train nor in test"
        found.append(Finding("note", what, where=examples(unused)))
    return Reading("omniglot", trained, tested, tested, PROTOCOL, tuple(found))


def choose(
    names: list[str], train: list[str] | None, test: list[str] | None
) -> tuple[list[str], list[str]]:
    """Alphabets to train on and to test on; see `load`."""
    try:
        if train is None and test is None:
            return by_fraction(names, TRAIN_FRACTION)
        return by_name(names, train, test, kind="alphabet")
    except ValueError as error:
        raise ValueError(f"omniglot: {error}") from error


def find_alphabets(root: Path) -> dict[str, Path]:
    """The folder of each alphabet, from the first of the usual places that has any."""
    for base in (root, *(root / parent for parent in PARENTS)):
        found: dict[str, Path] = {}
        for part in (base, *(base / part for part in STATISTICS)):
            for folder in sorted(part.glob("*/character*")):
                if folder.is_dir() and CHARACTER.fullmatch(folder.name):
                    found.setdefault(folder.parent.name, folder.parent)
        if found:
            return found
    return {}


def read_characters(alphabets: dict[str, Path], findings: list[Finding]) -> dict[str, list[Sample]]:
    """The drawings of each alphabet; what is odd is added to `findings`."""
    drawings: dict[str, list[Sample]] = {}
    pid, strange, few = 0, [], []
    for name in sorted(alphabets):
        drawings[name] = []
        for folder in sorted(alphabets[name].iterdir()):
            if not (CHARACTER.fullmatch(folder.name) and folder.is_dir()):
                continue
            pid += 1
            before = len(drawings[name])
            for path in sorted(folder.iterdir()):
                match = NAME.fullmatch(path.name)
                if match and int(match[1]):
                    drawer = int(match[1]) - 1
                    sample = Sample((str(path),), pid, drawer, condition=name, domain="omniglot")
                    drawings[name].append(sample)
                elif is_image(path):
                    strange.append(f"{name}/{folder.name}/{path.name}")
            count = len(drawings[name]) - before
            if count != DRAWERS:
                few.append(f"{name}/{folder.name} ({count})")
    if strange:
        what = f"{len(strange):,} names are not of the form 0394_01.png"
        remedy = "Rename these files or move them out of the folder."
        findings.append(Finding("error", what, remedy, examples(strange)))
    if few:
        what = f"{len(few):,} characters have another number of drawings than {DRAWERS}"
        findings.append(Finding("warning", what, "Unpack the archive again.", examples(few)))
    return drawings


def count_faults(alphabets: dict[str, Path], drawings: dict[str, list[Sample]]) -> list[Finding]:
    """Parts of the whole release whose counts are not the published ones."""
    faults = []
    for part, expected in STATISTICS.items():
        names = [name for name, folder in alphabets.items() if folder.parent.name == part]
        samples = [sample for name in names for sample in drawings[name]]
        found = (len(names), len({sample.pid for sample in samples}), len(samples))
        if names and found != expected:
            (a, b, c), (x, y, z) = found, expected
            what = (
                f"{part} has {a} alphabets, {b:,} characters and {c:,} drawings, expected "
                f"{x}, {y:,} and {z:,}"
            )
            remedy = "Unpack it again; the alphabets of a part may lie in a folder of their own."
            faults.append(Finding("error", what, remedy))
    return faults
