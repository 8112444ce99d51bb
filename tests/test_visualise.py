"""Pictures: what is drawn where, read back from the pixels."""

import json
import sys

import cv2
import numpy as np
import pytest

from reidkit.types import Sample
from reidkit.visualise import RankedRow, curves, ranked_strips

RIGHT, WRONG, BLUE, GREY = (26, 152, 80), (215, 48, 39), (10, 20, 250), (217, 217, 217)


@pytest.fixture
def blue(tmp_path):
    file = tmp_path / "blue.png"
    cv2.imwrite(str(file), np.full((64, 32, 3), BLUE[::-1], np.uint8))
    return Sample((str(file),), 3, 1)


def pixels(path, colour):
    image = cv2.imread(str(path))[:, :, ::-1].astype(int)
    return int((np.abs(image - colour).max(2) <= 3).sum())


def strip(path, query, matches, right):
    ranked_strips(path, [RankedRow(query, matches, [0.1] * len(matches), right)])
    return path


def test_frames_are_green_for_right_and_red_for_wrong(tmp_path, blue):
    one = strip(tmp_path / "a.png", blue, [blue], [True])
    both = strip(tmp_path / "b.png", blue, [blue, blue, blue], [True, False, False])
    legend = strip(tmp_path / "c.png", blue, [], [])
    green, red = pixels(legend, RIGHT), pixels(legend, WRONG)
    assert pixels(one, RIGHT) > green + 500
    assert pixels(one, WRONG) == red
    assert pixels(both, WRONG) - red == pytest.approx(2 * (pixels(one, RIGHT) - green), rel=0.05)


def test_every_item_is_shown_and_cells_stay_empty_where_there_are_fewer(tmp_path, blue):
    areas = [
        pixels(strip(tmp_path / f"{n}.png", blue, [blue] * n, [True] * n), BLUE) for n in (0, 1, 4)
    ]
    assert areas[1] == pytest.approx(2 * areas[0], rel=0.05)
    assert areas[2] == pytest.approx(5 * areas[0], rel=0.05)


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_a_file_that_cannot_be_read_is_a_grey_cell(tmp_path, blue, content):
    broken = tmp_path / "broken.jpg"
    if content is not None:
        broken.write_bytes(content)
    good = strip(tmp_path / "good.png", blue, [blue], [True])
    bad = strip(tmp_path / "bad.png", blue, [Sample((str(broken),), 3)], [True])
    assert pixels(bad, GREY) > pixels(good, GREY) + 3000


def test_samples_without_files_are_drawn_too(tmp_path):
    path = strip(tmp_path / "x.png", Sample((), 1), [Sample((), 2)], [False])
    assert pixels(path, GREY) > 3000


def test_of_a_tracklet_the_middle_frame_is_shown(tmp_path, blue):
    track = Sample(("nowhere.jpg", blue.frames[0], "nowhere.jpg"), 3)
    assert pixels(strip(tmp_path / "x.png", track, [], []), BLUE) > 3000


def test_more_rows_make_a_taller_picture(tmp_path, blue):
    row = RankedRow(blue, [blue], [0.2], [True])
    heights = []
    for n in (1, 2, 3):
        ranked_strips(tmp_path / "x.png", [row] * n, title="three")
        heights.append(cv2.imread(str(tmp_path / "x.png")).shape[0])
    assert heights[2] - heights[1] == pytest.approx(heights[1] - heights[0], abs=2)
    assert heights[1] > heights[0] + 100


def test_rows_that_do_not_fit_are_refused(tmp_path, blue):
    with pytest.raises(ValueError, match="2 matches, 1 distances and 2"):
        RankedRow(blue, [blue, blue], [0.1], [True, False])
    with pytest.raises(ValueError, match="no rows"):
        ranked_strips(tmp_path / "x.png", [])


def train(epoch, **terms):
    return {
        "kind": "train",
        "epoch": epoch,
        "iteration": int(epoch * 10),
        "loss": sum(terms.values()),
        "terms": terms,
        "lr": 1e-3,
    }


def evaluation(epoch, weights="ema", **scores):
    return {
        "kind": "evaluation",
        "epoch": epoch,
        "iteration": 1,
        "weights": weights,
        "scores": scores,
    }


LONG = [train(i / 10, a=3 - i / 20, b=1.0) for i in range(50)]


@pytest.mark.parametrize(
    "log",
    [
        [],
        [train(0.0, a=1.0)],
        [evaluation(0, mAP=0.1)],
        LONG,
        [
            *LONG,
            evaluation(1, mAP=0.2),
            evaluation(1, "raw", mAP=0.1),
            evaluation(2, mAP=0.3, mINP=0.1),
        ],
        [train(0, a=1.0), train(1, a=float("nan"), new=2.0)],
        [{"kind": "note", "words": "passed over"}, train(0)],
    ],
)
def test_curves_draw_any_log(tmp_path, log):
    curves(log, tmp_path / "curves.png")
    image = cv2.imread(str(tmp_path / "curves.png"))
    assert image.shape[1] > 2 * image.shape[0]


def test_each_panel_draws_its_own_records(tmp_path):
    def ink(log):
        curves(log, tmp_path / "x.png")
        panels = np.array_split(cv2.imread(str(tmp_path / "x.png")).astype(int), 3, axis=1)
        return [
            int((np.ptp(panel[:, 60:], axis=2) > 60).sum()) for panel in panels
        ]  # coloured pixels

    nothing, training, whole = (
        ink([]),
        ink(LONG),
        ink([*LONG, evaluation(1, mAP=0.2), evaluation(5, mAP=0.9)]),
    )
    assert nothing == [0, 0, 0]
    assert training[0] > 100 and training[1] > 100 and training[2] == 0
    assert whole[2] > 100


def test_a_log_file_with_a_line_cut_off_at_the_end_is_read(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, LONG)) + '\n{"kind": "tr')
    curves(log, tmp_path / "a.png")
    curves(LONG, tmp_path / "b.png")
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png")), cv2.imread(str(tmp_path / "b.png")))


def test_a_spoilt_log_is_refused_with_its_line(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"kind": "train"\n{"kind": "note"}\n')
    with pytest.raises(ValueError, match=r"log.jsonl, line 1 is not JSON"):
        curves(log, tmp_path / "x.png")
    with pytest.raises(FileNotFoundError, match="no training log"):
        curves(tmp_path / "nowhere.jsonl", tmp_path / "x.png")


def test_a_picture_that_fails_leaves_the_old_one_and_no_rubbish(tmp_path, monkeypatch):
    target = tmp_path / "deep" / "x.png"
    curves(LONG, target)
    before = target.read_bytes()
    monkeypatch.setattr(
        "reidkit.files.os.replace", lambda *_: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        curves([], target)
    assert target.read_bytes() == before
    assert [file.name for file in target.parent.iterdir()] == ["x.png"]


def test_drawing_does_not_touch_the_state_of_pyplot(tmp_path):
    loaded = "matplotlib.pyplot" in sys.modules
    curves(LONG, tmp_path / "x.png")
    assert ("matplotlib.pyplot" in sys.modules) == loaded
