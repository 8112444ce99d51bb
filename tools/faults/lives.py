"""Trainings as processes: started, watched, killed, started again."""

import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from faults.folders import digest, unreadable

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "smoke" / "faults.yaml"
PATIENCE = 180.0  # seconds that nothing here should take
DISK = 16  # MB of the disk that gets full


class Fault(Exception):
    """The training did not do what it should have done."""


@dataclass(frozen=True)
class World:
    """The training that is disturbed, and where its data and its runs lie."""

    folder: Path
    config: Path = CONFIG
    overrides: tuple[str, ...] = ()

    def words(self, out: Path) -> list[str]:
        """The arguments of `reidkit train`."""
        return [str(self.config), *self.overrides, "--out", str(out)]

    def environment(self) -> dict[str, str]:
        """One thread a process, and the data of this world."""
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        places = {"REIDKIT_DATA": str(self.folder / "data"), "PYTHONPATH": str(ROOT)}
        return {**os.environ, **threads, **places}


class Life:
    """A training under way, from its start to its end or its death."""

    def __init__(self, world: World, command: Sequence[str], out: Path, console: Path) -> None:
        self.out, self.console = out, console
        self.since = time.time()
        self.until = time.monotonic() + PATIENCE
        with console.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=world.environment(),
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """All that it printed so far, and its errors."""
        return self.console.read_text(errors="replace")

    def running(self) -> bool:
        """Whether its process lives."""
        return self.process.poll() is None

    def wait_until(self, true: Callable[[], bool], seconds: float | None = None) -> bool:
        """Whether it came true, or `seconds` passed, before the training ended."""
        late = time.monotonic() + (PATIENCE if seconds is None else seconds)
        while self.running():
            if true():
                return True
            if time.monotonic() > late:
                if seconds is not None:
                    return True
                raise Fault(f"waited in vain for {PATIENCE:.0f} s; it said: {self.last_words()}")
            time.sleep(0.002)
        return False

    def live_for(self, seconds: float) -> bool:
        """Whether it lives after so many seconds."""
        return self.wait_until(lambda: False, seconds)

    def steps(self) -> int:
        """The last step that this life has logged, 0 before its first."""
        with contextlib.suppress(FileNotFoundError):
            for line in reversed((self.out / "log.jsonl").read_text().splitlines()):
                with contextlib.suppress(ValueError):  # half a line, while it is written
                    record = json.loads(line)
                    if record["time"] < self.since:
                        break
                    if record["kind"] == "train":
                        return int(record["iteration"])
        return 0

    def end(self) -> int:
        """Its exit code, in its own time."""
        self.wait_until(lambda: False)
        return self.process.wait()

    def kill(self) -> bool:
        """SIGKILL; False when it had ended before."""
        if self.running():
            os.kill(self.process.pid, signal.SIGKILL)
        return self.process.wait() == -signal.SIGKILL

    def workers(self) -> list[int]:
        """The processes that torchrun started."""
        table = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
        )
        rows = [line.split() for line in table.stdout.splitlines()]
        mine = str(self.process.pid)
        return [int(pid) for pid, parent, kind in rows if parent == mine and kind[0] != "Z"]

    def last_words(self) -> str:
        """Its last lines, in one."""
        return " | ".join(self.said.strip().splitlines()[-3:])

    def close(self) -> None:
        """Leave no process behind."""
        if self.running():
            orphans = self.workers()
            self.process.kill()
            self.process.wait()
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class Disk:
    """A small disk of its own, held by a sleeping process; where that is not permitted, a folder
    and a limit on the size of files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        mount = f'mount -t tmpfs -o size={DISK}m none "$1" && echo ready && exec sleep 3600'
        command = ["unshare", "-rm", "sh", "-c", mount, "sh", str(folder)]
        self.holder = subprocess.Popen(
            command if shutil.which("unshare") else ["false"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self.holder.stdout is not None
        self.real = self.holder.stdout.readline() == b"ready\n"
        self.folder = Path(f"/proc/{self.holder.pid}/root{folder}") if self.real else folder
        self.says = "No space left" if self.real else "File too large"

    def fill(self, life: Life, leave: int) -> None:
        """Leave room for so many bytes; once more, where room has come free since."""
        if not self.real:
            limit = (max(leave, 1 << 17),) * 2
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(life.process.pid, resource.RLIMIT_FSIZE, limit)
            return
        ballast = self.folder / "ballast"
        with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)) == 4096:
                pass
        os.truncate(ballast, max(0, ballast.stat().st_size - leave))

    def free(self) -> None:
        """Give the room back."""
        (self.folder / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        """The disk and all on it are gone."""
        self.holder.kill()
        self.holder.wait()
        if self.holder.stdout is not None:
            self.holder.stdout.close()


@dataclass
class Run:
    """One run folder and the lives it takes to fill it."""

    world: World
    out: Path
    consoles: Path
    steps: int  # of the whole training
    start_up: float  # seconds from a start to the first step
    random: random.Random
    processes: int = 1
    disk: Disk | None = None
    faults_left: int = 0
    life: Life | None = None
    lives: int = 0
    answer: list[str] | None = None  # the arguments that SIGTERM was answered with
    damaged: set[str] = field(default_factory=set)  # digests
    expected: tuple[Sequence[str], str] = ((), "")  # states to pass over, and the one to go on from
    note: str = ""  # how exactly the last fault came
    story: list[str] = field(default_factory=list)
    killed_by: str | None = None  # what ended the last life
    resumed: list[str] = field(default_factory=list)

    def start(self, *die: str) -> Life:
        """The next life, with --resume where there is something to resume."""
        words = self.world.words(self.out)
        if (self.out / "config.yaml").is_file():
            words.append("--resume")
        if self.answer is not None:
            words, self.answer = self.answer, None
        program = [str(ROOT / "tools" / "train.py")]
        if die:
            program = [str(ROOT / "tools" / "faults" / "dying.py"), *die]
        launch = []
        if self.processes > 1:
            restarts = self.faults_left + 1  # as many as this life is going to be killed
            many = [f"--nproc-per-node={self.processes}", f"--max-restarts={restarts}"]
            launch = ["-m", "torch.distributed.run", "--standalone", *many]
        if self.killed_by is not None:
            self.resumed.append(self.killed_by)
            self.killed_by = None
        self.lives += 1
        self.expected = self.states()
        console = self.consoles / f"{self.lives}.txt"
        self.life = Life(self.world, [sys.executable, *launch, *program, *words], self.out, console)
        return self.life

    def states(self) -> tuple[list[str], str]:
        """The states that a resume has to pass over, and the one it has to take."""
        passed: list[str] = []
        for path in [self.out / "state.pt", *sorted(self.out.glob("state.*.pt"))]:
            if path.is_file() and digest(path) not in self.damaged:
                return passed, path.name
            passed += [path.name] if path.is_file() else []
        return passed, ""

    def train_a_while(self, life: Life, ready: Callable[[], bool] = lambda: True) -> bool:
        """Let it train for some steps, as many as leave room for the faults to come."""
        if not life.wait_until(lambda: life.steps() > 0):
            return False
        room = (self.steps - life.steps()) / (self.faults_left + 1)
        goal = life.steps() + self.random.uniform(0, max(room, 1.0))
        moment = self.random.uniform(0, 0.05)
        return (
            life.wait_until(lambda: life.steps() >= goal)
            and life.wait_until(ready)
            and life.live_for(moment)
        )

    def struck(self, kind: str) -> None:
        """Note what has just happened to the life in hand, and look at how it took it."""
        assert self.life is not None
        self.story.append(f"{kind}{self.note} at step {self.life.steps()}")
        self.note = ""
        self.check_life()
        if self.life.running():  # under torchrun it has begun anew
            self.resumed.append(kind)
            self.life.since, self.expected = time.time(), self.states()
        else:
            self.killed_by = kind

    def check_life(self) -> None:
        """Whether the last life said of damaged states what there was to say."""
        assert self.life is not None
        said = self.life.said
        passed, taken = self.expected
        if "resumed at" in said:
            missed = [name for name in passed if f"{name} is damaged" not in said]
            if missed or (passed and f"going on from {taken}" not in said):
                raise Fault(f"did not tell that {passed} are damaged: {self.life.last_words()}")
        told = re.findall(r"(\S+) is damaged", said)
        if extra := sorted(set(told) - set(passed)):
            raise Fault(f"calls {extra} damaged, which nobody touched")
        if "Traceback (most recent call last)" in said and self.processes == 1:
            raise Fault(f"a traceback instead of a line: {self.life.last_words()}")

    def check_files(self) -> list[str]:
        """Unreadable files."""
        found = unreadable(self.out, frozenset(self.damaged))
        # Under torchrun others live on: a line may be half there while it is read.
        if found and self.life is not None and self.life.running():
            time.sleep(0.2)
            found = [
                file for file in unreadable(self.out, frozenset(self.damaged)) if file in found
            ]
        return found
