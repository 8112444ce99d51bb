"""Bottom-up clustering: every sample begins alone, and each round merges the nearest clusters."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from reidkit.evaluation.label_quality import silhouettes
from reidkit.types import Features
from reidkit.unsupervised.clustering import joined
from reidkit.unsupervised.graphs import nearest_pairs
from reidkit.unsupervised.linkage import agglomerate
from reidkit.unsupervised.methods import METHODS, Labels, NothingToLearn
from reidkit.unsupervised.tracklets import cannot_link as overlapping_in_time

EXACT = 2000  # samples up to which all pairs are looked at
NEIGHBOURS = 100
FARTHEST = 4.0  # the largest squared distance of unit vectors
FEWEST = 2  # one class alone has nothing to be pushed from


@METHODS.register("buc")
class BottomUpClustering:
    """Round 0 makes each sample a class of its own, and each later round merges some pairs.

    Lin, Dong, Zheng, Yan, Yang, A Bottom-Up Clustering Approach to Unsupervised Person
    Re-Identification, AAAI 2019. The distance of two clusters is the least squared Euclidean one
    of their samples' unit vectors, and size_weight (|A| + |B|), so that clusters grow alike. Within
    a round a merged cluster's new size counts; ties follow `agglomerate`. To be trained with the
    loss `cluster_memory`.

    The best number of rounds is not known beforehand: `told` has the mean silhouette of each, and
    `best_round`, the round (counted from 1) where it was highest so far, is the one to keep.

    Args:
        merge: share of the N samples that is merged away each round, (0, 0.5].
        size_weight: weight of the clusters' sizes against squared distances in [0, 4]; the
            authors' script for Market-1501 takes 0.003, the paper 0.005.
        stop: done before there are fewer clusters than this; None merges for 1 / merge - 1 rounds.
            Two are left in any case.
        neighbours: nearest samples of each whose distances count, pairs beyond being 4 apart; None
            takes all of up to 2,000 samples, and 100 of more.
        cannot_link: never merge samples of one camera that overlap in time, where times are known.
    """

    def __init__(
        self,
        merge: float = 0.05,
        size_weight: float = 0.003,
        stop: int | None = None,
        neighbours: int | None = None,
        cannot_link: bool = True,
    ) -> None:
        if not 0 < merge <= 0.5:
            raise ValueError(f"merge = {merge}: expected the share merged a round, in (0, 0.5]")
        if not 0 <= size_weight < float("inf"):
            raise ValueError(f"size_weight = {size_weight}: expected 0 or more; the paper: 0.005")
        if stop is not None and stop < FEWEST:
            raise ValueError(f"stop = {stop}: expected at least {FEWEST} clusters, or null")
        if neighbours is not None and neighbours < 1:
            raise ValueError(f"neighbours = {neighbours}: expected at least 1, or null")
        self.merge = merge
        self.size_weight = size_weight
        self.stop = stop
        self.neighbours = neighbours
        self.cannot_link = cannot_link

    def label(self, features: Features, round: int, previous: Labels | None) -> Labels:
        """The clusters after one round of merges more; the previous ones and `done` at the end.

        The end comes by the number of rounds or of clusters, or where all that is left is
        forbidden. Raises NothingToLearn for fewer than two samples.
        """
        count = len(features)
        if count < FEWEST:
            raise NothingToLearn(f"{count} samples: nothing to tell apart; look at data.train")
        start = np.arange(count) if previous is None else previous.labels.numpy()
        if len(start) != count or start.min() < 0:
            raise ValueError(
                f"previous labels of {len(start)} samples, {int((start < 0).sum())} of them left "
                f"out; expected a cluster for each of {count}"
            )
        if round == 0:
            return self._told(features, start, round, previous, done=False)
        merges = max(1, int(self.merge * count + 1e-9))
        clusters = int(start.max()) + 1 - merges
        if round * self.merge > 1 - self.merge + 1e-9 or clusters < (self.stop or FEWEST):
            return self._told(features, start, round, previous, done=True)
        labels = self._merged(features, start, clusters)
        done = bool(labels.max() == start.max())
        return self._told(features, labels, round, previous, done=done)

    def _merged(
        self, features: Features, start: NDArray[np.int64], clusters: int
    ) -> NDArray[np.int64]:
        neighbours = self.neighbours or (NEIGHBOURS if len(start) > EXACT else len(start))
        tree, heights = agglomerate(
            squared_distances(features.vectors, neighbours),
            linkage="buc",
            absent=FARTHEST,
            cannot_link=overlapping_in_time(features.samples) if self.cannot_link else None,
            start=start,
            size_weight=self.size_weight,
        )
        allowed = int(np.isfinite(heights).sum())
        return joined(tree, len(start), min(len(start) - clusters, allowed))

    def _told(
        self,
        features: Features,
        labels: NDArray[np.int64],
        round: int,
        previous: Labels | None,
        *,
        done: bool,
    ) -> Labels:
        found = torch.from_numpy(labels.copy())
        silhouette = float(silhouettes(features.vectors, found).mean())
        sizes = np.bincount(labels)
        told = {"clusters": len(sizes), "largest": int(sizes.max()), "silhouette": silhouette}
        before = {} if previous is None else previous.told
        best = max(before.get("best_silhouette", -1.0), silhouette)
        here = best == silhouette and not done
        told["best_silhouette"] = best
        told["best_round"] = round + 1 if here else before.get("best_round", round + 1)
        return Labels(found, told=told, done=done)


def squared_distances(vectors: Tensor, neighbours: int) -> csr_matrix:
    """Squared Euclidean distances of the unit vectors (N, D) of each sample and its nearest; see
    `nearest_pairs`. A zero vector is at 2."""
    return 2 * nearest_pairs(vectors, neighbours, "cosine")  # of unit vectors twice 1 - cos
