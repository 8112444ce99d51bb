"""Triplet losses of person re-identification: batch-hard and batch-all."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from reidkit.distances import euclidean, squared_euclidean
from reidkit.losses.pairs import PairLoss, Pairs, accepted_by_memory, placed
from reidkit.losses.registries import LOSSES


@LOSSES.register("triplet")
@accepted_by_memory
class TripletLoss(PairLoss):
    """Keep an anchor's positives closer than its negatives, by a margin.

    Hermans, Beyer, Leibe: In Defense of the Triplet Loss for Person Re-Identification,
    arXiv:1703.07737, eq. 5 (hard) and eq. 6 (all; here the mean over the terms above zero, their
    section 3.2).

    Args:
        margin: how much closer, >= 0; None for the soft margin log(1 + exp(x)).
        mining: "hard" takes each anchor's furthest positive and closest negative; "all" takes every
            triplet.
        normalize: scale embeddings to length 1 first.
        squared: compare squared distances.
    """

    def __init__(
        self,
        margin: float | None = 0.3,
        mining: Literal["hard", "all"] = "hard",
        *,
        normalize: bool = False,
        squared: bool = False,
    ) -> None:
        super().__init__()
        if margin is not None and not (math.isfinite(margin) and margin >= 0):
            raise ValueError(
                f"margin must be a number >= 0 or None for the soft margin, got {margin}"
            )
        if mining not in ("hard", "all"):
            raise ValueError(f"mining must be 'hard' or 'all', got {mining!r}")
        self.margin = margin
        self.mining = mining
        self.normalize = normalize
        self.squared = squared

    def compare(self, queries: Tensor, gallery: Tensor, pairs: Pairs) -> Tensor:
        """The mean over anchors (hard) or violating triplets (all); 0 where there is no triplet."""
        within = gallery is queries
        queries, gallery = placed(queries, gallery, normalize=self.normalize)
        distance = (
            squared_euclidean(queries, gallery) if self.squared else euclidean(queries, gallery)
        )
        if self.mining == "hard":
            gaps = hardest_gaps(distance, pairs, may_be_alone=within and not pairs.mined)
        else:
            gaps = all_gaps(distance, pairs)
        if not len(gaps):
            return distance.sum() * 0
        if self.margin is None:
            return F.softplus(gaps).mean()
        terms = (gaps + self.margin).clamp_min(0)
        return (
            terms.mean() if self.mining == "hard" else terms.sum() / (terms > 0).sum().clamp_min(1)
        )

    def extra_repr(self) -> str:
        """The settings, for printing."""
        settings = ("margin", "mining", "normalize", "squared")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in settings)


def hardest_gaps(distance: Tensor, pairs: Pairs, *, may_be_alone: bool) -> Tensor:
    """Furthest positive minus closest negative, one for each anchor that has both. distance (B, M)
    -> (A,).

    may_be_alone: an anchor whose identity has no other image is its own positive, so its negatives
    are still pushed.
    """
    positive = pairs.positive
    if may_be_alone:
        positive = positive | torch.diag_embed(~positive.any(1))
    complete = positive.any(1) & pairs.negative.any(1)
    furthest = distance.masked_fill(~positive, -torch.inf).amax(1)
    closest = distance.masked_fill(~pairs.negative, torch.inf).amin(1)
    return furthest[complete] - closest[complete]


def all_gaps(distance: Tensor, pairs: Pairs) -> Tensor:
    """Positive minus negative distance of every triplet, or those a miner chose, (number,)."""
    if pairs.triplets is not None:
        anchor, positive, negative = pairs.triplets
        return distance[anchor, positive] - distance[anchor, negative]
    anchor, positive = pairs.positive.nonzero(as_tuple=True)
    gaps = distance[anchor, positive][:, None] - distance[anchor]
    return gaps[pairs.negative[anchor]]
