"""Files that are whole or not there: written beside, synced, renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` at the end.

    On any failure what was at `path` stays and nothing is left beside it. Raises OSError with the
    path and the reason, a full disk for example.
    """
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = f"{error.strerror or error} while writing {path}; what was there before is kept"
        raise OSError(error.errno, reason) from error
    finally:
        remove_leftover(path)
    # The rename itself must reach the disk, too.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Replace `path` by `content` in one move."""
    with replacing(path) as file:
        file.write(content)


def remove_leftover(path: Path) -> None:
    """Remove what a kill in the middle of `replacing(path)` left beside it, if anything."""
    with suppress(OSError):  # in a folder that is none, or may not be written: told by who writes
        _beside(path).unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")
