"""Packed pictures: one file of pixels, mapped into memory and gathered by row.

`layout.py` draws its files, `writer.py` writes them, `pack.py` decodes what goes in.
"""

import mmap
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.data.packing import check_length
from reidkit.data.pictures.layout import (
    AGAIN,
    INDEX,
    PIXELS,
    Index,
    PicturesHeader,
    read_header,
    read_index,
)


class PictureStore:
    """Decoded pictures at one size, uint8 RGB, mapped into memory: for repeated epochs.

    It is pickled as the name of its folder and mapped again, so processes share its pages. Threads
    may read at the same time.
    """

    def __init__(self, folder: Path, header: PicturesHeader, index: Index | None = None) -> None:
        self.folder = folder
        self.size = header.size
        self._header = header
        self._index = index
        self._memory, self._pixels = map_pixels(folder / PIXELS, header)  # (N, H * W * 3)
        # What does not fit in memory has to be fetched anew in every epoch.
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self._fits = self._pixels.nbytes < memory // 2
        self._fetched = np.zeros(len(self), np.bool_)

    @classmethod
    def open(cls, folder: str | Path) -> "PictureStore":
        """The store in `folder`, after its three files were compared with one another.

        Raises FileNotFoundError where a file is absent, ValueError where they do not fit together.
        """
        folder = Path(folder)
        header = read_header(folder)
        if header.pictures is None:
            raise ValueError(
                f"{folder} is a pack that was interrupted; the same `reidkit data pack` goes on"
            )
        return cls(folder, header, read_index(folder, header))

    def __len__(self) -> int:
        return len(self._pixels)

    def __reduce__(self) -> tuple[Any, ...]:
        # Reading needs no index, and workers that each hold one of a large set would pay for it.
        return _again, (str(self.folder.absolute()), self._header)

    @property
    def index(self) -> Index:
        """The row of each path, and the size, time and checksum it was packed with."""
        if self._index is None:
            self._index = read_index(self.folder, self._header)
        return self._index

    def rows(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """The row of each picture file, (N,) int64.

        A file that no longer exists is fine: its row stands in for it. Raises ValueError for the
        first that is not in the store, or has another size or time of change than when it was
        packed.
        """
        index = self.index
        found = np.empty(len(paths), np.int64)
        for place, path in enumerate(paths):
            row = index.rows.get(path)
            if row is None:
                row = index.rows.get(os.path.abspath(path))
            if row is None:
                raise ValueError(
                    f"{path} is not among the {len(self):,} pictures of {self.folder}. {AGAIN}"
                )
            found[place] = row
        for path, row in zip(paths, found.tolist(), strict=True):
            why = changed(path, *index.facts[row, :2].tolist())
            if why:
                raise ValueError(f"{path} changed since {self.folder} was packed: {why}. {AGAIN}")
        return found

    def read_into(self, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """Copy the pictures of `rows` (N,), in that order and as often, into `out` (N, H, W, 3).

        Raises ValueError for a row outside [0, len), and for an `out` that is not uint8 of this
        shape in one piece.
        """
        rows = np.asarray(rows, np.int64)
        shape = (len(rows), *self.size, 3)
        if out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise ValueError(
                f"out is {out.dtype} {out.shape}{'' if out.flags.c_contiguous else ' in pieces'}, "
                f"expected uint8 {shape} in one piece"
            )
        if not len(rows):
            return
        # One at a time is checked in Python: numpy's calls would take as long as the copy.
        single = len(rows) == 1
        first, last = (int(rows[0]),) * 2 if single else (int(rows.min()), int(rows.max()))
        if first < 0 or last >= len(self):
            raise ValueError(
                f"row {first if first < 0 else last} of {self.folder}, which has {len(self):,}: "
                f"expected a row in [0, {len(self):,})"
            )
        if not (single and self._fits and self._fetched[first]):
            self.prefetch(rows)
        if single:
            out.reshape(-1)[:] = self._pixels[first]
            return
        # "clip" because with "raise" numpy gathers into a buffer first; the rows are inside.
        np.take(self._pixels, rows, axis=0, out=out.reshape(len(rows), -1), mode="clip")

    def verify(self) -> None:
        """Read every pixel; a ValueError names the first picture that is not as it was packed."""
        for path, row in self.index.rows.items():
            if zlib.crc32(self._pixels[row]) != self.index.facts[row, 2]:
                raise ValueError(
                    f"{self.folder}: the pixels of {path} (row {row}) are damaged, their checksum "
                    f"is not the one in {INDEX}. {AGAIN}"
                )

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Ask the system to read these rows from the disk, all at once and without waiting;
        `read_into` does it itself, for its rows alone.

        Page by page, as they are touched, a picture takes seven times as long on a cold cache; in a
        warm one the question costs as much as the copy, so each process asks once for a row.
        """
        if self._fits:
            rows = rows[~self._fetched[rows]]
            self._fetched[rows] = True
        length = self._header.row_bytes
        for row in rows.tolist():
            start = row * length // mmap.PAGESIZE * mmap.PAGESIZE
            self._memory.madvise(mmap.MADV_WILLNEED, start, (row + 1) * length - start)


def _again(folder: str, header: PicturesHeader) -> PictureStore:
    found = read_header(Path(folder))
    if found != header:
        raise ValueError(f"{folder} was packed anew while it was in use; start again")
    return PictureStore(Path(folder), header)


def map_pixels(path: Path, header: PicturesHeader) -> tuple[mmap.mmap, NDArray[np.uint8]]:
    """The bytes of `pixels.bin` and the same as (N, H * W * 3), read only when touched."""
    pictures = header.pictures or 0
    check_length(path, pictures, header.row_bytes, what="pictures", again=AGAIN)
    expected = pictures * header.row_bytes
    if not expected:  # an empty file cannot be mapped
        return mmap.mmap(-1, 1), np.empty((0, header.row_bytes), np.uint8)
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), expected, access=mmap.ACCESS_READ)
    return memory, np.frombuffer(memory, np.uint8).reshape(pictures, header.row_bytes)


def changed(path: str, size: int, mtime_ns: int) -> str:
    """How the file differs from one of `size` bytes changed at `mtime_ns`; "" where it does not or
    where there is none."""
    try:
        facts = os.stat(path)
    except OSError:
        return ""
    if facts.st_size != size:
        return f"it has {facts.st_size:,} bytes, expected {size:,}"
    if facts.st_mtime_ns != mtime_ns:
        return f"its time of change is {facts.st_mtime_ns} ns, expected {mtime_ns}"
    return ""
