"""Where query and gallery are compared: fast products of known error, exact pairs beside them."""

import mmap
from collections.abc import Iterator
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from reidkit.evaluation import kernels
from reidkit.evaluation.sides import (
    PIECE,
    Floats,
    Integers,
    Side,
    check_one_model,
    not_finite,
    pieces,
)
from reidkit.evaluation.threads import in_threads
from reidkit.types import Metric

ROUNDING = {np.dtype(np.float32): 2.0**-24, np.dtype(np.float64): 2.0**-53}
# The error of a product of D terms is a sum of D roundings of either sign; it exceeds CERTAIN times
# their standard bound with a chance below 1e-3 even where all partial sums are as large as they can
# be, and in practice stays ten times below (Higham and Mary, A New Approach to Probabilistic
# Rounding Error Analysis, SIAM J. Sci. Comput. 2019, theorem 2.4).
CERTAIN = 4.0
ORDINARY = (1e-6, 1e6)  # lengths of vectors whose products need no scaling in float32
MAPPED_PAIRS = 1024  # pairs that are measured at a time in a memory-mapped gallery


class Survey(NamedTuple):
    """What one pass over a side finds."""

    norms: Floats  # (N,)
    mean: Floats  # (D,) of the rows; where asked for by cosine, of the rows scaled to length 1
    varies: float  # share of the squared length of what was averaged that is not the mean's


class Block(NamedTuple):
    """Rows of the gallery, ready for a product."""

    first: int
    rows: NDArray[np.floating]  # (C, D)
    scale: NDArray[np.floating]  # (C,) score = product * scale + bias
    bias: NDArray[np.floating]  # (C,)


class Space:
    """Scores of pairs: larger is closer within one query.

    Cosine: the cosine itself. Euclidean: q.g - |g|^2 / 2 in coordinates that are centred on the
    gallery's mean, so that a common offset does not blur the products, and scaled so that the
    gallery lies in the unit ball.

    Args:
        query, gallery: the two sides.
        metric: cosine (rows are normalised here; a zero row has cosine 0 to all) or euclidean.
        left_out: gallery positions that count for no query; their score is -inf.

    Raises:
        ValueError: dimensions differ, features of two models, a feature that is not finite (with
            its sample's name), an unknown metric.
    """

    def __init__(self, query: Side, gallery: Side, metric: Metric, left_out: Integers) -> None:
        check_comparable(query, gallery, metric)
        self.metric = metric
        self.kind = kernels.COSINE if metric == "cosine" else kernels.EUCLIDEAN
        self.query, self.gallery = query, gallery
        self.gallery_survey = survey("gallery", gallery, metric)
        self.query_survey = self.gallery_survey
        if query is not gallery:
            self.query_survey = survey("query", query, metric)
        self.bias = np.zeros(len(gallery))
        self.bias[left_out] = -np.inf
        self.dim = query.vectors.shape[1]
        if metric == "cosine":
            self.centre = np.zeros(self.dim)
            self.query_scale = _inverse(self.query_survey.norms)
            self.gallery_scale = _inverse(self.gallery_survey.norms)
            lengths = self.gallery_survey.norms
            low, high = ORDINARY
            self.as_it_is = bool(np.all((lengths == 0) | ((lengths > low) & (lengths < high))))
        else:
            self.centre = self.gallery_survey.mean
            self.spread = float(np.sqrt(self._squares(gallery).max())) or 1.0
            self.query_scale = np.full(len(query), 1 / self.spread)
            self.gallery_scale = np.full(len(gallery), 1 / self.spread)
            self.as_it_is = False

    def exact(self, rows: Integers, columns: Integers) -> Floats:
        """Cosine, or minus the squared distance, of pairs in float64. rows (M,), columns (M,)."""
        out = np.empty(len(rows))
        # Each row of a memory-mapped gallery brings its neighbours on the disk with it.
        mapped = hasattr(self.gallery.vectors, "_mmap")
        step = MAPPED_PAIRS if mapped else max(1, PIECE // self.dim)

        def measure(start: int) -> None:
            part = slice(start, start + step)
            kernels.closeness_of_pairs(
                self.kind,
                np.asarray(self.query.vectors),
                np.asarray(self.gallery.vectors),
                self.query_survey.norms,
                self.gallery_survey.norms,
                rows[part],
                columns[part],
                out[part],
            )
            hand_back(self.gallery.vectors)

        in_threads(range(0, len(rows), step), measure, len(rows) * self.dim)
        return out

    def tie(self, closeness: Floats) -> Floats:
        """Differences of `exact` that are rounding: what differs by no more is equal. (M,)."""
        rounding = ROUNDING[np.dtype(np.float64)] * (4 * self.dim + 32)
        return (
            np.full(len(closeness), rounding) if self.metric == "cosine" else -rounding * closeness
        )

    def scores(self, closeness: Floats, owner: Integers) -> Floats:
        """The scores that stand for values of `exact` of the queries `owner` (M,)."""
        if self.metric == "cosine":
            return closeness
        return (self._query_squares()[owner] + closeness / self.spread**2) / 2

    def queries(
        self, index: Integers, dtype: type[np.floating]
    ) -> tuple[NDArray[np.floating], Floats]:
        """Rows (R, D) ready for a product, and how far a score may be from the true one. (R,)."""
        rows = np.empty((len(index), self.dim), dtype)
        error = np.empty(len(index))

        def prepare(piece: tuple[int, int]) -> None:
            part = slice(*piece)
            which = index[part]
            squares, energy = np.empty(len(which)), np.empty(len(which))
            vectors = np.asarray(self.query.vectors)[which]
            kernels.place(vectors, self.centre, self.query_scale[which], rows[part], squares)
            kernels.partial_energy(rows[part], energy)
            error[part] = self._error(np.sqrt(squares), energy, np.dtype(dtype))

        in_threads(pieces(*rows.shape), prepare, 8 * rows.size)
        return rows, error

    def _error(self, lengths: Floats, energy: Floats, dtype: np.dtype) -> Floats:
        if dtype == np.float64:
            # What differs by no more is equal: here the bound must hold always.
            return self._tie_of(lengths)
        # Roundings of the products, and of what enters and leaves them; the gallery's rows are no
        # longer than 1.
        return ROUNDING[dtype] * (CERTAIN * np.sqrt(energy) + 8 * (lengths + 1))

    def largest_error(self) -> float:
        """How far a float64 score of any query may be from the true one."""
        longest = np.ones(1)
        if self.metric == "euclidean":
            longest = np.sqrt(self._query_squares().max(keepdims=True))
        return float(self._tie_of(longest)[0])

    def _tie_of(self, lengths: Floats) -> Floats:
        rounding = ROUNDING[np.dtype(np.float64)] * (4 * self.dim + 32)
        return rounding * (np.ones_like(lengths) if self.metric == "cosine" else (lengths + 1) ** 2)

    def blocks(self, columns: int, dtype: type[np.floating]) -> Iterator[Block]:
        """The gallery in blocks of `columns` rows; a memory-mapped one is read piece by piece."""
        for first in range(0, len(self.gallery), columns):
            part = slice(first, first + columns)
            vectors = np.asarray(self.gallery.vectors[part])
            if self.as_it_is and dtype is np.float32 and vectors.dtype == np.float32:
                scale = self.gallery_scale[part].astype(dtype)
                yield Block(first, vectors, scale, self.bias[part].astype(dtype))
            else:
                rows, squares = np.empty(vectors.shape, dtype), np.empty(len(vectors))
                kernels.place(vectors, self.centre, self.gallery_scale[part], rows, squares)
                bias = self.bias[part] - (squares / 2 if self.metric == "euclidean" else 0)
                yield Block(first, rows, np.ones(len(rows), dtype), bias.astype(dtype))
            hand_back(self.gallery.vectors)

    def _query_squares(self) -> Floats:
        return self._squares(self.query) / self.spread**2

    def _squares(self, side: Side) -> Floats:
        """Squared distances to the centre. (N,)."""
        squares = np.empty(len(side))

        def look(piece: tuple[int, int]) -> None:
            part = slice(*piece)
            rows = np.asarray(side.vectors[part])
            kernels.squared_distances_to(rows, self.centre, squares[part])
            hand_back(side.vectors)

        in_threads(pieces(*side.vectors.shape), look, side.vectors.size)
        return squares


def check_comparable(query: Side, gallery: Side, metric: str) -> None:
    """Raise a ValueError unless both sides are of one dimension and one model, and the metric is
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
    check_one_model(query.model, gallery.model, ("query", "gallery"))


def survey(side: str, rows: Side, metric: Metric = "cosine") -> Survey:
    """Norms and mean of a side in one pass; a ValueError names the first sample that is not
    finite.
    """
    count, dim = rows.vectors.shape
    norms, total = np.empty(count), np.zeros(dim)
    adding = Lock()
    bad: list[int] = []

    def look(piece: tuple[int, int]) -> None:
        start, stop = piece
        mine = np.zeros(dim)
        part = np.asarray(rows.vectors[start:stop])
        found = kernels.survey(part, metric == "cosine", norms[start:stop], mine)
        hand_back(rows.vectors)
        with adding:
            np.add(total, mine, out=total)
            if found >= 0:
                bad.append(start + found)

    in_threads(pieces(count, dim), look, 4 * count * dim)
    if bad and np.isfinite(rows.vectors[min(bad)]).all():
        raise ValueError(
            f"{side} feature {min(bad)} ({rows.name(min(bad))}) is so large that its square leaves "
            "float64; divide all features by one number"
        )
    if bad:
        raise not_finite(f"{side} feature", min(bad), rows.name(min(bad)))
    mean = total / count
    squares = np.square(norms) if metric == "euclidean" else norms > 0
    length = float(squares.mean())
    return Survey(norms, mean, 1 - float(np.square(mean).sum()) / length if length else 0.0)


def multiply(queries: NDArray, rows: NDArray, out: NDArray, device: torch.device) -> None:
    """out (R, C) = queries (R, D) @ rows (C, D)^T, on the device where the features live."""
    if device.type == "cpu":
        # numpy's BLAS: on AMD processors 1.4 to 3 times as fast as torch's at these shapes.
        np.matmul(queries, rows.T, out=out)
    else:
        multiply_on_device(queries, rows, out, device)


def multiply_on_device(queries: NDArray, rows: NDArray, out: NDArray, device: torch.device) -> None:
    """`multiply` by torch; float64 products of a device without float64 (mps) stay on the CPU."""
    if device.type == "mps" and queries.dtype == np.float64:
        device = torch.device("cpu")
    # TF32 keeps ten bits: the bound on the error would not hold.
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        found = torch.from_numpy(queries).to(device) @ torch.tensor(rows).to(device).t()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
    out[:] = found.cpu().numpy()


def hand_back(vectors: NDArray) -> None:
    """Let go of the pages of a memory-mapped array: they would count as this process's memory."""
    pages = getattr(vectors, "_mmap", None)
    if (
        pages is not None
        and getattr(vectors, "mode", "") in ("r", "r+")
        and hasattr(mmap, "MADV_DONTNEED")
    ):
        pages.madvise(mmap.MADV_DONTNEED)


def _inverse(lengths: Floats) -> Floats:
    return np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
