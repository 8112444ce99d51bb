"""One's own data: a CSV or Parquet manifest, or a folder with one sub-folder an identity."""

import random
from pathlib import Path

from reidkit.data.adapters.table import SPLITS, group, numbers, read_rows, row_faults
from reidkit.data.benchmarks import (
    BENCHMARKS,
    READERS,
    Finding,
    Reading,
    examples,
    is_image,
    settle,
)
from reidkit.types import Benchmark, CheckLevel, EvalProtocol, Sample

LAYOUT = "Expected layout: datasets/README.md#manifest"


@BENCHMARKS.register("manifest")
def load(
    root: Path,
    check: CheckLevel = "strict",
    *,
    train_fraction: float = 0.5,
    seed: int | None = None,
) -> Benchmark:
    """A benchmark from one's own pictures.

    `root` is a `.csv` or `.parquet` file with the columns `path,pid,split` and, where known,
    `camid,tracklet,frame, view,condition,domain` (paths relative to the file; split is train,
    query, gallery, or test for query and gallery in one), or a folder with one sub-folder an
    identity, itself inside `train`, `query`, `gallery` or `test` folders where it has these.
    Otherwise the first `train_fraction` of the identities are for training (in sorted order, or
    shuffled by `seed`), the others for testing.

    With cameras, answers from the query's own camera do not count; without, only the query itself
    is left out. Names of identities become numbers by sorted order from 1.
    """
    reading = read(root, train_fraction=train_fraction, seed=seed, files=check != "off")
    return settle(reading, check)


@READERS.register("manifest")
def read(
    root: Path, *, train_fraction: float = 0.5, seed: int | None = None, files: bool = True
) -> Reading:
    """Everything readable of a manifest or folder, with what is wrong; see `load`.

    `files=False` leaves out the look whether each file of a manifest exists. Raises
    FileNotFoundError where there is nothing at `root`, ValueError where it is neither a manifest
    nor a folder of identities.
    """
    if root.is_dir():
        return read_folders(root, train_fraction, seed)
    if not root.is_file():
        raise FileNotFoundError(f"manifest: no file or folder {root}. {LAYOUT}")
    if root.suffix not in (".csv", ".parquet"):
        raise ValueError(f"manifest: {root} must end in .csv or .parquet, or be a folder. {LAYOUT}")
    rows, columns, faults = read_rows(root)
    good, faulty = row_faults(rows, columns, root.parent, files)
    splits, mixed = group(good, root.parent, root.stem)
    faults = sorted(faults + faulty + mixed)
    findings = []
    if faults:
        what = f"{len(faults):,} faulty lines in {root}"
        where = examples(f"line {fault.line}: {fault.what}" for fault in faults)
        findings.append(Finding("error", what, "Mend these lines or take them out.", where))
    cameras = "camid" in columns and any(row.text["camid"] for row in good)
    return assemble(root, splits, cameras, findings)


def assemble(
    root: Path, splits: dict[str, tuple[Sample, ...]], cameras: bool, findings: list[Finding]
) -> Reading:
    """Splits as a reading: `test` is query and gallery; the protocol follows from the columns."""
    if not splits:
        findings.append(Finding("error", f"no usable picture in {root}", f"{LAYOUT}."))
    if "test" in splits and ("query" in splits or "gallery" in splits):
        what = "split 'test' beside 'query' or 'gallery'"
        remedy = "Use 'test' alone (each picture asks, all others answer) or 'query' and 'gallery'."
        findings.append(Finding("error", what, remedy))
    elif ("query" in splits) != ("gallery" in splits):
        there, absent = ("query", "gallery") if "query" in splits else ("gallery", "query")
        remedy = "Name both, or name the pictures 'test' to let each ask all others."
        findings.append(Finding("error", f"split {there!r} without {absent!r}", remedy))
    alone = "test" in splits
    query = splits.get("test" if alone else "query", ())
    gallery = splits.get("test" if alone else "gallery", ())
    if not splits.get("train") and splits:
        findings.append(Finding("note", "nothing to train on: no split 'train'"))
    if not query and splits:
        findings.append(
            Finding("note", "nothing to test on: no split 'query', 'gallery' or 'test'")
        )
    protocol = EvalProtocol("same_camera" if cameras else "itself" if alone else "nothing")
    train = splits.get("train", ())
    return Reading("manifest", train, query, gallery, protocol, tuple(findings))


def read_folders(root: Path, train_fraction: float, seed: int | None) -> Reading:
    """A folder with one sub-folder an identity, with or without folders for the splits above them.

    Raises ValueError for a fraction outside (0, 1), or where the identities are too few to split.
    """
    if not 0 < train_fraction < 1:
        raise ValueError(f"manifest: train_fraction is {train_fraction}, expected between 0 and 1")
    if (root / "bounding_box_train").is_dir():
        raise ValueError(f"manifest: {root} is laid out as Market-1501; load it as 'market1501'")
    findings: list[Finding] = []
    parts = {split: root / split for split in SPLITS if (root / split).is_dir()}
    files: dict[str, dict[str, list[Path]]] = {
        split: identity_files(folder, findings) for split, folder in parts.items()
    }
    if not parts:
        identities = identity_files(root, findings)
        names = sorted(identities)
        if len(names) < 2:
            raise ValueError(
                f"manifest: {root} has {len(names)} sub-folders with pictures, expected at "
                f"least 2: one for each identity. {LAYOUT}"
            )
        if seed is not None:
            random.Random(seed).shuffle(names)
        cut = min(max(round(train_fraction * len(names)), 1), len(names) - 1)
        files = {
            "train": {name: identities[name] for name in sorted(names[:cut])},
            "test": {name: identities[name] for name in sorted(names[cut:])},
        }
    pids = numbers((name for found in files.values() for name in found), start=1)
    splits = {
        split: tuple(
            Sample((str(path),), pids[name], domain=root.resolve().name)
            for name, paths in found.items()
            for path in paths
        )
        for split, found in files.items()
        if found
    }
    return assemble(root, splits, False, findings)


def identity_files(folder: Path, findings: list[Finding]) -> dict[str, list[Path]]:
    """Pictures of each identity, sorted; empty folders and stray files go to `findings`."""
    found: dict[str, list[Path]] = {}
    stray, empty = [], []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith("."):
            pictures = sorted(path for path in entry.rglob("*") if is_image(path))
            if pictures:
                found[entry.name] = pictures
            else:
                empty.append(entry.name)
        elif is_image(entry):
            stray.append(entry.name)
    if stray:
        what = f"{len(stray):,} pictures lie in {folder} itself, in no identity's folder: ignored"
        remedy = "Move each into a folder named by its identity."
        findings.append(Finding("warning", what, remedy, examples(stray)))
    if empty:
        what = f"{len(empty):,} folders in {folder} hold no pictures"
        findings.append(Finding("warning", what, "Fill or delete them.", examples(empty)))
    return found
