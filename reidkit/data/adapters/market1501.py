"""Market-1501, and any set that is written in its layout."""

import re
from collections.abc import Mapping
from pathlib import Path

from reidkit.data.benchmarks import (
    BENCHMARKS,
    READERS,
    Finding,
    Reading,
    examples,
    is_image,
    settle,
    wrong_counts,
)
from reidkit.types import Benchmark, CheckLevel, EvalProtocol, Sample

# identities, images; the gallery counts pid 0 (distractors) as one identity and leaves junk out
STATISTICS = {"train": (751, 12936), "query": (750, 3368), "gallery": (751, 15913)}
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
PARENTS = ("Market-1501-v15.09.15", "market1501")
LAYOUT = "Expected layout: datasets/README.md#market1501"
# Some released names end in .jpg.jpg, so only the beginning is fixed.
NAME = re.compile(r"(-1|\d+)_c([1-9]\d*)(?:s\d+)?_")


@BENCHMARKS.register("market1501")
def load(root: Path, check: CheckLevel = "strict") -> Benchmark:
    """Market-1501: Zheng et al., Scalable Person Re-identification, ICCV 2015. Six cameras, 1,501
    pedestrians.

    `root` holds `bounding_box_train`, or holds the folder `Market-1501-v15.09.15` or `market1501`
    that does. Gallery images with pid 0 are distractors and stay; pid -1 is junk and is dropped.
    """
    return settle(read(root), check)


@READERS.register("market1501")
def read(root: Path) -> Reading:
    """Everything readable of Market-1501 under `root`, with what is wrong; see `load`."""
    return read_layout(root, name="market1501", expected=STATISTICS)


def read_layout(
    root: Path, *, name: str, expected: Mapping[str, tuple[int, int]] | None = None
) -> Reading:
    """Samples of a set in Market-1501's layout, domain `name`, compared with `expected` counts
    where given.

    Raises FileNotFoundError where `root` is no folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{name}: no folder {root}. {LAYOUT}")
    folder = find_root(root)
    findings: list[Finding] = []
    splits: dict[str, tuple[Sample, ...]] = {}
    for split, part in FOLDERS.items():
        if (folder / part).is_dir():
            splits[split] = read_folder(folder / part, split, name, findings)
        else:
            what = f"no folder {part!r} in {folder}"
            findings.append(Finding("error", what, f"{LAYOUT}.", missing=True))
    findings += wrong_counts(splits, expected or {}, "identities", "images")
    train, query, gallery = (splits.get(split, ()) for split in FOLDERS)
    return Reading(name, train, query, gallery, EvalProtocol("same_camera"), tuple(findings))


def find_root(root: Path) -> Path:
    """The folder that holds `bounding_box_train`: `root` itself or one of the usual names in it."""
    for candidate in (root, *(root / parent for parent in PARENTS)):
        if (candidate / FOLDERS["train"]).is_dir():
            return candidate
    return next((root / parent for parent in PARENTS if (root / parent).is_dir()), root)


def read_folder(
    folder: Path, split: str, domain: str, findings: list[Finding]
) -> tuple[Sample, ...]:
    """The samples of one folder sorted by name; what is odd about it is added to `findings`."""
    samples: list[Sample] = []
    junk, strange, others = 0, [], []
    for path in sorted(folder.iterdir()):
        if not is_image(path):
            others.append(path.name)
            continue
        match = NAME.match(path.name)
        if match is None:
            strange.append(path.name)
            continue
        pid, camid = int(match[1]), int(match[2]) - 1
        # Junk boxes are neither right nor wrong: dropped here, so no metric has to know of them.
        if pid == -1:
            junk += 1
        else:
            samples.append(Sample((str(path),), pid, camid, domain=domain))
    if strange:
        what = (
            f"{len(strange):,} names in {folder.name} are not of the form 0001_c1s1_000151_01.jpg"
        )
        remedy = "Rename these files or move them out of the folder."
        findings.append(Finding("error", what, remedy, examples(strange)))
    if not samples:
        what = f"no images for {split} in {folder}"
        findings.append(Finding("error", what, "Unpack the original archive again."))
    if junk:
        what = f"{junk:,} junk images (pid -1) in {folder.name} are left out, as the protocol says"
        findings.append(Finding("note", what))
    if others:
        what = f"files in {folder.name} that are no images are ignored"
        findings.append(Finding("note", what, where=examples(others)))
    return tuple(samples)
