import pytest
import torch
from torch import nn

from reidkit import distributed
from reidkit.engine import extract
from reidkit.types import Batch, ModelOutput, Sample
from tests import processes


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


def test_features_can_be_trained_on():
    vectors = extract(Mean(), batches(range(8), VALUES), SAMPLES).vectors
    (nn.Linear(2, 1)(vectors)).sum().backward()
    assert not vectors.is_inference()


def test_an_error_while_reading_arrives_as_it_was_and_the_mode_is_put_back():
    def loader():
        yield from batches([0, 1], VALUES)
        raise OSError("2.jpg cannot be read")

    model = Mean().train()
    with pytest.raises(OSError, match=r"2\.jpg cannot be read"):
        extract(model, loader(), SAMPLES)
    assert model.training


def test_alone_a_part_is_the_whole():
    features = extract(Mean(), batches(range(8), VALUES), SAMPLES, sharded=True)
    assert torch.equal(features.vectors[:, 0], VALUES)


class Random(nn.Module):
    """Numbers of every kind of bits: negative zeros, denormals, each row's drawn from its value."""

    def forward(self, frames, mask):
        rows = []
        for value in frames.flatten(1).mean(1).tolist():
            generator = torch.Generator().manual_seed(int(value))
            rows.append(torch.randn(2, 5, generator=generator))
        feature = torch.stack(rows)
        feature[:, :, 0] = -0.0
        feature[:, :, 1] *= 1e-42
        return ModelOutput(feature, feature, None)


def shares(world):
    """Whose sizes differ, the last rank's being empty where there are more than two."""
    order = [5, 1, 7, 0, 2, 6, 3, 4]
    return [order[:5], order[5:]] if world == 2 else [order[:5], order[5:6], order[6:], []]


def own_share():
    return shares(distributed.world_size())[distributed.rank()]


def joined_features():
    told = []
    features = extract(
        Random().eval(),
        batches(own_share(), VALUES, size=2),
        SAMPLES,
        progress=lambda done, total: told.append((done, total)),
        sharded=True,
    )
    return features.vectors, features.parts, features.samples == tuple(SAMPLES), told


def message_of(loader, samples=SAMPLES):
    try:
        extract(Mean(), loader, samples, sharded=True)
    except Exception as error:
        return type(error).__name__, str(error)


def failing():
    """What each rank hears of faults that only one of them has."""
    own, last = own_share(), distributed.rank() == 1
    odd = VALUES.clone()
    odd[own_share()[-1]] = float("nan") if last else 0

    def unreadable():
        yield from batches(own[:2], VALUES)
        if last:
            raise OSError("3.jpg cannot be read")
        yield from batches(own[2:], VALUES)

    return {
        "unreadable": message_of(unreadable()),
        "missing": message_of(batches(own[:-1] if last else own, VALUES)),
        "twice": message_of(batches([5] if last else own, VALUES)),
        "not finite": message_of(batches(own, odd)),
        "nothing": message_of(iter(()), []),
        "after all that": message_of(batches(own, VALUES)),
    }


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_join_their_parts_to_the_last_bit(tmp_path, world):
    alone = extract(Random().eval(), batches(range(8), VALUES), SAMPLES)
    ranks = processes.run(joined_features, world=world, folder=tmp_path)
    for vectors, parts, same_samples, told in ranks:
        assert torch.equal(vectors.view(torch.int32), alone.vectors.view(torch.int32))
        assert parts == 2
        assert same_samples
        assert told[-1] == (8, 8)
    # Two, four and five of five; the other ranks are taken to be as far.
    first = [(min(8, world * done), 8) for done in (2, 4, 5)]
    assert ranks[0][3] == [*first, (8, 8)]


def test_what_fails_on_one_process_is_told_by_all(tmp_path):
    first, second = processes.run(failing, world=2, folder=tmp_path)
    assert second["unreadable"] == ("OSError", "3.jpg cannot be read")
    assert first["unreadable"] == ("FailedElsewhere", "process 1: 3.jpg cannot be read")
    for rank in (first, second):
        assert rank["missing"][1].startswith("sample 4.jpg came 0 times")
        assert rank["twice"][1].startswith("sample 3.jpg came 0 times")
        assert "4.jpg is not finite" in rank["not finite"][1]
        assert "there are no samples" in rank["nothing"][1]
        assert rank["after all that"] is None
