"""Batch-all triplets of every body part at once, as gait networks train with."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from reidkit.distances import FLOOR
from reidkit.losses.pairs import full_precision, widen
from reidkit.losses.registries import LOSSES


@LOSSES.register("part_triplet")
class PartTripletLoss(nn.Module):
    """Keep an anchor's positives closer than its negatives, by a margin, in every part for itself.

    Batch-All+ of Chao et al., GaitSet, AAAI 2019, arXiv:1811.06186, section 4.1, after Hermans et
    al., arXiv:1703.07737: in each part the mean of the terms max(0, margin + d_ap - d_an) that are
    not zero, 0 where all are; then the mean over parts. Distances are Euclidean, of vectors as they
    come.

    The share of terms above zero, `measures()["active"]`, tells how training gets on: the loss is a
    mean over what is left and hardly moves.

    Args:
        margin: how much closer, >= 0.
        include_self: count the anchor among its positives, at distance 0, as the paper's code does.
    """

    reads: ClassVar[tuple[str, ...]] = ("embedding", "feature")
    takes_parts: ClassVar[bool] = True

    def __init__(self, margin: float = 0.2, include_self: bool = True) -> None:
        super().__init__()
        if not (math.isfinite(margin) and margin >= 0):
            raise ValueError(f"margin must be a number >= 0, got {margin}")
        self.margin = margin
        self.include_self = include_self
        self._active: Tensor | None = None

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss (), float32 or float64, whatever autocast says; 0 where there is no triplet.

        embeddings (B, P, D), or (B, D) for a single part; labels (B,). Memory grows with P B^2.
        """
        vectors = embeddings[:, None] if embeddings.ndim == 2 else embeddings
        check_parts(embeddings, vectors, labels)
        labels = labels.to(embeddings.device)
        same = labels[:, None] == labels[None, :]  # (B, B)
        positive = same if self.include_self else same & ~torch.eye(len(same)).to(same)
        with full_precision(embeddings):
            distance = distances(widen(vectors).transpose(0, 1))  # (P, B, B)
            total, active = violations(distance, positive, ~same, self.margin)  # (P,)
            triplets = (positive.sum(1) * (~same).sum(1)).sum()
            self._active = (active.mean(dtype=total.dtype) / triplets.clamp_min(1)).detach()
            return (total / active.clamp_min(1)).mean()

    def measures(self) -> dict[str, Tensor]:
        """Of the last forward: "active", the share of terms above zero over all parts, in [0, 1],
        (); empty before the first."""
        return {} if self._active is None else {"active": self._active}

    def extra_repr(self) -> str:
        """The settings, for printing."""
        return f"margin={self.margin!r}, include_self={self.include_self!r}"


def distances(vectors: Tensor) -> Tensor:
    """Euclidean distances within each part, the diagonal exactly 0. vectors (P, B, D) -> (P, B, B).

    Measured around the mean, where rounding is that of the spread; see `pairs.placed`.
    """
    moved = vectors - vectors.detach().mean(1, keepdim=True)
    squares = moved.square().sum(2)
    sums = squares[:, :, None] + squares[:, None, :]
    found = torch.baddbmm(sums, moved, moved.transpose(1, 2), alpha=-2).clamp_min(FLOOR).sqrt()
    # A product and not a fill: vectors that are not finite must show in the loss.
    return found * ~torch.eye(found.shape[1], dtype=torch.bool, device=found.device)


def violations(
    distance: Tensor, positive: Tensor, negative: Tensor, margin: float
) -> tuple[Tensor, Tensor]:
    """Sum and number of the triplet terms above zero in each part, (P,) and (P,).

    distance (P, B, B); positive, negative (B, B) bool. The terms of a pair (a, p) that are above
    zero are those of the negatives closer than d_ap + margin. With an anchor's negatives in order
    these are a beginning of the list, whose sum is known for every length; so B^2 numbers serve for
    B^3 terms.
    """
    # Only differences within a row count; around its mean they keep their digits in long sums.
    distance = distance - distance.detach().mean(2, keepdim=True)
    ordered = distance.masked_fill(~negative, math.inf).sort(dim=2).values
    limits = distance + margin
    closer = torch.searchsorted(ordered.detach(), limits.detach().contiguous())  # (P, B, B)
    sums = ordered.masked_fill(ordered.isposinf(), 0).cumsum(2)
    sums = torch.cat([torch.zeros_like(sums[:, :, :1]), sums], dim=2)
    terms = closer * limits - sums.gather(2, closer)
    total = terms.masked_fill(~positive, 0).sum((1, 2))
    return total, closer.masked_fill(~positive, 0).sum((1, 2))


def check_parts(embeddings: Tensor, vectors: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless vectors are floating (B, P, D), none of them 0, and labels (B,)."""
    shape = tuple(embeddings.shape)
    if vectors.ndim != 3 or not vectors.numel() or not embeddings.is_floating_point():
        raise ValueError(
            "embeddings must be floating point (B, P, D) or (B, D) with B, P, D > 0, got "
            f"{embeddings.dtype} {shape}"
        )
    if labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, expected ({shape[0]},): "
            f"embeddings are {shape}"
        )
