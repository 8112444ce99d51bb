"""`reidkit label`: from a run and a source to a folder of identities, and back with corrections."""

import csv
import json
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from reidkit import data, models
from reidkit.compose import inference, labelling
from reidkit.evaluation import silhouettes
from reidkit.types import Features, Preprocessing
from reidkit.unsupervised.identity_tree import IdentityTree

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


def facts_of(folder):
    return json.loads((folder / "label.json").read_text())


def heights_of(folder):
    return IdentityTree.load(folder / "tree.npz").heights


def labels_of(folder):
    """One label a tracklet, each of two frames."""
    return [int(row["label"]) for row in rows_of(folder)[::2]]


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


def test_json_is_all_that_is_printed(call, words, tmp_path):
    code, text, error = call(*words, "--json")
    assert code == 0, error
    told = json.loads(text)
    assert told["samples"] == 12 and told["quality"]["identities"] >= 2
    facts = facts_of(tmp_path / "out")
    assert told["quality"] == facts["quality"] and told["notes"] == facts["notes"]
    features = Features.load(tmp_path / "out" / "features.npz")
    labels = [int(row["label"]) for row in rows_of(tmp_path / "out")[::2]]
    mean = float(silhouettes(features.vectors, labels).mean())
    assert told["quality"]["silhouette"] == pytest.approx(mean)


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


def test_linkages_join_at_other_heights(call, words, tmp_path):
    out, seen = tmp_path / "out", []
    for linkage in ("average", "complete", "single", "ward"):
        code, _, error = call(*words, "--linkage", linkage, "--clusters", 4)
        assert code == 0, error
        assert facts_of(out)["settings"]["linkage"] == linkage
        features = Features.load(out / "features.npz")
        assert np.allclose(
            heights_of(out), IdentityTree.build(features, linkage=linkage).heights, atol=1e-6
        )
        seen.append(heights_of(out).tolist())
    assert len({tuple(heights) for heights in seen}) == 4
    assert seen[2][-1] < seen[0][-1] < seen[1][-1]


def test_who_is_kept_apart_is_a_choice(call, home, tmp_path):
    together = home / "together.csv"  # all tracklets overlap, and none starts with another
    header, *lines = (home / "people.csv").read_text().splitlines()
    moments = [i // 2 + 100 * (i % 2) for i in range(len(lines))]
    rows = [f"{line.rpartition(',')[0]},{t}" for line, t in zip(lines, moments, strict=True)]
    together.write_text("\n".join([header, *rows]))
    for source, option, name, apart in (
        (home / "people.csv", "--no-cannot-link", "none", False),
        (home / "people.csv", "--cannot-link=time", "time", False),
        (home / "people.csv", "--cannot-link=camera", "camera", True),
        (together, "--no-cannot-link", "none", False),
        (together, "--cannot-link=time", "time", True),
    ):
        out = tmp_path / f"{source.stem}{name}"
        code, _, error = call(
            home / "mine", source, "--out", out, "--no-pictures", option, "--height", 2
        )
        assert code == 0, error
        assert facts_of(out)["settings"]["cannot_link"] == name
        assert np.isinf(heights_of(out)).any() == apart
        labels = labels_of(out)
        alone = all(len({labels[i] for i in range(c, 12, 3)}) == 4 for c in range(3))
        assert alone == apart and (set(labels) == {0}) != apart


def test_the_neighbours_compared_are_a_choice(call, words, tmp_path):
    out, seen = tmp_path / "out", []
    for k1 in (3, 11):
        code, _, error = call(*words, "--method", "dbscan", "--min-samples", 2, "--k1", k1)
        assert code == 0, error
        assert facts_of(out)["settings"]["k1"] == k1
        seen.append(labels_of(out))
    assert seen[0] != seen[1]


def test_where_to_cut_is_a_choice(call, words, tmp_path):
    out, seen = tmp_path / "out", []
    assert call(*words)[0] == 0
    features = Features.load(out / "features.npz")
    # Of a cloud the two say different things, of people far apart they do not.
    cloud = np.random.default_rng(1).standard_normal((12, 3))
    features = Features(torch.from_numpy(cloud).float(), features.samples)
    features.save(out / "features.npz")
    for by in ("silhouette", "gap"):
        code, _, error = call(*words, "--by", by)
        assert code == 0, error
        assert facts_of(out)["settings"]["by"] == by
        seen.append(labels_of(out))
        assert seen[-1] == IdentityTree.build(features).cut(by=by).tolist()
    assert seen[0] != seen[1]


def test_the_run_says_how_features_are_compared(call, words, home, tmp_path):
    out, run = tmp_path / "out", tmp_path / "run"
    assert call(*words)[0] == 0
    by_cosine = heights_of(out)
    shutil.copytree(home / "mine", run)
    (run / "config.yaml").write_text(
        "data: {train: [synthetic]}\nmodel: {name: reid}\nlosses: [{name: cross_entropy}]\n"
        "evaluate: {metric: euclidean}\n"
    )
    code, text, error = call(run, *words[1:])
    assert code == 0, error
    assert "kept 12 features" in text
    features = Features.load(out / "features.npz")
    wanted = IdentityTree.build(features, metric="euclidean").heights
    assert np.allclose(heights_of(out), wanted) and not np.allclose(by_cosine, wanted, rtol=0.01)
    assert "by cosine" in facts_of(out)["confidence"]


def test_a_call_without_a_folder_writes_labelled(call, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, text, error = call(home / "mine", home / "people.csv", "--no-pictures")
    assert code == 0, error
    assert "labels: labelled/labels.csv" in text and len(rows_of(tmp_path / "labelled")) == 24
    (tmp_path / "corrected.csv").write_text(f"path,label\n{home / 'photos' / '00_0.png'},9\n")
    code, _, error = call("--apply", "corrected.csv", "--no-pictures")
    assert code == 0, error
    assert labels_of(tmp_path / "labelled")[0] == 9
    (tmp_path / "else" / "labelled").mkdir(parents=True)
    (tmp_path / "else" / "labelled" / "note.txt").write_text("mine")
    monkeypatch.chdir(tmp_path / "else")
    code, _, error = call(home / "mine", home / "people.csv", "--no-pictures")
    assert code == 1 and "holds other things: name a new folder with --out" in error


def test_a_mended_picture_goes_into_the_folder_that_was_begun(call, home, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(home / "photos", photos)
    whole = (photos / "00_0.png").read_bytes()
    (photos / "00_0.png").write_bytes(whole[:99])
    words = [home / "mine", photos, "--out", tmp_path / "out", "--no-pictures"]
    code, _, error = call(*words)
    assert code == 1 and "00_0.png is" in error
    (photos / "00_0.png").write_bytes(whole)
    code, _, error = call(*words)
    assert code == 0, error


def test_copies_of_one_picture_come_with_advice(call, home, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in "abcd":
        shutil.copy(home / "photos" / "00_0.png", photos / f"{name}.png")
    code, text, error = call(home / "mine", photos, "--out", tmp_path / "out", "--no-pictures")
    assert code == 0, error
    assert "All are joined at one height" in text and "--clusters 1" in text


def test_damaged_features_of_an_earlier_call_are_named_with_advice(call, words, tmp_path):
    assert call(*words)[0] == 0
    path = tmp_path / "out" / "features.npz"
    path.write_bytes(path.read_bytes()[:99])
    code, _, error = call(*words)
    assert code == 1 and f"Delete {path} to extract again" in error and error.count("\n") == 1
    path.unlink()
    assert call(*words)[0] == 0


class Killed(BaseException):
    """No cleaning up that an except clause could do."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("write", range(1, 6))
def test_corrections_survive_a_kill_at_any_write(
    call, words, home, tmp_path, monkeypatch, write, when
):
    out, sheet = tmp_path / "out", tmp_path / "corrected.csv"
    assert call(*words, "--clusters", 4)[0] == 0
    found = (out / "labels.csv").read_bytes()
    sheet.write_text(f"path,label\n{home / 'photos' / '00_0.png'},9\n")
    own, done = os.replace, []

    def dying(source, target):
        done.append(target)
        if len(done) == write and when == "before":
            raise Killed
        own(source, target)
        if len(done) == write:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(Killed):
            labelling.apply_to(out, sheet, pictures=False)
    left = (out / "labels.csv").read_bytes()
    code, _, error = call(*words)
    if left != found:  # corrected
        assert code == 1 and "corrected by hand" in error
    assert code == 0 or (out / "labels.csv").read_bytes() == left
    if code:
        code, _, error = call("--apply", sheet, "--out", out, "--no-pictures")
        assert code == 0, error
        assert labels_of(out)[0] == 9 and "quality" in facts_of(out)


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
        (["--apply", "corrected.csv", "--batch-size", "64"], "--batch-size beside --apply"),
        (["--apply", "corrected.csv", "--workers", "0"], "--workers beside --apply"),
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
    assert "labelled" in done.stdout and "by cosine" in done.stdout
