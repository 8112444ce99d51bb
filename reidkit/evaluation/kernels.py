"""The compiled loops of the evaluator. Each works on what it is given and starts no thread.

Compiled by numba at the first call, cached on disk; all release the GIL, so that the caller may run
several at a time. Slow twins stand in the tests.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

# Sums may be reordered (that is what makes them vector instructions); NaN stays NaN.
SUMS = {"reassoc", "contract", "nsz", "arcp"}
CHUNK = 1024  # scores that are counted while they lie in the first cache
MANY = 256  # right answers of a query beyond which each score looks for its place among them
COSINE, EUCLIDEAN = 0, 1


@njit(cache=True, nogil=True, fastmath=SUMS)
def product(a: Any, b: Any) -> float:
    """a.b in float64. a (D,), b (D,)."""
    total = 0.0
    for i in range(a.shape[0]):
        total += np.float64(a[i]) * np.float64(b[i])
    return total


@njit(cache=True, nogil=True, fastmath=SUMS)
def squared_distance(a: Any, b: Any) -> float:
    """|a - b|^2 in float64, from differences: nothing cancels. a (D,), b (D,)."""
    total = 0.0
    for i in range(a.shape[0]):
        difference = np.float64(a[i]) - np.float64(b[i])
        total += difference * difference
    return total


@njit(cache=True, nogil=True)
def closeness(metric: int, a: Any, b: Any, a_norm: float, b_norm: float) -> float:
    """Larger is closer: the cosine (0 for a zero vector), or minus the squared distance."""
    if metric == EUCLIDEAN:
        return -squared_distance(a, b)
    lengths = a_norm * b_norm
    return product(a, b) / lengths if lengths > 0 else 0.0


@njit(cache=True, nogil=True)
def closeness_of_pairs(
    metric: int, a: Any, b: Any, a_norms: Any, b_norms: Any, rows: Any, columns: Any, out: Any
) -> None:
    """out[i] = closeness of a[rows[i]] and b[columns[i]], float64."""
    for i in range(rows.shape[0]):
        q, g = rows[i], columns[i]
        out[i] = closeness(metric, a[q], b[g], a_norms[q], b_norms[g])


@njit(cache=True, nogil=True, fastmath=SUMS)
def survey(rows: Any, scaled: bool, norms: Any, total: Any) -> int:
    """Norms of the rows; adds the rows, scaled to length 1 on request, to `total` (D,).

    Returns the first row that is not finite, -1 where all are.
    """
    for r in range(rows.shape[0]):
        squares = product(rows[r], rows[r])
        if not squares < np.inf:
            return r
        norms[r] = np.sqrt(squares)
        scale = 1.0
        if scaled:
            scale = 1 / norms[r] if norms[r] > 0 else 0.0
        for i in range(rows.shape[1]):
            total[i] += scale * np.float64(rows[r, i])
    return -1


@njit(cache=True, nogil=True)
def squared_distances_to(rows: Any, centre: Any, out: Any) -> None:
    """out[r] = |rows[r] - centre|^2. rows (N, D), centre (D,), out (N,)."""
    for r in range(rows.shape[0]):
        out[r] = squared_distance(rows[r], centre)


@njit(cache=True, nogil=True, fastmath=SUMS)
def place(rows: Any, centre: Any, scales: Any, out: Any, squares: Any) -> None:
    """out = (rows - centre) * scales, computed in float64; squares[r] = |out[r]|^2 before rounding.

    rows (N, D), centre (D,), scales (N,), out (N, D) of the type of the product.
    """
    for r in range(rows.shape[0]):
        total = 0.0
        scale = scales[r]
        for i in range(rows.shape[1]):
            x = (np.float64(rows[r, i]) - centre[i]) * scale
            total += x * x
            out[r, i] = x
        squares[r] = total


@njit(cache=True, nogil=True, fastmath=SUMS)
def partial_energy(rows: Any, out: Any) -> None:
    """out[r] = sum over k of |rows[r, :k]|^2: how large the partial sums of a product can be."""
    dim = rows.shape[1]
    for r in range(rows.shape[0]):
        total = 0.0
        for i in range(dim):
            x = np.float64(rows[r, i])
            total += (dim - i) * (x * x)
        out[r] = total


@njit(cache=True, nogil=True)
def right_answers(
    order: Any, start: Any, stop: Any, q_groups: Any, groups: Any, offsets: Any, columns: Any
) -> None:
    """Gallery items of the query's identity that are in another group (camera, view, self).

    With an empty `columns` only counts them: offsets (Q + 1,) gets the numbers, to be summed up by
    the caller; with offsets summed, fills columns (M,). An empty `groups` leaves nothing out.
    """
    fill = columns.shape[0] > 0
    for q in range(start.shape[0]):
        found = 0
        for p in range(start[q], stop[q]):
            g = order[p]
            if groups.shape[0] > 0 and groups[g] == q_groups[q]:
                continue
            if fill:
                columns[offsets[q] + found] = g
            found += 1
        if not fill:
            offsets[q + 1] = found


@njit(cache=True, nogil=True)
def sort_descending(values: Any, offsets: Any) -> None:
    """Sort each part values[offsets[q]:offsets[q + 1]], largest first, in place."""
    for q in range(offsets.shape[0] - 1):
        part = values[offsets[q] : offsets[q + 1]]
        part[:] = -np.sort(-part)


@njit(cache=True, nogil=True)
def draw_with_replacement(first: int, state: int, times: Any) -> None:
    """times[r, i] = how often item i is drawn when as many are drawn as there are.

    times (R, N) zeros. Draw number j of all (repeats `first` and on) is splitmix64 of `state` + j
    (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014), its upper
    32 bits scaled to N (Lemire, Fast Random Integer Generation in an Interval, TOMACS 2019): any
    split of the work gives the same draws.
    """
    count = times.shape[1]
    for r in range(times.shape[0]):
        for i in range(count):
            step = np.uint64((first + r) * count + i + 1)
            z = np.uint64(state) + step * np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
            times[r, ((z >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32)] += 1.0


@njit(cache=True, nogil=True)
def silence(row: Any, first: int, order: Any, start: int, stop: int) -> None:
    """row[g - first] = -inf for the gallery positions order[start:stop] (ascending) that lie in it.

    row (C,) holds the scores of gallery items first .. first + C - 1.
    """
    end = first + row.shape[0]
    low, high = start, stop
    while low < high:
        middle = (low + high) // 2
        if order[middle] < first:
            low = middle + 1
        else:
            high = middle
    while low < stop and order[low] < end:
        row[order[low] - first] = -np.inf
        low += 1


@njit(cache=True, nogil=True)
def _score(products: Any, scale: Any, bias: Any, lowest: Any, out: Any) -> Any:
    """out = products * scale + bias; says how many reach `lowest`. All (C,)."""
    some = np.int32(0)
    for i in range(products.shape[0]):
        x = products[i] * scale[i] + bias[i]
        out[i] = x
        some = np.int32(some + np.int32(x >= lowest))  # a sum alone would be 64 bits wide
    return some


@njit(cache=True, nogil=True)
def _above(scores: Any, count: int, low: Any, high: Any) -> Any:
    """How many of scores[:count] reach `low`, and how many `high`."""
    possible = np.int32(0)
    certain = np.int32(0)
    for i in range(count):
        possible = np.int32(possible + np.int32(scores[i] >= low))
        certain = np.int32(certain + np.int32(scores[i] >= high))
    return possible, certain


@njit(cache=True, nogil=True)
def _place_among(limits: Any, first: int, last: int, x: Any) -> int:
    """The first k in [first, last) with limits[k] <= x; limits descend. `last` where none is."""
    low, high = first, last
    while low < high:
        middle = (low + high) // 2
        if limits[middle] <= x:
            high = middle
        else:
            low = middle + 1
    return low


@njit(cache=True, nogil=True)
def count_closer(
    scores: Any,
    scale: Any,
    bias: Any,
    queries: Any,
    first: int,
    by_pid: Any,
    by_group: Any,
    answers: Any,
    exact: Any,
    budget: int,
    closer: Any,
    tied: Any,
    spent: Any,
) -> None:
    """Count, for every right answer, the wrong ones of this block that are closer or as close.

    Args:
        scores: (R, C), written into; row r belongs to query queries[r], column c to gallery item
            first + c. A score is scores * scale + bias, with scale (C,) and bias (C,).
        by_pid, by_group: `Lists`: the gallery items that are no wrong answers of a query.
        answers: `Answers`, best first within a query.
        exact: `Exact`: what measures a pair that the product cannot decide; where it holds no
            vectors, such pairs are equal.
        budget: undecided pairs a query may have; beyond, `spent` says so and its counts are void.
        closer: (M,) int64, added to. tied: (Q,) bool. spent: (Q,) int64, undecided pairs so far.
    """
    columns = scores.shape[1]
    buffer = np.empty(CHUNK, scores.dtype)
    for r in range(scores.shape[0]):
        q = queries[r]
        best, last = answers.offsets[q], answers.offsets[q + 1]
        if best == last or spent[q] > budget:
            continue
        row = scores[r]
        silence(row, first, by_pid.order, by_pid.start[q], by_pid.stop[q])
        if by_group.order.shape[0] > 0:
            silence(row, first, by_group.order, by_group.start[q], by_group.stop[q])
        lowest = answers.low[last - 1]
        for begin in range(0, columns, CHUNK):
            count = min(CHUNK, columns - begin)
            part = slice(begin, begin + count)
            if _score(row[part], scale[part], bias[part], lowest, buffer) == 0:
                continue
            if last - best > MANY:
                _count_by_search(
                    buffer, count, first + begin, q, answers, exact, budget, closer, tied, spent
                )
                continue
            for k in range(last - 1, best - 1, -1):
                possible, certain = _above(buffer, count, answers.low[k], answers.high[k])
                if possible == 0:
                    break  # nor does any reach a better one
                closer[k] += certain
                undecided = possible - certain
                for i in range(count):
                    if undecided == 0:
                        break
                    if answers.low[k] <= buffer[i] < answers.high[k]:
                        undecided -= 1
                        _decide(q, first + begin + i, k, best, answers, exact, closer, tied, spent)
                if spent[q] > budget:
                    break
            if spent[q] > budget:
                break


@njit(cache=True, nogil=True)
def _count_by_search(
    buffer: Any,
    count: int,
    first: int,
    q: int,
    answers: Any,
    exact: Any,
    budget: int,
    closer: Any,
    tied: Any,
    spent: Any,
) -> None:
    """As `count_closer`, for queries with very many right answers."""
    best, last = answers.offsets[q], answers.offsets[q + 1]
    reached = np.zeros(last - best + 1, np.int64)
    for i in range(count):
        x = buffer[i]
        if not x >= answers.low[last - 1]:
            continue
        possible = _place_among(answers.low, best, last, x)
        certain = _place_among(answers.high, possible, last, x)
        reached[certain - best] += 1
        for k in range(possible, certain):
            _decide(q, first + i, k, best, answers, exact, closer, tied, spent)
        if spent[q] > budget:
            return
    total = 0
    for k in range(best, last):
        total += reached[k - best]
        closer[k] += total


@njit(cache=True, nogil=True)
def _decide(
    q: int,
    g: int,
    k: int,
    best: int,
    answers: Any,
    exact: Any,
    closer: Any,
    tied: Any,
    spent: Any,
) -> None:
    """A wrong answer g so near to right answer k that the product cannot tell: measure it."""
    spent[q] += 1
    gap = 0.0
    if exact.queries.shape[0] > 0:
        found = closeness(
            exact.metric,
            exact.queries[q],
            exact.gallery[g],
            exact.query_norms[q],
            exact.gallery_norms[g],
        )
        gap = found - answers.value[k]
    if gap >= -answers.tie[k]:
        closer[k] += 1
        if k == best and gap <= answers.tie[k]:
            tied[q] = True


def no_rows(like: NDArray) -> NDArray:
    """An array of the same type without rows: what stands where nothing is to be measured."""
    return np.empty((0, 1), like.dtype)
