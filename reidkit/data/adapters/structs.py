"""Arrays of structures in MATLAB's files: annotations, a row a picture."""

import struct
import zlib
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from reidkit.data.adapters.tracklets import (
    _COMPRESSED,
    _HEADER,
    _LARGEST,
    _MATRIX,
    _TYPES,
    elements,
)

_STRUCTURE = 2  # class of an array
_TEXT = {2: "latin-1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le", 18: "utf-32-le"}
_CHARACTERS = 4

Row = dict[str, str | float]


def read_structs(path: Path, key: str, fields: Collection[str]) -> list[Row]:
    """The `fields` of each structure of the array `key`, texts and single numbers; fields that are
    not there are left out.

    Read here and not by scipy, which crashes the process on some damaged files. Raises ValueError
    where the file cannot be read or holds no such array.
    """
    try:
        rows = _structures(path.read_bytes(), key, fields)
    except (ValueError, struct.error, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read as a MATLAB file ({error}); expected version 5 to 7.2, so get "
            "the original file again"
        ) from error
    if rows is None:
        raise ValueError(f"{path} holds no {key!r}; get the original file again")
    return rows


def _structures(data: bytes, key: str, fields: Collection[str]) -> list[Row] | None:
    if data[_HEADER - 4 : _HEADER] != b"\x00\x01IM":
        raise ValueError("it does not begin as one")
    for content in _matrices(data[_HEADER:]):
        parts = elements(content)
        head = list(islice(parts, 3))
        if len(head) < 3 or head[2][1] != key.encode():
            continue
        lengths = list(islice(parts, 2))
        if not head[0][1] or head[0][1][0] != _STRUCTURE or len(lengths) < 2:
            raise ValueError(f"{key!r} is no array of structures")
        (length,) = struct.unpack("<i", lengths[0][1])
        words = lengths[1][1]
        if length < 1 or not words:
            raise ValueError(f"{key!r} has no fields")
        names = [
            words[place : place + length].partition(b"\0")[0].decode("latin-1")
            for place in range(0, len(words), length)
        ]
        count = int(np.prod(np.frombuffer(head[1][1], "<i4"), dtype=np.int64))
        return list(_rows(parts, names, count, fields))
    return None


def _matrices(data: bytes) -> Iterator[bytes]:
    for kind, content in elements(data):
        if kind == _COMPRESSED:
            inflate = zlib.decompressobj()
            content = inflate.decompress(content, _LARGEST)
            if not inflate.eof:
                raise ValueError("a compressed part is cut short or too large")
            kind, content = next(elements(content), (0, b""))
        if kind == _MATRIX:
            yield content


def _rows(
    parts: Iterator[tuple[int, bytes]], names: list[str], count: int, fields: Collection[str]
) -> Iterator[Row]:
    for number in range(count):
        row: Row = {}
        for name in names:
            kind, content = next(parts, (0, b""))
            if kind != _MATRIX:
                raise ValueError(f"structure {number + 1:,} of {count:,} is not whole")
            if name in fields:
                row[name] = _value(content, name)
        yield row


def _value(content: bytes, name: str) -> str | float:
    parts = list(islice(elements(content), 4))
    if len(parts) == 4 and parts[0][1]:
        kind, data = parts[3]
        if parts[0][1][0] == _CHARACTERS and kind in _TEXT:
            return data.decode(_TEXT[kind])
        values = np.frombuffer(data, _TYPES[kind]).tolist() if kind in _TYPES else []
        if len(values) == 1:
            return float(values[0])
    raise ValueError(f"field {name!r} is neither a text nor a number")
