"""One state on the disk: what torch.load reads, and a checksum over all of it."""

import os
import pickle
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

# A state is a zip of torch.save with a comment at its end: this word and the checksum of all bytes
# before the comment. The zip's own checksums leave its directory out, and torch reads without them.
WORD = b"reidkit crc32 "
COMMENT = len(WORD) + 8
# The zip's last record: how it starts, and its length; its last two bytes count the comment's.
END, END_SIZE = b"PK\x05\x06", 22
CHUNK = 1 << 18


class Damaged(Exception):
    """A file is not, or no longer, what `write_state` wrote; says in which way."""


def write_state(file: BinaryIO, state: Mapping[str, Any]) -> None:
    """Write a dict of tensors and plain values. OSError when the file takes no more."""
    sink = _Sink(file)
    torch.save(dict(state), cast(IO[bytes], sink))
    sink.close()


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote, on the CPU; runs no code from the file.

    Damaged when one bit differs; FileNotFoundError and PermissionError as they are.
    """
    try:
        with path.open("rb") as file:
            _verify(file)
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:  # a directory, a disk that cannot be read
        raise Damaged(error.strerror or str(error)) from error
    # The bytes are as they were written: by another version, or by somebody else.
    except (RuntimeError, pickle.UnpicklingError, EOFError, LookupError, ValueError) as error:
        raise Damaged(str(error).splitlines()[0]) from error
    if not isinstance(state, dict):
        raise Damaged(f"holds a {type(state).__name__} instead of a dict")
    return state


def _verify(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise Damaged("is empty")
    file.seek(max(size - COMMENT, 0))
    comment = file.read()
    if len(comment) != COMMENT or not comment.startswith(WORD):
        raise Damaged("ends too early, or reidkit did not write it")
    file.seek(0)
    checksum, left = 0, size - COMMENT
    while left and (chunk := file.read(min(CHUNK, left))):
        checksum, left = zlib.crc32(chunk, checksum), left - len(chunk)
    if left or comment != _comment(checksum):
        raise Damaged("does not fit its checksum")


def _comment(checksum: int) -> bytes:
    return WORD + b"%08x" % checksum


class _Sink:
    """Takes what torch.save writes, sums it up, and keeps the error that torch would hide.

    torch turns a full disk into a RuntimeError without its reason, so an error waits for `close`
    and the rest of what torch writes is dropped. Pieces are small for the GIL's sake: zlib and the
    file let it go for each, and the training's threads come between two of them.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._checksum = 0
        self._held = b""  # the last bytes so far: among them may be the zip's end
        self._error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        if self._error is None:
            try:
                self._put(memoryview(data).cast("B"))
            except OSError as error:
                self._error = error
        return len(data)

    def flush(self) -> None:
        pass  # the end is still to come

    def close(self) -> None:
        if self._error is not None:
            raise self._error
        if not self._held.startswith(END):
            raise RuntimeError("torch.save did not end with the last record of a zip")
        self._pass(memoryview(self._held[:-2] + COMMENT.to_bytes(2, "little")))
        self._file.write(_comment(self._checksum))

    def _put(self, data: memoryview) -> None:
        if len(data) < END_SIZE:
            data = memoryview(self._held + bytes(data))
        else:
            self._pass(memoryview(self._held))
        self._pass(data[:-END_SIZE])
        self._held = bytes(data[-END_SIZE:])

    def _pass(self, data: memoryview) -> None:
        for start in range(0, len(data), CHUNK):
            piece = data[start : start + CHUNK]
            self._checksum = zlib.crc32(piece, self._checksum)
            self._file.write(piece)
