"""Distances between descriptors made of parts: every pair once, in blocks that stay in the cache.

Products are float32. What their rounding cannot tell apart is measured again in float64 from the
differences, so that rounding decides about nothing.
"""

import hashlib
import math
from collections.abc import Iterator
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from reidkit.evaluation.sides import as_side, check_finite, check_one_model
from reidkit.evaluation.threads import even_parts, in_threads
from reidkit.registry import UnknownName
from reidkit.types import Features

Distance = Literal["parts", "flat"]
Floats = NDArray[np.floating]
Columns = NDArray[np.int64]

ROWS, COLUMNS = 256, 1024  # of a block of pairs: its product and its sums fit into the cache
BLOCK_NUMBERS = 2**24  # distances to the whole gallery that are held at a time: 64 MB
FIRST_LOOK = 4  # near-ties that are measured before looking whether that was enough
MANY = 16  # near-ties from which on copies among them are measured once
SINGLE, DOUBLE = 2.0**-24, 2.0**-53  # relative rounding errors
# Sums of one length are added in one order, whatever the values: copies stay copies.
compiled = njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})


def part_distances(
    query: Features, gallery: Features, *, distance: Distance = "parts"
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Blocks of distances: the first query's number, and (rows, G) float32 to the whole gallery.

    `"parts"` is the mean over the parts of the Euclidean distance of that part, as in OpenGait
    (Fan et al., CVPR 2023); `"flat"` the Euclidean distance of the whole vector, as in GaitSet's
    own code (Chao et al., AAAI 2019). The two rank differently. Vectors are not normalised.

    Distances are as exact as float32 products are: copies of one vector may differ in the last
    digits, depending on where they stand. Each block is the caller's to keep.

    Raises:
        ValueError: an unknown distance, an empty side, vectors that are not floating or not finite
            (with the sample's name), or different dimensions or parts.
    """
    pairs = PartDistances(query, gallery, distance)
    for block in pairs.blocks():
        yield block.start, block.distances * np.float32(pairs.unit)


class Block(NamedTuple):
    """Distances of some queries, from number `start` on, to the whole gallery."""

    start: int
    distances: NDArray[np.float32]  # (rows, G)
    slack: NDArray[np.float32]  # (rows, G), by how much they may be wrong


class Standing(NamedTuple):
    """Where the best right answer of one query stands."""

    closer: int  # wrong answers closer than it, not counted beyond the limit that was asked for
    level: int  # wrong answers at its distance


class PartDistances:
    """All distances of one pair of feature sets, with a bound of their error.

    Distances are in units of `unit`, a power of two near the largest number of the features, so
    that squares stay inside the range of float32.

    Args:
        query: vectors (Q, P * D).
        gallery: vectors (G, P * D); a float32 copy is held, part by part.
        distance: `"parts"` or `"flat"`, see `part_distances`.
        sides: what the two are called in messages.
    """

    def __init__(
        self,
        query: Features,
        gallery: Features,
        distance: Distance = "parts",
        sides: tuple[str, str] = ("query", "gallery"),
    ) -> None:
        parts = check_parts(query, gallery, distance, sides)
        self.parts = parts if distance == "parts" else 1
        self.query, self.gallery = as_side(query).vectors, as_side(gallery).vectors
        self.dim = self.query.shape[1] // self.parts
        # A common offset cancels in every distance but not in the products that stand for it.
        self.mean = self.gallery.mean(0, dtype=np.float64)
        largest = max(float(abs(bound)) for side in (query, gallery) for bound in _bounds(side))
        self.unit = 2.0 ** math.frexp(largest)[1] if largest else 1.0
        self.placed, self.squares = self._place(self.gallery, 1.0)
        self.lengths = np.sqrt(self.squares).mean(0)  # (G,), mean over parts
        # |a - b|^2 from three numbers: a product of D terms, two squares and two sums; the vectors
        # themselves are rounded to float32, too. All of it as a share of (|a| + |b|)^2.
        self.share = 1.01 * SINGLE * (self.dim / 2 + 8)
        self.floor = math.sqrt(self.dim + 4) * 2.0**-62  # squares that fall below float32's range
        # Of two distances measured in float64: what they may differ by and still be one distance.
        self.tie = DOUBLE * (self.dim + 2 * self.parts + 16)

    def blocks(self, with_slack: bool = False) -> Iterator[Block]:
        """All distances in blocks of queries, in order; `slack` is empty unless asked for."""
        count = len(self.gallery)
        rows = min(max(BLOCK_NUMBERS // count, 1), ROWS)
        parts = even_parts(count, COLUMNS, torch.get_num_threads())
        for start in range(0, len(self.query), rows):
            placed, squares = self._place(self.query[start : start + rows], -2.0)
            block = np.empty((placed.shape[1], count), np.float32)
            self._fill(block, placed, squares, parts)
            slack = self._slack(squares, block) if with_slack else block[:0]
            yield Block(start, block, slack)

    def _fill(
        self, block: Floats, placed: Floats, squares: Floats, parts: list[tuple[int, int]]
    ) -> None:
        def measure(part: tuple[int, int]) -> None:
            block[:, slice(*part)] = self._sums(placed, squares, *part)

        in_threads(parts, measure, placed.size * block.shape[1])

    def exact(self, q: int, columns: Columns) -> NDArray[np.float64]:
        """Distances of query number `q` to `columns` (C,), from differences in float64: (C,).

        Copies of one vector are at exactly one distance.
        """
        if len(columns) >= MANY:
            firsts, where = np.unique(self.first_copies[columns], return_inverse=True)
        else:
            firsts, where = columns, np.arange(len(columns))
        row = self.query[q].astype(np.float64)
        distances = np.empty(len(firsts))
        _measure(row, self.gallery, firsts, self.parts, 1 / self.unit, distances)
        return distances[where]

    @cached_property
    def first_copies(self) -> Columns:
        """For every gallery item the position of the first one with the same vector, (G,).

        A collapsed model makes every pair a near-tie; this way each vector is measured once.
        """
        seen: dict[bytes, int] = {}
        digests = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in self.gallery)
        return np.array([seen.setdefault(digest, j) for j, digest in enumerate(digests)])

    def standing(
        self,
        q: int,
        row: Floats,
        slack: Floats,
        columns: Columns,
        right: NDArray[np.bool_],
        limit: int,
    ) -> Standing:
        """Where the best right answer of query `q` stands among `columns` (C,).

        row (C,) distances, slack (C,) bounds of their errors, right (C,), True at least once.
        Counting stops as soon as `limit` wrong answers are known to be closer.
        """
        near, far = row - slack, row + slack
        best = self.exact(q, columns[right & (near <= far[right].min())]).min()
        least, most = best * (1 - self.tie), best * (1 + self.tie)
        closer = int((~right & (far < least)).sum())
        level = 0
        open_ = np.flatnonzero(~right & (far >= least) & (near <= most))
        open_ = open_[np.argsort(row[open_], kind="stable")]
        size = FIRST_LOOK
        while closer < limit and len(open_):
            distances = self.exact(q, columns[open_[:size]])
            closer += int((distances < least).sum())
            level += int(((distances >= least) & (distances <= most)).sum())
            open_, size = open_[size:], 2 * size
        return Standing(closer, level)

    def _slack(self, squares: Floats, rows: Floats) -> Floats:
        """By how much the distances rows (R, G) may be wrong; squares (P, R) of their queries.

        The square of a part's distance is off by at most `share` (|a| + |b|)^2, so the distance by
        the root of that, or, where there is one part, by that over the distance if this is less.
        Worst case of any order of summation, not an estimate.
        """
        lengths = np.sqrt(squares).mean(0)  # (R,)
        root, rounding = np.float32(math.sqrt(self.share)), np.float32(SINGLE * (self.parts + 8))
        bound = root * lengths[:, None] + (root * self.lengths + np.float32(self.floor))
        if self.parts == 1:
            bound *= bound / np.maximum(rows, bound)
        return bound + rounding * rows

    def _place(self, rows: Floats, factor: float) -> tuple[Floats, Floats]:
        """Centred parts in float32 times `factor` (P, N, D), and their squares (P, N)."""
        placed = np.empty((self.parts, len(rows), self.dim), np.float32)
        squares = np.empty((self.parts, len(rows)), np.float32)
        _centre(rows, self.mean, 1 / self.unit, factor, placed, squares)
        return placed, squares

    def _sums(self, placed: Floats, squares: Floats, a: int, b: int) -> Floats:
        """Distances of placed queries to the gallery items a to b, (rows, b - a)."""
        total = np.zeros((placed.shape[1], b - a), np.float32)
        product = np.empty_like(total)
        for part in range(self.parts):
            np.matmul(placed[part], self.placed[part, a:b].T, out=product)
            _add_roots(product, squares[part], self.squares[part, a:b], total)
        total *= np.float32(1 / self.parts)
        return total


def check_parts(
    query: Features,
    gallery: Features,
    distance: str,
    sides: tuple[str, str] = ("query", "gallery"),
) -> int:
    """The number of parts of both sides, or a ValueError that says why they cannot be compared."""
    if distance not in get_args(Distance):
        raise UnknownName.among("distance", distance, get_args(Distance))
    for side, features in zip(sides, (query, gallery), strict=True):
        dim, parts = features.vectors.shape[1], features.parts
        if not len(features):
            raise ValueError(f"the {side} is empty; at least one sample is needed on each side")
        if not features.vectors.is_floating_point():
            raise ValueError(
                f"{side} features must be floating point, got {features.vectors.dtype}; convert "
                "them on purpose"
            )
        if parts < 1 or not dim or dim % parts:
            raise ValueError(
                f"{side} features have {dim} dimensions, which {parts} parts do not divide; "
                "expected vectors (N, parts * D): set Features(parts=...) to the model's parts"
            )
        check_finite(features, f"{side} feature")
    for word, a, b in (
        ("dimensions", query.vectors.shape[1], gallery.vectors.shape[1]),
        ("parts", query.parts, gallery.parts),
    ):
        if a != b:
            raise ValueError(
                f"{sides[0]} features have {a} {word}, {sides[1]} features {b}; expected the same "
                "number: extract both with one model"
            )
    check_one_model(query.model, gallery.model, sides)
    return query.parts


def _bounds(features: Features) -> tuple[float, float]:
    """The smallest and the largest number; not finite if any number is not."""
    low, high = features.vectors.detach().aminmax()
    return float(low), float(high)


@compiled
def _centre(
    rows: Floats,
    mean: Floats,
    scale: float,
    factor: float,
    placed: Floats,
    squares: Floats,
) -> None:
    """rows (N, P * D) -> placed (P, N, D) = factor * centred and scaled, squares (P, N)."""
    parts, count, dim = placed.shape
    for i in range(count):
        for p in range(parts):
            # Slices: an index that may be negative keeps the compiler from vector instructions.
            row, centre = rows[i, p * dim : (p + 1) * dim], mean[p * dim : (p + 1) * dim]
            total = 0.0
            for d in range(dim):
                value = np.float32((row[d] - centre[d]) * scale)
                placed[p, i, d] = value * np.float32(factor)
                total += np.float64(value) * np.float64(value)
            squares[p, i] = total


@compiled
def _add_roots(product: Floats, query: Floats, gallery: Floats, total: Floats) -> None:
    """Add the root of |a|^2 - 2ab + |b|^2, in one pass; product (N, M) holds -2ab."""
    for i in range(product.shape[0]):
        for j in range(product.shape[1]):
            square = product[i, j] + (query[i] + gallery[j])
            total[i, j] += math.sqrt(max(square, np.float32(0)))


@compiled
def _measure(
    row: Floats, gallery: Floats, columns: Columns, parts: int, scale: float, distances: Floats
) -> None:
    """Mean over parts of the distance, from differences; row (P * D) float64, distances (C,)."""
    dim = len(row) // parts
    for k in range(len(columns)):
        other = gallery[columns[k]]
        total = 0.0
        for p in range(parts):
            a, b = row[p * dim : (p + 1) * dim], other[p * dim : (p + 1) * dim]
            square = 0.0
            for d in range(dim):
                difference = (a[d] - b[d]) * scale
                square += difference * difference
            total += math.sqrt(square)
        distances[k] = total / parts
