"""Scores whose order within a row is the order of distances, in float64."""

from collections.abc import Iterator

import torch
from torch import Tensor

from reidkit.types import Features, Metric

ROUNDING = 2.0**-53
CHUNK = 2**20  # numbers of one side that are worked on at a time: 8 MB


class Scorer:
    """Larger is closer: q.g of unit vectors (cosine), or 2 q.g - |g|^2 (euclidean).

    In float32 a product depends on where in the matrix a row stands, so copies of one image would
    stop being tied and a gallery's order would move ranks; float64 costs a third more time and
    leaves errors of which `tie` is a bound: scores of one query that differ by no more are equal.

    Args:
        query: vectors (Q, D).
        gallery: vectors (G, D), any floating type; a float64 copy is held.
        metric: cosine or euclidean.

    Raises:
        ValueError: dimensions differ, a feature is not finite, or the metric is unknown.
    """

    def __init__(self, query: Features, gallery: Features, metric: Metric) -> None:
        check_comparable(query, gallery, metric)
        device = query.vectors.device
        # mps has no float64.
        self.device = torch.device("cpu") if device.type == "mps" else device
        self.metric = metric
        self.query = query.vectors.detach()
        dim = self.query.shape[1]
        self.mean = torch.zeros(dim, dtype=torch.float64, device=self.device)
        self.gallery = torch.empty(len(gallery), dim, dtype=torch.float64, device=self.device)
        for start, stop in pieces(len(gallery), dim):
            self.gallery[start:stop] = self._placed(gallery.vectors[start:stop].detach())
        if metric == "cosine":
            self.bias = torch.zeros(1, dtype=torch.float64, device=self.device)
            self.tie = ROUNDING * (4 * dim + 32)
            return
        # A common offset cancels in every distance but not in the products that stand for it.
        length = self._longest(query, gallery)
        self.mean = self.gallery.mean(0)
        self.gallery -= self.mean
        spread = self._longest(query, gallery)
        self.bias = -torch.linalg.vecdot(self.gallery, self.gallery)
        self.tie = ROUNDING * ((8 * dim + 64) * spread**2 + 32 * length * spread)

    def blocks(self, rows: int) -> Iterator[tuple[int, Tensor]]:
        """Blocks of queries: the first one's number, and scores (<= rows, G) float64.

        All blocks share one buffer, which the caller may write into until the next one: buffers of
        this size, freed one by one, would leave holes in the heap that nobody fills.
        """
        buffer = torch.empty(
            min(rows, len(self.query)), len(self.gallery), dtype=torch.float64, device=self.device
        )
        factor = 1 if self.metric == "cosine" else 2
        for start in range(0, len(self.query), rows):
            placed = self._placed(self.query[start : start + rows])
            scores = buffer[: len(placed)]
            yield start, torch.addmm(self.bias, placed, self.gallery.t(), alpha=factor, out=scores)

    def distances(self, q: int, columns: Tensor) -> Tensor:
        """What a person calls the distance: 1 - cos, or the Euclidean one. columns (C,) -> (C,)
        float64.
        """
        row = self._placed(self.query[q : q + 1])
        if self.metric == "cosine":
            return 1 - self.gallery[columns] @ row[0]
        return (self.gallery[columns] - row).norm(dim=1)

    def _placed(self, vectors: Tensor) -> Tensor:
        rows = vectors.to(self.device).double()
        if self.metric == "euclidean":
            return rows - self.mean
        # The largest entry first: squares of very small or large numbers leave the range of
        # float64.
        rows = rows / rows.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
        norms = rows.norm(dim=1, keepdim=True)
        return rows.div_(
            torch.where(norms > 0, norms, 1)
        )  # a zero vector has cosine 0 to everything

    def _longest(self, query: Features, gallery: Features) -> float:
        longest = float(torch.linalg.vecdot(self.gallery, self.gallery).max().sqrt())
        for start, stop in pieces(*query.vectors.shape):
            longest = max(longest, float(self._placed(self.query[start:stop]).norm(dim=1).max()))
        return longest


def pieces(count: int, dim: int) -> Iterator[tuple[int, int]]:
    """Start and stop of pieces of at most CHUNK numbers, at least one row."""
    rows = max(1, CHUNK // max(dim, 1))
    for start in range(0, count, rows):
        yield start, min(start + rows, count)


def check_comparable(query: Features, gallery: Features, metric: str) -> None:
    """Raise a ValueError unless both sides are finite vectors of one dimension and the metric is
    known.
    """
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"unknown metric {metric!r}; known: cosine, euclidean")
    dims = query.vectors.shape[1], gallery.vectors.shape[1]
    if dims[0] != dims[1] or not dims[0]:
        raise ValueError(
            f"query features have {dims[0]} dimensions, gallery features {dims[1]}; "
            "expected the same number, at least 1: extract both with one model"
        )
    for side, features in (("query", query), ("gallery", gallery)):
        for start, stop in pieces(*features.vectors.shape):
            bad = (~features.vectors[start:stop].isfinite()).any(1).nonzero()
            if len(bad):
                position = start + int(bad[0])
                raise ValueError(
                    f"{side} feature {position} ({features.samples[position].name}) is not finite; "
                    "look for NaN in the model's weights or in that input"
                )
