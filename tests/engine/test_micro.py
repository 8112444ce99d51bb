import copy

import pytest
import torch
from torch import nn

from reidkit.engine import SCHEDULES, fit
from reidkit.engine.micro import live_batch_norm
from reidkit.models import BNNeck, IdentityNeck
from tests.engine.toy import FrozenNorm, TrackletLoader, reid_state, toy_state

EXACT = {"rtol": 0.0, "atol": 1e-12}
LOSSES = {
    "cross_entropy": [{"name": "cross_entropy"}],
    "triplet": [{"name": "triplet"}],
    "ranked_list": [{"name": "ranked_list"}],
    "proxies": [
        {"name": "metric_learning", "loss": "ProxyAnchorLoss", "on": "feature"},
        {"name": "triplet", "mining": "all", "weight": 0.3},
    ],
    "centres": [{"name": "cross_entropy"}, {"name": "center", "weight": 0.01, "lr": 0.3}],
    "memory": [
        {"name": "cross_entropy"},
        {"name": "metric_learning", "loss": "ContrastiveLoss", "memory_size": 24},
    ],
}


def gradients(state, batch):
    """The terms of one batch, and the gradients that the optimisers would see, by name."""
    found = {}

    def look():
        found.update({name: None if p.grad is None else p.grad.clone() for name, p in named(state)})

    state.before_update = look
    state.task.train()
    terms = state.forward(batch)
    state.descend(terms["loss"])
    return terms, found


def named(state):
    return state.task.named_parameters()


def assert_same_gradients(first, second, **tolerance):
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        assert (gradient is None) == (second[name] is None), name
        if gradient is not None:
            torch.testing.assert_close(gradient, second[name], msg=name, **tolerance)


def largest_difference(first, second):
    return max((a - second[name]).abs().max().item() for name, a in first.items() if a is not None)


@pytest.mark.parametrize("losses", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("norm", ["frozen", "group"])
@pytest.mark.parametrize("micro", [1, 3, 8])
def test_gradients_of_micro_batches_are_those_of_the_whole_batch(losses, norm, micro):
    batch = next(iter(TrackletLoader()))
    whole, expected = gradients(reid_state(losses, norm=norm), batch)
    terms, found = gradients(reid_state(losses, norm=norm, micro=micro), batch)
    torch.testing.assert_close(dict(terms), dict(whole), **EXACT)
    assert_same_gradients(expected, found, **EXACT)
    print(f"{norm}, {micro} at a time: {largest_difference(expected, found):.1e}", end="; ")


def test_in_single_precision_they_differ_by_rounding_alone():
    batch = next(iter(TrackletLoader(dtype=torch.float32)))
    settings = {"norm": "group", "dtype": torch.float32}
    losses = LOSSES["ranked_list"] + LOSSES["centres"]
    _, expected = gradients(reid_state(losses, **settings), batch)
    _, found = gradients(reid_state(losses, **settings, micro=4), batch)
    assert_same_gradients(expected, found, rtol=1e-5, atol=1e-6)
    print(f"float32: {largest_difference(expected, found):.1e}")


def test_the_gradient_of_pairs_within_the_micro_batches_alone_is_another_one():
    batch = next(iter(TrackletLoader()))
    _, expected = gradients(reid_state(LOSSES["triplet"], norm="group"), batch)
    halves = [type(batch)(*parts) for parts in zip(*(x.chunk(2) for x in batch), strict=True)]
    state = reid_state(LOSSES["triplet"], norm="group", accumulate=2)
    state.batches = 2
    gradients(state, halves[0])
    state.advance()
    _, found = gradients(state, halves[1])
    assert largest_difference(expected, found) > 1e-3


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", ["memory", "centres"])
def test_a_whole_training_ends_at_the_same_weights_averages_and_memories(name, accumulate):
    states = []
    for micro in (None, 4):
        state = reid_state(LOSSES[name], norm="frozen", accumulate=accumulate, micro=micro)
        fit(state, TrackletLoader(5), epochs=2, schedule=SCHEDULES.build("constant"))
        states.append(state.state_dict())
    for part in ("task", "ema"):
        first, second = states[0][part], states[1][part]
        torch.testing.assert_close(dict(second), dict(first), rtol=0.0, atol=1e-10)


def test_dropout_draws_the_same_in_both_passes_and_goes_on_as_if_there_was_one():
    batch = next(iter(TrackletLoader()))
    state = reid_state(LOSSES["triplet"], norm="group", dropout=0.5, micro=4)
    state.task.train()
    start = torch.get_rng_state()
    _, found = gradients(state, batch)
    after = torch.get_rng_state()

    # One graph over all pieces, drawn one after another, is the slow twin.
    twin = reid_state(LOSSES["triplet"], norm="group", dropout=0.5)
    twin.task.train()
    torch.set_rng_state(start)
    outputs = [
        twin.model(frames, mask)
        for frames, mask in zip(batch.frames.split(4), batch.mask.split(4), strict=True)
    ]
    joined = type(outputs[0])(*(torch.cat(parts) for parts in zip(*outputs, strict=True)))
    twin.task.objective(joined, batch.label)["loss"].backward()
    assert_same_gradients({name: p.grad for name, p in named(twin)}, found, **EXACT)
    assert torch.equal(after, torch.get_rng_state())


def test_statistics_of_batch_norms_move_once_for_each_micro_batch_and_not_twice():
    batch = next(iter(TrackletLoader()))
    state = reid_state(LOSSES["cross_entropy"], micro=8)
    twin = copy.deepcopy(state.model).train()
    gradients(state, batch)
    for frames, mask in zip(batch.frames.split(8), batch.mask.split(8), strict=True):
        twin(frames, mask)
    for (name, buffer), expected in zip(state.model.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected, msg=name)
    assert int(state.model.backbone.first_norm.num_batches_tracked) == 2


def test_micro_batches_are_of_equal_size_so_that_none_is_alone():
    """16 samples, 5 at a time, would leave one sample, which a batch norm refuses."""
    state = reid_state(LOSSES["triplet"], micro=5)
    gradients(state, next(iter(TrackletLoader())))


def test_a_memory_sees_each_batch_once():
    state = reid_state(LOSSES["memory"], norm="group", micro=4)
    gradients(state, next(iter(TrackletLoader())))
    memory = state.task.objective.losses["metric_learning"][0].loss
    assert memory.queue_idx == 16


def test_what_the_loss_does_not_read_gets_no_gradient():
    _, found = gradients(
        reid_state(LOSSES["triplet"], norm="group", micro=4), next(iter(TrackletLoader()))
    )
    assert {name for name, gradient in found.items() if gradient is None} == {
        "model.neck.norm.weight",
        "model.neck.norm.bias",
        "model.neck.classifier.weight",
    }


def test_a_model_whose_outputs_are_one_tensor_and_without_a_classifier():
    batch = next(iter(TrackletLoader()))
    losses = [{"name": "triplet"}, {"name": "ranked_list", "on": "feature"}]
    found = [
        gradients(reid_state(losses, norm="group", neck=IdentityNeck(8), micro=micro), batch)[1]
        for micro in (None, 4)
    ]
    assert_same_gradients(*found, **EXACT)


def test_gradients_are_those_of_the_whole_batch_under_autocast():
    batch = next(iter(TrackletLoader(dtype=torch.float32)))
    settings = {"norm": "group", "dtype": torch.float32, "precision": "bf16"}
    _, expected = gradients(reid_state(LOSSES["proxies"], **settings), batch)
    _, found = gradients(reid_state(LOSSES["proxies"], **settings, micro=4), batch)
    # bfloat16 rounds sums of other lengths otherwise, so to a few in a thousand of the largest.
    for name, gradient in expected.items():
        if gradient is not None:
            largest = gradient.abs().max().item()
            torch.testing.assert_close(found[name], gradient, rtol=0, atol=0.03 * largest, msg=name)


def test_a_scaler_scales_the_gradients_of_the_outputs_too():
    batch = next(iter(TrackletLoader()))
    _, expected = gradients(reid_state(LOSSES["centres"], norm="group"), batch)
    state = reid_state(LOSSES["centres"], norm="group", micro=4)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    _, found = gradients(state, batch)
    assert_same_gradients(expected, found, **EXACT)


def test_a_batch_that_fits_goes_through_once():
    state = reid_state(LOSSES["triplet"], norm="group", micro=16)
    passes = []
    state.model.register_forward_hook(lambda *_: passes.append(1))
    gradients(state, next(iter(TrackletLoader())))
    assert len(passes) == 1


def test_a_small_batch_after_one_that_was_given_up_is_not_taken_for_it():
    state = reid_state(LOSSES["triplet"], norm="group", micro=8)
    batch = next(iter(TrackletLoader()))
    small = type(batch)(*(part[:8] for part in batch))
    state.forward(batch)
    _, found = gradients(state, small)
    _, expected = gradients(reid_state(LOSSES["triplet"], norm="group"), small)
    assert_same_gradients(expected, found, **EXACT)


@pytest.mark.parametrize("micro", [0, -3])
def test_a_size_that_is_none_is_refused(micro):
    with pytest.raises(ValueError, match=r"micro = -?\d .*at least 1"):
        toy_state(micro=micro)


@pytest.mark.parametrize(
    "model, live",
    [
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), True),
        (nn.Sequential(nn.BatchNorm2d(2)).eval(), True),  # fit puts it back into training
        (FrozenNorm(2), False),
        (nn.Sequential(nn.GroupNorm(1, 2), nn.LayerNorm(2), nn.InstanceNorm2d(2)), False),
        (BNNeck(4), True),
    ],
)
def test_batch_norms_that_use_their_batch_in_training_are_told(model, live):
    modes = [module.training for module in model.modules()]
    assert live_batch_norm(model) is live
    assert [module.training for module in model.modules()] == modes


def test_a_frozen_batch_norm_is_not_live_and_a_synchronised_one_is():
    losses = LOSSES["triplet"]
    assert not live_batch_norm(reid_state(losses, norm="frozen").model)
    assert live_batch_norm(reid_state(losses, synchronise=True).model)
