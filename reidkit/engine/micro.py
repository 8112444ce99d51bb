"""The gradient of a loss over a batch that does not fit into memory at once."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from reidkit.engine.draws import random_state, set_random_state
from reidkit.engine.task import Task
from reidkit.types import Batch, ModelOutput


class MicroBatches:
    """A batch whose outputs are computed piece by piece, and whose loss sees all of them.

    Gao, Zhang, Han, Callan: Scaling Deep Contrastive Learning Batch Size under Memory Limited
    Setup, RepL4NLP 2021, arXiv:2101.06983, section 3.2. First the outputs, without a graph; then
    the loss on all of them, once, whose backward pass leaves a gradient by each output; then each
    piece once more, with a graph that these gradients drive. Dropout draws the same both times.

    The gradient is that of the whole batch where samples do not know each other in the model.
    Batch norms that use their batch's statistics make each piece normalise itself;
    `live_batch_norm` tells whether there are any.

    Args:
        size: largest number of samples in a piece.
        context: in which the model and the objective run (autocast). One for each pass: within one
            context autocast would hand the second pass the weights that it cast without a graph.
    """

    def __init__(
        self,
        task: Task,
        batch: Batch,
        size: int,
        context: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.context = context
        # Pieces of equal size, so that none is a single sample, which a batch norm refuses.
        count = -(-len(batch.label) // size)
        self.pieces = [
            Batch(*parts) for parts in zip(*(x.tensor_split(count) for x in batch), strict=True)
        ]
        self.draws: list[tuple[Tensor, Tensor | None]] = []
        outputs: list[ModelOutput] = []
        with _buffers_kept(task.model):
            for piece in self.pieces:
                self.draws.append(random_state(batch.frames.device))
                with torch.no_grad(), context():
                    outputs.append(task.model(piece.frames, piece.mask))
        joined: Any = [_joined(parts) for parts in zip(*outputs, strict=True)]
        self.output = ModelOutput(*joined)
        with context():
            self.terms: dict[str, Tensor] = task.objective(self.output, batch.label)

    def replay(self) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
        """After the loss's backward pass: each piece, and the gradients of its outputs by name.

        What the caller draws for a piece, before he asks for the next one, is what was drawn for it
        the first time.
        """
        gradients = {
            name: output.grad.tensor_split(len(self.pieces))
            for name, output in self.output._asdict().items()
            if output is not None and output.grad is not None
        }
        device = self.output.embedding.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            for number, piece in enumerate(self.pieces):
                set_random_state(device, *self.draws[number])
                yield piece, {name: parts[number] for name, parts in gradients.items()}


def _joined(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    """One leaf of all pieces' rows, None where the model does not give this output."""
    rows = [part for part in parts if part is not None]
    return torch.cat(rows).requires_grad_() if rows else None


@contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    """Put the buffers back, so that the second pass alone moves batch-norm statistics."""
    before = [buffer.clone() for buffer in module.buffers()]
    yield
    for buffer, value in zip(module.buffers(), before, strict=True):
        buffer.copy_(value)


def live_batch_norm(model: nn.Module) -> bool:
    """Whether in training a batch norm uses the statistics of its batch; the modes are put back.

    One that is to be frozen has to say so in its `train`, as `fit` calls the model's.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train()
        return any(
            isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
            for module, _ in modes
        )
    finally:
        for module, training in modes:
            module.training = training
