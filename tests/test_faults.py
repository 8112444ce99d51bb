"""Killed, damaged and full, a training ends with the bits of one that nobody disturbed; and the
tool that says so would notice if it did not."""

import json
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from reidkit.engine import save_state

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tools"))

import fault_test  # noqa: E402
from faults.folders import changed, differences, digest, unreadable  # noqa: E402
from faults.kinds import KINDS  # noqa: E402
from faults.lives import Disk, Fault, Run, World  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tool is for Linux")

SHORT = ("optim.epochs=8", "evaluate.pictures=0")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("faults"), overrides=SHORT)


@pytest.fixture(scope="module")
def references(world):
    return fault_test.undisturbed_by(world, list(KINDS), jobs=1)


@pytest.mark.slow
def test_after_every_kind_of_fault_the_weights_are_those_of_an_undisturbed_run(world, references):
    """The short form; the full one is `python tools/fault_test.py`, by hand."""
    tally = fault_test.fault_test(world, references, list(KINDS), jobs=1)
    print("\n".join(tally.stories), tally.table(), sep="\n")
    assert tally.good(), tally.table()
    once = Counter(list(KINDS))
    assert tally.kills == tally.resumes == tally.identical == once
    assert not tally.unreadable


@pytest.mark.slow
def test_a_resume_that_forgets_the_random_numbers_is_found_out(world, references, tmp_path):
    # The references' random numbers: without a resume the plugin changes nothing.
    words = (*SHORT, "plugins=[tests.plugins.forgets_draws]")
    forgetful = World(tmp_path, overrides=words)
    (tmp_path / "data").symlink_to(world.folder / "data")
    tally = fault_test.fault_test(forgetful, references, ["term"], jobs=1)
    assert not tally.good()
    assert tally.kills == Counter(term=1) and not tally.identical
    assert "differences" in tally.failures[0]


STATE = {
    "state": {
        "task": {"w": torch.tensor([1.0, 2.0]), "memory": torch.tensor([3, 1])},
        "optimizers": {"main": {"state": {0: {"exp_avg": torch.zeros(2)}}}},
        "ema": {"w": torch.tensor([1.5]), "n_averaged": torch.tensor(7)},
        "rng": [torch.arange(4, dtype=torch.uint8)],
        "best": {"score": 0.25, "epoch": 3},
        "batch": 2,
    },
    "schedule": {"factor": 0.1},
    "seconds": 12.5,
}
STEP = {"kind": "train", "epoch": 1, "iteration": 1, "loss": 1.0, "terms": {"t": 1.0}, "lr": 0.1}


def made(path, *, weights=(1.0, 2.0), state=STATE, steps=(STEP,), scores=0.5):
    """A run folder with a file of each kind."""
    path.mkdir()
    save_file({"w": torch.tensor(weights)}, path / "model.safetensors")
    for name in ("state.pt", "state.1.pt"):
        save_state(path / name, state)
    for name in ("config.yaml", "data.json", "model.json"):
        (path / name).write_text('{"a": 1}')
    (path / "scores.json").write_text(json.dumps({"synthetic": {"mAP": scores}}))
    (path / "log.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    Image.new("RGB", (64, 64), (200, 30, 30)).save(path / "curves.png")
    return path


def other(tree, path, value):
    """The same tree, but for one entry."""
    if not path:
        return value
    key, *rest = path
    if isinstance(tree, list):
        return [other(v, rest, value) if i == key else v for i, v in enumerate(tree)]
    return {**tree, key: other(tree[key], rest, value)}


def test_two_runs_of_the_same_bits_do_not_differ_whatever_time_they_took(tmp_path):
    one = made(tmp_path / "one")
    steps = ({**STEP, "time": 5.0, "step_seconds": 0.1}, {"kind": "resume", "iteration": 1})
    two = made(tmp_path / "two", state={**STATE, "seconds": 99.0}, steps=steps)
    assert differences(one, two) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("task", "w"), torch.tensor([1.0, 2.0000002])),
        (("task", "w"), torch.tensor([1.0, 2.0], dtype=torch.float64)),
        (("task", "memory"), torch.tensor([3, 0])),
        (("optimizers", "main", "state", 0, "exp_avg"), torch.tensor([0.0, -0.0])),
        (("ema", "n_averaged"), torch.tensor(8)),
        (("ema", "w"), torch.tensor([[1.5]])),
        (("rng", 0), torch.tensor([0, 1, 2, 4], dtype=torch.uint8)),
        (("rng",), [*STATE["state"]["rng"], torch.zeros(1)]),
        (("best", "score"), 0.25000000000000006),
        (("batch",), 3),
        (("ema",), None),
    ],
)
def test_any_part_of_the_state_that_differs_is_named(tmp_path, path, value):
    one = made(tmp_path / "one")
    two = made(tmp_path / "two", state={**STATE, "state": other(STATE["state"], path, value)})
    (told,) = differences(one, two)
    assert told.startswith("state.pt: state." + ".".join(map(str, path)))


def test_a_part_that_is_absent_or_new_is_named():
    assert list(changed({"a": 1}, {})) == ["a is in one of them only"]
    assert list(changed({}, {"a": {"b": 1}})) == ["a is in one of them only"]
    nan = torch.tensor(float("nan"))
    assert list(changed({"a": nan}, {"a": nan.clone()})) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weights": (1.0, 2.0000002)}, "model.safetensors: w"),
        ({"state": {**STATE, "schedule": {"factor": 0.2}}}, "state.pt: schedule.factor is 0.2"),
        ({"scores": 0.51}, "scores.json: synthetic.mAP is 0.51"),
        ({"steps": ({**STEP, "loss": 1.0000000000000002},)}, "log.jsonl: 0.loss"),
        ({"steps": (STEP, STEP)}, "log.jsonl: it has 2 entries"),
        ({"steps": ()}, "log.jsonl: it has 0 entries"),
    ],
)
def test_any_file_that_differs_is_named(tmp_path, change, told):
    (found,) = differences(made(tmp_path / "one"), made(tmp_path / "two", **change))
    assert found.startswith(told)


def test_a_file_that_is_missing_or_left_over_is_named(tmp_path):
    one, two = made(tmp_path / "one"), made(tmp_path / "two")
    (two / "data.json").unlink()
    (two / ".scores.json.tmp").touch()
    assert differences(one, two) == ["data.json is missing", ".scores.json.tmp was left over"]


NAMES = ("state.pt", "state.1.pt", "model.safetensors", "data.json", "log.jsonl", "curves.png")


@pytest.mark.parametrize("kept", [0.5, 0.0])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_cut_off_is_unreadable(tmp_path, name, kept):
    run = made(tmp_path / "run")
    assert unreadable(run) == []
    data = (run / name).read_bytes()
    (run / name).write_bytes(data[: int(kept * len(data))])
    if name == "log.jsonl" and not kept:
        assert unreadable(run) == []  # before its first line
        return
    (told,) = unreadable(run)
    assert told.startswith(f"{name}: ")


def test_an_empty_config_is_unreadable_a_hidden_file_is_nobodys(tmp_path):
    run = made(tmp_path / "run")
    (run / ".state.pt.tmp").write_bytes(b"half")
    assert unreadable(run) == []
    (run / "config.yaml").write_text("")
    assert unreadable(run) == ["config.yaml: holds None"]


def test_a_flipped_bit_in_the_state_is_unreadable_unless_the_test_has_flipped_it(tmp_path):
    run = made(tmp_path / "run")
    data = bytearray((run / "state.pt").read_bytes())
    data[data.index(bytes(STATE["state"]["task"]["w"].numpy().tobytes()))] ^= 1
    (run / "state.pt").write_bytes(data)
    assert [line.split(":")[0] for line in unreadable(run)] == ["state.pt"]
    assert unreadable(run, frozenset([digest(run / "state.pt")])) == []


def a_run(out, said="", processes=1):
    """A run whose last life has ended, and said this."""
    run = Run(World(out), out, out, 72, 5.0, random.Random(0), processes)
    run.life = SimpleNamespace(said=said, last_words=lambda: said)
    return run


def test_a_resume_has_to_pass_over_what_the_test_has_damaged(tmp_path):
    out = made(tmp_path / "run")
    run = a_run(out)
    assert run.states() == ([], "state.pt")
    (out / "state.pt").write_bytes(b"cut")
    run.damaged.add(digest(out / "state.pt"))
    assert run.states() == (["state.pt"], "state.1.pt")


TOLD = "state.pt is damaged (is empty): going on from state.1.pt\nresumed at epoch 2, batch 1"


@pytest.mark.parametrize(
    ("said", "expected", "wrong"),
    [
        (TOLD, (["state.pt"], "state.1.pt"), None),
        ("resumed at epoch 2, batch 1", ([], "state.pt"), None),
        ("killed too early to say it", (["state.pt"], "state.1.pt"), None),
        ("resumed at epoch 2, batch 1", (["state.pt"], "state.1.pt"), "did not tell"),
        (TOLD, (["state.pt"], "state.2.pt"), "did not tell"),
        (TOLD, ([], "state.pt"), r"calls \['state.pt'\] damaged"),
        ("Traceback (most recent call last)\nKeyError: 1", ([], ""), "a traceback"),
    ],
)
def test_what_a_life_says_of_damaged_states_is_checked(tmp_path, said, expected, wrong):
    run = a_run(tmp_path, said)
    run.expected = expected
    if wrong is None:
        run.check_life()
    else:
        with pytest.raises(Fault, match=wrong):
            run.check_life()


def test_a_plan_has_of_each_kind_about_as_many_and_an_order_that_the_seed_decides():
    faults = fault_test.plan(17, list(KINDS), seed=3)
    counts = Counter(faults)
    assert counts.total() == 17 and set(counts) == set(KINDS)
    assert max(counts.values()) - min(counts.values()) == 1
    assert faults == fault_test.plan(17, list(KINDS), seed=3) != fault_test.plan(17, list(KINDS), 4)
    parts = fault_test.portions(faults)
    assert sorted(fault for part in parts for fault in part) == sorted(faults)
    assert all(len(part) <= fault_test.TOGETHER for part in parts)
    assert all(len(set(part)) == 1 for part in parts if "rank" in part)


def full_tally(**changes):
    tally = fault_test.Tally(*(Counter(kill=2, save=1) for _ in range(3)))
    for name, value in changes.items():
        setattr(tally, name, value)
    return tally


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"identical": Counter(kill=2)}, False),
        ({"resumes": Counter(kill=1, save=1)}, False),
        ({"failures": ["log.jsonl"]}, False),
        ({"unreadable": Counter(kill=1)}, False),
    ],
)
def test_the_tool_ends_with_an_error_when_anything_differs(
    monkeypatch, tmp_path, capsys, changes, good
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["fault_test.py", "--kills", "3"])
    monkeypatch.setattr(fault_test, "undisturbed_by", lambda *args: {})
    monkeypatch.setattr(fault_test, "fault_test", lambda *args, **options: full_tally(**changes))
    code = 0
    try:
        fault_test.main()
    except SystemExit as stop:
        code = stop.code
    assert code == (0 if good else 1)
    assert len(list(tmp_path.iterdir())) == code  # the runs stay where there is something to see
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["fault", "kills", "resumes", "identical", "unreadable", "files"]
    assert lines[3].split()[:2] == ["total", "3"]


@pytest.mark.parametrize("words", [["--kinds", "kill,explode"], ["--kills", "0"]])
def test_a_wrong_call_of_the_tool_is_refused(monkeypatch, capsys, words):
    monkeypatch.setattr(sys, "argv", ["fault_test.py", *words])
    with pytest.raises(SystemExit, match="2"):
        fault_test.main()
    assert words[1].split(",")[-1] in capsys.readouterr().err


SAVE_TWICE = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from dying import die
from reidkit.files import write_atomically
die(sys.argv[2], int(sys.argv[3]), sys.argv[4])
write_atomically(Path("file"), b"first")
write_atomically(Path("file"), b"second")
"""


@pytest.mark.parametrize(
    ("call", "number", "moment", "file", "beside"),
    [
        ("replace", 1, "before", None, b"first"),
        ("replace", 2, "before", b"first", b"second"),
        ("replace", 2, "after", b"second", None),
        ("fsync", 4, "after", b"second", None),  # the folder, for the second time: all is done
        ("write", 3, "before", None, b"fir"),
        ("write", 7, "before", b"first", b"se"),
    ],
)
def test_a_process_kills_itself_where_it_is_told_to(tmp_path, call, number, moment, file, beside):
    words = [str(ROOT / "tools" / "faults"), call, str(number), moment]
    done = subprocess.run(
        [sys.executable, "-c", SAVE_TWICE, *words], cwd=tmp_path, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    for name, content in (("file", file), (".file.tmp", beside)):
        path = tmp_path / name
        assert (path.read_bytes() if path.is_file() else None) == content


def test_a_full_disk_is_full_until_it_is_freed(tmp_path):
    disk = Disk(tmp_path / "disk")
    try:
        if not disk.real:
            pytest.skip("no disk of its own is permitted here")
        life = SimpleNamespace()
        for leave in (0, 1 << 16):
            disk.fill(life, leave)
            disk.fill(life, leave)
            (disk.folder / "fits").write_bytes(bytes(leave))
            with pytest.raises(OSError, match="No space left"):
                (disk.folder / "more").write_bytes(bytes(1 << 13))
            disk.free()
            (disk.folder / "more").write_bytes(bytes(1 << 20))
            (disk.folder / "more").unlink()
    finally:
        disk.close()
    assert list((tmp_path / "disk").iterdir()) == []  # it was another disk
