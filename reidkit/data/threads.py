"""Batches prepared ahead by threads: no processes to start, nothing to copy between them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import cv2
import torch

from reidkit.data.device import map_tensors


class BatchReader(Protocol):
    """A dataset that gives whole batches, from several threads at once."""

    def batch(self, indices: Sequence[int]) -> Any:
        """The batch of the samples at these positions."""


class ThreadedBatches:
    """Batches in the sampler's order, prepared ahead by threads; each iteration has its own ones.

    Decoding and resizing release Python's lock, so threads read in parallel; what is left to Python
    they share with the consumer. An error of a batch arrives in its turn, as it was raised. Leaving
    an iteration early stops its threads after the batches that they are at.

    Args:
        dataset: reads a batch; what it draws must not depend on the thread or on the order.
        batch_sampler: which positions form a batch.
        workers: threads, at least 1.
        ahead: batches a worker that are ready or being read while the consumer computes; they are
            held in memory.
        pin_for: a CUDA device to pin the batches for, None to leave them in ordinary memory.
    """

    def __init__(
        self,
        dataset: BatchReader,
        batch_sampler: Iterable[Sequence[int]],
        workers: int,
        ahead: int = 2,
        *,
        pin_for: torch.device | None = None,
    ) -> None:
        for name, value in (("workers", workers), ("ahead", ahead)):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        self.dataset = dataset
        self.batch_sampler = batch_sampler
        self.workers = workers
        self.ahead = ahead
        self.pin_for = pin_for

    def __len__(self) -> int:
        return len(self.batch_sampler)  # type: ignore[arg-type]  # every sampler here has one

    def __iter__(self) -> Iterator[Any]:
        # A thread that has never asked takes over the 1 that `prepare_thread` sets for a worker.
        torch.get_num_threads()
        pool = ThreadPoolExecutor(
            self.workers, "reidkit-batches", prepare_thread, initargs=(self.pin_for,)
        )
        try:
            yield from in_order(pool, self._read, self.batch_sampler, self.workers * self.ahead)
        finally:
            # Without waiting: the garbage collector may close this iteration in one of its own
            # threads, which cannot wait for itself.
            pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, indices: Sequence[int]) -> Any:
        batch = self.dataset.batch(indices)
        return batch if self.pin_for is None else map_tensors(torch.Tensor.pin_memory, batch)


def in_order(
    pool: ThreadPoolExecutor,
    read: Callable[[Sequence[int]], Any],
    batches: Iterable[Sequence[int]],
    ahead: int,
) -> Iterator[Any]:
    """What `read` gives for each of `batches`, in their order; while the consumer computes, at most
    `ahead` of them are ready or being read."""
    pending: deque[Future[Any]] = deque()
    # There is no queue that could be full: the consumer itself asks for as many as fit.
    for indices in batches:
        pending.append(pool.submit(read, indices))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def prepare_thread(device: torch.device | None) -> None:
    """One thread for OpenCV and torch in each worker, as workers share the cores already.

    OpenCV's number counts for the whole process and stays. Pinning needs the device of this
    process: a new thread's is the first one, where it would open a second context.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    if device is not None:
        torch.cuda.set_device(device)
