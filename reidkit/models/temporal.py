"""Temporal pooling: the frames of a tracklet -> one vector, whatever their number and order."""

from typing import Literal

import torch
from torch import Tensor, nn

from reidkit.models.registries import TEMPORAL

Kind = Literal["max", "mean", "median", "attention"]


class SetPooling(nn.Module):
    """Pool over the frames that the mask calls true; padding changes nothing, be it NaN.

    Chao et al., GaitSet, AAAI 2019 (max, mean, median over a set). "attention" weights each frame
    by a learned score of its vector, softmax over the true frames, starting as the mean.

    Args:
        kind: "median" is the lower one where the number of frames is even, as torch.median's.
        in_dim: size of the last axis; only "attention" needs it.
    """

    def __init__(self, kind: Kind = "max", in_dim: int | None = None) -> None:
        super().__init__()
        if kind not in ("max", "mean", "median", "attention"):
            raise ValueError(f"set pooling {kind!r}: known are max, mean, median, attention")
        self.kind = kind
        self.score: nn.Linear | None = None
        if kind == "attention":
            if in_dim is None:
                raise ValueError("set pooling 'attention' scores vectors: give their size in_dim")
            self.score = nn.Linear(in_dim, 1, bias=False)
            nn.init.zeros_(self.score.weight)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, ...), mask (B, T) bool with a true frame in every row -> (B, ...)."""
        if mask.shape != x.shape[:2]:
            raise ValueError(f"mask {tuple(mask.shape)} for frames {tuple(x.shape[:2])}")
        if x.shape[1] == 1:
            return x[:, 0]  # an image is a tracklet of one frame, which is its own pool
        if not bool(mask.any(dim=1).all()):
            raise ValueError("a tracklet has no true frame in its mask; every row needs one")
        true = mask.view(*mask.shape, *[1] * (x.ndim - 2))  # (B, T, 1, ...)
        if self.kind == "max":
            return x.masked_fill(~true, float("-inf")).amax(dim=1)
        if self.kind == "mean":
            return x.masked_fill(~true, 0).sum(dim=1) / true.sum(dim=1)
        if self.kind == "median":
            # Padding sorts to the end, so the middle of the true frames is at (count - 1) // 2.
            ordered = x.masked_fill(~true, float("inf")).sort(dim=1).values
            middle = (true.sum(dim=1, keepdim=True) - 1) // 2
            return ordered.gather(1, middle.expand(-1, -1, *x.shape[2:])).squeeze(1)
        assert self.score is not None
        clean = x.masked_fill(~true, 0)  # padding may be NaN, and 0 * NaN is no zero
        scores = self.score(clean).masked_fill(~true, float("-inf"))  # (B, T, ..., 1)
        wide = torch.promote_types(scores.dtype, torch.float32)
        weights = scores.softmax(dim=1, dtype=wide).to(x.dtype)
        return (clean * weights).sum(dim=1)


@TEMPORAL.register("max")
def max_pooling() -> SetPooling:
    """The largest value of each channel over the frames."""
    return SetPooling("max")


@TEMPORAL.register("mean")
def mean_pooling() -> SetPooling:
    """The mean over the frames."""
    return SetPooling("mean")


@TEMPORAL.register("median")
def median_pooling() -> SetPooling:
    """The (lower) median of each channel over the frames."""
    return SetPooling("median")


@TEMPORAL.register("attention")
def attention_pooling(in_dim: int) -> SetPooling:
    """A mean weighted by a learned score of each frame's vector."""
    return SetPooling("attention", in_dim)
