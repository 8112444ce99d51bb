"""What the sets of metric learning share: no class of the test is seen in training."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from reidkit.data.adapters.tracklets import missing_frames
from reidkit.data.benchmarks import UNPACK, Finding, Reading, examples, wrong_counts
from reidkit.types import EvalProtocol, Sample

# As `evaluation.protocols` has them by name; a test holds them together.
FINE_GRAINED = EvalProtocol("itself", ("R@1", "R@2", "R@4", "R@8", "MAP@R", "R-precision", "NMI"))


def layout(name: str) -> str:
    """The sentence that sends the reader to the layout."""
    return f"Expected layout: datasets/README.md#{name}"


def find_folder(name: str, root: Path, parents: Iterable[str], inside: Sequence[str]) -> Path:
    """The folder that holds one of `inside`: `root`, or a usual name in it; else `root`.

    Raises FileNotFoundError where `root` is no folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{name}: no folder {root}. {layout(name)}")
    places = (root, *(root / parent for parent in parents))
    found = (place for place in places if any((place / each).exists() for each in inside))
    return next(found, root)


def lost(name: str, what: str, folder: Path) -> Reading:
    """The reading of a set that lacks a file or folder without which nothing can be loaded."""
    finding = Finding("error", f"no {what} in {folder}", f"{layout(name)}.", missing=True)
    return Reading(name, (), (), (), EvalProtocol("nothing"), (finding,))


def zero_shot(
    name: str,
    folder: Path,
    classes: Mapping[int, Sequence[str]],
    *,
    trained: range,
    expected: Mapping[str, tuple[int, int]],
    findings: Sequence[Finding],
) -> Reading:
    """Classes with numbers in `trained` train; of the others each picture asks all others.

    `classes` are files by number. Missing files and other counts than `expected` (classes and
    pictures of `train` and `test`) are added to the findings.
    """
    train, test = (
        tuple(
            Sample((file,), pid, domain=name)
            for pid in sorted(classes)
            if (pid in trained) is side
            for file in sorted(classes[pid])
        )
        for side in (True, False)
    )
    return retrieval(name, folder, train, test, FINE_GRAINED, expected, findings)


def retrieval(
    name: str,
    folder: Path,
    train: tuple[Sample, ...],
    test: tuple[Sample, ...],
    protocol: EvalProtocol,
    expected: Mapping[str, tuple[int, int]],
    findings: Sequence[Finding],
) -> Reading:
    """A reading whose query and gallery are `test`; see `zero_shot`."""
    found = [*findings, *missing_frames((*train, *test), folder)]
    found += wrong_counts({"train": train, "test": test}, expected, "classes", "images")
    return Reading(name, train, test, test, protocol, tuple(found))


def read_table(path: Path, columns: int, skip: int) -> tuple[list[list[str]], list[Finding]]:
    """The lines of a table of words below its header of `skip` lines, and faulty ones as findings.

    Raises ValueError where the file is no text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: {error}. {UNPACK}") from error
    rows, faults = [], []
    for number, line in enumerate(lines[skip:], start=skip + 1):
        cells = line.split()
        if len(cells) == columns:
            rows.append(cells)
        elif cells:
            faults.append(f"line {number}: {len(cells)} words, expected {columns}")
    return rows, line_faults(path, faults)


def line_faults(path: Path, faults: Sequence[str]) -> list[Finding]:
    """Faulty lines of a table as one finding, or none."""
    if not faults:
        return []
    return [Finding("error", f"{len(faults):,} faulty lines in {path}", UNPACK, examples(faults))]
