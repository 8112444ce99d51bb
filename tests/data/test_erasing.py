import math

import numpy as np
import pytest

from reidkit.data import RandomErasing
from reidkit.data.draws import Draws, Stream, uniform
from reidkit.data.erasing import MEAN_PIXEL

HEIGHT, WIDTH = 64, 32


def draws(count, seed=0):
    return Draws.of(seed, 0, range(count), [0] * count)


def slow_rectangle(erasing, height, width, seed, index):
    """Algorithm 1 of the paper for one picture, with the tries of its code."""

    def chances(stream, count):
        return uniform(seed, 0, [index], [0], stream, count)[0].tolist()

    if chances(Stream.ERASING, 1)[0] >= erasing.p:
        return [0, 0, 0, 0]
    for attempt in range(100):
        of_area, of_ratio, of_top, of_left = chances(Stream.RECTANGLE + attempt, 4)
        area = height * width * (erasing.scale[0] + of_area * np.ptp(erasing.scale))
        ratio = erasing.ratio[0] + of_ratio * np.ptp(erasing.ratio)
        rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < rows < height and 0 < columns < width:
            top = math.floor(of_top * (height - rows + 1))
            return [top, math.floor(of_left * (width - columns + 1)), rows, columns]
    return [0, 0, 0, 0]


@pytest.mark.parametrize(
    "erasing",
    [
        RandomErasing(0.5),
        RandomErasing(1.0, scale=(0.3, 0.95)),
        RandomErasing(1.0, scale=(0.9, 0.97), ratio=(0.01, 40.0)),  # many tries, some without end
    ],
)
def test_rectangles_of_a_batch_equal_the_algorithm_one_by_one(erasing):
    found = erasing.rectangles(HEIGHT, WIDTH, draws(60, seed=4)).tolist()
    assert found == [slow_rectangle(erasing, HEIGHT, WIDTH, 4, index) for index in range(60)]


def test_erasing_happens_with_its_probability():
    share = (RandomErasing(0.3).rectangles(16, 8, draws(4000))[:, 2] > 0).mean()
    assert 0.27 < share < 0.33
    assert not RandomErasing(0.0).rectangles(16, 8, draws(100)).any()


def test_area_ratio_and_place_are_those_of_the_paper():
    boxes = RandomErasing(1.0).rectangles(256, 128, draws(4000))
    top, left, rows, columns = boxes.T
    assert (rows > 0).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + rows <= 256).all()
    assert (left + columns <= 128).all()
    area, ratio = rows * columns / (256 * 128), rows / columns
    assert area.min() > 0.018
    assert area.max() < 0.41
    assert ratio.min() > 0.27
    assert ratio.max() < 3.6
    tall = ratio > 1
    # Of a shape that fits anyhow the area is uniform: its mean is in the middle.
    assert abs(area[tall & (ratio < 2)].mean() - 0.21) < 0.01
    free = rows < 128  # the place is uniform in what is left free
    assert abs((top[free] / (256 - rows[free])).mean() - 0.5) < 0.02
    assert abs((left[free] / (128 - columns[free])).mean() - 0.5) < 0.02


@pytest.mark.parametrize("fill", ["mean", "random"])
@pytest.mark.parametrize("channels", [1, 3])
def test_one_rectangle_is_covered_alike_in_all_frames(fill, channels):
    clip = np.full((3, HEIGHT, WIDTH, channels), 255, np.uint8)
    erasing = RandomErasing(1.0, fill=fill)
    for seed in range(20):
        changed = erasing(clip, seed)
        ((top, left, rows, columns),) = erasing.rectangles(HEIGHT, WIDTH, draws(1, seed)).tolist()
        inside = changed[:, top : top + rows, left : left + columns].copy()
        changed[:, top : top + rows, left : left + columns] = 255
        assert (changed == 255).all()
        assert (inside == inside[:1]).all()
        if fill == "mean":
            assert (inside == (MEAN_PIXEL if channels == 3 else 0)).all()
        else:
            assert 90 < inside.mean() < 165
            assert len(np.unique(inside)) > 20
    assert (clip == 255).all()


def test_a_picture_wider_than_any_model_takes_is_covered_with_the_mean_too():
    erasing = RandomErasing(1.0, scale=(0.8, 0.9), ratio=(0.001, 0.002))
    changed = erasing(np.zeros((1, 4, 3000, 3), np.uint8))
    assert (changed[changed.any(axis=3)] == MEAN_PIXEL).all()
    assert changed.any()


def test_noise_repeats_with_its_seed_and_differs_between_seeds():
    clip = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    erasing = RandomErasing(1.0, fill="random")
    np.testing.assert_array_equal(erasing(clip, 4), erasing(clip, 4))
    assert (erasing(clip, 4) != erasing(clip, 5)).any()


@pytest.mark.parametrize(
    "values",
    [
        {"p": 2.0},
        {"p": float("nan")},
        {"scale": (0.4, 0.02)},
        {"scale": (0.0, 0.2)},
        {"scale": (0.2, 1.0)},
        {"ratio": (0.0, 1.0)},
        {"ratio": (2.0, 1.0)},
        {"ratio": (1.0, float("inf"))},
        {"fill": "pink"},
    ],
)
def test_erasing_out_of_range_is_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        RandomErasing(**values)
