import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from reidkit.data.benchmarks import BENCHMARKS
from reidkit.data.synthetic import market, write_market
from reidkit.data.synthetic.benchmark import load
from reidkit.data.synthetic.market import picture, plan

SMALL = {"train_identities": 4, "test_identities": 3, "cameras": 3, "images": 2, "size": (32, 16)}
FOLDERS = ("bounding_box_train", "bounding_box_test", "query")
NAME = re.compile(r"(-1|\d{4})_c(\d)s(\d)_(\d{6})_(\d{2})\.jpg")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic") / "world"
    write_market(out, **SMALL, seed=3)
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def names(folder: Path) -> list[tuple[str, ...]]:
    return [NAME.fullmatch(path.name).groups() for path in sorted(folder.glob("*.jpg"))]


def test_every_name_follows_the_grammar_of_market(world):
    for folder in FOLDERS:
        assert all(NAME.fullmatch(path.name) for path in (world / folder).glob("*.jpg"))
        assert (world / folder / "Thumbs.db").is_file()
    assert (world / "readme.txt").is_file()


def test_the_splits_are_those_of_market(world):
    train, test, query = (names(world / folder) for folder in FOLDERS)
    assert len({pid for pid, *_ in train}) == 4
    assert len({pid for pid, *_ in query}) == 3
    people = {pid for pid, *_ in test} - {"0000", "-1"}
    assert people == {pid for pid, *_ in query}
    assert not people & {pid for pid, *_ in train}
    assert {"0000", "-1"} <= {pid for pid, *_ in test}
    assert not {"0000", "-1"} & {pid for pid, *_ in train + query}


def test_every_query_has_an_answer_in_another_camera(world):
    gallery = names(world / "bounding_box_test")
    for pid, camera, *_ in names(world / "query"):
        assert any(p == pid and c != camera for p, c, *_ in gallery)


def test_one_query_for_each_identity_and_camera(world):
    pairs = [(pid, camera) for pid, camera, *_ in names(world / "query")]
    assert len(pairs) == len(set(pairs))


def test_pictures_are_readable_and_of_the_size(world):
    for path in world.rglob("*.jpg"):
        assert cv2.imread(str(path)).shape == (32, 16, 3)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(world, tmp_path):
    write_market(tmp_path / "again", **SMALL, seed=3)
    assert files(tmp_path / "again") == files(world)
    write_market(tmp_path / "other", **SMALL, seed=4)
    assert files(tmp_path / "other") != files(world)


def test_a_picture_does_not_depend_on_those_before_it():
    shots = plan(train_identities=4, test_identities=3, cameras=3, images=2, seed=0)
    first = {shot.name: picture(shot, seed=0, size=(32, 16)) for shot in shots[:20]}
    for shot in reversed(shots[:20]):
        np.testing.assert_array_equal(picture(shot, seed=0, size=(32, 16)), first[shot.name])


def test_names_are_unique_in_a_large_world():
    shots = plan(train_identities=300, test_identities=200, cameras=6, images=9, seed=0)
    assert len({(shot.folder, shot.name) for shot in shots}) == len(shots)


def test_an_identity_is_one_walker_whichever_camera_sees_it():
    shots = plan(train_identities=4, test_identities=3, cameras=3, images=2, seed=0)
    for shot in shots:
        if not shot.name.startswith(("0000", "-1")):
            assert int(shot.name[:4]) == shot.walker
    identities = {shot.walker for shot in shots if not shot.name.startswith(("0000", "-1"))}
    assert not identities & {shot.walker for shot in shots if shot.name.startswith("0000")}


def test_progress_counts_to_the_total(tmp_path):
    seen = []
    write_market(tmp_path / "out", **SMALL, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, len(seen)) for i in range(len(seen))]


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match="not an empty folder"):
        write_market(tmp_path, **SMALL)
    assert files(tmp_path) == {"mine.txt": b"keep"}
    with pytest.raises(ValueError, match="not an empty folder"):
        write_market(tmp_path / "mine.txt", **SMALL)


@pytest.mark.parametrize(
    "key, value",
    [("cameras", 1), ("cameras", 10), ("images", 1), ("train_identities", 0), ("size", (4, 4))],
)
def test_impossible_numbers_are_named_before_anything_is_written(tmp_path, key, value):
    with pytest.raises(ValueError, match="height" if key == "size" else key):
        write_market(tmp_path / "out", **{**SMALL, key: value})
    assert not (tmp_path / "out").exists()


def test_the_benchmark_renders_once_and_reads_like_market(tmp_path, monkeypatch):
    first = load(tmp_path, **SMALL)
    assert first.name == "synthetic" and first.protocol.exclude == "same_camera"
    assert {sample.domain for sample in first.train} == {"synthetic"}
    assert len({sample.pid for sample in first.train}) == 4
    assert -1 not in {sample.pid for sample in first.gallery}
    assert 0 in {sample.pid for sample in first.gallery}
    assert min(sample.camid for sample in first.train) == 0
    monkeypatch.setattr(market, "picture", None)
    assert BENCHMARKS.build("synthetic", {**SMALL, "size": [32, 16]}, root=tmp_path) == first


def test_other_arguments_get_another_folder(tmp_path):
    load(tmp_path, **SMALL)
    load(tmp_path, **{**SMALL, "seed": 1})
    assert len(list(tmp_path.iterdir())) == 2


def test_an_interrupted_render_leaves_nothing_behind(tmp_path, monkeypatch):
    calls = []

    def stop(*args, **kwargs):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return picture(*args, **kwargs)

    monkeypatch.setattr(market, "picture", stop)
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path, **SMALL)
    assert list(tmp_path.iterdir()) == []
