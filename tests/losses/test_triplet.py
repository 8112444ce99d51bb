"""Triplet losses against loops over all triplets, and where triplets are missing."""

import math

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import losses as pml
from pytorch_metric_learning import miners
from torch.testing import assert_close

from reidkit.losses import LOSSES, TripletLoss
from tests import reference

SLOW = {"hard": reference.triplet_hard, "all": reference.triplet_all}


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("margin", [0.0, 0.3, 2.0, None])
@pytest.mark.parametrize("mining", ["hard", "all"])
def test_it_equals_the_loop_over_triplets(clustered, mining, margin, normalize, squared):
    rows, labels = clustered(3, 3, 5)
    rows, labels = rows[:-1].requires_grad_(), labels[:-1]
    value = TripletLoss(margin, mining, normalize=normalize, squared=squared)(rows, labels)
    seen = F.normalize(rows, dim=1) if normalize else rows
    expected = SLOW[mining](seen, labels.tolist(), margin, squared)
    assert_close(value, expected, atol=1e-10, rtol=1e-10)
    (fast,) = torch.autograd.grad(value, rows, retain_graph=True)
    (slow,) = torch.autograd.grad(expected, rows)
    assert_close(fast, slow, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("mining", ["hard", "all"])
def test_the_order_of_the_batch_and_the_names_of_identities_change_nothing(clustered, mining):
    rows, labels = clustered(4, 3, 6)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    value = TripletLoss(mining=mining)(rows, labels)
    assert_close(TripletLoss(mining=mining)(rows[order], labels[order]), value)
    assert_close(TripletLoss(mining=mining)(rows, 90 - labels), value)


@pytest.mark.parametrize("mining", ["hard", "all"])
def test_identities_further_apart_than_the_margin_cost_nothing(clustered, mining):
    rows, labels = clustered(4, 3, 6, noise=0.001)
    rows.requires_grad_()
    value = TripletLoss(0.3, mining)(rows, labels)
    value.backward()
    assert value.item() == 0
    assert rows.grad.abs().max() == 0


def test_an_identity_with_one_image_is_its_own_positive_when_mining_hard():
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    value = TripletLoss(6.0)(rows, torch.tensor([0, 1]))
    assert value.item() == pytest.approx(6 - 5, abs=1e-5)  # a distance to itself is floored at 1e-6


def test_an_identity_with_one_image_makes_no_triplet_when_taking_all():
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0]]).requires_grad_()
    value = TripletLoss(6.0, "all")(rows, torch.tensor([0, 1]))
    value.backward()
    assert value.item() == 0
    assert_close(rows.grad, torch.zeros(2, 2))


@pytest.mark.parametrize("mining", ["hard", "all"])
@pytest.mark.parametrize("margin", [0.3, None])
def test_one_identity_alone_costs_nothing_and_still_has_a_gradient(mining, margin):
    rows = torch.randn(4, 3).requires_grad_()
    value = TripletLoss(margin, mining)(rows, torch.zeros(4, dtype=torch.int64))
    value.backward()
    assert value.item() == 0
    assert_close(rows.grad, torch.zeros(4, 3))


@pytest.mark.parametrize("mining", ["hard", "all"])
def test_a_collapsed_batch_costs_the_margin_and_has_a_finite_gradient(mining):
    rows = torch.randn(1, 32).mul(20).repeat(8, 1).requires_grad_()
    value = TripletLoss(0.3, mining)(rows, torch.arange(8) // 2)
    value.backward()
    assert value.item() == pytest.approx(0.3, abs=1e-4)
    assert rows.grad.isfinite().all()


def test_triplets_that_a_miner_chose_are_the_ones_compared(clustered):
    rows, labels = clustered(4, 3, 6)
    chosen = miners.TripletMarginMiner(margin=0.1, type_of_triplets="hard")(rows, labels)
    d = torch.cdist(rows, rows)
    expected = (d[chosen[0], chosen[1]] - d[chosen[0], chosen[2]] + 5).mean()
    assert_close(TripletLoss(5.0, "all")(rows, labels, chosen), expected)


def test_pairs_that_a_miner_chose_are_the_ones_the_hardest_is_looked_for_in():
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 1.5], [0.0, 3.0]])
    labels = torch.tensor([0, 0, 0, 1, 1])
    pairs = [torch.tensor([k]) for k in (0, 1, 0, 4)]
    assert TripletLoss(2.5)(rows, labels, tuple(pairs)).item() == pytest.approx(1 - 3 + 2.5)


@pytest.mark.parametrize("mining", ["hard", "all"])
def test_the_memory_of_the_other_library_accepts_it(clustered, mining):
    rows, labels = clustered(4, 3, 8)
    memory = pml.CrossBatchMemory(TripletLoss(mining=mining), embedding_size=8, memory_size=24)
    assert_close(memory(rows, labels), TripletLoss(mining=mining)(rows, labels))


def test_a_broken_embedding_breaks_the_loss_instead_of_hiding(clustered):
    rows, labels = clustered(4, 3, 6)
    rows[2, 0] = math.nan
    assert TripletLoss()(rows, labels).isnan()
    assert TripletLoss(mining="all")(rows, labels).isnan()


def test_autocast_changes_nothing(clustered):
    rows, labels = clustered(4, 3, 16)
    expected = TripletLoss()(rows.float(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(TripletLoss()(rows.float(), labels), expected, atol=0, rtol=0)


def test_a_config_can_ask_for_the_soft_margin():
    assert LOSSES.build("triplet", {"margin": None, "mining": "all"}).margin is None


@pytest.mark.parametrize(
    "settings, words",
    [({"margin": -1.0}, "margin must be"), ({"mining": "semi"}, "mining must be 'hard' or 'all'")],
)
def test_a_wrong_setting_is_named(settings, words):
    with pytest.raises(ValueError, match=words):
        TripletLoss(**settings)
