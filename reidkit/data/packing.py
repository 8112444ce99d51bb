"""What packed pictures and packed silhouettes have in common: a header, lines, one writer at a
time."""

import csv
import fcntl
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO


def read_plain_header(path: Path, *, number: int, again: str) -> dict[str, Any]:
    """The JSON object at `path`, whose `format` is `number` and whose `size` is [height, width].

    Raises ValueError, which ends with `again`, the way out, where it is anything else.
    """
    try:
        plain = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}). {again}") from error
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    plain = plain if isinstance(plain, dict) else {}
    if plain.get("format") != number:
        raise ValueError(
            f"{path}: format is {plain.get('format')!r}, expected {number}, the one of this "
            f"version of reidkit. {again}"
        )
    size = plain.get("size")
    whole = isinstance(size, list) and len(size) == 2 and all(is_count(side) for side in size)
    if not isinstance(size, list) or not whole or min(size) < 1:
        raise ValueError(f"{path}: size is {size!r}, expected [height, width]. {again}")
    return plain


def is_count(value: object) -> bool:
    """Whether this is a whole number from 0; True and False are none."""
    return type(value) is int and value >= 0


def check_length(path: Path, count: int, each: int, *, what: str, again: str) -> None:
    """Raise FileNotFoundError or ValueError unless `path` holds `count` pieces of `each` bytes."""
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}. {again}")
    found = path.stat().st_size
    if found != count * each:
        raise ValueError(
            f"{path} has {found:,} bytes, expected {count * each:,} for {count:,} {what} of "
            f"{each:,} bytes: it is cut short or not of this store. {again}"
        )


def csv_line(values: Iterable[Any]) -> bytes:
    """The values as one line of a table."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    # Names of files need not be UTF-8; the escapes bring them back byte by byte.
    return text.getvalue().encode("utf-8", "surrogateescape")


def lock(file: BinaryIO, partial: Path) -> None:
    """Keep other processes from writing the pack `partial`, of which `file` is a part."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ValueError(
            f"another process writes {partial}; wait for its end or name another folder"
        ) from error
