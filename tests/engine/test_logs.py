import json
import math
from types import SimpleNamespace

import pytest
import torch

from reidkit.engine import logs
from reidkit.engine.logs import RunLog, advice
from reidkit.engine.loop import StepReport


class Remembers:
    """A tracker that keeps what it hears, and fails from its `failing`-th call on."""

    def __init__(self, failing=10**9):
        self.heard, self.failing = [], failing

    def _hear(self, *words):
        self.heard.append(words)
        if len(self.heard) >= self.failing:
            raise ConnectionError("the server is gone\nTraceback: ...")

    def scalars(self, values, iteration):
        self._hear("scalars", iteration, values)

    def rewind(self, iteration):
        self._hear("rewind", iteration)

    def close(self):
        self._hear("close")


def records(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def report(loss=1.0, data=0.1, step=0.3, images=8):
    terms = {"triplet": torch.tensor(loss / 2), "loss": torch.tensor(loss)}
    return StepReport(terms, 0.01, images, data, step)


def at(iteration, batches=10):
    epoch, batch = divmod(iteration - 1, batches)
    return SimpleNamespace(iteration=iteration, batch=batch + 1, batches=batches, epoch=epoch)


def test_an_interval_is_one_record_of_its_means(tmp_path):
    log = RunLog(tmp_path, interval=2)
    assert log.step(at(1), report(loss=1.0, data=0.1, step=0.2)) is None
    record = log.step(at(2), report(loss=3.0, data=0.3, step=0.2))
    assert record["loss"] == 2.0
    assert record["terms"] == {"triplet": 1.0}
    assert record["data_seconds"] == pytest.approx(0.2)
    # The log adds the time in which it reads the terms, which on a busy machine is no longer 0.
    assert record["step_seconds"] == pytest.approx(0.2, abs=0.01)
    assert record["waiting"] == pytest.approx(0.5, abs=0.01)  # 0.4 of 0.8 s
    assert record["images_per_second"] == pytest.approx(16 / 0.8, rel=0.02)
    (written,) = records(tmp_path)
    assert written.items() >= record.items()


def test_the_end_of_an_epoch_ends_an_interval(tmp_path):
    log = RunLog(tmp_path, interval=4)
    given = [log.step(at(i, batches=6), report()) is not None for i in range(1, 7)]
    assert given == [False, False, False, True, False, True]


@pytest.mark.parametrize("data, step, share", [(0, 0, 0), (0, 1, 0), (2, 0, 1), (1, 3, 0.25)])
def test_waiting_is_a_share(tmp_path, data, step, share):
    record = RunLog(tmp_path, interval=1).step(at(1), report(data=data, step=step))
    assert record["waiting"] == pytest.approx(share, abs=0.01)


def test_numbers_that_are_not_finite_become_null(tmp_path):
    RunLog(tmp_path).write(
        {"kind": "train", "iteration": 1, "loss": math.nan, "t": {"a": math.inf}}
    )
    (written,) = records(tmp_path)
    assert written["loss"] is None and written["t"] == {"a": None}


def test_trackers_hear_the_numbers_of_every_record_by_name(tmp_path):
    tracker = Remembers()
    log = RunLog(tmp_path, [tracker], interval=1)
    log.step(at(7), report(loss=2.0))
    log.write({"kind": "evaluation", "iteration": 7, "weights": "ema", "scores": {"rank-1": 0.5}})
    log.write({"kind": "resume", "iteration": 7, "epoch": 1})  # no number worth a curve
    log.close()
    (_, step, train), (_, again, evaluation), last = tracker.heard
    assert step == again == 7
    assert train["train/loss"] == 2.0 and train["train/terms/triplet"] == 1.0
    assert 0 <= train["train/waiting"] <= 1
    assert evaluation == {"evaluation/scores/rank-1": 0.5}
    assert last == ("close",)


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_tracker_that_fails_is_told_once_and_left_alone(tmp_path, caplog, failing):
    broken, sound = Remembers(failing), Remembers()
    log = RunLog(tmp_path, [broken, sound])
    for iteration in (1, 2):
        log.write({"kind": "train", "iteration": iteration, "loss": 1.0})
    log.close()
    assert len(broken.heard) == failing
    assert len(sound.heard) == 3
    assert len(records(tmp_path)) == 2
    (warning,) = caplog.messages
    assert warning == "Remembers failed, the run goes on without it: the server is gone"


def test_closing_twice_closes_once(tmp_path):
    tracker = Remembers()
    log = RunLog(tmp_path, [tracker])
    log.close()
    log.close()
    assert tracker.heard == [("close",)]


def test_rewinding_forgets_what_comes_again_and_a_line_cut_off_by_a_kill(tmp_path):
    tracker = Remembers()
    log = RunLog(tmp_path, [tracker])
    for iteration in (10, 20, 30):
        log.write({"kind": "train", "iteration": iteration})
    for junk in (b'{"kind": "train", "iterat', b"7\n[]\nnull\n\xff\n"):
        with log.path.open("ab") as file:
            file.write(junk)
    log.rewind(20)
    log.write({"kind": "train", "iteration": 30})
    assert [record["iteration"] for record in records(tmp_path)] == [10, 20, 30]
    assert tracker.heard[-1] == ("rewind", 20)


def test_rewinding_a_run_without_a_log_is_fine(tmp_path):
    RunLog(tmp_path).rewind(20)
    assert not (tmp_path / "log.jsonl").exists()


def test_records_that_a_full_disk_refuses_come_when_it_has_room(tmp_path, caplog):
    log = RunLog(tmp_path)
    log.write({"kind": "train", "iteration": 1})
    path, log.path = log.path, tmp_path  # a folder cannot be appended to
    log.write({"kind": "train", "iteration": 2})
    log.write({"kind": "train", "iteration": 3})
    assert len(caplog.messages) == 1 and "wait in memory" in caplog.text
    log.path = path
    log.write({"kind": "train", "iteration": 4})
    assert [record["iteration"] for record in records(tmp_path)] == [1, 2, 3, 4]


def test_half_a_line_on_a_full_disk_is_taken_back(tmp_path):
    log = RunLog(tmp_path)
    log.write({"kind": "train", "iteration": 1})
    size = log.path.stat().st_size
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
        log.write({"kind": "train", "iteration": 2})
        assert log.path.stat().st_size == size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    log.write({"kind": "train", "iteration": 3})
    assert [record["iteration"] for record in records(tmp_path)] == [1, 2, 3]


def test_another_rank_than_the_first_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "is_main", lambda: False)
    tracker = Remembers()
    log = RunLog(tmp_path / "run", [tracker], interval=1)
    assert log.step(at(1), report()) is None
    log.write({"kind": "train", "iteration": 1})
    log.rewind(0)
    assert not (tmp_path / "run").exists()
    assert [words[0] for words in tracker.heard] == []


SETTINGS = {"workers": 2, "cores": 2, "kind": "threads", "packed": False}


@pytest.mark.parametrize("waiting", [0.0, 0.1, 0.2])
def test_no_advice_where_the_device_hardly_waits(waiting):
    assert advice(waiting, **SETTINGS) is None


@pytest.mark.parametrize(
    "changed, knob",
    [
        ({"workers": 0}, "set data.workers=2"),
        ({"workers": 0, "cores": 1}, "set data.workers=1"),
        ({"workers": 0, "cores": 64}, "set data.workers=4"),
        ({"workers": 4, "cores": 64}, "set data.workers=8"),
        ({"workers": 6, "cores": 8}, "set data.workers=8"),
        ({}, "`reidkit data pack`"),
        ({"workers": 9}, "data.store"),
        ({"kind": "processes"}, "data.store"),
        ({"packed": True}, "data.worker_kind=processes"),
        ({"packed": True, "kind": "processes"}, "data.augment"),
    ],
)
def test_advice_names_the_next_knob(changed, knob):
    line = advice(0.456, **(SETTINGS | changed))
    assert line.startswith("waiting for data takes 46 % of a step; ")
    assert knob in line
    assert "\n" not in line


def test_the_same_cause_has_the_same_words_whatever_was_measured():
    one, other = (advice(waiting, **SETTINGS).partition(";")[2] for waiting in (0.3, 0.9))
    assert one == other


@pytest.mark.parametrize("waiting", [-0.1, 1.1, math.nan, math.inf])
def test_a_share_outside_its_range_is_refused(waiting):
    with pytest.raises(ValueError, match=r"expected in \[0, 1\]"):
        advice(waiting, **SETTINGS)


def test_rewinding_by_epochs_keeps_records_of_another_count_of_batches(tmp_path):
    log = RunLog(tmp_path)
    for epoch, iteration in ((9.5, 950), (10.0, 1000), (10.5, 525), (11.0, 550)):
        log.write({"kind": "train", "epoch": epoch, "iteration": iteration})
    log.rewind(525, 10.5)
    assert [record["epoch"] for record in records(tmp_path)] == [9.5, 10.0, 10.5]
    log.rewind(500, 10.0)
    assert [record["epoch"] for record in records(tmp_path)] == [9.5, 10.0]
