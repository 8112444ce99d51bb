"""Work that the first of several processes does for all of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from reidkit import distributed
from reidkit.compose.building import choose_device
from reidkit.distributed import FailedElsewhere

Value = TypeVar("Value")


@contextmanager
def together(device: str = "auto") -> Iterator[torch.device]:
    """Join the processes that torchrun started, if it did; yields this one's device."""
    chosen = choose_device(device)
    with distributed.joined(chosen):
        yield chosen


def main_alone(work: Callable[[], Value]) -> Value:
    """What `work` returns on the first rank, on every rank.

    Where it raises, the first rank raises that and the others FailedElsewhere, so that none waits.
    """
    found: Value | None = None
    failure: Exception | None = None
    if distributed.is_main():
        try:
            found = work()
        except Exception as error:
            failure = error
    found, why = distributed.from_main((found, None if failure is None else str(failure)))
    if failure is not None:
        raise failure
    if why is not None:
        raise FailedElsewhere(why)
    return found  # type: ignore[return-value]


def main_first(work: Callable[[], Value]) -> Value:
    """What `work` returns on each rank, once the first rank has done it: it may write files that
    the others then find."""
    found: list[Value] = []

    def first() -> None:
        found.append(work())

    main_alone(first)
    return found[0] if found else work()
