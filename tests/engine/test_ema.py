import pytest
import torch
from torch import nn

from reidkit import distributed
from reidkit.engine import WeightAverage
from reidkit.engine.ema import update_batch_norm
from reidkit.types import Batch
from tests import processes


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


class Normed(nn.Module):
    """A norm over the true frames, a second one behind it, and one that keeps its statistics."""

    def __init__(self):
        super().__init__()
        self.first = nn.BatchNorm1d(2, momentum=0.3)
        self.second = nn.BatchNorm1d(2)
        self.kept = nn.BatchNorm1d(2)

    def train(self, mode=True):
        super().train(mode)
        self.kept.eval()
        return self

    def forward(self, frames, mask):
        return self.kept(self.second(2 * self.first(frames[mask])))


def batch(seed, rows=4):
    """(B, T = 3, 2), of whose frames some are padding."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(rows, 3, 2, generator=generator, dtype=torch.float64) + seed
    mask = torch.arange(3) < torch.randint(1, 4, (rows, 1), generator=generator)
    zeros = torch.zeros(rows, dtype=torch.int64)
    return Batch(frames.masked_fill(~mask[:, :, None], 1e9), mask, zeros, zeros, zeros, zeros)


def statistics(batches):
    """The mean over batches of mean and unbiased variance of the true frames, by hand."""
    rows = [batch.frames[batch.mask] for batch in batches]
    means = torch.stack([part.mean(0) for part in rows])
    variances = torch.stack([part.var(0) for part in rows])
    return means.mean(0), variances.mean(0)


def test_batch_norm_statistics_are_taken_anew_as_the_mean_over_batches():
    model = Normed().double()
    model.first.running_mean.fill_(77)
    model.first.num_batches_tracked.fill_(9)
    batches = [batch(0), batch(1, rows=7), batch(2)]
    update_batch_norm(model, iter(batches))
    mean, variance = statistics(batches)
    torch.testing.assert_close(model.first.running_mean, mean)
    torch.testing.assert_close(model.first.running_var, variance)
    assert int(model.first.num_batches_tracked) == 3
    # What comes to the second is normed already, twice as large.
    torch.testing.assert_close(model.second.running_mean, torch.zeros(2).double())
    assert (model.second.running_var > 3).all()


def test_modes_momenta_and_kept_statistics_stay_as_they_were():
    model = Normed().double().train()
    model.kept.running_mean.fill_(5)
    model.second.eval()
    update_batch_norm(model, [batch(0)])
    assert model.training
    assert not model.second.training
    assert not model.kept.training
    assert (model.first.momentum, model.second.momentum) == (0.3, 0.1)
    assert torch.equal(model.kept.running_mean, torch.full((2,), 5.0).double())
    assert model.kept.running_var.eq(1).all()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_error_on_the_way_leaves_modes_and_momenta():
    model = Normed().double().eval()

    def batches():
        yield batch(0)
        raise OSError("1.jpg cannot be read")

    with pytest.raises(OSError, match=r"1\.jpg cannot be read"):
        update_batch_norm(model, batches())
    assert not model.training
    assert not model.first.training
    assert model.first.momentum == 0.3


def test_without_batches_nothing_is_reset():
    model = Normed()
    model.first.running_mean.fill_(5)
    with pytest.raises(ValueError, match="no batch to take batch-norm statistics from"):
        update_batch_norm(model, [])
    assert model.first.running_mean.eq(5).all()


def test_a_model_without_batch_norms_is_left_alone():
    model = nn.Linear(1, 1)
    before = model.weight.detach().clone()
    update_batch_norm(model, [batch(0)])
    assert torch.equal(model.weight, before)


def refreshed():
    model = Normed().double()
    update_batch_norm(model, [batch(distributed.rank()), batch(2 + distributed.rank())])
    return model.first.running_mean, model.first.running_var


def test_of_several_processes_the_first_ones_statistics_count(tmp_path):
    expected = statistics([batch(0), batch(2)])
    for found in processes.run(refreshed, world=2, folder=tmp_path):
        torch.testing.assert_close(found, expected)


def test_the_average_leaves_the_raw_weights_alone():
    model = nn.Linear(2, 2)
    ema = WeightAverage(model, 0.9, warmup=False)
    for _ in range(2):
        moved(model, 1.0)
        ema.update(model)
    raw = model.weight.detach().clone()
    moved(ema.model, 5.0)
    assert torch.equal(model.weight, raw)
    assert not torch.equal(ema.model.weight, model.weight)


def test_warm_up_reaches_the_decay_and_stays():
    model = nn.Linear(1, 1, bias=False)
    ema = WeightAverage(model, 0.5)
    expected = [2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 9 / 18, 0.5, 0.5]
    moved(model, 1.0)
    ema.update(model)
    for decay in expected:
        average = ema.model.weight.item()
        moved(model, 1.0)
        ema.update(model)
        now = decay * average + (1 - decay) * model.weight.item()
        assert ema.model.weight.item() == pytest.approx(now, abs=1e-5)


def test_an_average_resumed_without_its_count_would_start_anew():
    model = nn.Linear(1, 1)
    ema = WeightAverage(model, 0.9)
    for _ in range(3):
        moved(model, 1.0)
        ema.update(model)
    assert int(ema.state_dict()["average.n_averaged"]) == 3
    forgetful = WeightAverage(nn.Linear(1, 1), 0.9)
    forgetful.model.load_state_dict(ema.model.state_dict())
    moved(model, 1.0)
    forgetful.update(model)
    assert torch.equal(forgetful.model.weight, model.weight)  # the raw weights: the average is lost


def test_buffers_that_are_not_floats_are_copied_too():
    model = nn.BatchNorm1d(2)
    model.register_buffer("label_memory", torch.zeros(3, dtype=torch.int64))
    ema = WeightAverage(model, 0.99)
    model.label_memory.fill_(7)
    ema.update(model)
    assert ema.model.label_memory.tolist() == [7, 7, 7]
