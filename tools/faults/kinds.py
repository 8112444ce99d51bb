"""The faults: each is a life that ends badly.

They return True when they hit, and False when the training came to its end before.
"""

import contextlib
import os
import re
import shlex
import signal
from collections.abc import Callable, Mapping

from faults.folders import digest, read_state
from faults.lives import Fault, Run

# The calls that a save makes, and about how many of each, or how many bytes.
CALLS = {"write": 1_400_000, "fsync": 3, "replace": 2, "link": 1, "unlink": 2}


def kill(run: Run) -> bool:
    """SIGKILL at start, in training, or at the end."""
    life, moment = run.start(), run.random.random()
    if moment < 0.2:
        life.live_for(run.random.uniform(0, run.start_up))
    elif moment < 0.6 and run.faults_left == 0:
        life.wait_until(lambda: "trained for" in life.said)
        life.live_for(run.random.uniform(0, 1.5))
    else:
        run.train_a_while(life)
    return life.kill()


def save(run: Run) -> bool:
    """SIGKILL at one of the calls that write files, before it, after it, or in the middle."""
    call = run.random.choice(list(CALLS))
    number = run.random.randint(1, 4 * CALLS[call])
    moment = run.random.choice(["before", "after"])
    life = run.start(call, str(number), moment)
    run.note = f" ({call} {number} {'' if call == 'write' else moment})".replace(" )", ")")
    return life.end() == -signal.SIGKILL


def rank(run: Run) -> bool:
    """SIGKILL for one of the processes; torchrun starts them again."""
    life = run.life if run.life is not None and run.life.running() else run.start()
    if run.random.random() < 0.2:
        life.live_for(run.random.uniform(0, run.start_up))
    else:
        run.train_a_while(life)
    if not life.wait_until(lambda: len(life.workers()) == run.processes):
        return False
    old = set(life.workers())
    with contextlib.suppress(ProcessLookupError):
        os.kill(run.random.choice(sorted(old)), signal.SIGKILL)
    return life.wait_until(lambda: len(set(life.workers()) - old) == run.processes)


def disk(run: Run) -> bool:
    """A disk without room: the training says so and goes on, until it is killed or has to end."""
    assert run.disk is not None
    disk, life = run.disk, run.start()
    if not run.train_a_while(life, lambda: (run.out / "state.1.pt").is_file()):
        return False
    leave = run.random.choice([0, (run.out / "state.pt").stat().st_size // 8])
    killed = run.random.random() < 0.5

    def told_twice() -> bool:  # so it went on after the first time
        disk.fill(life, leave)
        return len(re.findall(r"^not saved: ", life.said, re.MULTILINE)) > 1

    life.wait_until(told_twice)
    code = -signal.SIGKILL if killed and life.kill() else life.end()
    run.note = f" ({'killed' if code < 0 else 'ended'}, room for {leave} bytes)"
    files = run.check_files()
    disk.free()
    if files:
        raise Fault(f"cannot be read: {'; '.join(files)}")
    last = (life.said.strip().splitlines() or [""])[-1]
    if code > 0 and "trained for" not in life.said:
        raise Fault(f"code {code} in the middle of the training, for a full disk: {last}")
    if code > 0 and not (last.startswith("reidkit: ") and disk.says in last):
        raise Fault(f"code {code} on a full disk, and said last: {last}")
    return code != 0


def truncated(run: Run) -> bool:
    """Killed, and the newest state is cut off."""
    return _damaged(run, lambda data: data[: run.random.randrange(len(data))])


def flipped(run: Run) -> bool:
    """Killed, and one bit of the newest state is another."""

    def flip(data: bytes) -> bytes:
        place = run.random.randrange(len(data))
        other = data[place] ^ (1 << run.random.randrange(8))
        return data[:place] + bytes([other]) + data[place + 1 :]

    return _damaged(run, flip)


def _damaged(run: Run, damage: Callable[[bytes], bytes]) -> bool:
    def two_states() -> bool:
        states = [run.out / name for name in ("state.pt", "state.1.pt")]
        with contextlib.suppress(FileNotFoundError):
            return all(state.stat().st_mtime > life.since for state in states)
        return False

    life = run.start()
    if not run.train_a_while(life, two_states) or not life.kill():
        return False
    path = run.out / "state.pt"
    with path.open("r+b") as file:  # in place: a second name of the same file suffers, too
        content = damage(file.read())
        file.seek(0)
        file.write(content)
        file.truncate()
    run.damaged.add(digest(path))
    return True


def term(run: Run) -> bool:
    """SIGTERM: the step in hand is saved, and the command to go on is told."""
    life = run.start()
    if not run.train_a_while(life):
        return False
    os.kill(life.process.pid, signal.SIGTERM)
    code = life.end()
    if code == 0 or (code == -signal.SIGTERM and life.steps() == run.steps):
        return code != 0  # the training was over, and saved, when the signal came
    told = re.search(r"go on with: (.+)", life.said)
    if told is None:
        raise Fault(f"code {code} and no command to go on with: {life.last_words()}")
    command = shlex.split(told[1])
    if command[:2] != ["reidkit", "train"] or command[-1] != "--resume":
        raise Fault(f"the command to go on with is {told[1]}")
    state = read_state(run.out / "state.pt")["state"]
    if (done := state["epoch"] * state["batches"] + state["batch"]) != life.steps():
        raise Fault(f"saved after {done} steps instead of {life.steps()}")
    run.answer = command[2:]
    return True


KINDS: Mapping[str, Callable[[Run], bool]] = {
    f.__name__: f for f in (kill, save, rank, disk, truncated, flipped, term)
}
