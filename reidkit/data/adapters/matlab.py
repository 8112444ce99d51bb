"""Tables and arrays of structures in MATLAB's files.

Read here and not by scipy, which crashes the process on some damaged files.
"""

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Row = dict[str, str | float]
# The level 5 file format: 128 bytes, then elements of these types.
_HEADER, _MATRIX, _COMPRESSED = 128, 14, 15
_TYPES = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8"}
_TYPES |= {12: "<i8", 13: "<u8"}
_NUMERIC, _COMPLEX = range(6, 16), 1 << 11  # classes of arrays, and a flag beside the class
_LARGEST = 1 << 28  # bytes of a table unpacked
_STRUCTURE = 2  # class of an array
_TEXT = {2: "latin-1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le", 18: "utf-32-le"}
_CHARACTERS = 4


def read_mat(path: Path, key: str) -> Integers:
    """The table of whole numbers (N, M) under `key` of a MATLAB file.

    In 64 bits: MATLAB stores small unsigned numbers, in which 0 - 1 is 65535. Raises ValueError
    where the file cannot be read, lacks the key, or holds anything else under it.
    """
    table = find_in_mat(path, key)
    if table is None:
        raise ValueError(f"{path} holds no {key!r}; get the original file again")
    return table


def find_in_mat(path: Path, key: str) -> Integers | None:
    """As `read_mat`, but None where the file has no such key."""
    with _readable(path):
        values = _variable(path.read_bytes(), key)
    if values is None:
        return None
    whole = values.size and np.isfinite(values).all() and (values == np.floor(values)).all()
    if values.ndim != 2 or not whole or np.abs(values.astype(np.float64)).max() >= 2**31:
        raise ValueError(
            f"{path}: {key!r} has shape {values.shape}, expected a table of whole numbers below "
            "2^31; get the original file again"
        )
    return values.astype(np.int64)


def read_structs(path: Path, key: str, fields: Collection[str]) -> list[Row]:
    """The `fields` of each structure of the array `key`, texts and single numbers; fields that are
    not there are left out. Raises ValueError where the file cannot be read or holds no such array.
    """
    with _readable(path):
        rows = _structures(path.read_bytes(), key, fields)
    if rows is None:
        raise ValueError(f"{path} holds no {key!r}; get the original file again")
    return rows


def _structures(data: bytes, key: str, fields: Collection[str]) -> list[Row] | None:
    for content in _matrices(data):
        parts = _elements(content)
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


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, struct.error, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read as a MATLAB file ({error}); expected version 5 to 7.2, so get "
            "the original file again"
        ) from error


def _variable(data: bytes, key: str) -> NDArray[Any] | None:
    """The numbers of one variable of a MATLAB file; ValueError where it is damaged."""
    for content in _matrices(data):
        parts = list(islice(_elements(content), 4))
        if len(parts) < 3 or parts[2][1] != key.encode():
            continue
        flags, shape = (np.frombuffer(part, "<i4") for _, part in parts[:2])
        numeric = len(flags) > 0 and flags[0] & 0xFF in _NUMERIC and not flags[0] & _COMPLEX
        if not numeric or len(parts) < 4 or parts[3][0] not in _TYPES:
            raise ValueError(f"{key!r} is no table of real numbers")
        values = np.frombuffer(parts[3][1], _TYPES[parts[3][0]])
        if (shape < 0).any() or math.prod(shape.tolist()) != len(values):
            raise ValueError(f"{len(values):,} numbers do not fit the shape {shape.tolist()}")
        return values.reshape(shape.tolist(), order="F")
    return None


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
    parts = list(islice(_elements(content), 4))
    if len(parts) == 4 and parts[0][1]:
        kind, data = parts[3]
        if parts[0][1][0] == _CHARACTERS and kind in _TEXT:
            return data.decode(_TEXT[kind])
        values = np.frombuffer(data, _TYPES[kind]).tolist() if kind in _TYPES else []
        if len(values) == 1:
            return float(values[0])
    raise ValueError(f"field {name!r} is neither a text nor a number")


def _matrices(data: bytes) -> Iterator[bytes]:
    """What each variable of a MATLAB file holds, unpacked; ValueError where it is damaged."""
    if data[_HEADER - 4 : _HEADER] != b"\x00\x01IM":
        raise ValueError("it does not begin as one")
    for kind, content in _elements(data[_HEADER:]):
        if kind == _COMPRESSED:
            inflate = zlib.decompressobj()
            content = inflate.decompress(content, _LARGEST)
            if not inflate.eof:
                raise ValueError("a compressed part is cut short or too large")
            kind, content = next(_elements(content), (0, b""))
        if kind == _MATRIX:
            yield content


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements (type, content) of a stretch of a MATLAB file, one after the other."""
    place = 0
    while place < len(data):
        kind, size = struct.unpack_from("<II", data, place)
        place += 8
        small = kind >> 16  # the size of one that lies in the second half of its own tag
        if small:
            kind, content = kind & 0xFFFF, data[place - 4 : place][:small]
            size = small
        else:
            content = data[place : place + size]
            place += size + (0 if kind == _COMPRESSED else -size % 8)
        if len(content) < size:
            raise ValueError("it is cut short")
        yield kind, content
