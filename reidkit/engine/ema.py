"""The running average of the weights, which evaluates better than the weights themselves."""

import itertools
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, update_bn

from reidkit.distributed import share_buffers
from reidkit.types import Batch


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


def update_batch_norm(model: nn.Module, batches: Iterable[Batch]) -> None:
    """Take the batch-norm statistics anew: the mean over `batches` of each batch's own.

    For averaged weights, whose copied statistics are those of other weights. Norms without running
    statistics, and those of a module that keeps itself in evaluation, are left alone; modes are put
    back. Of several processes, each with its part of the batches, the first one's result counts.
    Raises ValueError where there is no batch.
    """
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        raise ValueError("no batch to take batch-norm statistics from: expected at least one")
    modes = {module: module.training for module in model.modules()}
    model.train()
    moving = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
    momenta = {norm: norm.momentum for norm in moving}
    try:
        adapter = _OfBatches(moving, lambda frames, mask: model(frames, mask))
        # torch's update calls a model with the first of a tuple, and a batch is a tuple.
        update_bn(((batch,) for batch in itertools.chain([first], batches)), adapter)
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training
    share_buffers(model)


class _OfBatches(nn.Module):
    """Calls a model with a batch; what it holds are the norms whose statistics are reset."""

    def __init__(
        self, norms: Iterable[nn.Module], call: Callable[[Tensor, Tensor], object]
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norms)
        self.call = call

    def forward(self, batch: Batch) -> None:
        """Only the statistics that the model takes on the way are wanted."""
        self.call(batch.frames, batch.mask)
