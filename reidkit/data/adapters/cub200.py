"""CUB-200-2011: two hundred species of birds, half of them never seen in training."""

import re
from pathlib import Path

from reidkit.data.adapters.class_sets import find_folder, lost, read_table, zero_shot
from reidkit.data.benchmarks import (
    BENCHMARKS,
    READERS,
    UNPACK,
    Finding,
    Reading,
    examples,
    is_image,
    settle,
)
from reidkit.types import Benchmark, CheckLevel

# classes, images; 11,788 in all as published, the two parts from memory (unverified)
STATISTICS = {"train": (100, 5864), "test": (100, 5924)}
TRAINED = range(1, 101)
PARENTS = ("CUB_200_2011", "CUB_200_2011/CUB_200_2011", "cub200", "CUB200")
CLASS = re.compile(r"(\d{3})\..+")


@BENCHMARKS.register("cub200")
def load(root: Path, check: CheckLevel = "strict") -> Benchmark:
    """CUB-200-2011: Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, 2011, for retrieval as
    Song et al., CVPR 2016: classes 1 to 100 train, of 101 to 200 each picture asks all others.

    `root` holds `images`, or holds the folder `CUB_200_2011` that does. The split in
    `train_test_split.txt` is for classification, with the same classes on both sides: not read.
    """
    return settle(read(root), check)


@READERS.register("cub200")
def read(root: Path) -> Reading:
    """Everything readable of CUB-200-2011 under `root`, with what is wrong; see `load`.

    Raises FileNotFoundError where `root` is no folder.
    """
    folder = find_folder("cub200", root, PARENTS, ["images"])
    if not (folder / "images").is_dir():
        return lost("cub200", "folder 'images'", folder)
    classes: dict[int, list[str]] = {}
    strange = []
    for entry in sorted((folder / "images").iterdir()):
        match = CLASS.fullmatch(entry.name)
        if match and entry.is_dir():
            files = [str(path) for path in sorted(entry.iterdir()) if is_image(path)]
            classes.setdefault(int(match[1]), []).extend(files)
        elif entry.is_dir() and not entry.name.startswith("."):
            strange.append(entry.name)
    findings = list_faults(folder, {file for files in classes.values() for file in files})
    if strange:
        what = f"{len(strange):,} folders in images are not named like 001.Black_footed_Albatross"
        findings.append(Finding("error", what, "Rename or move them.", examples(strange)))
    return zero_shot(
        "cub200", folder, classes, trained=TRAINED, expected=STATISTICS, findings=findings
    )


def list_faults(folder: Path, there: set[str]) -> list[Finding]:
    """Pictures that `images.txt` lists and that are not there; the list itself may be absent."""
    if not (folder / "images.txt").is_file():
        return []
    rows, faults = read_table(folder / "images.txt", columns=2, skip=0)
    absent = [name for _, name in rows if str(folder / "images" / name) not in there]
    if absent:
        what = f"{len(absent):,} pictures of images.txt are not in {folder / 'images'}"
        faults.append(Finding("error", what, UNPACK, examples(absent)))
    return faults
