"""IBN-Net's blocks on torchvision's (Pan et al., ECCV 2018, arXiv:1807.09441)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

Ibn = Literal["a", "b"]


class InstanceBatchNorm(nn.Module):
    """Instance norm on the first half of the channels, batch norm on the rest (IBN-a, figure 3a).

    The attributes carry the names of the published checkpoints.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = channels // 2
        self.IN = nn.InstanceNorm2d(self.first, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.first)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        # The halves are views; norm kernels are faster on tensors of their own.
        instance, batch = x[:, : self.first].contiguous(), x[:, self.first :].contiguous()
        return torch.cat([self.IN(instance), self.BN(batch)], dim=1)


class IbnBasicBlock(BasicBlock):
    """BasicBlock with IBN-a in the first norm, or IBN-b after the addition."""

    def __init__(
        self, inplanes: int, planes: int, stride: int, downsample: nn.Module | None, ibn: Ibn | None
    ) -> None:
        super().__init__(inplanes, planes, stride, downsample)
        if ibn == "a":
            self.bn1 = InstanceBatchNorm(planes)
        self.IN = nn.InstanceNorm2d(planes, affine=True) if ibn == "b" else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, planes, h / stride, w / stride)."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + identity
        return self.relu(out if self.IN is None else self.IN(out))


class IbnBottleneck(Bottleneck):
    """Bottleneck with IBN-a in the first norm, or IBN-b after the addition."""

    def __init__(
        self, inplanes: int, planes: int, stride: int, downsample: nn.Module | None, ibn: Ibn | None
    ) -> None:
        super().__init__(inplanes, planes, stride, downsample)
        if ibn == "a":
            self.bn1 = InstanceBatchNorm(planes)
        out_channels = planes * self.expansion
        self.IN = nn.InstanceNorm2d(out_channels, affine=True) if ibn == "b" else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, 4 * planes, h / stride, w / stride)."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out)) + identity
        return self.relu(out if self.IN is None else self.IN(out))
