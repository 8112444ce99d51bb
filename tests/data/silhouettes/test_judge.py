"""Verdicts over raw masks."""

import numpy as np
import pytest

from reidkit.data.silhouettes.align import align
from reidkit.data.silhouettes.judge import Limits, inspect, inspect_and_clean, judge, settle
from tests.data.silhouettes.bodies import body, walk

BLACK = np.zeros((140, 180), np.uint8)


def two(x=20):
    return np.maximum(body(x=120), body(x=x))


def test_a_plain_walk_is_good():
    assert judge(walk(8)) == ("good", "", tuple(range(8)), False)


def test_no_frames_and_all_black_are_rejected():
    assert judge([])[:3] == ("rejected", "no frames", ())
    assert judge([BLACK] * 9)[:3] == ("rejected", "all black", ())
    assert judge([np.zeros((0, 0), np.uint8)])[:2] == ("rejected", "all black")
    assert judge([np.full((140, 180), 60, np.uint8)] * 9)[:2] == ("rejected", "all black")


@pytest.mark.parametrize("frames, said", [(1, "(1 frame)"), (3, "(3 frames)"), (4, "(4 frames)")])
def test_a_short_walk_is_used_and_said(frames, said):
    assert judge(walk(frames)) == ("warned", f"too short {said}", tuple(range(frames)), False)


def test_black_frames_are_dropped_and_counted():
    found = judge([BLACK, *walk(8), BLACK])
    assert found.verdict == "warned" and found.used == tuple(range(1, 9))
    assert found.why == "black: 2 of 10 frames"


def test_few_black_frames_earn_no_warning_and_are_counted():
    found = judge([*walk(19), BLACK])
    assert found[:2] == ("good", "black: 1 of 20 frames") and len(found.used) == 19


def test_too_short_after_black_frames_is_used():
    found = judge([BLACK, BLACK, *walk(3)])
    assert found.verdict == "warned" and found.used == (2, 3, 4)
    assert found.why == "black: 2 of 5 frames; too short (3 frames)"


@pytest.mark.parametrize("place", [{"x": -8}, {"x": 160}, {"y": -20}, {"y": 60}])
def test_a_body_cut_by_any_border_is_dropped(place):
    found = judge([*walk(8), *[body(**place)] * 3])
    assert found.verdict == "warned" and found.used == tuple(range(8))
    assert found.why == "cropped: touches the border in 3 of 11 frames"


def test_a_body_that_ends_on_the_last_pixel_touches_the_border():
    assert inspect(body(x=0)).cropped and not inspect(body(x=1)).cropped
    assert inspect(body(y=40)).cropped and not inspect(body(y=39)).cropped


def test_a_sequence_of_cut_bodies_is_rejected():
    found = judge([*walk(4), *[body(y=60)] * 6])
    assert found[:3] == (
        "rejected",
        "cropped: touches the border in 6 of 10 frames; too short (4 frames)",
        (),
    )


def test_walking_in_and_out_earns_no_warning():
    found = judge([*walk(20), body(x=-8), body(x=160)])
    assert found.verdict == "good" and len(found.used) == 20
    assert found.why == "cropped: touches the border in 2 of 22 frames"


def test_two_people_are_dropped():
    found = judge([*walk(30), two()])
    assert found[:3] == ("warned", "two people in 1 of 31 frames", tuple(range(30)))
    assert judge([two()] * 9)[:2] == (
        "rejected",
        "two people in 9 of 9 frames; too short (0 frames)",
    )


def test_a_smaller_person_behind_is_a_person():
    assert inspect(np.maximum(body(x=120), body(x=20, y=40, tall=60, wide=24))).doubled


def test_a_person_far_above_is_a_person():
    mask = np.zeros((400, 180), np.uint8)
    mask[20:120, 60:90] = 255
    mask[250:370, 60:90] = 255
    assert inspect(mask).doubled


def test_a_body_in_pieces_is_one_person():
    mask = body()
    mask[64:74] = 0  # torso and legs: the second piece has more than a quarter of the area
    assert not inspect(mask).doubled and not inspect(mask).specks
    stripes = body(tall=96, wide=40)
    stripes[:, 79:82] = 0  # cut from head to foot: close, but beside one another
    assert inspect(stripes).doubled  # cannot be told from two people, and no frame to learn from


def test_a_bag_is_no_person():
    mask = body(x=40)
    mask[90:115, 110:140] = 255
    assert not inspect(mask).doubled


def test_the_share_that_makes_a_person_can_be_set():
    mask = np.maximum(body(x=120), body(x=20, y=40, tall=60, wide=24))
    assert not inspect(mask, Limits(second_person=0.9)).doubled


@pytest.mark.parametrize("size", [(64, 64), (64, 44), (128, 128), (128, 88)])
def test_aligned_masks_touch_the_border_by_construction(size):
    masks = []
    for mask in walk(8):
        aligned = align(mask, size[0])
        cut = (size[0] - size[1]) // 2
        masks.append(aligned[:, cut : size[0] - cut])
    assert judge(masks) == ("good", "", tuple(range(8)), True)


KEPT = Limits(drop_spoilt=False)


def test_spoilt_frames_are_used_as_published_and_said():
    found = judge([*walk(6), body(y=60), body(x=-8), two(), BLACK], KEPT)
    assert found.verdict == "warned" and found.used == tuple(range(9))
    assert found.why == (
        "black: 1 of 10 frames; cropped: touches the border in 2 of 10 frames (kept); "
        "two people in 1 of 10 frames (kept)"
    )
    assert judge([body(y=60)] * 3, KEPT)[1:3] == (
        "cropped: touches the border in 3 of 3 frames (kept); too short (3 frames)",
        (0, 1, 2),
    )


def test_a_faint_frame_is_no_black_one_as_published():
    faint = np.full((140, 180), 60, np.uint8)
    found = judge([*walk(8), faint], KEPT)
    assert found[:2] == ("warned", "faint: nothing in the brighter half in 1 of 9 frames (kept)")
    assert found.used == tuple(range(9))
    assert judge([*walk(8), faint]).why == "black: 1 of 9 frames"
    assert judge([BLACK] * 9, KEPT)[:3] == ("rejected", "all black", ())


def aligned_pair():
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 8:24] = mask[4:60, 40:56] = 255
    return mask


def test_a_second_piece_of_aligned_masks_is_said_and_not_dropped():
    found = judge([*(align(mask) for mask in walk(8)), aligned_pair()])
    assert found.aligned and found.used == tuple(range(9))
    assert found[:2] == ("warned", "two people in 1 of 9 frames (kept)")
    few = judge([aligned_pair()] * 3)
    assert few[:2] == ("warned", "two people in 3 of 3 frames (kept); too short (3 frames)")


def test_who_knows_that_masks_are_aligned_or_not_need_not_guess():
    low = body(x=20, y=24, tall=40, wide=16, size=(64, 64))
    facts = [inspect(low)] * 8
    assert not settle(facts).aligned and settle(facts, aligned=True).aligned
    full = [inspect(align(mask)) for mask in walk(8)]
    assert settle(full).used == settle(full, aligned=True).used == tuple(range(8))
    assert settle(full, aligned=False).verdict == "rejected"  # all touch the border


def test_a_small_picture_that_the_body_does_not_fill_is_no_aligned_one():
    masks = [body(x=-4, y=10, tall=40, wide=16, size=(64, 64))] * 9
    found = judge(masks)
    assert not found.aligned and found.verdict == "rejected"


def test_mixed_sizes_are_used_and_said():
    found = judge([*walk(4), *walk(4, size=(150, 200))])
    assert found[:2] == ("warned", "mixed sizes: 140x180, 150x200") and len(found.used) == 8


def test_specks_at_the_border_are_not_a_cut_body():
    masks = walk(8)
    for mask in masks:
        mask[0, 3:6] = 255
    found = judge(masks)
    assert found.verdict == "warned" and len(found.used) == 8
    assert found.why == "specks far from the body in 8 of 8 frames (kept)"


def test_cleaning_removes_specks_and_keeps_the_body():
    mask = body()
    spoilt = mask.copy()
    spoilt[0, 3:6] = 255
    facts, cleaned = inspect_and_clean(spoilt)
    assert facts.specks
    np.testing.assert_array_equal(cleaned, mask)
    np.testing.assert_array_equal(align(cleaned), align(mask))


def test_grey_edges_are_kept():
    mask = np.where(body() > 0, 200, 0).astype(np.uint8)
    assert judge([mask] * 6).verdict == "good"


@pytest.mark.parametrize(
    "wrong", [{"fewest_frames": 0}, {"ordinary_share": 1.5}, {"second_person": -0.1}]
)
def test_limits_outside_their_range_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        Limits(**wrong)


def test_the_fewest_frames_can_be_set():
    assert judge(walk(3), Limits(fewest_frames=3)).verdict == "good"
