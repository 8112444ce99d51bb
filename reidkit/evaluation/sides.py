"""One side of an evaluation as plain arrays: what the evaluator reads, from features or arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from reidkit.types import UNKNOWN_CAMERA, Features, Sample, check_vectors, integer_array

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
CPU = torch.device("cpu")
PIECE = 2**21  # numbers that are looked at at a time


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """Query or gallery: vectors (N, D) float32 or float64, C-contiguous, perhaps memory-mapped.

    `pids` and `camids` are (N,) int64; `samples` is there where the features have them. Products
    are made on `device`.
    """

    vectors: NDArray[np.floating]
    pids: Integers
    camids: Integers
    samples: Sequence[Sample] | None = None
    device: torch.device = CPU
    model: str = ""

    def __len__(self) -> int:
        return len(self.pids)

    def name(self, position: int) -> str:
        """What to call the sample in a message."""
        if self.samples is not None:
            return self.samples[position].name
        return Sample((), int(self.pids[position]), int(self.camids[position])).name


def as_side(features: "Features | Side") -> Side:
    """The arrays of features; copied only from another device or floating type."""
    if isinstance(features, Side):
        return features
    vectors = features.vectors.detach()
    return Side(
        vectors=_plain(vectors),
        pids=features.pids.numpy(),
        camids=features.camids.numpy(),
        samples=features.samples,
        device=vectors.device,
        model=features.model,
    )


def one_set(query: Side, gallery: Side) -> bool:
    """Whether both sides are the same items in the same order: leave-one-out."""
    return query is gallery or (
        query.samples == gallery.samples
        and np.array_equal(query.pids, gallery.pids)
        and np.array_equal(query.vectors, gallery.vectors)
    )


def not_finite(what: str, position: int, name: str) -> ValueError:
    """The error for a feature that is not finite; `what` says of which side."""
    return ValueError(
        f"{what} {position} ({name}) is not finite; look for NaN in the model's weights or in that "
        "input"
    )


def check_finite(features: Features, what: str = "feature") -> None:
    """Raise a ValueError with the first bad sample's name unless all numbers are finite."""
    for start, stop in pieces(*features.vectors.shape):
        bad = (~features.vectors[start:stop].isfinite()).any(1).nonzero()
        if len(bad):
            position = start + int(bad[0])
            raise not_finite(what, position, features.samples[position].name)


def check_one_model(query: str, gallery: str, sides: tuple[str, str]) -> None:
    """Raise a ValueError where both fingerprints are known and differ."""
    if query and gallery and query != gallery:
        raise ValueError(
            f"{sides[0]} features are of model {query}, {sides[1]} features of {gallery}; "
            "vectors of two models have nothing in common: extract both with one"
        )


def pieces(count: int, dim: int) -> Iterator[tuple[int, int]]:
    """Start and stop of pieces of at most PIECE numbers, at least one row."""
    rows = max(1, PIECE // max(dim, 1))
    for start in range(0, count, rows):
        yield start, min(start + rows, count)


def side_of_arrays(
    vectors: ArrayLike | Tensor,
    pids: ArrayLike | Tensor,
    camids: ArrayLike | Tensor | None,
) -> Side:
    """A side from any toolkit's arrays; a memory-mapped array stays on the disk.

    Raises:
        ValueError: vectors that are not (N, D) floating, pids or camids that are not N integers.
    """
    device = vectors.device if isinstance(vectors, Tensor) else CPU
    matrix = vectors.detach() if isinstance(vectors, Tensor) else np.asanyarray(vectors)
    kind = matrix.dtype
    floating = kind.is_floating_point if isinstance(kind, torch.dtype) else kind.kind == "f"
    check_vectors(tuple(matrix.shape), floating, kind)
    identities = integer_array("pids", pids, len(matrix))
    cameras = (
        np.full(len(matrix), UNKNOWN_CAMERA)
        if camids is None
        else integer_array("camids", camids, len(matrix))
    )
    return Side(_plain(matrix), identities, cameras, device=device)


def _plain(matrix: Tensor | NDArray) -> NDArray[np.floating]:
    """Float32 or float64, C-contiguous, on the CPU."""
    if isinstance(matrix, Tensor):
        if matrix.dtype not in (torch.float32, torch.float64):
            matrix = matrix.float()
        matrix = matrix.cpu().contiguous().numpy()
    elif matrix.dtype not in (np.float32, np.float64):
        matrix = matrix.astype(np.float32 if matrix.dtype.itemsize < 4 else np.float64)
    if not matrix.dtype.isnative:
        matrix = matrix.astype(matrix.dtype.newbyteorder("="))
    # A memory map keeps its class: its pages are handed back while it is read.
    return matrix if matrix.flags.c_contiguous else np.ascontiguousarray(matrix)
