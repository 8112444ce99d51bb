import pytest
import torch
from torch import nn

from reidkit.engine import WeightAverage


def moved(model, by):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by)


def test_the_average_follows_the_recursion_written_out():
    model = nn.Linear(1, 1)
    start = model.weight.item()
    ema = WeightAverage(model, 0.9, warmup=False)
    for _ in range(3):
        moved(model, 1.0)
        ema.update(model)
    # +1 copied, then 0.9 * 1 + 0.1 * 2 = 1.1, then 0.9 * 1.1 + 0.1 * 3 = 1.29
    assert ema.model.weight.item() - start == pytest.approx(1.29, abs=1e-6)


def test_warm_up_lets_the_first_updates_count_more():
    model = nn.Linear(1, 1)
    start = model.weight.item()
    ema = WeightAverage(model, 0.999)
    moved(model, 1.0)
    ema.update(model)
    moved(model, 1.0)
    ema.update(model)
    # The second update has decay (1 + 1) / (10 + 1).
    expected = 2 / 11 * 1 + 9 / 11 * 2
    assert ema.model.weight.item() - start == pytest.approx(expected, abs=1e-6)


def test_a_resumed_average_goes_on_as_if_never_stopped():
    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    ema = WeightAverage(model, 0.9)
    for _ in range(3):
        moved(model, 0.5)
        ema.update(model)
    again = WeightAverage(nn.Linear(3, 3), 0.9)
    again.load_state_dict(ema.state_dict())
    moved(model, 0.5)
    ema.update(model)
    again.update(model)
    assert torch.equal(ema.model.weight, again.model.weight)
    assert int(again.average.n_averaged) == 4


def test_batch_norm_statistics_are_the_models_own():
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))
    ema = WeightAverage(model, 0.99)
    for _ in range(3):
        model(torch.randn(8, 2))
        ema.update(model)
    assert torch.equal(ema.model[1].running_mean, model[1].running_mean)
    assert int(ema.model[1].num_batches_tracked) == 3


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2])
def test_a_decay_outside_its_range_is_refused(decay):
    with pytest.raises(ValueError, match="weight of the old average"):
        WeightAverage(nn.Linear(1, 1), decay)
