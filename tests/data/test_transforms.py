import pytest
import torch
from torch.testing import assert_close

from reidkit.data import Normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def batch(*shape, together=False):
    """Noise (B, T, C, H, W); `together` has all channels of a pixel side by side in memory."""
    frames = torch.randint(0, 256, shape, dtype=torch.uint8)
    if together:
        return frames.movedim(2, -1).contiguous().movedim(-1, 2)
    return frames


def formula(frames, mean, std):
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
    return (frames / 255 - mean) / std


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 3, 4, 5), (1, 1, 3, 1, 1), (3, 1, 3, 256, 128)])
def test_normalise_is_the_formula_and_keeps_the_order_in_memory(shape, together):
    frames = batch(*shape, together=together)
    kept = frames.clone()
    found = Normalise(MEAN, STD)(frames)
    assert found.dtype == torch.float32
    assert_close(found, formula(frames, MEAN, STD))
    assert found.shape == frames.shape
    assert found.movedim(2, -1).is_contiguous() == frames.movedim(2, -1).is_contiguous()
    assert found.is_contiguous() == frames.is_contiguous()
    assert torch.equal(frames, kept)


def test_silhouettes_and_parts_of_a_batch_are_normalised_too():
    grey = batch(2, 3, 1, 6, 4)
    assert_close(Normalise((0.5,), (0.25,))(grey), formula(grey, (0.5,), (0.25,)))
    for part in (batch(4, 2, 3, 8, 6)[::2], batch(4, 2, 3, 8, 6, together=True)[:, :, :, 2:5]):
        assert_close(Normalise(MEAN, STD)(part), formula(part, MEAN, STD))
    assert Normalise(MEAN, STD)(batch(0, 1, 3, 4, 4)).shape == (0, 1, 3, 4, 4)
    assert Normalise(MEAN, STD)(batch(0, 1, 3, 4, 4, together=True)).shape == (0, 1, 3, 4, 4)


def test_the_order_in_memory_changes_no_value():
    plain = batch(5, 1, 3, 64, 32)
    together = plain.movedim(2, -1).contiguous().movedim(-1, 2)
    normalise = Normalise(MEAN, STD)
    assert torch.equal(normalise(plain), normalise(together))


def test_normalising_twice_or_other_channels_is_refused():
    normalise = Normalise(MEAN, STD)
    with pytest.raises(ValueError, match="normalised once"):
        normalise(torch.zeros(1, 1, 3, 2, 2))
    with pytest.raises(ValueError, match="3 channels"):
        normalise(torch.zeros(1, 1, 1, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="std above 0"):
        Normalise((0.5,), (0.0,))
    with pytest.raises(ValueError, match="one value a channel"):
        Normalise((0.5,), (0.5, 0.5))
