import contextlib
import errno
import io
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
import torch

from reidkit import files
from reidkit.engine import checkpoint, load_state, save_state, state_file
from reidkit.engine.checkpoint import Checkpointer, saved_states
from reidkit.engine.state_file import Damaged, read_state, write_state
from tests.engine.toy import ToyLoader, toy_state

FULL = Path("/dev/full")


def content(step):
    """A state that tells by every number whether it is whole."""
    return {"step": step, "weights": torch.full((500,), float(step)), "list": [step, None, "x"]}


def whole(state):
    """The step of a state, after a look at all of it."""
    step = state["step"]
    assert state["list"] == [step, None, "x"] and (state["weights"] == step).all()
    return step


def save_all(path, steps, keep=2):
    keeper = Checkpointer(path, keep=keep)
    for step in steps:
        keeper.save(content(step))
    keeper.wait()
    keeper.close()


def fill_the_disk(monkeypatch):
    """From here on nothing can be written beside a file: a real ENOSPC, from the kernel."""
    if not FULL.exists():
        pytest.skip("needs Linux's /dev/full")
    monkeypatch.setattr(files, "_beside", lambda path: FULL)
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "state.pt"


# --- one state ------------------------------------------------------------------------------------


def test_a_state_reads_back_as_it_was(path):
    state = {"weights": torch.arange(5.0), "epoch": 3, "names": ["a", "b"], "none": None}
    save_state(path, state)
    found = load_state(path)
    assert torch.equal(found.pop("weights"), state.pop("weights"))
    assert found == state


def test_torch_opens_a_state_and_the_zip_is_in_order(path):
    save_all(path, [7])
    assert whole(torch.load(path, weights_only=True)) == 7
    assert whole(torch.load(path, weights_only=True, mmap=True)) == 7
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None and file.comment.startswith(b"reidkit crc32")


def test_every_flipped_bit_is_recognised(path):
    save_state(path, content(3))
    good = path.read_bytes()
    draw = random.Random(0)
    places = {draw.randrange(len(good)) for _ in range(400)}
    places |= set(range(100)) | set(range(len(good) - 300, len(good)))  # headers, directory, end
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 1 << draw.randrange(8)
        path.write_bytes(bad)
        with pytest.raises(Damaged):
            read_state(path)
    path.write_bytes(good)
    assert whole(read_state(path)) == 3


def test_every_truncated_or_lengthened_file_is_recognised(path):
    save_state(path, content(3))
    good = path.read_bytes()
    draw = random.Random(0)
    lengths = {0, 1, len(good) - 1, *(draw.randrange(len(good)) for _ in range(100))}
    for bad in [*(good[:length] for length in lengths), good + b"\0", good + good, b"\0" * 5000]:
        path.write_bytes(bad)
        with pytest.raises(Damaged):
            read_state(path)


def test_blocks_that_never_reached_the_disk_are_recognised(path):
    save_state(path, {"weights": torch.randn(20_000)})
    bad = bytearray(path.read_bytes())
    bad[8192:12288] = bytes(4096)
    path.write_bytes(bad)
    with pytest.raises(Damaged, match="checksum"):
        read_state(path)


def test_a_state_larger_than_a_piece_is_summed_up_to_its_end(path, monkeypatch):
    monkeypatch.setattr(state_file, "CHUNK", 1000)
    save_state(path, content(4))
    assert whole(load_state(path)) == 4


def test_a_state_that_would_run_code_is_refused(path):
    class Evil:
        def __reduce__(self):
            return (os.system, ("true",))

    path.parent.mkdir()
    with path.open("wb") as file:
        write_state(file, {"x": Evil()})
    with pytest.raises(ValueError, match="damaged"):
        load_state(path)


@pytest.mark.parametrize("settings", [{"keep": 0}, {"minutes": -1.0}, {"steps": -1}])
def test_settings_that_mean_nothing_are_refused(path, settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings.values()))}.*expected"):
        Checkpointer(path, **settings)


def test_what_could_not_be_read_back_is_refused_before_anything_is_written(path):
    keeper = Checkpointer(path)
    with pytest.raises(TypeError, match=r"\['rng'\] is a Random"):
        keeper.save({"rng": random.Random(0)})
    with pytest.raises(TypeError, match=r"\['rng'\] is a Random"):
        save_state(path, {"rng": random.Random(0)})
    keeper.close()
    assert not path.parent.exists()


# --- the newest that is whole ---------------------------------------------------------------------


def test_nothing_to_resume_says_so(path):
    with pytest.raises(FileNotFoundError, match="leave out --resume"):
        load_state(path)


def test_the_newest_state_is_loaded_without_a_word(path):
    save_all(path, [1, 2, 3])
    said = []
    assert whole(load_state(path, said.append)) == 3 and said == []


def spoil(file, how):
    if how == "flipped":
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[:-200])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "foreign":
        torch.save({"step": 1}, file)
    else:
        file.unlink()
        file.mkdir()


KINDS = ["flipped", "truncated", "empty", "foreign", "directory"]


@pytest.mark.parametrize("how", KINDS)
def test_a_damaged_state_is_told_and_the_one_before_is_taken(path, how):
    save_all(path, [1, 2, 3], keep=3)
    spoil(path, how)
    said = []
    assert whole(load_state(path, said.append)) == 2
    (line,) = said
    assert "state.pt is damaged (" in line and "state.1.pt" in line and "\n" not in line
    spoil(path.with_name("state.1.pt"), how)
    said.clear()
    assert whole(load_state(path, said.append)) == 1
    assert "state.1.pt is damaged" in said[0] and "from state.2.pt" in said[0]


@pytest.mark.parametrize("how", KINDS)
def test_when_all_are_damaged_one_line_says_what_to_do(path, how):
    save_all(path, [1, 2])
    for file in saved_states(path):
        spoil(file, how)
    with pytest.raises(ValueError, match=r"^.*state\.pt is .*state\.1\.pt is .*start anew[^\n]*$"):
        load_state(path)


def test_a_missing_newest_state_leaves_the_one_before(path):
    save_all(path, [1, 2])
    path.unlink()
    assert whole(load_state(path)) == 1


def test_states_are_listed_from_the_newest_by_number_and_nothing_else_is(path):
    path.parent.mkdir()
    for name in ("state.pt", "state.10.pt", "state.2.pt", "state.x.pt", "state.02.pt", "a.1.pt"):
        (path.parent / name).touch()
    assert [file.name for file in saved_states(path)] == ["state.pt", "state.2.pt", "state.10.pt"]


# --- the last few ---------------------------------------------------------------------------------


def no_links(*_):
    raise PermissionError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_states_are_kept_in_order(path, keep, links, monkeypatch):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    save_all(path, range(5), keep)
    assert [whole(read_state(file)) for file in saved_states(path)] == [4, 3, 2][:keep]
    assert len(list(path.parent.iterdir())) == keep


def test_fewer_states_stay_when_fewer_are_asked_for(path):
    save_all(path, range(5), keep=4)
    save_all(path, [5], keep=2)
    assert [whole(read_state(file)) for file in saved_states(path)] == [5, 4]


def test_a_kill_between_two_names_does_not_cost_an_older_state(path):
    save_all(path, [1, 2, 3], keep=3)
    path.with_name("state.1.pt").unlink()
    os.link(path, path.with_name("state.1.pt"))  # 3, 3, 1: killed before the new one's last move
    save_all(path, [4], keep=3)
    assert [whole(read_state(file)) for file in saved_states(path)] == [4, 3, 1]


class Killed(BaseException):
    """Stands for the moment after which a process does nothing any more."""


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("keep", [1, 2, 3])
def test_killed_before_any_move_a_save_leaves_the_old_state_or_the_new(
    tmp_path, keep, links, monkeypatch
):
    before = tmp_path / "before"
    save_all(before / "state.pt", range(1, 4), keep)
    outcomes = set()
    for number in range(100):
        folder = tmp_path / str(number)
        shutil.copytree(before, folder)
        with monkeypatch.context() as patch:
            moves = kill_at(patch, number, links)
            with contextlib.suppress(Killed):
                checkpoint._write(folder / "state.pt", content(4), keep)
            done = moves[0] <= number
        state = whole(load_state(folder / "state.pt"))
        assert state in (3, 4)
        outcomes.add(state)
        for file in saved_states(folder / "state.pt"):
            read_state(file)
        save_all(folder / "state.pt", [5], keep)  # and the next save clears up
        assert [whole(read_state(file)) for file in saved_states(folder / "state.pt")][:1] == [5]
        assert len(list(folder.iterdir())) <= keep
        if done:
            break
    assert outcomes == {3, 4} and number >= 4


def kill_at(patch, number, links):
    """Make the process stop before its move `number` on the file system; counts the moves."""
    moves = [0]

    def counted(real):
        def move(*words, **named):
            if moves[0] >= number:
                moves[0] = number + 1
                raise Killed
            moves[0] += 1
            return real(*words, **named)

        return move

    patch.setattr(Path, "open", counted(Path.open))
    patch.setattr(Path, "unlink", counted(Path.unlink))
    for name in ("replace", "fsync", "link"):
        real = no_links if name == "link" and not links else getattr(os, name)
        patch.setattr(os, name, counted(real))
    return moves


def save_for_ever(path, begun):
    """What the process that is killed does: saves one state after the other from where it was."""
    torch.set_num_threads(1)
    step = whole(load_state(path)) if saved_states(path) else 0
    keeper = Checkpointer(path, keep=2)
    assert not list(path.parent.glob(".*"))  # what the kill before has left
    while True:
        step += 1
        keeper.save({**content(step), "more": torch.full((100_000,), step)})
        begun.send(step)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_at_random_moments_every_state_on_the_disk_is_whole(path):
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])  # its imports, once for all
    draw = random.Random(0)
    step = 0
    for _ in range(10):
        heard, begun = processes.Pipe(duplex=False)
        process = processes.Process(target=save_for_ever, args=(path, begun))
        process.start()
        begun.close()
        for _ in range(draw.randrange(2, 6)):
            assert heard.poll(60)
            step = heard.recv()
        process.join(draw.uniform(0, 0.02))
        process.kill()
        process.join()
        while heard.poll():
            try:
                step = heard.recv()
            except EOFError:
                break
        # The save before the last one that began was complete; one may have begun unheard.
        found = [whole(read_state(file)) for file in saved_states(path)]
        assert found and step - 1 <= found[0] <= step + 1, (found, step)
        assert len(found) <= 3 and found == sorted(found, reverse=True)


# --- a disk that takes no more --------------------------------------------------------------------


def test_a_full_disk_keeps_the_old_states_and_leaves_nothing_beside_them(path, monkeypatch):
    save_all(path, [1, 2])

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    keeper = Checkpointer(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device.*state\.pt.*kept"):
            save_state(path, content(3))
        keeper.save(content(3))
        with pytest.raises(OSError, match=r"No space left on device.*state\.pt.*kept"):
            keeper.wait()
    keeper.close()
    assert [whole(read_state(file)) for file in saved_states(path)] == [2, 1]
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize("values", [10, 1_000_000])  # found at the flush; found amid torch.save
def test_the_reason_of_a_really_full_disk_reaches_the_user(path, monkeypatch, values, capfd):
    save_all(path, [1])
    with monkeypatch.context() as patch:
        fill_the_disk(patch)
        with pytest.raises(OSError, match=r"^\[Errno 28\] No space left .*state\.pt; .*kept$"):
            save_state(path, {"weights": torch.zeros(values)})
    assert whole(load_state(path)) == 1
    assert capfd.readouterr().err == ""


def test_whichever_write_finds_the_disk_full_the_reason_is_told():
    class Filling(io.BytesIO):
        def __init__(self, room):
            super().__init__()
            self.room = room

        def write(self, data):
            self.room -= 1
            if self.room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    for room in range(1000):
        try:
            write_state(Filling(room), content(1))
        except OSError as error:  # torch alone makes most of these a RuntimeError
            assert error.errno == errno.ENOSPC
        else:
            break
    assert 20 < room < 1000


def test_a_failed_save_is_told_once_and_the_training_goes_on(path, monkeypatch):
    keeper = Checkpointer(path)
    with monkeypatch.context() as patch:
        fill_the_disk(patch)
        keeper.save(content(1))
        keeper.wait_for_copy()
        keeper._join()
    with pytest.raises(OSError, match="No space left"):
        keeper.save(content(2))  # tells of the one before, and is under way
    keeper.wait()
    assert keeper.failure() is None
    assert whole(load_state(path)) == 2
    keeper.close()


def test_a_failure_can_be_asked_for_instead(path, monkeypatch):
    keeper = Checkpointer(path)
    with monkeypatch.context() as patch:
        fill_the_disk(patch)
        keeper.save(content(1))
        keeper._join()
    assert keeper.failure().errno == errno.ENOSPC
    assert keeper.failure() is None
    keeper.wait()
    keeper.close()


def test_a_failure_that_nobody_asked_for_is_logged_at_the_end(path, monkeypatch, caplog):
    keeper = Checkpointer(path)
    with monkeypatch.context() as patch:
        fill_the_disk(patch)
        keeper.save(content(1))
        keeper.close()
    assert "not saved: [Errno 28] No space left" in caplog.text


def test_a_folder_that_cannot_be_made_is_an_os_error_with_its_name(tmp_path):
    (tmp_path / "run").write_text("in the way")
    keeper = Checkpointer(tmp_path / "run" / "state.pt")
    keeper.save(content(1))
    with pytest.raises(OSError, match=r"while writing .*state\.pt"):
        keeper.wait()


# --- in the background ----------------------------------------------------------------------------


class Gate:
    """Holds the writing thread back until it is opened."""

    def __init__(self, monkeypatch):
        self.open, self.reached = threading.Event(), threading.Event()
        real = checkpoint._write

        def write(*words):
            self.reached.set()
            assert self.open.wait(20)
            real(*words)

        monkeypatch.setattr(checkpoint, "_write", write)


def test_a_save_returns_before_it_is_written_and_wait_returns_after(path, monkeypatch):
    gate = Gate(monkeypatch)
    keeper = Checkpointer(path)
    keeper.save(content(1))
    assert gate.reached.wait(20)
    keeper.wait_for_copy()
    assert not path.exists()
    gate.open.set()
    keeper.wait()
    assert whole(load_state(path)) == 1
    keeper.close()


def test_a_second_save_waits_for_the_first_and_both_are_written(path, monkeypatch):
    gate = Gate(monkeypatch)
    keeper = Checkpointer(path)
    keeper.save(content(1))
    second = threading.Thread(target=lambda: keeper.save(content(2)))
    second.start()
    second.join(0.1)
    assert second.is_alive()
    gate.open.set()
    second.join()
    keeper.wait()
    keeper.close()
    assert [whole(read_state(file)) for file in saved_states(path)] == [2, 1]


def test_states_saved_amid_a_training_equal_those_of_a_standstill(path):
    state, expected = toy_state(dim=3000), None  # large enough for the thread
    keeper = Checkpointer(path, keep=1)

    def settled():
        yield from state.task.parameters()
        yield from state.ema.model.parameters()
        for moments in state.optimizers["main"].state.values():
            yield from moments.values()

    for step, batch in enumerate(ToyLoader(batches=20)):
        terms = state.task(batch)["loss"]
        terms.backward()
        keeper.wait_for_copy()
        state.optimizers["main"].step()
        state.optimizers["main"].zero_grad()
        state.ema.update(state.task.model)
        if step % 4 == 0:
            if expected is not None:
                keeper.wait()
                found = load_state(path)
                assert found.keys() == expected.keys()
                assert_same(found, expected)
            live = {
                "task": state.task.state_dict(),
                "main": state.optimizers["main"].state_dict(),
                "ema": state.ema.state_dict(),
            }
            expected = checkpoint.plain(live, torch.clone)
            keeper.save(live, settled=settled())
    keeper.close()


def assert_same(found, expected):
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, two in zip(found, expected, strict=True):
            assert_same(one, two)
    else:
        assert found == expected


def test_waiting_without_a_save_returns_at_once(path):
    keeper = Checkpointer(path)
    keeper.wait_for_copy()
    keeper.wait()
    keeper.close()
    assert not path.parent.exists()


def test_no_thread_stays_behind(path):
    before = threading.active_count()
    keeper = Checkpointer(path)
    keeper.reserve([torch.zeros(10)])
    keeper.save(content(1))
    keeper.close()
    assert threading.active_count() == before
    assert whole(load_state(path)) == 1


def test_the_end_of_the_interpreter_waits_for_the_file(path):
    words = (
        "import sys, torch; from pathlib import Path; "
        "from reidkit.engine.checkpoint import Checkpointer; "
        "Checkpointer(Path(sys.argv[1])).save({'step': 1, 'weights': torch.zeros(10_000_000)})"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", words, str(path)], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert load_state(path)["step"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority of their own on Linux")
def test_only_the_writing_thread_steps_back(path, monkeypatch):
    nice = []
    real = checkpoint._write

    def write(*words):
        nice.append(os.getpriority(os.PRIO_PROCESS, 0))
        real(*words)

    monkeypatch.setattr(checkpoint, "_write", write)
    before = os.getpriority(os.PRIO_PROCESS, 0)
    save_all(path, [1])
    assert nice == [min(before + checkpoint.PRIORITY, 19)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_what_a_kill_left_is_removed_at_the_next_start(path):
    path.parent.mkdir()
    left = files._beside(path)
    left.write_bytes(b"half a state")
    Checkpointer(path)
    assert not left.exists()


# --- when -----------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told to."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_save_is_due_so_many_minutes_after_the_last(path, clock):
    keeper = Checkpointer(path, minutes=0.5)
    assert not keeper.due(1)
    clock[0] += 29
    assert not keeper.due(2)
    clock[0] += 1
    assert keeper.due(3) and keeper.due(4)
    keeper.save(content(4))
    keeper.wait()
    assert not keeper.due(5)
    clock[0] += 30
    assert keeper.due(6)


def test_a_save_is_due_every_so_many_steps_from_wherever_the_run_began(path, clock):
    keeper = Checkpointer(path, minutes=0, steps=3)
    due = []
    for iteration in range(101, 111):
        if keeper.due(iteration):
            due.append(iteration)
            keeper.save(content(iteration))
            keeper.wait()
    assert due == [103, 106, 109]


def test_without_minutes_and_steps_nothing_is_ever_due(path, clock):
    keeper = Checkpointer(path, minutes=0, steps=0)
    assert not keeper.due(1)
    clock[0] += 1e9
    assert not keeper.due(10**9)


def test_nothing_is_due_while_the_last_save_is_being_written(path, monkeypatch):
    gate = Gate(monkeypatch)
    keeper = Checkpointer(path, minutes=0, steps=1)
    assert keeper.due(1)
    keeper.save(content(1))
    assert not keeper.due(2)
    gate.open.set()
    keeper.wait()
    assert keeper.due(3)
    keeper.close()
