"""Batch-all triplets over parts: against the triple loop, at the edges, and in an objective."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from reidkit.losses import LOSSES, Objective, PartTripletLoss, Term, build_objective
from reidkit.losses.objective import objective_faults
from reidkit.types import ModelOutput

TOY = torch.tensor([[0.0], [0.1], [0.25], [0.9]], dtype=torch.float64)
TOY_LABELS = torch.tensor([0, 0, 1, 1])


def drawn(batch, parts, dim, seed=0):
    source = torch.Generator().manual_seed(seed)
    return torch.randn(batch, parts, dim, generator=source, dtype=torch.float64)


def triple_loop(rows, labels, margin, include_self):
    """Loss () and share of terms above zero, a triplet at a time."""
    losses, above, terms = [], 0, 0
    for part in range(rows.shape[1]):
        kept = []
        for a in range(len(rows)):
            for p in range(len(rows)):
                for n in range(len(rows)):
                    if labels[p] != labels[a] or labels[n] == labels[a]:
                        continue
                    if p == a and not include_self:
                        continue
                    near = (rows[a, part] - rows[p, part]).norm() if p != a else 0
                    term = margin + near - (rows[a, part] - rows[n, part]).norm()
                    terms += 1
                    if term > 0:
                        kept.append(term)
        above += len(kept)
        losses.append(torch.stack(kept).mean() if kept else rows[:, part].sum() * 0)
    return torch.stack(losses).mean(), above / max(terms, 1)


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("margin", [0.0, 0.2, 2.0])
@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2], [5, 5, 5, 5, 1, 9], [3, 1, 3, 3, 1, 7, 1]])
def test_it_equals_the_triple_loop(labels, margin, include_self):
    rows = drawn(len(labels), 3, 2).requires_grad_()
    loss = PartTripletLoss(margin, include_self)
    value = loss(rows, torch.tensor(labels))
    expected, active = triple_loop(rows, labels, margin, include_self)
    assert_close(value, expected, atol=1e-10, rtol=1e-10)
    assert float(loss.measures()["active"]) == pytest.approx(active)
    (fast,) = torch.autograd.grad(value, rows)
    (slow,) = torch.autograd.grad(expected, rows)
    assert_close(fast, slow, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    "include_self, expected, active", [(True, 1.65 / 7, 7 / 16), (False, 1.55 / 5, 5 / 8)]
)
def test_four_points_on_a_line(include_self, expected, active):
    loss = PartTripletLoss(0.2, include_self)
    assert float(loss(TOY, TOY_LABELS)) == pytest.approx(expected)
    assert float(loss.measures()["active"]) == pytest.approx(active)
    assert float(loss(TOY.float(), TOY_LABELS)) == pytest.approx(expected, abs=1e-6)


def test_parts_are_averaged_and_keep_to_themselves():
    rows, labels = drawn(8, 3, 4), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    loss = PartTripletLoss(0.5)
    each = torch.stack([loss(rows[:, part], labels) for part in range(3)])
    assert_close(loss(rows, labels), each.mean())


def test_a_part_that_has_learned_counts_as_zero():
    rows = torch.cat([TOY, TOY_LABELS[:, None] * 9.0], dim=1)[:, :, None]
    loss = PartTripletLoss()
    assert float(loss(rows, TOY_LABELS)) == pytest.approx(1.65 / 7 / 2)
    assert float(loss.measures()["active"]) == pytest.approx(7 / 32)


def test_the_order_of_the_batch_and_the_names_of_identities_change_nothing():
    rows, labels = drawn(9, 2, 3), torch.arange(9) % 3
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    value = PartTripletLoss()(rows, labels)
    assert_close(PartTripletLoss()(rows[order], labels[order]), value)
    assert_close(PartTripletLoss()(rows, 50 - labels), value)
    assert_close(PartTripletLoss()(rows + 1000, labels), value)


@pytest.mark.parametrize("include_self", [True, False])
def test_a_collapsed_batch_costs_the_margin_in_every_term(include_self):
    rows = torch.full((6, 2, 3), 7.3).requires_grad_()
    loss = PartTripletLoss(0.2, include_self)
    value = loss(rows, torch.arange(6) // 2)
    assert float(value.detach()) == pytest.approx(0.2, abs=1e-5)
    assert float(loss.measures()["active"]) == 1
    value.backward()
    assert torch.isfinite(rows.grad).all()


def test_two_coincident_vectors_have_finite_gradients():
    rows = drawn(6, 2, 3).float()
    rows[1], rows[2] = rows[0], rows[0]
    rows.requires_grad_()
    PartTripletLoss(2.0)(rows, torch.arange(6) // 2).backward()
    assert torch.isfinite(rows.grad).all() and rows.grad.abs().sum() > 0


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]])
def test_without_a_triplet_it_is_zero_and_has_a_gradient(labels):
    rows = drawn(4, 2, 3).requires_grad_()
    loss = PartTripletLoss(include_self=False)
    value = loss(rows, torch.tensor(labels))
    value.backward()
    assert float(value.detach()) == 0 and float(loss.measures()["active"]) == 0
    assert float(rows.grad.abs().sum()) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_vector_that_is_not_finite_shows(bad):
    rows = drawn(6, 2, 3)
    rows[4, 1, 0] = bad
    assert math.isnan(float(PartTripletLoss()(rows, torch.arange(6) // 2)))


def test_half_precision_is_widened():
    rows, labels = drawn(8, 3, 4).bfloat16(), torch.arange(8) // 2
    with torch.autocast("cpu", torch.bfloat16):
        value = PartTripletLoss()(rows, labels)
    assert value.dtype == torch.float32
    assert_close(value, PartTripletLoss()(rows.float(), labels))


def test_large_distances_keep_small_terms_exact():
    rows = (drawn(64, 1, 8) * 100).float()
    labels = torch.arange(64) // 4
    assert_close(
        PartTripletLoss()(rows, labels).double(),
        PartTripletLoss()(rows.double(), labels),
        rtol=1e-4,
        atol=0,
    )


def test_bad_arguments_are_refused():
    for margin in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="margin"):
            PartTripletLoss(margin)
    loss = PartTripletLoss()
    for rows in (
        torch.zeros(4),
        torch.zeros(0, 2, 3),
        torch.zeros(4, 0, 3),
        torch.zeros(4, 2).int(),
    ):
        with pytest.raises(ValueError, match="floating point"):
            loss(rows, torch.zeros(len(rows)))
    with pytest.raises(ValueError, match="labels have shape"):
        loss(torch.zeros(4, 2, 3), torch.zeros(3))


def test_there_is_nothing_to_measure_before_the_first_batch():
    assert PartTripletLoss().measures() == {}
    assert repr(PartTripletLoss(0.3)) == "PartTripletLoss(margin=0.3, include_self=True)"


def test_it_learns_to_separate_parts():
    torch.manual_seed(0)
    rows, labels = nn.Parameter(torch.randn(8, 2, 4) * 0.1), torch.arange(8) // 2
    loss, optimizer = PartTripletLoss(), torch.optim.Adam([rows], 0.05)
    seen = []
    for _ in range(60):
        optimizer.zero_grad()
        loss(rows, labels).backward()
        optimizer.step()
        seen.append(float(loss.measures()["active"]))
    assert seen[0] > 0.5 and seen[-1] == 0


def output_of(rows):
    return ModelOutput(rows, rows, None)


def test_a_config_asks_for_it_and_the_objective_reports_its_measure():
    spec = {"name": "part_triplet", "on": "embedding", "margin": 0.3, "weight": 2}
    assert objective_faults([spec]) == []
    objective = build_objective([spec], num_classes=3, embedding_size=4, parts=5)
    rows, labels = drawn(6, 5, 4).requires_grad_(), torch.arange(6) // 2
    terms = objective(output_of(rows), labels)
    assert list(terms) == ["part_triplet", "part_triplet_active", "loss"]
    loss = PartTripletLoss(0.3)
    assert_close(terms["part_triplet"], loss(rows, labels))
    assert_close(terms["loss"], 2 * terms["part_triplet"])
    assert_close(terms["part_triplet_active"], loss.measures()["active"])
    assert not terms["part_triplet_active"].requires_grad and terms["loss"].requires_grad


def test_an_objective_calls_it_once_for_all_parts_beside_losses_that_go_part_by_part():
    specs = [{"name": "part_triplet"}, {"name": "triplet"}, {"name": "part_triplet", "margin": 1}]
    objective = build_objective(specs, num_classes=3, embedding_size=4, parts=5)
    assert [len(losses) for losses in objective.losses.values()] == [1, 5, 1]
    terms = objective(output_of(drawn(6, 5, 4)), torch.arange(6) // 2)
    names = {"part_triplet", "triplet", "part_triplet_2", "loss"}
    assert set(terms) == names | {"part_triplet_active", "part_triplet_2_active"}
    total = terms["part_triplet"] + terms["triplet"] + terms["part_triplet_2"]
    assert_close(terms["loss"], total)


def test_losses_without_measures_add_no_terms():
    objective = Objective([Term("t", LOSSES.build("triplet", {}))])
    assert list(objective(output_of(drawn(6, 2, 3)), torch.arange(6) // 2)) == ["t", "loss"]


def test_a_term_may_not_give_it_once_a_part():
    with pytest.raises(ValueError, match="takes all parts at once"):
        Objective([Term("t", [PartTripletLoss(), PartTripletLoss()])])


def test_faults_are_named():
    assert "margin" in objective_faults([{"name": "part_triplet", "margin": -1}])[0]
    assert (
        "unknown key 'mining'" in objective_faults([{"name": "part_triplet", "mining": "hard"}])[0]
    )
    assert "logits" in objective_faults([{"name": "part_triplet", "on": "logits"}])[0]
