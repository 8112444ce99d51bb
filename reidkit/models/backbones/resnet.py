"""ResNet-10/18/34/50 for re-identification: torchvision's blocks, last stride, IBN."""

from typing import Literal

from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, ResNet34_Weights, ResNet50_Weights

from reidkit.models.backbones.ibn import Ibn, IbnBasicBlock, IbnBottleneck
from reidkit.models.pretrained import WeightsUnavailable, state_from_url
from reidkit.models.registries import BACKBONES, refuse

LAYERS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}

# ImageNet weights version 1: the ones the re-identification papers started from.
PLAIN_WEIGHTS = {
    18: ResNet18_Weights.IMAGENET1K_V1.url,
    34: ResNet34_Weights.IMAGENET1K_V1.url,
    50: ResNet50_Weights.IMAGENET1K_V1.url,
}
IBN_RELEASE = "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/"
IBN_WEIGHTS = {
    (18, "a"): "resnet18_ibn_a-2f571257.pth",
    (34, "a"): "resnet34_ibn_a-94bc1577.pth",
    (50, "a"): "resnet50_ibn_a-d9d0bb7b.pth",
    (18, "b"): "resnet18_ibn_b-bc2f3c11.pth",
    (34, "b"): "resnet34_ibn_b-04134c37.pth",
    (50, "b"): "resnet50_ibn_b-9ca61e85.pth",
}


@BACKBONES.register("resnet")
class ResNet(nn.Module):
    """Feature map (N, C, h, w) of a ResNet (He et al., CVPR 2016), with torchvision's state keys.

    Args:
        depth: 10, 18 or 34 (basic blocks, C = 512 * width), 50 (bottlenecks, C = 2048 * width);
            10 has one block a stage, suits a CPU, and has no published weights.
        last_stride: stride of the last stage; 1 keeps twice the cells each way (Bag of Tricks).
        ibn: IBN-Net's "a" (instance norm on half of the channels of each block's first norm,
            stages 1-3) or "b" (instance norm for the stem and after the addition of the last
            block of stages 1 and 2).
        width: factor on all channels, rounded to multiples of 8; only from scratch.
        zero_init: start every residual branch at zero (Goyal et al., 2017); only from scratch.
        pretrained: ImageNet weights; raises WeightsUnavailable where they cannot be had.
    """

    level_count = 3
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(
        self,
        depth: Literal[10, 18, 34, 50] = 50,
        last_stride: Literal[1, 2] = 1,
        ibn: Ibn | None = None,
        width: float = 1.0,
        zero_init: bool = False,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        refuse(self.problems(depth, width, zero_init, pretrained))
        block = IbnBottleneck if depth == 50 else IbnBasicBlock
        planes = [scaled(channels, width) for channels in (64, 128, 256, 512)]
        stem = planes[0]
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        norm = nn.InstanceNorm2d(stem, affine=True) if ibn == "b" else nn.BatchNorm2d(stem)
        self.bn1: nn.Module = norm
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels, ends = stem, []
        for stage, (count, stride) in enumerate(
            zip(LAYERS[depth], (1, 2, 2, last_stride), strict=True)
        ):
            layer = residual_stage(block, channels, planes[stage], count, stride, stage, ibn)
            setattr(self, f"layer{stage + 1}", layer)
            channels = planes[stage] * block.expansion
            ends.append(channels)
        self.level_channels = tuple(ends[1:])
        self.out_channels = channels
        if pretrained:
            self._load_imagenet(depth, ibn)
        else:
            initialise(self, zero_init)

    @staticmethod
    def problems(depth: int, width: float, zero_init: bool, pretrained: bool) -> list[str]:
        """What is wrong with values whose types are right."""
        found = []
        if depth not in LAYERS:
            found.append(f"depth {depth}: known are {', '.join(map(str, LAYERS))}")
        if not 0.0625 <= width <= 4:
            found.append(f"width {width}: expected a factor between 0.0625 and 4")
        if pretrained and depth == 10:
            found.append("depth 10 has no ImageNet weights; set `pretrained: false`")
        if pretrained and width != 1.0:
            found.append(
                f"width {width} has no ImageNet weights; set `pretrained: false` or width 1"
            )
        if pretrained and zero_init:
            found.append("zero_init is for training from scratch; set `pretrained: false`")
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, C, H / 16, W / 16), or H / 32 with last_stride 2."""
        return self.levels(x)[-1]

    def levels(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) -> the maps of layers 2, 3 and 4, with `level_channels`."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (N, 64, H / 4, W / 4)
        x = self.layer1(x)
        low = self.layer2(x)  # H / 8
        middle = self.layer3(low)  # H / 16
        return low, middle, self.layer4(middle)

    def _load_imagenet(self, depth: int, ibn: Ibn | None) -> None:
        url = PLAIN_WEIGHTS[depth] if ibn is None else IBN_RELEASE + IBN_WEIGHTS[depth, ibn]
        what = f"ResNet-{depth}" + (f" with IBN-{ibn}" if ibn else "")
        state = state_from_url(url, what)
        backbone = {key: value for key, value in state.items() if not key.startswith("fc.")}
        try:
            self.load_state_dict(backbone)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise WeightsUnavailable(f"the file of {url} does not fit {what}: {reason}") from error


def scaled(channels: int, width: float) -> int:
    """channels * width, to the nearest multiple of 8 and at least 8."""
    return max(8, int(channels * width / 8 + 0.5) * 8)


def residual_stage(
    block: type[IbnBasicBlock] | type[IbnBottleneck],
    channels: int,
    planes: int,
    count: int,
    stride: int,
    stage: int,
    ibn: Ibn | None,
) -> nn.Sequential:
    """`count` blocks, the first with the stride; `stage` from 0 says where IBN stands."""
    out = planes * block.expansion
    blocks: list[nn.Module] = []
    for index in range(count):
        shortcut = None
        if index == 0 and (stride != 1 or channels != out):
            shortcut = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)
            )
        here: Ibn | None = None
        if ibn == "a" and stage < 3:
            here = "a"
        elif ibn == "b" and stage < 2 and index == count - 1:
            here = "b"
        inside = channels if index == 0 else out
        blocks.append(block(inside, planes, stride if index == 0 else 1, shortcut, here))
    return nn.Sequential(*blocks)


def initialise(backbone: nn.Module, zero_init: bool = False) -> None:
    """He initialisation for convolutions; residual branches start at zero where asked."""
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if zero_init and isinstance(module, IbnBottleneck):
            nn.init.zeros_(module.bn3.weight)
        elif zero_init and isinstance(module, IbnBasicBlock):
            nn.init.zeros_(module.bn2.weight)
