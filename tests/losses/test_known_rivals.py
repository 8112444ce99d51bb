"""Pair losses that push apart only what is known to be two identities."""

import pytest
import torch
from torch.testing import assert_close

from reidkit.losses import (
    KnownRivals,
    RankedListLoss,
    TripletLoss,
    build_objective,
    objective_faults,
)
from reidkit.losses.known_rivals import share_group
from reidkit.types import ModelOutput

PAIR_LOSSES = [
    RankedListLoss(),
    RankedListLoss(gradient="pair", query_weighting="mass"),
    TripletLoss(),
    TripletLoss(mining="all", margin=None),
]
GROUPS = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1], [0, 0]]).bool()
LABELS = torch.arange(5).repeat_interleave(3)


def rows(number=15, seed=0):
    source = torch.Generator().manual_seed(seed)
    return torch.randn(number, 6, generator=source, dtype=torch.float64).requires_grad_()


def gradient(loss, vectors, labels=LABELS):
    value = loss(vectors, labels)
    return value.detach(), torch.autograd.grad(value, vectors)[0]


def test_two_classes_share_a_group_or_not_as_a_double_loop_has_it():
    source = torch.Generator().manual_seed(0)
    first, second = (torch.rand(n, 5, generator=source) < 0.3 for n in (7, 9))
    slow = [[any(a and b for a, b in zip(x, y, strict=True)) for y in second] for x in first]
    assert share_group(first, second).tolist() == slow


@pytest.mark.parametrize("pairs", PAIR_LOSSES, ids=str)
def test_where_all_are_rivals_it_is_the_plain_loss(pairs):
    vectors = rows()
    plain = gradient(pairs, vectors)
    for rivals in (None, torch.ones(5, 1).bool()):
        assert_close(gradient(KnownRivals(pairs, rivals=rivals), vectors), plain, atol=0, rtol=0)


@pytest.mark.parametrize("pairs", PAIR_LOSSES, ids=str)
def test_it_equals_the_loss_with_the_negative_pairs_chosen_one_by_one(pairs):
    vectors = rows()
    positive, negative = [], []
    for i, a in enumerate(LABELS.tolist()):
        for j, b in enumerate(LABELS.tolist()):
            if a == b and i != j:
                positive.append((i, j))
            if a != b and bool((GROUPS[a] & GROUPS[b]).any()):
                negative.append((i, j))
    indices = (*torch.tensor(positive).T, *torch.tensor(negative).T)
    value = pairs(vectors, LABELS, indices)
    expected = value.detach(), torch.autograd.grad(value, vectors)[0]
    assert_close(gradient(KnownRivals(pairs, rivals=GROUPS), vectors), expected)


@pytest.mark.parametrize("pairs", PAIR_LOSSES[:2], ids=str)
def test_strangers_do_not_push_one_another(pairs):
    """Classes of two cameras, no two samples of one class: nothing to pull and nothing to push."""
    vectors, labels = rows(2), torch.tensor([0, 2])
    assert gradient(pairs, vectors, labels)[1].abs().max() > 0
    value, moved = gradient(KnownRivals(pairs, rivals=GROUPS), vectors, labels)
    assert value == 0 and moved.abs().max() == 0


@pytest.mark.parametrize("pairs", PAIR_LOSSES, ids=str)
def test_classes_in_no_group_give_no_nan(pairs):
    loss = KnownRivals(pairs, rivals=torch.zeros(5, 2).bool())
    value, moved = gradient(loss, rows())
    assert value.isfinite() and moved.isfinite().all()
    empty = KnownRivals(pairs, rivals=torch.zeros(5, 0).bool())
    assert_close(gradient(empty, rows()), (value, moved), atol=0, rtol=0)


def test_half_precision_is_compared_in_float32():
    vectors = rows().detach().half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = KnownRivals(rivals=GROUPS)(vectors, LABELS)
    assert value.dtype == torch.float32
    assert_close(value, KnownRivals(rivals=GROUPS)(vectors.float(), LABELS), atol=0, rtol=0)


def test_a_config_can_name_it_and_the_run_offers_the_rivals():
    spec = {"name": "known_rivals", "loss": {"name": "ranked_list", "margin": "0.2"}}
    assert objective_faults([spec]) == []
    sizes = {"num_classes": 5, "embedding_size": 6}
    objective = build_objective([spec], **sizes, parts=2, rivals=GROUPS)
    vectors = torch.stack([rows(), rows(seed=1)], dim=1)
    terms = objective(ModelOutput(vectors, vectors, None), LABELS)
    by_part = [
        KnownRivals(RankedListLoss(0.2), rivals=GROUPS)(vectors[:, part], LABELS)
        for part in range(2)
    ]
    assert_close(terms["loss"], torch.stack(by_part).mean())
    assert isinstance(KnownRivals("triplet").loss, TripletLoss)
    assert isinstance(KnownRivals().loss, RankedListLoss)


def test_its_state_holds_the_rivals():
    again = KnownRivals(rivals=torch.zeros_like(GROUPS))
    again.load_state_dict(KnownRivals(rivals=GROUPS).state_dict())
    assert torch.equal(again.rivals, GROUPS)
    assert not KnownRivals().state_dict()


@pytest.mark.parametrize(
    "args, words",
    [
        ({"loss": "cross_entropy"}, r"one of: ranked_list, triplet; got 'cross_entropy'"),
        ({"loss": ""}, r"unknown loss ''; known: "),
        ({"loss": {"margin": 1}}, r"needs the name of a loss over pairs"),
        ({"loss": {"name": "ranked_list", "margn": 1}}, r"Did you mean 'margin'"),
        ({"rivals": None}, r"at run time"),
    ],
)
def test_a_wrong_config_is_named(args, words):
    with pytest.raises(ValueError, match=words):
        build_objective([{"name": "known_rivals", **args}], num_classes=5, embedding_size=6)


@pytest.mark.parametrize(
    "rivals, words",
    [
        (GROUPS[:, 0], r"rivals are torch.bool \(5,\), expected bool \(5, G\)"),
        (GROUPS.float(), r"rivals are torch.float32 \(5, 2\), expected bool"),
    ],
)
def test_rivals_that_are_no_table_are_named(rivals, words):
    with pytest.raises(ValueError, match=words):
        KnownRivals(rivals=rivals)


@pytest.mark.parametrize("label", [-1, 5])
def test_a_label_outside_the_table_is_named(label):
    with pytest.raises(ValueError, match=rf"label {label}, expected one in \[0, 5\)"):
        KnownRivals(rivals=GROUPS)(rows(2), torch.tensor([0, label]))


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"labels have shape \(3,\), expected \(15,\)"):
        KnownRivals(rivals=GROUPS)(rows(), LABELS[:3])
