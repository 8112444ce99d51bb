"""GaitBase and DeepGaitV2: residual networks for silhouettes, with or without time inside."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from reidkit.models.base import EmbeddingModel
from reidkit.models.mixing import OverFrames
from reidkit.models.necks import BNNeck, LinearReduction
from reidkit.models.pooling import PartPool
from reidkit.models.registries import MODELS, refuse
from reidkit.models.reid import TrueFrames, checked
from reidkit.models.temporal import SetPooling
from reidkit.types import SILHOUETTES, ModelOutput, Preprocessing

Kind = Literal["2d", "p3d", "3d"]
STRIDES = (1, 2, 2, 1)


@MODELS.register("gait_resnet")
class GaitResNet(EmbeddingModel):
    """Silhouettes -> 16 vectors: residual blocks, maximum over time, stripes, a linear map each.

    With the arguments' defaults it is GaitBase (Fan et al., OpenGait: Revisiting Gait Recognition
    Toward Better Practicality, CVPR 2023, arXiv:2211.06597), a ResNet-9 whose frames meet only in
    the maximum. With layers (1, 4, 4, 1) it is DeepGaitV2 (Fan et al., Exploring Deep Models for
    Practical Gait Recognition, arXiv:2303.03301), whose "p3d" and "3d" blocks see neighbouring
    frames too: give these consecutive frames in time order.

    Strides are 1, 2, 2, 1 in space and there is no pooling between stages, so 64 x 44 pixels become
    16 x 11 cells. Of DeepGaitV2, unverified: that the first stage is "2d" whatever `blocks` says,
    that convolutions span 3 frames with stride 1 in time, and where a p3d block has its own.

    Tracklets of any length: padding enters no layer. To convolutions over time it is what lies
    beyond the tracklet's ends, zero, so a tracklet answers the same alone and padded.

    Args:
        blocks: "2d" (frame by frame), "p3d" (3 x 3, then 3 frames), "3d" (3 x 3 x 3).
        layers: blocks in each of the four stages.
        channels: of the four stages.
        parts: equal horizontal stripes, each mean + maximum over its cells.
        dim: size of a part's vector.
        feature: what retrieval compares: the "embedding" as OpenGait does, or the "normed" vector
            behind it, which the classifier sees.
        scale: of the logits, cosines between the normed vector and the classes' (`BNNeck`).
        size: (H, W) of the frames where `preprocessing` is not said; 64 x 44 where neither is.
        preprocessing: what the frames must have gone through.
    """

    unit_parts = False
    pixels = "silhouettes"

    def __init__(
        self,
        blocks: Kind = "2d",
        layers: tuple[int, int, int, int] = (1, 1, 1, 1),
        channels: tuple[int, int, int, int] = (64, 128, 256, 512),
        parts: int = 16,
        dim: int = 256,
        feature: Literal["embedding", "normed"] = "embedding",
        scale: float = 16.0,
        *,
        num_classes: int | None = None,
        size: tuple[int, int] | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__()
        refuse(self.problems(blocks, layers, channels, parts, dim, feature, scale))
        self.parts = parts
        self.embedding_size = parts * dim
        self.returns = feature
        self.preprocessing = agreed(preprocessing, size)
        self._check_size(*self.preprocessing.size)
        stem = nn.Conv2d(self.preprocessing.channels, channels[0], 3, padding=1, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(channels[0]), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList()
        inputs = channels[0]
        for stage, (count, outputs) in enumerate(zip(layers, channels, strict=True)):
            kind: Kind = blocks if stage else "2d"
            for number in range(count):
                stride = 1 if number else STRIDES[stage]
                self.blocks.append(Block(inputs, outputs, stride, kind))
                inputs = outputs
        self.temporal = SetPooling("max")
        self.horizontal = PartPool(parts, "average+max")
        self.reduction = LinearReduction(inputs, dim, parts, norm=False)
        self.neck = BNNeck(dim, parts, num_classes, cosine=True, scale=scale)
        self._start()

    @staticmethod
    def problems(
        blocks: str,
        layers: tuple[int, ...],
        channels: tuple[int, ...],
        parts: int,
        dim: int,
        feature: str,
        scale: float,
    ) -> list[str]:
        """What is wrong with values whose types are right."""
        found = [
            f"{name} {value!r}: known are {', '.join(known)}"
            for name, value, known in (
                ("blocks", blocks, ("2d", "p3d", "3d")),
                ("feature", feature, ("embedding", "normed")),
            )
            if value not in known
        ]
        found += [
            f"{name} {value}: expected four numbers, at least 1 each"
            for name, value in (("layers", layers), ("channels", channels))
            if len(value) != 4 or min(value) < 1
        ]
        found += [
            f"{name} {value}: expected at least 1"
            for name, value in (("parts", parts), ("dim", dim))
            if value < 1
        ]
        return found + BNNeck.problems(scale)

    def _start(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                deep = isinstance(module, nn.Conv3d)
                module.to(memory_format=torch.channels_last_3d if deep else torch.channels_last)
        # As GaitSet's maps: a tenth of what each alone would get, for the triplet's margin of 0.2
        # is meant for vectors so short.
        nn.init.xavier_uniform_(self.reduction.linear.weight.transpose(1, 2))

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> ModelOutput:
        """embedding and feature (B, parts, dim), logits (B, parts, num_classes) or None.

        frames (B, T, C, H, W) floats in [0, 1], H a multiple that gives equal stripes; mask (B, T)
        bool, each row with a true frame, None where all are true.
        """
        mask = checked(frames, mask)
        self._check_frames(frames)
        places = TrueFrames(mask)
        x = places.pack(frames).contiguous(memory_format=torch.channels_last)  # (N, 1, 64, 44)
        x = self.stem(x)  # (N, 64, 64, 44)
        for block in self.blocks:
            x = block(x, places)  # (N, 512, 16, 11) in the end
        pooled = self.temporal(places.unpack(x), mask)  # (B, 512, 16, 11)
        embedding = self.reduction(self.horizontal(pooled))  # (B, 16, 512) -> (B, 16, 256)
        normed, logits = self.neck(embedding)
        return ModelOutput(embedding, normed if self.returns == "normed" else embedding, logits)

    def _check_frames(self, frames: Tensor) -> None:
        channels, expected = frames.shape[2], self.preprocessing.channels
        if channels != expected:
            raise ValueError(
                f"gait_resnet was made for frames of {expected} channel(s), got {channels}"
            )
        self._check_size(*frames.shape[3:])

    def _check_size(self, height: int, width: int) -> None:
        unit = 4 * self.parts  # two strides of 2
        if height < 1 or width < 1 or height % unit:
            raise ValueError(
                f"silhouettes of {height} x {width}: gait_resnet with {self.parts} parts needs a "
                f"height that is a multiple of {unit} (equal stripes after / 4), as {unit} x "
                f"{max(1, unit * 11 // 16)}"
            )


class Block(nn.Module):
    """A basic residual block of packed frames: conv, norm, ReLU, conv, norm, + input, ReLU.

    He et al., CVPR 2016. "p3d" adds, after the first ReLU, a convolution over 3 frames to what it
    is made from (the P3D-C of Qiu et al., ICCV 2017: s + T(s)); "3d" has both convolutions over
    3 x 3 x 3.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, kind: Kind) -> None:
        super().__init__()
        flat = kind != "3d"
        self.conv1: nn.Module = (
            convolution(inputs, outputs, stride) if flat else Cube(inputs, outputs, stride)
        )
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2: nn.Module = convolution(outputs, outputs) if flat else Cube(outputs, outputs)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.over_frames = OverFrames(outputs) if kind == "p3d" else None
        self.norm_frames = nn.BatchNorm2d(outputs) if kind == "p3d" else None
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor, places: TrueFrames) -> Tensor:
        """(N, C, h, w) -> (N, outputs, h / stride, w / stride)."""
        y = self.norm1(over(self.conv1, x, places)).relu()
        if self.over_frames is not None and self.norm_frames is not None:
            y = (y + self.norm_frames(self.over_frames(y, places))).relu()
        y = self.norm2(over(self.conv2, y, places))
        return (y + self.shortcut(x)).relu()


class Cube(nn.Module):
    """A 3 x 3 x 3 convolution of packed frames; padding counts as zero."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 3, (1, stride, stride), padding=1, bias=False)

    def forward(self, flat: Tensor, places: TrueFrames) -> Tensor:
        """(N, C, h, w) -> (N, outputs, h / stride, w / stride)."""
        y = self.conv(places.unpack(flat).transpose(1, 2))  # (B, outputs, T, h, w)
        return places.pack(y.transpose(1, 2)).contiguous(memory_format=torch.channels_last)


def over(layer: nn.Module, flat: Tensor, places: TrueFrames) -> Tensor:
    """A convolution of packed frames, whether it looks at one of them or at neighbours."""
    result: Tensor = layer(flat, places) if isinstance(layer, Cube) else layer(flat)
    return result


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3 x 3 convolution of single frames."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def agreed(preprocessing: Preprocessing | None, size: tuple[int, int] | None) -> Preprocessing:
    """The preprocessing, of silhouettes where not said; ValueError where `size` is another."""
    if preprocessing is None:
        return SILHOUETTES if size is None else replace(SILHOUETTES, size=size)
    if size is not None and tuple(size) != preprocessing.size:
        raise ValueError(f"size {tuple(size)} is not the preprocessing's {preprocessing.size}")
    return preprocessing
