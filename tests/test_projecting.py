"""Projection after training and by command, on a tiny synthetic world."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from reidkit import compose, data, models
from reidkit.config import ConfigError, load_config, parse_config
from reidkit.types import Features, Scores

SMOKE = Path(__file__).parent.parent / "configs" / "smoke"
QUICK = ["evaluate.pictures=0", "evaluate.baselines=[]", "evaluate.untrained=false"]
QUICK += ["tensorboard=false", "evaluate.every=0"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("projecting")


@pytest.fixture(scope="module")
def plain(root):
    """A run folder without a projection."""
    config = load_config(SMOKE / "resnet_ranked_list.yaml", [*QUICK, f"data.root={root / 'data'}"])
    compose.train(config, root / "plain")
    return root / "plain"


@pytest.fixture(scope="module")
def whitened(root, plain):
    """The same training with `project`: (run folder, its scores)."""
    overrides = [*QUICK, f"data.root={root / 'data'}", "project={dim: 6}"]
    config = load_config(SMOKE / "resnet_ranked_list.yaml", overrides)
    return root / "whitened", compose.train(config, root / "whitened")["synthetic"]


def vectors_of(run: Path, samples) -> np.ndarray:
    return compose.extract(models.load_model(run), samples).vectors.double().numpy()


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def samples_of(run: Path):
    train, (test,) = compose.load_benchmarks(load_config(run / "config.yaml"))
    return train, test


def test_a_run_with_a_projection_saves_the_projected_model(plain, whitened):
    run, scores = whitened
    rows = json.loads((run / "scores.json").read_text())["synthetic"]
    assert set(rows) == {"unprojected", "trained"}
    assert rows["trained"]["scores"] == dict(scores)
    unprojected = json.loads((plain / "scores.json").read_text())["synthetic"]["trained"]
    assert rows["unprojected"] == unprojected  # the training is the same
    card = models.read_card(run)
    assert (card.embedding_size, card.parts) == (6, 1)
    assert card.info["projection"]["whiten"] == "pca" and 0 < card.info["projection"]["kept"] < 1
    train, _ = samples_of(run)
    assert card.info["projection"]["samples"] == len(train)
    kinds = [json.loads(line)["kind"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert kinds[-2:] == ["evaluation", "projected"]


def test_the_training_features_of_a_whitened_run_have_the_covariance_one(whitened):
    run, _ = whitened
    train, _ = samples_of(run)
    found = np.cov(vectors_of(run, train), rowvar=False)
    np.testing.assert_allclose(found, np.eye(6), atol=1e-2)  # extracted in batches of another size


def test_projected_features_rank_as_numpy_on_the_inner_features_ranks(plain, whitened):
    run, _ = whitened
    train, test = samples_of(run)
    inner = unit(vectors_of(plain, train))
    mean = inner.mean(0)
    _, values, axes = np.linalg.svd(inner - mean, full_matrices=False)
    matrix = axes[:6].T / values[:6] * np.sqrt(len(train) - 1)
    query, gallery = (
        unit((unit(vectors_of(plain, side)) - mean) @ matrix) for side in (test.query, test.gallery)
    )
    projected = [unit(vectors_of(run, side)) for side in (test.query, test.gallery)]
    wanted = query @ gallery.T
    found = projected[0] @ projected[1].T
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    order = np.argsort(-wanted, axis=1)
    ranked = np.take_along_axis(found, order, 1)
    assert (np.diff(ranked, axis=1) < 1e-3).all()


def test_evaluate_extract_and_search_take_a_projected_run(whitened, call, tmp_path):
    run, scores = whitened
    code, out, error = call("evaluate", run, "--out", tmp_path / "s.json", "--json")
    assert code == 0, error
    assert json.loads(out)["synthetic"]["scores"] == pytest.approx(dict(scores))
    _, test = samples_of(run)
    pictures = Path(test.query[0].name).parent
    known = tmp_path / "known.npz"
    code, out, error = call("extract", run, pictures, "--out", known)
    assert code == 0, error
    assert Features.load(known).vectors.shape[1] == 6
    compose.extract(models.load_model(run), test.query).save(known)
    code, out, error = call("search", run, test.query[0].name, "--gallery", known, "--json")
    assert code == 0, error
    nearest = json.loads(out)[0]["matches"][0]
    assert nearest["pid"] == test.query[0].pid
    assert nearest["distance"] == pytest.approx(0, abs=1e-3)


def test_a_finished_run_resumes_to_the_same_projection(whitened):
    run, scores = whitened
    before = (run / "model.safetensors").read_bytes()
    again = compose.train(load_config(run / "config.yaml"), run, resume=True)["synthetic"]
    assert dict(again) == dict(scores)
    assert (run / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("whiten", ["none", "pca", "learned"])
def test_the_command_writes_a_run_folder_with_both_scores(plain, call, tmp_path, whiten):
    out = tmp_path / "fewer"
    words = ("project", plain, "--dim", 6, "--whiten", whiten, "--out", out)
    code, printed, error = call(*words)
    assert code == 0, error
    assert f"projected 64 numbers to 6 (whiten: {whiten})" in printed
    assert "unprojected" in printed and "rank-1" in printed
    names = {"model.json", "model.safetensors", "config.yaml", "scores.json"}
    assert {path.name for path in out.iterdir()} == names
    rows = json.loads((out / "scores.json").read_text())["synthetic"]
    before = json.loads((plain / "scores.json").read_text())["synthetic"]["trained"]
    assert rows["unprojected"]["scores"] == pytest.approx(before["scores"])
    code, printed, error = call("evaluate", out, "--json")
    assert code == 0, error
    assert json.loads(printed)["synthetic"]["scores"] == pytest.approx(rows["trained"]["scores"])
    info = models.read_card(out).info
    assert info["projection"]["whiten"] == whiten and info["identities"] == 8


def test_the_command_and_the_config_give_the_same_projection(plain, whitened, call, tmp_path):
    run, _ = whitened
    code, out, error = call("project", plain, "--dim", 6, "--out", tmp_path / "run", "--json")
    assert code == 0, error
    assert json.loads(out)["benchmarks"]["synthetic"].keys() == {"unprojected", "trained"}
    one, other = models.load_model(run), models.load_model(tmp_path / "run")
    torch.testing.assert_close(one.mean, other.mean)
    torch.testing.assert_close(one.components, other.components, atol=1e-2, rtol=1e-2)


def test_another_source_fits_the_projection(plain, call, tmp_path):
    _, test = samples_of(plain)
    pictures = Path(test.query[0].name).parent
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("model.json", "model.safetensors"):
        (bare / name).write_bytes((plain / name).read_bytes())
    words = ("project", bare, "--dim", 3, "--out", tmp_path / "out")
    code, _, error = call(*words)
    assert code == 2 and "no config.yaml that names its training data: give --on" in error
    code, _, error = call(*words, "--on", pictures)
    assert code == 0, error
    card = models.read_card(tmp_path / "out")
    assert card.info["projection"]["on"] == str(pictures) and card.embedding_size == 3
    assert card.info["scores"] == {}
    code, _, error = call(*words[:-1], tmp_path / "no", "--on", pictures, "--whiten", "learned")
    assert code == 1 and "have no identity (-1)" in error and "\n" not in error.strip()
    assert not (tmp_path / "no").exists()


def test_a_threshold_for_the_old_distances_does_not_travel(plain, call, tmp_path):
    from reidkit.compose.decision import ENTRY
    from reidkit.models.weights import store_info

    copy = tmp_path / "copy"
    copy.mkdir()
    for path in plain.glob("*.*"):
        (copy / path.name).write_bytes(path.read_bytes())
    store_info(copy, ENTRY, {"threshold": 0.5})
    code, _, error = call("project", copy, "--dim", 3, "--out", tmp_path / "out")
    assert code == 0, error
    assert ENTRY not in models.read_card(tmp_path / "out").info
    assert "fingerprint" in models.read_card(tmp_path / "out").info


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--dim", "0"], 2, "dim"),
        (["--dim", "65"], 2, "dim 65: expected 1 to 64, the features' size"),
        (["--dim", "40"], 2, "dim 40 needs 41 samples to be fitted on, there are 32"),
        (["--dim", "4", "--whiten", "zca"], 2, "--whiten zca: expected none, pca or learned"),
        (["--dim", "4", "--shrink", "0.5"], 2, "--shrink is for --whiten learned"),
        (["--dim", "4", "--whiten", "learned", "--shrink", "2"], 2, "--shrink 2: expected"),
        (["--dim", "4", "--on", "nowhere"], 1, "no nowhere: a source is a folder"),
    ],
)
def test_a_wrong_call_is_told_and_writes_nothing(plain, call, tmp_path, words, code, told):
    found, _, error = call("project", plain, *words, "--out", tmp_path / "out")
    assert found == code and told in error, error
    assert not (tmp_path / "out").exists()


def test_a_projected_run_is_not_projected_again_and_no_model_is_replaced(
    plain, whitened, call, tmp_path
):
    run, _ = whitened
    code, _, error = call("project", run, "--dim", 3, "--out", tmp_path / "out")
    assert code == 2 and "projected already, to 6 numbers" in error
    code, _, error = call("project", plain, "--dim", 3, "--out", plain)
    assert code == 1 and "already holds model.safetensors" in error
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "state.pt").write_bytes(b"a training that was stopped")
    code, _, error = call("project", plain, "--dim", 3, "--out", begun)
    assert code == 1 and "already holds state.pt" in error
    assert [path.name for path in begun.iterdir()] == ["state.pt"]
    code, _, error = call("project", tmp_path / "none", "--dim", 3, "--out", tmp_path / "out")
    assert code == 1 and "expected a run folder" in error


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["project={dim: 65}"], "project: dim 65: expected 1 to 64"),
        (["project={dim: 40}"], "project: dim 40 needs 41 samples"),
        (["project={dim: 0}"], "project.dim"),
        (["project={}"], "'project.dim' is missing"),
        (["project={dim: 4, whiten: zca}"], "project.whiten"),
        (["project={dim: 4, whitten: pca}"], "known here: dim, whiten, shrink"),
        (["project={dim: 4, shrink: 0.5}"], "shrink belongs to whiten: learned"),
        (["project={dim: 4, whiten: learned, shrink: 2}"], "project.shrink = 2"),
        (
            ["model={name: projected, dim: 4, model: {name: reid, backbone: {name: osnet}}}"],
            "write the inner model",
        ),
    ],
)
def test_a_projection_that_cannot_be_is_refused_before_training(root, tmp_path, overrides, told):
    with pytest.raises(ConfigError) as caught:
        compose.train(
            load_config(
                SMOKE / "resnet_ranked_list.yaml",
                [*QUICK, f"data.root={root / 'data'}", *overrides],
            ),
            tmp_path / "run",
        )
    assert told in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_gait_model_is_not_projected(root, tmp_path, call):
    overrides = [f"data.root={root / 'gait'}", "project={dim: 4}", "data.test=[]"]
    with pytest.raises(ConfigError, match="GaitSet is compared part by part"):
        compose.train(load_config(SMOKE / "gaitset.yaml", overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_learned_whitening_needs_two_samples_of_somebody(plain):
    from reidkit.compose.projecting import check_projection

    config = load_config(plain / "config.yaml", ["project={dim: 4, whiten: learned}"])
    model = models.load_model(plain)
    check_projection(config, model, [0, 0, 1, 1, 2, 2])
    for labels in (range(8), [0] * 8):
        with pytest.raises(ConfigError, match="learned needs pairs of one identity and of two"):
            check_projection(config, model, list(labels))


def test_configs_and_cards_of_before_load_as_they_were(plain):
    tree = load_config(plain / "config.yaml").model_dump(mode="json")
    assert tree.pop("project") is None
    assert parse_config(tree) == load_config(plain / "config.yaml")
    assert models.read_card(plain).spec["name"] == "reid"
    assert models.load_model(plain).embedding_size == 64


def test_damaged_test_pictures_leave_the_projected_model(root, tmp_path, monkeypatch):
    """As for any run: what was trained is saved before anything is scored."""
    config = load_config(
        SMOKE / "resnet_ranked_list.yaml",
        [*QUICK, f"data.root={root / 'data'}", "project={dim: 6, whiten: learned, shrink: 0.5}"],
    )
    from reidkit.compose import training

    def damaged(*_: object, **__: object) -> Scores:
        raise OSError("a test image is damaged")

    monkeypatch.setattr(training, "score", damaged)
    with pytest.raises(OSError, match="damaged"):
        compose.train(config, tmp_path / "run")
    assert models.load_model(tmp_path / "run").embedding_size == 6
    assert models.read_card(tmp_path / "run").info["projection"]["shrink"] == 0.5
    assert data.labels_of(samples_of(tmp_path / "run")[0])[1] == 8


def test_features_that_allow_no_projection_cost_no_scores(root, tmp_path, monkeypatch):
    def degenerate(*_: object, **__: object) -> None:
        raise ValueError("the 24 vectors vary in 5 directions only")

    monkeypatch.setattr("reidkit.compose.training.fit_to", degenerate)
    overrides = [*QUICK, f"data.root={root / 'data'}", "project={dim: 6}"]
    config = load_config(SMOKE / "resnet_ranked_list.yaml", overrides)
    with pytest.raises(ValueError, match="vary in 5 directions only"):
        compose.train(config, tmp_path / "run")
    rows = json.loads((tmp_path / "run" / "scores.json").read_text())["synthetic"]
    assert "trained" in rows and "unprojected" not in rows
    assert models.read_card(tmp_path / "run").info["scores"]["synthetic"]
    assert (tmp_path / "run" / "curves.png").is_file()
