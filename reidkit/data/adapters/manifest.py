"""One's own data: a CSV or Parquet manifest, or a folder with one sub-folder an identity."""

from dataclasses import replace
from pathlib import Path

from reidkit.data.adapters.table import (
    ALL,
    SPLITS,
    deal_rows,
    group,
    numbers,
    read_rows,
    row_faults,
)
from reidkit.data.benchmarks import (
    BENCHMARKS,
    READERS,
    Finding,
    Reading,
    examples,
    is_image,
    settle,
)
from reidkit.data.splits import By, Split
from reidkit.types import Benchmark, CheckLevel, EvalProtocol, Sample

LAYOUT = "Expected layout: datasets/README.md#manifest"


@BENCHMARKS.register("manifest")
def load(
    root: Path,
    check: CheckLevel = "strict",
    *,
    train_fraction: float = 0.5,
    seed: int | None = None,
    test_classes: list[str] | None = None,
    fold: int | None = None,
    folds: int = 5,
    by: By = "class",
) -> Benchmark:
    """A benchmark from one's own pictures.

    `root` is a `.csv` or `.parquet` file with the columns `path,pid` and, where known, `split,
    camid,tracklet,frame,view,condition,domain` (paths relative to the file; split is train, query,
    gallery, or test for query and gallery in one), or a folder with one sub-folder an identity,
    itself inside `train`, `query`, `gallery` or `test` folders where it has these.

    Without a split (or with `all` in each row) the first `train_fraction` of the identities are
    for training, in sorted order or shuffled by `seed`, and the others for testing; or
    `test_classes` names those to test; or `fold`, from 0, of `folds` is tested. `by: picture`
    splits each identity's pictures in this way: a closed set, for a check and not for a score.

    With cameras, answers from the query's own camera do not count; without, only the query itself
    is left out. Names of identities become numbers by sorted order from 1.
    """
    reading = read(
        root,
        train_fraction=train_fraction,
        seed=seed,
        test_classes=test_classes,
        fold=fold,
        folds=folds,
        by=by,
        files=check != "off",
    )
    return settle(reading, check)


@READERS.register("manifest")
def read(
    root: Path,
    *,
    train_fraction: float = 0.5,
    seed: int | None = None,
    test_classes: list[str] | None = None,
    fold: int | None = None,
    folds: int = 5,
    by: By = "class",
    files: bool = True,
) -> Reading:
    """Everything readable of a manifest or folder, with what is wrong; see `load`.

    `files=False` leaves out the look whether each file of a manifest exists. Raises
    FileNotFoundError where there is nothing at `root`, ValueError where it is neither a manifest
    nor a folder of identities, and where it cannot be split as asked.
    """
    try:
        split = Split(train_fraction, seed, test_classes, fold, folds, by)
        if root.is_dir():
            return replace(read_folders(root, split), closed_set=by == "picture")
        if not root.is_file():
            raise FileNotFoundError(f"manifest: no file or folder {root}. {LAYOUT}")
        if root.suffix not in (".csv", ".parquet"):
            raise ValueError(f"{root} must end in .csv or .parquet, or be a folder. {LAYOUT}")
        return replace(read_manifest(root, split, files), closed_set=by == "picture")
    except ValueError as error:
        raise ValueError(f"manifest: {error}") from error


def read_manifest(path: Path, split: Split, files: bool) -> Reading:
    """A table of pictures, split by `split` where it does not say who trains; see `read`."""
    rows, columns, faults = read_rows(path)
    good, faulty = row_faults(rows, columns, path.parent, files)
    findings = []
    if any(row.text["split"] == ALL for row in good):
        try:
            good = deal_rows(good, split)
        except ValueError as error:
            if not faults and not faulty:
                raise
            # Perhaps only because of the faulty lines, which are to be told, too.
            good = []
            findings.append(Finding("error", f"what is left cannot be split: {error}"))
    elif good:
        refuse(split, f"{path} has a column 'split'")
    splits, mixed = group(good, path.parent, path.stem)
    faults = sorted(faults + faulty + mixed)
    if faults:
        what = f"{len(faults):,} faulty lines in {path}"
        where = examples(f"line {fault.line}: {fault.what}" for fault in faults)
        findings.append(Finding("error", what, "Mend these lines or take them out.", where))
    cameras = "camid" in columns and any(row.text["camid"] for row in good)
    return assemble(path, splits, cameras, findings)


def refuse(split: Split, why: str) -> None:
    """Raise a ValueError where a split is asked for that the data has already."""
    if split.wanted:
        raise ValueError(f"{why}, which says who trains: leave out test_classes, fold and by")


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


def read_folders(root: Path, split: Split) -> Reading:
    """A folder with one sub-folder an identity, with or without folders for the splits above them.

    Raises ValueError where the identities are too few to split.
    """
    if (root / "bounding_box_train").is_dir():
        raise ValueError(f"{root} is laid out as Market-1501; load it as 'market1501'")
    findings: list[Finding] = []
    parts = {name: root / name for name in SPLITS if (root / name).is_dir()}
    files: dict[str, dict[str, list[Path]]] = {
        name: identity_files(folder, findings) for name, folder in parts.items()
    }
    if parts:
        refuse(split, f"{root} has a folder {next(iter(parts))!r}")
    else:
        identities = identity_files(root, findings)
        if len(identities) < 2:
            raise ValueError(
                f"{root} has {len(identities)} sub-folders with pictures, expected at "
                f"least 2: one for each identity. {LAYOUT}"
            )
        files["train"], files["test"] = split.deal(identities)
    pids = numbers((name for found in files.values() for name in found), start=1)
    splits = {
        part: tuple(
            Sample((str(path),), pids[name], domain=root.resolve().name)
            for name, paths in found.items()
            for path in paths
        )
        for part, found in files.items()
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
