"""Do the groups of a clustering follow the identities? Normalised mutual information."""

import importlib.util
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from reidkit.evaluation.sides import check_finite
from reidkit.types import Features, Metric

ClusterBackend = Literal["auto", "faiss", "sklearn"]
ITERATIONS = 20
JUNK = -1


@torch.no_grad()
def nmi(
    features: Features,
    *,
    metric: Metric = "cosine",
    seed: int = 0,
    backend: ClusterBackend = "auto",
) -> float:
    """Normalised mutual information of k-means groups and identities, [0, 1]; 1 is the same groups.

    k-means makes as many groups as there are identities, in 20 rounds from one k-means++ start
    (Arthur and Vassilvitskii, SODA 2007); mutual information is divided by the mean of both
    entropies. Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, CVPR 2016,
    after Manning et al., Introduction to Information Retrieval, section 16.3. It depends on the
    start: expect the third digit to move with the seed. A round takes N k D multiplications: with
    the 11,316 identities of SOP far longer than ranking.

    Args:
        features: vectors (N, D) with identities; items with pid -1 are left out.
        metric: cosine (vectors are normalised here) or euclidean.
        seed: of the first centres; equal seeds give equal numbers.
        backend: FAISS where it is installed ("auto"), else scikit-learn.

    Raises:
        ValueError: fewer than two identities, a feature that is not finite, an unknown metric or
            backend.
        ModuleNotFoundError: backend "faiss" without FAISS.
    """
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"unknown metric {metric!r}; known: cosine, euclidean")
    if backend not in ("auto", "faiss", "sklearn"):
        raise ValueError(f"unknown backend {backend!r}; known: auto, faiss, sklearn")
    check_finite(features)
    known = (features.pids != JUNK).nonzero()[:, 0]
    names, labels = np.unique(features.pids[known].numpy(), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"{len(names)} identities; groups can be compared from two on")
    vectors = features.vectors.detach()[known.to(features.vectors.device)].cpu().float()
    if metric == "cosine":
        vectors = F.normalize(vectors, dim=1)
    else:
        # A common offset moves no group, but it would leave float32 no digits for the differences.
        vectors = vectors - vectors.double().mean(0)
    # sklearn takes half a second to import.
    from sklearn.metrics import normalized_mutual_info_score

    groups = _kmeans(np.ascontiguousarray(vectors.float()), len(names), seed, backend)
    return float(normalized_mutual_info_score(labels, groups))


def _kmeans(
    vectors: NDArray[np.float32], count: int, seed: int, backend: ClusterBackend
) -> NDArray[np.integer]:
    """The group of each row, [0, count). (N,)."""
    if backend == "auto":
        backend = "faiss" if importlib.util.find_spec("faiss") else "sklearn"
    # One start for both: FAISS begins at random points, and then misses groups that lie apart.
    start = vectors[_spread_out(vectors, count, np.random.default_rng(seed))]
    if backend == "sklearn":
        from sklearn.cluster import KMeans

        kmeans = KMeans(count, init=start, n_init=1, max_iter=ITERATIONS, random_state=seed)
        return kmeans.fit_predict(vectors)
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "backend 'faiss' needs FAISS: pip install 'reidkit[cpu]' (or 'reidkit[gpu]')"
        ) from error
    # All points, whatever their number: by default FAISS draws 256 a centre and warns below 39.
    points = {"min_points_per_centroid": 1, "max_points_per_centroid": len(vectors)}
    faiss_kmeans = faiss.Kmeans(vectors.shape[1], count, niter=ITERATIONS, seed=seed, **points)
    faiss_kmeans.train(vectors, init_centroids=start)
    return faiss_kmeans.index.search(vectors, 1)[1][:, 0]


def _spread_out(
    vectors: NDArray[np.float32], count: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Rows to start from: each drawn in proportion to its squared distance from those before."""
    squares = np.einsum("nd,nd->n", vectors, vectors)
    chosen = np.empty(count, np.int64)
    chosen[0] = generator.integers(len(vectors))
    far = np.full(len(vectors), np.inf)
    for n in range(1, count):
        last = chosen[n - 1]
        far = np.minimum(far, squares + squares[last] - 2 * (vectors @ vectors[last])).clip(0)
        far[last] = 0
        reach = far.cumsum()
        # Copies of one vector may leave nothing to draw: then any row will do.
        draw = generator.random() * reach[-1]
        drawn = np.searchsorted(reach, draw, side="right") if reach[-1] else n
        chosen[n] = min(drawn, len(vectors) - 1)
    return chosen
