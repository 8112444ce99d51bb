"""Retrieval metrics, functions of the ranks of the right answers: one float64 value a query.

A query without any right answer has the value NaN, so that nobody averages over it by accident.
"""

import torch
from torch import Tensor

from reidkit.types import Hits


def recall_at(hits: Hits, k: int) -> Tensor:
    """1 where a right answer is among the first k (rank-k, Recall@K), else 0. (Q,)."""
    first = first_ranks(hits)
    return torch.where(first.isnan(), first, (first <= k).double())


def cmc(hits: Hits, k: int) -> Tensor:
    """Cumulative matching characteristic of each query at ranks 1..k, NaN without any. (Q, k)."""
    first = first_ranks(hits)[:, None]
    steps = torch.arange(1, k + 1, dtype=torch.float64)
    return torch.where(first.isnan(), first, (first <= steps).double())


def average_precision(hits: Hits) -> Tensor:
    """Mean precision at the right answers: the rectangular form of the Python toolboxes. (Q,).

    Right answers at ranks 1 and 3: (1/1 + 2/3) / 2 = 0.8333; the trapezoids of Market's MATLAB code
    give 0.7917.
    """
    counts = hits.offsets.diff()
    owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
    number = torch.arange(len(hits.ranks)) - hits.offsets[owner] + 1
    sums = torch.zeros(len(counts), dtype=torch.float64)
    sums.index_add_(0, owner, number.double() / hits.ranks.double())
    return sums / counts  # 0 / 0 is NaN: no right answer, no precision


def inverse_negative_penalty(hits: Hits) -> Tensor:
    """Number of right answers over the rank of the last; NaN without any. (Q,).

    INP of Ye et al., Deep Learning for Person Re-identification, TPAMI 2021, arXiv:2001.04193.
    """
    counts = hits.offsets.diff()
    last = _at(hits, hits.offsets[1:] - 1)
    return counts / last


def first_ranks(hits: Hits) -> Tensor:
    """The rank of the first right answer as float64, NaN without one. (Q,)."""
    return _at(hits, hits.offsets[:-1])


def _at(hits: Hits, positions: Tensor) -> Tensor:
    values = torch.full((len(positions),), torch.nan, dtype=torch.float64)
    found = hits.offsets.diff() > 0
    values[found] = hits.ranks[positions[found]].double()
    return values
