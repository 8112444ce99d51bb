"""Distances between rows; one definition for losses, metrics and clustering."""

import torch
import torch.nn.functional as F
from torch import Tensor

# sqrt has an infinite slope at 0, and a row's distance to itself is exactly 0; the floor keeps its
# gradient finite.
FLOOR = 1e-12


def squared_euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances, never negative. a (N, D), b (M, D) -> (N, M)."""
    squares = a.square().sum(1)[:, None] + b.square().sum(1)[None, :]
    return torch.addmm(squares, a, b.t(), alpha=-2).clamp_min(0)


def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances with a finite gradient where rows coincide. a (N, D), b (M, D) -> (N,
    M)."""
    return squared_euclidean(a, b).clamp_min(FLOOR).sqrt()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine distances 1 - cos in [0, 2]; rows are normalised here. a (N, D), b (M, D) -> (N,
    M)."""
    return 1 - F.normalize(a, dim=1) @ F.normalize(b, dim=1).t()
