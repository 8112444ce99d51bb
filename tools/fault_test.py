"""Kill trainings at bad moments, resume them, and compare with one that nobody disturbed.

    python tools/fault_test.py
    python tools/fault_test.py --kills 12 --kinds save,rank --seed 3

kill: SIGKILL at any moment of start, training and end. save: SIGKILL inside a file call, a half
written state among them. rank: SIGKILL for one of two processes under torchrun, which goes on by
itself. disk: a full disk, until the training gives up or is killed. truncated, flipped: killed, and
the newest state is cut, or one bit of it turned. term: SIGTERM, and the command that it answers.

A run suffers several of them. After each every file of its folder must be readable; at its end
weights, the whole state, the losses of every step and the scores must have the bits of the
reference's. For Linux.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from faults.folders import differences, losses
from faults.kinds import KINDS
from faults.lives import Disk, Fault, Run, World

TOGETHER = 6  # faults in one run
COLUMNS = ("kills", "resumes", "identical", "unreadable")


@dataclass
class Tally:
    """What happened, by kind of fault."""

    kills: Counter[str] = field(default_factory=Counter)
    resumes: Counter[str] = field(default_factory=Counter)
    identical: Counter[str] = field(default_factory=Counter)  # kills in runs that ended right
    unreadable: Counter[str] = field(default_factory=Counter)  # files
    failures: list[str] = field(default_factory=list)
    stories: list[str] = field(default_factory=list)  # a line a run
    runs: int = 0

    def add(self, other: "Tally") -> None:
        """Count what happened elsewhere, too."""
        for name in COLUMNS:
            getattr(self, name).update(getattr(other, name))
        self.failures += other.failures
        self.stories += other.stories
        self.runs += other.runs

    def good(self) -> bool:
        """Whether nothing at all went wrong."""
        counts = (self.resumes, self.identical)
        whole = not self.failures and not self.unreadable
        return whole and all(count == self.kills for count in counts)

    def rows(self) -> dict[str, dict[str, int]]:
        """The counts by kind of fault, and their total."""
        kinds = {k: {c: getattr(self, c)[k] for c in COLUMNS} for k in KINDS if self.kills[k]}
        return {**kinds, "total": {c: getattr(self, c).total() for c in COLUMNS}}

    def table(self) -> str:
        """A line per kind, the total, and what went wrong."""
        lines = [
            f"{'fault':<10} {'kills':>7} {'resumes':>9} {'identical':>11} {'unreadable files':>18}"
        ]
        for name, row in self.rows().items():
            lines.append("{:<10} {:>7} {:>9} {:>11} {:>18}".format(name, *row.values()))
        return "\n".join([*lines, *(f"FAILED: {failure}" for failure in self.failures)])


@dataclass(frozen=True)
class Reference:
    """A run that nobody disturbed."""

    out: Path
    start_up: float
    steps: int


def undisturbed(world: World, processes: int = 1) -> Reference:
    """Train once in peace."""
    folder = world.folder / f"reference-{processes}"
    folder.mkdir(parents=True)
    run = Run(world, folder / "run", folder, 0, 0.0, random.Random(0), processes)
    began = time.monotonic()
    life = run.start()
    try:
        life.wait_until(lambda: life.steps() > 0)
        start_up = time.monotonic() - began
        if (code := life.end()) != 0:
            raise SystemExit(f"the undisturbed run ended with code {code}: {life.last_words()}")
    finally:
        life.close()
    return Reference(run.out, start_up, len(losses(run.out / "log.jsonl")))


def suffer(run: Run, reference: Path, kinds: Sequence[str]) -> tuple[Tally, list[str]]:
    """One run with these faults, one after the other; also returns those it did not come to."""
    tally, left, suffered = Tally(runs=1), deque(kinds), []
    try:
        while left:
            kind = left.popleft()
            run.faults_left = len(left)
            suffered.append(kind)
            if not KINDS[kind](run):  # the training was done before
                left.appendleft(suffered.pop())
                break
            run.struck(kind)
            if files := run.check_files():
                tally.unreadable[kind] += len(files)
                raise Fault(f"cannot be read: {'; '.join(files)}")
        finish(run, early=bool(left))
        if different := run.check_files() or differences(reference, run.out):
            raise Fault(f"{len(different)} differences, such as {'; '.join(different[:3])}")
        tally.identical.update(suffered)
    except Fault as fault:
        tally.failures.append(f"{run.consoles}, {', '.join(suffered)}: {fault}")
        if run.disk is not None:
            shutil.copytree(run.out, run.consoles / "run", dirs_exist_ok=True)
    finally:
        if run.life is not None:
            run.life.close()
    tally.kills.update(suffered)
    tally.resumes.update(run.resumed)
    tally.stories.append(f"{run.consoles.name}: {', '.join(run.story)}")
    return tally, list(left)


def finish(run: Run, *, early: bool) -> None:
    """Let the training come to its end: in a new life, unless it lives or is there already."""
    life = run.life
    if life is None or not (early or life.running()):
        life = run.start()
    if (code := life.end()) != 0:
        raise Fault(f"did not go on to the end, code {code}: {life.last_words()}")
    run.check_life()


def one_run(
    world: World, references: Mapping[int, Reference], kinds: Sequence[str], name: str, seed: str
) -> tuple[Tally, list[str]]:
    """A run of its own for these faults."""
    folder = world.folder / name
    folder.mkdir()
    processes = 2 if "rank" in kinds else 1
    reference = references[processes]
    disk = Disk(folder / "disk") if "disk" in kinds else None
    try:
        out = (folder if disk is None else disk.folder) / "run"
        facts = (reference.steps, reference.start_up, random.Random(seed), processes, disk)
        return suffer(Run(world, out, folder, *facts), reference.out, kinds)
    finally:
        if disk is not None:
            disk.close()


def portions(faults: Sequence[str]) -> list[list[str]]:
    """Which faults a run suffers: one rank of several in runs of their own."""
    alone = [[f for f in faults if (f == "rank") == ranks] for ranks in (True, False)]
    return [part[i : i + TOGETHER] for part in alone for i in range(0, len(part), TOGETHER)]


def undisturbed_by(world: World, faults: Sequence[str], jobs: int) -> dict[int, Reference]:
    """A reference for each number of processes that these faults are about."""
    wanted = sorted({2 if fault == "rank" else 1 for fault in faults})
    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(wanted, pool.map(partial(undisturbed, world), wanted), strict=True))


def fault_test(
    world: World,
    references: Mapping[int, Reference],
    faults: Sequence[str],
    *,
    seed: int = 0,
    jobs: int = 2,
    tell: Callable[[str], object] = lambda line: None,
) -> Tally:
    """Suffer all these faults, in as many runs as it takes; `tell` hears of each run."""
    tally = Tally()
    work = partial(one_run, world, references)
    with ThreadPoolExecutor(jobs) as pool:
        for attempt in range(10):
            parts = portions(faults)
            names = [f"{attempt}-{number}" for number in range(len(parts))]
            seeds = [f"{seed} {name}" for name in names]
            faults = []
            for found, left in pool.map(work, parts, names, seeds):
                tally.add(found)
                faults += left
                tell(f"{found.stories[0]}: {'FAILED' if found.failures else 'identical'}")
            if not faults:
                return tally
    tally.failures.append(f"no run came to {', '.join(faults)}")
    return tally


def plan(kills: int, kinds: Sequence[str], seed: int) -> list[str]:
    """So many faults, of each kind about as many, in a random order."""
    faults = [kinds[number % len(kinds)] for number in range(kills)]
    random.Random(seed).shuffle(faults)
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=56)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help="by default all of them")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    kinds = arguments.kinds.split(",")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        parser.error(f"no fault {unknown[0]!r}; there are {', '.join(KINDS)}")
    if arguments.kills < 1:
        parser.error(f"--kills {arguments.kills}, expected at least 1")
    began = time.monotonic()
    world = World(Path(tempfile.mkdtemp(prefix="reidkit-faults-")))
    faults = plan(arguments.kills, kinds, arguments.seed)
    tell = partial(print, file=sys.stderr)
    references = undisturbed_by(world, faults, arguments.jobs)
    tally = fault_test(
        world, references, faults, seed=arguments.seed, jobs=arguments.jobs, tell=tell
    )
    seconds = round(time.monotonic() - began)
    if arguments.json:
        facts = {"runs": tally.runs, "seconds": seconds, "seed": arguments.seed}
        print(json.dumps({**tally.rows(), **facts, "failures": tally.failures}, indent=2))
    else:
        print(f"{tally.table()}\n{tally.runs} runs, {seconds} s, seed {arguments.seed}")
    if not tally.good():
        sys.exit(1)  # the folder stays, to be looked at
    shutil.rmtree(world.folder)


if __name__ == "__main__":
    main()
