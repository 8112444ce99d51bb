"""Batches on the device: the one place where pixels are normalised."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from reidkit.data.transforms import Normalise
from reidkit.types import Batch, Preprocessing


class HostBatches(Protocol):
    """What `DeviceLoader` reads from: torch's DataLoader, `ThreadedBatches`, or a list."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


class Streams:
    """What `DeviceLoader` asks of CUDA; in one place, so that tests can put something else here."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def side(self) -> Any:
        """A new stream."""
        return torch.cuda.Stream(self.device)

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        """What is queued within goes to this stream."""
        return torch.cuda.stream(stream)

    def current(self) -> Any:
        """The stream of whoever asks."""
        return torch.cuda.current_stream(self.device)

    def copy(self, tensor: Tensor) -> Tensor:
        """The tensor on the device, with its strides; queued only, where it is pinned."""
        return tensor.to(self.device, non_blocking=True)

    def keep(self, tensor: Tensor, stream: Any) -> None:
        """Do not reuse the tensor's memory before `stream` has done what is queued by then."""
        tensor.record_stream(stream)


class DeviceLoader:
    """Batches on the device, frames normalised.

    On CUDA the next batch is copied and normalised on a side stream while the consumer computes,
    which holds one or two more batches in the device's memory; elsewhere batches pass straight
    through. A batch may be any nesting of dicts, lists and tuples: their tensors move, and frames
    of a `Batch` are normalised.

    `seconds_waiting` adds up how long the consumer waited for batches: for reading, and for what
    the host does to move and normalise them.

    Args:
        loader: gives batches with uint8 frames in pinned memory (copies from other memory are
            right, but hold the host up), or an exception, which is raised here.
        device: where the batches go.
        preprocessing: mean and std of the model that takes them.
        streams: stands in for CUDA in tests.
    """

    def __init__(
        self,
        loader: HostBatches,
        device: torch.device | str,
        preprocessing: Preprocessing,
        *,
        streams: Streams | None = None,
    ) -> None:
        self.loader = loader
        self.device = torch.device(device)
        self.preprocessing = preprocessing
        self.seconds_waiting = 0.0
        self._normalise = Normalise(preprocessing.mean, preprocessing.std)
        if streams is None and self.device.type == "cuda":
            streams = Streams(self.device)
        self._streams = streams
        # One for the loader's life: a new stream each epoch would strand the blocks cached for the
        # old one.
        self._side = None if streams is None else streams.side()

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        """Tell sampler and dataset which epoch comes; before iterating."""
        loader: Any = self.loader
        sampler: Any = getattr(loader, "batch_sampler", None)
        dataset: Any = getattr(loader, "dataset", None)
        inner = (getattr(sampler, "sampler", None), getattr(dataset, "dataset", None))
        parts: tuple[Any, ...] = (loader, sampler, dataset, *inner)
        for part in parts:
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)

    def skip(self, batches: int) -> None:
        """Start the next iteration from this batch of its epoch, as the whole epoch would go on."""
        sampler: Any = getattr(self.loader, "batch_sampler", None)
        if hasattr(sampler, "skip"):
            sampler.skip(batches)
        elif batches:
            raise ValueError(
                f"cannot skip {batches} batches: only a loader for training can, whose batch "
                "sampler has a method `skip`"
            )

    def __iter__(self) -> Iterator[Any]:
        batches = self._in_turn() if self._streams is None else self._one_ahead(self._streams)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.seconds_waiting += time.perf_counter() - asked
            yield batch
            del batch  # else a batch that the consumer has let go would stay while the next comes

    def _in_turn(self) -> Iterator[Any]:
        for batch in raise_errors(self.loader):
            yield self._finish(map_tensors(lambda part: part.to(self.device), batch))

    def _one_ahead(self, streams: Streams) -> Iterator[Any]:
        """Each batch once the one after it is queued on the side stream."""
        batches = raise_errors(self.loader)
        waiting: tuple[Any, Any] | None = None
        error: Exception | None = None
        try:
            while True:
                coming = None
                try:
                    coming = self._queue(streams, next(batches))
                except StopIteration:
                    pass
                except Exception as raised:  # in its turn: the batch before it is still to come
                    error = raised
                if waiting is not None:
                    yield self._hand_over(streams, *waiting)
                if coming is None:
                    break
                waiting = coming
            if error is not None:
                raise error
        finally:
            error = None  # error, traceback, this frame: a cycle

    def _queue(self, streams: Streams, host: Any) -> tuple[Any, Any]:
        """The batch on the device once the event is over; nothing waits for it here."""
        with streams.on(self._side):
            # The pinned memory may be let go at once: its allocator waits for the copy.
            batch = self._finish(map_tensors(streams.copy, host))
            return batch, streams.current().record_event()

    def _hand_over(self, streams: Streams, batch: Any, ready: Any) -> Any:
        # Asked anew for each batch: the consumer may change its stream.
        consumer = streams.current()
        # Without this the consumer could read a batch that is still being copied or normalised. An
        # event and not wait_stream, which would wait for the batch after this one too: that is
        # already queued.
        consumer.wait_event(ready)

        def keep(part: Tensor) -> Tensor:
            # Memory belongs to the side stream, where the tensor was made: without this the
            # allocator hands a freed block to the next copy while the consumer's kernels still
            # read it.
            streams.keep(part, consumer)
            return part

        return map_tensors(keep, batch)

    def _finish(self, batch: Any) -> Any:
        if isinstance(batch, Batch):
            return batch._replace(frames=self._normalise(batch.frames))
        return batch


def map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """`value` with `change` applied to its tensors, within dicts, lists and tuples too; their types
    stay, and so does everything else."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        changed = value.copy()
        changed.update({name: map_tensors(change, part) for name, part in value.items()})
        return changed
    if isinstance(value, list | tuple):
        parts = [map_tensors(change, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def raise_errors(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches, until one of them is an error: that is raised."""
    for batch in batches:
        if isinstance(batch, Exception):
            try:
                raise batch
            finally:
                # Error, traceback, this frame: a cycle in which the garbage collector would close
                # the queues of the workers before it stops them, and then wait five seconds.
                del batch
        yield batch
        del batch  # else a batch that the consumer has let go would stay while the next comes
