"""The training loop, to be read from top to bottom."""

import time
from collections.abc import Callable, Iterator
from typing import Protocol

from torch import Tensor

from reidkit.distributed import any_rank
from reidkit.engine.schedules import Schedule
from reidkit.engine.state import TrainState
from reidkit.types import Batch

Step = Callable[[TrainState, Batch], dict[str, Tensor]]


class EpochLoader(Protocol):
    """What the loop asks of a loader; `set_epoch` and `skip` decide what the next iteration
    gives."""

    def __iter__(self) -> Iterator[Batch]: ...
    def __len__(self) -> int: ...
    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws."""

    def skip(self, batches: int) -> None:
        """Leave out the first batches of the next iteration: a resumed epoch goes on where it
        stopped."""


class Interrupted(Exception):
    """Somebody asked the training to stop; the step in hand was finished."""


class StepReport:
    """What one step tells the logs: terms, rate, images, and seconds for data and for the step."""

    def __init__(
        self, terms: dict[str, Tensor], rate: float, images: int, data: float, step: float
    ) -> None:
        self.terms = terms
        self.rate = rate
        self.images = images
        self.data_seconds = data
        self.step_seconds = step


def supervised_step(state: TrainState, batch: Batch) -> dict[str, Tensor]:
    """Forward, and one descent of the whole loss."""
    terms = state.forward(batch)
    # On an accelerator a look at every value would stop the queue; there the loop looks before each
    # save.
    if state.device.type == "cpu":
        state.require_finite(terms)
    state.descend(terms["loss"])
    return terms


def fit(
    state: TrainState,
    loader: EpochLoader,
    *,
    epochs: int,
    until: int | None = None,
    schedule: Schedule,
    step: Step = supervised_step,
    after_step: Callable[[TrainState, StepReport], None] = lambda state, report: None,
    after_epoch: Callable[[TrainState], None] = lambda state: None,
) -> None:
    """Train until `state.epoch` reaches `epochs`, from wherever the state stands.

    `until` ends earlier in a training of `epochs`, for what is done between its rounds.
    Raises Interrupted, after a whole step, when `state.stop` is set; FloatingPointError when a loss
    is not finite. Of several processes all do the same at the same step: `state.stop` and
    `state.save` are true on all of them after a step in which one has set them.
    """
    if len(loader) == 0:
        raise ValueError("the loader gives no batch: an epoch needs at least one")
    if state.batches != len(loader) or state.batch % state.accumulate:
        state.batch = 0  # a resumed epoch of other batches than these: from its start
    state.epochs, state.batches = epochs, len(loader)
    state.task.train()
    while state.epoch < min(epochs, until or epochs):
        loader.set_epoch(state.epoch)
        loader.skip(state.batch)
        clock = time.perf_counter()
        terms: dict[str, Tensor] = {}
        for batch in loader:
            arrived = time.perf_counter()
            state.consistent = False
            state.set_rates(schedule(state.progress))
            terms = step(state, batch)
            state.advance()
            state.consistent = True
            now = time.perf_counter()
            images = int(batch.frames.shape[0] * batch.frames.shape[1])
            after_step(state, StepReport(terms, state.rate, images, arrived - clock, now - arrived))
            # A signal may come at any moment: what counts is what all ranks have agreed on.
            stop, state.save = any_rank([state.stop, state.save])
            if stop:
                state.stop = True
            if stop and state.batch % state.accumulate == 0:
                state.require_finite(terms)
                raise Interrupted
            clock = time.perf_counter()
        state.require_finite(terms)
        state.epoch, state.batch = state.epoch + 1, 0
        after_epoch(state)
        state.task.train()
        if any_rank([state.stop])[0]:
            state.stop = True
            if state.epoch < epochs:
                raise Interrupted
