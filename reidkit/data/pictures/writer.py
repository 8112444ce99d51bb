"""Writing packed pictures, so that a killed pack goes on where it was."""

import errno
import os
import shutil
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from reidkit.data.packing import lock
from reidkit.data.pictures.layout import (
    HEADER,
    INDEX,
    PIXELS,
    TITLES,
    Entry,
    PicturesHeader,
    read_header,
    whole_entries,
)
from reidkit.data.pictures.store import changed
from reidkit.files import write_atomically


class PictureWriter:
    """Writes the pictures `paths` at `size` into the store `folder`; used in a `with` statement.

    Everything goes to `folder.partial`, which becomes `folder` in one move at a clean end. After a
    failure or a kill it stays, and the next writer of the same pictures goes on: the first `done`
    of `paths` are there already.

    Args:
        folder: what is written; may exist if it is empty.
        paths: the files in the order of their rows, each once.
        size: height and width of the pictures.
        overwrite: take the place of a store that is there, at the end, and of an interrupted pack
            of something else.

    Raises ValueError for a `folder` with other content, for an interrupted pack of something else,
    for a path with a line break, and where another process writes the same store; OSError where the
    disk has too little space.
    """

    def __init__(
        self,
        folder: Path,
        paths: Sequence[str],
        size: tuple[int, int],
        *,
        overwrite: bool = False,
    ) -> None:
        for path in paths:
            if any(character in path for character in "\r\n\0"):
                raise ValueError(f"the path {path!r} has a line break, expected none; rename it")
        self.folder = folder
        self.partial = folder.with_name(f"{folder.name}.partial")
        self.paths = paths
        self.header = PicturesHeader(size)
        self.overwrite = overwrite
        self.done = 0
        self._checksum = 0  # of the index so far
        self._pixels: BinaryIO | None = None
        self._index: BinaryIO | None = None

    def __enter__(self) -> "PictureWriter":
        folder = self.folder
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            ours = self.overwrite and (folder / HEADER).is_file()
            if not ours:
                raise ValueError(
                    f"{folder} exists and is no empty folder; name a new one or remove it"
                )
        self.partial.mkdir(parents=True, exist_ok=True)
        self._pixels = (self.partial / PIXELS).open("ab")
        try:
            lock(self._pixels, self.partial)
            self._go_on(self._pixels)
            self._check_space()
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

    def add(self, facts: Sequence[os.stat_result], pictures: NDArray[np.uint8]) -> None:
        """Append the next pictures (N, H, W, 3) uint8 RGB and what was true of their files before
        they were read.

        Raises OSError with the folder and the reason, a full disk for example.
        """
        if self._pixels is None or self._index is None:
            raise ValueError(f"{self.folder}: a PictureWriter is used in a `with` statement")
        if pictures.dtype != np.uint8 or pictures.shape != (len(facts), *self.header.size, 3):
            raise ValueError(
                f"pictures are {pictures.dtype} {pictures.shape}, expected uint8 "
                f"{(len(facts), *self.header.size, 3)}"
            )
        pictures = np.ascontiguousarray(pictures)
        lines = b"".join(
            Entry(path, fact.st_size, fact.st_mtime_ns, row, zlib.crc32(picture)).line()
            for row, (path, fact, picture) in enumerate(
                zip(self.paths[self.done :], facts, pictures, strict=False), self.done
            )
        )
        try:
            # Pixels first: a line never promises a picture that is not there.
            for file, content in ((self._pixels, pictures.data), (self._index, lines)):
                file.write(content)
                file.flush()
        except OSError as error:
            reason = (
                f"{error.strerror or error} while writing {self.partial}; what is there is kept, "
                "and the same pack goes on"
            )
            raise OSError(error.errno, reason) from error
        self._checksum = zlib.crc32(lines, self._checksum)
        self.done += len(facts)

    def _go_on(self, pixels: BinaryIO) -> None:
        """Take up what an interrupted pack left, up to the first picture that is not whole."""
        entries: list[Entry] = []
        if (self.partial / HEADER).is_file():  # else new, or killed before its first line
            found = read_header(self.partial)
            if found.size == self.header.size:
                entries = self._kept(pixels)
            elif not self.overwrite:
                raise ValueError(
                    f"{self.partial} is an interrupted pack of size {found.size}, not of "
                    f"{self.header.size}; remove it, name another folder or overwrite"
                )
        write_atomically(self.partial / HEADER, self.header.to_json())
        content = TITLES + b"".join(entry.line() for entry in entries)
        write_atomically(self.partial / INDEX, content)
        self.done, self._checksum = len(entries), zlib.crc32(content)
        pixels.truncate(self.done * self.header.row_bytes)
        self._index = (self.partial / INDEX).open("ab")

    def _kept(self, pixels: BinaryIO) -> list[Entry]:
        """The entries at the front of the interrupted pack whose pixels and files are as it says.

        A crash of the whole machine may leave lines without their pixels: checksums tell.
        """
        index = self.partial / INDEX
        entries = whole_entries(index.read_bytes()) if index.is_file() else []
        kept: list[Entry] = []
        with open(self.partial / PIXELS, "rb") as written:
            for entry in entries:
                if len(kept) >= len(self.paths) or entry.path != self.paths[len(kept)]:
                    if self.overwrite:
                        break
                    raise ValueError(
                        f"{self.partial} is an interrupted pack of other pictures, "
                        f"{entry.path} among them; remove it, name another folder or overwrite"
                    )
                picture = written.read(self.header.row_bytes)
                whole = len(picture) == self.header.row_bytes
                if not whole or zlib.crc32(picture) != entry.crc32:
                    break
                if changed(entry.path, entry.size, entry.mtime_ns):
                    break
                kept.append(entry)
        return kept

    def _check_space(self) -> None:
        paths = self.paths[self.done :]
        needed = len(paths) * (self.header.row_bytes + 64) + sum(map(len, paths))
        free = shutil.disk_usage(self.partial).free
        if needed > free:
            height, width = self.header.size
            raise OSError(
                errno.ENOSPC,
                f"{len(paths):,} pictures of {height}x{width} take {needed / 1e9:.2f} GB, and "
                f"{self.partial.parent} has {free / 1e9:.2f} GB free; make room or name a folder "
                "elsewhere",
            )

    def _finish(self) -> None:
        assert self._pixels is not None and self._index is not None
        for file in (self._pixels, self._index):
            os.fsync(file.fileno())
        whole = self.header._replace(pictures=self.done, checksum=self._checksum)
        write_atomically(self.partial / HEADER, whole.to_json())
        take_the_place(self.partial, self.folder)

    def _close(self) -> None:
        for file in (self._pixels, self._index):
            if file is not None:
                with suppress(OSError):  # of a full disk, which was told; the next pack cuts it off
                    file.close()
        self._pixels = self._index = None


def take_the_place(new: Path, folder: Path) -> None:
    """Move the folder `new` to `folder`; what was there goes once the new one stands.

    A kill between the two moves leaves both beside `folder`, and the next pack puts it right.
    """
    old = folder.with_name(f".{folder.name}.replaced")
    if folder.exists() and any(folder.iterdir()):
        if old.exists():
            shutil.rmtree(old)
        os.replace(folder, old)
        try:
            os.replace(new, folder)
        except OSError:
            os.replace(old, folder)
            raise
    else:
        os.replace(new, folder)  # takes the place of an empty folder
    if old.exists():
        shutil.rmtree(old)
