"""`reidkit label`: from a run and a source to a folder of identities, and back with corrections."""

import csv
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from reidkit import data, models
from reidkit.compose import inference
from reidkit.types import Preprocessing

MODEL = {
    "name": "reid",
    "backbone": {"name": "resnet", "depth": 18, "width": 0.125, "pretrained": False},
}


@pytest.fixture
def call(call):
    """`reidkit label` with these words."""
    return lambda *words: call("label", *words)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two untrained models, and twelve tracklets of four people in strong colours."""
    folder = tmp_path_factory.mktemp("label")
    pixels = Preprocessing(size=(32, 16))
    for seed, name in enumerate(("mine", "other")):
        torch.manual_seed(seed)
        model = models.build_model(MODEL, num_classes=None, size=pixels.size, preprocessing=pixels)
        models.save_model(folder / name, model, MODEL, num_classes=None)
    random = np.random.default_rng(0)
    colours = ((220, 20, 20), (20, 220, 20), (20, 20, 220), (230, 230, 230))
    lines = ["path,pid,camid,split,tracklet,frame"]
    (folder / "photos").mkdir()
    for track in range(12):
        for frame in range(2):
            path = folder / "photos" / f"{track:02d}_{frame}.png"
            image = random.normal(colours[track % 4], 8, (32, 16, 3)).clip(0, 255)
            cv2.imwrite(str(path), image.astype(np.uint8))
            moment = 100 * track + frame
            lines.append(f"photos/{path.name},{track % 4 + 1},{track % 3},train,{track},{moment}")
    (folder / "people.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def words(home, tmp_path):
    """The usual call, without its pictures."""
    return [home / "mine", home / "people.csv", "--out", tmp_path / "out", "--no-pictures"]


def rows_of(folder):
    with (folder / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_manifest_becomes_a_folder_of_identities(call, home, tmp_path):
    out = tmp_path / "out"
    code, text, error = call(home / "mine", home / "people.csv", "--out", out, "--clusters", 4)
    assert code == 0, error
    assert "12 samples: 4 identities, 0 samples left out" in text
    assert "judged by the source's own identities (4 in 12 samples)" in text
    assert f"labels: {out / 'labels.csv'}" in text
    wanted = {
        "labels.csv", "features.npz", "tree.npz", "tree.html", "tree.png", "identities",
        "label.json",
    }  # fmt: skip
    assert {path.name for path in out.iterdir()} == wanted
    assert [p.name for p in sorted((out / "identities").iterdir())] == [
        f"{label:04d}.jpg" for label in range(4)
    ]
    assert cv2.imread(str(out / "tree.png")) is not None
    train = data.load_benchmark("manifest", out / "labels.csv").train
    truth = data.load_benchmark("manifest", home / "people.csv").train
    assert [s.frames for s in train] == [s.frames for s in truth]
    assert [s.span for s in train] == [s.span for s in truth]
    assert [s.pid for s in train] == [s.pid for s in truth]  # both count by first appearance
    facts = json.loads((out / "label.json").read_text())
    assert facts["quality"]["by_the_source"]["f1"] == 1
    assert facts["of"]["model"] == inference.weights_hash(models.load_model(home / "mine"))
    assert facts["settings"]["clusters"] == 4 and facts["sheets"] == 4


def test_a_second_call_cuts_anew_and_extracts_nothing(call, words, tmp_path, monkeypatch):
    assert call(*words, "--clusters", 4)[0] == 0
    monkeypatch.setattr(inference, "extract", lambda *_, **__: pytest.fail("extracted again"))
    code, text, error = call(*words, "--clusters", 2)
    assert code == 0, error
    assert "kept 12 features of an earlier call" in text
    assert {row["label"] for row in rows_of(tmp_path / "out")} == {"0", "1"}


def test_an_interrupted_call_goes_on_where_it_stopped(call, words, monkeypatch, tmp_path):
    monkeypatch.setattr(inference, "CHUNK", 5)
    own, seen = inference.extract, []

    def dying(model, samples, **options):
        seen.append(len(samples))
        if len(seen) == 2:
            raise OSError(28, "No space left on device")
        return own(model, samples, **options)

    monkeypatch.setattr(inference, "extract", dying)
    code, _, error = call(*words)
    assert code == 1 and "No space left" in error
    code, text, error = call(*words)
    assert code == 0, error
    assert "kept 5 features of an earlier call" in text
    assert seen == [5, 5, 5, 2]
    assert len(rows_of(tmp_path / "out")) == 24


def test_json_is_all_that_is_printed(call, words):
    code, text, error = call(*words, "--json")
    assert code == 0, error
    told = json.loads(text)
    assert told["samples"] == 12 and told["quality"]["identities"] >= 2
    assert -1 <= told["quality"]["silhouette"] <= 1


@pytest.mark.parametrize("method", ["dbscan", "hdbscan"])
def test_clusters_have_a_tree_to_browse_too(call, words, tmp_path, method):
    code, _, error = call(*words, "--method", method, "--min-samples", 2)
    assert code == 0, error
    assert (tmp_path / "out" / "tree.html").is_file() and (tmp_path / "out" / "tree.npz").is_file()


def test_all_left_out_is_said_with_the_knob_and_features_stay(call, words, tmp_path):
    code, _, error = call(*words, "--method", "dbscan", "--min-samples", 12, "--eps", 0.01)
    assert code == 1
    assert "left out all 12 samples: raise --eps (now 0.01) or lower --min-samples" in error
    assert error.count("\n") == 1
    code, text, _ = call(*words)
    assert code == 0 and "kept 12 features" in text


def test_a_folder_of_images_has_no_truth_and_one_camera(call, home, tmp_path):
    code, text, error = call(
        home / "mine", home / "photos", "--out", tmp_path / "out", "--no-pictures"
    )
    assert code == 0, error
    assert "judged" not in text
    assert "All samples are of one camera" in text and "No times are known" in text


def test_one_image_is_one_identity(call, home, tmp_path):
    out = tmp_path / "out"
    code, text, error = call(home / "mine", home / "photos" / "00_0.png", "--out", out)
    assert code == 0, error
    assert "One sample is one identity" in text
    (row,) = rows_of(out)
    assert (row["pid"], float(row["label_confidence"])) == ("1", 0)


@pytest.mark.parametrize("option", ["--no-cannot-link", "--cannot-link=camera", "--linkage=ward"])
def test_who_is_kept_apart_and_how_they_are_joined_is_a_choice(call, words, option):
    code, _, error = call(*words, option, "--clusters", 4)
    assert code == 0, error


def test_corrections_from_the_page_become_the_manifest(call, words, home, tmp_path):
    out = tmp_path / "out"
    assert call(*words, "--clusters", 4)[0] == 0
    first, second = str(home / "photos" / "00_0.png"), str(home / "photos" / "01_0.png")
    sheet = tmp_path / "corrected.csv"
    sheet.write_text(f"path,label,camid\n{first},9,0\n{second},-1,1\n")
    code, text, error = call("--apply", sheet, "--out", out)
    assert code == 0, error
    assert "2 of 12 labels changed by corrected.csv." in text
    train = data.load_benchmark("manifest", out / "labels.csv").train
    assert [s.pid for s in train] == [10, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4]
    assert (out / "identities" / "0009.jpg").is_file() and (out / "tree.png").is_file()
    before = (out / "labels.csv").read_bytes()
    code, _, error = call(*words)
    assert code == 1 and "corrected by hand" in error
    assert (out / "labels.csv").read_bytes() == before


def test_another_model_or_source_does_not_get_into_the_folder(call, words, home, tmp_path):
    out = tmp_path / "out"
    assert call(*words)[0] == 0
    before = (out / "labels.csv").read_bytes()
    for run, source in ((home / "other", home / "people.csv"), (home / "mine", home / "photos")):
        code, _, error = call(run, source, "--out", out)
        assert code == 1 and "name a new folder with --out" in error and error.count("\n") == 1
    code, _, error = call(home / "mine", home / "photos", "--out", home)
    assert code == 1 and "holds other things" in error
    assert (out / "labels.csv").read_bytes() == before


def test_work_that_fails_says_why_in_one_line(call, home, tmp_path):
    bad, empty, bare = tmp_path / "bad", tmp_path / "empty", tmp_path / "bare.csv"
    bad.mkdir()
    empty.mkdir()
    (bad / "cut.png").write_bytes((home / "photos" / "00_0.png").read_bytes()[:99])
    bare.write_text("path,pid,split\n")
    for source, told in (
        (bad, "cut.png is"),
        (empty, "no images in"),
        (bare, "nothing to label"),
        (tmp_path / "nowhere", "nowhere"),
    ):
        code, _, error = call(home / "mine", source, "--out", tmp_path / f"out{source.stem}")
        assert code == 1 and told in error, error
        assert error.splitlines()[-1].startswith("reidkit: ")
    code, _, error = call(
        home / "mine", home / "photos", "--cannot-link", "camera", "--out", tmp_path / "one"
    )
    assert code == 1 and "all 24 samples are of one camera" in error
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize(
    "words, told",
    [
        (["--linkage", "median"], "--linkage median: expected one of average, complete"),
        (["--method", "kmeans"], "--method kmeans: expected one of tree, dbscan, hdbscan"),
        (["--by", "eye"], "--by eye: expected one of silhouette, gap"),
        (["--clusters", "0"], "--clusters 0: expected at least 1"),
        (["--height", "-1"], "--height -1: expected a distance"),
        (["--height", "nan"], "--height nan: expected a distance"),
        (["--eps", "1", "--method", "dbscan"], "--eps 1: expected a Jaccard distance"),
        (["--min-samples", "0", "--method", "dbscan"], "--min-samples 0: expected at least 1"),
        (["--clusters", "2", "--height", "1"], "--clusters and --height: each says where"),
        (["--clusters", "2", "--method", "dbscan"], "--clusters cuts the tree"),
        (["--k1", "0", "--method", "dbscan"], "--k1 0: expected at least 1"),
        (["--k1", "5"], "--k1 is not for --method tree"),
        (["--eps", "0.5"], "--eps is not for --method tree"),
        (["--eps", "0.5", "--method", "hdbscan"], "--eps is not for --method hdbscan"),
        (["--cannot-link", "none"], "--no-cannot-link turns it off"),
        (["--cannot-link", "time", "--no-cannot-link"], "choose one"),
        (["--apply", "corrected.csv"], "RUN beside --apply"),
    ],
)
def test_a_call_that_means_nothing_is_refused_in_one_line(call, tmp_path, words, told):
    code, out, error = call("run", "photos", "--out", tmp_path / "out", *words)
    assert (code, out) == (2, "")
    assert told in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words, told",
    [
        ([], "expected RUN and SOURCE"),
        (["run"], "expected RUN and SOURCE"),
        (["--apply", "corrected.txt"], "the file's name ends in .csv"),
        (["--apply", "corrected.csv", "--by", "gap"], "--by beside --apply"),
        (["--apply", "corrected.csv", "--no-cannot-link"], "--no-cannot-link beside --apply"),
    ],
)
def test_run_and_source_or_corrections_are_expected(call, tmp_path, words, told):
    code, _, error = call(*words, "--out", tmp_path / "out")
    assert code == 2 and told in error and error.count("\n") == 1


def test_under_torchrun_it_refuses(call, words, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    code, _, error = call(*words)
    assert code == 2 and "without torchrun" in error


def test_help_teaches_with_examples_and_imports_nothing_heavy():
    program = (
        "import sys; from reidkit.cli import app; import typer.testing as t;"
        "r = t.CliRunner().invoke(app, ['label', '--help']); print(r.output);"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "reidkit label runs/mine tracklets.csv --out people" in done.stdout
    assert "reidkit label --apply corrected.csv --out people" in done.stdout
