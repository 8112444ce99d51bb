"""XQDA: a metric from pairs of one identity and pairs of two, in closed form."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Rows = NDArray[np.float64]


class Scatter(NamedTuple):
    """Mean outer product (d, d) of the differences of all pairs of one class, and of two."""

    intra: Rows
    extra: Rows


@dataclass(frozen=True, eq=False)
class Metric:
    """The distance (x - y)ᵀ W K Wᵀ (x - y), which may be negative.

    projection W (d, r), kernel K (r, r) symmetric, not always positive.
    """

    projection: Rows
    kernel: Rows

    @property
    def matrix(self) -> Rows:
        """M = W K Wᵀ, (d, d)."""
        return self.projection @ self.kernel @ self.projection.T


def scatters(
    gallery: ArrayLike, gallery_labels: ArrayLike, probe: ArrayLike, probe_labels: ArrayLike
) -> Scatter:
    """The scatter of all ordered (gallery, probe) pairs with equal labels, and with different ones.

    gallery (n, d), probe (m, d), labels (n,) and (m,) of any kind. Where both sides are one set,
    a row's pair with itself counts. Float64, divided by the numbers of pairs; the sums over pairs
    are products of the rows, so nothing of size n x m is made.

    Liao et al., Person Re-identification by Local Maximal Occurrence Representation and Metric
    Learning, CVPR 2015, Section 4.4.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, no pair of one class, or
            no pair of two.
    """
    g, of_g = _checked("gallery", gallery, gallery_labels)
    p, of_p = _checked("probe", probe, probe_labels)
    if g.shape[1] != p.shape[1]:
        raise ValueError(
            f"gallery of {g.shape[1]} dimensions and probe of {p.shape[1]}; expected the same"
        )
    _, classes = np.unique(np.concatenate([of_g, of_p]), return_inverse=True)
    of_g, of_p = classes[: len(g)], classes[len(g) :]
    count = int(classes.max()) + 1
    n, m = (np.bincount(of, minlength=count).astype(np.float64) for of in (of_g, of_p))
    same = float(n @ m)
    different = len(g) * len(p) - same
    if not same:
        raise ValueError("gallery and probe share no label: a metric needs pairs of one identity")
    if not different:
        raise ValueError(
            f"all {len(g) + len(p)} rows have one label: a metric needs pairs of two identities, "
            "so give it two tracklets or more"
        )
    # Only differences count; near the origin their products lose nothing.
    centre = np.concatenate([g, p]).mean(0)
    g, p = g - centre, p - centre
    sums_g, sums_p = _class_sums(g, of_g, count), _class_sums(p, of_p, count)
    cross = sums_g.T @ sums_p
    intra = (g * m[of_g, None]).T @ g + (p * n[of_p, None]).T @ p - cross - cross.T
    totals = np.outer(g.sum(0), p.sum(0))
    extra = len(p) * (g.T @ g) + len(g) * (p.T @ p) - totals - totals.T - intra
    return Scatter(_symmetric(intra) / same, _symmetric(extra) / different)


def xqda(scatter: Scatter, ridge: float = 1e-4) -> Metric:
    """The directions in which two identities differ more than one does, and the metric in them.

    W are the left singular vectors of S_in⁻¹ S_ex with a singular value above 1, at least one;
    M = W ((Wᵀ S_in W)⁻¹ - (Wᵀ S_ex W)⁻¹) Wᵀ. `ridge` is added to the diagonal of S_in before, in
    the square of the features' unit.

    Raises ValueError for scatters that are not square, not finite, or singular with this ridge.
    """
    intra, extra = scatter
    if intra.ndim != 2 or intra.shape[0] != intra.shape[1] or extra.shape != intra.shape:
        raise ValueError(f"scatters of shape {intra.shape} and {extra.shape}; expected two (d, d)")
    if not (np.isfinite(intra).all() and np.isfinite(extra).all()):
        raise ValueError("a scatter is not finite; look for NaN in the features")
    if ridge < 0:
        raise ValueError(f"ridge is {ridge}, expected 0 or more")
    intra = intra + ridge * np.eye(len(intra))
    try:
        left, values, _ = np.linalg.svd(np.linalg.solve(intra, extra))
        kept = left[:, : max(1, int((values > 1).sum()))]
        kernel = np.linalg.inv(kept.T @ intra @ kept) - np.linalg.inv(kept.T @ extra @ kept)
    except np.linalg.LinAlgError as error:
        raise ValueError(
            f"XQDA met a singular scatter with ridge {ridge} ({error}); raise the ridge, or reduce "
            "the features by PCA"
        ) from error
    return Metric(kept, _symmetric(kernel))


def _class_sums(rows: Rows, labels: NDArray[np.int64], count: int) -> Rows:
    sums = np.zeros((count, rows.shape[1]))
    np.add.at(sums, labels, rows)
    return sums


def _symmetric(matrix: Rows) -> Rows:
    return (matrix + matrix.T) / 2


def _checked(side: str, rows: ArrayLike, labels: ArrayLike) -> tuple[Rows, NDArray]:
    array, names = np.asarray(rows, np.float64), np.asarray(labels)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{side} has shape {array.shape}, expected (rows, dimensions), not empty")
    if names.shape != (len(array),):
        raise ValueError(
            f"{side} labels have shape {names.shape}, expected ({len(array)},): one for each row"
        )
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array).all(1))[0])
        raise ValueError(f"{side} row {bad} is not finite; leave it out or extract it again")
    return array, names
