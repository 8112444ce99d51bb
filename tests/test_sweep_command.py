"""`reidkit sweep` as a person uses it: two real trainings, the others faked."""

import json
import os
import shlex
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from reidkit.compose import sweep as sweeping
from tests.test_sweep import MARGIN, SMOKE, Fake, rewrite

CHEAP = ("evaluate.untrained=false", "evaluate.pictures=0", "tensorboard=false")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder for the benchmarks, so that the tiny world is rendered once."""
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture
def faked(monkeypatch, tmp_path, world):
    """Trainings are faked, and the folder is a fresh one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REIDKIT_DATA", str(world))
    made = []

    def make(**options):
        monkeypatch.setattr(
            sweeping, "Processes", lambda **_: made.append(Fake(**options)) or made[-1]
        )
        return made

    make()
    return make


def test_a_grid_prints_its_table_and_the_same_call_trains_nothing_more(call, faked):
    made = faked()
    words = ("sweep", SMOKE, f"{MARGIN}=0.2,0.4", "--seeds", "2", "--metrics", "rank-1,mAP,rank-1")
    code, out, error = call(*words)
    assert code == 0, error
    folder = Path("runs/sweep-smoke-resnet_ranked_list")
    assert {path.name for path in folder.iterdir()} > {"sweep.csv", "sweep.json", "sweep.png"}
    assert (folder / "margin=0.2" / "seed-1" / "config.yaml").is_file()
    assert "79.50 +- 0.71" in out and "pixels" in out
    assert f"reidkit train {SMOKE} {MARGIN}=0.2" in out
    code, again, _ = call(*words)
    assert code == 0 and "4 finished before, 0 to go on with, 0 to begin" in again
    assert made[-1].trained == [] and again.endswith(out.partition("\n\n")[2])


def test_json_is_all_that_is_printed(call, faked):
    code, out, error = call("sweep", SMOKE, f"{MARGIN}=0.2,0.4", "--seeds", "5,", "--json")
    plain = json.loads(out)
    assert code == 0 and plain["seeds"] == [5] and len(plain["rows"]) == 2
    assert "[2/2]" in error
    assert plain["rows"][0]["overrides"] == [f"{MARGIN}=0.2"]


def test_a_failed_run_is_exit_code_1_and_a_stopped_sweep_says_how_to_go_on(call, faked):
    faked(fail={"margin=0.2 seed 0": "out of memory"})
    words = ("sweep", SMOKE, f"{MARGIN}=0.2,0.4", "--seeds", "1")
    code, out, _ = call(*words)
    assert code == 1 and "failed: margin=0.2 seed 0: out of memory" in out
    faked(stop_after=0)
    code, out, error = call(*words)
    assert code == 1
    assert "stopped; 1 of 2 runs are finished, 1 more begun and saved; go on" in error
    command = shlex.split(error.rpartition("go on with: ")[2].strip())
    assert command[1:] == [str(word) for word in words]
    faked()
    assert call(*command[1:])[0] == 0


def test_variants_multiply_with_the_grid(call, faked):
    Path("grid.yaml").write_text(f'near: ["{MARGIN}=0.3"]\nfar: ["{MARGIN}=0.9"]\n')
    words = ("sweep", SMOKE, "optim.epochs=1,2", "--grid", "grid.yaml", "--seeds", "2")
    code, out, error = call(*words, "--out", "s")
    assert code == 0, error
    assert Path("s/near,epochs=2/seed-0").is_dir()
    assert "not the same budget: 2 to 4 steps" in out


def test_a_dry_run_lists_the_runs_and_makes_nothing(call, faked):
    words = ("sweep", SMOKE, f"{MARGIN}=0.2,0.4", "--seeds", "2", "--out", "s")
    code, out, _ = call(*words, "--dry-run")
    assert code == 0 and out.count("new ") == 4 and not Path("s").exists()
    call(*words)
    code, out, _ = call(*words, "--dry-run", "--json")
    plain = json.loads(out)
    assert [run["state"] for run in plain["runs"]] == ["finished"] * 4


@pytest.mark.parametrize(
    "words, told",
    [
        ((f"{MARGIN}=0.2,wide",), "margin=wide: losses.1"),
        (("losses.7.margin=1",), "not a position"),
        (("seed=1,2",), "--seeds"),
        (("--seeds", "x"), "--seeds x"),
        (("--minutes", "3"), "--minutes is for --search"),
        (("--grid", "none.yaml"), "no such file of variants"),
        ((f"{MARGIN}=0.1..0.5",), "a range is for --search"),
        (("optim.lr=0.1,0.10",), "are the same config"),
        (("data.test=[]",), "data.test is empty"),
        (("data.test=[synthetic],[market1501]",), "compares scores on one test set"),
        (("--out", SMOKE), "is a file; name a folder"),
        (("--out", SMOKE / "s"), "resnet_ranked_list.yaml is a file; name a folder"),
    ],
)
def test_a_wrong_call_is_one_message_before_anything_is_trained(call, faked, words, told):
    made = faked()
    code, _, error = call("sweep", SMOKE, *words)
    assert code == 2 and told in error and not made and not Path("runs").exists()


def test_a_score_that_nobody_reports_is_a_wrong_call(call, faked):
    made = faked()
    code, _, error = call("sweep", SMOKE, "--metrics", "R@9,mAP")
    assert code == 2 and "--metrics R@9: synthetic reports: mAP, mINP, rank-1" in error
    assert not made and not Path("runs").exists()


def test_a_damaged_file_of_a_run_is_one_line_that_names_it(call, faked):
    words = ("sweep", SMOKE, f"{MARGIN}=0.2,0.4", "--seeds", "1", "--out", "s")
    call(*words)
    for name in ("scores.json", "model.json"):
        path = Path("s/margin=0.4/seed-0", name)
        whole = path.read_text()
        path.write_text(whole[:20])
        code, _, error = call(*words)
        assert code == 1 and f"{path} is damaged" in error and "Traceback" not in error
        path.write_text(whole)
    assert call(*words)[0] == 0


def test_a_table_that_cannot_be_drawn_is_not_lost(call, faked, monkeypatch):
    def breaks(*_, **__):
        raise ValueError("no\nway")

    monkeypatch.setattr(sweeping.conduct.visualise, "sweep_chart", breaks)
    code, out, _ = call("sweep", SMOKE, f"{MARGIN}=0.2,0.4", "--seeds", "1", "--out", "s")
    assert code == 1 and out.index("79.00") < out.index("not drawn: s/sweep.png: no way\n")
    code, out, error = call("sweep", SMOKE, "--seeds", "1", "--out", "t", "--json")
    assert code == 1 and json.loads(out)["rows"] and "not drawn" in error


def test_a_table_of_another_grid_gives_way_and_that_is_said(call, faked):
    words = ("sweep", SMOKE, "--seeds", "1", "--out", "s")
    replaced = "sweep.json of another grid (losses.1.margin) is replaced; its runs stay"
    for values, said in ((("0.2", "0.4"), False), (("0.2", "0.4", "0.6"), False)):
        code, out, _ = call(*words, f"{MARGIN}={','.join(values)}")
        assert code == 0 and (replaced in out) == said
    code, out, _ = call(*words, "optim.lr=1e-3,1e-4")
    assert code == 0 and replaced in out and Path("s/margin=0.2/seed-0").is_dir()


def test_data_that_changed_since_a_run_finished_is_refused(call, faked):
    words = ("sweep", SMOKE, f"{MARGIN}=0.2,0.4", "--seeds", "1", "--out", "s")
    call(*words)
    for run in Path("s").glob("margin*/seed-0"):
        rewrite(run / "data.json", fingerprint="0123")
    before = len(faked())
    code, _, error = call(*words)
    assert code == 2 and "the data changed since" in error and "name another --out" in error
    assert len(faked()) == before, "before anything is trained"


def test_a_sweep_is_not_started_by_torchrun(call, faked, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert call("sweep", SMOKE)[0] == 2
    monkeypatch.setenv("RANK", "0")
    assert "without torchrun" in call("sweep", SMOKE)[2]


def test_a_search_prints_its_table(call, faked):
    pytest.importorskip("optuna", reason="pip install 'reidkit[search]'")
    words = ("sweep", SMOKE, f"{MARGIN}=0.1..0.9", "--search", "2", "--seeds", "1", "--out", "s")
    code, out, _ = call(*words, "--dry-run")
    assert code == 0 and "2 runs" in out and not Path("s").exists()
    code, out, error = call(*words)
    assert code == 0, error
    assert "[2/2] trial-001" in out and "flatter" in out


def test_a_search_without_optuna_says_how_to_get_it(call, faked, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, error = call("sweep", SMOKE, f"{MARGIN}=0.1..0.9", "--search", "2")
    assert code == 1 and "pip install 'reidkit[search]'" in error


def test_two_sweeps_do_not_share_a_folder(call, faked):
    with sweeping.alone_in(Path("s")):
        code, _, error = call("sweep", SMOKE, "--out", "s")
    assert code == 2 and "another sweep works here" in error


def test_the_help_warns_of_choosing_by_the_test_set(call):
    code, out, _ = call("sweep", "--help")
    assert code == 0 and "overfits" in out and "validation" in out
    assert "stay failed" in " ".join(out.replace("\u2502", " ").split())


# Real trainings


@pytest.fixture
def real(monkeypatch, world):
    monkeypatch.setenv("REIDKIT_DATA", str(world))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@contextmanager
def ctrl_c_when(is_time):
    """Ctrl-C in this process as soon as it is time."""
    over = threading.Event()

    def watch():
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not over.wait(0.01):
            if is_time():
                os.kill(os.getpid(), signal.SIGINT)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@pytest.mark.slow
def test_a_sweep_that_is_stopped_saves_its_trainings_and_goes_on(call, real, tmp_path):
    run = tmp_path / "s" / "resnet_ranked_list" / "seed-0"
    log = run / "log.jsonl"
    words = ("sweep", SMOKE, *CHEAP, "optim.epochs=40", "evaluate.every=0", "--seeds", "1")
    with ctrl_c_when(lambda: log.is_file() and len(log.read_text().splitlines()) >= 6):
        code, _, error = call(*words, "--out", tmp_path / "s")
    assert code == 1 and "0 of 1 runs are finished" in error
    told = run.joinpath("console.txt").read_text()
    assert "--resume" in told and "Traceback" not in told, "it was stopped once, and has saved"
    assert (run / "state.pt").is_file() and "trained" not in (run / "scores.json").read_text()

    code, printed, error = call(*words, "--out", tmp_path / "s")
    assert code == 0, error
    assert "0 finished before, 1 to go on with, 0 to begin" in printed
    told = run.joinpath("console.txt").read_text()
    assert "resumed at epoch" in told
    (row,) = json.loads((tmp_path / "s" / "sweep.json").read_text())["rows"]
    spent = row["spent"]
    assert spent["steps"] == 80 and spent["images"] == 80 * 16 and spent["seconds"] > 0
    assert f"{spent['weights']:,} weights to train" in told and spent["weights"] > 100_000


@pytest.mark.slow
def test_a_training_that_fails_does_not_end_the_others(call, real, tmp_path, monkeypatch):
    (tmp_path / "breaks_in_a_sweep.py").write_text(
        "from reidkit.engine import OPTIMIZERS\n"
        '@OPTIMIZERS.register("breaks_in_a_sweep")\n'
        "def breaks(params, lr, weight_decay):\n"
        '    raise ValueError("this optimiser breaks")\n'
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path)
    words = ("plugins=[breaks_in_a_sweep]", "optim.name=breaks_in_a_sweep,adamw")
    more = ("--seeds", "1", "--jobs", "2", "--out", tmp_path / "s", "--json")
    code, out, error = call("sweep", SMOKE, *CHEAP, *words, *more)
    assert code == 1, error
    plain = json.loads(out)
    rows = {row["name"]: row for row in plain["rows"]}
    assert rows["name=breaks_in_a_sweep"]["failed"] == {"0": "this optimiser breaks"}
    assert rows["name=adamw"]["runs"] == 1 and "pixels" in plain["baselines"]
