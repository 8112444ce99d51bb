"""The LOMO-like descriptor: its parts against loops, and what it does not change with."""

import numpy as np
import pytest

from reidkit.data.lomo import halved, hsv_codes, lomo, occurrence, siltp_codes

DIM = 40 * (512 + 2 * 81)


def picture(height=128, width=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def walker(left, seed=0):
    """A dressed rectangle before a plain wall, `left` pixels from the edge."""
    image = np.full((128, 48, 3), 120, np.uint8)
    image[20:60, left : left + 16] = (200, 30, 30)
    image[60:120, left : left + 16] = (30, 40, 160)
    return image


def test_a_picture_gives_26960_numbers_in_two_unit_vectors():
    found = lomo(picture())
    assert found.shape == (DIM,) and found.dtype == np.float32
    assert np.linalg.norm(found[: 40 * 512]) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(found[40 * 512 :]) == pytest.approx(1, abs=1e-5)


def test_occurrence_is_the_most_in_any_window_of_the_row():
    codes = np.random.default_rng(0).integers(0, 7, (32, 22))
    found = occurrence(codes, 7)
    rows = range(0, 32 - 9, 5)
    assert found.shape == (len(rows), 7)
    for number, top in enumerate(rows):
        for code in range(7):
            counts = [
                (codes[top : top + 10, left : left + 10] == code).sum()
                for left in range(0, 22 - 9, 5)
            ]
            assert found[number, code] == max(counts)


@pytest.mark.parametrize("radius", [3, 5])
def test_patterns_equal_the_loop_over_pixels(radius):
    grey = np.random.default_rng(0).integers(0, 256, (14, 9), dtype=np.uint8)
    found = siltp_codes(grey, radius)
    for y in range(14):
        for x in range(9):
            code = 0
            for dy, dx in ((0, radius), (-radius, 0), (0, -radius), (radius, 0)):
                near = float(grey[min(max(y + dy, 0), 13), min(max(x + dx, 0), 8)])
                centre = float(grey[y, x])
                code = 3 * code + (1 if near > 1.3 * centre else 2 if near < 0.7 * centre else 0)
            assert found[y, x] == code


def test_patterns_are_the_same_under_any_gain():
    grey = np.random.default_rng(0).integers(1, 60, (20, 20), dtype=np.uint8)
    np.testing.assert_array_equal(siltp_codes(grey, 3), siltp_codes(4 * grey, 3))


def test_colours_fall_into_eight_bins_a_channel():
    pure = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0], [255, 255, 255]]], np.uint8)
    # hue 0, 60 and 120 of 180; saturation and value 255 or 0 of 256
    expected = [7 * 8 + 7, 2 * 64 + 63, 5 * 64 + 63, 0, 7]
    assert hsv_codes(pure).tolist() == [expected]
    assert hsv_codes(picture()).min() >= 0 and hsv_codes(picture(200, 90)).max() < 512


def test_halving_is_the_mean_of_four_pixels():
    image = picture(8, 6)
    expected = image.reshape(4, 2, 3, 2, 3).astype(float).mean((1, 3))
    assert np.abs(halved(image) - expected).max() <= 0.5


def test_where_in_the_width_somebody_walks_makes_little_difference_but_clothes_do():
    here, there = lomo(walker(5)), lomo(walker(25))
    undressed = walker(5)
    undressed[20:60, 5:21] = (220, 210, 40)
    assert here @ there > here @ lomo(undressed) + 0.05


def test_a_darker_picture_is_nearly_the_same():
    bright = walker(10)
    dark = (0.6 * bright).astype(np.uint8)
    assert lomo(bright) @ lomo(dark) > 1.9


@pytest.mark.parametrize("size", [(1, 1), (20, 9), (64, 32), (300, 100)])
def test_pictures_of_any_size_give_as_many_numbers(size):
    found = lomo(picture(*size))
    assert found.shape == (DIM,) and np.isfinite(found).all()


@pytest.mark.parametrize("value", [0, 255])
def test_a_picture_of_one_colour_is_described_too(value):
    assert np.isfinite(lomo(np.full((64, 32, 3), value, np.uint8))).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_what_is_no_rgb_picture_is_refused(image):
    with pytest.raises(ValueError, match=r"expected \(h, w, 3\) uint8, RGB"):
        lomo(image)
