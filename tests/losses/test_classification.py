"""Cross-entropy and centre loss against their loops."""

import math

import pytest
import torch
from torch.testing import assert_close

from reidkit.losses import LOSSES, CenterLoss, CrossEntropyLoss
from tests import reference


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_equals_the_loop(smoothing):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 4, 2, 2, 1, 3])
    value = CrossEntropyLoss(smoothing)(logits, labels)
    expected = reference.cross_entropy(logits.tolist(), labels.tolist(), smoothing)
    assert value.item() == pytest.approx(expected, abs=1e-12)


def test_a_classifier_that_knows_nothing_costs_the_logarithm_of_its_classes():
    value = CrossEntropyLoss()(torch.zeros(4, 751), torch.arange(4))
    assert value.item() == pytest.approx(math.log(751), rel=1e-6)


def test_half_precision_logits_are_judged_in_float32():
    logits = torch.tensor([[9.0, 0.01, 0.0]], dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = CrossEntropyLoss(0.0)(logits, torch.tensor([0]))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(CrossEntropyLoss(0.0)(logits.float(), torch.tensor([0])))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_a_wrong_smoothing_is_named(smoothing):
    with pytest.raises(ValueError, match="smoothing must be in"):
        CrossEntropyLoss(smoothing)


def test_logits_and_labels_of_different_length_are_named():
    with pytest.raises(ValueError, match=r"labels have shape \(3,\)"):
        CrossEntropyLoss()(torch.zeros(4, 5), torch.arange(3))


def test_centre_loss_equals_the_loop(clustered):
    rows, labels = clustered(3, 4, 5)
    loss = CenterLoss(3, 5).double()
    expected = reference.center(rows.tolist(), labels.tolist(), loss.centres.tolist())
    assert loss(rows, labels).item() == pytest.approx(expected, abs=1e-12)


def test_centre_loss_is_zero_at_the_centres():
    loss = CenterLoss(4, 6)
    labels = torch.tensor([3, 0, 3])
    assert loss(loss.centres[labels].detach(), labels).item() == 0


def test_the_centres_walk_towards_their_own_images_only(clustered):
    rows, _ = clustered(1, 4, 5)
    loss = CenterLoss(3, 5, lr=0.1).double()
    before = loss.centres.detach().clone()
    optimizer = loss.own_optimizer()
    loss(rows, torch.ones(4, dtype=torch.int64)).backward()
    optimizer.step()
    # A step of 0.1 along 2 (mean - centre).
    assert_close(loss.centres[1].detach(), before[1] + 0.2 * (rows.mean(0) - before[1]))
    assert_close(loss.centres[[0, 2]].detach(), before[[0, 2]])


def test_run_time_facts_reach_the_centres():
    loss = LOSSES.build("center", {"lr": 0.25}, num_classes=7, embedding_size=3)
    assert (tuple(loss.centres.shape), loss.lr) == ((7, 3), 0.25)
    facts = {"num_classes", "embedding_size"}
    assert "set by reidkit" in LOSSES.faults("center", {"num_classes": 7}, facts)[0]


@pytest.mark.parametrize(
    "settings, words",
    [
        ((0, 4, 0.5), "must be positive"),
        ((4, 0, 0.5), "must be positive"),
        ((4, 4, 0.0), "lr must be"),
    ],
)
def test_a_wrong_setting_of_the_centres_is_named(settings, words):
    with pytest.raises(ValueError, match=words):
        CenterLoss(*settings)


def test_embeddings_of_another_size_are_named():
    with pytest.raises(ValueError, match="centres have 4 dimensions, embeddings 5"):
        CenterLoss(2, 4)(torch.zeros(3, 5), torch.zeros(3, dtype=torch.int64))
