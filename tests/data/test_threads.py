import gc
import itertools
import signal
import subprocess
import sys
import threading

import pytest
import torch

from reidkit.data.threads import ThreadedBatches

PATIENCE = 20  # seconds that a test waits before it fails


class Doubles:
    """A dataset of numbers; `act` happens in the worker that reads a batch."""

    def __init__(self, act=lambda indices: None):
        self.act = act

    def batch(self, indices):
        self.act(indices)
        return [2 * index for index in indices]


class Counting:
    """A batch sampler of [0], [1], ... that counts how many were taken from it."""

    def __init__(self, batches):
        self.batches = batches
        self.taken = 0

    def __len__(self):
        return self.batches

    def __iter__(self):
        for number in range(self.batches):
            self.taken += 1
            yield [number]


def running():
    """The threads of iterations that are under way."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("reidkit-batches")]


def ended():
    """Whether all threads end; each is waited for."""
    for thread in running():
        thread.join(PATIENCE)
    return not running()


def numbers(count, act=lambda indices: None, workers=2, ahead=2):
    return ThreadedBatches(Doubles(act), Counting(count), workers, ahead)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("ahead", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_batches_come_in_the_samplers_order(workers, ahead, count):
    loader = numbers(count, workers=workers, ahead=ahead)
    assert list(loader) == [[2 * number] for number in range(count)]
    assert len(loader) == count
    assert ended()


def test_a_slow_first_batch_still_comes_first():
    second = threading.Event()

    def act(indices):
        if indices == [0]:
            assert second.wait(PATIENCE)  # the other worker reads on meanwhile
        if indices == [1]:
            second.set()

    assert list(numbers(3, act)) == [[0], [2], [4]]


def test_workers_read_at_the_same_time():
    both = threading.Barrier(2, timeout=PATIENCE)
    assert list(numbers(4, lambda indices: both.wait())) == [[0], [2], [4], [6]]


@pytest.mark.parametrize("workers, ahead", [(1, 1), (2, 2), (3, 1)])
def test_no_more_is_prepared_than_was_asked_for(workers, ahead):
    loader = numbers(50, workers=workers, ahead=ahead)
    iteration = iter(loader)
    for received in range(1, 4):
        next(iteration)
        assert loader.batch_sampler.taken == received + workers * ahead
    iteration.close()
    assert ended()


def test_nothing_is_read_before_the_first_batch_is_asked_for():
    loader = numbers(5)
    iteration = iter(loader)
    assert loader.batch_sampler.taken == 0
    assert not running()
    iteration.close()


def test_epochs_follow_one_another_and_two_may_run_at_once():
    loader = numbers(6)
    assert list(loader) == list(loader)
    pairs = list(zip(loader, loader, strict=True))
    assert pairs == [([2 * number], [2 * number]) for number in range(6)]
    assert ended()


def test_an_error_arrives_in_its_turn_as_it_was_raised():
    fault = OSError("pictures/0002_c1s1.jpg is gone")

    def act(indices):
        if indices == [2]:
            raise fault

    loader, received = numbers(9, act), []
    with pytest.raises(OSError, match=r"0002_c1s1\.jpg") as caught:
        received.extend(loader)
    assert caught.value is fault
    assert received == [[0], [2]]
    assert ended()
    assert list(itertools.islice(loader, 2)) == [[0], [2]]  # and can be read again
    assert ended()


def test_an_error_of_the_sampler_ends_the_iteration():
    def sampler():
        yield [0]
        raise ValueError("no such identity")

    loader = ThreadedBatches(Doubles(), sampler(), workers=1)
    with pytest.raises(ValueError, match="no such identity"):
        list(loader)
    assert ended()


def leave_by_break(loader):
    for _ in loader:
        break


def leave_by_close(loader):
    iteration = iter(loader)
    next(iteration)
    iteration.close()


def leave_by_garbage(loader):
    box = [iter(loader)]
    next(box[0])
    box.append(box)  # a cycle: only the collector finds it
    del box
    gc.collect()


def leave_by_an_error_of_the_consumer(loader):
    with pytest.raises(ZeroDivisionError):
        for batch in loader:
            batch[0] // 0


def leave_by_ctrl_c(loader):
    with pytest.raises(KeyboardInterrupt):
        for _ in loader:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "leave",
    [
        leave_by_break,
        leave_by_close,
        leave_by_garbage,
        leave_by_an_error_of_the_consumer,
        leave_by_ctrl_c,
    ],
)
def test_leaving_early_leaves_no_thread_and_reads_no_further(leave):
    before = set(threading.enumerate())
    loader = numbers(1000)
    for _ in range(3):
        leave(loader)
    assert ended()
    assert set(threading.enumerate()) == before
    assert loader.batch_sampler.taken == 3 * 5


def test_ctrl_c_while_waiting_for_a_batch_stops_the_wait():
    release = threading.Event()

    def act(indices):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        assert release.wait(PATIENCE)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    loader = numbers(3, act, workers=1)
    try:
        with pytest.raises(KeyboardInterrupt):
            next(iter(loader))
    finally:
        signal.signal(signal.SIGINT, before)
        release.set()
    assert ended()


def test_the_garbage_collector_may_end_an_iteration_in_its_own_thread(monkeypatch):
    dropped, collected = threading.Event(), threading.Event()

    def act(indices):
        if indices == [1]:
            assert dropped.wait(PATIENCE)
            gc.collect()
            collected.set()

    faults = []
    monkeypatch.setattr(sys, "unraisablehook", faults.append)
    loader = numbers(9, act)
    gc.disable()
    try:
        box = [iter(loader)]
        next(box[0])
        box.append(box)
        del box
        dropped.set()
        assert collected.wait(PATIENCE)
    finally:
        gc.enable()
    assert ended()
    assert not faults


def test_a_script_that_ends_within_an_epoch_ends():
    script = (
        "from reidkit.data.threads import ThreadedBatches\n"
        "class Numbers:\n"
        "    def batch(self, indices): return indices\n"
        "iteration = iter(ThreadedBatches(Numbers(), [[n] for n in range(99)], 2))\n"
        "print(next(iteration))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0]\n", "")


def test_the_consumer_keeps_its_threads_for_torch():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    seen = []
    try:
        list(numbers(4, lambda indices: seen.append(torch.get_num_threads())))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == [1] * 4


def test_for_cuda_a_worker_pins_on_its_own_device(monkeypatch):
    devices, pinned = [], []

    def pin(tensor):
        pinned.append((threading.current_thread().name[:15], tensor.stride()))
        return tensor

    monkeypatch.setattr(torch.cuda, "set_device", devices.append)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)

    class Tensors:
        def batch(self, indices):
            return {"frames": torch.zeros(2, 4, 3).mT, "names": ["a"]}

    device = torch.device("cuda:1")
    (batch,) = ThreadedBatches(Tensors(), [[0]], workers=1, pin_for=device)
    assert batch["names"] == ["a"]
    assert devices == [device]
    assert pinned == [("reidkit-batches", (12, 1, 3))]


@pytest.mark.parametrize("workers, ahead", [(0, 2), (-1, 2), (2, 0)])
def test_impossible_numbers_are_refused(workers, ahead):
    with pytest.raises(ValueError, match="expected at least 1"):
        numbers(3, workers=workers, ahead=ahead)
