import numpy as np
import pytest
import torch
from torch.testing import assert_close

from reidkit.data import Augment, Normalise, RandomErasing
from reidkit.data.transforms import shift

RNG = np.random.default_rng
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def clip(frames=2, height=12, width=8, seed=0):
    return RNG(seed).integers(1, 256, (frames, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("down", [-3, 0, 2, 12])
@pytest.mark.parametrize("right", [-2, 0, 3, 8])
def test_a_shift_is_a_crop_of_the_black_padded_picture(down, right):
    source, pad = clip(), 12
    padded = np.pad(source, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    top, left = pad - down, pad - right
    assert (shift(source, down, right) == padded[:, top : top + 12, left : left + 8]).all()


def test_flip_alone_mirrors_and_twice_gives_the_clip_back():
    flip = Augment(flip=1.0, pad=0)
    source = clip()
    once = flip(source, RNG(0))
    assert (once == source[:, :, ::-1]).all()
    assert (flip(once, RNG(0)) == source).all()


def test_nothing_asked_for_changes_nothing_and_the_clip_stays_as_it_was():
    source = clip()
    kept = source.copy()
    assert (Augment(0.0, 0)(source, RNG(0)) == source).all()
    Augment(1.0, 4, 0.5)(source, RNG(0))
    assert (source == kept).all()


def test_flips_come_with_their_probability_and_shifts_reach_both_ends():
    augment, source = Augment(flip=0.25, pad=0), clip(1)
    generator = RNG(0)
    flipped = sum(bool((augment(source, generator) != source).any()) for _ in range(400))
    assert 70 < flipped < 130
    white = np.full((1, 9, 9, 3), 255, np.uint8)
    moved = [Augment(0, 2)(white, generator) for _ in range(200)]
    assert {int((m[0, :, 4, 0] == 0).sum()) for m in moved} == {0, 1, 2}
    assert any(m[0, 0, 4, 0] == 0 for m in moved)
    assert any(m[0, -1, 4, 0] == 0 for m in moved)


def test_jitter_keeps_uint8_and_changes_all_frames_by_one_table():
    source = np.repeat(clip(1), 3, axis=0)
    changed = Augment(0, 0, 0.3)(source, RNG(1))
    assert changed.dtype == np.uint8
    assert (changed != source).any()
    assert (changed == changed[:1]).all()


@pytest.mark.parametrize("values", [{"flip": 1.5}, {"pad": -1}, {"jitter": 1.0}, {"flip": -0.1}])
def test_augmentation_out_of_range_is_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        Augment(**values)


def test_normalise_is_the_formula():
    frames = torch.randint(0, 256, (2, 3, 3, 4, 5), dtype=torch.uint8)
    kept = frames.clone()
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    assert_close(Normalise(MEAN, STD)(frames), (frames / 255 - mean) / std)
    assert_close(frames, kept)


def test_normalising_twice_or_other_channels_is_refused():
    normalise = Normalise(MEAN, STD)
    with pytest.raises(ValueError, match="normalised once"):
        normalise(torch.zeros(1, 1, 3, 2, 2))
    with pytest.raises(ValueError, match="3 channels"):
        normalise(torch.zeros(1, 1, 1, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="std above 0"):
        Normalise((0.5,), (0.0,))


def erased(frames, original):
    return (frames != original).any(dim=2)  # (B, T, H, W)


@pytest.mark.parametrize("fill", ["mean", "random"])
def test_erasing_covers_one_rectangle_alike_in_all_frames(fill):
    original = torch.rand(40, 3, 3, 32, 16) + 10
    kept = original.clone()
    frames = RandomErasing(1.0, fill=fill)(original, RNG(0))
    assert_close(original, kept)
    covered = erased(frames, original)
    assert (covered == covered[:, :1]).all()
    for one, mask in zip(frames, covered[:, 0], strict=True):
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        box = one[:, :, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert mask.sum() == box.shape[2] * box.shape[3]
        assert 0.01 < mask.float().mean() < 0.42  # the scale, give or take the rounding
        assert_close(box, box[:1].expand_as(box))
        if fill == "mean":
            assert not box.any()


def test_erasing_happens_with_its_probability():
    original = torch.ones(600, 1, 1, 16, 8)
    frames = RandomErasing(0.3)(original, RNG(2))
    share = erased(frames, original).flatten(1).any(1).float().mean()
    assert 0.23 < share < 0.37
    assert torch.equal(RandomErasing(0.0)(original, RNG(2)), original)


def test_erasing_repeats_with_its_generator():
    original = torch.rand(8, 1, 3, 32, 16)
    draws = [RandomErasing(fill="random")(original, RNG(seed)) for seed in (4, 4, 5)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(
    "values", [{"p": 2.0}, {"scale": (0.4, 0.02)}, {"ratio": (0.0, 1.0)}, {"fill": "pink"}]
)
def test_erasing_out_of_range_is_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        RandomErasing(**values)
