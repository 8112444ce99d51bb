"""The processes that run together under torchrun; alone, every function here is the identity."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Value = TypeVar("Value")
PATIENCE = timedelta(hours=2)  # the others wait while the first rank evaluates a large gallery


class FailedElsewhere(RuntimeError):
    """Another process of this launch failed and has said why."""


def launched() -> int:
    """How many processes torchrun started, 1 without it.

    Raises ValueError where the environment's WORLD_SIZE is no such number.
    """
    told = os.environ.get("WORLD_SIZE", "1")
    if not told.isdecimal() or int(told) < 1:
        raise ValueError(
            f"WORLD_SIZE is {told!r}, expected a whole number from 1; torchrun sets it"
        )
    return int(told)


def local_rank() -> int:
    """This process's number on its machine, which is its device; 0 without torchrun."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def launched_here() -> int:
    """How many of the processes that torchrun started run on this machine, 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number among those that joined, 0 alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes have joined, 1 alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and speaks."""
    return rank() == 0


@contextmanager
def joined(device: torch.device | str = "cpu") -> Iterator[None]:
    """Join the processes that torchrun started, and leave at the end; alone, or joined already,
    nothing happens.

    Tensors on the CPU travel by gloo even where the device is CUDA, so that flags and names never
    make a GPU wait. Raises ValueError where the environment tells only half of it, ConnectionError
    where the others cannot be met.
    """
    if launched() == 1 or dist.is_initialized():
        yield
        return
    device = torch.device(device)
    cuda = device.type == "cuda"
    if cuda:  # before the group: NCCL would else bind every rank to device 0
        torch.cuda.set_device(device)
    _join("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def _join(backend: str) -> None:
    absent = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if absent:
        raise ValueError(
            f"WORLD_SIZE is {launched()}, but the environment has no {', '.join(absent)}: "
            "start with torchrun, or unset WORLD_SIZE to run alone"
        )
    try:
        store, number, count = next(dist.rendezvous("env://", timeout=PATIENCE))
        # torchrun keeps its store when it restarts the workers, with the addresses of the dead in
        # it: without a name of its own each attempt would wait for them forever.
        attempt = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        dist.init_process_group(
            backend, store=attempt, rank=number, world_size=count, timeout=PATIENCE
        )
    except (ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ConnectionError(
            f"process {os.environ['RANK']} of {launched()} cannot meet the others at "
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}: {reason}; "
            "if another program has that port, give torchrun another by --master-port"
        ) from error


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.rows = len(tensor)
        return gather(tensor)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        # Every rank computes the same loss from the same rows, so upstream is the same everywhere.
        # DDP takes the mean over ranks of gradients of which each holds only its own rows: times
        # the number of ranks makes it their sum.
        start = rank() * ctx.rows
        return upstream[start : start + ctx.rows] * world_size()


def gather_with_grad(tensor: Tensor) -> Tensor:
    """All ranks' rows in the order of ranks, (B, ...) -> (world * B, ...); B is equal on all ranks.

    For a loss that every rank computes on all rows: the gradients, once DDP has averaged them over
    the ranks, are those of one process with the whole batch.
    """
    if world_size() == 1:
        return tensor
    gathered: Tensor = _Gather.apply(tensor)
    return gathered


def gather(tensor: Tensor) -> Tensor:
    """All ranks' rows in the order of ranks, without a gradient; shapes are equal on all ranks."""
    if world_size() == 1:
        return tensor
    tensor = tensor.detach().contiguous()
    pieces = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(pieces, tensor)
    return torch.cat(pieces)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return total(tensor)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        # A sum that all ranks use: each rank's loss depends on it, so their gradients add up.
        return total(upstream)


def total_with_grad(tensor: Tensor) -> Tensor:
    """The sum over ranks, and in backward the sum over ranks of the gradients."""
    if world_size() == 1:
        return tensor
    summed: Tensor = _Total.apply(tensor)
    return summed


def total(tensor: Tensor) -> Tensor:
    """The sum over ranks as a new tensor."""
    if world_size() == 1:
        return tensor
    summed = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(summed)
    return summed


def any_rank(flags: Sequence[bool]) -> list[bool]:
    """Each flag, true where it is on any rank: one small message on the CPU."""
    if world_size() == 1:
        return list(flags)
    raised = torch.tensor(list(flags), dtype=torch.uint8)
    dist.all_reduce(raised, dist.ReduceOp.MAX)
    return [bool(flag) for flag in raised]


def from_main(value: Value) -> Value:
    """The first rank's value on all ranks; a plain object, by pickle among our own processes."""
    if world_size() == 1:
        return value
    box = [value if is_main() else None]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    received: Any = box[0]
    return received


def to_main(value: Value) -> list[Value] | None:
    """Every rank's value in the order of ranks on the first rank, None elsewhere."""
    if world_size() == 1:
        return [value]
    box: list[Any] | None = [None] * world_size() if is_main() else None
    dist.gather_object(value, box, dst=0)
    return box


def fail_together(error: Exception | None) -> None:
    """Where any rank brings an error, raise on all of them: its own there, elsewhere
    FailedElsewhere with the words of the first that has one.

    So no rank goes on to a message that the failed one will never answer.
    """
    if any_rank([error is not None])[0]:
        own = None if error is None else str(error) or type(error).__name__
        told = from_main(to_main(own))
        if error is None:
            assert told is not None
            number, words = next((n, text) for n, text in enumerate(told) if text is not None)
            raise FailedElsewhere(f"process {number}: {words}")
    if error is not None:
        raise error


def share_buffers(module: nn.Module) -> None:
    """Give all ranks the first rank's buffers, batch-norm statistics among them; in place."""
    if world_size() == 1:
        return
    for buffer in module.buffers():
        message = buffer.contiguous()  # itself, but for the rare one that is not
        dist.broadcast(message, src=0)
        if message is not buffer:
            buffer.copy_(message)
