"""The memory of classes: against loops and by hand, when it moves, and over processes."""

import copy
import math

import pytest
import torch
from torch.testing import assert_close

from reidkit import distributed
from reidkit.engine import SCHEDULES, Interrupted, fit, load_state, save_state
from reidkit.losses import (
    LOSSES,
    ClusterMemory,
    Objective,
    Term,
    build_objective,
    objective_faults,
)
from reidkit.types import Batch, ModelOutput
from tests import processes
from tests.engine.toy import CLASSES, TrackletLoader, reid_state

CONSTANT = SCHEDULES.build("constant")
UPDATES = ["every", "hardest"]
LABELS = torch.tensor([3, 0, 0, -1, 3, 0, 2, 3])  # class 1 is not in the batch, 2 once
GROUPS = torch.tensor([[1, 0], [1, 1], [0, 1], [1, 0]]).bool()  # 2 knows only 1
SIZES = {"num_classes": 4, "embedding_size": 5, "parts": 2}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def memory(fill=True, **args):
    loss = ClusterMemory(**{**SIZES, **args}).double()
    if fill:
        loss.fill(draw(*loss.vectors.shape, seed=1))
    return loss


def unit(vector):
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector] if length else vector


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def loss_by_hand(vectors, labels, held, temperature, groups):
    terms = []
    for sample, label in zip(vectors.tolist(), labels.tolist(), strict=True):
        for part, row in enumerate(sample):
            if label == -1:
                continue
            scores = {}
            for k, centres in enumerate(held.tolist()):
                known = groups is None or any(
                    a and b for a, b in zip(groups[k].tolist(), groups[label].tolist(), strict=True)
                )
                if known or k == label:
                    scores[k] = dot(unit(row), centres[part]) / temperature
            terms.append(math.log(sum(map(math.exp, scores.values()))) - scores[label])
    return sum(terms) / len(terms) if terms else 0.0


def update_by_hand(vectors, labels, held, momentum, update):
    held = held.tolist()
    rows = [[unit(row) for row in sample] for sample in vectors.tolist()]
    labels = labels.tolist()
    order = [place for place, label in enumerate(labels) if label != -1]
    if update == "hardest":
        hardest = {}
        for place in order:
            alike = sum(map(dot, rows[place], held[labels[place]]))
            if labels[place] not in hardest or alike < hardest[labels[place]][0]:
                hardest[labels[place]] = (alike, place)
        order = [place for _, place in hardest.values()]
    for place in order:
        old = held[labels[place]]
        held[labels[place]] = [
            unit([momentum * c + (1 - momentum) * x for c, x in zip(a, b, strict=True)])
            for a, b in zip(old, rows[place], strict=True)
        ]
    return torch.tensor(held, dtype=torch.float64)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("groups", [None, GROUPS], ids=["all", "rivals"])
@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.5, 1.0])
def test_loss_and_update_equal_the_loops(update, groups, momentum):
    loss = memory(temperature=0.3, momentum=momentum, update=update, rivals=groups)
    for step in range(4):
        vectors, held = draw(8, 2, 5, seed=2 + step), loss.vectors.clone()
        assert loss(vectors, LABELS).item() == pytest.approx(
            loss_by_hand(vectors, LABELS, held, 0.3, groups), abs=1e-12
        )
        loss.after_step()
        expected = update_by_hand(vectors, LABELS, held, momentum, update)
        assert_close(loss.vectors, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["all", "rivals"])
def test_its_gradient_is_the_slope_of_its_value(groups):
    loss = memory(temperature=0.5, rivals=groups)
    vectors = draw(8, 2, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, LABELS), vectors)


def small(**args):
    loss = ClusterMemory(num_classes=2, embedding_size=2, **args).double()
    loss.fill(torch.eye(2, dtype=torch.float64)[:, None])
    return loss


def seen(loss, rows, labels):
    value = loss(torch.tensor(rows, dtype=torch.float64)[:, None], torch.tensor(labels))
    loss.after_step()
    return value.item(), loss.vectors[:, 0]


def test_numbers_of_one_sample_by_hand():
    # (3, 4) is (.6, .8); logits 1.2 and 1.6; .1 (1, 0) + .9 (.6, .8) = (.64, .72), length .96333
    value, held = seen(small(temperature=0.5), [[3.0, 4.0]], [0])
    assert value == pytest.approx(math.log(1 + math.exp(0.4)))
    assert_close(held[0], torch.tensor([0.664364, 0.747409]).double(), atol=1e-6, rtol=0)
    assert held[1].tolist() == [0, 1]


def test_the_order_of_the_batch_matters():
    # From (1, 0): half way to (0, 1) is 45 degrees, half way back is 22.5; the other way round it
    # stays at 0, then 45.
    up, right = [0.0, 1.0], [1.0, 0.0]
    for rows, degrees in (([up, right], 22.5), ([right, up], 45.0)):
        _, held = seen(small(momentum=0.5), rows, [0, 0])
        angle = math.degrees(math.atan2(held[0, 1], held[0, 0]))
        assert angle == pytest.approx(degrees)


def test_the_hardest_alone_moves_and_the_first_of_equals():
    rows = [[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [1.0, 1.0]]
    _, held = seen(small(momentum=0.0, update="hardest"), rows, [0, 0, 0, 1])
    assert_close(held, torch.tensor([[0, 1], [0.5**0.5, 0.5**0.5]]).double())


def test_batches_in_which_no_class_repeats_take_one_turn_and_the_order_does_not_matter():
    labels, vectors = torch.tensor([2, 0, 3, 1]), draw(4, 2, 5)
    first, second = memory(), memory()
    assert len(first._turns(vectors, labels)) == 1
    for loss, order in ((first, [0, 1, 2, 3]), (second, [3, 1, 0, 2])):
        loss(vectors[order], labels[order])
        loss.after_step()
    assert_close(first.vectors, second.vectors, atol=0, rtol=0)


@pytest.mark.parametrize("update", UPDATES)
def test_a_memory_of_zeros_has_a_finite_gradient_and_takes_the_samples_over(update):
    loss = memory(fill=False, update=update)
    vectors = torch.cat([draw(3, 2, 5), torch.zeros(1, 2, 5).double()]).requires_grad_()
    value = loss(vectors, torch.tensor([0, 2, 3, 1]))
    assert value.item() == pytest.approx(math.log(4))
    value.backward()
    assert_close(vectors.grad, torch.zeros(4, 2, 5).double())
    loss.after_step()
    expected = torch.nn.functional.normalize(vectors.detach(), dim=2)[[0, 3, 1, 2]]
    assert_close(loss.vectors, expected)


def test_a_class_that_shares_no_group_has_no_influence():
    vectors, labels = draw(3, 2, 5).requires_grad_(), torch.tensor([2, 2, 2])
    found = []
    for other in range(2):
        loss = memory(rivals=GROUPS)
        loss.vectors[[0, 3]] = draw(2, 2, 5, seed=10 + other)  # no rivals of class 2
        value = loss(vectors, labels)
        found.append((value, *torch.autograd.grad(value, vectors)))
    assert_close(found[0], found[1], atol=0, rtol=0)
    assert found[0][1].abs().max() > 0
    loss = memory(num_classes=2)  # the two that are rivals, and nobody else
    loss.vectors.copy_(memory().vectors[1:3])
    assert_close(loss(vectors, labels - 1), found[0][0])


def test_a_class_in_no_group_has_loss_zero_and_is_remembered_all_the_same():
    alone = GROUPS.clone()
    alone[2] = False
    loss, vectors = memory(rivals=alone), draw(3, 2, 5).requires_grad_()
    before = loss.vectors.clone()
    value = loss(vectors, torch.tensor([2, 2, 2]))
    value.backward()
    assert value.item() == 0 and vectors.grad.abs().max() == 0
    loss.after_step()
    assert not torch.equal(loss.vectors[2], before[2])


def test_samples_without_a_class_are_left_out_of_mean_gradient_and_memory():
    vectors = draw(8, 2, 5).requires_grad_()
    known = LABELS >= 0
    whole, without = memory(), memory()
    value = whole(vectors, LABELS)
    assert_close(value, without(vectors[known], LABELS[known]))
    value.backward()
    assert vectors.grad[~known].abs().max() == 0 < vectors.grad[known].abs().min()
    whole.after_step()
    without.after_step()
    assert_close(whole.vectors, without.vectors, atol=0, rtol=0)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("groups", [None, GROUPS], ids=["all", "rivals"])
def test_of_samples_without_a_class_alone_the_loss_is_zero_with_a_gradient(update, groups):
    loss, vectors = memory(update=update, rivals=groups), draw(3, 2, 5).requires_grad_()
    before = loss.vectors.clone()
    value = loss(vectors, torch.full((3,), -1))
    value.backward()
    loss.after_step()
    assert value.item() == 0
    assert_close(vectors.grad, torch.zeros(3, 2, 5).double())
    assert torch.equal(loss.vectors, before)


def test_it_moves_after_the_step_and_neither_in_forward_nor_in_backward():
    loss, vectors = memory(), draw(8, 2, 5).requires_grad_()
    before = loss.vectors.clone()
    loss(vectors, LABELS).backward()
    assert torch.equal(loss.vectors, before)
    loss.after_step()
    moved = loss.vectors.clone()
    assert not torch.equal(moved, before)
    loss.after_step()  # what was seen counts once
    assert torch.equal(loss.vectors, moved)


def test_evaluation_remembers_nothing():
    loss = memory().eval()
    before = loss.vectors.clone()
    loss(draw(8, 2, 5), LABELS)
    loss.after_step()
    assert torch.equal(loss.vectors, before)


def test_half_precision_is_compared_in_float32():
    loss = ClusterMemory(**SIZES)
    loss.fill(draw(4, 2, 5))
    rows = draw(8, 2, 5).half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(rows, LABELS)
        loss.after_step()
    assert value.dtype == loss.vectors.dtype == torch.float32
    twin = ClusterMemory(**SIZES)
    twin.fill(draw(4, 2, 5))
    assert_close(value, twin(rows.float(), LABELS), atol=0, rtol=0)
    twin.after_step()
    assert_close(loss.vectors, twin.vectors, atol=0, rtol=0)


def test_its_state_holds_the_memory_and_the_rivals():
    loss = memory(rivals=GROUPS)
    again = memory(fill=False, rivals=torch.zeros_like(GROUPS))
    again.load_state_dict(loss.state_dict())
    assert torch.equal(again.vectors, loss.vectors) and torch.equal(again.rivals, GROUPS)
    assert list(memory().state_dict()) == ["vectors"]


def test_a_round_begins_with_unit_centroids():
    loss = memory(fill=False)
    loss.fill(3 * draw(4, 2, 5).float())
    assert_close(loss.vectors.norm(dim=2), torch.ones(4, 2).double())
    with pytest.raises(ValueError, match=r"centroids have shape \(4, 5\), expected .*\(4, 2, 5\)"):
        loss.fill(draw(4, 5))
    broken = draw(4, 2, 5)
    broken[2, 1, 0] = torch.nan
    with pytest.raises(ValueError, match=r"centroid of class 2 is not finite"):
        loss.fill(broken)


@pytest.mark.parametrize(
    "args, words",
    [
        ({"temperature": 0}, r"temperature must be a number > 0, got 0"),
        ({"temperature": float("inf")}, r"temperature must be a number > 0, got inf"),
        ({"momentum": -0.1}, r"momentum must be in \[0, 1\], got -0.1"),
        ({"momentum": float("nan")}, r"momentum must be in \[0, 1\], got nan"),
        ({"momentum": 1.1}, r"momentum must be in \[0, 1\], got 1.1"),
        ({"update": "easiest"}, r"update must be 'every' or 'hardest', got 'easiest'"),
        ({"num_classes": 0}, r"num_classes must be 1 or more, got 0"),
        ({"parts": 0}, r"parts must be 1 or more, got 0"),
        ({"rivals": GROUPS[:3]}, r"rivals are torch.bool \(3, 2\), expected bool \(4, G\)"),
        ({"rivals": GROUPS[:, 0]}, r"rivals are torch.bool \(4,\), expected bool \(4, G\)"),
        ({"rivals": GROUPS.int()}, r"rivals are torch.int32 \(4, 2\), expected bool"),
    ],
)
def test_wrong_arguments_are_named(args, words):
    with pytest.raises(ValueError, match=words):
        ClusterMemory(**{**SIZES, **args})


@pytest.mark.parametrize(
    "vectors, labels, words",
    [
        (draw(2, 2, 5), [0, 4], r"label 4, expected one in \[-1, 4\)"),
        (draw(2, 2, 5), [-2, 0], r"label -2, expected one in \[-1, 4\)"),
        (draw(2, 2, 5), [0], r"labels have shape \(1,\), expected \(2,\)"),
        (draw(2, 5), [0, 1], r"must be floating point \(B, P, D\) with B > 0, got .*\(2, 5\)"),
        (draw(0, 2, 5), [], r"with B > 0, got .*\(0, 2, 5\)"),
        (draw(2, 2, 5).long(), [0, 1], r"must be floating point .* got torch.int64"),
        (draw(2, 3, 5), [0, 1], r"expected \(B, 2, 5\): .* built with parts=2 and embedding_size"),
        (draw(2, 2, 4), [0, 1], r"expected \(B, 2, 5\): .* built with parts=2 and embedding_size"),
    ],
)
def test_a_wrong_batch_is_named(vectors, labels, words):
    with pytest.raises(ValueError, match=words):
        memory()(vectors, torch.tensor(labels, dtype=torch.int64))


def test_a_config_sets_what_it_may_and_the_run_offers_the_rest():
    spec = {"name": "cluster_memory", "temperature": "0.1", "momentum": 0.5, "update": "hardest"}
    assert objective_faults([spec]) == []
    sizes = {"num_classes": 4, "embedding_size": 5}
    objective = build_objective([spec], **sizes, parts=2, rivals=GROUPS)
    (loss,) = objective.memories()
    assert (loss.temperature, loss.momentum, loss.update) == (0.1, 0.5, "hardest")
    assert loss.vectors.shape == (4, 2, 5) and torch.equal(loss.rivals, GROUPS)
    assert objective.sources == {"cluster_memory": "feature"}
    assert objective.main_parameters() == {}
    for fault in ({"parts": 2}, {"rivals": None}, {"num_classes": 4}):
        assert "set by reidkit at run time" in objective_faults([{**spec, **fault}])[0]
    assert "on = 'logits'" in objective_faults([{**spec, "on": "logits"}])[0]
    assert "learns nothing" in objective_faults([{**spec, "rate": 2}])[0]
    assert isinstance(
        LOSSES.build("cluster_memory", num_classes=2, embedding_size=2), torch.nn.Module
    )


def test_an_objective_shows_it_all_parts_at_once():
    loss, vectors = memory(), draw(8, 2, 5)
    objective = Objective([Term("cluster_memory", loss, "feature")])
    terms = objective(ModelOutput(vectors * 0, vectors, None), LABELS)
    assert_close(terms["loss"], memory()(vectors, LABELS))


# In training.

SPECS = [
    {"name": "cluster_memory", "momentum": 0.3},
    {"name": "cluster_memory", "update": "hardest", "on": "embedding", "weight": 0.5},
    {"name": "known_rivals", "loss": "triplet"},
]


def training_state(rivals=None, **settings):
    state = reid_state([{"name": "triplet"}], norm=settings.pop("norm", "group"), **settings)
    state.task.objective = build_objective(
        SPECS, num_classes=CLASSES, embedding_size=8, rivals=rivals
    ).double()
    return state


def held_by(state):
    return [loss.vectors for loss in state.task.objective.memories()]


@pytest.mark.parametrize("steps", [1, 3, 7])
@pytest.mark.parametrize("settings", [{}, {"accumulate": 2}, {"micro": 5}], ids=str)
def test_a_stopped_and_resumed_training_holds_the_same_bits(tmp_path, steps, settings):
    whole, first, second = (training_state(**settings) for _ in range(3))
    fit(whole, TrackletLoader(4), epochs=2, schedule=CONSTANT)

    def after_step(state, report):
        state.stop = state.iteration >= steps

    with pytest.raises(Interrupted):
        fit(first, TrackletLoader(4), epochs=2, schedule=CONSTANT, after_step=after_step)
    save_state(tmp_path / "state.pt", first.state_dict())
    second.load_state_dict(load_state(tmp_path / "state.pt"))
    fit(second, TrackletLoader(4), epochs=2, schedule=CONSTANT)
    assert all(vectors.norm() > 0 for vectors in held_by(whole))
    assert_close(second.task.state_dict(), whole.task.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_micro_batches_are_remembered_as_the_whole_batch(accumulate):
    states = [training_state(micro=micro, accumulate=accumulate) for micro in (None, 3)]
    for state in states:
        fit(state, TrackletLoader(4), epochs=2, schedule=CONSTANT)
    whole, pieces = (dict(state.task.state_dict()) for state in states)
    assert_close(pieces, whole, rtol=0, atol=1e-10)


def test_the_average_of_the_weights_and_bf16_get_on_with_it():
    state = training_state(precision="bf16", dtype=torch.float32)
    state.task.float()
    fit(state, TrackletLoader(2, dtype=torch.float32), epochs=2, schedule=CONSTANT)
    for vectors in held_by(state):
        lengths = vectors.norm(dim=2)
        assert vectors.dtype == torch.float32
        assert_close(lengths[lengths > 0], torch.ones(int((lengths > 0).sum())))


def test_a_training_pulls_samples_to_their_class():
    state, terms = training_state(lr=0.5), []
    fit(
        state,
        TrackletLoader(10),
        epochs=4,
        schedule=CONSTANT,
        after_step=lambda state, report: terms.append(report.terms["cluster_memory"].item()),
    )
    assert sum(terms[-5:]) < 0.7 * sum(terms[5:10])


def three_steps(known):
    """The state after three steps on this rank's rows, which lie mixed; and the memory's first."""
    rivals = draw(CLASSES, 3, seed=5) > 0 if known else None
    state = training_state(rivals)
    state.distribute()
    state.batches = 3
    rank, world = distributed.rank(), distributed.world_size()
    mixed = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    own = mixed[rank * 16 // world : (rank + 1) * 16 // world]
    state.task.train()
    first = None
    for batch in TrackletLoader(3):
        state.descend(state.forward(Batch(*(part[own] for part in batch)))["loss"])
        state.advance()
        first = first or copy.deepcopy(held_by(state))
    return dict(state.task.state_dict()), first


def both_ways():
    return {known: three_steps(known) for known in (False, True)}


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    return processes.run(both_ways, world=2, folder=tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("known", [False, True], ids=["all", "rivals"])
def test_two_processes_remember_as_one(together, known):
    state, first = three_steps(known)
    for rank in together:
        assert_close(rank[known], (state, first), rtol=0, atol=1e-10)
    assert_close(together[1][known], together[0][known], rtol=0, atol=0)
    assert int((first[0].norm(dim=2) > 0).sum()) == 4  # identities of both ranks' rows
