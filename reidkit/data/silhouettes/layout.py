"""The three files of a packed store: their names, their records, and reading them.

A store is a folder:

    store.json     {"format": 1, "size": [64, 64], "bits": 8, "frames": N}
    frames.bin     N frames row by row: a byte a pixel, or with bits 1 eight pixels a byte
    sequences.csv  subject,condition,view,camid,start,length,verdict,why,source

A rejected sequence has a line, which says why, and length 0. `store.json` may hold an `origin`: a
fingerprint of what was packed and how.
"""

import csv
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from reidkit.data.packing import is_count, read_plain_header

FORMAT = 1
HEADER, FRAMES, SEQUENCES = "store.json", "frames.bin", "sequences.csv"
VERDICTS = ("good", "warned", "rejected")
AGAIN = "Pack the silhouettes again with `reidkit data pack SRC OUT`."


@dataclass(frozen=True, slots=True)
class StoredSequence:
    """One line of `sequences.csv`: `length` frames from `start` on, of one walk.

    `verdict` is "good", "warned" (used, and `why` says what is odd) or "rejected" (length 0).
    `source` names where it came from, below the folder that was packed.
    """

    subject: str
    condition: str
    view: str
    camid: int
    start: int
    length: int
    verdict: str = "good"
    why: str = ""
    source: str = ""

    @property
    def name(self) -> str:
        """What to call this sequence in a message: its source, else subject, condition, view."""
        return self.source or "/".join((self.subject, self.condition, self.view))


COLUMNS = tuple(field.name for field in fields(StoredSequence))


class StoreHeader(NamedTuple):
    """What `store.json` says; `frames` is None while a pack is under way."""

    size: tuple[int, int]
    bits: int
    frames: int | None
    origin: str = ""

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame in `frames.bin`."""
        height, width = self.size
        return height * (width if self.bits == 8 else -(-width // 8))

    def to_json(self) -> bytes:
        """The text of `store.json`."""
        plain: dict[str, Any] = {
            "format": FORMAT,
            "size": list(self.size),
            "bits": self.bits,
            "frames": self.frames,
        }
        if self.origin:
            plain["origin"] = self.origin
        return (json.dumps(plain) + "\n").encode()


def read_header(folder: Path) -> StoreHeader:
    """What `store.json` in `folder` says; raises as `SilhouetteStore.open` does."""
    path = folder / HEADER
    if not path.is_file():
        raise FileNotFoundError(
            f"no packed silhouettes in {folder}: no {HEADER}; `reidkit data pack SRC {folder}` "
            "writes them"
        )
    plain = read_plain_header(path, number=FORMAT, again=AGAIN)
    bits, frames, origin = plain.get("bits"), plain.get("frames"), plain.get("origin", "")
    if bits not in (1, 8) or not is_count(bits):
        raise ValueError(f"{path}: bits is {bits!r}, expected 8 or 1. {AGAIN}")
    if not (frames is None and "frames" in plain) and not is_count(frames):
        raise ValueError(f"{path}: frames is {frames!r}, expected their number. {AGAIN}")
    if not isinstance(origin, str):
        raise ValueError(f"{path}: origin is {origin!r}, expected a word. {AGAIN}")
    height, width = plain["size"]
    return StoreHeader((height, width), bits, frames, origin)


def read_sequences(path: Path, frames: int) -> tuple[StoredSequence, ...]:
    """The lines of `sequences.csv`, each inside a store of so many frames."""
    if not path.is_file():
        raise FileNotFoundError(f"no {SEQUENCES} in {path.parent}. {AGAIN}")
    try:
        # Names of files need not be UTF-8; the escapes bring them back byte by byte.
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, csv.Error) as error:
        raise ValueError(f"cannot read {path}: {error}. {AGAIN}") from error
    if not rows or tuple(rows[0]) != COLUMNS:
        found = ",".join(rows[0])[:80] if rows else "nothing"
        raise ValueError(f"{path} begins with {found!r}, expected {','.join(COLUMNS)}. {AGAIN}")
    return tuple(
        parse_sequence(row, frames, f"{path} line {number}")
        for number, row in enumerate(rows[1:], 2)
    )


def parse_sequence(row: list[str], frames: int, where: str) -> StoredSequence:
    """One line as a record; a ValueError begins with `where`."""
    if len(row) != len(COLUMNS):
        raise ValueError(f"{where}: {len(row)} fields, expected {len(COLUMNS)}. {AGAIN}")
    subject, condition, view, *numbers, verdict, why, source = row
    try:
        camid, start, length = (int(number) for number in numbers)
    except ValueError as error:
        raise ValueError(
            f"{where}: camid, start, length are {','.join(numbers)}, expected integers. {AGAIN}"
        ) from error
    if start < 0 or length < 0 or start + length > frames:
        raise ValueError(
            f"{where}: frames {start} to {start + length}, expected inside [0, {frames}]. {AGAIN}"
        )
    if verdict not in VERDICTS:
        raise ValueError(
            f"{where}: verdict is {verdict!r}, expected one of {', '.join(VERDICTS)}. {AGAIN}"
        )
    if (verdict == "rejected") != (length == 0):
        raise ValueError(
            f"{where}: {verdict} with {length} frames; a rejected sequence has none, any other has "
            f"some. {AGAIN}"
        )
    return StoredSequence(subject, condition, view, camid, start, length, verdict, why, source)
