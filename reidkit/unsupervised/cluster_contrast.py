"""Cluster-Contrast: in every round the clusters of the features are the identities."""

import numpy as np
import torch
from numpy.typing import NDArray

from reidkit.types import Features
from reidkit.unsupervised.clustering import OUTLIER, Clusterer, check_settings, cluster
from reidkit.unsupervised.methods import METHODS, Labels, NothingToLearn
from reidkit.unsupervised.tracklets import cannot_link as overlapping_in_time


@METHODS.register("cluster_contrast")
class ClusterContrast:
    """Labels by DBSCAN or HDBSCAN of k-reciprocal Jaccard distances; outliers are left out.

    Dai et al., Cluster Contrast for Unsupervised Person Re-Identification, ACCV 2022,
    arXiv:2103.11568, to be trained with the loss `cluster_memory`.

    Args:
        eps: how far DBSCAN's neighbours reach, a Jaccard distance, (0, 1).
        min_samples: samples within eps that make a core, itself counted; at least 1.
        k1: neighbours among which reciprocal ones are looked for; about twice the samples of an
            identity.
        k2: neighbours whose weights are averaged.
        clusterer: "dbscan" or "hdbscan", which does not look at eps.
        cannot_link: split clusters that hold samples of one camera that overlap in time, where
            times are known (`reidkit.unsupervised.tracklets.cannot_link`).
    """

    def __init__(
        self,
        eps: float = 0.6,
        min_samples: int = 4,
        k1: int = 30,
        k2: int = 6,
        clusterer: Clusterer = "dbscan",
        cannot_link: bool = True,
    ) -> None:
        check_settings(clusterer, eps, min_samples, k1, k2)
        self.eps = eps
        self.min_samples = min_samples
        self.k1 = k1
        self.k2 = k2
        self.clusterer = clusterer
        self.cannot_link = cannot_link

    def label(self, features: Features, round: int, previous: Labels | None) -> Labels:
        """The clusters of these features, whatever the rounds before found.

        `told` counts the clusters, the samples left out and those of the largest cluster. Raises
        NothingToLearn for fewer than two clusters.
        """
        if not len(features):
            raise NothingToLearn("no samples to cluster; look at data.train")
        found = cluster(
            features,
            method=self.clusterer,
            eps=self.eps,
            min_samples=self.min_samples,
            k1=self.k1,
            k2=self.k2,
            cannot_link=overlapping_in_time(features.samples) if self.cannot_link else None,
        )
        sizes = np.bincount(found[found != OUTLIER])
        if len(sizes) < 2:
            raise NothingToLearn(self._advice(sizes, len(found)))
        told = {
            "clusters": len(sizes),
            "left_out": len(found) - int(sizes.sum()),
            "largest": int(sizes.max()),
        }
        return Labels(torch.from_numpy(found), told=told)

    def _advice(self, sizes: NDArray[np.int64], count: int) -> str:
        by_density = self.clusterer == "dbscan"
        if len(sizes):
            lower = (
                f"lower eps ({self.eps:g}) or k1 ({self.k1})"
                if by_density
                else (f"lower k1 ({self.k1}) or min_samples ({self.min_samples})")
            )
            return (
                f"one cluster of {sizes[0]} of {count} samples: nothing to push apart; {lower}, or "
                "begin with better features"
            )
        crowd = f"no cluster of {self.min_samples} samples"
        within = f" within eps = {self.eps:g}" if by_density else ""
        raised = f"raise eps or k1 ({self.k1})" if by_density else f"raise k1 ({self.k1})"
        return (
            f"all {count} samples are outliers: {crowd}{within}; {raised}, lower min_samples, or "
            "begin with better features"
        )
