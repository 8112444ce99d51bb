"""Multi-level heads: several maps of one backbone, each with an embedding and a loss of its own."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.models.build import component
from reidkit.models.necks import IdentityNeck
from reidkit.models.registries import BACKBONES, MODELS, refuse
from reidkit.models.reid import FlipTested, TrueFrames, whole_number
from reidkit.models.temporal import SetPooling
from reidkit.types import ModelOutput, Preprocessing

WINDOW, STEP = 5, 3  # cells of a low head's average pooling


@runtime_checkable
class HasLevels(Protocol):
    """A backbone that shows maps from its inside, low to high; `forward` gives the last."""

    level_channels: tuple[int, ...]

    def levels(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) -> maps (N, level_channels[i], h_i, w_i)."""


class MultiLevelModel(FlipTested):
    """Tracklets -> one embedding for each level of the backbone, as the parts of a ModelOutput.

    RLL-(L,M,H) of Wang et al., Ranked List Loss for Deep Metric Learning, CVPR 2019,
    arXiv:1903.03238: every level has its loss (deep supervision), and retrieval compares the
    joined unit vectors. A loss over parts is their mean, so a weight of 1 for each of P levels is
    `losses: [{name: ranked_list, on: embedding, weight: P}]`. Layers, as in the authors' released
    network: below the last level `LevelHead`, at the last a global average and a linear map.

    The linear maps of the heads count cells: all frames must have the size of `preprocessing`.

    Args:
        backbone: has `level_channels` and `levels(x)` (`HasLevels`).
        temporal: x (B, T, P, dim), mask (B, T) -> (B, P, dim); the mean where not said.
        neck: embedding (B, P, dim) -> (feature, logits); where not said the embedding is the
            feature, and there is no classifier.
        preprocessing: what the frames must have gone through; carried for those who use the model.
        levels: which of the backbone's levels, from 0, the last among them; all where not said.
        dim: size of a level's vector.
        hidden: channels of the 1 x 1 convolution and width of the layer behind it, in `LevelHead`.
        channels_last: lay backbone and heads out for convolutions over the last axis.
        flip_test: in evaluation, average the output with that of the mirrored frames.
    """

    def __init__(
        self,
        backbone: nn.Module,
        temporal: nn.Module | None = None,
        neck: nn.Module | None = None,
        preprocessing: Preprocessing | None = None,
        *,
        levels: Sequence[int] | None = None,
        dim: int = 512,
        hidden: tuple[int, int] = (128, 1024),
        channels_last: bool = True,
        flip_test: bool = False,
    ) -> None:
        super().__init__()
        refuse(self.problems(levels, dim, hidden))
        if not isinstance(backbone, HasLevels):
            raise ValueError(without_levels(type(backbone).__name__))
        channels = backbone.level_channels
        self.levels = tuple(range(len(channels)) if levels is None else levels)
        refuse(count_problems(self.levels, len(channels), type(backbone).__name__))
        self.parts = len(self.levels)
        self.preprocessing = Preprocessing() if preprocessing is None else preprocessing
        neck = IdentityNeck(dim, self.parts) if neck is None else neck
        if (whole_number(neck, "in_dim"), whole_number(neck, "parts")) != (dim, self.parts):
            raise ValueError(
                f"the neck takes {neck.parts} parts of {neck.in_dim}, but the levels give "
                f"{self.parts} of {dim}; make them equal"
            )
        grids = map_sizes(backbone, self.preprocessing)
        heads: list[nn.Module] = [
            LevelHead(channels[level], grids[level], dim, hidden)
            if level < len(channels) - 1
            else LastHead(channels[level], dim)
            for level in self.levels
        ]
        memory = torch.channels_last if channels_last else torch.contiguous_format
        self.backbone = backbone.to(memory_format=memory)
        self.heads = nn.ModuleList(heads).to(memory_format=memory)
        self.temporal = SetPooling("mean") if temporal is None else temporal
        self.neck = neck
        self.channels_last = channels_last
        self.flip_test = flip_test
        self.embedding_size = self.parts * dim

    @staticmethod
    def problems(levels: Sequence[int] | None, dim: int, hidden: tuple[int, ...]) -> list[str]:
        """What is wrong with values whose types are right."""
        found = []
        if levels is not None and (
            not levels or list(levels) != sorted({*levels}) or levels[0] < 0
        ):
            found.append(f"levels {tuple(levels)}: expected different numbers from 0, low to high")
        if dim < 1:
            found.append(f"dim {dim}: expected at least 1")
        if len(hidden) != 2 or min(hidden) < 1:
            found.append(f"hidden {tuple(hidden)}: expected two numbers, at least 1 each")
        return found

    def once(self, frames: Tensor, mask: Tensor) -> ModelOutput:
        """embedding and feature (B, P, dim), logits (B, P, num_classes) or None."""
        places = TrueFrames(mask)
        flat = places.pack(frames)  # (N, C, H, W)
        if self.channels_last:
            flat = flat.contiguous(memory_format=torch.channels_last)
        maps = level_maps(self.backbone, flat)
        heads = zip(self.levels, self.heads, strict=True)
        vectors = torch.stack([head(maps[level]) for level, head in heads], dim=1)  # (N, P, dim)
        embedding = self.temporal(places.unpack(vectors), mask)  # (B, T, P, dim) -> (B, P, dim)
        feature, logits = self.neck(embedding)
        return ModelOutput(embedding, feature, logits)


class LevelHead(nn.Module):
    """Average pool 5 x 5, stride 3 -> 1 x 1 convolution -> linear -> linear to `dim`, no bias.

    The first two are followed by batch norm and ReLU. The pool rounds up, as Caffe's: cells at
    the end that fill no whole window are averaged alone. An axis shorter than 5 is averaged whole.

    Args:
        channels: of the map.
        grid: (h, w), the map's cells, for which the linear layer is made.
        dim: size of the vector.
        hidden: channels of the convolution, width of the first linear layer.
    """

    def __init__(
        self, channels: int, grid: tuple[int, int], dim: int, hidden: tuple[int, int]
    ) -> None:
        super().__init__()
        narrow, wide = hidden
        self.window = (min(WINDOW, grid[0]), min(WINDOW, grid[1]))
        self.grid = grid
        cells = self._pool(torch.empty(1, 1, *grid)).numel()
        self.conv = nn.Conv2d(channels, narrow, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(narrow)
        self.linear = nn.Linear(narrow * cells, wide, bias=False)
        self.norm2 = nn.BatchNorm1d(wide)
        self.embed = nn.Linear(wide, dim, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        for linear in (self.linear, self.embed):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) -> (N, dim); ValueError where (h, w) is not the grid."""
        if tuple(x.shape[2:]) != self.grid:
            height, width = self.grid
            raise ValueError(
                f"a level's head was made for {height} x {width} cells, got {x.shape[2]} x "
                f"{x.shape[3]}: give multi_level frames of its preprocessing's size alone "
                "(no data.stages)"
            )
        x = self.norm1(self.conv(self._pool(x))).relu()
        x = self.norm2(self.linear(x.flatten(1))).relu()
        return self.embed(x)

    def _pool(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.window, STEP, ceil_mode=True)


class LastHead(nn.Module):
    """Global average -> linear to `dim`, no bias."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.embed = nn.Linear(channels, dim, bias=False)
        nn.init.xavier_uniform_(self.embed.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) -> (N, dim)."""
        return self.embed(x.mean((2, 3)))


@MODELS.register("multi_level")
def multi_level(
    backbone: dict[str, Any],
    levels: tuple[int, ...] | None = None,
    dim: int = 512,
    hidden: tuple[int, int] = (128, 1024),
    temporal: dict[str, Any] | None = None,
    neck: dict[str, Any] | None = None,
    channels_last: bool = True,
    flip_test: bool = False,
    num_classes: int | None = None,
    size: tuple[int, int] | None = None,
    preprocessing: Preprocessing | None = None,
) -> MultiLevelModel:
    """A MultiLevelModel of named components; temporal mean and no neck where not said."""
    if preprocessing is None:
        preprocessing = Preprocessing() if size is None else Preprocessing(size)
    body = component("backbone", backbone, size=preprocessing.size)
    count = len(getattr(body, "level_channels", ())) if levels is None else len(levels)
    head = None
    if neck is not None:
        head = component("neck", neck, in_dim=dim, parts=max(1, count), num_classes=num_classes)
    return MultiLevelModel(
        body,
        component("temporal", temporal or {"name": "mean"}, in_dim=dim),
        head,
        preprocessing,
        levels=levels,
        dim=dim,
        hidden=hidden,
        channels_last=channels_last,
        flip_test=flip_test,
    )


def spec_problems(
    backbone: Mapping[str, Any], levels: tuple[int, ...] | None, dim: int, hidden: tuple[int, int]
) -> list[str]:
    """What is wrong with the arguments of `multi_level`, its backbone among them."""
    found = MultiLevelModel.problems(levels, dim, hidden)
    name = backbone.get("name")
    if found or name not in BACKBONES:
        return found
    if name not in names_with_levels():
        return [without_levels(repr(name))]
    # A class says beforehand how many it has; of a function it shows when the model is built.
    count = getattr(BACKBONES[name], "level_count", None)
    return [] if levels is None or count is None else count_problems(levels, count, repr(name))


multi_level.problems = spec_problems


def names_with_levels() -> list[str]:
    """Registered backbones that have levels, or are functions and so may give one that has."""
    return [
        name
        for name in BACKBONES
        if not inspect.isclass(BACKBONES[name]) or hasattr(BACKBONES[name], "levels")
    ]


def without_levels(what: str) -> str:
    """The sentence about a backbone that multi_level cannot use."""
    known = ", ".join(names_with_levels())
    return f"backbone {what} shows no levels from its inside; multi_level takes one of: {known}"


def count_problems(levels: Sequence[int], count: int, what: str) -> list[str]:
    """What is wrong with the levels of a backbone that has `count`.

    The last one must be among them: without it the layers above the highest would learn nothing.
    """
    if levels[-1] == count - 1:
        return []
    return [
        f"levels {tuple(levels)}: {what} has {count}, numbered 0 to {count - 1}, and the last must "
        "be among them"
    ]


def level_maps(backbone: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """(N, 3, H, W) -> the backbone's maps, low to high."""
    return cast(HasLevels, backbone).levels(x)  # the constructor has seen to it


def map_sizes(backbone: nn.Module, preprocessing: Preprocessing) -> list[tuple[int, int]]:
    """(h, w) of each level, told by one black image."""
    height, width = preprocessing.size
    training, like = backbone.training, next(backbone.parameters())
    backbone.eval()
    try:
        with torch.no_grad():
            black = like.new_zeros(1, preprocessing.channels, height, width)
            maps = level_maps(backbone, black)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{type(backbone).__name__} gives no maps of {height} x {width} images: {reason}"
        ) from error
    finally:
        backbone.train(training)
    return [(x.shape[2], x.shape[3]) for x in maps]
