"""Ctrl-C and SIGTERM as a request, not as a blow."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from reidkit.engine.state import TrainState


@contextmanager
def stop_on_signal(state: TrainState) -> Iterator[None]:
    """Set `state.stop` on the first SIGINT or SIGTERM; a second SIGINT interrupts at once. Main
    thread only."""

    def ask(number: int, frame: FrameType | None) -> None:
        if state.stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        state.stop = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
