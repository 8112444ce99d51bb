"""Identity classification with smoothed labels."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.losses.pairs import check_shapes, full_precision, widen
from reidkit.losses.registries import LOSSES


@LOSSES.register("cross_entropy")
class CrossEntropyLoss(nn.Module):
    """Cross-entropy against `(1 - smoothing) * one-hot + smoothing / K`.

    Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016, section 7.

    Args:
        smoothing: share of the target spread evenly over all classes, [0, 1).
    """

    reads: ClassVar[tuple[str, ...]] = ("logits",)
    per_sample: ClassVar[bool] = True

    def __init__(self, smoothing: float = 0.1) -> None:
        super().__init__()
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be in [0, 1), got {smoothing}")
        self.smoothing = smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over the batch. logits (B, K), labels (B,) in [0, K) -> ()."""
        check_shapes("logits", logits, "labels", labels)
        with full_precision(logits):
            return F.cross_entropy(widen(logits), labels, label_smoothing=self.smoothing)

    def extra_repr(self) -> str:
        """The settings, for printing."""
        return f"smoothing={self.smoothing}"
