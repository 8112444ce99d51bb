"""One side of an evaluation as plain arrays: what the evaluator reads, from features or arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from reidkit.types import Features, Sample, integer_array

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
CPU = torch.device("cpu")


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
        return f"pid {self.pids[position]}, camera {self.camids[position]}"


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
    if not floating:
        raise ValueError(f"features must be floating point, got {kind}; convert them on purpose")
    if matrix.ndim != 2:
        raise ValueError(f"features need shape (N, D), one row a sample; got {tuple(matrix.shape)}")
    identities = integer_array("pids", pids, len(matrix))
    cameras = (
        np.zeros(len(matrix), np.int64)
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
