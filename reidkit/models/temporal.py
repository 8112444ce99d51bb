"""Temporal pooling: the frames of a tracklet -> one vector, whatever their number and order."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from reidkit.models.registries import TEMPORAL

Kind = Literal["max", "mean", "median", "attention", "joint_sum", "joint_conv"]
KINDS: tuple[str, ...] = get_args(Kind)
STATISTICS = ("max", "mean", "median")


class SetPooling(nn.Module):
    """Pool over the frames that the mask calls true; padding changes nothing, be it NaN.

    Chao et al., GaitSet, AAAI 2019, arXiv:1811.06186, section 3.2: max, mean and median over a
    set; "joint_sum" is their sum (equation 3), "joint_conv" a 1 x 1 convolution of all three side
    by side (equation 4), without bias, starting as their mean. "attention" weights each frame by
    a learned score of its vector, softmax over the true frames, starting as the mean.

    Of one frame max, mean, median and attention are the frame itself; "joint_sum" follows its
    formula to three times the frame, and "joint_conv" convolves three copies.

    Args:
        kind: "median" is the lower one where the number of frames is even, as torch.median's.
        in_dim: number of channels; only "attention" and "joint_conv" need it.
        channel_axis: the axis of x that holds them: the last of vectors (B, T, P, D), 2 of maps
            (B, T, C, h, w), where attention weighs each cell for itself.
    """

    def __init__(
        self, kind: Kind = "max", in_dim: int | None = None, *, channel_axis: int = -1
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"set pooling {kind!r}: known are {', '.join(KINDS)}")
        if channel_axis in (0, 1):
            raise ValueError(
                f"channel_axis {channel_axis}: axes 0 and 1 are tracklets and frames; "
                "use 2 for maps, -1 for vectors"
            )
        self.kind = kind
        self.channel_axis = channel_axis
        self.score: nn.Linear | None = None
        self.joint: nn.Linear | None = None
        if kind not in ("attention", "joint_conv"):
            return
        if in_dim is None:
            raise ValueError(f"set pooling {kind!r} weighs channels: give their number in_dim")
        if kind == "attention":
            self.score = nn.Linear(in_dim, 1, bias=False)
            nn.init.zeros_(self.score.weight)
        else:
            self.joint = nn.Linear(len(STATISTICS) * in_dim, in_dim, bias=False)
            with torch.no_grad():
                self.joint.weight.copy_(torch.eye(in_dim).repeat(1, len(STATISTICS)))
                self.joint.weight.div_(len(STATISTICS))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, ...), mask (B, T) bool with a true frame in every row -> (B, ...)."""
        if mask.shape != x.shape[:2]:
            raise ValueError(f"mask {tuple(mask.shape)} for frames {tuple(x.shape[:2])}")
        if x.shape[1] > 1 and not bool(mask.any(dim=1).all()):
            raise ValueError("a tracklet has no true frame in its mask; every row needs one")
        if self.kind == "joint_sum":
            return torch.stack([statistic(name, x, mask) for name in STATISTICS]).sum(0)
        # Axes are counted with T among them until a pool has taken it away.
        vectors = x.movedim(self.channel_axis, -1) if self._learns() else x
        if self.joint is not None:
            three = torch.cat([statistic(name, vectors, mask) for name in STATISTICS], dim=-1)
            return self._back(self.joint(three))
        if self.score is not None:
            return self._back(attend(vectors, mask, self.score))
        return statistic(self.kind, x, mask)

    def _learns(self) -> bool:
        return self.score is not None or self.joint is not None

    def _back(self, pooled: Tensor) -> Tensor:
        """The channels from the last axis to where they were. pooled (B, ...)."""
        axis = self.channel_axis
        return pooled.movedim(-1, axis - 1 if axis > 0 else axis)


def statistic(name: str, x: Tensor, mask: Tensor) -> Tensor:
    """The max, mean or (lower) median over true frames. x (B, T, ...), mask (B, T) -> (B, ...)."""
    if x.shape[1] == 1:
        return x[:, 0]  # an image is a tracklet of one frame, which is its own pool
    true = mask.view(*mask.shape, *[1] * (x.ndim - 2))  # (B, T, 1, ...)
    if name == "max":
        return x.masked_fill(~true, float("-inf")).amax(dim=1)
    if name == "mean":
        return x.masked_fill(~true, 0).sum(dim=1) / true.sum(dim=1)
    # Padding sorts to the end, so the middle of the true frames is at (count - 1) // 2.
    ordered = x.masked_fill(~true, float("inf")).sort(dim=1).values
    middle = (true.sum(dim=1, keepdim=True) - 1) // 2
    return ordered.gather(1, middle.expand(-1, -1, *x.shape[2:])).squeeze(1)


def attend(x: Tensor, mask: Tensor, score: nn.Module) -> Tensor:
    """The mean over true frames by a softmax of their scores. x (B, T, ..., C) -> (B, ..., C)."""
    if x.shape[1] == 1:
        return x[:, 0]
    true = mask.view(*mask.shape, *[1] * (x.ndim - 2))  # (B, T, 1, ...)
    clean = x.masked_fill(~true, 0)  # padding may be NaN, and 0 * NaN is no zero
    scores = score(clean).masked_fill(~true, float("-inf"))  # (B, T, ..., 1)
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


@TEMPORAL.register("joint_sum")
def joint_sum_pooling() -> SetPooling:
    """Max + mean + median of each channel; three times the vector of a single frame."""
    return SetPooling("joint_sum")


@TEMPORAL.register("joint_conv")
def joint_conv_pooling(in_dim: int) -> SetPooling:
    """A learned linear map of the max, the mean and the median together."""
    return SetPooling("joint_conv", in_dim)
