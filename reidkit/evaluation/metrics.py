"""Retrieval metrics, functions of the ranks of the right answers: one float64 value a query.

A query without any right answer has the value NaN, so that nobody averages over it by accident.
R is the number of a query's right answers, r_1 < ... < r_R their ranks; right answer number i has
the precision i / r_i.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from reidkit.registry import UnknownName, nearest
from reidkit.types import Hits

Precision = Literal["rectangle", "trapezoid"]


def recall_at(hits: Hits, k: int) -> Tensor:
    """1 where a right answer is among the first k (rank-k, Recall@K), else 0. (Q,)."""
    first = first_ranks(hits)
    return torch.where(first.isnan(), first, (first <= k).double())


def cmc(hits: Hits, k: int) -> Tensor:
    """Cumulative matching characteristic of each query at ranks 1..k, NaN without any. (Q, k)."""
    first = first_ranks(hits)[:, None]
    steps = torch.arange(1, k + 1, dtype=torch.float64)
    return torch.where(first.isnan(), first, (first <= steps).double())


def average_precision(hits: Hits, precision: Precision = "rectangle") -> Tensor:
    """Mean precision at the right answers. (Q,).

    `rectangle` is the form of the Python toolboxes, the mean of i / r_i. `trapezoid` is that of the
    MATLAB code of Market-1501 and MARS (Zheng et al., ICCV 2015 and ECCV 2016): the mean of the
    precisions at r_i and one rank before it, where the precision before rank 1 is 1. Right answers
    at ranks 1 and 3: (1/1 + 2/3) / 2 = 0.8333, and ((1 + 1)/2 + (1/2 + 2/3)/2) / 2 = 0.7917.

    Raises:
        ValueError: another form.
    """
    if precision not in ("rectangle", "trapezoid"):
        raise ValueError(f"unknown precision {precision!r}; known: rectangle, trapezoid")
    right = _right(hits)
    at = right.number / right.rank
    if precision == "trapezoid":
        before = torch.where(right.rank > 1, (right.number - 1) / (right.rank - 1), 1.0)
        at = (before + at) / 2
    return _summed(right, at) / right.counts  # 0 / 0 is NaN: no right answer, no precision


def inverse_negative_penalty(hits: Hits) -> Tensor:
    """Number of right answers over the rank of the last; NaN without any. (Q,).

    INP of Ye et al., Deep Learning for Person Re-identification, TPAMI 2021, arXiv:2001.04193.
    """
    counts = hits.offsets.diff()
    last = _at(hits, hits.offsets[1:] - 1)
    return counts / last


def r_precision(hits: Hits) -> Tensor:
    """Share of right answers among the first R. (Q,).

    Musgrave et al., A Metric Learning Reality Check, ECCV 2020, arXiv:2003.08505, section 2.
    """
    right = _right(hits)
    return _summed(right, (right.rank <= right.total).double()) / right.counts


def map_at_r(hits: Hits) -> Tensor:
    """Average precision of which only the first R places count, MAP@R. (Q,).

    The sum of i / r_i over the right answers with r_i <= R, divided by R. Musgrave et al., A Metric
    Learning Reality Check, ECCV 2020, arXiv:2003.08505, equations 6 and 7.
    """
    right = _right(hits)
    inside = right.rank <= right.total
    return _summed(right, torch.where(inside, right.number / right.rank, 0.0)) / right.counts


def average_precision_at(hits: Hits, k: int) -> Tensor:
    """Average precision of which only the first k places count, mAP@k. (Q,).

    The sum of i / r_i over the right answers with r_i <= k, divided by min(k, R): by the most there
    could be. open-metric-learning divides by those that are there, which rewards a ranking for
    what it misses: right answers at ranks 2 and 9 and k = 4 give 0.25 here and 0.5 there.
    """
    _check_positive(k)
    right = _right(hits)
    inside = right.rank <= k
    sums = _summed(right, torch.where(inside, right.number / right.rank, 0.0))
    return sums / right.counts.clamp(max=k)


def precision_at(hits: Hits, k: int) -> Tensor:
    """Share of right answers among the first k, P@k; at most R / k. (Q,)."""
    _check_positive(k)
    right = _right(hits)
    found = _summed(right, (right.rank <= k).double())
    return torch.where(right.counts > 0, found / k, torch.nan)


def metric(name: str, precision: Precision = "rectangle") -> Callable[[Hits], Tensor]:
    """The function `hits -> (Q,)` of a reported name.

    Names are mAP, mINP, R-precision, MAP@R, and with a number k in place of the letter rank-k, R@k,
    mAP@k, P@k. `precision` is the form of mAP; no other name knows two.

    Raises:
        UnknownName: another name; the message lists the known ones and the nearest.
    """
    if name == "mAP":
        return partial(average_precision, precision=precision)
    if name in _PLAIN:
        return _PLAIN[name]
    match = re.fullmatch(r"(rank-|R@|mAP@|P@)([1-9]\d*)", name)
    if match is None:
        known = ["mAP", *_PLAIN, *(f"{prefix}{k}" for prefix in _AT for k in (1, 5, 10))]
        raise UnknownName(
            f"unknown score {name!r}; known: {', '.join(['mAP', *_PLAIN])}, and with a number k: "
            f"{', '.join(f'{prefix}k' for prefix in _AT)}.{nearest(name, known)}"
        )
    return partial(_AT[match[1]], k=int(match[2]))


def first_ranks(hits: Hits) -> Tensor:
    """The rank of the first right answer as float64, NaN without one. (Q,)."""
    return _at(hits, hits.offsets[:-1])


_PLAIN: dict[str, Callable[[Hits], Tensor]] = {
    "mINP": inverse_negative_penalty,
    "R-precision": r_precision,
    "MAP@R": map_at_r,
}
_AT: dict[str, Callable[..., Tensor]] = {
    "rank-": recall_at,
    "R@": recall_at,
    "mAP@": average_precision_at,
    "P@": precision_at,
}


class _Right(NamedTuple):
    """All right answers of all queries, one entry each, and how many a query has."""

    counts: Tensor  # (Q,) int64, R of each query
    owner: Tensor  # (M,) int64, whose right answer it is
    number: Tensor  # (M,) float64, its place among them, 1-based
    rank: Tensor  # (M,) float64
    total: Tensor  # (M,) int64, R of its query


def _right(hits: Hits) -> _Right:
    counts = hits.offsets.diff()
    owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
    number = torch.arange(len(hits.ranks)) - hits.offsets[owner] + 1
    return _Right(counts, owner, number.double(), hits.ranks.double(), counts[owner])


def _summed(right: _Right, values: Tensor) -> Tensor:
    sums = torch.zeros(len(right.counts), dtype=torch.float64)
    return sums.index_add_(0, right.owner, values)


def _at(hits: Hits, positions: Tensor) -> Tensor:
    values = torch.full((len(positions),), torch.nan, dtype=torch.float64)
    found = hits.offsets.diff() > 0
    values[found] = hits.ranks[positions[found]].double()
    return values


def _check_positive(k: int) -> None:
    if k < 1:
        raise ValueError(f"k = {k}: expected at least 1")
