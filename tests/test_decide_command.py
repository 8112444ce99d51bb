"""`reidkit decide` as a person types it, and what it leaves in a run."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from reidkit.compose.decision import decide_file, draw_reliability, read_decision
from reidkit.compose.inference import weights_hash
from reidkit.evaluation.decision.decide import Decision, decide
from reidkit.models import build_model, load_model, save_model
from reidkit.types import Features, Preprocessing
from reidkit.visualise import reliability

SPEC = {"name": "reid", "backbone": {"name": "osnet", "width": 0.25}}  # features of 128 numbers


def features(identities=160, dim=128, cameras=2):
    random = np.random.default_rng(0)
    pids = np.repeat(np.arange(1, identities + 1), 2)
    vectors = random.normal(size=(identities + 1, dim))[pids]
    vectors += 2 * random.normal(size=vectors.shape)
    return Features.from_arrays(vectors.astype("f4"), pids, np.arange(2 * identities) % cameras)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "test.npz"
    features().save(path)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    torch.manual_seed(0)
    preprocessing = Preprocessing((64, 32))
    model = build_model(SPEC, num_classes=4, size=(64, 32), preprocessing=preprocessing)
    info = {"licence": "research", "scores": {"mAP": 0.5}}
    return save_model(tmp_path_factory.mktemp("run"), model, SPEC, num_classes=4, info=info)


def test_decide_prints_what_a_person_can_read(call, file):
    code, out, error = call("decide", file, "--false-match-rate", 0.05)
    assert (code, error) == (0, "")
    assert "same identity from a similarity (cosine) of" in out
    assert "false matches: promised 5 %" in out
    assert "from 80 pairs that share no identity" in out


def test_decide_writes_json_that_is_the_decision(call, file, tmp_path):
    words = ("--confidence", 0.9, "--independent", "pairs", "--metric", "euclidean")
    words += ("--prior", 0.25, "--per-camera-pair", "--out", tmp_path / "d.json", "--json")
    code, out, _ = call("decide", file, "--false-match-rate", 0.01, *words)
    assert code == 0
    expected = decide(
        Features.load(file),
        0.01,
        confidence=0.9,
        independent="pairs",
        metric="euclidean",
        prior=0.25,
        per_camera_pair=True,
    )
    assert Decision.from_dict(json.loads(out)) == expected
    assert json.loads((tmp_path / "d.json").read_text()) == json.loads(out)


def test_decide_stores_the_threshold_with_the_model_and_keeps_all_else(call, file, trained):
    before = json.loads((trained / "model.json").read_text())
    code, out, error = call("decide", file, "--false-match-rate", 0.05, "--run", trained)
    assert code == 0, error
    assert f"stored with the model of: {trained}" in out
    after = json.loads((trained / "model.json").read_text())
    block = after["info"].pop("threshold")
    assert after == before
    assert read_decision(trained) == Decision.from_dict(block) == decide(Features.load(file), 0.05)
    assert load_model(trained).embedding_size == 128
    # A second decision takes the place of the first.
    call("decide", file, "--false-match-rate", 0.1, "--run", trained / "model.safetensors")
    assert read_decision(trained).false_match_rate == 0.1


def test_the_metric_is_that_of_the_run(file, trained, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.json").write_bytes((trained / "model.json").read_bytes())
    assert decide_file(file, 0.05, run=run).metric == "cosine"
    plan = (
        "data: {train: [synthetic]}\nmodel: {name: reid}\nevaluate: {metric: euclidean}\n"
        "losses: [{name: cross_entropy}]\n"
    )
    (run / "config.yaml").write_text(plan)
    assert decide_file(file, 0.05, run=run).metric == "euclidean"
    assert decide_file(file, 0.05, run=run, metric="cosine").metric == "cosine"


def test_features_of_another_model_are_refused_and_nothing_is_stored(call, trained, tmp_path):
    features(dim=32).save(tmp_path / "other.npz")
    before = (trained / "model.json").read_bytes()
    words = ("decide", tmp_path / "other.npz", "--false-match-rate", 0.05, "--run", trained)
    code, _, error = call(*words)
    assert code == 1
    assert "holds features of 32 numbers, the model in" in error and "makes 128" in error
    assert (trained / "model.json").read_bytes() == before


def test_a_threshold_is_stored_with_the_model_of_its_features_only(call, trained, tmp_path):
    own = weights_hash(load_model(trained))
    path = tmp_path / "stamped.npz"
    replace(features(), model="another").save(path)
    code, _, error = call("decide", path, "--false-match-rate", 0.05, "--run", trained)
    assert code == 1 and f"features of model another, but {trained} is model {own}" in error
    replace(features(), model=own).save(path)
    assert call("decide", path, "--false-match-rate", 0.05, "--run", trained)[0] == 0


def test_a_model_without_a_threshold_says_how_to_get_one(tmp_path, trained):
    (tmp_path / "model.json").write_bytes((trained / "model.json").read_bytes())
    content = json.loads((tmp_path / "model.json").read_text())
    content["info"] = {}
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="no threshold yet: reidkit decide FEATURES"):
        read_decision(tmp_path)


def test_the_reliability_is_drawn(call, file, tmp_path):
    picture = tmp_path / "reliability.png"
    words = ("--independent", "pairs", "--prior", 0.5, "--plot", picture)
    code, out, error = call("decide", file, "--false-match-rate", 0.01, *words)
    assert code == 0, error
    assert f"reliability: {picture}" in out
    image = cv2.imread(str(picture))[:, :, ::-1].astype(int)
    assert (np.abs(image - (31, 119, 180)).max(2) <= 3).sum() > 500


def test_a_point_stands_as_high_as_what_was_observed(tmp_path):
    def height(observed):
        reliability(tmp_path / "r.png", [0.5], [observed], [3], title="one point")
        image = cv2.imread(str(tmp_path / "r.png"))[:, :, ::-1].astype(int)
        curve = image[:440, 250:]  # without the legend and the bars
        rows = np.nonzero(np.abs(curve - (31, 119, 180)).max(2) <= 3)[0]
        return np.median(rows)

    low, middle, high = map(height, (0.25, 0.5, 0.75))
    assert middle - high == pytest.approx(low - middle, abs=3)
    assert low - middle > 50


@pytest.mark.parametrize("columns", [([], [], []), ([0.5], [0.5], []), ([0.5], [0.5, 1], [2])])
def test_a_reliability_of_unequal_columns_is_refused(tmp_path, columns):
    with pytest.raises(ValueError, match="expected as many of each, at least one"):
        reliability(tmp_path / "r.png", *columns)


def test_there_is_nothing_to_draw_where_nobody_was_held_out(tmp_path):
    few = Features.from_arrays(np.eye(4), [1, 1, 2, 3])
    with pytest.raises(ValueError, match="no reliability to draw: there were too few identities"):
        draw_reliability(tmp_path / "r.png", decide(few, 0.95, independent="pairs"))


@pytest.mark.parametrize(
    "words, reason",
    [
        (("--false-match-rate", 0), "--false-match-rate 0: expected a fraction"),
        (("--false-match-rate", 5), "--false-match-rate 5: expected a fraction"),
        (("--false-match-rate", 0.1, "--confidence", 95), "--confidence 95: expected a fraction"),
        (("--false-match-rate", 0.1, "--prior", 1), "--prior 1: expected a fraction"),
        (("--false-match-rate", 0.1, "--metric", "l2"), "--metric l2: cosine or euclidean"),
        (("--false-match-rate", 0.1, "--independent", "no"), "identities, estimated or pairs"),
        (("--false-match-rate", "high"), "--false-match-rate"),
        ((), "false-match-rate"),
    ],
)
def test_a_call_that_means_nothing_ends_with_2(call, file, words, reason):
    code, out, error = call("decide", file, *words)
    assert (code, out) == (2, "")
    assert reason in error


@pytest.mark.parametrize(
    "make, words, reason",
    [
        (lambda: features(), (), "so 5,990 identities; here are 80 such pairs; 0.0368 is possible"),
        (lambda: features(dim=4), ("--run", "nowhere"), "no nowhere"),
        (
            lambda: Features(features().vectors[::2], features().samples[::2]),
            ("--false-match-rate", 0.05),
            "no genuine pair: no identity has two pictures",
        ),
        (
            lambda: features(cameras=1),
            ("--false-match-rate", 0.05, "--per-camera-pair"),
            "at least two cameras; here is one",
        ),
    ],
)
def test_work_that_fails_ends_with_1_and_one_line(call, tmp_path, make, words, reason):
    make().save(tmp_path / "f.npz")
    code, out, error = call("decide", tmp_path / "f.npz", "--false-match-rate", 0.001, *words)
    assert (code, out) == (1, "")
    assert reason in error and error.count("\n") == 1


def test_a_missing_file_says_which_command_writes_it(call, tmp_path):
    code, _, error = call("decide", tmp_path / "none.npz", "--false-match-rate", 0.1)
    assert code == 1
    assert "reidkit extract RUN SOURCE --out" in error


def test_help_teaches_with_an_example(call):
    code, out, _ = call("decide", "--help")
    assert code == 0
    assert "reidkit decide test.npz --false-match-rate 0.01" in out
    assert "not trained on" in " ".join(out.split())
