"""k-reciprocal re-ranking and its Jaccard distance, in memory that grows with N and not N^2."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from reidkit.evaluation.hits import memory_bytes
from reidkit.evaluation.reranking.jaccard import Encoding, encode, mix, pairs, parts, stacked
from reidkit.evaluation.reranking.neighbour_lists import Items, place, shared_out
from reidkit.evaluation.sides import Side, as_side, one_set
from reidkit.evaluation.space import check_comparable
from reidkit.evaluation.threads import in_threads
from reidkit.types import Features, Metric

PART = 128  # rows a thread makes at a time: fixed, so that threads do not change how sums round


class Reranked:
    """Final distances of `rerank`, (Q, G), made block by block when asked for.

    Iterating gives float32 blocks (rows, G) in the order of the queries, as often as one likes;
    each block is the caller's own. `shape` is (Q, G). A block costs its part of the query x gallery
    product, none where lambda is 0.
    """

    def __init__(
        self, items: Items, encoding: Encoding, lambda_value: float, memory: str | int
    ) -> None:
        queries = len(items.query)
        # Of one set alone every item stands on both sides.
        first = queries if len(items.gallery) else 0
        self.shape = (queries, len(items.scale) - first)
        self._lambda_value, self._memory = float(lambda_value), memory
        self._query, self._gallery = items.centred[:queries], items.centred[first:]
        self._constants = (
            parts(encoding.weights[:queries]),
            parts(encoding.weights[first:].tocsc()),
            (items.squares[:queries], items.squares[first:]),
            encoding.largest,
            self._lambda_value,
        )

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        queries, gallery = self.shape
        rows = max(1, int(memory_bytes(self._memory) // (4 * gallery)))
        if rows > PART:
            rows = PART * min(rows // PART, 2 * torch.get_num_threads())
        for start in range(0, queries, rows):
            block = np.zeros((min(rows, queries - start), gallery), np.float32)

            def fill(first: int, start: int = start, block: NDArray[np.float32] = block) -> None:
                part = block[first : first + PART]
                first += start
                if self._lambda_value:
                    np.dot(self._query[first : first + len(part)], self._gallery.T, out=part)
                mix(part, first, *self._constants)

            in_threads(range(0, len(block), PART), fill, block.size * self._query.shape[1])
            yield block


def rerank(
    query: Features,
    gallery: Features,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    metric: Metric = "cosine",
    memory: str | int = "512MB",
) -> Reranked:
    """Distances of queries to gallery items after k-reciprocal re-ranking, for
    `evaluate_distances`.

    Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017,
    arXiv:1701.08398, with the values of the authors' code: squared Euclidean distances, each item's
    divided by its largest, and lists of k1 + 1 items that count the item itself. Every item is its
    own first neighbour; others at one distance stand in the order of their positions, the query's
    before the gallery's. Neighbours are exact (float64 differences), final distances float32.

    Args:
        query: vectors (Q, D).
        gallery: vectors (G, D); with the queries N = Q + G items that all rank one another. Where
            it is the queries themselves (leave-one-out), N = Q: no item is there twice.
        k1: neighbours in which to look for reciprocal ones, at least 1. Lists end where the items
            do: k1 of N - 1 or more takes all of them, as slices of the authors' code do.
        k2: items whose weights are averaged, the item itself being one; 1 leaves this out.
        lambda_value: share of the original distance, [0, 1]; 0 is the Jaccard distance alone.
        metric: cosine (vectors are normalised here; a zero vector stays zero) or euclidean.
        memory: bound on the distances held at a time, bytes or "512MB". A float32 copy of the
            vectors and some 4 (k1 + 1) numbers an item come on top.

    Raises:
        ValueError: k1, k2 or lambda_value out of range, an empty side, different dimensions, a
            feature that is not floating or not finite (with its sample's name).
    """
    _check_numbers(k1, k2)
    if not 0 <= lambda_value <= 1:
        raise ValueError(
            f"lambda_value = {lambda_value}: expected the original distance's share in [0, 1]; "
            "the paper takes 0.3"
        )
    left, right = checked_sides(query, gallery, metric)
    items = place(left, None if one_set(left, right) else right, metric)
    encoding = encode(items, k1, k2, memory)
    return Reranked(items, encoding, lambda_value, memory)


def jaccard_distance(
    features: Features,
    *,
    k1: int = 20,
    k2: int = 6,
    metric: Metric = "cosine",
    within: float = 1.0,
    memory: str | int = "512MB",
) -> csr_matrix:
    """Jaccard distances of k-reciprocal neighbours, all items against all, for clustering.

    A float32 matrix (N, N) that stores the pairs whose neighbours overlap, with distances in
    [0, 1), the zeros of the diagonal included; an absent pair is at distance 1, though sums and
    `toarray()` take it for 0. Symmetric; each row nearest first, as scikit-learn wants neighbour
    graphs. There an absent pair is out of reach, so that, for any eps below 1,

        DBSCAN(eps=0.6, min_samples=4, metric="precomputed").fit_predict(
            jaccard_distance(features, k1=30, k2=6, within=0.6))

    gives the clusters of the dense matrix: those of Dai et al., Cluster Contrast for Unsupervised
    Person Re-Identification, ACCV 2022, arXiv:2103.11568. `within` leaves out pairs farther than
    that. The other arguments, ties and errors are those of `rerank`.
    """
    _check_numbers(k1, k2)
    if not 0 <= within <= 1:
        raise ValueError(f"within = {within}: expected a Jaccard distance in [0, 1]")
    side, _ = checked_sides(features, features, metric)
    items = place(side, None, metric)
    weights = encode(items, k1, k2, memory).weights
    sides = parts(weights), parts(weights.tocsc())
    return stacked(shared_out(pairs, len(features), *sides, np.float32(within)))


def _check_numbers(k1: int, k2: int) -> None:
    for name, value, usual in (("k1", k1, 20), ("k2", k2, 6)):
        if value < 1:
            raise ValueError(
                f"{name} = {value}: expected at least 1 neighbour; the paper takes {usual}"
            )


def checked_sides(query: Features, gallery: Features, metric: Metric) -> tuple[Side, Side]:
    """Both sides as arrays; a ValueError where they are empty, not floating or do not fit."""
    for name, features in (("query", query), ("gallery", gallery)):
        if not len(features):
            raise ValueError(f"the {name} is empty; expected at least one sample on each side")
        if not features.vectors.is_floating_point():
            raise ValueError(
                f"{name} features must be floating point, got {features.vectors.dtype}; convert "
                "them on purpose"
            )
    sides = as_side(query), as_side(gallery)
    check_comparable(*sides, metric)
    return sides
