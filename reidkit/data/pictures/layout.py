"""The three files of packed pictures: their names, their records, and reading them.

A store is a folder:

    pictures.json  {"format": 1, "size": [256, 128], "pictures": N, "checksum": CRC-32 of the index}
    pixels.bin     N pictures (H, W, 3) row by row, RGB, a byte each
    pictures.csv   path,size,mtime_ns,row,crc32: the file a row was read from, its size and time as
                   they were then, and the checksum of the row's pixels

The format is also the way pixels are made, so a change of decoder or of resizing raises it.
"""

import csv
import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidkit.data.packing import csv_line, is_count, read_plain_header

FORMAT = 1
HEADER, PIXELS, INDEX = "pictures.json", "pixels.bin", "pictures.csv"
AGAIN = "Pack the pictures again with `reidkit data pack`."


class PicturesHeader(NamedTuple):
    """What `pictures.json` says; `pictures` and `checksum` are None while a pack is under way."""

    size: tuple[int, int]
    pictures: int | None = None
    checksum: int | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of one picture in `pixels.bin`."""
        return self.size[0] * self.size[1] * 3

    def to_json(self) -> bytes:
        """The text of `pictures.json`."""
        plain: dict[str, Any] = {
            "format": FORMAT,
            "size": list(self.size),
            "pictures": self.pictures,
            "checksum": self.checksum,
        }
        return (json.dumps(plain) + "\n").encode()


class Entry(NamedTuple):
    """One line of `pictures.csv`; the fields are its columns."""

    path: str
    size: int
    mtime_ns: int
    row: int
    crc32: int

    def line(self) -> bytes:
        """The line as it is written."""
        return csv_line(self)


class Index(NamedTuple):
    """All of `pictures.csv`: the row of each path, and what was true of it when it was packed."""

    rows: dict[str, int]
    facts: NDArray[np.int64]  # (N, 3) size, mtime_ns, crc32

    @classmethod
    def of(cls, entries: list[Entry]) -> "Index":
        """The index of all entries, in the order of their rows."""
        facts = [(entry.size, entry.mtime_ns, entry.crc32) for entry in entries]
        rows = {entry.path: entry.row for entry in entries}
        return cls(rows, np.array(facts, np.int64).reshape(-1, 3))


TITLES = csv_line(Entry._fields)


def read_header(folder: Path) -> PicturesHeader:
    """What `pictures.json` in `folder` says; raises as `PictureStore.open` does."""
    path = folder / HEADER
    if not path.is_file():
        raise FileNotFoundError(
            f"no packed pictures in {folder}: no {HEADER}; `reidkit data pack CONFIG {folder}` "
            "writes them"
        )
    plain = read_plain_header(path, number=FORMAT, again=AGAIN)
    pictures, checksum = (plain.get(name) for name in ("pictures", "checksum"))
    for name, value in (("pictures", pictures), ("checksum", checksum)):
        if not (value is None and name in plain) and not is_count(value):
            raise ValueError(f"{path}: {name} is {value!r}, expected a number. {AGAIN}")
    if (pictures is None) != (checksum is None):
        raise ValueError(f"{path}: pictures and checksum are both known or neither is. {AGAIN}")
    height, width = plain["size"]
    return PicturesHeader((height, width), pictures, checksum)


def read_index(folder: Path, header: PicturesHeader) -> Index:
    """All of `pictures.csv`, compared with the header; raises as `PictureStore.open` does."""
    path = folder / INDEX
    if not path.is_file():
        raise FileNotFoundError(f"no {INDEX} in {folder}. {AGAIN}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if zlib.crc32(data) != header.checksum:
        raise ValueError(
            f"{path} is not the one that was packed: its checksum is {zlib.crc32(data)}, {HEADER} "
            f"says {header.checksum}. {AGAIN}"
        )
    entries = whole_entries(data)
    if len(entries) != header.pictures:
        raise ValueError(
            f"{path} names {len(entries):,} pictures, {HEADER} says {header.pictures:,}. {AGAIN}"
        )
    index = Index.of(entries)
    if len(index.rows) != len(entries):
        raise ValueError(f"{path} names a picture twice, expected once. {AGAIN}")
    return index


def whole_entries(data: bytes) -> list[Entry]:
    """The entries of an index up to the first line that is torn, wrong or out of order."""
    lines = data.split(b"\n")[:-1]  # what follows the last line break is torn
    if not lines or lines[0] + b"\n" != TITLES:
        return []
    entries: list[Entry] = []
    text = (line.decode("utf-8", "surrogateescape") for line in lines[1:])
    try:
        for path, *numbers in csv.reader(text, strict=True):
            size, changed, row, checksum = (int(number) for number in numbers)
            if row != len(entries) or size < 0 or checksum < 0 or abs(changed) >= 2**63:
                break
            entries.append(Entry(path, size, changed, row, checksum))
    except (ValueError, csv.Error):
        pass  # the lines before are whole
    return entries
