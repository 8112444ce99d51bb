"""Exact nearest neighbours of all items among themselves; compiled, and nothing is N x N."""

from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from reidkit.evaluation.hits import block_rows, memory_bytes
from reidkit.evaluation.sides import Side
from reidkit.evaluation.space import survey
from reidkit.evaluation.threads import in_threads
from reidkit.types import Metric

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

TILE = 512  # items on each side of a tile of products: 1 MB, which a core's cache holds
EFFORT = 2**14  # multiplications that one item is worth in the loops over items
SPARE = 8  # neighbours kept beyond those asked for, so that rounding seldom decides who is in
FLOAT32 = 2.0**-24
CHUNK = 2**20  # numbers that are placed at a time: 8 MB
NO_LENGTH = 1e-300  # a vector shorter than this is zero
NO_SPREAD = 1e-12  # differences below this share of the vectors are rounding: all items coincide


class Items(NamedTuple):
    """Query and gallery as one numbered set: N = Q + G items, the query's first."""

    query: Floats  # (Q, D) as given
    gallery: Floats  # (G, D) as given
    scale: Floats  # (N,) float64: scale * row is what distances are taken of
    centred: Floats  # (N, D) float32: scale * row less the mean of these
    squares: Floats  # (N,) float32: squared lengths of the centred rows


def place(query: Side, gallery: Side | None, metric: Metric) -> Items:
    """Items of both sides, vectors (Q, D) and (G, D), or of one alone.

    Cosine divides every row by its length (zero stays zero); euclidean all rows by one power of
    two: only shares of distances matter, and squares shall not leave the range of float32. Raises
    ValueError for a feature that is not finite, with its sample's name.
    """
    sides = [np.asarray(query.vectors)]
    lengths = survey("query", query).norms
    if gallery is not None:
        sides.append(np.asarray(gallery.vectors))
        lengths = np.concatenate([lengths, survey("gallery", gallery).norms])
    if sides[0].dtype != sides[-1].dtype:
        sides = [side.astype(np.float64) for side in sides]
    count, dim = len(lengths), sides[0].shape[1]
    if metric == "euclidean":
        lengths[:] = np.exp2(np.frexp(lengths.max())[1])
    scale = np.divide(1, lengths, out=np.zeros(count), where=lengths > NO_LENGTH)
    mean, size, spread = np.zeros(dim), 0.0, 0.0
    for rows, part in _pieces(sides):
        mean += scale[part] @ rows / count
    centred = np.empty((count, dim), np.float32)
    for rows, part in _pieces(sides):
        placed = rows * scale[part, None]
        size = max(size, np.abs(placed).max())
        placed -= mean
        spread = max(spread, np.abs(placed).max())
        centred[part] = placed
    if spread < NO_SPREAD * size:
        centred[:] = 0
    squares = np.einsum("nd,nd->n", centred, centred)
    second = sides[1] if gallery is not None else sides[0][:0]
    return Items(sides[0], second, scale, centred, squares)


def _pieces(sides: list[Floats]) -> Iterator[tuple[Floats, slice]]:
    step = max(1, CHUNK // sides[0].shape[1])
    first = 0
    for side in sides:
        for start in range(0, len(side), step):
            rows = side[start : start + step]
            yield rows, slice(first, first + len(rows))
            first += len(rows)


def neighbours(items: Items, width: int, memory: str | int) -> tuple[Ints, Floats]:
    """Each item and its width - 1 nearest others (N, width) int32, and the largest squared distance
    (N,).

    float32 products find candidates, float64 differences decide among them; where the candidates
    may lack one within the rounding, all items are looked at. The matrix of distances is
    symmetric: only the tiles on and right of its diagonal are computed. `memory` bounds the
    products held at a time.
    """
    count, dim = items.centred.shape
    kept = max(1, min(width - 1 + SPARE, count - 1))
    near = np.full((count, kept), -1, np.int32)
    distances = np.full((count, kept), np.inf, np.float32)
    largest = np.zeros(count, np.float32)
    side = max(1, min(TILE, int(np.sqrt(memory_bytes(memory) / (4 * torch.get_num_threads())))))
    starts = range(0, count, side)
    writing = {start: Lock() for start in starts}

    def scan(tile: tuple[int, int]) -> None:
        first, second = tile
        products = items.centred[first : first + side] @ items.centred[second : second + side].T
        state = (products, first, second, items.squares, near, distances, largest)
        with writing[first]:
            _scan_rows(*state)
        if second > first:
            with writing[second]:
                _scan_columns(*state)

    in_threads([(a, b) for a in starts for b in starts if a <= b], scan, count**2 * dim)
    lists = np.empty((count, width), np.int32)
    reach, open_ended = np.zeros(count), np.zeros(count, np.bool_)
    shared_out(_settle, count, items, near, distances, lists, reach, open_ended)
    unsettled = np.flatnonzero(open_ended)
    rows = block_rows(count * torch.get_num_threads(), memory, itemsize=4)

    def search(start: int) -> None:
        chosen = unsettled[start : start + rows]
        _search(items.centred[chosen] @ items.centred.T, chosen, items, lists, reach)

    in_threads(range(0, len(unsettled), rows), search, len(unsettled) * count * dim)
    return lists, largest


def shared_out(kernel: Callable[..., Any], count: int, *arguments: Any) -> list[Any]:
    """`kernel(start, stop, *arguments)` over the range of `count` items in several threads; answers
    in order.
    """
    step = max(64, -(-count // (4 * torch.get_num_threads())))
    starts = range(0, count, step)
    found: list[Any] = [None] * len(starts)

    def run(number: int) -> None:
        start = starts[number]
        found[number] = kernel(start, min(start + step, count), *arguments)

    in_threads(range(len(starts)), run, count * EFFORT)
    return found


# No contraction: a fused multiply-add would round the two sides of a difference differently, and
# copies of one item would no longer be at distance 0.
@njit(cache=True, nogil=True, fastmath={"reassoc"})
def squared(items: Items, i: int, j: int) -> float:
    """Squared distance of items i and j, float64, of differences; 0 exactly for copies."""
    query, gallery, scale = items.query, items.gallery, items.scale
    a = query[i] if i < len(query) else gallery[i - len(query)]
    b = query[j] if j < len(query) else gallery[j - len(query)]
    total = 0.0
    for d in range(len(a)):
        difference = a[d] * scale[i] - b[d] * scale[j]
        total += difference * difference
    return total


@njit(cache=True, nogil=True)
def _insert(near: Ints, distances: Floats, place: int, item: int, distance: float) -> None:
    while place > 0 and distances[place - 1] > distance:
        distances[place], near[place] = distances[place - 1], near[place - 1]
        place -= 1
    distances[place], near[place] = distance, item


@njit(cache=True, nogil=True)
def _scan_rows(
    products: Floats,
    first: int,
    second: int,
    squares: Floats,
    near: Ints,
    distances: Floats,
    largest: Floats,
) -> None:
    last = near.shape[1] - 1
    for row in range(products.shape[0]):
        i = first + row
        top = largest[i]
        for column in range(products.shape[1]):
            j = second + column
            product = products[row, column]
            distance = squares[i] + squares[j] - (product + product)
            top = max(top, distance)
            if distance < distances[i, last] and i != j:
                _insert(near[i], distances[i], last, j, distance)
        largest[i] = top


@njit(cache=True, nogil=True)
def _scan_columns(
    products: Floats,
    first: int,
    second: int,
    squares: Floats,
    near: Ints,
    distances: Floats,
    largest: Floats,
) -> None:
    # The same numbers for the items of the columns, in the order in which they lie in memory.
    last = near.shape[1] - 1
    for row in range(products.shape[0]):
        i = first + row
        for column in range(products.shape[1]):
            j = second + column
            product = products[row, column]
            distance = squares[i] + squares[j] - (product + product)
            largest[j] = max(largest[j], distance)
            if distance < distances[j, last]:
                _insert(near[j], distances[j], last, i, distance)


@njit(cache=True, nogil=True)
def _settle(
    start: int,
    stop: int,
    items: Items,
    near: Ints,
    distances: Floats,
    lists: Ints,
    reach: Floats,
    open_ended: NDArray[np.bool_],
) -> None:
    others, kept = lists.shape[1] - 1, near.shape[1]
    # A float32 distance is wrong by at most `error` (|a| + |b|)^2: D products and sums, the lengths
    # and the rounded vectors. With |b| <= 2 |a| that is 9 |a|^2; a longer b is at least |b| / 2
    # away, so there it is a share of the distance.
    error = 9 * FLOAT32 * (items.centred.shape[1] + 8)
    positions, exact = np.empty(kept, np.int32), np.empty(kept)
    for i in range(start, stop):
        lists[i, 0] = i
        if others == 0:
            continue
        # Equal distances keep the order they are inserted in, which is that of positions.
        for n, j in enumerate(np.sort(near[i])):
            _insert(positions, exact, n, j, squared(items, i, j))
        lists[i, 1:] = positions[:others]
        reach[i] = exact[others - 1]
        if kept < len(near) - 1:
            beyond = np.float64(distances[i, kept - 1])
            least = min(beyond - error * items.squares[i], beyond / (1 + error))
            open_ended[i] = reach[i] >= least


@njit(cache=True, nogil=True)
def _search(
    products: Floats,
    chosen: Ints,
    items: Items,
    lists: Ints,
    reach: Floats,
) -> None:
    others = lists.shape[1] - 1
    error = FLOAT32 * (items.centred.shape[1] + 8)
    exact = np.empty(others)
    for row, i in enumerate(chosen):
        found, within = 0, reach[i]
        length = np.sqrt(items.squares[i])
        for j in range(products.shape[1]):
            square = items.squares[j]
            distance = items.squares[i] + square - 2 * products[row, j]
            if i == j or distance - error * (length + np.sqrt(square)) ** 2 > within:
                continue
            measured = squared(items, i, j)
            if found < others:
                _insert(lists[i, 1:], exact, found, j, measured)
                found += 1
            elif measured < exact[others - 1]:
                _insert(lists[i, 1:], exact, others - 1, j, measured)
            if found == others:
                within = min(within, exact[others - 1])
                if within == 0:  # copies of the item fill its list; later ones cannot enter
                    break
