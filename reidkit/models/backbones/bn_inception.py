"""BN-Inception, the GoogLeNet with batch norms that deep metric learning compares on.

Ioffe & Szegedy, Batch Normalization, ICML 2015, arXiv:1502.03167, figure 5 (the table of layers).
"""

from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.models.backbones.resnet import initialise, scaled
from reidkit.models.pretrained import state_from_file
from reidkit.models.registries import BACKBONES, refuse
from reidkit.models.weights import load_state

STEM = (64, 64, 192)  # 7 x 7, 1 x 1, 3 x 3


class Plan(NamedTuple):
    """A row of the table: channels of the branches; without a projection the stride is 2."""

    one: int  # 1 x 1
    three: tuple[int, int]  # 1 x 1, 3 x 3
    double: tuple[int, int]  # 1 x 1, 3 x 3, 3 x 3
    pool: Literal["average", "max"]
    projection: int  # 1 x 1 behind the pool; 0 passes the pooled channels on


STAGES = (
    (
        Plan(64, (64, 64), (64, 96), "average", 32),  # 3a: 256
        Plan(64, (64, 96), (64, 96), "average", 64),  # 3b: 320
        Plan(0, (128, 160), (64, 96), "max", 0),  # 3c: 576
    ),
    (
        Plan(224, (64, 96), (96, 128), "average", 128),  # 4a: 576
        Plan(192, (96, 128), (96, 128), "average", 128),  # 4b: 576
        Plan(160, (128, 160), (128, 160), "average", 128),  # 4c: 608
        Plan(96, (128, 192), (160, 192), "average", 128),  # 4d: 608
        Plan(0, (128, 192), (192, 256), "max", 0),  # 4e: 1056
    ),
    (
        Plan(352, (192, 320), (160, 224), "average", 128),  # 5a: 1024
        Plan(352, (192, 320), (192, 224), "max", 128),  # 5b: 1024
    ),
)


@BACKBONES.register("bn_inception")
class BNInception(nn.Module):
    """Feature map (N, 1024 * width, H / 32, W / 32); levels are inception 3c, 4e and 5b.

    A block's channels are what its branches add up to, 608 for 4c and 4d; the sizes that the paper
    prints beside them do not always. Pooling is Caffe's, in which metric learning's papers have it.

    Args:
        width: factor on all channels, rounded to multiples of 8.
        weights: a .safetensors or .pth file to start from, with exactly the names and shapes of
            this module's state, or a whole model's file, of which the keys `backbone.` are taken
            (a run's `model.safetensors`). Nothing is downloaded, and without a file it starts from
            scratch: the ImageNet weights converted from Caffe have other names, biases before
            their norms and pixels in BGR from 0 to 255, and do not fit as they are.
    """

    level_count = 3
    inception3: nn.Sequential
    inception4: nn.Sequential
    inception5: nn.Sequential

    def __init__(self, width: float = 1.0, weights: Path | None = None) -> None:
        super().__init__()
        refuse(self.problems(width, weights))
        first, second, third = (scaled(channels, width) for channels in STEM)
        self.conv1 = convolution(3, first, 7, stride=2)
        self.conv2 = nn.Sequential(convolution(first, second, 1), convolution(second, third, 3))
        self.maxpool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        channels, ends = third, []
        for number, plans in enumerate(STAGES, start=3):
            stage = nn.Sequential()
            for letter, plan in zip("abcde", plans, strict=False):
                block = Inception(channels, narrowed(plan, width))
                stage.add_module(letter, block)
                channels = block.out_channels
            setattr(self, f"inception{number}", stage)
            ends.append(channels)
        self.level_channels = tuple(ends)
        self.out_channels = channels
        initialise(self)
        if weights is not None:
            load_state(self, state_from_file(weights, "backbone."), str(weights))

    @staticmethod
    def problems(width: float, weights: Path | None) -> list[str]:
        """What is wrong with values whose types are right."""
        found = []
        if not 0.0625 <= width <= 4:
            found.append(f"width {width}: expected a factor between 0.0625 and 4")
        if weights is not None and not Path(weights).is_file():
            found.append(f"weights: there is no file {weights}; leave it out to start from scratch")
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, C, H / 32, W / 32)."""
        return self.levels(x)[-1]

    def levels(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) -> the maps of 3c at H / 16, 4e at H / 32 and 5b at H / 32."""
        x = self.maxpool(self.conv1(x))  # (N, 64, H / 4, W / 4)
        x = self.maxpool(self.conv2(x))  # (N, 192, H / 8, W / 8)
        low = self.inception3(x)  # (N, 576, H / 16, W / 16)
        middle = self.inception4(low)  # (N, 1056, H / 32, W / 32)
        return low, middle, self.inception5(middle)  # (N, 1024, H / 32, W / 32)


class Inception(nn.Module):
    """Branches side by side: 1 x 1, 3 x 3, twice 3 x 3, and a pool (figure 5's rows)."""

    def __init__(self, inputs: int, plan: Plan) -> None:
        super().__init__()
        stride = 1 if plan.projection else 2
        self.pool = plan.pool
        self.stride = stride
        (reduce3, three), (reduce_double, double) = plan.three, plan.double
        self.one = convolution(inputs, plan.one, 1) if plan.one else None
        self.three = nn.Sequential(
            convolution(inputs, reduce3, 1), convolution(reduce3, three, 3, stride)
        )
        self.twice = nn.Sequential(
            convolution(inputs, reduce_double, 1),
            convolution(reduce_double, double, 3),
            convolution(double, double, 3, stride),
        )
        self.projection = convolution(inputs, plan.projection, 1) if plan.projection else None
        self.out_channels = plan.one + three + double + (plan.projection or inputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) >= 0 -> (N, out_channels, h, w), or half the cells each way."""
        pooled = self._pooled(x)
        branches = [] if self.one is None else [self.one(x)]
        branches += [self.three(x), self.twice(x)]
        branches.append(pooled if self.projection is None else self.projection(pooled))
        return torch.cat(branches, dim=1)

    def _pooled(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            # Windows start at cell 0, as Caffe's, and not at -1. An odd last row would get a
            # window from the convolutions alone; behind a ReLU a row of zeros changes no maximum.
            x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
            return F.max_pool2d(x, 3, stride=2, ceil_mode=True)
        if self.pool == "max":
            return F.max_pool2d(x, 3, stride=1, padding=1)
        return F.avg_pool2d(x, 3, stride=1, padding=1)


def narrowed(plan: Plan, width: float) -> Plan:
    """The plan with all channels times `width`; what is absent stays so."""

    def times(channels: int) -> int:
        return scaled(channels, width) if channels else 0

    three = (times(plan.three[0]), times(plan.three[1]))
    double = (times(plan.double[0]), times(plan.double[1]))
    return Plan(times(plan.one), three, double, plan.pool, times(plan.projection))


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """Convolution that keeps the cells (but for its stride), batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
