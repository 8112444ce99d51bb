"""Sparse graphs of distances: all pairs of a few samples, the nearest pairs of many."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial.distance import pdist, squareform
from torch import Tensor

from reidkit.neighbours import knn
from reidkit.types import Metric


def all_pairs(vectors: Tensor, metric: Metric) -> csr_matrix:
    """Distances (N, N) of all pairs of rows (N, D), float64, zeros stored; symmetric.

    1 - cos, which is half the squared distance of unit vectors and 1 from a zero vector, or
    Euclidean: both from differences, so copies are at exactly 0. Raises ValueError for an unknown
    metric and for values that are not finite.
    """
    count = len(vectors)
    rows = _rows(vectors, metric)
    if metric == "cosine":
        distances = squareform(pdist(rows, "sqeuclidean"), checks=False) / 2
        empty = ~rows.any(1)
        distances[empty] = distances[:, empty] = 1.0
    else:
        distances = squareform(pdist(rows), checks=False)
    columns = np.tile(np.arange(count, dtype=np.int32), count)
    starts = np.arange(0, count * count + 1, count)
    return csr_matrix((distances.ravel(), columns, starts), shape=(count, count))


def nearest_pairs(vectors: Tensor, neighbours: int, metric: Metric) -> csr_matrix:
    """Distances (N, N) of each row (N, D) and its nearest, float64, zeros stored; symmetric.

    A pair is there where one of the two is among the other's `neighbours`, of which more than
    N - 1 are all; rows themselves are not. Measured in float32, see `knn`, which also says what it
    raises.
    """
    count = len(vectors)
    size = min(neighbours + 1, count)
    distances, found = (
        values.cpu().numpy() for values in knn(vectors, vectors, size, metric=metric)
    )
    rows, columns = np.repeat(np.arange(count), size), found.ravel()
    low, high = np.minimum(rows, columns), np.maximum(rows, columns)
    pairs, first = np.unique(low * count + high, return_index=True)
    low, high = pairs // count, pairs % count
    beside = low != high
    low, high = low[beside], high[beside]
    values = distances.ravel()[first[beside]].astype(np.float64)
    ends = np.concatenate([low, high]), np.concatenate([high, low])
    return csr_matrix((np.concatenate([values, values]), ends), shape=(count, count))


def units(vectors: Tensor) -> NDArray[np.float64]:
    """The rows (N, D) at length 1, float64; zero rows stay."""
    return F.normalize(vectors.detach().cpu().double(), dim=1).numpy()


def _rows(vectors: Tensor, metric: Metric) -> NDArray[np.float64]:
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"unknown metric {metric!r}; known: cosine, euclidean")
    if not torch.isfinite(vectors).all():
        bad = int((~vectors.isfinite()).any(1).nonzero()[0])
        raise ValueError(f"the vector of sample {bad} is not finite")
    return units(vectors) if metric == "cosine" else vectors.detach().cpu().double().numpy()
