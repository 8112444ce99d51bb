"""k-reciprocal neighbours as sparse rows, and how far they overlap: compiled, nothing is N x N.

Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017,
arXiv:1701.08398; the section numbers below are theirs.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from scipy.sparse import csc_matrix, csr_matrix

from reidkit.evaluation.reranking.neighbour_lists import (
    Floats,
    Ints,
    Items,
    neighbours,
    shared_out,
    squared,
)

# Of one stretch of rows of a sparse matrix: how many entries each has, their columns and values.
Rows = tuple[Ints, Ints, Floats]
# A sparse matrix as plain arrays: where a row (or column) starts, positions, values.
Parts = tuple[Ints, Ints, Floats]


class Encoding(NamedTuple):
    """What re-ranking knows of N items."""

    weights: csr_matrix  # (N, N) float32, rows sum to 1: the vectors V of section 3.4
    largest: Floats  # (N,) float32: squared distance of each item to its farthest


def encode(items: Items, k1: int, k2: int, memory: str | int) -> Encoding:
    """The weights of k-reciprocal neighbours (section 3.2 to 3.4).

    As in the authors' code k1 means k1 + 1 items, the item itself being one, and round(k1 / 2) + 1
    in the expansion (a half goes to the even number); lists end where the items do. Equal
    distances stand in the order of positions, but every item is its own first neighbour.
    """
    count = len(items.scale)
    wide, half = min(k1 + 1, count), min(round(k1 / 2) + 1, count)
    lists, largest = neighbours(items, min(max(wide, k2), count), memory)
    sets = [reciprocal(lists, size) for size in (wide, half)]
    weights = stacked(shared_out(_weigh, count, *sets[0], *sets[1], items, largest))
    if k2 > 1:
        nearest = np.ascontiguousarray(lists[:, :k2])
        weights = stacked(shared_out(_average, count, parts(weights), nearest))
    return Encoding(weights, largest)


def reciprocal(lists: Ints, size: int) -> tuple[Ints, Ints]:
    """Which of an item's first `size` neighbours have it among theirs (section 3.2).

    Positions (N, size) int32, of which the first (N,) counts are filled.
    """
    lists = np.ascontiguousarray(lists[:, :size])
    found, counts = np.empty_like(lists), np.zeros(len(lists), np.int32)
    shared_out(_reciprocal, len(lists), lists, found, counts)
    return found, counts


def parts(matrix: csr_matrix | csc_matrix) -> Parts:
    """What compiled loops read of a sparse matrix."""
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data


def stacked(stretches: list[Rows]) -> csr_matrix:
    """The square matrix of these stretches of rows, in order."""
    counts, columns, values = (np.concatenate(column) for column in zip(*stretches, strict=True))
    return csr_matrix((values, columns, np.cumsum([0, *counts])), shape=(len(counts),) * 2)


@njit(cache=True, nogil=True)
def _reciprocal(start: int, stop: int, lists: Ints, found: Ints, counts: Ints) -> None:
    for i in range(start, stop):
        for j in lists[i]:
            for back in lists[j]:
                if back == i:
                    found[i, counts[i]] = j
                    counts[i] += 1
                    break


@njit(cache=True, nogil=True)
def _weigh(
    start: int,
    stop: int,
    wide: Ints,
    wide_counts: Ints,
    narrow: Ints,
    narrow_counts: Ints,
    items: Items,
    largest: Floats,
) -> Rows:
    counts = np.zeros(stop - start, np.int64)
    columns, values = _empty(64 * len(counts))
    # The row that last had an item as k-reciprocal neighbour, and in its expanded set.
    neighbour, taken = np.full(len(wide), -1), np.full(len(wide), -1)
    members = np.empty(wide.shape[1] * (1 + narrow.shape[1]), np.int32)
    filled = 0
    for i in range(start, stop):
        size = wide_counts[i]
        members[:size] = wide[i, :size]
        for j in members[:size]:
            neighbour[j] = taken[j] = i
        for candidate in wide[i, : wide_counts[i]]:
            theirs = narrow[candidate, : narrow_counts[candidate]]
            common = 0
            for j in theirs:
                common += neighbour[j] == i
            # A candidate brings its neighbours where more than two thirds of them are known here.
            if 3 * common > 2 * len(theirs):
                for j in theirs:
                    if taken[j] != i:
                        taken[j] = i
                        members[size] = j
                        size += 1
        chosen = np.sort(members[:size])
        columns, values = _room(columns, values, filled + size)
        total = 0.0
        for n, j in enumerate(chosen):
            # Section 3.3 on the authors' distances: squared, as a share of the item's largest.
            share = squared(items, i, j) / largest[i] if largest[i] > 0 else 0.0
            weight = np.exp(-share)
            columns[filled + n], values[filled + n] = j, weight
            total += weight
        values[filled : filled + size] /= total
        counts[i - start] = size
        filled += size
    return counts, columns[:filled], values[:filled]


@njit(cache=True, nogil=True)
def _average(start: int, stop: int, rows: Parts, nearest: Ints) -> Rows:
    # Local query expansion (section 3.4): the mean over an item and its k2 - 1 nearest.
    indptr, indices, weights = rows
    counts = np.zeros(stop - start, np.int64)
    columns, values = _empty(64 * len(counts))
    sums = np.zeros(len(nearest))
    touched = np.empty(len(nearest), np.int32)
    filled = 0
    for i in range(start, stop):
        size = 0
        for j in nearest[i]:
            for n in range(indptr[j], indptr[j + 1]):
                if sums[indices[n]] == 0:
                    touched[size] = indices[n]
                    size += 1
                sums[indices[n]] += weights[n]
        columns, values = _room(columns, values, filled + size)
        for n, j in enumerate(np.sort(touched[:size])):
            columns[filled + n], values[filled + n] = j, sums[j] / nearest.shape[1]
            sums[j] = 0
        counts[i - start] = size
        filled += size
    return counts, columns[:filled], values[:filled]


@njit(cache=True, nogil=True)
def _empty(size: int) -> tuple[Ints, Floats]:
    return np.empty(size, np.int32), np.empty(size, np.float32)


@njit(cache=True, nogil=True)
def _room(columns: Ints, values: Floats, needed: int) -> tuple[Ints, Floats]:
    length = len(columns)
    if needed <= length:
        return columns, values
    wider, larger = _empty(max(needed, length + length // 2))
    wider[:length], larger[:length] = columns, values
    return wider, larger


@njit(cache=True, nogil=True)
def mix(
    block: Floats,
    first: int,
    rows: Parts,
    owners: Parts,
    squares: tuple[Floats, Floats],
    largest: Floats,
    lambda_value: float,
) -> None:
    """Turn products (rows, G) of queries from number `first` on into final distances, in place.

    `rows` are the queries' weights (CSR), `owners` the gallery's by column (CSC): the inverted
    lists. Rows sum to 1, so that the maxima of section 3.3 sum to 2 less the minima.
    """
    indptr, indices, weights = rows
    heads, items, shares = owners
    of_query, of_gallery = squares
    overlap = np.empty(block.shape[1], np.float32)
    one, two = np.float32(1), np.float32(2)
    sparse = np.float32(1 - lambda_value)
    for row in range(block.shape[0]):
        q = first + row
        overlap[:] = 0
        for n in range(indptr[q], indptr[q + 1]):
            for m in range(heads[indices[n]], heads[indices[n] + 1]):
                overlap[items[m]] += min(weights[n], shares[m])
        factor = np.float32(lambda_value / largest[q]) if largest[q] > 0 else np.float32(0)
        for g in range(block.shape[1]):
            product = block[row, g]
            distance = of_query[q] + of_gallery[g] - (product + product)
            jaccard = one - overlap[g] / (two - overlap[g])
            block[row, g] = factor * max(distance, np.float32(0)) + sparse * jaccard


@njit(cache=True, nogil=True)
def pairs(
    start: int,
    stop: int,
    rows: Parts,
    owners: Parts,
    within: float,
) -> Rows:
    """Jaccard distances up to `within` of items that share an entry, nearest first in each row."""
    indptr, indices, weights = rows
    heads, items, shares = owners
    counts = np.zeros(stop - start, np.int64)
    columns, values = _empty(64 * len(counts))
    overlap = np.zeros(len(indptr) - 1, np.float32)
    touched = np.empty(len(overlap), np.int32)
    near = np.empty(len(overlap), np.float32)
    filled = 0
    for i in range(start, stop):
        seen = 0
        for n in range(indptr[i], indptr[i + 1]):
            for m in range(heads[indices[n]], heads[indices[n] + 1]):
                if overlap[items[m]] == 0:
                    touched[seen] = items[m]
                    seen += 1
                overlap[items[m]] += min(weights[n], shares[m])
        size = 0
        for j in touched[:seen]:
            common = overlap[j]
            overlap[j] = 0
            distance = max(np.float32(1) - common / (np.float32(2) - common), np.float32(0))
            if i == j:
                distance = np.float32(0)
            if distance <= within:
                touched[size], near[size] = j, distance
                size += 1
        columns, values = _room(columns, values, filled + size)
        order = np.argsort(near[:size])
        columns[filled : filled + size] = touched[order]
        values[filled : filled + size] = near[order]
        counts[i - start] = size
        filled += size
    return counts, columns[:filled], values[:filled]
