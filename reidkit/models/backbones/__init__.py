"""Backbones: (N, 3, H, W) -> (N, C, h, w), with `out_channels` = C."""

from reidkit.models.backbones.bn_inception import BNInception
from reidkit.models.backbones.osnet import OSNet
from reidkit.models.backbones.resnet import ResNet
from reidkit.models.backbones.timm_backbone import TimmBackbone

__all__ = ["BNInception", "OSNet", "ResNet", "TimmBackbone"]
