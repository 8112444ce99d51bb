"""Whole rows of scores in float64, for what needs to see them; `find_hits` does not."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from reidkit.evaluation import space
from reidkit.evaluation.sides import Side, as_side
from reidkit.evaluation.space import Space, multiply
from reidkit.types import Features, Metric

GALLERY_ROWS = 4096  # prepared at a time


class Scorer:
    """Larger is closer: q.g of unit vectors (cosine), or 2 q.g - |g|^2 (euclidean, centred).

    Scores of one query that differ by no more than `tie` are equal.

    Args:
        query: vectors (Q, D).
        gallery: vectors (G, D).
        metric: cosine or euclidean.

    Raises:
        ValueError: dimensions or models differ, a feature is not finite, or an unknown metric.
    """

    def __init__(self, query: Features | Side, gallery: Features | Side, metric: Metric) -> None:
        same = query is gallery
        left = as_side(query)
        right = left if same else as_side(gallery)
        self.space = Space(left, right, metric, np.empty(0, np.int64))
        self.metric = metric
        self.unit = 1.0 if metric == "cosine" else 2 * self.space.spread**2
        self.tie = self.unit * self.space.largest_error()

    def blocks(self, rows: int) -> Iterator[tuple[int, Tensor]]:
        """Blocks of queries: the first one's number, and scores (<= rows, G) float64.

        All blocks share one buffer, which the caller may write into until the next one: buffers of
        this size, freed one by one, would leave holes in the heap that nobody fills.
        """
        queries, gallery = len(self.space.query), len(self.space.gallery)
        buffer = np.empty((min(rows, queries), gallery))
        for start in range(0, queries, rows):
            index = np.arange(start, min(start + rows, queries))
            ready, _ = self.space.queries(index, np.float64)
            scores = buffer[: len(index)]
            for block in self.space.blocks(GALLERY_ROWS, np.float64):
                part = scores[:, block.first : block.first + len(block.rows)]
                multiply(ready, block.rows, part, self.space.query.device)
                part += block.bias
            if self.unit != 1:
                scores *= self.unit
            yield start, torch.from_numpy(scores)

    def distances(self, q: int, columns: Tensor) -> Tensor:
        """What a person calls the distance: 1 - cos, or the Euclidean one. columns (C,) -> (C,)
        float64.
        """
        which = columns.cpu().numpy()
        found = self.space.exact(np.full(len(which), q), which)
        return torch.from_numpy(1 - found if self.metric == "cosine" else np.sqrt(-found))


def check_comparable(query: Features | Side, gallery: Features | Side, metric: Metric) -> None:
    """Raise a ValueError unless both sides are finite vectors of one dimension and one model, and
    the metric is known.
    """
    left, right = as_side(query), as_side(gallery)
    space.check_comparable(left, right, metric)
    space.survey("query", left, metric)
    space.survey("gallery", right, metric)
