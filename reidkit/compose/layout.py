"""Vectors brought to two coordinates, and how many first neighbours survive that."""

import importlib.util
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal, get_args

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from reidkit import evaluation
from reidkit.evaluation.metrics import first_ranks
from reidkit.types import EvalProtocol, Features, Metric

Method = Literal["tsne", "pca"]
METHODS: tuple[str, ...] = get_args(Method)
ITSELF = EvalProtocol("itself")
START = 1e-4  # deviation of the first coordinates of a t-SNE, as its authors have it


@dataclass(frozen=True, eq=False)
class Layout:
    """coordinates (N, 2) float64; `variance` holds the share of each axis in [0, 1], of a PCA."""

    method: Method
    coordinates: NDArray[np.float64]
    made_by: str
    perplexity: float | None = None
    variance: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


def unit(features: Features, metric: Metric) -> NDArray[np.float64]:
    """Vectors (N, D) whose Euclidean distances order as the metric does: of unit length for
    cosine.

    Raises ValueError, with the first bad sample's name, where one is not finite, and where all are
    the same.
    """
    vectors = features.vectors.detach().cpu().double()
    finite = vectors.isfinite().all(1)
    if not finite.all():
        bad = int((~finite).nonzero()[0])
        raise ValueError(
            f"{int((~finite).sum())} of {len(features)} features are not finite, the first is that "
            f"of {features.samples[bad].name}: expected numbers; extract them again"
        )
    if metric == "cosine":
        vectors = F.normalize(vectors, dim=1)
    if not len(vectors.T) or torch.allclose(vectors, vectors[:1], rtol=0, atol=1e-12):
        raise ValueError(
            f"all {len(features)} features are the same: there is nothing to map; the model has "
            "collapsed"
        )
    return vectors.numpy()


def lay_out(
    vectors: NDArray[np.floating], method: Method, *, perplexity: float = 30.0, seed: int = 0
) -> Layout:
    """Two coordinates for each of the vectors (N, D), the same for the same seed.

    A perplexity beyond (N - 1) / 3 is brought down to it, and noted. Raises ValueError for an
    unknown method or a perplexity below 1.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    if not 1 <= perplexity < np.inf:
        raise ValueError(f"perplexity {perplexity:g}: expected a number of neighbours, at least 1")
    # One thread: sums of several come in any order, and t-SNE makes another map of each.
    with threadpool_limits(1):
        if method == "pca":
            coordinates, shares = principal(vectors)
            return Layout("pca", coordinates, "SciPy", variance=shares)
        most = max(1.0, (len(vectors) - 1) / 3)
        used = min(perplexity, most)
        note = f"Perplexity {used:.3g} in place of {perplexity:g}: more needs more samples."
        notes = (note,) if used < perplexity else ()
        make = _open_tsne if importlib.util.find_spec("openTSNE") else _scikit_tsne
        coordinates, made_by = make(vectors, used, seed)
    return Layout("tsne", coordinates, made_by, perplexity=used, notes=notes)


def principal(vectors: NDArray[np.floating]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """The first two principal coordinates (N, 2) of vectors (N, D), and their shares of the
    variance.

    The largest coordinate of each axis is positive, so that the map does not flip between machines.
    """
    centred = np.asarray(vectors, np.float64) - vectors.mean(0)
    # The smaller product of the matrix with itself: exact, and seconds for either shape.
    wide = centred.shape[1] > len(centred)
    product = centred @ centred.T if wide else centred.T @ centred
    size = len(product)
    values, axes = scipy.linalg.eigh(product, subset_by_index=(max(0, size - 2), size - 1))
    values, axes = values[::-1].clip(min=0), axes[:, ::-1]
    found = axes * np.sqrt(values) if wide else centred @ axes
    found = found * np.sign(found[np.abs(found).argmax(0), np.arange(found.shape[1])])
    shares = values / max(float(np.trace(product)), np.finfo(float).tiny)
    if size == 1:  # vectors of one number
        return np.pad(found, ((0, 0), (0, 1))), (float(shares[0]), 0.0)
    return found, (float(shares[0]), float(shares[1]))


def _start(vectors: NDArray[np.floating], seed: int) -> NDArray[np.float64]:
    coordinates, _ = principal(vectors)
    coordinates *= START / coordinates[:, 0].std()
    # A hundredth of noise: vectors on one line would never leave it.
    noise = np.random.default_rng(seed).standard_normal(coordinates.shape)
    return coordinates + START / 100 * noise


def _scikit_tsne(
    vectors: NDArray[np.floating], perplexity: float, seed: int
) -> tuple[NDArray[np.float64], str]:
    from sklearn.manifold import TSNE

    start = _start(vectors, seed).astype(np.float32)
    tsne = TSNE(perplexity=perplexity, init=start, random_state=seed)
    found = tsne.fit_transform(np.asarray(vectors, np.float32))
    return found.astype(np.float64), f"scikit-learn {version('scikit-learn')}"


def _open_tsne(
    vectors: NDArray[np.floating], perplexity: float, seed: int
) -> tuple[NDArray[np.float64], str]:
    from openTSNE import TSNE

    # Exact neighbours: its approximate ones differ with what else is installed.
    tsne = TSNE(
        perplexity=perplexity,
        initialization=_start(vectors, seed),
        neighbors="exact",
        n_jobs=1,
        random_state=seed,
    )
    found = np.array(tsne.fit(np.asarray(vectors, np.float64)), np.float64)
    return found, f"openTSNE {version('openTSNE')}"


@torch.no_grad()
def first_neighbours(
    vectors: Tensor, identities: NDArray[np.int64], metric: Metric
) -> tuple[float, int] | None:
    """The share, in [0, 1], of samples whose nearest other sample is of their identity, and how
    many samples that is a share of: those whose identity is there more than once.

    vectors (N, D), identities (N,) from 0. All are neighbours, of one camera, too; a tie counts as
    wrong. None where nobody is there twice.
    """
    if int(np.bincount(identities).max()) < 2:
        return None
    both = Features.from_arrays(vectors, identities)
    ranks = first_ranks(evaluation.find_hits(both, both, ITSELF, metric=metric))
    counted = ranks[~ranks.isnan()]
    return float((counted == 1).double().mean()), len(counted)
