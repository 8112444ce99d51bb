"""Sequences are found by their names, whatever tree they come in."""

import pickle

import numpy as np
import pytest

from reidkit.data.adapters.gait_trees import scan_tree
from reidkit.data.silhouettes.sources import find_sequences, is_frame, known_layout


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not looked at")


def facts(sources):
    return [(s.subject, s.condition, s.view, s.camid, s.name) for s in sources]


def test_casia_b_is_subject_condition_view(tmp_path):
    for place in ("002/nm-01/018", "001/nm-02/000", "001/nm-01/180", "001/nm-01/018"):
        touch(
            *(tmp_path / place / f"x-{n:03d}.png" for n in (2, 1)), tmp_path / place / "Thumbs.db"
        )
    found = find_sequences(tmp_path)
    assert facts(found) == [
        ("001", "nm-01", "018", 1, "001/nm-01/018"),
        ("001", "nm-01", "180", 2, "001/nm-01/180"),
        ("001", "nm-02", "000", 0, "001/nm-02/000"),
        ("002", "nm-01", "018", 1, "002/nm-01/018"),
    ]
    assert [path.name for path in found[0].frames] == ["x-001.png", "x-002.png"]


def test_an_opengait_tree_has_a_pickle_for_each_sequence(tmp_path):
    touch(tmp_path / "001/nm-01/018/018.pkl")
    (source,) = find_sequences(tmp_path)
    assert source.frames == tmp_path / "001/nm-01/018/018.pkl" and not source.fault


def test_ou_mvlp_names_view_and_sequence_in_the_first_folder(tmp_path):
    touch(tmp_path / "Silhouette_015-01/00002/0001.png", tmp_path / "Silhouette_000-00/00001/1.png")
    touch(tmp_path / "Silhouette_000-00/00003/1.png", tmp_path / "ID_list.csv")
    assert facts(find_sequences(tmp_path)) == [
        ("00001", "00", "000", 0, "Silhouette_000-00/00001"),
        ("00002", "01", "015", 1, "Silhouette_015-01/00002"),
        ("00003", "00", "000", 0, "Silhouette_000-00/00003"),
    ]


def test_casia_a_names_view_and_walk_in_the_second_folder(tmp_path):
    touch(*(tmp_path / f"fyc/{name}/fyc-1.png" for name in ("90_1", "00_2", "45_1")))
    assert facts(find_sequences(tmp_path)) == [
        ("fyc", "1", "045", 1, "fyc/45_1"),
        ("fyc", "1", "090", 2, "fyc/90_1"),
        ("fyc", "2", "000", 0, "fyc/00_2"),
    ]


def test_grew_as_released_says_side_and_identity_in_its_folders(tmp_path):
    for place in ("train/00001/v2", "test/gallery/00001/v9", "test/gallery/00001/v1"):
        touch(tmp_path / place / "1.png", tmp_path / place / "v_2d_gei.png")
    touch(tmp_path / "test/probe/v5/1.png", tmp_path / "distractor/v7/1.png")
    found = find_sequences(tmp_path)
    assert facts(found) == [
        ("00001", "01", "v1", -1, "test/gallery/00001/v1"),
        ("00001", "02", "v9", -1, "test/gallery/00001/v9"),
        ("00001train", "00", "v2", -1, "train/00001/v2"),
        ("probe", "03", "v5", -1, "test/probe/v5"),
    ]
    assert {path.name for source in found for path in source.frames} == {"1.png"}


@pytest.mark.parametrize("place", ["train/00001/v", "test/gallery/00001/v"])
def test_half_of_grew_is_grew(tmp_path, place):
    touch(tmp_path / place / "1.png")
    assert known_layout(tmp_path) == "grew"
    assert len(find_sequences(tmp_path)) == 1


@pytest.mark.parametrize("place", ["train/00001", "test/gallery/00001", "test/probe"])
def test_frames_of_grew_outside_a_video_are_not_left_out_silently(tmp_path, place):
    touch(tmp_path / "train/00002/v/1.png", tmp_path / place / "1.png")
    with pytest.raises(ValueError, match="holds frames itself; expected train/"):
        find_sequences(tmp_path)


def test_grew_can_be_named_and_be_absent(tmp_path):
    touch(tmp_path / "001/nm-01/018/1.png")
    with pytest.raises(ValueError, match=r"no sequences in .*; expected train/"):
        find_sequences(tmp_path, "grew")


@pytest.mark.parametrize(
    "name, taken",
    [
        ("001.png", True),
        ("001.PNG", True),
        ("0a1b_2d_gei.png", False),
        ("gei.png", False),
        (".001.png", False),
        ("Thumbs.db", False),
        ("000.pkl", False),
    ],
)
def test_readers_and_packing_take_the_same_files_for_frames(tmp_path, name, taken):
    touch(tmp_path / "001/nm-01/018/5.png", tmp_path / "001/nm-01/036" / name)
    frames = find_sequences(tmp_path)[1].frames
    walks = [walk for walk in scan_tree(tmp_path).walks if walk.view == "036"]
    assert is_frame(name) == bool(walks) == taken
    assert name.endswith(".pkl") or bool(frames) == taken


def test_a_folder_of_pictures_is_one_walk(tmp_path):
    touch(tmp_path / "me/10.png", tmp_path / "me/9.png", tmp_path / "me/._9.png")
    (source,) = find_sequences(tmp_path / "me")
    assert source.subject == source.name == "me"
    assert [path.name for path in source.frames] == ["9.png", "10.png"]


def test_an_empty_sequence_is_found(tmp_path):
    touch(tmp_path / "001/nm-01/018/1.png", tmp_path / "001/nm-01/036/Thumbs.db")
    assert [len(source.frames) for source in find_sequences(tmp_path)] == [1, 0]


def test_hidden_folders_are_ignored(tmp_path):
    touch(tmp_path / "001/nm-01/018/1.png", tmp_path / "001/.cache/x/1.png")
    assert len(find_sequences(tmp_path)) == 1


@pytest.mark.parametrize("others", [["1.pkl", "2.pkl"], ["1.pkl", "1.png"]])
def test_two_ways_to_read_a_sequence_are_a_fault_of_it(tmp_path, others):
    touch(*(tmp_path / "001/nm-01/018" / name for name in others))
    (source,) = find_sequences(tmp_path)
    assert "expected either one pickle" in source.fault and not source.frames


@pytest.mark.parametrize(
    "paths",
    [[], ["readme.txt"], ["001/1.png"], ["001/nm-01/1.png"], ["1.png", "001/1.png"], ["a/b/c.txt"]],
)
def test_an_unknown_tree_is_told_in_one_line(tmp_path, paths):
    touch(*(tmp_path / path for path in paths))
    with pytest.raises(ValueError, match=r"subject/condition/view/\*\.png") as caught:
        find_sequences(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_frames_beside_folders_of_views_are_not_left_out_silently(tmp_path):
    touch(tmp_path / "001/nm-01/018/1.png", tmp_path / "001/nm-02/1.png")
    with pytest.raises(ValueError, match="nm-02 holds frames itself"):
        find_sequences(tmp_path)


def test_a_layout_can_be_named(tmp_path):
    touch(tmp_path / "001/00_1/018/1.png")
    assert find_sequences(tmp_path, "casia_b")[0].condition == "00_1"
    with pytest.raises(ValueError, match="Silhouette_"):
        find_sequences(tmp_path, "oumvlp")
    with pytest.raises(ValueError, match="expected one of auto, casia_b"):
        find_sequences(tmp_path, "nonsense")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        find_sequences(tmp_path / "nowhere")


def test_no_pixel_is_read(tmp_path):
    path = tmp_path / "001/nm-01/018/018.pkl"
    touch(path)
    path.write_bytes(pickle.dumps(np.zeros(3)))
    path.chmod(0)
    assert len(find_sequences(tmp_path)) == 1
