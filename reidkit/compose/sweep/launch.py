"""Trainings as processes of their own, some at the same time; a crash of one is its own."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Protocol

from reidkit.compose.inspection import usable_cores
from reidkit.compose.sweep.runs import Run
from reidkit.config import ConfigError
from reidkit.files import write_atomically


class Outcome(NamedTuple):
    """How a training ended: `failure` is why it failed, None where it did not; `stopped` where it
    was asked to."""

    failure: str | None = None
    stopped: bool = False


class Trainer(Protocol):
    """Carries out one training after another, from several threads at once."""

    stopped: bool

    def train(self, run: Run) -> Outcome:
        """Train, or go on with it, until it ends."""

    def stop(self) -> None:
        """Ask all trainings to save and end, and begin no other."""


class Processes:
    """Each training is a `reidkit train`, whose lines go to its console.txt.

    Args:
        jobs: how many work at the same time, among whom the cores are divided.
        lock: a file that the processes hold open as long as they live, see `alone_in`.
    """

    def __init__(self, *, jobs: int = 1, lock: int | None = None) -> None:
        self.stopped = False
        self._lock = () if lock is None else (lock,)
        self._alive: set[subprocess.Popen[bytes]] = set()
        self._environment = dict(os.environ)
        if jobs > 1:
            threads = max(usable_cores() // jobs, 1)
            self._environment.setdefault("OMP_NUM_THREADS", str(threads))

    def train(self, run: Run) -> Outcome:
        """Train in a new process, resuming where the folder holds a run of this config."""
        if self.stopped:
            return Outcome(stopped=True)
        words = [sys.executable, "-m", "reidkit.cli", "train", str(run.plan)]
        words += ["--out", str(run.folder), *(["--resume"] if run.state == "begun" else [])]
        write_atomically(run.plan, run.config.to_yaml().encode())
        run.folder.mkdir(parents=True, exist_ok=True)
        with run.console.open("ab") as console:
            start = console.tell()
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env=self._environment,
                pass_fds=self._lock,
                # A terminal's Ctrl-C reaches the sweep alone: of two signals a training would take
                # the second for impatience, and not save.
                start_new_session=True,
            )
        self._alive.add(process)
        if self.stopped:  # meanwhile
            process.send_signal(signal.SIGINT)
        code = process.wait()
        self._alive.discard(process)
        if code == 0:
            return Outcome()
        return Outcome(_reason(run.console, start, code), stopped=self.stopped)

    def stop(self) -> None:
        """SIGINT to all: each finishes its step and saves. Asked again, they end without."""
        self.stopped = True
        for process in list(self._alive):
            process.send_signal(signal.SIGINT)


def _reason(console: Path, start: int, code: int) -> str:
    """The line in which a training that ended with `code` said why, where it did."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        memory = "; was the memory enough?" if name == "SIGKILL" else ""
        return f"killed by {name}{memory}"
    lines = console.read_bytes()[start:].decode(errors="replace").splitlines()
    told = [line.removeprefix("reidkit: ") for line in lines if line.startswith("reidkit: ")]
    return (told or [line for line in lines if line.strip()] or [f"exit code {code}"])[-1].strip()


def carry_out(
    runs: Sequence[Run], trainer: Trainer, jobs: int, after: Callable[[Run, Outcome], None]
) -> None:
    """Train all of them, `jobs` at a time; `after` hears of each in this thread. What it raises
    ends the others."""
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(trainer.train, run): run for run in runs}
        try:
            for done in as_completed(waiting):
                after(waiting[done], done.result())
        except BaseException:
            trainer.stop()
            raise


@contextmanager
def stopping(trainer: Trainer) -> Iterator[None]:
    """Ctrl-C, SIGTERM and the end of a terminal ask the trainer to stop. Main thread only."""

    def ask(number: int, frame: FrameType | None) -> None:
        trainer.stop()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def alone_in(out: Path) -> Iterator[int]:
    """No other sweep works in this folder, nor a training that a killed one left behind.

    Yields the lock's file descriptor: a process that inherits it holds the lock, too.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            fault = (
                "another sweep works here, or a training that a killed sweep left behind: wait "
                "for it, stop it, or give another --out"
            )
            raise ConfigError(str(out), [fault]) from error
        yield file.fileno()
