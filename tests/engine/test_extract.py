import pytest
import torch
from torch import nn

from reidkit.engine import extract
from reidkit.types import Batch, ModelOutput, Sample


class Mean(nn.Module):
    """Each part's feature is the mean pixel times the part's number."""

    def __init__(self, parts=1):
        super().__init__()
        self.parts = parts

    def forward(self, frames, mask):
        value = frames.flatten(1).mean(1)
        scale = torch.arange(1, self.parts + 1)
        feature = torch.stack([value[:, None] * scale, torch.ones(len(value), self.parts)], dim=2)
        return ModelOutput(feature, feature, None)


def batches(order, values, size=3):
    for start in range(0, len(order), size):
        index = torch.tensor(order[start : start + size])
        frames = values[index].view(-1, 1, 1, 1, 1)
        mask = torch.ones(len(index), 1).bool()
        yield Batch(frames, mask, index, index, index, index)


SAMPLES = [Sample((f"{i}.jpg",), i) for i in range(8)]
VALUES = torch.arange(8.0)


def test_rows_stand_where_the_index_says_whatever_the_order():
    order = [5, 1, 7, 0, 2, 6, 3, 4]
    features = extract(Mean(), batches(order, VALUES), SAMPLES)
    assert torch.equal(features.vectors[:, 0], VALUES)
    assert features.samples == tuple(SAMPLES)


def test_parts_are_normalised_one_by_one_before_they_are_joined():
    features = extract(Mean(parts=2), batches(range(8), VALUES), SAMPLES)
    assert features.parts == 2
    torch.testing.assert_close(features.vectors.view(8, 2, 2).norm(dim=2), torch.ones(8, 2))


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6, 7, 7]])
def test_a_sample_that_is_missing_or_comes_twice_is_an_error(order):
    with pytest.raises(ValueError, match=r"7\.jpg came [02] times"):
        extract(Mean(), batches(order, VALUES), SAMPLES)


def test_a_feature_that_is_not_finite_is_refused_with_its_name():
    values = VALUES.clone()
    values[3] = float("inf")
    with pytest.raises(ValueError, match=r"3\.jpg is not finite"):
        extract(Mean(), batches(range(8), values), SAMPLES)


def test_the_models_mode_is_put_back():
    model = Mean().train()
    extract(model, batches(range(8), VALUES), SAMPLES)
    assert model.training
