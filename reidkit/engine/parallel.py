"""One task on several processes, each with its rows of the batch."""

import contextlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reidkit.engine.task import Task
from reidkit.types import Batch


class Parallel:
    """torch's DistributedDataParallel around a task: gradients become their mean over processes.

    DDP waits for a gradient of every parameter. One that the loss does not read (the classifier of
    a model that only a metric loss trains) gets a zero to satisfy it, and None once the backward
    pass is over, as a single process has it: an optimiser must not move it.

    Args:
        device: this process's; its index may be left out where it is the current one.
    """

    def __init__(self, task: Task, device: torch.device) -> None:
        # The first rank's batch-norm statistics are the ones that count: they are handed out before
        # an evaluation, not before every forward pass.
        self.module = DistributedDataParallel(
            task,
            device_ids=[device] if device.type == "cuda" else None,
            forward_sync_buffers=False,
            gradient_as_bucket_view=True,
        )
        self.parameters = [p for p in task.parameters() if p.requires_grad]
        self._read: set[int] = set()

    def __call__(self, batch: Batch, phase: str, *, last: bool) -> dict[str, Tensor]:
        """The task's terms or outputs; their gradients are averaged only where this is the `last`
        pass before the optimiser's step."""
        with contextlib.nullcontext() if last else self.module.no_sync():
            found: dict[str, Tensor] = self.module(batch, phase)
        return found

    def complete(self, value: Tensor, *, last: bool, read: Iterable[Tensor] = ()) -> Tensor:
        """`value` (), which in the `last` pass depends on every parameter, with a gradient of 0 on
        those that neither it nor `read` depends on.

        Those that an earlier pass has read (the centres of a loss over micro-batches) are among
        them: what they have gathered is averaged when their zero arrives.
        """
        here = leaves([value, *read])
        self._read |= here
        if not last:
            return value
        # The sum of no elements is 0 even where a parameter is not finite.
        return value + sum(p.reshape(-1)[:0].sum() for p in self.parameters if id(p) not in here)

    def close(self) -> None:
        """After the last backward pass: no gradient where nothing depended on a parameter."""
        for parameter in self._unread():
            parameter.grad = None
        self._read = set()

    def _unread(self) -> list[nn.Parameter]:
        return [p for p in self.parameters if id(p) not in self._read]


def leaves(values: Iterable[Tensor]) -> set[int]:
    """The ids of the leaf tensors that would get a gradient in a backward pass from `values`."""
    waiting = [value.grad_fn for value in values if value.grad_fn is not None]
    seen, found = set(waiting), set()
    while waiting:
        node = waiting.pop()
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor):
            found.add(id(variable))
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return found
