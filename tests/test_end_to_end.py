"""The command line as a person uses it, on a tiny synthetic world."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from reidkit.engine import Checkpointer
from reidkit.types import Features

ROOT = Path(__file__).parent.parent
SMOKE = ROOT / "configs" / "smoke"
RANKED_LIST = SMOKE / "resnet_ranked_list.yaml"


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A folder for the benchmarks, so that the tiny world is rendered once."""
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture(autouse=True)
def in_this_world(monkeypatch, world):
    """Benchmarks are looked for where the tiny world is."""
    monkeypatch.setenv("REIDKIT_DATA", str(world))


@pytest.fixture(scope="session")
def trained(world, tmp_path_factory):
    """The run folder of the first smoke config, trained as a person would."""
    out = tmp_path_factory.mktemp("runs") / "trained"
    command = [sys.executable, "tools/train.py", str(RANKED_LIST), "--out", str(out), "--json"]
    environment = {**os.environ, "REIDKIT_DATA": str(world)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def test_a_run_folder_holds_what_is_promised(trained):
    out, printed = trained
    names = {"config.yaml", "log.jsonl", "scores.json", "state.pt", "model.safetensors"}
    names |= {"model.json", "ranked.png", "curves.png", "data.json"}
    assert names <= {path.name for path in out.iterdir()}
    scores = json.loads((out / "scores.json").read_text())["synthetic"]
    assert set(scores) == {"pixels", "colour_histogram", "untrained", "trained"}
    assert printed["benchmarks"]["synthetic"]["scores"] == scores["trained"]["scores"]
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    train = [record for record in records if record["kind"] == "train"]
    assert {"epoch", "iteration", "loss", "terms", "lr", "data_seconds", "step_seconds"} <= set(
        train[0]
    )
    assert {"cross_entropy", "ranked_list", "center"} <= set(train[0]["terms"])
    assert records[-1]["kind"] == "evaluation"
    card = json.loads((out / "model.json").read_text())
    assert card["preprocessing"]["size"] == [64, 32]


OTHERS = (
    "osnet_parts",
    "timm_triplet",
    "levels_ranked_list",
    "gaitset",
    "gait_resnet",
    "tracklets",
    "scaled",
    "faults",
    "smp",
    "cluster_contrast",
    "buc",
)


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_smoke_config_trains_and_evaluates(call, tmp_path, name):
    code, out, error = call("train", SMOKE / f"{name}.yaml", "--out", tmp_path / "run")
    assert code == 0, error
    assert "trained" in out
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_no_smoke_config_is_forgotten():
    assert {path.stem for path in SMOKE.glob("*.yaml")} == {"resnet_ranked_list", *OTHERS}


def test_evaluate_repeats_the_scores_of_the_run(call, trained, tmp_path):
    run, printed = trained
    code, out, error = call("evaluate", run, "--json", "--picture", tmp_path / "ranked.png")
    assert code == 0, error
    assert json.loads(out)["synthetic"]["scores"] == pytest.approx(
        printed["benchmarks"]["synthetic"]["scores"]
    )
    assert (tmp_path / "ranked.png").stat().st_size > 10_000


def test_evaluate_adds_a_row_after_reranking(call, trained, tmp_path):
    run, _ = trained
    code, out, error = call("evaluate", run, "--rerank", "--out", tmp_path / "s.json", "--json")
    assert code == 0, error
    rows = json.loads(out)
    assert set(rows) == {"synthetic", "synthetic re-ranked"}
    assert set(json.loads((tmp_path / "s.json").read_text())) == set(rows)
    first, second = (row["scores"] for row in rows.values())
    assert set(first) == set(second) and first != second


def test_extract_then_evaluate_the_files_gives_the_same_scores(call, trained, world, tmp_path):
    run, printed = trained
    (market,) = world.glob("synthetic-v1-8+6-c2-*")
    for split in ("query", "gallery"):
        # The tiny world has not the real counts: the benchmark's own name would refuse it.
        source = tmp_path / f"{split}.csv"
        lines = ["path,pid,camid,split"]
        folder = market / ("query" if split == "query" else "bounding_box_test")
        for path in sorted(folder.glob("*.jpg")):
            pid, camera = path.name.split("_")[:2]
            if pid != "-1":
                lines.append(f"{path},{int(pid)},{int(camera[1]) - 1},{split}")
        source.write_text("\n".join(lines) + "\n")
        code, _, error = call("extract", run, source, "--out", tmp_path / f"{split}.npz")
        assert code == 0, error
    code, out, error = call(
        "evaluate",
        "--query",
        tmp_path / "query.npz",
        "--gallery",
        tmp_path / "gallery.npz",
        "--json",
    )
    assert code == 0, error
    (scores,) = json.loads(out).values()
    assert scores["scores"]["mAP"] == pytest.approx(
        printed["benchmarks"]["synthetic"]["scores"]["mAP"], abs=1e-6
    )


def test_extract_takes_a_folder_and_writes_csv_too(call, trained, world, tmp_path):
    run, _ = trained
    (market,) = world.glob("synthetic-v1-8+6-c2-*")
    images = len(list((market / "query").glob("*.jpg")))
    code, out, error = call("extract", run, market / "query", "--out", tmp_path / "f.csv")
    assert code == 0, error
    assert len((tmp_path / "f.csv").read_text().splitlines()) == images + 1
    assert f"{images} features" in out


def test_extract_goes_on_where_it_was_interrupted(call, trained, world, tmp_path, monkeypatch):
    from reidkit.compose import inference

    run, _ = trained
    (market,) = world.glob("synthetic-v1-8+6-c2-*")
    monkeypatch.setattr(inference, "CHUNK", 5)
    done = []
    extract = inference.extract

    def breaks(model, samples, **settings):
        if len(done) == 1:
            raise OSError("the disk went away")
        done.append(len(samples))
        return extract(model, samples, **settings)

    monkeypatch.setattr(inference, "extract", breaks)
    out = tmp_path / "f.npz"
    code, _, error = call("extract", run, market / "query", "--out", out)
    assert code == 1 and "the disk went away" in error and not out.exists()
    monkeypatch.setattr(inference, "extract", extract)
    code, printed, error = call("extract", run, market / "query", "--out", out)
    assert code == 0, error
    assert "kept 5 features of an earlier call" in printed
    assert not list(tmp_path.glob("*.partial"))
    whole = tmp_path / "whole.npz"
    monkeypatch.setattr(inference, "CHUNK", 4096)
    call("extract", run, market / "query", "--out", whole)
    # Batches of another size round differently in the last bits.
    np.testing.assert_allclose(Features.load(out).vectors, Features.load(whole).vectors, atol=1e-4)


def test_features_of_other_files_with_the_same_names_are_not_taken_for_these(
    call, trained, world, tmp_path, monkeypatch
):
    from reidkit.compose import inference

    run, _ = trained
    (market,) = world.glob("synthetic-v1-8+6-c2-*")
    images = sorted((market / "query").glob("*.jpg"))
    for folder, chosen in (("one", images[:6]), ("two", images[6:])):
        (tmp_path / folder).mkdir()
        for number, image in enumerate(chosen):
            shutil.copy(image, tmp_path / folder / f"{number}.jpg")
    monkeypatch.setattr(inference, "CHUNK", 3)
    extract = inference.extract

    def breaks(model, samples, **settings):
        if samples[0].name.endswith("3.jpg"):
            raise OSError("the disk went away")
        return extract(model, samples, **settings)

    monkeypatch.setattr(inference, "extract", breaks)
    out = tmp_path / "f.npz"
    code, _, _ = call("extract", run, tmp_path / "one", "--out", out)
    assert code == 1
    monkeypatch.setattr(inference, "extract", extract)
    code, printed, error = call("extract", run, tmp_path / "two", "--out", out)
    assert code == 0, error
    assert "starting anew" in printed and "kept" not in printed
    call("extract", run, tmp_path / "two", "--out", tmp_path / "whole.npz")
    np.testing.assert_array_equal(
        Features.load(out).vectors, Features.load(tmp_path / "whole.npz").vectors
    )


def train_process(world, out, *words):
    command = [sys.executable, "-m", "reidkit.cli", "train", str(RANKED_LIST), *words]
    environment = {**os.environ, "REIDKIT_DATA": str(world), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--out", str(out)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.usefixtures("trained")  # it has rendered the world, which is told on standard error
def test_a_stopped_run_resumes_to_the_same_bits(world, tmp_path, number):
    words = ("optim.epochs=6", "evaluate.untrained=false", "evaluate.baselines=[]")
    whole = train_process(world, tmp_path / "whole", *words)
    assert whole.communicate()[1] == "" and whole.returncode == 0

    broken = train_process(world, tmp_path / "broken", *words)
    log = tmp_path / "broken" / "log.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and broken.poll() is None:
        lines = log.read_text().splitlines() if log.is_file() else []
        if len(lines) >= 8:
            break
        time.sleep(0.01)
    broken.send_signal(number)
    error = broken.communicate()[1]
    if number is not signal.SIGKILL:
        assert broken.returncode == 1
        assert "--resume" in error and "Traceback" not in error
        # What it says is what a shell runs, brackets and all.
        command = error.rpartition("go on with: ")[2].strip()
        assert shlex.split(command)[2:-3] == [str(RANKED_LIST), *words]
    assert not (tmp_path / "broken" / "model.safetensors").exists()

    resumed = train_process(world, tmp_path / "broken", *words, "--resume")
    error = resumed.communicate()[1]
    assert resumed.returncode == 0, error
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert a.keys() == b.keys()
    assert all(bool((a[name] == b[name]).all()) for name in a)
    iterations = [
        record["iteration"]
        for record in map(json.loads, log.read_text().splitlines())
        if record["kind"] == "train"
    ]
    assert iterations == sorted(set(iterations)), "a resumed log has every step once"


@pytest.fixture
def own_world(world, tmp_path, call):
    """A copy of the tiny world that a test may damage, and the words that train on it."""
    call("train", SMOKE / "osnet_parts.yaml", "--out", tmp_path / "render")
    (market,) = world.glob("synthetic-v1-8+6-c2-*")
    shutil.copytree(market, tmp_path / "own")
    entry = f"[{{name: market1501, root: '{tmp_path / 'own'}', check: 'off'}}]"
    return tmp_path / "own", (f"data.train={entry}", f"data.test={entry}")


def test_a_corrupt_image_stops_the_epoch_with_its_name_and_training_goes_on_once_it_is_repaired(
    call, own_world, tmp_path
):
    folder, words = own_world
    victim = sorted((folder / "bounding_box_train").glob("*.jpg"))[10]
    good = victim.read_bytes()
    victim.write_bytes(good[:100])
    command = ("train", SMOKE / "osnet_parts.yaml", *words, "--out", tmp_path / "run")
    code, _, error = call(*command)
    assert code == 1
    assert str(victim) in error and "Traceback" not in error and error.count("\n") == 1
    victim.write_bytes(good)
    code, _, error = call(*command, "--resume")
    assert code == 0, error


def test_a_loss_that_becomes_nan_is_named_and_the_last_good_state_is_kept(
    call, own_world, tmp_path
):
    _, words = own_world
    command = ("train", SMOKE / "osnet_parts.yaml", *words, "optim.lr=1e20")
    code, _, error = call(*command, "--out", tmp_path / "run")
    assert code == 1
    assert "is nan at epoch" in error or "is inf at epoch" in error
    assert "iteration" in error and error.count("\n") == 1


FILES = ("--query", "no/q.npz", "--gallery", "no/g.npz")


@pytest.mark.parametrize(
    "words, code, told",
    [
        (("train", "configs/none.yaml"), 2, "no such config file"),
        (("train", RANKED_LIST, "optim.epoch=1"), 2, "Did you mean 'epochs'"),
        (("train", RANKED_LIST, "optim.epochs=many"), 2, "optim.epochs = 'many'"),
        (("train", RANKED_LIST, "model.backbone.name=resnt"), 2, "Did you mean 'resnet'"),
        (("train", RANKED_LIST, "data.batch.identities=64"), 1, "needs at least 64 identities"),
        (("train", RANKED_LIST, "data.train=[market1501]"), 1, "market1501"),
        (("train", RANKED_LIST, "model.backbone.pretrained=true"), 2, "pretrained"),
        (("evaluate", "nowhere"), 1, "nowhere"),
        (("evaluate",), 2, "give a RUN"),
        (("evaluate", "run", "--query", "q.npz"), 2, "give a RUN"),
        (
            ("evaluate", "--query", "no/q.npz", "--gallery", "no/g.npz"),
            1,
            "no feature file no/q.npz",
        ),
        (("evaluate", "q.npz"), 2, "give them by --query and --gallery"),
        (("evaluate", "run", "--picture", "p.txt"), 2, "ends in .png"),
        (("evaluate", *FILES, "--root", "x"), 2, "are for a RUN"),
        (("evaluate", *FILES, "--protocol", ""), 1, "no feature file"),
        (("decide", "no/f.npz", "--false-match-rate", "0.1", "--plot", "p.txt"), 2, "ends in .png"),
        (("extract", "nowhere", "x", "--out", "f.txt"), 2, "ends in .npz or .csv"),
        (("list", "backbon"), 2, "Did you mean 'backbone'"),
        (("data", "check", "market15", "x"), 2, "Did you mean 'market1501'"),
        (("trian",), 2, "No such command"),
        (("train",), 2, "Missing argument"),
    ],
)
def test_bad_input_gets_one_line_and_the_right_exit_code(call, tmp_path, words, code, told):
    if words[0] == "train" and len(words) > 1:
        words = (*words, "--out", tmp_path / "run")
    found, _, error = call(*words)
    assert found == code, error
    assert told in error.replace("\n  ", " ")
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_folder_that_holds_a_run_is_not_trained_over(call, trained):
    run, _ = trained
    before = (run / "state.pt").stat().st_mtime_ns
    code, _, error = call("train", RANKED_LIST, "--out", run)
    assert code == 1 and "--resume" in error
    assert (run / "state.pt").stat().st_mtime_ns == before


def test_resuming_with_another_config_shows_what_changed(call, trained):
    run, _ = trained
    code, _, error = call("train", RANKED_LIST, "optim.lr=0.5", "--out", run, "--resume")
    assert code == 2 and "optim.lr: 0.001 -> 0.5" in error


def test_debug_shows_the_traceback(call):
    with pytest.raises(ValueError, match="no such config"):
        call("train", "configs/none.yaml", "--debug")


def test_list_shows_every_kind_with_arguments(call):
    code, out, _ = call("list")
    assert code == 0
    for words in (
        "loss",
        "ranked_list(margin=0.4",
        "backbone",
        "osnet(",
        "benchmark",
        "market1501",
    ):
        assert words in out
    code, out, _ = call("list", "loss", "--json")
    assert "ranked_list" in json.loads(out)["loss"]
    code, out, _ = call("list", "protocol")
    assert "mars: " in out and "ECCV 2016" in out


def test_doctor_tells_what_is_here(call):
    code, out, _ = call("doctor", "--no-check", "--json")
    assert code == 0
    assert {"python", "cores", "device", "torch", "faiss", "data"} <= set(json.loads(out))


def test_a_synthetic_world_is_made_checked_and_damage_is_found(call, tmp_path):
    out = tmp_path / "world"
    size = ("--train-identities", 4, "--test-identities", 3, "--cameras", 2, "--images", 2)
    code, _, error = call("data", "synth", out, *size)
    assert code == 0, error
    victim = next((out / "bounding_box_train").glob("*.jpg"))
    victim.write_bytes(b"")
    code, printed, _ = call("data", "check", "market1501", out)
    assert code == 1
    assert victim.name in printed and "12936" in printed.replace(",", "")


def test_packed_pictures_train_to_the_same_bits(call, tmp_path):
    config, store = SMOKE / "scaled.yaml", tmp_path / "store"
    code, out, error = call("data", "pack", config, store)
    assert code == 0, error
    assert "32 pictures of 64x32" in out
    call("train", config, "--out", tmp_path / "a")
    code, _, error = call("train", config, f"data.store={store}", "--out", tmp_path / "b")
    assert code == 0, error
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(bool((a[name] == b[name]).all()) for name in a)


@pytest.mark.parametrize(
    "words, told",
    [
        (("market1501:train", "out", "--size", "12"), "expected HEIGHTxWIDTH"),
        ((SMOKE / "scaled.yaml", "out", "--size", "64x32"), "leave out --size"),
        ((SMOKE / "gaitset.yaml", "out"), "trains on silhouettes"),
        ((SMOKE / "scaled.yaml", "out", "--clean"), "only --size, --root and --overwrite"),
        ((SMOKE, "out", "--overwrite"), "for the pictures of a benchmark"),
    ],
)
def test_packing_pictures_says_what_does_not_fit(call, words, told):
    code, _, error = call("data", "pack", *words)
    assert code == 2 and told in error


def test_a_changed_config_goes_on_with_force_and_says_what_changed(call, trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    words = ("train", RANKED_LIST, "optim.lr=0.5", "optim.epochs=2", "--out", tmp_path / "run")
    code, _, error = call(*words, "--resume")
    assert code == 2 and "--force" in error
    code, out, error = call(*words, "--resume", "--force")
    assert code == 0, error
    assert "changed since the run began: optim.lr: 0.001 -> 0.5" in out
    assert "optim.epochs: 1 -> 2" in out
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    rates = [record["lr"] for record in map(json.loads, lines) if record["kind"] == "train"]
    assert max(rates[:2]) <= 0.001 < 0.1 < max(rates[2:]), "the new rate, not only its name"
    code, _, error = call("train", RANKED_LIST, "--out", tmp_path / "run", "--force")
    assert code == 2 and "--force is for --resume" in error


def test_every_optimiser_step_of_a_run_waits_for_the_copy_of_a_save(call, tmp_path, monkeypatch):
    waited = []
    wait = Checkpointer.wait_for_copy

    def counted(self):
        waited.append(True)
        wait(self)

    monkeypatch.setattr(Checkpointer, "wait_for_copy", counted)
    code, _, error = call("train", SMOKE / "scaled.yaml", "--out", tmp_path / "run")
    assert code == 0, error
    assert len(waited) == 2  # two batches, a step each


def test_a_forced_resume_that_fails_leaves_the_folder_as_it_was(call, trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    for change, told in (("model.backbone.width=0.25", "another model"), ("optim.name=sgd", "SGD")):
        words = ("train", RANKED_LIST, change, "--out", tmp_path / "run", "--resume", "--force")
        code, _, error = call(*words)
        assert code == 1 and told in error and "train into a new folder" in error
        assert (tmp_path / "run" / "config.yaml").read_bytes() == before


def test_another_number_of_batches_goes_on_from_the_epochs_start(call, trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    words = ("train", RANKED_LIST, "data.batch.identities=8", "optim.epochs=3")
    code, out, error = call(*words, "--out", tmp_path / "run", "--resume", "--force")
    assert code == 0, error
    assert "an epoch had 2 batches and has 1 now" in out
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    epochs = [record["epoch"] for record in map(json.loads, lines) if record["kind"] == "train"]
    assert epochs == [0.5, 1.0, 2.0, 3.0]


def test_an_epoch_whose_scoring_fails_is_scored_again_by_a_resume(call, own_world, tmp_path):
    folder, words = own_world
    victim = sorted((folder / "query").glob("*.jpg"))[0]
    good = victim.read_bytes()
    victim.write_bytes(good[:100])
    few = (
        "optim.epochs=2",
        "evaluate.every=1",
        "evaluate.untrained=false",
        "evaluate.baselines=[]",
    )
    command = ("train", SMOKE / "osnet_parts.yaml", *words, *few, "--out", tmp_path / "run")
    code, _, error = call(*command)
    assert code == 1 and str(victim) in error
    victim.write_bytes(good)
    resume = ("--resume",) if (tmp_path / "run" / "config.yaml").is_file() else ()
    code, out, error = call(*command, *resume)
    assert code == 0, error
    assert "epoch 1: " in out


@pytest.mark.parametrize(
    "words, told",
    [
        (("data.batch.micro=1",), "a batch norm cannot normalise"),
        (("optim.scale_rate=linear",), "data.batch.per_process"),
        (("optim.ema=null",), "optim.update_bn is about averaged weights"),
        (("track=[wandb]",), "pip install 'reidkit[track]'"),
    ],
)
def test_settings_that_rule_each_other_out_are_refused(call, tmp_path, monkeypatch, words, told):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, error = call("train", SMOKE / "scaled.yaml", *words, "--out", tmp_path / "run")
    assert code == 2 and told in error
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_store_of_smaller_pictures_than_the_training_is_refused(call, tmp_path):
    call("data", "pack", SMOKE / "scaled.yaml", tmp_path / "store")
    words = (
        "train",
        SMOKE / "scaled.yaml",
        f"data.store={tmp_path / 'store'}",
        "data.size=[128, 64]",
    )
    code, _, error = call(*words, "--out", tmp_path / "run")
    assert code == 2 and "smaller than data.size (128, 64)" in error


def test_a_store_packed_for_a_config_with_a_crop_is_one_to_train_from(call, tmp_path):
    plain = RANKED_LIST.read_text()
    config = tmp_path / "cropped.yaml"
    cropped = plain.replace("size: [64, 32]", "size: [56, 28]\n  crop: 0.875")
    config.write_text(cropped)
    code, _, error = call("data", "pack", config, tmp_path / "store")
    assert code == 0, error
    store = f"data.store={tmp_path / 'store'}"
    words = ("evaluate.every=0", "evaluate.pictures=0", "data.augment.crop=[0.5, 1.0]")
    code, _, error = call("train", config, store, *words, "--out", tmp_path / "run")
    assert code == 0, error
    config.write_text(cropped.replace("[56, 28]", "[56, 56]\n  fit: white_square"))
    code, _, error = call("data", "pack", config, tmp_path / "other")
    assert code == 2 and "fit: white_square, which needs pictures unpacked" in error


def test_a_restarted_worker_goes_on_with_the_run_of_its_own_launch_only(
    call, trained, tmp_path, monkeypatch
):
    shutil.copytree(trained[0], tmp_path / "other")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    code, _, error = call("train", RANKED_LIST, "--out", tmp_path / "mine")
    assert code == 0, error
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    code, out, error = call("train", RANKED_LIST, "--out", tmp_path / "mine")
    assert code == 0 and "resumed at" in out, error
    code, _, error = call("train", RANKED_LIST, "--out", tmp_path / "other")
    assert code == 1 and "already holds a run" in error


def test_identities_on_both_sides_are_told(call, tmp_path, world):
    for person in ("ann", "bob", "cid", "dan", "eve", "fay"):
        (tmp_path / "photos" / person).mkdir(parents=True)
        for number in range(4):
            pixels = np.random.default_rng(number).integers(0, 255, (16, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / person / f"{number}.png")
    words = [f"data.{side}=[{{name: manifest, root: {tmp_path / 'photos'}}}]" for side in SIDES]
    words += ["evaluate.baselines=[]", "evaluate.pictures=0", "data.batch.identities=3"]
    told = "identities that are asked for are trained on, too"
    code, out, error = call("train", RANKED_LIST, *words, "--out", tmp_path / "right")
    assert code == 0 and told not in out, error
    fold = "data.train.0.args={fold: 0, folds: 3}"
    code, out, error = call("train", RANKED_LIST, *words, fold, "--out", tmp_path / "wrong")
    assert code == 0 and told in out, error


SIDES = ("train", "test")
