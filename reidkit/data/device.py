"""Batches on the device: the one place where pixels are normalised."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from reidkit.data.dataset import FrameDataset
from reidkit.data.samplers import EpochSampler
from reidkit.data.transforms import Normalise, RandomErasing
from reidkit.types import Batch, Preprocessing


class DeviceLoader:
    """Batches of a DataLoader on the device, frames normalised and, in training, erased.

    On CUDA the next batch is copied from pinned memory on a side stream while the consumer
    computes; elsewhere batches pass straight through.

    Args:
        loader: gives `Batch` (or an exception, which is raised here) with uint8 frames.
        device: where the batches go.
        preprocessing: mean and std of the model that takes them.
        erasing: random erasing after normalising; None for evaluation.
        seed: of erasing, with the epoch and the number of the batch in it. Ranks need different
            ones.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        device: torch.device | str,
        preprocessing: Preprocessing,
        erasing: RandomErasing | None = None,
        *,
        seed: int = 0,
    ) -> None:
        self.loader = loader
        self.device = torch.device(device)
        self.preprocessing = preprocessing
        self.erasing = erasing
        self.seed = seed
        self.seconds_waiting = 0.0
        self._normalise = Normalise(preprocessing.mean, preprocessing.std)
        self._epoch = 0
        self._skip = 0
        # One for the loader's life: a new stream each epoch would strand the blocks cached for the
        # old one.
        self._side = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        """Tell sampler, dataset and erasing which epoch comes; before iterating."""
        self._epoch = epoch
        dataset = self.loader.dataset
        for part in (self.loader.batch_sampler, getattr(dataset, "dataset", dataset)):
            if isinstance(part, EpochSampler | FrameDataset):
                part.set_epoch(epoch)

    def skip(self, batches: int) -> None:
        """Start the next iteration from this batch of its epoch, as the whole epoch would go on."""
        sampler = self.loader.batch_sampler
        if not isinstance(sampler, EpochSampler):
            raise ValueError("only a loader for training can skip batches")
        sampler.skip(batches)
        self._skip = batches

    def __iter__(self) -> Iterator[Batch]:
        start, self._skip = self._skip, 0
        batches = self._on_side_stream(start) if self._side else self._in_turn(start)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.seconds_waiting += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def _in_turn(self, start: int) -> Iterator[Batch]:
        for iteration, batch in enumerate(raise_errors(self.loader), start):
            yield self._finish(Batch(*(part.to(self.device) for part in batch)), iteration)

    def _on_side_stream(self, start: int) -> Iterator[Batch]:
        waiting: tuple[Batch, torch.cuda.Event] | None = None
        for iteration, host in enumerate(raise_errors(self.loader), start):
            with torch.cuda.stream(self._side):
                # From unpinned memory this copy would block; `host_loader` pins.
                batch = Batch(*(part.to(self.device, non_blocking=True) for part in host))
                batch = self._finish(batch, iteration)
                ready = torch.cuda.current_stream(self.device).record_event()
            if waiting is not None:
                yield self._hand_over(*waiting)
            waiting = batch, ready
        if waiting is not None:
            yield self._hand_over(*waiting)

    def _hand_over(self, batch: Batch, ready: torch.cuda.Event) -> Batch:
        consumer = torch.cuda.current_stream(self.device)
        # Without this the consumer could read a batch that is still being copied or normalised. An
        # event and not wait_stream, which would wait for the batch after this one too: that is
        # already queued.
        consumer.wait_event(ready)
        for part in batch:
            # Else the allocator hands a freed block to the next copy while the consumer's kernels
            # still read it.
            part.record_stream(consumer)
        return batch

    def _finish(self, batch: Batch, iteration: int) -> Batch:
        frames = self._normalise(batch.frames)
        if self.erasing is not None:
            generator = np.random.default_rng((self.seed, self._epoch, iteration))
            frames = self.erasing.erase_(frames, generator)
        return batch._replace(frames=frames)


def raise_errors(batches: Iterable[Batch | Exception]) -> Iterator[Batch]:
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
