"""Digits as they are passed around, read and checked: idx files of MNIST's kind, npz archives.

The idx format is described on the page of MNIST (LeCun, Cortes, Burges): two zero bytes, the type
of the values, the number of axes, each axis as a big-endian 32-bit number, and the values.
"""

import gzip
import hashlib
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IDX_IMAGES = re.compile(r"(?:(.*)[-_])?images[-.]idx3-ubyte(?:\.gz)?")
UNSIGNED_BYTE = 0x08
NPZ_NAMES = (
    ("images", "labels"),
    ("x_train", "y_train"),
    ("x_test", "y_test"),
    ("train_images", "train_labels"),
    ("test_images", "test_labels"),
)
DIMMEST = 32  # of 255; an array of digits that never reaches it counts in other units


class Part(NamedTuple):
    """Pictures (N, H, W) or (N, H, W, 3) uint8 with their digits (N,) 0 to 9."""

    name: str
    images: NDArray[np.uint8]
    digits: NDArray[np.int64]


class IdxPair(NamedTuple):
    """A file of pictures and the file of their labels."""

    name: str
    images: Path
    labels: Path


def idx_pairs(folder: Path) -> list[IdxPair]:
    """The idx files of pictures in a folder with their labels, plain before packed ones.

    Raises FileNotFoundError for pictures without labels.
    """
    pairs: dict[str, IdxPair] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = IDX_IMAGES.fullmatch(path.name)
        name = (match[1] or "") if match else ""
        if match and name not in pairs:
            pairs[name] = IdxPair(name, path, labels_beside(path))
    return list(pairs.values())


def labels_beside(images: Path) -> Path:
    """The file of labels that belongs to an idx file of pictures, packed or plain."""
    head, _, tail = images.name.rpartition("images")
    name = f"{head}labels{tail}".replace("idx3", "idx1").removesuffix(".gz")
    for path in (images.with_name(name), images.with_name(f"{name}.gz")):
        if path.is_file():
            return path
    raise FileNotFoundError(f"no {name} or {name}.gz beside {images}; both files are needed")


def fingerprint(files: Sequence[Path]) -> str:
    """Ten characters that change with the content of the files."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:10]


def read_pair(pair: IdxPair) -> Part:
    """The pictures and digits of two idx files. Raises ValueError for files that are not whole."""
    images, labels = read_idx(pair.images, axes=3), read_idx(pair.labels, axes=1)
    return checked(pair.name, images, labels, str(pair.images), str(pair.labels))


def read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """The array of unsigned bytes in an idx file with so many axes.

    Raises ValueError for another type or number of axes, and for a length the header does not say.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is no whole gzip file: {error}. Copy it again") from error
    start = 4 + 4 * axes
    if len(data) < start or data[:2] != b"\0\0":
        raise ValueError(f"{path} is no idx file: it does not begin with the header of one")
    if data[2] != UNSIGNED_BYTE or data[3] != axes:
        raise ValueError(
            f"{path} holds values of type 0x{data[2]:02x} with {data[3]} axes, expected unsigned "
            f"bytes (0x08) with {axes}; is it the file its name says?"
        )
    shape = struct.unpack(f">{axes}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise ValueError(
            f"{path} has {len(data) - start:,} bytes of values, but its header says "
            f"{' x '.join(map(str, shape))} = {math.prod(shape):,}. Copy it again"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_npz(path: Path) -> list[Part]:
    """The pictures and digits of an npz archive, under any of the usual pairs of names.

    Raises ValueError for a file that is none, for pickled objects, and without such a pair.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no zip file")
        with np.load(path, allow_pickle=False) as archive:
            # A pair only: archives hold other arrays too, of any kind.
            present = [pair for pair in NPZ_NAMES if set(pair) <= set(archive.files)]
            names = sorted(archive.files)
            arrays = {name: archive[name] for pair in present for name in pair}
    except (
        *(ValueError, OSError, EOFError, KeyError, AttributeError, TypeError, SyntaxError),
        *(MemoryError, OverflowError, NotImplementedError, RuntimeError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ValueError(
            f"{path} is no npz archive of plain arrays: {reason}. Write it with numpy.savez"
        ) from error
    if not present:
        pairs = ", ".join(f"{images} and {labels}" for images, labels in NPZ_NAMES)
        raise ValueError(
            f"{path} holds {', '.join(map(repr, names)) or 'nothing'}; expected a pair of: {pairs}"
        )
    return [part_of(path, images, labels, arrays) for images, labels in present]


def part_of(path: Path, images: str, labels: str, arrays: Mapping[str, NDArray]) -> Part:
    """One pair of arrays of an archive; its name is what is left without the words for both."""
    name = re.sub(r"_?(images|x)_?", "", images)
    where = f"{images} in {path}", f"{labels} in {path}"
    return checked(name, arrays[images], arrays[labels], *where)


def checked(name: str, images: NDArray, labels: NDArray, of_images: str, of_labels: str) -> Part:
    """The part in bytes, once its shapes, types and ranges are right; else ValueError."""
    colours = images.ndim == 4 and images.shape[3] in (1, 3)
    if (images.ndim != 3 and not colours) or 0 in images.shape:
        raise ValueError(
            f"{of_images} has shape {images.shape}, expected (N, H, W) or (N, H, W, 3)"
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{of_labels} has shape {labels.shape} and type {labels.dtype}, expected whole numbers "
            "of shape (N,)"
        )
    if len(labels) != len(images):
        raise ValueError(
            f"{of_labels} has {len(labels):,} labels for {len(images):,} pictures; one each is "
            "expected"
        )
    if labels.min() < 0 or labels.max() > 9:
        raise ValueError(
            f"{of_labels} goes from {labels.min()} to {labels.max()}, expected digits 0 to 9 "
            "(SVHN writes 0 as 10: change it first)"
        )
    pixels = as_bytes(images, of_images)
    if colours and images.shape[3] == 1:
        pixels = pixels[..., 0]
    return Part(name, pixels, labels.astype(np.int64))


def as_bytes(images: NDArray, what: str) -> NDArray[np.uint8]:
    """Pictures in bytes: whole numbers 0 to 255 as they are, fractions 0 to 1 scaled."""
    kind = images.dtype.kind
    if kind not in "biuf":
        raise ValueError(f"{what} has type {images.dtype}, expected uint8 or fractions 0 to 1")
    lowest, highest = images.min(), images.max()
    top = 1 if kind in "bf" else 255
    if not (lowest >= 0 and highest <= top):  # so that NaN is refused, too
        raise ValueError(
            f"{what} goes from {lowest} to {highest}, expected 0 to 255 in whole numbers or "
            "0 to 1 in fractions; scale it first"
        )
    if kind in "iu":
        if highest < DIMMEST:
            raise ValueError(
                f"{what} goes to {highest} of 255 only: almost black; scale it to 0 to 255 first"
            )
        return images.astype(np.uint8)
    return np.rint(images.astype(np.float32) * 255).astype(np.uint8)
