from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from reidkit.data.baselines import (
    BASELINES,
    colour_histogram,
    describe_tracklets,
    raw_pixels,
)
from reidkit.types import Sample

OF_PICTURES = sorted(set(BASELINES) - {"gait_energy_image"})


@pytest.fixture
def pictures(tmp_path):
    """Write RGB arrays as PNG and give their samples."""

    def write(*images):
        samples = []
        for number, image in enumerate(images):
            path = tmp_path / f"{number}.png"
            cv2.imwrite(str(path), np.asarray(image, np.uint8)[:, :, ::-1])
            samples.append(Sample((str(path),), number))
        return samples

    return write


def person(top, legs, floor=(120, 120, 120)):
    image = np.full((128, 64, 3), floor, np.uint8)
    image[20:64, 20:44] = top
    image[64:120, 22:42] = legs
    return image


def similarity(features):
    return features.vectors @ features.vectors.T


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (128, 64, 3))


@pytest.mark.parametrize("name", OF_PICTURES)
def test_rows_have_unit_length_and_keep_their_samples(name, pictures):
    samples = pictures(*(noise(seed) for seed in range(3)))
    features = BASELINES[name](samples)
    assert features.samples == tuple(samples)
    assert features.vectors.dtype == torch.float32
    torch.testing.assert_close(features.vectors.norm(dim=1), torch.ones(3))


def test_dimensions_are_those_announced(pictures):
    samples = pictures(noise(0))
    assert raw_pixels(samples, size=(8, 4)).vectors.shape == (1, 3 * 8 * 4)
    assert colour_histogram(samples, stripes=3, bins=5).vectors.shape == (1, 3 * (25 + 5))


@pytest.mark.parametrize("name", OF_PICTURES)
def test_a_darker_camera_changes_little_and_other_clothes_change_much(name, pictures):
    red, blue, grey = (170, 40, 40), (40, 60, 150), (90, 90, 90)
    plain = person(red, blue)
    dark = (plain * 0.7).astype(np.uint8)
    alike = similarity(BASELINES[name](pictures(plain, dark, person(grey, red))))
    assert alike[0, 1] > (0.7 if name == "lomo" else 0.9)  # many bins, of flat colours
    assert alike[0, 1] > alike[0, 2] + 0.1


def test_the_histogram_does_not_mind_where_in_a_stripe_and_the_pixels_do(pictures):
    image = noise(0)
    shuffled = image.copy()
    rng = np.random.default_rng(1)
    for start in range(0, 128, 8):
        shuffled[start : start + 8] = rng.permutation(image[start : start + 8], axis=0)
    samples = pictures(image, shuffled)
    histogram = similarity(colour_histogram(samples, stripes=2))[0, 1]
    assert histogram > 0.9 > similarity(raw_pixels(samples))[0, 1] + 0.1


def test_upside_down_clothes_are_told_apart_by_stripes(pictures):
    red, blue = (170, 40, 40), (40, 60, 150)
    samples = pictures(person(red, blue), person(blue, red))
    striped = similarity(colour_histogram(samples, stripes=6))[0, 1]
    whole = similarity(colour_histogram(samples, stripes=1))[0, 1]
    assert striped < whole - 0.2


@pytest.mark.parametrize("name", OF_PICTURES)
def test_a_flat_picture_gives_finite_features(name, pictures):
    vectors = BASELINES[name](pictures(np.full((128, 64, 3), 77))).vectors
    assert torch.isfinite(vectors).all()


@pytest.mark.parametrize("name", OF_PICTURES)
def test_an_unreadable_file_is_named(name, tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"broken\.jpg"):
        BASELINES[name]([Sample((str(path),), 1)])
    with pytest.raises(ValueError, match="nowhere"):
        BASELINES[name]([Sample((str(tmp_path / "nowhere.jpg"),), 1)])


@pytest.mark.parametrize("name", OF_PICTURES)
def test_no_samples_are_refused(name):
    with pytest.raises(ValueError, match="at least one"):
        BASELINES[name]([])


@pytest.mark.parametrize("name", OF_PICTURES)
def test_a_tracklet_is_described_by_the_mean_over_its_frames(name, pictures):
    frames = pictures(*(noise(seed) for seed in range(5)))
    tracklets = [
        replace(frames[0], frames=tuple(frame.frames[0] for frame in frames[:3])),
        replace(frames[3], frames=tuple(frame.frames[0] for frame in frames[3:])),
    ]
    rows = BASELINES[name](frames).vectors
    expected = torch.stack([rows[:3].mean(0), rows[3:].mean(0)])
    found = describe_tracklets(name, tracklets)
    assert found.samples == tuple(tracklets)
    torch.testing.assert_close(found.vectors, expected / expected.norm(dim=1, keepdim=True))
    few = describe_tracklets(name, tracklets, frames=1).vectors
    torch.testing.assert_close(few[0], rows[1])  # the one in the middle
