import cv2
import numpy as np
import pytest
import torch

from reidkit.data import Augment, RandomErasing, changes
from reidkit.data.draws import Draws, Stream, uniform

RNG = np.random.default_rng


def clip(frames=2, height=12, width=8, channels=3, seed=0):
    return RNG(seed).integers(1, 256, (frames, height, width, channels), dtype=np.uint8)


def smooth(frames=1, height=64, width=32):
    small = RNG(1).integers(0, 256, (frames, 8, 4, 3), dtype=np.uint8)
    return np.stack([cv2.resize(frame, (width, height)) for frame in small])


def nothing(**options):
    return Augment(**({"flip": 0.0, "pad": 0} | options))


def many(augment, source, count):
    """The same clip as `count` items of a batch, changed."""
    frames = np.repeat(source[None], count, axis=0)
    augment.apply_(frames, Draws.of(0, 0, range(count), [0] * count))
    return frames


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("down", [-3, 0, 2, 12, 20])
@pytest.mark.parametrize("right", [-8, -2, 0, 3])
def test_a_shift_is_a_crop_of_the_black_padded_picture(down, right, channels, mirror):
    source, pad = clip(channels=channels), 20
    padded = np.pad(source, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    if mirror:
        padded = padded[:, :, ::-1]
    top, left = pad - down, pad - right
    expected = padded[:, top : top + 12, left : left + 8]
    changes.shift(source, down, right, np.empty_like(source), mirror=mirror)
    np.testing.assert_array_equal(source, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_flip_alone_mirrors_and_twice_gives_the_clip_back(channels):
    flip, source = Augment(flip=1.0, pad=0), clip(channels=channels)
    once = flip(source)
    np.testing.assert_array_equal(once, source[:, :, ::-1])
    np.testing.assert_array_equal(flip(once), source)


def test_nothing_asked_for_changes_nothing_and_a_clip_by_hand_stays_as_it_was():
    source = clip(height=64, width=32)
    kept = source.copy()
    np.testing.assert_array_equal(nothing()(source), kept)
    everything = Augment(1.0, 4, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0)
    assert (everything(source) != kept).any()
    np.testing.assert_array_equal(source, kept)
    np.testing.assert_array_equal(everything(source, 3), everything(source, 3))


def test_flips_come_with_their_probability_and_shifts_reach_both_ends():
    source = clip(1)
    mirrored = (many(nothing(flip=0.25), source, 1000) != source).any(axis=(1, 2, 3, 4))
    assert 200 < mirrored.sum() < 300
    white = np.full((1, 9, 9, 3), 255, np.uint8)
    moved = many(nothing(pad=2), white, 2000)[:, 0, :, :, 0] == 0  # (N, 9, 9) black
    down = moved[:, 0:2, 4].sum(axis=1) - moved[:, 7:9, 4].sum(axis=1).astype(np.int64)
    right = moved[:, 4, 0:2].sum(axis=1) - moved[:, 4, 7:9].sum(axis=1).astype(np.int64)
    for ways in (down, right):
        values, counts = np.unique(ways, return_counts=True)
        assert values.tolist() == [-2, -1, 0, 1, 2]
        assert (abs(counts - 400) < 80).all()


@pytest.mark.parametrize(
    "options",
    [
        {"flip": 0.5, "pad": 5},
        {"jitter": 0.3},
        {"grayscale": 1.0},
        {"blur": 1.0},
        {"auto": 1.0},
        {"affine": 1.0},
        {"erasing": 1.0},
        {"erasing": RandomErasing(1.0, fill="random")},
    ],
    ids=lambda options: next(iter(options)),
)
def test_every_frame_of_a_clip_is_changed_alike(options):
    still = np.repeat(smooth(), 4, axis=0)
    for seed in range(12):
        changed = nothing(**options)(still, seed)
        assert changed.dtype == np.uint8
        assert (changed == changed[:1]).all()


def test_a_batch_changes_as_its_clips_do_one_by_one():
    augment = Augment(0.5, 3, 0.2, 0.5, 0.5, 0.0, 0.5, 0.5)
    frames = np.stack([clip(3, 32, 16, seed=seed) for seed in range(6)])
    draws = Draws.of(1, 2, range(6), [0] * 6)
    one_by_one, whole = frames.copy(), frames.copy()
    for row in range(6):
        augment.apply_(one_by_one[row : row + 1], draws.take([row]))
    augment.apply_(whole, draws)
    np.testing.assert_array_equal(whole, one_by_one)


def test_switching_one_change_off_moves_no_other():
    source = clip(1, 32, 16)
    plain = many(Augment(0.5, 4), source, 20)
    both = many(Augment(0.5, 4, erasing=RandomErasing(1.0)), source, 20)
    untouched = (both == plain).all(axis=4)
    assert (untouched.mean(axis=(1, 2, 3)) > 0.5).all()


def test_jitter_is_contrast_about_mid_grey_then_a_gain_for_each_channel():
    source = clip(1)
    chances = uniform(5, 0, [0], [0], Stream.JITTER, 4)[0]
    contrast, *gains = (0.7 + 0.6 * chances).tolist()
    changed = nothing(jitter=0.3)(source, 5)
    for place in np.ndindex(source.shape):
        value = ((int(source[place]) - 127.5) * contrast + 127.5) * gains[place[3]]
        assert abs(int(changed[place]) - min(max(value, 0), 255)) <= 0.501
    assert (changed != source).any()


def test_grayscale_is_luma_in_all_channels_and_comes_with_its_probability():
    source = clip(1)
    grey = nothing(grayscale=1.0)(source)
    expected = source @ [0.299, 0.587, 0.114]
    assert np.abs(grey - expected[..., None]).max() <= 1
    changed = (many(nothing(grayscale=0.3), source, 1000) != source).any(axis=(1, 2, 3, 4))
    assert 250 < changed.sum() < 350


def test_blur_smooths_and_keeps_the_mean():
    source = clip(1, 64, 32)
    rough = np.abs(np.diff(source.astype(float), axis=2)).mean()
    found = [nothing(blur=1.0)(source, seed).astype(float) for seed in range(20)]
    roughness = [np.abs(np.diff(blurred, axis=2)).mean() / rough for blurred in found]
    assert max(roughness) <= 1.01
    assert min(roughness) < 0.2
    assert all(abs(blurred.mean() - source.mean()) < 2 for blurred in found)


def test_auto_changes_pictures_with_its_probability_and_leaves_the_global_state():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    source = smooth()
    changed = (many(nothing(auto=0.5), source, 200) != source).any(axis=(1, 2, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert 50 < changed.sum() < 110  # one in nine policies does nothing
    assert len({frames.tobytes() for frames in many(nothing(auto=1.0), source, 60)}) > 15


@pytest.mark.parametrize("channels", [1, 3])
def test_affine_turns_scales_and_moves_a_little(channels):
    bar = np.zeros((2, 64, 64, channels), np.uint8)
    bar[:, 12:52, 28:36] = 255
    angles, areas, middles = [], [], []
    for seed in range(60):
        changed = nothing(affine=1.0)(bar, seed)
        assert (changed[0] == changed[1]).all()
        moments = cv2.moments(np.ascontiguousarray(changed[0, :, :, 0]))
        slope = 2 * moments["mu11"] / (moments["mu02"] - moments["mu20"])
        angles.append(np.degrees(np.arctan(slope)) / 2)
        areas.append(moments["m00"] / (255 * 40 * 8))
        middles.append((moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]))
    assert -10.5 < min(angles) < -7 < 7 < max(angles) < 10.5
    assert 0.95**2 - 0.02 < min(areas) < 0.95 < 1.05 < max(areas) < 1.05**2 + 0.02
    away = np.abs(np.array(middles) - 31.5)
    assert 2 < away.max() < 3.5  # 5 % of 64 pixels


def test_a_warp_by_a_quarter_turn_is_exact():
    source = clip(1, 9, 9)
    turned = source.copy()
    changes.warp(turned, 90, 1.0, 0, 0)
    np.testing.assert_array_equal(turned, np.rot90(source, 1, (1, 2)))
    moved = source.copy()
    changes.warp(moved, 0, 1.0, 2, -1)
    np.testing.assert_array_equal(moved[:, 2:, :-1], source[:, :-2, 1:])
    assert not moved[:, :2].any()


@pytest.mark.parametrize(
    "values",
    [
        {"flip": 1.5},
        {"flip": -0.1},
        {"pad": -1},
        {"jitter": 1.0},
        {"grayscale": 2},
        {"blur": -1},
        {"auto": 1.01},
        {"affine": float("nan")},
        {"erasing": 1.5},
    ],
)
def test_augmentation_out_of_range_is_refused(values):
    with pytest.raises(ValueError, match=f"{next(iter(values))} is"):
        Augment(**values)


@pytest.mark.parametrize("name", ["jitter", "grayscale", "blur", "auto"])
def test_changes_of_colour_are_refused_for_silhouettes(name):
    with pytest.raises(ValueError, match=f"{name} is 0.2, expected 0 for silhouettes"):
        nothing(**{name: 0.2})(clip(channels=1))


def test_what_cannot_be_changed_in_place_is_refused():
    draws = Draws.of(0, 0, [0], [0])
    for frames in (clip(), clip()[None].astype(np.float32), clip()[None][:, :, ::2]):
        with pytest.raises(ValueError, match=r"expected uint8 \(B, T, H, W, C\) in one piece"):
            nothing().apply_(frames, draws)
    with pytest.raises(ValueError, match="pad is 8"):
        nothing(pad=8)(clip())
