"""How far a score could be off because these queries were asked and no others."""

import numpy as np
import torch
from torch import Tensor

from reidkit.evaluation import kernels
from reidkit.evaluation.threads import in_threads

DRAWN = 2**18  # queries that a thread draws at a time: 2 MB of counts


@torch.no_grad()
def bootstrap(values: Tensor, *, repeats: int = 1000, level: float = 0.95, seed: int = 0) -> Tensor:
    """Percentile bootstrap intervals of the means of per-query scores: lower and upper end. (S, 2).

    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13: `repeats` times as
    many queries are drawn with replacement as there are; the interval holds the middle `level` of
    the means. One draw serves all scores. It tells of the choice of queries only: the gallery and
    the model stay as they are, and queries of one identity, which are alike, count as independent.

    Args:
        values: (Q, S) floating, a column a score. A query with a NaN has no right answer and is
            left out.
        repeats: draws, at least 1; the ends of a 95 % interval want some hundreds.
        level: share of the means inside, in (0, 1).
        seed: of the draws; equal seeds give equal intervals.

    Raises:
        ValueError: no query with values, infinite values, or an argument out of its range.
    """
    if values.ndim != 2 or not values.is_floating_point():
        raise ValueError(
            f"expected floating values (Q, S), a column a score; got {tuple(values.shape)} "
            f"{values.dtype}"
        )
    if repeats < 1 or not 0 < level < 1:
        raise ValueError(
            f"repeats = {repeats}, level = {level}: expected at least 1, and a share inside (0, 1)"
        )
    table = values.cpu().double().numpy()
    table = table[~np.isnan(table).any(1)]
    if not len(table):
        raise ValueError("no query has a value: an interval needs a query with a right answer")
    if not np.isfinite(table).all():
        raise ValueError("scores of queries must be finite, or NaN without a right answer")
    count = len(table)
    # Spread about the mean: a score that is the same for all queries gets no width from rounding.
    centre = table.mean(0)
    table = table - centre
    means = np.empty((repeats, table.shape[1]))
    state = int(np.random.default_rng(seed).integers(2**63))

    step = max(1, DRAWN // count)

    def draw(start: int) -> None:
        part = means[start : start + step]
        times = np.zeros((len(part), count))
        kernels.draw_with_replacement(start, state, times)
        np.matmul(times / count, table, out=part)

    in_threads(range(0, repeats, step), draw, float(repeats) * count * 8)
    outside = (1 - level) / 2
    ends = np.quantile(means, [outside, 1 - outside], axis=0) + centre
    return torch.from_numpy(ends.T.copy())
