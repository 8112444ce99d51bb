"""Mixing over frames: feature maps of a tracklet -> the same, each frame having seen the others.

Every module here maps x (B, T, C, h, w), mask (B, T) bool to the shape of x. It starts as the
identity, so a pretrained backbone is left as it is until training says otherwise. Padded frames,
whatever is in them, change no true frame and come out as zero; batch norms do not see them.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.models.registries import MIXING, refuse
from reidkit.models.reid import TrueFrames


@MIXING.register("non_local")
class NonLocal(nn.Module):
    """Every cell of every true frame looks at all cells of all true frames: x + BN(W y).

    Wang et al., Non-local Neural Networks, CVPR 2018, arXiv:1711.07971, equations 1 and 6 and
    section 3.3; a batch norm that starts at zero stands last (section 4.1). Time and order of the
    frames play no part. Cost: (T h w)^2 products a tracklet.

    Args:
        kind: how a cell weights the others: "gaussian" is a softmax of theta . phi (embedded
            Gaussian), "dot" is theta . phi over the number of cells (dot product).
        bottleneck: in_dim over the channels inside.
    """

    def __init__(
        self, in_dim: int, kind: Literal["gaussian", "dot"] = "gaussian", bottleneck: int = 2
    ) -> None:
        super().__init__()
        refuse(self.problems(bottleneck))
        if kind not in ("gaussian", "dot"):
            raise ValueError(f"non_local {kind!r}: known are gaussian, dot")
        self.kind = kind
        inside = max(1, in_dim // bottleneck)
        self.theta = nn.Conv2d(in_dim, inside, 1)
        self.phi = nn.Conv2d(in_dim, inside, 1)
        self.g = nn.Conv2d(in_dim, inside, 1)
        self.w = nn.Conv2d(inside, in_dim, 1, bias=False)
        self.norm = zero_norm(in_dim)

    @staticmethod
    def problems(bottleneck: int) -> list[str]:
        """What is wrong with values whose types are right."""
        return [] if bottleneck >= 1 else [f"bottleneck {bottleneck}: expected at least 1"]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, C, h, w), mask (B, T) bool with a true frame in every row -> like x."""
        places = settled(x, mask)
        flat = places.pack(x)  # (N, C, h, w)
        query, key, value = (
            cells(places.unpack(layer(flat))) for layer in (self.theta, self.phi, self.g)
        )  # (B, L, D), L = T h w
        true = None  # (B, 1, L)
        if places.index is not None:
            true = mask.repeat_interleave(x.shape[-2] * x.shape[-1], dim=1)[:, None]
        y = self._gather(query, key, value, true)  # (B, L, D)
        maps = y.unflatten(1, (x.shape[1], *x.shape[3:])).movedim(-1, 2)  # (B, T, D, h, w)
        return places.unpack(flat + self.norm(self.w(places.pack(maps))))

    def _gather(self, query: Tensor, key: Tensor, value: Tensor, true: Tensor | None) -> Tensor:
        if self.kind == "gaussian":
            # The paper's softmax has no divisor, hence scale 1.
            return F.scaled_dot_product_attention(query, key, value, attn_mask=true, scale=1.0)
        # Padded cells are zero in `value`, so they add nothing; phi g is C x C, with no L x L.
        count: Tensor | int = key.shape[1] if true is None else true.sum(2, keepdim=True)
        return query @ (key.transpose(1, 2) @ value / count)


@MIXING.register("temporal_conv")
class TemporalConv(nn.Module):
    """A residual bottleneck whose convolutions reach over neighbouring frames.

    Qiu et al., Pseudo-3D Residual Networks, ICCV 2017, arXiv:1711.10305 (its P3D-A): 1 x 1
    down, a convolution over cells, one over frames, 1 x 1 up, added to the input; all with batch
    norm, the last of which starts at zero. Frames are in time order; beyond the tracklet's ends,
    and where the mask has a gap, stand zeros.

    Args:
        frames: how many frames the convolution over time spans, odd.
        cells: side of the convolution over cells, odd; 1 has none, so that the whole is
            frames x 1 x 1, and 3 makes it 3 x 3 x 3 in two factors.
        bottleneck: in_dim over the channels inside.
    """

    def __init__(self, in_dim: int, frames: int = 3, cells: int = 1, bottleneck: int = 4) -> None:
        super().__init__()
        refuse(self.problems(frames, cells, bottleneck))
        inside = max(1, in_dim // bottleneck)
        self.down = normed(nn.Conv2d(in_dim, inside, 1, bias=False))
        self.over_cells: nn.Module = nn.Identity()
        if cells > 1:
            self.over_cells = normed(
                nn.Conv2d(inside, inside, cells, padding=cells // 2, bias=False)
            )
        self.over_frames = OverFrames(inside, frames)
        self.norm = nn.Sequential(nn.BatchNorm2d(inside), nn.ReLU())
        self.up = nn.Sequential(nn.Conv2d(inside, in_dim, 1, bias=False), zero_norm(in_dim))

    @staticmethod
    def problems(frames: int, cells: int, bottleneck: int) -> list[str]:
        """What is wrong with values whose types are right."""
        found = [
            f"{name} {value}: expected an odd number, at least 1"
            for name, value in (("frames", frames), ("cells", cells))
            if value < 1 or value % 2 == 0
        ]
        return found + NonLocal.problems(bottleneck)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, C, h, w), mask (B, T) bool with a true frame in every row -> like x."""
        places = settled(x, mask)
        flat = places.pack(x)  # (N, C, h, w)
        y = self.over_cells(self.down(flat))
        y = self.norm(self.over_frames(y, places))
        return places.unpack(flat + self.up(y))


class OverFrames(nn.Module):
    """A convolution over time alone, frames x 1 x 1, of packed frames; padding counts as zero."""

    def __init__(self, channels: int, frames: int = 3) -> None:
        super().__init__()
        size, padding = (frames, 1), (frames // 2, 0)
        self.conv = nn.Conv2d(channels, channels, size, padding=padding, bias=False)

    def forward(self, flat: Tensor, places: TrueFrames) -> Tensor:
        """(N, C, h, w) -> the same shape."""
        x = places.unpack(flat).transpose(1, 2)  # (B, C, T, h, w)
        # Cells in one row make it a convolution of images, 2 to 5 times as fast as Conv3d on a CPU.
        y = self.conv(x.flatten(3)).unflatten(3, flat.shape[2:])
        return places.pack(y.transpose(1, 2))


def settled(x: Tensor, mask: Tensor) -> TrueFrames:
    """Where the true frames stand; ValueError unless maps and mask are as they must be."""
    if x.ndim != 5:
        raise ValueError(f"mixing takes maps (B, T, C, h, w), got shape {tuple(x.shape)}")
    if mask.shape != x.shape[:2] or mask.dtype != torch.bool:
        raise ValueError(
            f"mask must be bool of shape {tuple(x.shape[:2])}, "
            f"got {mask.dtype} of shape {tuple(mask.shape)}"
        )
    places = TrueFrames(mask)
    if places.index is not None and not bool(mask.any(dim=1).all()):
        raise ValueError("a tracklet has no true frame in its mask; every row needs one")
    return places


def cells(maps: Tensor) -> Tensor:
    """(B, T, D, h, w) -> (B, T * h * w, D)."""
    return maps.movedim(2, -1).flatten(1, 3)


def normed(convolution: nn.Conv2d) -> nn.Sequential:
    """The convolution, batch norm and ReLU."""
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())


def zero_norm(channels: int) -> nn.BatchNorm2d:
    """A batch norm that starts by answering zero."""
    norm = nn.BatchNorm2d(channels)
    nn.init.zeros_(norm.weight)
    return norm
