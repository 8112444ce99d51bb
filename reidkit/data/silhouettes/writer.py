"""Writing a packed store, sequence by sequence, so that a killed pack goes on where it was."""

import csv
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from reidkit.data.packing import csv_line, lock
from reidkit.data.silhouettes.layout import (
    AGAIN,
    COLUMNS,
    FRAMES,
    HEADER,
    SEQUENCES,
    StoredSequence,
    StoreHeader,
    parse_sequence,
    read_header,
)
from reidkit.files import write_atomically

FOREGROUND = 128  # with one bit a pixel: the brighter half of [0, 255] is body


class StoreWriter:
    """Writes the store `folder`; used in a `with` statement.

    Everything goes to `folder.partial`, which becomes `folder` in one move at a clean end. After a
    failure or a kill it stays, and the next writer of the same size, bits and origin goes on:
    `done` are the sources it holds already.

    Args:
        folder: what is written; may exist if it is empty.
        size: height and width of the frames.
        bits: 8 keeps grey edges, 1 takes an eighth of the space.
        origin: fingerprint of what is packed and how; two origins do not mix.

    Raises ValueError for a `folder` with content, for an interrupted pack of something else, and
    where another process writes the same store.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        size: tuple[int, int] = (64, 64),
        bits: int = 8,
        origin: str = "",
    ) -> None:
        if bits not in (1, 8):
            raise ValueError(f"bits is {bits}, expected 8 or 1")
        if min(size) < 1:
            raise ValueError(f"size is {size}, expected height and width of at least 1")
        self.folder = Path(folder)
        self.partial = self.folder.with_name(f"{self.folder.name}.partial")
        self.header = StoreHeader((size[0], size[1]), bits, None, origin)
        self.done: set[str] = set()
        self._position = 0  # frames written
        self._frames: BinaryIO | None = None
        self._sequences: BinaryIO | None = None

    def __enter__(self) -> "StoreWriter":
        folder, partial = self.folder, self.partial
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"{folder} exists and is not empty; name a new folder or remove it")
        self.done.clear()
        partial.mkdir(parents=True, exist_ok=True)
        self._frames = (partial / FRAMES).open("ab")
        try:
            lock(self._frames, self.partial)
            self._go_on()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._close()

    def add(
        self,
        subject: str,
        condition: str,
        view: str,
        frames: NDArray[np.uint8],
        *,
        camid: int = 0,
        verdict: str = "good",
        why: str = "",
        source: str = "",
    ) -> None:
        """Append a sequence of frames (T, H, W) uint8; one bit a pixel keeps what is at least 128.

        Raises ValueError for frames of another size or type, for none, for a text with a line
        break, and for a source that is there already.
        """
        if frames.dtype != np.uint8 or frames.shape[1:] != self.header.size:
            raise ValueError(
                f"frames of {source or subject} are {frames.dtype} {frames.shape}, expected uint8 "
                f"(T, {self.header.size[0]}, {self.header.size[1]})"
            )
        if verdict == "rejected" or not len(frames):
            raise ValueError(f"{len(frames)} frames of {source or subject}: use reject for these")
        row = StoredSequence(
            subject, condition, view, camid, self._position, len(frames), verdict, why, source
        )
        packed = frames
        if self.header.bits == 1:
            packed = np.packbits(frames >= FOREGROUND, axis=2)
        self._append(row, np.ascontiguousarray(packed))

    def reject(
        self, subject: str, condition: str, view: str, *, why: str, camid: int = 0, source: str = ""
    ) -> None:
        """Note a sequence that is not used, and why not."""
        row = StoredSequence(
            subject, condition, view, camid, self._position, 0, "rejected", why, source
        )
        self._append(row, np.empty(0, np.uint8))

    def _append(self, row: StoredSequence, packed: NDArray[np.uint8]) -> None:
        if self._frames is None or self._sequences is None:
            raise ValueError(f"{self.folder}: a StoreWriter is used in a `with` statement")
        if row.source and row.source in self.done:
            raise ValueError(f"{row.source} is in {self.partial} already; leave out what is done")
        line = sequence_line(row)
        text = line.decode("utf-8", "surrogateescape")
        parse_sequence(next(csv.reader([text])), row.start + row.length, row.name)
        # Frames first: a line never promises frames that are not there.
        self._frames.write(packed.data)
        self._frames.flush()
        self._sequences.write(line)
        self._sequences.flush()
        self._position += row.length
        if row.source:
            self.done.add(row.source)

    def _go_on(self) -> None:
        """Take up what an interrupted pack left, cutting off a sequence it did not finish."""
        assert self._frames is not None
        if not (self.partial / HEADER).is_file():  # new, or killed before its first line
            write_atomically(self.partial / HEADER, self.header.to_json())
        found = read_header(self.partial)._replace(frames=None)
        if found != self.header:
            raise ValueError(
                f"{self.partial} is an interrupted pack of size {found.size}, bits {found.bits}, "
                f"origin {found.origin!r}, not of {self.header.size}, {self.header.bits}, "
                f"{self.header.origin!r}; remove it or name another folder"
            )
        write_atomically(self.partial / HEADER, self.header.to_json())
        available = os.fstat(self._frames.fileno()).st_size // self.header.frame_bytes
        lines, self._position = whole_lines(self.partial / SEQUENCES, available)
        self.done.update(source for source, _ in lines if source)
        write_atomically(
            self.partial / SEQUENCES, b"".join([header_line(), *(line for _, line in lines)])
        )
        self._frames.truncate(self._position * self.header.frame_bytes)
        self._sequences = (self.partial / SEQUENCES).open("ab")

    def _finish(self) -> None:
        assert self._frames is not None and self._sequences is not None
        for file in (self._frames, self._sequences):
            file.flush()
            os.fsync(file.fileno())
        whole = self.header._replace(frames=self._position)
        write_atomically(self.partial / HEADER, whole.to_json())
        os.replace(self.partial, self.folder)  # takes the place of an empty folder

    def _close(self) -> None:
        for file in (self._frames, self._sequences):
            if file is not None:
                file.close()
        self._frames = self._sequences = None


def sequence_line(row: StoredSequence) -> bytes:
    """The line of `sequences.csv`; a ValueError where a text would break it in two."""
    values = [str(getattr(row, name)) for name in COLUMNS]
    for name, value in zip(COLUMNS, values, strict=True):
        if any(character in value for character in "\r\n\0"):
            raise ValueError(f"{name} is {value!r}, expected a single line")
    return csv_line(values)


def header_line() -> bytes:
    """The first line of `sequences.csv`."""
    return csv_line(COLUMNS)


def whole_lines(path: Path, frames: int) -> tuple[list[tuple[str, bytes]], int]:
    """Lines (source, bytes) whose frames are all there, and the number of frames they hold.

    Stops at the first line that is torn or that goes beyond `frames`: what a crash may leave.
    """
    lines: list[tuple[str, bytes]] = []
    position = 0
    if not path.is_file():
        return lines, position
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True)):
        if number == 0:
            if line.endswith(b"\n") and line != header_line():
                raise ValueError(f"{path} begins with {line[:80]!r}, not with its columns. {AGAIN}")
            continue
        try:
            fields = next(csv.reader([line.decode("utf-8", "surrogateescape")]))
            row = parse_sequence(fields, frames, path.name)
        except (ValueError, csv.Error):
            break
        if not line.endswith(b"\n") or row.start != position:
            break
        position += row.length
        lines.append((row.source, line))
    return lines, position
