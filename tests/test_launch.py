"""Training, evaluation and extraction by several processes, as torchrun starts them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reidkit.engine import load_state
from reidkit.types import Features
from tests.test_end_to_end import SMOKE

ROOT = Path(__file__).parent.parent
CONFIG = SMOKE / "resnet_ranked_list.yaml"
# SGD, because Adam turns the rounding of a vanishing gradient into a whole step.
WORDS = (
    "optim.name=sgd",
    "optim.lr=0.001",
    "optim.sync_bn=true",
    "optim.epochs=2",
    "evaluate.every=0",
    "evaluate.pictures=0",
    "evaluate.baselines=[]",
    "data.augment.erasing=0.5",
    "data.batch.camera_balanced=false",
)


def run(tool, *words, processes=1, launch=(), check=True):
    """A tool in so many processes; what it printed."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    start += ["--nproc-per-node", str(processes), *launch]
    command = start if processes > 1 or launch else [sys.executable]
    done = subprocess.run(
        [*command, f"tools/{tool}.py", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def records_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REIDKIT_DATA", str(folder))
        yield folder


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory):
    """The same training by one process, and by two."""
    folder = tmp_path_factory.mktemp("runs")
    for processes in (1, 2):
        out = folder / str(processes)
        done = run("train", CONFIG, *WORDS, "--out", out, "--json", processes=processes)
        (folder / f"{processes}.json").write_text(done.stdout)
    return folder


@pytest.mark.slow
def test_two_processes_train_what_one_trains(runs):
    one, two = (load_file(runs / name / "model.safetensors") for name in "12")
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4, msg=name)
    start = torch.load(runs / "1" / "state.pt", weights_only=True)
    assert start["state"]["epoch"] == 2


@pytest.mark.slow
def test_one_process_alone_writes_and_speaks(runs):
    report = json.loads((runs / "2.json").read_text())  # one document: the others were silent
    assert report["run"] == str(runs / "2")
    one, two = (
        [record for record in records_of(runs / name) if record["kind"] == "train"] for name in "12"
    )
    assert [r["loss"] for r in one] == pytest.approx([r["loss"] for r in two], rel=1e-3)
    iterations = [record["iteration"] for record in two]
    assert iterations == sorted(set(iterations))
    assert load_state(runs / "2" / "state.pt")["state"]["world"] == 2


@pytest.mark.slow
def test_two_processes_evaluate_and_extract_what_one_does(runs, tmp_path, world):
    alone = json.loads(run("evaluate", runs / "1", "--json", "--out", tmp_path / "a.json").stdout)
    shared = run("evaluate", runs / "1", "--json", "--out", tmp_path / "b.json", processes=2)
    assert json.loads(shared.stdout) == alone
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()
    (pictures,) = world.glob("synthetic-v1-8+6-c2-*/query")
    run("extract", runs / "1", pictures, "--out", tmp_path / "one.npz")
    run("extract", runs / "1", pictures, "--out", tmp_path / "two.npz", processes=2)
    one, two = (Features.load(tmp_path / f"{name}.npz") for name in ("one", "two"))
    assert torch.equal(one.vectors, two.vectors) and one.samples == two.samples
    assert not (tmp_path / "two.npz.partial").exists()


@pytest.mark.slow
def test_a_wrong_config_is_told_once_however_many_processes(tmp_path):
    done = run("train", CONFIG, "optim.epoch=3", "--out", tmp_path / "r", processes=2, check=False)
    assert done.returncode != 0
    assert len(re.findall("Did you mean 'epochs'", done.stderr)) == 1
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_changed_number_of_processes_goes_on_and_is_recorded(runs, tmp_path):
    words = (CONFIG, *WORDS, "--out", tmp_path / "r")
    stopped = run("train", *words, "plugins=[tests.plugins.stops_early]", processes=2, check=False)
    assert "go on with:" in stopped.stderr
    resumed = run("train", *words, "plugins=[tests.plugins.stops_early]", "--resume")
    assert "2 processes before, 1 now" in resumed.stdout
    assert [r["processes"] for r in records_of(tmp_path / "r") if r["kind"] == "resume"] == [1]
    one, two = (load_file(folder / "model.safetensors") for folder in (runs / "1", tmp_path / "r"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.slow
def test_a_batch_in_each_process_is_larger_and_its_rate_with_it(tmp_path):
    few = ("optim.epochs=1", "data.batch.per_process=true", "optim.schedule={name: constant}")
    rates = {}
    for scale in ("none", "linear", "sqrt"):
        words = (CONFIG, *WORDS, *few, f"optim.scale_rate={scale}", "--out", tmp_path / scale)
        run("train", *words, processes=2)
        (record,) = [r for r in records_of(tmp_path / scale) if r["kind"] == "train"]
        rates[scale] = record["lr"]  # one batch of 8 x 4, where one process has two of 4 x 4
    assert rates == pytest.approx({"none": 0.001, "linear": 0.002, "sqrt": 0.001 * 2**0.5})


@pytest.mark.slow
def test_a_slow_save_of_the_first_process_is_waited_for_by_all(tmp_path):
    plugins = "plugins=[tests.plugins.stops_early, tests.plugins.writes_slowly]"
    launch = run(
        "train", CONFIG, *WORDS, plugins, "--out", tmp_path / "r", processes=2, check=False
    )
    assert "go on with:" in launch.stderr
    state = load_state(tmp_path / "r" / "state.pt")["state"]
    assert (state["epoch"], state["batch"]) == (0, 2)


@pytest.mark.slow
def test_restarts_need_a_folder_that_a_restarted_worker_finds(tmp_path):
    done = run("train", CONFIG, *WORDS, processes=2, launch=("--max-restarts", "1"), check=False)
    assert "--max-restarts needs --out" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("method", ["smp", "cluster_contrast", "buc"])
def test_two_processes_find_the_labels_and_hold_the_memory_of_one(tmp_path, method):
    # A rate at which rounding stays rounding: batches of four rows are chaotic.
    words = ("optim.name=sgd", "optim.lr=1e-5", "optim.sync_bn=true", "evaluate.every=0")
    for processes in (1, 2):
        out = tmp_path / str(processes)
        run("train", SMOKE / f"{method}.yaml", *words, "--out", out, processes=processes)
    one, two = (load_state(tmp_path / name / "state.pt") for name in "12")
    assert one["round"]["number"] == two["round"]["number"] == 2
    assert torch.equal(one["round"]["labels"], two["round"]["labels"])
    for name, value in one["state"]["task"].items():
        torch.testing.assert_close(
            two["state"]["task"][name], value, rtol=1e-3, atol=1e-4, msg=name
        )
