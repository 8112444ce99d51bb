"""A memory of earlier batches: against a double loop, in a config, in a checkpoint."""

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import CrossBatchMemory
from torch.testing import assert_close

from reidkit.losses import LOSSES, Memory, RankedListLoss, TripletLoss, objective_faults
from tests import reference

MARGIN, ALPHA, TEMPERATURE = 0.4, 1.2, 10.0


def batches(count, dim=5, identities=4, instances=3):
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(identities).repeat(instances)
    for _ in range(count):
        noise = torch.randn(len(labels), dim, generator=source, dtype=torch.float64)
        yield torch.eye(identities, dim, dtype=torch.float64)[labels] + 0.7 * noise, labels


def by_hand(queries, labels, gallery, others):
    """Value, and the gradient at unit queries (B, D) that the paper gives each; the gallery's first
    B rows are the queries themselves."""
    total, gradient = 0.0, torch.zeros_like(queries)
    for i, query in enumerate(queries):
        far, near = [], []
        for j, row in enumerate(gallery):
            distance = float((query - row).norm())
            if j == i:
                continue
            if labels[i] == others[j] and distance > ALPHA - MARGIN:
                far.append((distance - (ALPHA - MARGIN), (query - row) / distance))
            elif labels[i] != others[j] and distance < ALPHA:
                near.append((ALPHA - distance, (query - row) / distance))
        gaps = torch.tensor([gap for gap, _ in near], dtype=torch.float64)
        weights = (TEMPERATURE * gaps).softmax(0)
        for gap, direction in far:
            total += gap / len(far)
            gradient[i] += direction / len(far)
        for weight, (gap, direction) in zip(weights.tolist(), near, strict=True):
            total += weight * gap
            gradient[i] -= weight * direction
    return total / len(queries), gradient / len(queries)


def test_the_ranked_list_with_a_memory_equals_the_double_loop():
    loss = Memory(
        RankedListLoss(MARGIN, ALPHA, TEMPERATURE, normalize=False), 30, embedding_size=5
    ).double()
    kept, kept_labels = torch.zeros(0, 5, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
    for rows, labels in batches(5):  # the memory fills up in the third
        rows = F.normalize(rows, dim=1).requires_grad_()
        value = loss(rows, labels)
        value.backward()
        held = rows.detach()
        gallery, others = torch.cat([held, kept]), torch.cat([labels, kept_labels])
        slow, gradient = by_hand(held, labels, gallery, others)
        assert value.item() == pytest.approx(slow, abs=1e-10)
        assert_close(rows.grad, gradient, atol=1e-10, rtol=0)
        kept, kept_labels = gallery[:30], others[:30]
    assert_close(loss.vectors, kept)
    assert_close(loss.labels, kept_labels)


def test_nobody_pulls_himself_where_even_the_nearest_are_too_far():
    rows, labels = next(batches(1))
    loss = Memory(RankedListLoss(1.3, 1.0), 100, embedding_size=5).double()
    slow, _ = reference.ranked_list(reference.unit(rows), labels.tolist(), 1.3, 1.0, TEMPERATURE)
    assert loss(rows, labels).item() == pytest.approx(slow, abs=1e-10)


def test_a_bare_name_is_enough():
    assert Memory("triplet", 8, embedding_size=5).loss.__class__ is TripletLoss


def test_the_first_batch_is_compared_with_itself_alone():
    rows, labels = next(batches(1))
    loss = Memory(RankedListLoss(), 100, embedding_size=5).double()
    slow, _ = reference.ranked_list(
        reference.unit(rows), labels.tolist(), MARGIN, ALPHA, TEMPERATURE
    )
    assert loss(rows, labels).item() == pytest.approx(slow, abs=1e-10)


@pytest.mark.parametrize("pairs", [RankedListLoss(), TripletLoss(), TripletLoss(mining="all")])
def test_it_gives_what_the_other_librarys_memory_gives(pairs):
    ours = Memory(pairs, 24, embedding_size=5).double()
    theirs = CrossBatchMemory(pairs, 5, 36).double()  # it counts the batch itself
    for rows, labels in batches(4):
        assert_close(ours(rows, labels), theirs(rows, labels))


def test_both_gradients_are_the_same_as_the_gallery_is_held():
    (first, labels), (second, _) = batches(2)
    found = []
    for gradient in ("query", "pair"):
        loss = Memory(RankedListLoss(gradient=gradient), 24, embedding_size=5).double()
        loss(first, labels)
        rows = second.clone().requires_grad_()
        loss(rows, labels).backward()
        found.append(rows.grad)
    assert_close(found[0], found[1], atol=0, rtol=0)


def test_a_batch_larger_than_the_memory_leaves_its_first_rows():
    loss = Memory(RankedListLoss(), 4, embedding_size=5).double()
    for rows, labels in batches(2):
        assert loss(rows, labels) > 0
        assert_close(loss.vectors, rows[:4])


def test_evaluation_remembers_nothing():
    rows, labels = next(batches(1))
    loss = Memory(RankedListLoss(), 20, embedding_size=5).double().eval()
    loss(rows, labels)
    assert (loss.labels == -1).all()


def test_what_it_remembers_is_in_its_state():
    (first, labels), (second, _) = batches(2)
    running = Memory(RankedListLoss(), 20, embedding_size=5)
    running(first.float(), labels)
    resumed = Memory(RankedListLoss(), 20, embedding_size=5)
    resumed.load_state_dict(running.state_dict())
    again = resumed(second.float(), labels)
    assert_close(again, running(second.float(), labels), atol=0, rtol=0)
    assert again != Memory(RankedListLoss(), 20, embedding_size=5)(second.float(), labels)


def test_half_precision_is_compared_in_float32():
    rows, labels = next(batches(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = Memory(RankedListLoss(), 20, embedding_size=5)(rows.half(), labels)
    assert value.dtype == torch.float32
    assert_close(value, RankedListLoss()(rows.half(), labels))


def test_a_config_can_name_it():
    args = {"size": 8, "loss": {"name": "ranked_list", "margin": "0.2"}}
    assert objective_faults([{"name": "memory", **args}]) == []
    loss = LOSSES.build("memory", args, embedding_size=5, num_classes=3)
    assert (loss.loss.margin, loss.vectors.shape) == (0.2, (8, 5))
    assert args["loss"]["name"] == "ranked_list"
    assert isinstance(LOSSES.build("memory", embedding_size=5).loss, RankedListLoss)


@pytest.mark.parametrize(
    "args, words",
    [
        ({"size": 0, "loss": {"name": "triplet"}}, r"size must be 1 or more rows, got 0"),
        ({"size": 8, "loss": {"name": "cross_entropy"}}, r"one of: ranked_list, triplet; got"),
        ({"size": 8, "loss": {"name": "memory"}}, r"one of: ranked_list, triplet; got 'memory'"),
        ({"size": 8, "loss": {"margin": 1}}, r"needs the name of a loss over pairs"),
        ({"size": 8, "loss": {"name": "ranked_lst"}}, r"Did you mean 'ranked_list'"),
        ({"size": 8, "loss": {"name": "ranked_list", "margn": 1}}, r"Did you mean 'margin'"),
        ({"size": 8, "loss": {"name": "ranked_list", "margin": -1}}, r"margin must be a number"),
        ({"size": 8, "loss": {"name": "triplet"}, "embedding_size": 4}, r"at run time"),
    ],
)
def test_a_wrong_call_is_named_before_training(args, words):
    with pytest.raises(ValueError, match=words):
        LOSSES.build("memory", args, embedding_size=5)
    assert len(objective_faults([{"name": "memory", **args}])) == 1


def test_wrong_shapes_are_named():
    loss = Memory(RankedListLoss(), 8, embedding_size=5)
    with pytest.raises(ValueError, match=r"labels have shape \(3,\), expected \(4,\)"):
        loss(torch.zeros(4, 5), torch.zeros(3))
