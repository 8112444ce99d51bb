"""What every adapter shares: registries, what a reader found, the way to a Benchmark."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reidkit.registry import Registry
from reidkit.types import Benchmark, CheckLevel, EvalProtocol, Sample

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
UNPACK = "Unpack the original archive again."
EXAMPLES = 5  # how many files or lines a message names before it only counts


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a reader or a check has to say about a data folder.

    `what` is a sentence without its full stop, `where` the first few files or lines, `remedy` what
    to do about it. `missing` marks an absent file or folder without which nothing can be loaded at
    any check level.
    """

    severity: Literal["error", "warning", "note"]
    what: str
    remedy: str = ""
    where: tuple[str, ...] = ()
    missing: bool = False

    @property
    def sentence(self) -> str:
        """The finding in one line, with its examples and its remedy."""
        line = f"{self.what}: {'; '.join(self.where)}" if self.where else self.what
        return f"{line}. {self.remedy}".rstrip()


@dataclass(frozen=True, slots=True)
class Reading:
    """All that could be read of a benchmark, and all that was wrong with it.

    In a `closed_set` somebody wants the same identities in train and test.
    """

    name: str
    train: tuple[Sample, ...]
    query: tuple[Sample, ...]
    gallery: tuple[Sample, ...]
    protocol: EvalProtocol
    findings: tuple[Finding, ...] = field(default=())
    closed_set: bool = False


BENCHMARKS: Registry[Benchmark] = Registry("benchmark")
READERS: Registry[Reading] = Registry(
    "reader"
)  # the same names; optional: lets `check` report all faults at once


def examples(items: Iterable[str]) -> tuple[str, ...]:
    """The first few items, and a last one that counts the others."""
    found = list(items)
    rest = len(found) - EXAMPLES
    return tuple(found[:EXAMPLES]) + ((f"and {rest:,} more",) if rest > 0 else ())


def wrong_counts(
    splits: Mapping[str, Sequence[Sample]],
    expected: Mapping[str, tuple[int, int]],
    identities: str,
    samples: str,
) -> list[Finding]:
    """An error for each split whose numbers of identities and samples are not those published.

    `identities` and `samples` are what the benchmark calls them.
    """
    faults = []
    for split, found in splits.items():
        pids, count = len({sample.pid for sample in found}), len(found)
        if split in expected and (pids, count) != expected[split]:
            what = (
                f"{split} has {pids:,} {identities} and {count:,} {samples}, expected "
                f"{expected[split][0]:,} and {expected[split][1]:,}"
            )
            faults.append(Finding("error", what, UNPACK))
    return faults


def default_root() -> Path:
    """Where data is looked for when nothing else is said: REIDKIT_DATA, else `datasets` here."""
    return Path(os.environ.get("REIDKIT_DATA") or "datasets")


def folder_samples(folder: Path) -> tuple[Sample, ...]:
    """Every image below a folder in sorted order, of unknown identity (pid -1).

    Raises FileNotFoundError where there is no folder, ValueError where it holds no image.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; name a folder that holds images")
    files = sorted(path for path in folder.rglob("*") if is_image(path) and path.is_file())
    if not files:
        raise ValueError(f"no images in {folder}; expected {', '.join(sorted(IMAGE_SUFFIXES))}")
    return tuple(Sample((str(path),), -1) for path in files)


def is_image(path: Path) -> bool:
    """Whether the name is that of a picture (`Thumbs.db`, lists and hidden files are not)."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def settle(reading: Reading, check: CheckLevel) -> Benchmark:
    """The benchmark in `reading`, once its findings are dealt with.

    Whatever `check` is, an absent file or folder is a FileNotFoundError. Errors raise one
    ValueError for "strict" and are logged for "warn"; warnings are logged for both; "off" says
    nothing.
    """
    missing = [finding.sentence for finding in reading.findings if finding.missing]
    if missing:
        raise FileNotFoundError(f"{reading.name}: {' '.join(missing)}")
    errors = [finding.sentence for finding in reading.findings if finding.severity == "error"]
    if errors and check == "strict":
        hint = "Pass check='warn' to load it as it is."
        raise ValueError(f"{reading.name}: {' '.join(errors)} {hint}")
    if check != "off":
        for finding in reading.findings:
            if finding.severity != "note":
                logger.warning("%s: %s", reading.name, finding.sentence)
    return Benchmark(reading.name, reading.train, reading.query, reading.gallery, reading.protocol)


def load_benchmark(
    name: str, root: str | Path, check: CheckLevel = "strict", **args: Any
) -> Benchmark:
    """The benchmark `name` read from `root`; `args` go to its adapter.

    Raises FileNotFoundError where files are missing, and ValueError for an unknown name or argument
    and, with check="strict", where the published counts differ.
    """
    # The room registers its adapters when it is imported; above, that would be a cycle.
    import reidkit.data  # noqa: F401

    return BENCHMARKS.build(name, {"check": check, **args}, root=Path(root))


def read_benchmark(name: str, root: str | Path, args: Mapping[str, Any] | None = None) -> Reading:
    """Everything readable of the benchmark `name` with its findings; what stops a reader becomes a
    finding too.

    Raises ValueError for an unknown name or an argument the adapter does not take.
    """
    import reidkit.data  # noqa: F401  (as above)

    _ = BENCHMARKS[name]  # an unknown name is the caller's fault, not a finding
    faults = BENCHMARKS.faults(name, args or {}, ["root", "check"])
    if faults:
        raise ValueError("; ".join(faults))
    try:
        if name in READERS:
            return READERS.build(name, args, root=Path(root))
        found = BENCHMARKS.build(name, {"check": "off", **(args or {})}, root=Path(root))
    except (ValueError, OSError) as error:
        what = str(error).removeprefix(f"{name}: ").rstrip(".")
        absent = isinstance(error, FileNotFoundError)
        finding = Finding("error", what, missing=absent)
        return Reading(name, (), (), (), EvalProtocol("nothing"), (finding,))
    return Reading(name, found.train, found.query, found.gallery, found.protocol)
