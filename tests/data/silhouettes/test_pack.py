"""From a folder of silhouettes to a store."""

import json
import os
import pickle

import cv2
import numpy as np
import pytest

from reidkit.data.silhouettes.align import align
from reidkit.data.silhouettes.judge import Limits
from reidkit.data.silhouettes.pack import pack_silhouettes
from reidkit.data.silhouettes.store import SilhouetteStore, store_samples
from tests.data.silhouettes.bodies import body, walk, write_walk

FILES = ("store.json", "frames.bin", "sequences.csv")


@pytest.fixture
def tree(tmp_path):
    """CASIA-B's layout with one sequence of every kind."""
    src = tmp_path / "src"
    write_walk(src / "001/nm-01/000", walk(8))
    write_walk(src / "001/nm-01/090", walk(9))
    (src / "001/nm-01/090/Thumbs.db").write_bytes(b"not a picture")
    (src / "001/nm-02/000").mkdir(parents=True)
    write_walk(src / "001/nm-02/090", [np.zeros((140, 180), np.uint8)] * 6)
    write_walk(src / "002/nm-01/000", walk(3))
    write_walk(src / "002/nm-01/090", [*walk(7), *[body(y=60)] * 3])
    write_walk(src / "002/nm-02/000", walk(8))
    path = src / "002/nm-02/000/004.png"
    path.write_bytes(path.read_bytes()[:60])
    (src / "003/nm-01/000").mkdir(parents=True)
    with (src / "003/nm-01/000/000.pkl").open("wb") as file:
        pickle.dump(np.stack([align(mask) for mask in walk(8)]), file)
    return src


def contents(folder):
    return [(folder / name).read_bytes() for name in FILES]


def test_every_sequence_has_a_verdict(tree, tmp_path):
    report = pack_silhouettes(tree, tmp_path / "out")
    found = {s.name: (s.verdict, s.why, s.length) for s in report.sequences}
    why = found.pop("002/nm-02/000")
    assert why[0] == "rejected" and why[1].startswith("unreadable: ") and "004.png" in why[1]
    assert found == {
        "001/nm-01/000": ("good", "", 8),
        "001/nm-01/090": ("good", "", 9),
        "001/nm-02/000": ("rejected", "no frames", 0),
        "001/nm-02/090": ("rejected", "all black", 0),
        "002/nm-01/000": ("warned", "too short (3 frames)", 3),
        "002/nm-01/090": ("warned", "cropped: touches the border in 3 of 10 frames", 7),
        "003/nm-01/000": ("good", "", 8),
    }
    assert report.counts == {"good": 3, "warned": 2, "rejected": 3, "frames": 35}


def test_the_store_holds_the_aligned_frames(tree, tmp_path):
    pack_silhouettes(tree, tmp_path / "out")
    store = SilhouetteStore.open(tmp_path / "out")
    samples = store_samples(store, "casia_b")
    assert [(s.pid, s.condition, s.view, s.camid) for s in samples] == [
        (1, "nm-01", "000", 0),
        (1, "nm-01", "090", 1),
        (2, "nm-01", "000", 0),
        (2, "nm-01", "090", 1),
        (3, "nm-01", "000", 0),
    ]
    for sample, masks in zip(samples, [walk(8), walk(9), walk(3), walk(7), walk(8)], strict=True):
        positions = sample.frames.start + np.arange(sample.frames.length)
        np.testing.assert_array_equal(store.read(positions), [align(mask) for mask in masks])


def test_one_bit_a_pixel_keeps_the_brighter_half(tree, tmp_path):
    pack_silhouettes(tree, tmp_path / "eight")
    pack_silhouettes(tree, tmp_path / "one", bits=1)
    eight, one = (SilhouetteStore.open(tmp_path / name) for name in ("eight", "one"))
    places = np.arange(len(eight))
    np.testing.assert_array_equal(one.read(places), np.where(eight.read(places) > 127, 255, 0))


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_write_the_same_bytes(tree, tmp_path, workers):
    pack_silhouettes(tree, tmp_path / "plain")
    pack_silhouettes(tree, tmp_path / "threads", workers=workers)
    assert contents(tmp_path / "plain") == contents(tmp_path / "threads")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 4, 8])
def test_a_killed_pack_goes_on_and_ends_with_the_same_bytes(tree, tmp_path, workers, stop):
    pack_silhouettes(tree, tmp_path / "whole")

    def kill(done, total):
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_silhouettes(tree, tmp_path / "out", workers=workers, progress=kill)
    assert not (tmp_path / "out").exists()
    calls = []
    pack_silhouettes(
        tree, tmp_path / "out", workers=workers, progress=lambda *call: calls.append(call)
    )
    assert calls == [(done, 8) for done in range(stop + 1, 9)]
    assert contents(tmp_path / "whole") == contents(tmp_path / "out")


def test_a_complete_store_is_only_reported(tree, tmp_path):
    first = pack_silhouettes(tree, tmp_path / "out")
    before = os.stat(tmp_path / "out/frames.bin").st_mtime_ns
    calls = []
    again = pack_silhouettes(tree, tmp_path / "out", progress=lambda *call: calls.append(call))
    assert again == first and not calls
    assert os.stat(tmp_path / "out/frames.bin").st_mtime_ns == before


@pytest.mark.parametrize(
    "choice",
    [
        {"bits": 1},
        {"clean": True},
        {"limits": Limits(fewest_frames=2)},
        {"as_published": True},
        {"aligned": True},
        {"aligned": False},
    ],
)
def test_a_complete_store_with_other_choices_is_refused(tree, tmp_path, choice):
    pack_silhouettes(tree, tmp_path / "out")
    with pytest.raises(ValueError, match="another source or with other choices"):
        pack_silhouettes(tree, tmp_path / "out", **choice)


def test_a_complete_store_of_another_source_is_refused(tree, tmp_path):
    pack_silhouettes(tree, tmp_path / "out")
    write_walk(tmp_path / "other/001/nm-01/000", walk(8))
    with pytest.raises(ValueError, match="another source"):
        pack_silhouettes(tmp_path / "other", tmp_path / "out")


def test_an_interrupted_pack_of_another_source_is_refused(tree, tmp_path):
    def kill(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_silhouettes(tree, tmp_path / "out", progress=kill)
    write_walk(tmp_path / "other/001/nm-01/000", walk(8))
    with pytest.raises(ValueError, match="interrupted pack"):
        pack_silhouettes(tmp_path / "other", tmp_path / "out")


def test_a_source_that_was_moved_is_the_same(tree, tmp_path):
    first = pack_silhouettes(tree, tmp_path / "out")
    tree.rename(tmp_path / "moved")
    assert pack_silhouettes(tmp_path / "moved", tmp_path / "out") == first


def test_aligned_frames_pass_unchanged(tmp_path):
    frames = np.stack([align(mask) for mask in walk(8)])
    shifted = np.roll(frames, 3, axis=2)  # aligning once more would move these back
    write_walk(tmp_path / "src/1/a/000", shifted)
    write_walk(tmp_path / "src/1/a/090", frames[:, :, 10:54])
    report = pack_silhouettes(tmp_path / "src", tmp_path / "out")
    assert report.counts["good"] == 2
    store = SilhouetteStore.open(tmp_path / "out")
    np.testing.assert_array_equal(store.read(np.arange(8)), shifted)
    cut = frames.copy()
    cut[:, :, :10] = cut[:, :, 54:] = 0
    np.testing.assert_array_equal(store.read(np.arange(8, 16)), cut)


def frames_of(folder):
    store = SilhouetteStore.open(folder)
    return store.read(np.arange(len(store)))


def test_as_published_only_black_frames_are_left_out(tmp_path):
    two = np.maximum(body(x=120), body(x=20))
    masks = [*walk(6), body(y=60), two, np.zeros((140, 180), np.uint8)]
    src = write_walk(tmp_path / "src/1/a/000", masks).parents[2]
    pack_silhouettes(src, tmp_path / "usual")
    assert len(frames_of(tmp_path / "usual")) == 6
    report = pack_silhouettes(src, tmp_path / "published", as_published=True)
    np.testing.assert_array_equal(
        frames_of(tmp_path / "published"), [align(mask) for mask in masks[:8]]
    )
    (found,) = report.warned
    assert "cropped: touches the border in 1 of 9 frames (kept)" in found.why
    assert "two people in 1 of 9 frames (kept)" in found.why


def test_as_published_a_faint_frame_is_used(tmp_path):
    masks = [*walk(6), body() // 4]
    src = write_walk(tmp_path / "src/1/a/000", masks).parents[2]
    pack_silhouettes(src, tmp_path / "out", as_published=True)
    np.testing.assert_array_equal(frames_of(tmp_path / "out"), [align(mask) for mask in masks])


def test_as_published_no_sequence_is_rejected_for_its_cut_frames(tmp_path):
    src = write_walk(tmp_path / "src/1/a/000", [body(y=60, step=step) for step in range(8)])
    assert pack_silhouettes(src, tmp_path / "usual").counts["rejected"] == 1
    assert pack_silhouettes(src, tmp_path / "out", as_published=True).counts["warned"] == 1


@pytest.mark.parametrize("kind", ["pictures", "pickle"])
def test_a_second_piece_of_aligned_frames_is_said_and_not_dropped(tmp_path, kind):
    frames = np.stack([align(mask) for mask in walk(8)])
    frames[5, 4:60, :16] = 255
    if kind == "pictures":
        src = write_walk(tmp_path / "src/1/a/000", frames).parents[2]
    else:
        src = write_pickle(tmp_path, frames)
    (found,) = pack_silhouettes(src, tmp_path / "out").warned
    assert found.why == "two people in 1 of 8 frames (kept)"
    np.testing.assert_array_equal(frames_of(tmp_path / "out"), frames)


def test_frames_told_to_be_aligned_pass_although_the_body_is_small(tmp_path):
    frames = np.stack([body(x=20, y=4 * n, tall=40, wide=16, size=(64, 64)) for n in range(6)])
    src = write_walk(tmp_path / "src/1/a/000", frames).parents[2]
    pack_silhouettes(src, tmp_path / "guessed")
    assert not np.array_equal(frames_of(tmp_path / "guessed")[0], frames[0])
    pack_silhouettes(src, tmp_path / "told", aligned=True)
    np.testing.assert_array_equal(frames_of(tmp_path / "told"), frames)


@pytest.mark.parametrize("shape", [(64, 44), (128, 128), (140, 180), (44, 64)])
def test_anything_but_aligned_frames_is_rejected_where_they_are_told(tmp_path, shape):
    frames = [align(mask) for mask in walk(8)]
    frames[2] = cv2.resize(frames[2], shape[::-1])
    src = write_walk(tmp_path / "src/1/a/000", frames).parents[2]
    (found,) = pack_silhouettes(src, tmp_path / "out", aligned=True).rejected
    assert found.why == f"not aligned: frame 3 is {shape[0]}x{shape[1]}, expected 64x64"


def test_frames_told_not_to_be_aligned_are_cut_again(tmp_path):
    frames = np.stack([np.roll(align(mask), 3, axis=1) for mask in walk(8)])
    src = write_walk(tmp_path / "src/1/a/000", frames).parents[2]
    pack_silhouettes(src, tmp_path / "out", aligned=False, as_published=True)
    np.testing.assert_array_equal(frames_of(tmp_path / "out"), [align(mask) for mask in frames])


def test_grew_is_taken_as_aligned_unless_told_otherwise(tmp_path):
    src = tmp_path / "src"
    write_walk(src / "train/00001/video", walk(8))
    (found,) = pack_silhouettes(src, tmp_path / "out").rejected
    assert found.why == "not aligned: frame 1 is 140x180, expected 64x64"
    assert pack_silhouettes(src, tmp_path / "raw", aligned=False).counts["good"] == 1


@pytest.mark.parametrize("choice", [{"aligned": True}, {"as_published": True}])
def test_choices_that_contradict_each_other_are_refused(tree, tmp_path, choice):
    with pytest.raises(ValueError, match=r"clean removes specks, but .*; choose one$"):
        pack_silhouettes(tree, tmp_path / "out", clean=True, **choice)
    assert not list(tmp_path.glob("out*"))


def write_pickle(tmp_path, value):
    path = tmp_path / "src/1/a/000/000.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(value))
    return tmp_path / "src"


class Calls:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_a_hostile_pickle_is_rejected_and_not_run(tmp_path):
    src = write_pickle(tmp_path, Calls(str(tmp_path / "executed")))
    (found,) = pack_silhouettes(src, tmp_path / "out").rejected
    assert found.why.startswith("hostile pickle: ") and "000.pkl" in found.why
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "value",
    [
        [1, 2],
        np.zeros((64, 64), np.uint8),
        np.zeros((2, 64, 64)),
        np.zeros((2, 64, 64, 1), np.uint8),
    ],
    ids=["list", "one frame", "float", "four axes"],
)
def test_a_pickle_of_something_else_is_rejected(tmp_path, value):
    (found,) = pack_silhouettes(write_pickle(tmp_path, value), tmp_path / "out").rejected
    assert found.why.startswith("unreadable: ") and "000.pkl" in found.why


def test_a_pickle_of_raw_masks_is_aligned(tmp_path):
    pack_silhouettes(write_pickle(tmp_path, np.stack(walk(8))), tmp_path / "out")
    found = SilhouetteStore.open(tmp_path / "out").read(np.arange(8))
    np.testing.assert_array_equal(found, [align(mask) for mask in walk(8)])


@pytest.mark.parametrize("kind", ["bool pickle", "pictures"])
def test_masks_of_zero_and_one_are_stretched_and_said(tmp_path, kind):
    masks = np.stack(walk(8)) // 255
    if kind == "pictures":
        src = tmp_path / "src"
        write_walk(src / "1/a/000", masks)
    else:
        src = write_pickle(tmp_path, masks.astype(bool))
    (found,) = pack_silhouettes(src, tmp_path / "out").warned
    assert found.why == "values 0 and 1 in 8 of 8 frames (taken as 0 and 255)"
    store = SilhouetteStore.open(tmp_path / "out")
    np.testing.assert_array_equal(store.read(np.arange(8)), [align(mask) for mask in walk(8)])


def test_specks_are_kept_unless_cleaning_is_asked_for(tmp_path):
    spoilt = walk(8)
    for mask in spoilt:
        mask[0, 3:6] = 255
    src = tmp_path / "src"
    write_walk(src / "1/a/000", spoilt)
    pack_silhouettes(src, tmp_path / "kept")
    report = pack_silhouettes(src, tmp_path / "clean", clean=True)
    assert report.warned[0].why == "specks far from the body in 8 of 8 frames (removed)"
    kept, clean = (SilhouetteStore.open(tmp_path / n).read(np.arange(8)) for n in ("kept", "clean"))
    np.testing.assert_array_equal(kept, [align(mask) for mask in spoilt])
    np.testing.assert_array_equal(clean, [align(mask) for mask in walk(8)])


def test_colour_and_sixteen_bits_are_read_as_grey(tmp_path):
    folder = tmp_path / "src/1/a/000"
    folder.mkdir(parents=True)
    for number, mask in enumerate(walk(8)):
        picture = np.stack([mask] * 3, axis=2) if number % 2 else mask.astype(np.uint16) * 257
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    report = pack_silhouettes(tmp_path / "src", tmp_path / "out")
    assert report.counts["good"] == 1
    found = SilhouetteStore.open(tmp_path / "out").read(np.arange(8))
    np.testing.assert_array_equal(found, [align(mask) for mask in walk(8)])


@pytest.mark.parametrize("cut", [0, 8, 33, 60, -12, -4])
def test_a_picture_cut_anywhere_rejects_its_sequence(tmp_path, cut):
    folder = write_walk(tmp_path / "walk", walk(8))
    data = (folder / "003.png").read_bytes()
    (folder / "003.png").write_bytes(data[:cut])
    (found,) = pack_silhouettes(folder, tmp_path / "out").rejected
    assert found.why.startswith("unreadable: ") and "003.png" in found.why


def test_a_name_with_a_line_break_is_packed(tmp_path):
    write_walk(tmp_path / "src/a\nb/nm/000", walk(8))
    report = pack_silhouettes(tmp_path / "src", tmp_path / "out")
    assert report.sequences[0].subject == "a\\nb" and report.counts["good"] == 1


def test_the_report_is_for_people_and_for_machines(tree, tmp_path):
    report = pack_silhouettes(tree, tmp_path / "out")
    text = report.text().splitlines()
    assert "8 sequences, 35 frames" in text[0] and "3 good, 2 warned, 3 rejected" in text[0]
    assert "  rejected 001/nm-02/000: no frames" in text
    assert "  warned 002/nm-01/000: too short (3 frames)" in text
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["counts"]["rejected"] == 3
    assert {"sequence": "001/nm-02/090", "why": "all black"} in plain["rejected"]


def test_a_long_report_is_cut_and_says_so(tmp_path):
    for number in range(25):
        (tmp_path / f"src/{number:03d}/nm-01/000").mkdir(parents=True)
    report = pack_silhouettes(tmp_path / "src", tmp_path / "out")
    assert len(report.rejected) == 25
    assert "and 5 more rejected: see sequences.csv" in report.text()
