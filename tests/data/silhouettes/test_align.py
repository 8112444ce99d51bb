"""Aligning against a literal twin of the published steps."""

import cv2
import numpy as np
import pytest

from reidkit.data.silhouettes.align import align


def literal(mask, size=64):
    """The steps one by one, in plain loops; only the cubic scaling is OpenCV's."""
    if sum(int(value) for row in mask for value in row) <= 10_000:
        return None
    rows = [y for y in range(mask.shape[0]) if mask[y].any()]
    mask = mask[rows[0] : rows[-1] + 1]
    width = int(size * (mask.shape[1] / mask.shape[0]))
    mask = cv2.resize(mask, (width, size), interpolation=cv2.INTER_CUBIC)
    total, reached, centre = int(mask.astype(np.int64).sum()), 0, -1
    for x in range(width):
        reached += int(mask[:, x].astype(np.int64).sum())
        if reached > total / 2:
            centre = x
            break
    if centre == -1:
        return None
    half = size // 2
    left, right = centre - half, centre + half
    if left <= 0 or right >= width:
        left, right = left + half, right + half
        empty = np.zeros((size, half), np.uint8)
        mask = np.concatenate([empty, mask, empty], axis=1)
    return mask[:, left:right]


def body(height, width, x, y, tall, wide, seed=0):
    """A picture with a body of noise-edged rows whose top left corner is at (x, y)."""
    generator = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    for row in range(y, min(y + tall, height)):
        start, end = x + generator.integers(0, 4), x + wide - generator.integers(0, 4)
        mask[row, max(start, 0) : max(end, 0)] = 255
    return mask


@pytest.mark.parametrize("seed", range(60))
def test_align_equals_the_literal_steps(seed):
    generator = np.random.default_rng(seed)
    height, width = int(generator.integers(60, 300)), int(generator.integers(40, 400))
    tall, wide = int(generator.integers(30, height)), int(generator.integers(12, 80))
    x, y = int(generator.integers(-10, width - 10)), int(generator.integers(0, height - 20))
    mask = body(height, width, x, y, tall, wide, seed)
    if seed % 3 == 0:
        mask = cv2.GaussianBlur(mask, (5, 5), 0)
    expected, found = literal(mask), align(mask)
    if expected is None:
        assert found is None
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("x", [-20, 0, 5, 295, 310])
def test_a_body_at_the_edge_of_the_picture_is_padded_with_zeros(x):
    mask = body(240, 320, x, 60, 130, 40)
    np.testing.assert_array_equal(align(mask), literal(mask))
    assert align(mask).shape == (64, 64)


def test_the_limits_of_the_padding_are_those_of_the_literal_steps():
    for x in range(128):  # every distance of the centre to both sides of a picture of two widths
        mask = np.zeros((64, 128), np.uint8)
        mask[:, x] = 255
        np.testing.assert_array_equal(align(mask), literal(mask))


def test_forty_white_pixels_are_a_body_and_thirty_nine_are_none():
    mask = np.zeros((64, 64), np.uint8)
    mask[10:49, 30] = 255
    assert align(mask) is None
    mask[49, 30] = 255
    assert align(mask) is not None


def test_a_sum_of_exactly_ten_thousand_is_no_body():
    mask = np.zeros((100, 100), np.uint8)
    mask[:, 50] = 100
    assert align(mask) is None
    mask[0, 50] = 101
    assert align(mask) is not None


def test_the_body_fills_the_height_and_its_middle_column_is_the_centre():
    mask = np.zeros((240, 320), np.uint8)
    mask[50:178, 200:240] = 255  # 128 x 40: half as large afterwards, columns 22 to 41 of 64
    aligned = align(mask)
    assert (aligned[:, 23:41] == 255).all()
    assert not aligned[:, :20].any() and not aligned[:, 44:].any()


def test_grey_edges_of_the_scaling_are_kept():
    aligned = align(body(240, 320, 100, 30, 150, 50))
    assert np.isin(aligned, [0, 255], invert=True).any()


def test_another_size_is_the_same_picture_in_other_numbers():
    mask = body(240, 320, 100, 30, 150, 50)
    np.testing.assert_array_equal(align(mask, 128), literal(mask, 128))


def test_a_mask_that_scaling_makes_vanish_is_no_body():
    mask = np.zeros((6400, 30), np.uint8)
    mask[0], mask[-1], mask[3001] = 255, 255, 255
    assert align(mask) is None


def test_a_picture_of_less_than_a_column_keeps_one():
    mask = np.full((200, 1), 255, np.uint8)
    aligned = align(mask)
    assert (aligned[:, 32] == 255).all() and aligned.sum() == 64 * 255


def test_align_leaves_its_input_as_it_was():
    mask = body(240, 320, 100, 30, 150, 50)
    before = mask.copy()
    align(mask)[:] = 7
    np.testing.assert_array_equal(mask, before)


def test_an_empty_picture_is_no_body():
    assert align(np.zeros((0, 5), np.uint8)) is None


@pytest.mark.parametrize(
    "mask", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 3), np.uint8), np.zeros(4, np.uint8)]
)
def test_another_type_or_shape_is_refused(mask):
    with pytest.raises(ValueError, match=r"expected uint8 \(H, W\)"):
        align(mask)
