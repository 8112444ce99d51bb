"""Ctrl-C and SIGTERM as a request, not as a blow."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from reidkit.engine.loop import Interrupted
from reidkit.engine.state import TrainState


@contextmanager
def stop_on_signal(state: TrainState) -> Iterator[None]:
    """Set `state.stop` on the first SIGINT or SIGTERM; a SIGINT after it interrupts at once. Main
    thread only.

    torchrun passes its own signals on to every process; `fit` lets all stop after the same step.
    """
    asked = False  # here, which `state.stop` does not tell: another rank may have been asked

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        state.stop = asked = True

    with _handling(ask):
        yield


@contextmanager
def interrupted_by_signal() -> Iterator[None]:
    """Raise Interrupted at once on SIGINT or SIGTERM, where nothing has to be finished first. Main
    thread only."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Interrupted(f"stopped by {signal.Signals(number).name}")

    with _handling(end):
        yield


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
