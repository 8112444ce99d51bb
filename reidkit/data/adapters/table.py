"""Rows of a manifest: a CSV or Parquet file read, checked line by line and grouped into samples."""

import csv
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from reidkit.data.splits import Split
from reidkit.registry import nearest
from reidkit.types import Sample

REQUIRED = ("path", "pid")
OPTIONAL = ("split", "camid", "tracklet", "frame", "view", "condition", "domain")
SPLITS = ("train", "query", "gallery", "test")
ALL = "all"  # of a row without a split of its own
INTEGER = re.compile(r"-?\d+")


class Row(NamedTuple):
    """One line of a manifest: its number, as an editor counts, and the text of its columns."""

    line: int
    text: dict[str, str]


class Fault(NamedTuple):
    """What is wrong with one line."""

    line: int
    what: str


def read_rows(path: Path) -> tuple[list[Row], frozenset[str], list[Fault]]:
    """Rows, names of the columns, and lines that could not be split into columns.

    Raises ValueError where the file cannot be read at all or lacks a required column.
    """
    try:
        rows, columns, faults = read_parquet(path) if path.suffix == ".parquet" else read_csv(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} is no CSV file in UTF-8: {error}. Save it again as one"
        ) from error
    missing = [name for name in REQUIRED if name not in columns]
    # A split may be absent, but not for a slip of the pen.
    if "split" not in columns and nearest("split", sorted(set(columns) - {*REQUIRED, *OPTIONAL})):
        missing.append("split")
    if missing:
        hints = "".join(nearest(name, sorted(columns)) for name in missing)
        raise ValueError(
            f"{path} has no column {', '.join(map(repr, missing))}; it has: "
            f"{', '.join(columns) or 'none'}.{hints} A manifest needs the columns path,pid,split"
        )
    if "split" not in columns:
        rows = [Row(row.line, {**row.text, "split": ALL}) for row in rows]
    return rows, frozenset(columns), faults


def read_csv(path: Path) -> tuple[list[Row], list[str], list[Fault]]:
    """Rows, columns and faulty lines of a comma-separated file with a header line."""
    rows: list[Row] = []
    faults: list[Fault] = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        columns = [name.strip() for name in next(reader, [])]
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                faults.append(
                    Fault(reader.line_num, f"{len(cells)} cells, expected {len(columns)}")
                )
                continue
            pairs = zip(columns, cells, strict=True)
            rows.append(Row(reader.line_num, {name: cell.strip() for name, cell in pairs}))
    return rows, columns, faults


def read_parquet(path: Path) -> tuple[list[Row], list[str], list[Fault]]:
    """Rows and columns of a Parquet file; its rows are numbered from 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no Parquet file: {error}") from error
    known = [name for name in table.column_names if name in REQUIRED + OPTIONAL]
    rows = [
        Row(number, {name: "" if cell is None else str(cell) for name, cell in record.items()})
        for number, record in enumerate(table.select(known).to_pylist(), start=1)
    ]
    return rows, list(table.column_names), []


def row_faults(
    rows: list[Row], columns: frozenset[str], folder: Path, files: bool
) -> tuple[list[Row], list[Fault]]:
    """Usable rows, and what is wrong with the others; `files` looks whether files exist."""
    good: list[Row] = []
    faults: list[Fault] = []
    first: dict[tuple[str, str], int] = {}
    cameras = "camid" in columns and any(row.text["camid"] for row in rows)
    for row in rows:
        text = row.text
        what = ""
        if not text["path"]:
            what = "no path"
        elif not text["pid"]:
            what = "no pid"
        elif INTEGER.fullmatch(text["pid"]) and int(text["pid"]) < -1:
            what = f"pid {text['pid']}, expected -1 (unknown), 0 or more, or a name"
        elif text["split"] not in (*SPLITS, ALL):
            what = f"split {text['split']!r}, expected one of {', '.join((*SPLITS, ALL))}"
        elif cameras and not text["camid"]:
            what = "no camid, while other lines have one"
        elif text.get("frame") and not INTEGER.fullmatch(text["frame"]):
            what = f"frame {text['frame']!r} is no whole number"
        elif (line := first.setdefault((text["split"], text["path"]), row.line)) != row.line:
            what = f"{text['path']} is already in {text['split']}, line {line}"
        elif files and not (folder / text["path"]).is_file():
            what = f"no file {folder / text['path']}"
        if what:
            faults.append(Fault(row.line, what))
        else:
            good.append(row)
    return good, faults


def numbers(names: Iterable[str], start: int) -> dict[str, int]:
    """A number for each name: its own where all are integers, else sorted from `start`."""
    distinct = sorted(set(names))
    if all(INTEGER.fullmatch(name) for name in distinct):
        own = {name: int(name) for name in distinct}
        if len(set(own.values())) == len(own):
            return own
    known = [name for name in distinct if name != "-1"]
    return {"-1": -1} | {name: number for number, name in enumerate(known, start)}


def sample_of(row: Row) -> tuple[str, str, str]:
    """What rows of one sample share within a split: the domain, and the tracklet or the line."""
    text = row.text
    mark = ("tracklet", text["tracklet"]) if text.get("tracklet") else ("line", str(row.line))
    return text.get("domain", ""), *mark


def deal_rows(rows: list[Row], split: Split) -> list[Row]:
    """Rows of split `all` in `train` and `test`, as `split` deals their classes or samples.

    Rows of one tracklet stay together, and those of an unknown identity (pid -1) train. Raises
    ValueError where some rows have a split of their own, or where `split` cannot be followed.
    """
    own = next((row for row in rows if row.text["split"] != ALL), None)
    if own is not None:
        raise ValueError(
            f"split 'all' beside {own.text['split']!r} (line {own.line}); give every row a split, "
            "or none"
        )
    owners: dict[tuple[str, str, str], str] = {}  # the first pid: `group` tells of others
    for row in rows:
        owners.setdefault(sample_of(row), row.text["pid"])
    samples: dict[str, list[tuple[str, str, str]]] = {}
    for sample, pid in owners.items():
        if pid != "-1":
            samples.setdefault(pid, []).append(sample)
    _, tested = split.deal(samples)
    tests = {sample for found in tested.values() for sample in found}
    sides = ["test" if sample_of(row) in tests else "train" for row in rows]
    return [
        Row(row.line, {**row.text, "split": side}) for row, side in zip(rows, sides, strict=True)
    ]


def group(
    rows: list[Row], folder: Path, domain: str
) -> tuple[dict[str, tuple[Sample, ...]], list[Fault]]:
    """Samples of each split in the order of the file, rows of one tracklet in one sample, and
    faults.

    A tracklet's rows are ordered by `frame`, or as written where there is none; its span is from
    the least to the greatest, where each row has one (but see `timed`). Junk (pid -1) stays in
    train only, where it stands for an unknown identity.
    """
    # Numbering from 1 keeps names clear of pid 0, which benchmarks use for distractors.
    pids = numbers((row.text["pid"] for row in rows), start=1)
    cameras = numbers((row.text.get("camid") or "0" for row in rows), start=0)
    tracklets: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        tracklets.setdefault((row.text["split"], *sample_of(row)), []).append(row)
    splits: dict[str, list[Sample]] = {}
    faults: list[Fault] = []
    for (split, named, _, _), members in tracklets.items():
        head = members[0]
        for other in members[1:]:
            for column in ("pid", "camid", "view", "condition"):
                before, now = head.text.get(column, ""), other.text.get(column, "")
                if before != now:
                    what = f"{column} {now!r}, but its tracklet has {before!r} in line {head.line}"
                    faults.append(Fault(other.line, what))
        pid = pids[head.text["pid"]]
        if pid == -1 and split != "train":
            continue
        members = sorted(members, key=lambda row: int(row.text.get("frame") or row.line))
        sample = Sample(
            tuple(str(folder / row.text["path"]) for row in members),
            pid,
            cameras[head.text.get("camid") or "0"],
            head.text.get("view", ""),
            head.text.get("condition", ""),
            named or domain,
            span_of(members),
        )
        splits.setdefault(split, []).append(sample)
    return {split: timed(samples) for split, samples in splits.items()}, faults


def timed(samples: list[Sample]) -> tuple[Sample, ...]:
    """The samples, without their spans where all begin at the same frame 0 or 1: frames are then
    counted within each tracklet, and say nothing of who was there at the same time."""
    begins = {sample.span[0] for sample in samples if sample.span is not None}
    if len(samples) > 2 and len(begins) == 1 and begins <= {0.0, 1.0}:
        return tuple(replace(sample, span=None) for sample in samples)
    return tuple(samples)


def span_of(members: list[Row]) -> tuple[float, float] | None:
    """The first and the last `frame` of a sample's rows, None where one has none."""
    frames = [row.text.get("frame") for row in members]
    moments = [float(frame) for frame in frames if frame]
    return (min(moments), max(moments)) if len(moments) == len(members) else None
