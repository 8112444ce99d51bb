"""OSNet and OSNet-AIN, from the papers: omni-scale features in few parameters.

Zhou et al., Omni-Scale Feature Learning for Person Re-Identification, ICCV 2019, arXiv:1905.00953;
Zhou et al., Learning Generalisable Omni-Scale Representations, TPAMI 2021, arXiv:1910.06827.
"""

from typing import Literal

from torch import Tensor, nn

from reidkit.models.backbones.resnet import initialise
from reidkit.models.registries import BACKBONES, refuse

CHANNELS = (64, 256, 384, 512)  # stem, conv2, conv3, conv4 and conv5 (table 1)
WIDTHS = (0.25, 0.5, 0.75, 1.0)
STREAMS = 4

# Which block of conv2, conv3, conv4 has the instance norm: what the search of OSNet-AIN found
# (arXiv:1910.06827, and the authors' released osnet_ain).
AIN_LAYOUT = ((True, True), (False, True), (True, False))
PLAIN_LAYOUT = ((False, False),) * 3


@BACKBONES.register("osnet")
class OSNet(nn.Module):
    """Feature map (N, 512 * width, H / 16, W / 16).

    The paper's 512-d layer after average pooling is a model's
    `reduction: {name: linear, dim: 512, relu: true}`; with it x1.0 has 2.2 million parameters.

    Args:
        width: factor on all channels.
        variant: "ain" puts instance norms into the stem and the residuals of four of six blocks.
        pretrained: only False; neither torchvision nor timm offers ImageNet weights.
    """

    level_count = 3

    def __init__(
        self,
        width: float = 1.0,
        variant: Literal["plain", "ain"] = "plain",
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        refuse(self.problems(width, pretrained))
        stem, *stages = (int(channels * width) for channels in CHANNELS)
        layout = AIN_LAYOUT if variant == "ain" else PLAIN_LAYOUT
        norm = nn.InstanceNorm2d(stem, affine=True) if variant == "ain" else nn.BatchNorm2d(stem)
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False), norm, nn.ReLU(inplace=True)
        )
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv2 = omni_scale_stage(stem, stages[0], layout[0])
        self.pool2 = transition(stages[0])
        self.conv3 = omni_scale_stage(stages[0], stages[1], layout[1])
        self.pool3 = transition(stages[1])
        self.conv4 = omni_scale_stage(stages[1], stages[2], layout[2])
        self.conv5 = pointwise(stages[2], stages[2])
        self.level_channels = tuple(stages)
        self.out_channels = stages[2]
        initialise(self)

    @staticmethod
    def problems(width: float, pretrained: bool) -> list[str]:
        """What is wrong with values whose types are right."""
        found = []
        if width not in WIDTHS:
            found.append(f"width {width}: OSNet comes in {', '.join(map(str, WIDTHS))}")
        if pretrained:
            found.append(
                "OSNet has no ImageNet weights in torchvision or timm; set `pretrained: false`"
            )
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, C, H / 16, W / 16)."""
        return self.levels(x)[-1]

    def levels(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) -> the maps that conv2 and conv3 hand on, and that of conv5."""
        x = self.maxpool(self.conv1(x))  # (N, 64, H / 4, W / 4)
        low = self.pool2(self.conv2(x))  # (N, 256, H / 8, W / 8)
        middle = self.pool3(self.conv3(low))  # (N, 384, H / 16, W / 16)
        return low, middle, self.conv5(self.conv4(middle))  # (N, 512, H / 16, W / 16)


class OmniScaleBlock(nn.Module):
    """y = x + sum over t of G(x_t) * x_t, with streams of 1 to 4 Lite 3x3 (equations 3 and 4).

    instance_norm: the residual ends in an instance norm in place of the batch norm (OSNet-AIN).
    """

    def __init__(self, in_channels: int, out_channels: int, instance_norm: bool) -> None:
        super().__init__()
        middle = out_channels // 4
        self.reduce = pointwise(in_channels, middle)
        self.streams = nn.ModuleList(
            nn.Sequential(*(Lite3x3(middle) for _ in range(scale)))
            for scale in range(1, STREAMS + 1)
        )
        self.gate = AggregationGate(middle)
        norm = nn.InstanceNorm2d(out_channels, affine=True) if instance_norm else None
        self.restore = nn.Sequential(
            nn.Conv2d(middle, out_channels, 1, bias=False), norm or nn.BatchNorm2d(out_channels)
        )
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
            )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, h, w) -> (N, out_channels, h, w)."""
        small = self.reduce(x)
        scales = [self.gate(stream(small)) for stream in self.streams]
        residual = self.restore(scales[0] + scales[1] + scales[2] + scales[3])
        return self.relu(residual + self.shortcut(x))


class AggregationGate(nn.Module):
    """Scale each channel by a sigmoid of its global mean; one gate serves all the streams."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        weight = self.expand(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return x * weight  # (N, C, h, w) * (N, C, 1, 1)


class Lite3x3(nn.Sequential):
    """Pointwise, then depthwise 3x3, then norm and ReLU (figure 3b)."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )


def pointwise(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def omni_scale_stage(
    in_channels: int, out_channels: int, instance_norms: tuple[bool, bool]
) -> nn.Sequential:
    """Two omni-scale blocks; the first changes the number of channels."""
    first, second = instance_norms
    return nn.Sequential(
        OmniScaleBlock(in_channels, out_channels, first),
        OmniScaleBlock(out_channels, out_channels, second),
    )


def transition(channels: int) -> nn.Sequential:
    """1x1 convolution and 2x2 average pooling: half the cells each way."""
    return nn.Sequential(pointwise(channels, channels), nn.AvgPool2d(2))
