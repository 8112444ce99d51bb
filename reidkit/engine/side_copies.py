"""Copies off a CUDA device beside the training, on a stream of their own."""

from collections.abc import Sequence

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]  # from, on the device; to, in pinned memory


class SideCopies:
    """Copies from one device into pinned memory without making the host wait.

    The caller keeps sources and targets alive until `synchronize` has returned: nobody tells the
    allocator that this stream reads them.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)  # one for life: each keeps memory of its own
        self._settled: torch.cuda.Event | None = None
        self._last: torch.cuda.Event | None = None

    def start(self, now: Sequence[Pair], later: Sequence[Pair]) -> None:
        """Enqueue the copies; work enqueued after this call may change `now`, but not `later`."""
        # The values to copy are those that the training's stream is still computing.
        training = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(training)
        with torch.cuda.stream(self.stream):
            for source, target in now:
                target.copy_(source, non_blocking=True)
            if now:
                # The next forward pass changes these (batch-norm statistics), and must come after.
                training.wait_event(self.stream.record_event())
            for source, target in later:
                target.copy_(source, non_blocking=True)
            self._settled = self._last = self.stream.record_event()

    def release(self) -> None:
        """Let work enqueued from here on change `later`: the current stream waits, not the host."""
        if self._settled is not None:
            torch.cuda.current_stream(self.device).wait_event(self._settled)
            self._settled = None

    def synchronize(self) -> None:
        """Make this thread wait until the copies are there; the GIL is free meanwhile."""
        if self._last is not None:
            self._last.synchronize()
