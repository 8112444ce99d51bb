"""Several gloo processes are one: every group of checks starts its processes once."""

import os
import signal

import pytest
import torch

from reidkit import distributed
from reidkit.engine import SCHEDULES, Interrupted, fit, stop_on_signal
from tests import processes
from tests.engine.toy import ToyLoader, TrackletLoader, reid_state, toy_state

CONSTANT = SCHEDULES.build("constant")
MEMORY = {"name": "metric_learning", "loss": "ContrastiveLoss", "memory_size": 40}
EVERYTHING = [
    {"name": "cross_entropy"},
    {"name": "triplet", "on": "feature"},
    {"name": "ranked_list", "weight": 0.5},
    {"name": "center", "weight": 0.01, "lr": 0.3},
    MEMORY,
]
# Adam turns the rounding of a gradient that vanishes (a bias before a batch norm) into a whole
# step, so it comes with group norms.
ADAM = {"norm": "group", "optimizer": torch.optim.AdamW}
CASES = {
    "cross_entropy": ([{"name": "cross_entropy"}], {}),
    "triplet": ([{"name": "triplet"}], {}),
    "triplet_all": ([{"name": "triplet", "mining": "all", "margin": None}], {}),
    "ranked_list": ([{"name": "ranked_list"}], {}),
    "memory": ([MEMORY, {"name": "cross_entropy"}], {}),
    "memory_of_triplets": (
        [{"name": "metric_learning", "loss": "TripletMarginLoss", "memory_size": 24}],
        {},
    ),
    "centres": ([{"name": "cross_entropy"}, EVERYTHING[3]], {}),
    "proxies": ([{"name": "metric_learning", "loss": "ProxyAnchorLoss", "on": "feature"}], ADAM),
    "everything": (EVERYTHING, {}),
    "accumulated": (EVERYTHING, {"accumulate": 3}),
    "clipped": (EVERYTHING, {"clip": 0.05}),
    "unread_classifier": ([{"name": "triplet"}], ADAM),
    "micro": (EVERYTHING, {"norm": "frozen", "micro": 3}),
    "micro_accumulated": (EVERYTHING, {"norm": "group", "micro": 2, "accumulate": 2, "clip": 1.0}),
    "micro_unread_classifier": ([{"name": "triplet"}], {**ADAM, "micro": 2}),
    "float32": (
        [{"name": "cross_entropy"}, {"name": "triplet"}],
        {"dtype": torch.float32, "lr": 0.005},
    ),
}
WRONG = ("triplet", "ranked_list", "memory")


def trained(name):
    """Weights, buffers and their average after 20 steps of a case, this rank's rows in each."""
    losses, settings = CASES[name]
    # One process does without micro-batches what several do with them.
    alone = distributed.world_size() == 1
    dtype = settings.get("dtype", torch.float64)
    settings = {**settings, "micro": None} if alone else dict(settings)
    if settings.get("norm", "batch") == "batch" and not alone:
        settings["synchronise"] = True
    state = reid_state(losses, **settings)
    state.distribute()
    rank, world = distributed.rank(), distributed.world_size()
    fit(state, TrackletLoader(10, dtype=dtype, rank=rank, world=world), epochs=2, schedule=CONSTANT)
    assert state.iteration == 20
    return {
        f"{part} {key}": value.clone()
        for part, module in (("raw", state.task), ("average", state.ema))
        for key, value in module.state_dict().items()
    }


def all_trained():
    return {name: trained(name) for name in CASES}


def trained_wrongly(way):
    """The two ways of gathering that do not give one process's gradient."""
    if way == "local":
        distributed.gather = distributed.gather_with_grad = lambda tensor: tensor
    else:
        right = distributed._Gather.backward

        def scaled(ctx, upstream):
            return right(ctx, upstream) / distributed.world_size()

        distributed._Gather.backward = staticmethod(scaled)
    return {name: trained(name) for name in WRONG}


def difference(first, second):
    """The largest, as a part of the value where that is above 1 (variances, numbers of classes)."""
    assert first.keys() == second.keys()
    pairs = [(first[key].double(), second[key].double()) for key in first if first[key].numel()]
    return max(((a - b).abs() / a.abs().clamp_min(1)).max().item() for a, b in pairs)


@pytest.fixture(scope="module")
def alone():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield all_trained()
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def together(request, tmp_path_factory):
    return processes.run(all_trained, world=request.param, folder=tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", CASES)
def test_several_processes_end_where_one_does(alone, together, name):
    far = max(difference(alone[name], found[name]) for found in together)
    print(f"{len(together)} processes, {name}: {far:.1e}", end="; ")
    assert far <= (1e-6 if name == "float32" else 1e-9)


def test_all_processes_hold_the_same_bits(together):
    first, *others = together
    for other in others:
        for name in CASES:
            assert difference(first[name], other[name]) == 0.0, name


def test_keys_are_those_of_the_plain_module(alone, together):
    assert "raw model.backbone.first.weight" in together[0]["triplet"]
    assert not [key for key in together[0]["triplet"] if ".module.module" in key]


@pytest.mark.parametrize("name", ["unread_classifier", "micro_unread_classifier"])
def test_what_no_loss_reads_is_not_moved(together, name):
    untrained = reid_state(*CASES[name][:1], norm="group").task.state_dict()
    for key in ("model.neck.classifier.weight", "model.neck.norm.weight"):
        assert torch.equal(together[0][name][f"raw {key}"], untrained[key])


@pytest.mark.parametrize("way", ["local", "factor"])
def test_the_ways_known_to_be_wrong_end_elsewhere(alone, tmp_path, way):
    found = processes.run(trained_wrongly, way, world=2, folder=tmp_path)[0]
    for name in WRONG:
        far = difference(alone[name], found[name])
        print(f"{way}, {name}: {far:.1e}", end="; ")
        assert far > 1e-3


# What follows is about two processes: each check runs on both, one start for all.


def own_weights():
    """Ranks that begin with different weights train the first one's."""
    state = toy_state(seed=distributed.rank())
    state.distribute()
    return state.task.state_dict()


def gradients_in_a_group():
    """The gradient after each of two accumulated batches."""
    state = toy_state(accumulate=2)
    state.batches = 2
    state.distribute()
    seen = []
    state.before_update = lambda: seen.append(gradient(state))
    loader = iter(ToyLoader(2, seed=distributed.rank()))
    for batch in loader:
        state.descend(state.forward(batch)["loss"])
        if not state.batch:
            seen.append(gradient(state))
        state.advance()
    return seen


def gradient(state):
    return state.model.classifier.weight.grad.clone()


def one_rank_is_not_finite():
    poison = (1, 2) if distributed.rank() == 1 else None
    state = toy_state()
    state.distribute()
    try:
        fit(state, ToyLoader(poison=poison), epochs=3, schedule=CONSTANT)
    except FloatingPointError as error:
        return str(error), state.iteration
    return "finite", state.iteration


def one_gradient_overflows():
    """The scales, and whether weights and average moved, over four steps; the third overflows on
    one rank."""
    state = toy_state(ema=0.5)
    state.batches = 4
    state.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    state.distribute()
    overflow = []
    weight = state.model.classifier.weight
    weight.register_hook(lambda grad: grad * float("inf") if overflow else grad)
    seen = []
    for number, batch in enumerate(ToyLoader(4, seed=distributed.rank())):
        overflow[:] = [True] if number == 2 and distributed.rank() == 1 else []
        before, average = weight.clone(), int(state.ema.average.n_averaged)
        state.descend(state.forward(batch)["loss"])
        state.advance()
        moved = not torch.equal(weight, before)
        averaged = int(state.ema.average.n_averaged) - average
        seen.append((state.scaler.get_scale(), moved, averaged))
    return seen, weight.detach().clone()


def one_rank_is_asked(when, number=None):
    """The iteration at which each rank stops, and where each saw `save` after rank 0 set it."""
    state = toy_state()
    state.distribute()
    saves = []

    def ask():
        if distributed.rank() == 1:
            if number is None:
                state.stop = True
            else:
                signal.raise_signal(number)

    def after_step(state, report):
        if state.save:
            saves.append(state.iteration)
            state.save = False
        elif distributed.is_main() and state.iteration == 2:
            state.save = True
        if when == "step" and state.iteration == 4:
            ask()

    def after_epoch(state):
        if when == "epoch":
            ask()

    hooks = {"after_step": after_step, "after_epoch": after_epoch}
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted), stop_on_signal(state):
        fit(state, ToyLoader(seed=distributed.rank()), epochs=3, schedule=CONSTANT, **hooks)
    assert signal.getsignal(signal.SIGTERM) == before
    return state.iteration, state.stop, saves


def first_interrupt_after_another_rank_was_asked():
    """The first SIGINT of a process is a request, although another one has asked already."""
    state = toy_state()
    state.stop = True
    with stop_on_signal(state):
        signal.raise_signal(signal.SIGINT)
    return state.stop


def stopped_and_resumed():
    """Weights after three epochs with dropout: in one go, and stopped after ten steps."""

    def loader():
        return ToyLoader(seed=distributed.rank())

    def fresh(seed=0):
        state = toy_state(seed=seed)
        state.distribute()
        torch.manual_seed(seed + distributed.rank())
        return state

    whole = fresh()
    fit(whole, loader(), epochs=3, schedule=CONSTANT)
    first = fresh()

    def after_step(state, report):
        state.stop = state.iteration == 10

    with pytest.raises(Interrupted):
        fit(first, loader(), epochs=3, schedule=CONSTANT, after_step=after_step)
    first.best = {"score": 0.5, "epoch": 1}
    told = first.state_dict()
    lists = [None if told[key] is None else len(told[key]) for key in ("rng", "cuda_rng")]
    saved = distributed.from_main(told)
    second = fresh(seed=99)
    second.load_state_dict(saved)
    fit(second, loader(), epochs=3, schedule=CONSTANT)
    return {
        "lists": lists,
        "world": saved["world"],
        "best": second.best,
        "rng": saved["rng"],
        "whole": whole.task.state_dict(),
        "resumed": second.task.state_dict(),
    }


def pair_of_checks():
    return {
        "own_weights": own_weights(),
        "gradients": gradients_in_a_group(),
        "not_finite": one_rank_is_not_finite(),
        "overflow": one_gradient_overflows(),
        "asked": [
            one_rank_is_asked("step"),
            one_rank_is_asked("step", signal.SIGTERM),
            one_rank_is_asked("epoch", signal.SIGINT),
        ],
        "interrupt": first_interrupt_after_another_rank_was_asked(),
        "resumed": stopped_and_resumed(),
    }


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return processes.run(pair_of_checks, world=2, folder=tmp_path_factory.mktemp("pair"))


def test_every_rank_begins_with_the_first_ones_weights(pair):
    assert difference(pair[0]["own_weights"], pair[1]["own_weights"]) == 0.0
    assert difference(pair[1]["own_weights"], toy_state(seed=0).task.state_dict()) == 0.0


def test_gradients_travel_once_a_group_and_not_with_every_batch(pair):
    (first, averaged), (other, same) = (found["gradients"] for found in pair)
    assert not torch.allclose(first, other)
    assert torch.equal(averaged, same)


def test_a_loss_that_is_not_finite_on_one_rank_stops_all_of_them(pair):
    (elsewhere, first), (named, second) = (found["not_finite"] for found in pair)
    assert first == second == 9
    assert named.startswith("loss term 'cross_entropy' is nan at epoch 2, iteration 10: lower")
    assert elsewhere.startswith(
        "a loss term is not finite at epoch 2, iteration 10, on another rank: lower"
    )


def test_a_gradient_that_overflows_on_one_rank_is_skipped_by_all_and_not_averaged(pair):
    (steps, weight), (same_steps, same_weight) = (found["overflow"] for found in pair)
    assert steps == same_steps
    assert steps == [(256, True, 1), (256, True, 1), (128, False, 0), (128, True, 1)]
    assert torch.equal(weight, same_weight)


def test_all_ranks_stop_after_the_same_step_and_hear_of_a_save_together(pair):
    for first, second in zip(*(found["asked"] for found in pair), strict=True):
        assert first == second
    assert [found[:2] for found in pair[0]["asked"]] == [(4, True), (4, True), (7, True)]
    assert [found[2] for found in pair[0]["asked"]] == [[3], [3], [3]]


def test_the_first_ctrl_c_of_a_process_only_asks_even_where_another_was_asked_before(pair):
    assert all(found["interrupt"] for found in pair)


def test_a_checkpoint_holds_every_ranks_draws_and_goes_on_with_the_same_bits(pair):
    main, other = (found["resumed"] for found in pair)
    assert main["lists"] == [2, 2] and other["lists"] == [None, None]
    assert main["world"] == 2 and main["best"] == other["best"] == {"score": 0.5, "epoch": 1}
    assert not torch.equal(*main["rng"])
    assert difference(main["whole"], main["resumed"]) == 0.0
    # Of batch norms the first rank's statistics count, and it is these that everybody resumes with.
    whole, resumed = (
        {key: value for key, value in other[name].items() if "running" not in key}
        for name in ("whole", "resumed")
    )
    assert difference(whole, resumed) == 0.0


def resumed_draws(saved):
    state = toy_state(seed=5)
    state.load_state_dict(saved)
    return torch.rand(3)


def test_another_number_of_ranks_goes_on_and_the_new_ones_draw_something_of_their_own(tmp_path):
    state = toy_state()
    saved = {**state.state_dict(), "world": 2}
    second = torch.Generator().manual_seed(8).get_state()
    saved["rng"], saved["cuda_rng"] = [*saved["rng"], second], [None, None]
    draws = [torch.rand(3)]
    torch.set_rng_state(second)
    draws.append(torch.rand(3))
    assert torch.equal(resumed_draws(saved), draws[0])

    found = processes.run(resumed_draws, saved, world=4, folder=tmp_path)
    again = processes.run(resumed_draws, saved, world=4, folder=tmp_path)
    assert torch.equal(torch.stack(found), torch.stack(again))
    assert torch.equal(torch.stack(found[:2]), torch.stack(draws))
    assert len({tuple(draw.tolist()) for draw in found}) == 4


def fails(rank):
    if distributed.rank() == rank:
        raise ValueError("rank of the culprit")
    distributed.total(torch.zeros(1))


def vanishes():
    if distributed.rank() == 1:
        os._exit(3)
    distributed.total(torch.zeros(1))


def never_ends():
    distributed.total(torch.zeros(1))
    signal.pause()


def test_the_helper_of_these_tests_tells_what_failed(tmp_path):
    with pytest.raises(AssertionError, match=r"rank of the culprit"):
        processes.run(fails, 1, world=2, folder=tmp_path)
    with pytest.raises(AssertionError, match=r"rank 1 ended with code 3"):
        processes.run(vanishes, world=2, folder=tmp_path)
    with pytest.raises(AssertionError, match=r"at most 1 s: ranks \[0, 1\]"):
        processes.run(never_ends, world=2, folder=tmp_path, timeout=1)
