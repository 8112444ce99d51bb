"""Stepwise Metric Promotion with a network: labels of tracklets, camera by camera, then matched."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit.distances import cosine, euclidean
from reidkit.types import Features, Metric
from reidkit.unsupervised.matching import Combine, join, match_tracklets
from reidkit.unsupervised.methods import METHODS, Labels, NothingToLearn
from reidkit.unsupervised.tracklets import by_camera, cannot_link

SameCamera = Literal["forbid", "allow"]
Begin = Literal["cameras", "matches"]
Places = Mapping[tuple[str, int], NDArray[np.int64]]


@METHODS.register("smp")
@dataclass(frozen=True)
class StepwiseMetricPromotion:
    """First every tracklet is a class among those of its camera, then matched tracklets are one.

    Liu, Wang, Lu, Stepwise Metric Promotion for Unsupervised Video Person Re-identification, ICCV
    2017, whose metric is replaced by the network that is trained between the rounds. Cameras are
    those of a domain.

    Round 0 has a class for each tracklet, and only classes of one camera push one another away.
    Later rounds match the tracklets of every two cameras (`match_tracklets`) and join them, the
    surest first. Clusters push their cameras' classes away, and one another in any camera; an
    unmatched tracklet stays a class of its camera alone. Batches mix cameras, and matched classes
    weigh no more than others, where the released code weighs the matched set twice.

    Args:
        begin: "cameras" for round 0 as above; "matches" matches at once, which asks for features
            that are good for something before anything was learned.
        keep: share of the matches that is believed, the surest first, in each round of matching;
            the last number holds for all rounds after. Sure ones are right far more often.
        k: how many neighbours, see `match_tracklets`; as `sigma`, `gate` and `combine`.
        metric: of the features, whose distances these are.
        same_camera: "forbid" takes two tracklets of one camera for two identities, as the paper
            does of tracklets sampled sparsely (`sparse_tracklets`). "allow" is for sets in which a
            camera has several tracklets of a person: in round 0 they are still classes of their
            own, but later they may join through another camera, unless they overlap in time.
        patience: after so many rounds of matching, one with as many matches as the one before is
            the last.
    """

    begin: Begin = "cameras"
    keep: tuple[float, ...] = (1.0,)
    k: int = 10
    sigma: float | None = None
    gate: bool = False
    combine: Combine = "product"
    metric: Metric = "cosine"
    same_camera: SameCamera = "forbid"
    patience: int = 4

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is {self.k}, expected at least 1 neighbour")
        if not self.keep or not all(0 < share <= 1 for share in self.keep):
            raise ValueError(f"keep is {list(self.keep)}, expected shares in (0, 1], one or more")
        if self.sigma is not None and not self.sigma > 0:
            raise ValueError(f"sigma is {self.sigma}, expected a distance above 0, or None")
        if self.patience < 1:
            raise ValueError(f"patience is {self.patience}, expected at least 1 round")
        choices = {"begin": Begin, "combine": Combine, "metric": Metric, "same_camera": SameCamera}
        for name, choice in choices.items():
            if getattr(self, name) not in get_args(choice):
                expected = " or ".join(map(repr, get_args(choice)))
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected {expected}")

    def label(self, features: Features, round: int, previous: Labels | None) -> Labels:
        """Classes and who pushes whom away; see `Method`.

        `told` has the numbers of matches, of clusters (of two tracklets or more), of single
        tracklets, and of matches passed over because of what cannot be linked. Raises
        NothingToLearn for fewer than two cameras, unknown cameras, and where no camera has two
        tracklets.
        """
        cameras = _cameras(features)
        turn = round if self.begin == "matches" else round - 1  # of matching, from 0
        if round == 0 and self.begin == "cameras":
            labels, matches, passed = np.arange(len(features)), np.empty((0, 2), np.int64), 0
        else:
            pairs, scores = self._match(features.vectors, cameras)
            if not len(pairs):
                raise NothingToLearn(
                    f"no tracklets of two cameras match: raise k ({self.k}), drop the gate, leave "
                    "sigma to the median, or begin with better features"
                )
            share = self.keep[min(turn, len(self.keep) - 1)]
            surest = np.argsort(-scores, kind="stable")[: math.ceil(share * len(scores))]
            pairs, scores = pairs[surest], scores[surest]
            apart = cannot_link(features.samples, within_camera=self.same_camera == "forbid")
            labels, joined = join(pairs, scores, apart)
            matches, passed = pairs[joined], int((~joined).sum())
        sizes = np.bincount(labels)
        unchanged = previous is not None and len(previous.matches) == len(matches)
        return Labels(
            torch.from_numpy(labels),
            torch.from_numpy(_groups(labels, sizes, cameras)),
            torch.from_numpy(matches),
            told={
                "matches": len(matches),
                "clusters": int((sizes > 1).sum()),
                "singles": int((sizes == 1).sum()),
                "passed_over": passed,
            },
            done=turn >= self.patience - 1 and unchanged,
        )

    def _match(
        self, vectors: Tensor, cameras: Places
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Matched positions (M, 2) of every two cameras, and their scores (M,)."""
        found, scores = [np.empty((0, 2), np.int64)], [np.empty(0)]
        for a, b in combinations(cameras.values(), 2):
            places = (a, b)
            blocks = {
                (i, j): self._distances(vectors[places[i]], vectors[places[j]])
                for i, j in ((0, 0), (0, 1), (1, 1))
            }
            matches = match_tracklets(
                blocks, k=self.k, sigma=self.sigma, gate=self.gate, combine=self.combine
            )
            of_pair = [(a[match.a], b[match.b]) for match in matches]
            found.append(np.array(of_pair, np.int64).reshape(-1, 2))
            scores.append(np.array([match.score for match in matches]))
        return np.concatenate(found), np.concatenate(scores)

    def _distances(self, left: Tensor, right: Tensor) -> NDArray[np.float64]:
        measure = cosine if self.metric == "cosine" else euclidean
        return measure(left.double(), right.double()).clamp_min(0).cpu().numpy()


def _groups(labels: NDArray[np.int64], sizes: NDArray[np.int64], cameras: Places) -> NDArray:
    """(K, C + 1) bool: the cameras a class was seen in, and whether it has two tracklets or
    more."""
    groups = np.zeros((len(sizes), len(cameras) + 1), bool)
    for number, places in enumerate(cameras.values()):
        groups[labels[places], number] = True
    groups[:, -1] = sizes > 1
    return groups


def _cameras(features: Features) -> Places:
    """Positions of the tracklets of each camera, once it is sure that something can be learned."""
    unknown = [sample for sample in features.samples if sample.camid < 0]
    if unknown:
        raise NothingToLearn(
            f"{len(unknown):,} of {len(features):,} samples have no camera ({unknown[0].name}): "
            "smp matches across cameras; name the cameras, or take cluster_contrast or buc"
        )
    cameras = {name: np.array(places) for name, places in by_camera(features.samples).items()}
    if len(cameras) < 2:
        raise NothingToLearn(
            f"{len(features):,} tracklets of {len(cameras)} camera(s): smp matches across cameras; "
            "give tracklets of two cameras or more, or take cluster_contrast or buc"
        )
    if all(len(places) < 2 for places in cameras.values()):
        raise NothingToLearn(
            f"each of the {len(cameras)} cameras has a single tracklet, so there is nobody to be "
            "told apart; give two tracklets or more of at least one camera"
        )
    bad = ~torch.isfinite(features.vectors).all(1)
    if bad.any():
        name = features.samples[int(bad.nonzero()[0])].name
        raise ValueError(f"features of {name} are not finite; a smaller learning rate may help")
    return cameras
