"""Gait and video from the command line, as a person uses them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from reidkit.data.silhouettes.store import SilhouetteStore
from reidkit.data.synthetic import write_casia_b, write_casia_b_store
from reidkit.types import Features

SMOKE = Path(__file__).parent.parent / "configs" / "smoke"
WORLD = {"train_subjects": 2, "test_subjects": 2, "frames": 6, "views": 3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run folder of the smoke GaitSet, its data, and what training printed."""
    from reidkit import compose
    from reidkit.config import load_config

    root = tmp_path_factory.mktemp("gait")
    config = load_config(SMOKE / "gaitset.yaml", [f"data.root={root / 'data'}"])
    scores = compose.train(config, root / "run")
    return root, scores["synthetic_casia_b"]


def test_a_gait_run_scores_its_table_and_the_energy_image(trained):
    root, scores = trained
    written = json.loads((root / "run" / "scores.json").read_text())["synthetic_casia_b"]
    assert set(written) == {"gait_energy_image", "trained"}
    assert set(scores) == {"NM", "BG", "CL"}
    assert written["trained"]["details"]["distance"] == "flat"
    assert "rank-1 in %, identical views left out" in scores.details
    records = [json.loads(line) for line in (root / "run" / "log.jsonl").read_text().splitlines()]
    terms = [record["terms"] for record in records if record["kind"] == "train"]
    assert all(0 <= values["part_triplet_active"] <= 1 for values in terms)
    assert (root / "run" / "ranked.png").is_file()


def test_the_saved_model_repeats_its_table_and_writes_a_page(trained, call, tmp_path):
    root, scores = trained
    page = tmp_path / "page.html"
    code, out, error = call("evaluate", root / "run", "--report", page, "--json")
    assert code == 0, error
    assert json.loads(out)["synthetic_casia_b"]["scores"] == pytest.approx(dict(scores))
    assert page.read_text().count("data:image/jpeg") > 5  # energy images travel inside it


def test_a_packed_source_is_extracted_and_searched(trained, call, tmp_path):
    root, _ = trained
    write_casia_b_store(tmp_path / "walks", **WORLD)
    known = tmp_path / "known.npz"
    code, _, error = call("extract", root / "run", tmp_path / "walks", "--out", known)
    assert code == 0, error
    features = Features.load(known)
    assert {sample.view for sample in features.samples} == {"000", "090", "180"}
    picture = tmp_path / "found.png"
    words = ("search", root / "run", tmp_path / "walks", "--gallery", known, "-k", "2")
    code, out, error = call(*words, "--picture", picture, "--json")
    assert code == 0, error
    found = json.loads(out)
    assert len(found) == len(features)
    for answer, sample in zip(found, features.samples, strict=True):
        # Everybody is in the gallery himself, at distance 0.
        assert answer["matches"][0]["pid"] == sample.pid
        assert answer["matches"][0]["distance"] == pytest.approx(0, abs=1e-3)
        assert len({match["pid"] for match in answer["matches"]}) == 2
    assert picture.is_file()


def test_a_gallery_of_nobody_or_of_another_model_is_refused(trained, call, tmp_path):
    root, _ = trained
    write_casia_b_store(tmp_path / "walks", **WORLD)
    size = 62 * 8
    nobody, other = tmp_path / "nobody.npz", tmp_path / "other.npz"
    Features.from_arrays(np.ones((3, size), np.float32), [-1, -1, -1]).save(nobody)
    Features.from_arrays(np.ones((3, 5), np.float32), [1, 2, 3]).save(other)
    for gallery, words in ((nobody, "knows nobody"), (other, "5")):
        code, _, error = call("search", root / "run", tmp_path / "walks", "--gallery", gallery)
        assert code == 1
        assert words in error
        assert "Traceback" not in error


def test_raw_silhouettes_pack_to_what_the_world_packs_by_itself(call, tmp_path):
    write_casia_b(tmp_path / "raw", **WORLD)
    write_casia_b_store(tmp_path / "store", **WORLD)
    code, out, error = call("data", "pack", tmp_path / "raw", tmp_path / "packed", "--json")
    assert code == 0, error
    assert json.loads(out)["counts"]["rejected"] == 0
    own, packed = (SilhouetteStore.open(tmp_path / name) for name in ("store", "packed"))

    def pixels(store):
        return {
            (s.subject, s.condition, s.view): store.read(np.arange(s.start, s.start + s.length))
            for s in store.sequences
        }

    first, second = pixels(own), pixels(packed)
    assert first.keys() == second.keys()
    reasons = {(s.subject, s.condition, s.view): s.why for s in packed.sequences}
    for key, why in reasons.items():
        if why:  # the judge may drop odd frames; what stays is the same, in the same order
            rest = iter(first[key])
            assert all(any(np.array_equal(one, its) for its in rest) for one in second[key]), key
        else:
            np.testing.assert_array_equal(second[key], first[key], err_msg=str(key))
    code, _, error = call("data", "check", "silhouettes", tmp_path / "packed")
    assert code == 0, error


def test_how_frames_are_taken_can_be_chosen(call, tmp_path):
    person = np.zeros((64, 64), np.uint8)
    person[10:50, :20] = 255  # cut by the border, and no aligned body by its height
    folder = tmp_path / "raw" / "001" / "nm-01" / "090"
    folder.mkdir(parents=True)
    for number in range(6):
        assert cv2.imwrite(str(folder / f"{number}.png"), person)
    verdicts = {}
    for option in ("", "--as-published", "--aligned"):
        out = tmp_path / f"out{option}"
        code, text, error = call(
            "data", "pack", tmp_path / "raw", out, *filter(None, [option]), "--json"
        )
        assert code == (0 if option else 1), error  # a store of nothing is no success
        verdicts[option] = {k: v for k, v in json.loads(text)["counts"].items() if v}
    assert verdicts == {
        "": {"rejected": 1},
        "--as-published": {"warned": 1, "frames": 6},
        "--aligned": {"good": 1, "frames": 6},
    }
    kept = SilhouetteStore.open(tmp_path / "out--aligned").read(np.arange(6))
    np.testing.assert_array_equal(kept, [person] * 6)


def test_a_video_of_the_world_becomes_silhouettes_with_a_name_to_ask_for(call, tmp_path, trained):
    root, _ = trained
    film, walks = tmp_path / "walk.mp4", tmp_path / "walk"
    assert call("data", "synth", film, "--layout", "video", "--pids", "5")[0] == 0
    code, out, error = call("data", "pack", film, walks)
    assert code == 0, error
    (walk,) = (s for s in SilhouetteStore.open(walks).sequences if s.verdict != "rejected")
    assert (walk.subject, walk.condition) == ("", "track-001")
    known = tmp_path / "known.npz"
    write_casia_b_store(tmp_path / "known", **WORLD)
    assert call("extract", root / "run", tmp_path / "known", "--out", known)[0] == 0
    code, out, error = call("search", root / "run", walks, "--gallery", known)
    assert code == 0, error
    assert out.splitlines()[-1].startswith("walk track-001: id ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("data", "pack", "SRC", "OUT", "--bits", "4"), "expected 8 or 1"),
        (("data", "pack", "SRC", "OUT", "--subject", "7"), "are for a video file"),
        (("data", "pack", "FILM", "OUT", "--clean"), "not for a video"),
        (("data", "pack", "FILM", "OUT", "--as-published"), "not for a video"),
        (("data", "pack", "FILM", "OUT", "--aligned"), "not for a video"),
        (("data", "pack", "SRC", "OUT", "--clean", "--as-published"), "choose one"),
        (("data", "pack", "SRC", "OUT", "--clean", "--aligned"), "choose one"),
        (("data", "synth", "OUT", "--layout", "marss"), "market1501, mars, casia_b, video"),
        (("data", "synth", "OUT", "--layout", "mars", "--images", "3"), "not for --layout mars"),
        (("data", "synth", "OUT.mp4", "--layout", "video"), "--pids"),
        (("data", "synth", "OUT.mp4", "--layout", "video", "--pids", "a"), "commas between"),
    ],
)
def test_a_call_that_means_nothing_is_refused(call, tmp_path, words, told):
    (tmp_path / "SRC").mkdir()
    (tmp_path / "FILM").write_bytes(b"a film")
    places = {name: tmp_path / name for name in ("SRC", "FILM", "OUT", "OUT.mp4")}
    code, _, error = call(*(places.get(word, word) for word in words))
    assert code == 2
    assert told in error
    assert error.count("\n") == 1


def test_a_run_is_evaluated_where_its_store_went(call, tmp_path):
    write_casia_b_store(tmp_path / "here", **WORLD)
    root = f"{{name: silhouettes, root: {tmp_path / 'here'}}}"
    quick = ("optim.epochs=1", "evaluate.pictures=0", "data.batch.identities=2")
    words = (f"data.train=[{root}]", f"data.test=[{root}]", *quick, "--out", tmp_path / "run")
    code, _, error = call("train", SMOKE / "gaitset.yaml", *words)
    assert code == 0, error
    (tmp_path / "here").rename(tmp_path / "there")
    assert call("evaluate", tmp_path / "run")[0] == 1
    code, out, error = call("evaluate", tmp_path / "run", "--root", tmp_path / "there")
    assert code == 0, error
    assert "rank-1 in %" in out


def test_a_video_is_no_source_and_the_way_out_is_told(trained, call, tmp_path):
    root, _ = trained
    (tmp_path / "walk.mp4").write_bytes(b"")
    code, _, error = call("extract", root / "run", tmp_path / "walk.mp4", "--out", "f.npz")
    assert code == 1
    assert "reidkit data pack" in error


def test_a_model_of_pictures_and_a_model_of_silhouettes_refuse_each_other(trained, call, tmp_path):
    root, _ = trained
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), np.zeros((90, 40, 3), np.uint8))
    out = tmp_path / "f.npz"
    code, _, error = call("extract", root / "run", tmp_path / "photos", "--out", out)
    assert code == 1
    assert "expected a square aligned silhouette" in error
    assert not out.exists()
