"""The training state on disk: written in the background, whole or not at all, the last few kept."""

import contextlib
import itertools
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from reidkit.distributed import is_main
from reidkit.engine.plain import plain
from reidkit.engine.snapshot import Snapshot
from reidkit.engine.state_file import Damaged, read_state, write_state
from reidkit.files import remove_leftover, replacing

logger = logging.getLogger(__name__)

PRIORITY = 10  # nice value of the thread that writes: the training and its loader come first


class Checkpointer:
    """Saves a training state while the training goes on.

    One save is under way at most. `path` is the newest state; `state.1.pt`, `state.2.pt`, ...
    beside it are those before. Killed at any moment, the folder holds one of the last two whole.

    Args:
        path: where the newest state lies, `state.pt` of a run's folder.
        keep: how many states stay, the newest included.
        minutes: `due` after so many since the last save; 0 for never.
        steps: `due` after so many iterations since the last save; 0 for never.
    """

    def __init__(self, path: Path, *, keep: int = 2, minutes: float = 10.0, steps: int = 0) -> None:
        if keep < 1:
            raise ValueError(f"keep = {keep} states, expected at least 1: the newest")
        if minutes < 0 or steps < 0:
            raise ValueError(
                f"save every {minutes} minutes and {steps} steps: expected numbers from 0, which "
                "is never"
            )
        self.path = path
        self.keep = keep
        self.minutes = minutes
        self.steps = steps
        self._snapshot = Snapshot()
        self._thread: threading.Thread | None = None
        self._failure: OSError | None = None
        self._saved_at = time.monotonic()
        self._asked: int | None = None  # the last iteration that `due` heard of
        self._saved: int | None = None  # the one at the last save
        if is_main():
            remove_leftover(path)

    def due(self, iteration: int) -> bool:
        """Whether it is time to save; ask after every step. False while a save is under way."""
        if self._saved is None:
            self._saved = iteration - 1
        self._asked = iteration
        if self._busy():
            return False
        late = self.minutes > 0 and time.monotonic() - self._saved_at >= 60 * self.minutes
        return late or (self.steps > 0 and iteration - self._saved >= self.steps)

    def reserve(self, tensors: Iterable[Tensor]) -> None:
        """Take the memory for a copy of `tensors` in the background, so that the first save is as
        quick as the others."""
        self._join()
        self._start(partial(self._reserve, list(tensors)), "reserve")

    def save(self, content: Mapping[str, Any], *, settled: Iterable[Tensor] = ()) -> None:
        """Start to write a dict of tensors and plain values; waits for a save under way.

        What is in `settled`, or shares its storage, is copied in the background and must not change
        before `wait_for_copy` has returned; all else is copied at once. TypeError, naming the
        entry, for what is neither tensor nor plain value. OSError when the save *before* failed;
        this one is under way all the same.
        """
        self._join()
        self._snapshot.begin(content, settled)
        failure, self._failure = self._failure, None
        self._saved_at, self._saved = time.monotonic(), self._asked
        self._start(self._write, "write")
        if failure is not None:
            raise failure

    def wait_for_copy(self) -> None:
        """Return when the settled tensors may change: call it before each optimiser step."""
        self._snapshot.wait()

    def wait(self) -> None:
        """Return when the last save is on the disk. OSError when it, or one before it that nobody
        has heard of, failed."""
        self._join()
        failure = self.failure()
        if failure is not None:
            raise failure

    def failure(self) -> OSError | None:
        """Why the last finished save failed, told once; None when it is on the disk."""
        failure, self._failure = self._failure, None
        return failure

    def close(self) -> None:
        """Wait for the save under way and give the memory back; a failure that nobody has heard of
        is logged."""
        self._join()
        self._snapshot = Snapshot()
        if (failure := self.failure()) is not None:
            logger.error("the last state was not saved: %s", failure)

    def _busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _start(self, work: Callable[[], None], name: str) -> None:
        def run() -> None:
            try:
                work()
            except OSError as error:
                self._failure = error
            except Exception as error:
                self._failure = OSError(
                    f"{type(error).__name__} while writing {self.path}: {error}"
                )

        # A thread for each save: the priority that it gives up cannot be taken back. Not a daemon:
        # the interpreter's exit waits for the file.
        self._thread = threading.Thread(target=run, name=f"checkpoint-{name}")
        self._thread.start()

    def _reserve(self, tensors: list[Tensor]) -> None:
        # Without it the first save takes longer, and tells what is wrong.
        with contextlib.suppress(Exception):
            self._snapshot.reserve(tensors)

    def _write(self) -> None:
        content = self._snapshot.finish()
        _step_back()
        _write(self.path, content, self.keep)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a dict of tensors and plain values and wait for it; what was there before is replaced.

    OSError with path and reason, a full disk for example; the old file is kept.
    """
    content = plain(state, Tensor.detach)
    with replacing(path) as file:
        write_state(file, content)


def load_state(path: Path, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """The newest undamaged state of `path` and those kept beside it; runs no code from the files.

    `tell` hears in one line of the damaged ones that were passed over. FileNotFoundError when there
    is none, ValueError when all are damaged.
    """
    states = saved_states(path)
    if not states:
        raise FileNotFoundError(f"no {path}: nothing to resume; leave out --resume to start anew")
    faults: list[str] = []
    for file in states:
        try:
            state = read_state(file)
        except Damaged as damage:
            faults.append(f"{file.name} is damaged ({damage})")
            continue
        if faults:
            tell(f"{'; '.join(faults)}: going on from {file.name}, which was saved before")
        return state
    raise ValueError(
        f"{path.parent}: {'; '.join(faults)}; cannot be resumed from: start anew in another folder"
    )


def saved_states(path: Path) -> list[Path]:
    """What lies at `path` and, older and older, at the names of the states before it."""
    newest = [path] if os.path.lexists(path) else []
    return newest + [older for _, older in sorted(_older(path))]


def _older(path: Path) -> list[tuple[int, Path]]:
    """The kept states before the newest, with their numbers."""
    pattern = re.compile(re.escape(path.stem) + r"\.([1-9]\d*)" + re.escape(path.suffix))
    if not path.parent.is_dir():
        return []
    found = [(pattern.fullmatch(file.name), file) for file in path.parent.iterdir()]
    return [(int(match[1]), file) for match, file in found if match]


def _write(path: Path, content: Mapping[str, Any], keep: int) -> None:
    with replacing(path) as file:
        write_state(file, content)
        # All of it on the disk before any name changes.
        file.flush()
        os.fsync(file.fileno())
        if keep > 1 and path.is_file():
            _keep_newest(path)
    # Last, so that a kill finds a state too many rather than one too few.
    for number, older in _older(path):
        if number >= keep:
            older.unlink()


def _keep_newest(path: Path) -> None:
    """Give the newest state a second name and move those before it up by one."""
    older = dict(_older(path))
    # A kill here has left one file under both names: there is room already.
    if 1 in older and path.samefile(older[1]):
        return
    free = next(number for number in itertools.count(1) if number not in older)
    for number in range(free, 1, -1):
        os.replace(older[number - 1], _numbered(path, number))
    try:
        os.link(path, _numbered(path, 1))
    except OSError:  # no links on this file system: for a moment there is only the state before
        os.replace(path, _numbered(path, 1))


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def _step_back() -> None:
    """Lower the priority of this thread; on Linux threads have their own."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            nice = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, 0, min(nice + PRIORITY, 19))
