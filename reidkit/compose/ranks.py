"""Work that the first of several processes does for all of them."""

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from reidkit import distributed
from reidkit.compose.building import choose_device
from reidkit.files import write_atomically

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
    distributed.fail_together(failure)
    return distributed.from_main(found)  # type: ignore[return-value]


def main_first(work: Callable[[], Value]) -> Value:
    """What `work` returns on each rank, once the first rank has done it: it may write files that
    the others then find."""
    found: list[Value] = []

    def first() -> None:
        found.append(work())

    main_alone(first)
    return found[0] if found else work()


LAUNCH = ".launch"


def mark_launch(out: Path) -> None:
    """Write into a new run folder which launch of torchrun began it, if one did."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        write_atomically(out / LAUNCH, _this_launch().encode())


def is_of_this_launch(out: Path) -> bool:
    """Whether the run in this folder was begun by this launch: a restarted worker goes on with it,
    and with no other."""
    mark = out / LAUNCH
    return mark.is_file() and mark.read_text() == _this_launch()


def _this_launch() -> str:
    # torchrun's agent starts the workers, the restarted ones too, and its id may be "none".
    return f"{os.environ.get('TORCHELASTIC_RUN_ID')} {platform.node()} {os.getppid()}"
