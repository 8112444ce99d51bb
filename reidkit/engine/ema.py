"""The running average of the weights, which evaluates better than the weights themselves."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class WeightAverage(nn.Module):
    """average <- decay * average + (1 - decay) * weights, after each optimiser step.

    torch's AveragedModel with a warm-up: the n-th update uses min(decay, (1 + n) / (10 + n)), so
    that an average over a short training is not mostly its random start. Batch-norm statistics and
    other buffers are copied, not averaged.

    Args:
        decay: weight of the OLD average, in [0, 1).
        warmup: False gives the plain average; the first update always copies.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999, warmup: bool = True) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(
                f"ema decay = {decay} is the weight of the old average, expected in [0, 1)"
            )
        self.decay = decay
        self.warmup = warmup
        self.average = AveragedModel(model, multi_avg_fn=self._mix, use_buffers=False)

    @torch.no_grad()
    def _mix(
        self, averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int
    ) -> None:
        updates = int(count)
        decay = min(self.decay, (1 + updates) / (10 + updates)) if self.warmup else self.decay
        torch._foreach_lerp_(list(averaged), list(current), 1 - decay)

    def update(self, model: nn.Module) -> None:
        """Take one step towards the model's weights and copy its buffers."""
        self.average.update_parameters(model)

    @property
    def model(self) -> nn.Module:
        """The model with averaged weights."""
        module = self.average.module
        assert isinstance(module, nn.Module)
        return module
