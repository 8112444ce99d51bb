import json
import re

import numpy as np
import pytest

from reidkit.data.silhouettes.align import align
from reidkit.data.silhouettes.store import SilhouetteStore
from reidkit.data.video import pack_video
from reidkit.data.video.masks import PersonMask
from reidkit.data.video.segmentation import make_segmenter

from .films import WIDTH, film, wall, write_film

RED, WHITE = (30, 30, 210), (240, 240, 240)


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """A film of two walkers on separate ways, and the truth of each."""
    pictures, truths = film([(-30, 4, 150, 70, RED), (210, -2.2, 68, 60, WHITE)], frames=70)
    path = write_film(tmp_path_factory.mktemp("street") / "walk.mp4", pictures)
    return path, np.array(truths)


def iou(a, b):
    return ((a > 127) & (b > 127)).sum() / ((a > 127) | (b > 127)).sum()


def whole(mask):
    """Whether a mask is there and away from the border."""
    inner = mask[1:-1, 1:-1].sum() == mask.sum()
    return mask.sum() > 20_000 and inner


def test_two_walkers_give_two_tracklets_that_overlap_the_truth(street, tmp_path):
    path, truths = street
    report = pack_video(path, tmp_path / "out")
    assert len(report.sequences) == 2 and not report.rejected
    store = SilhouetteStore.open(tmp_path / "out")
    frames = [store.read(np.arange(s.start, s.start + s.length)) for s in store.sequences]
    for silhouettes, truth in zip(frames, (truths[:, 1], truths[:, 0]), strict=True):
        expected = [align(mask) for mask in truth if whole(mask)]
        assert abs(len(silhouettes) - len(expected)) <= 4
        # Which frames were dropped at the border may differ by one or two at its ends.
        best = max(
            np.mean([iou(a, b) for a, b in zip(silhouettes[lag:], expected, strict=False)])
            for lag in range(4)
        )
        back = max(
            np.mean([iou(a, b) for a, b in zip(silhouettes, expected[lag:], strict=False)])
            for lag in range(4)
        )
        assert max(best, back) > 0.7


def test_sequences_say_where_they_come_from_and_that_nobody_knows_who(street, tmp_path):
    pack_video(street[0], tmp_path / "out")
    sequences = SilhouetteStore.open(tmp_path / "out").sequences
    assert [s.source for s in sequences] == ["walk.mp4#track-001", "walk.mp4#track-002"]
    assert [s.condition for s in sequences] == ["track-001", "track-002"]
    assert {(s.subject, s.view, s.camid) for s in sequences} == {("", "", -1)}


def test_what_the_user_knows_is_written_down(street, tmp_path):
    pack_video(street[0], tmp_path / "out", subject="007", condition="nm-01", view="090", bits=1)
    store = SilhouetteStore.open(tmp_path / "out")
    assert store.bits == 1
    assert {(s.subject, s.condition, s.view) for s in store.sequences} == {("007", "nm-01", "090")}


def test_frames_at_the_border_are_dropped_and_counted(street, tmp_path):
    report = pack_video(street[0], tmp_path / "out")
    entering = report.sequences[0] if "cropped" in report.sequences[0].why else report.sequences[1]
    assert "cropped: touches the border in" in entering.why
    visible = sum(mask.any() for mask in street[1][:, 0])
    assert entering.length < visible - 4


def test_the_same_video_gives_the_same_bytes(street, tmp_path):
    for name in ("a", "b"):
        pack_video(street[0], tmp_path / name)
    for file in ("frames.bin", "sequences.csv", "store.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_progress_runs_over_both_readings_to_the_end(street, tmp_path):
    told = []
    pack_video(street[0], tmp_path / "out", progress=lambda *now: told.append(now))
    assert told == [(n, 140) for n in range(1, 141)]


class Interrupted:
    """A segmenter that stops in the middle."""

    def __init__(self, after):
        self.inner, self.left = make_segmenter("background"), after

    def learn(self, samples):
        self.inner.learn(samples)

    def __call__(self, frames):
        self.left -= len(frames)
        if self.left < 0:
            raise KeyboardInterrupt
        return self.inner(frames)


def test_an_interrupted_pack_starts_its_video_again_and_ends_with_the_same_bytes(street, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        pack_video(street[0], tmp_path / "out", segmenter=Interrupted(40))
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.partial").exists()
    pack_video(street[0], tmp_path / "out", segmenter=Interrupted(1000))
    pack_video(street[0], tmp_path / "whole", segmenter=Interrupted(1000))
    for file in ("frames.bin", "sequences.csv"):
        out, once = tmp_path / "out" / file, tmp_path / "whole" / file
        assert out.read_bytes() == once.read_bytes()


def test_a_kill_between_two_tracklets_ends_with_the_same_bytes(street, tmp_path, monkeypatch):
    from reidkit.data.silhouettes.store import StoreWriter

    add = StoreWriter.add

    def once(self, *words, **named):
        if self.done:
            raise KeyboardInterrupt
        add(self, *words, **named)

    monkeypatch.setattr(StoreWriter, "add", once)
    with pytest.raises(KeyboardInterrupt):
        pack_video(street[0], tmp_path / "out")
    monkeypatch.undo()
    pack_video(street[0], tmp_path / "out")
    pack_video(street[0], tmp_path / "whole")
    for file in ("frames.bin", "sequences.csv"):
        out, whole_one = tmp_path / "out" / file, tmp_path / "whole" / file
        assert out.read_bytes() == whole_one.read_bytes()


def test_a_complete_pack_is_reported_and_one_of_other_choices_refused(street, tmp_path):
    first = pack_video(street[0], tmp_path / "out")
    assert pack_video(street[0], tmp_path / "out") == first
    with pytest.raises(ValueError, match="complete store of another video"):
        pack_video(street[0], tmp_path / "out", subject="007")


def test_a_folder_with_something_else_is_refused_before_the_work(street, tmp_path):
    (tmp_path / "mine.txt").write_text("x")

    def never(done, total):
        raise AssertionError("the video was read")

    with pytest.raises(ValueError, match="not empty"):
        pack_video(street[0], tmp_path, progress=never)


def test_an_empty_scene_is_refused_and_leaves_nothing_behind(tmp_path):
    path = write_film(tmp_path / "empty.mp4", film([], frames=30)[0])
    with pytest.raises(ValueError, match=r"empty\.mp4: no person was found in 30 frames") as caught:
        pack_video(path, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty.mp4"]


def test_a_moving_camera_is_refused(tmp_path):
    wide = wall(columns=3 * WIDTH)
    frames = [wide[:, 4 * t : 4 * t + WIDTH].clip(0, 255).astype(np.uint8) for t in range(60)]
    path = write_film(tmp_path / "pan.mp4", frames)
    with pytest.raises(ValueError, match=r"pan\.mp4: the camera moves"):
        pack_video(path, tmp_path / "out")


def test_a_broken_video_is_refused(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"\x00\x00\x00\x20ftypisom" + bytes(500))
    with pytest.raises(ValueError, match=r"bad\.mp4"):
        pack_video(tmp_path / "bad.mp4", tmp_path / "out")


class Told:
    """A segmenter that says what it was told: one list of persons for each frame."""

    def __init__(self, persons):
        self.persons = iter(persons)

    def learn(self, samples):
        pass

    def __call__(self, frames):
        return [next(self.persons) for _ in frames]


def person(x, y=40, width=20, height=60, value=255):
    return PersonMask((x, y, x + width, y + height), np.full((height, width), value, np.uint8))


@pytest.mark.parametrize(
    "persons, words",
    [
        ([[person(20 + 2 * t)] if t < 6 else [] for t in range(70)], r"too short \(6 frames\)"),
        ([[person(0)] for _ in range(70)], "cropped: touches the border in 70 of 70 frames"),
        ([[person(50), person(60)] for _ in range(70)], "two people in 70 of 70 frames"),
        ([[person(50, value=1)] for _ in range(70)], "all black"),
    ],
)
def test_tracklets_that_cannot_be_used_are_rejected_with_the_reason(
    street, tmp_path, persons, words
):
    report = pack_video(street[0], tmp_path / "out", segmenter=Told(persons))
    assert report.rejected == report.sequences
    for sequence in report.sequences:
        assert sequence.length == 0

        assert re.search(words, sequence.why)
    assert len(SilhouetteStore.open(tmp_path / "out")) == 0


def test_people_who_overlap_for_a_while_lose_these_frames(street, tmp_path):
    persons = [[person(20 + 2 * t), person(120, y=60)] for t in range(70)]
    report = pack_video(street[0], tmp_path / "out", segmenter=Told(persons))
    assert [s.verdict for s in report.sequences] == ["warned", "warned"]
    for sequence in report.sequences:
        assert "two people in" in sequence.why
        assert 40 < sequence.length < 60


def test_each_who_crosses_the_synthetic_street_is_one_good_tracklet(tmp_path):
    from reidkit.data.synthetic.video import write_video

    path = tmp_path / "street.mp4"
    write_video(path, pids=[1, 2], seed=0, both_ways=True)
    truth = json.loads(path.with_suffix(".json").read_text())
    report = pack_video(path, tmp_path / "out")
    assert [s.verdict for s in report.sequences] == ["good", "good"]
    for sequence, crossing in zip(report.sequences, truth["crossings"], strict=True):
        height, width = truth["size"]
        inside = sum(
            left > 0 and top > 0 and right < width and bottom < height
            for left, top, right, bottom in crossing["boxes"].values()
        )
        assert abs(sequence.length - inside) <= 4


def test_a_missing_model_is_told_before_anything_is_written(street, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        pack_video(street[0], tmp_path / "out", segmenter="none.onnx")
    assert list(tmp_path.iterdir()) == []
