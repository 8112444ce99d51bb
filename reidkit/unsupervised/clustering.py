"""Clusters of samples by their k-reciprocal Jaccard distances, in memory that grows with N."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from reidkit.evaluation import jaccard_distance
from reidkit.types import Features, Metric
from reidkit.unsupervised.constraints import CannotLink

Clusterer = Literal["dbscan", "hdbscan"]
OUTLIER = -1
# Jaccard distances are float32 sums: below this they are rounding, and 1 / distance is not.
ROUNDING = 1e-6
TIE = 1e-9
# Of noisy features, hundreds of times as many pairs lie beyond as within, and tell HDBSCAN nothing.
HORIZON = 0.9


def cluster(
    features: Features,
    *,
    method: Clusterer = "dbscan",
    eps: float = 0.6,
    min_samples: int = 4,
    k1: int = 30,
    k2: int = 6,
    metric: Metric = "cosine",
    cannot_link: CannotLink | None = None,
    memory: str | int = "512MB",
) -> NDArray[np.int64]:
    """Labels (N,): clusters from 0, numbered by their first sample, and -1 for outliers.

    The values are those of Cluster-Contrast (Dai et al., ACCV 2022, arXiv:2103.11568), the
    distances those of `jaccard_distance`; pairs that it does not store are at distance 1.

    Args:
        method: DBSCAN (Ester et al., KDD 1996), or HDBSCAN (Campello, Moulavi, Sander, PAKDD 2013),
            which does not look at eps. It takes pairs farther apart than 0.9 for 1 apart, and finds
            two clusters or more, or none: the whole is no cluster.
        eps: how far the neighbours of DBSCAN reach, a Jaccard distance, (0, 1).
        min_samples: how many samples within eps make one the core of a cluster, itself counted;
            HDBSCAN's smallest cluster, too.
        k1, k2, metric, memory: see `jaccard_distance`; k1 of N - 1 or more takes all.
        cannot_link: a cluster that holds a forbidden pair falls apart: its samples are merged anew
            by average linkage of the same distances, as far as nothing forbidden is merged. Of the
            pieces, single samples are outliers unless `min_samples` is 1.

    Raises:
        ValueError: a value out of range, no sample, `cannot_link` of another number of samples,
            and what `jaccard_distance` raises.
    """
    check_settings(method, eps, min_samples, k1, k2)
    if not len(features):
        raise ValueError("no samples; expected at least one to cluster")
    if cannot_link is not None and len(cannot_link) != len(features):
        raise ValueError(
            f"cannot_link is about {len(cannot_link)} samples, but there are {len(features)}"
        )
    within = eps if method == "dbscan" else HORIZON
    graph = jaccard_distance(features, k1=k1, k2=k2, metric=metric, within=within, memory=memory)
    if method == "dbscan":
        labels = numbered(_dbscan(graph, eps, min_samples))
    else:
        labels = numbered(_hdbscan(graph, min_samples))
    if cannot_link is None:
        return labels
    return split(labels, graph, cannot_link, singles=min_samples == 1)


def check_settings(method: str, eps: float, min_samples: int, k1: int, k2: int) -> None:
    """Raise a ValueError where a setting of `cluster` is out of range."""
    if method not in get_args(Clusterer):
        raise ValueError(f"unknown clusterer {method!r}; known: {', '.join(get_args(Clusterer))}")
    if not 0 < eps < 1:
        raise ValueError(
            f"eps = {eps}: expected a Jaccard distance in (0, 1); at 1 all samples are neighbours"
        )
    for name, value in (("min_samples", min_samples), ("k1", k1), ("k2", k2)):
        if value < 1:
            raise ValueError(f"{name} = {value}: expected at least 1")


def numbered(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """The same clusters (N,), numbered from 0 by their first sample; -1 stays."""
    names, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    clusters = np.flatnonzero(names >= 0)
    numbers = np.full(len(names), OUTLIER, np.int64)
    numbers[clusters[np.argsort(first[clusters])]] = np.arange(len(clusters))
    return numbers[inverse]


def joined(merges: NDArray[np.int64], samples: int, count: int) -> NDArray[np.int64]:
    """Labels (N,) after the first `count` merges of a tree of so many samples.

    merges (N - 1, 2) in SciPy's numbering: merge m makes node N + m.
    """
    size = samples + count
    ends = merges[:count].ravel(), np.repeat(np.arange(samples, size), 2)
    graph = csr_matrix((np.ones(2 * count, np.int8), ends), shape=(size, size))
    return numbered(connected_components(graph, directed=False)[1][:samples])


def split(
    labels: NDArray[np.int64], graph: csr_matrix, cannot_link: CannotLink, *, singles: bool
) -> NDArray[np.int64]:
    """Labels (N,) without a forbidden pair: clusters that held one fall apart, see `cluster`.

    graph (N, N) of distances, absent pairs at 1. A piece of one sample stays a cluster where
    `singles` says so, and is an outlier else.
    """
    from reidkit.unsupervised.linkage import agglomerate

    labels = labels.copy()
    pairs, owners = _forbidden(labels, cannot_link)
    members = np.argsort(labels, kind="stable")
    sorted_labels = labels[members]
    place = np.empty(len(labels), np.int64)
    clusters = int(labels.max(initial=OUTLIER)) + 1
    for broken in _broken(labels, cannot_link, owners):
        own = members[slice(*np.searchsorted(sorted_labels, [broken, broken + 1]))]
        place[own] = np.arange(len(own))
        theirs = pairs[slice(*np.searchsorted(owners, [broken, broken + 1]))]
        merges, heights = agglomerate(
            _among(graph, own),
            linkage="average",
            absent=1.0,
            cannot_link=CannotLink(cannot_link.groups[own], place[theirs]),
        )
        pieces = joined(merges, len(own), int(np.isfinite(heights).sum()))
        alone = np.bincount(pieces)[pieces] == 1
        labels[own] = np.where(alone & (not singles), OUTLIER, clusters + pieces)
        clusters += int(pieces.max()) + 1
    return numbered(labels)


def _forbidden(
    labels: NDArray[np.int64], cannot_link: CannotLink
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The forbidden pairs (m, 2) within clusters, and the clusters (m,), ascending."""
    first, second = labels[cannot_link.pairs[:, 0]], labels[cannot_link.pairs[:, 1]]
    inside = np.flatnonzero((first == second) & (first >= 0))
    inside = inside[np.argsort(first[inside], kind="stable")]
    return cannot_link.pairs[inside], first[inside]


def _broken(
    labels: NDArray[np.int64], cannot_link: CannotLink, owners: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The clusters that hold a forbidden pair, or two samples of one group, ascending."""
    known = (cannot_link.groups >= 0) & (labels >= 0)
    both, counts = np.unique(
        np.stack([labels[known], cannot_link.groups[known]]), axis=1, return_counts=True
    )
    return np.union1d(owners, both[0, counts > 1])


def _among(graph: csr_matrix, members: NDArray[np.int64]) -> csr_matrix:
    """The distances between these samples, those to themselves left out."""
    own = graph[members][:, members].tocoo()
    other = own.row != own.col
    return csr_matrix((own.data[other], (own.row[other], own.col[other])), shape=own.shape)


def _dbscan(graph: csr_matrix, eps: float, min_samples: int) -> NDArray[np.integer]:
    from sklearn.cluster import DBSCAN

    search = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed")
    return search.fit_predict(graph)


def _hdbscan(graph: csr_matrix, min_samples: int) -> NDArray[np.integer]:
    """The clusters that scikit-learn's HDBSCAN finds in the dense matrix, but for ties.

    Of that matrix only the minimum spanning tree of the mutual reachability matters: we make it
    from the stored pairs, and scikit-learn gets its N - 1 edges, with min_samples = 1, which leaves
    them as they are.
    """
    from sklearn.cluster import HDBSCAN

    count, smallest = graph.shape[0], max(2, min_samples)
    if count < 2:
        return np.full(count, OUTLIER)
    tree = _spanning_tree(_mutual_reachability(graph, min_samples), smallest)
    search = HDBSCAN(smallest, min_samples=1, metric="precomputed", copy=False)
    return search.fit_predict(tree)


def _mutual_reachability(graph: csr_matrix, min_samples: int) -> csr_matrix:
    """Largest of a pair's distance and the core distances of both, where that is below 1.

    The core distance is that to the `min_samples`th neighbour, the sample itself being the first.
    It is the largest for many pairs of a sample, and then the nearer pair goes first, so that the
    order of samples decides nothing. Each row of `graph` stands nearest first. Upper triangle.
    """
    counts = np.diff(graph.indptr)
    core = np.ones(len(counts), np.float32)
    full = counts >= min_samples
    core[full] = graph.data[graph.indptr[:-1][full] + min_samples - 1]
    rows = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    reach = np.maximum(np.maximum(core[rows], core[graph.indices]), graph.data)
    kept = (reach < 1) & (rows < graph.indices)
    # SciPy's tree would lose edges of length 0.
    lengths = np.maximum(reach[kept], ROUNDING, dtype=np.float64) + TIE * graph.data[kept]
    return csr_matrix((lengths, (rows[kept], graph.indices[kept])), shape=graph.shape)


def _spanning_tree(reach: csr_matrix, smallest: int) -> csr_matrix:
    """The minimum spanning tree, symmetric; what hangs together nowhere is joined at distance 1.

    There all ties are equal but for this: whoever joins a cluster before it joins the others
    belongs to it, so components below the `smallest` cluster come last, and are outliers.
    """
    forest = minimum_spanning_tree(reach).tocoo()
    component = connected_components(forest, directed=False)[1]
    first, sizes = np.unique(component, return_index=True, return_counts=True)[1:]
    centre = int(sizes.argmax())
    others = np.delete(np.arange(len(first)), centre)
    start = np.full(len(others), first[centre])
    rows = np.concatenate([forest.row, start, forest.col, first[others]])
    columns = np.concatenate([forest.col, first[others], forest.row, start])
    lengths = np.concatenate([forest.data, 1 + TIE * (sizes[others] < smallest)] * 2)
    return csr_matrix((lengths, (rows, columns)), shape=reach.shape)
