import copy
import signal

import pytest
import torch

from reidkit.engine import SCHEDULES, Interrupted, fit, load_state, save_state, stop_on_signal
from tests.engine.toy import ToyLoader, ToyObjective, toy_state

SCHEDULE = SCHEDULES.build("warmup_cosine")


def stopped_after(state, steps):
    def after_step(state, report):
        state.stop = state.iteration >= steps

    with pytest.raises(Interrupted):
        fit(state, ToyLoader(), epochs=3, schedule=SCHEDULE, after_step=after_step)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


def test_the_loss_falls():
    losses = []
    fit(
        toy_state(),
        ToyLoader(),
        epochs=8,
        schedule=SCHEDULE,
        after_step=lambda state, report: losses.append(report.terms["loss"].item()),
    )
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


@pytest.mark.parametrize("steps", [1, 4, 7, 10, 20])
@pytest.mark.parametrize("settings", [{}, {"accumulate": 2}, {"clip": 0.1}, {"ema": None}])
def test_stopped_after_k_steps_and_resumed_the_weights_are_the_same_bits(tmp_path, steps, settings):
    whole = toy_state(**settings)
    fit(whole, ToyLoader(), epochs=3, schedule=SCHEDULE)

    first = toy_state(**settings)
    stopped_after(first, steps)
    save_state(tmp_path / "state.pt", first.state_dict())
    second = toy_state(**settings, seed=99)
    second.load_state_dict(load_state(tmp_path / "state.pt"))
    # A stop is honoured between two groups of accumulated batches.
    assert steps <= second.iteration < steps + settings.get("accumulate", 1)
    fit(second, ToyLoader(), epochs=3, schedule=SCHEDULE)

    assert same(whole.task.state_dict(), second.task.state_dict())
    if whole.ema is not None:
        assert same(whole.ema.state_dict(), second.ema.state_dict())


def test_accumulated_gradients_equal_one_large_batch():
    torch.manual_seed(0)
    halves = list(ToyLoader(batches=2, size=6))
    whole = type(halves[0])(*(torch.cat(pair) for pair in zip(*halves, strict=True)))

    class Given(ToyLoader):
        def __init__(self, batches):
            super().__init__(len(batches))
            self.given = batches

        def __iter__(self):
            return iter(self.given)

    weights = []
    for accumulate, batches in ((2, halves), (1, [whole])):
        state = toy_state(ema=None, accumulate=accumulate)
        state.model.backbone = torch.nn.Linear(6, 8)  # no batch norm: halves know each other not
        torch.manual_seed(1)
        torch.nn.init.normal_(state.model.backbone.weight)
        torch.nn.init.zeros_(state.model.backbone.bias)
        state.optimizers["main"] = torch.optim.SGD(state.model.parameters(), lr=0.1)
        for group in state.optimizers["main"].param_groups:
            group["initial_lr"] = 0.1
        fit(state, Given(batches), epochs=1, schedule=SCHEDULES.build("constant"))
        weights.append(copy.deepcopy(state.model.state_dict()))
    for a, b in zip(weights[0].values(), weights[1].values(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_loss_that_becomes_nan_is_named_with_its_place_and_stops_before_the_weights_change():
    state = toy_state()
    before = {}

    def remember(state, report):
        before.update(copy.deepcopy(state.task.model.classifier.state_dict()))

    loader = ToyLoader(poison=(1, 2))
    with pytest.raises(
        FloatingPointError, match=r"'cross_entropy' is nan at epoch 2, iteration 10"
    ):
        fit(state, loader, epochs=3, schedule=SCHEDULE, after_step=remember)
    assert same(before, state.task.model.classifier.state_dict())


def test_an_empty_loader_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        fit(toy_state(), ToyLoader(batches=0), epochs=1, schedule=SCHEDULE)


def test_a_checkpoint_of_another_model_is_refused_and_says_what_differs():
    saved = toy_state(dim=8).state_dict()
    state = toy_state(dim=16)
    with pytest.raises(ValueError, match=r"another model: .*\(8, 6\) instead of \(16, 6\)"):
        state.load_state_dict(saved)


def test_a_checkpoint_with_an_average_does_not_fit_a_run_without():
    saved = toy_state().state_dict()
    with pytest.raises(ValueError, match=r"optim\.ema"):
        toy_state(ema=None).load_state_dict(saved)


def test_bf16_trains_on_the_cpu_and_fp16_is_refused_there():
    state = toy_state(precision="bf16")
    fit(state, ToyLoader(), epochs=1, schedule=SCHEDULE)
    assert state.model.classifier.weight.dtype == torch.float32
    with pytest.raises(ValueError, match="needs CUDA"):
        toy_state(precision="fp16")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fp16_scales_its_gradients_on_cuda():
    state = toy_state(precision="fp16", device="cuda")
    assert state.scaler.is_enabled()


def test_the_rate_follows_the_schedule_and_groups_keep_their_ratio():
    state = toy_state()
    state.optimizers["main"].param_groups[0]["initial_lr"] = 0.5
    state.set_rates(0.1)
    found = [group["lr"] for group in state.optimizers["main"].param_groups]
    assert found == pytest.approx([0.05, 0.005])


def test_clipping_bounds_the_gradient_of_the_step():
    norms = []

    class Recording(torch.optim.SGD):
        def step(self, closure=None):
            gradients = [p.grad for g in self.param_groups for p in g["params"]]
            norms.append(torch.nn.utils.get_total_norm(gradients).item())
            return super().step(closure)

    state = toy_state(clip=0.01)
    state.optimizers["main"] = Recording(state.model.parameters(), lr=0.1)
    state.optimizers["main"].param_groups[0]["initial_lr"] = 0.1
    fit(state, ToyLoader(), epochs=1, schedule=SCHEDULE)
    assert max(norms) <= 0.01 + 1e-6


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_is_settled_changes_only_once_before_update_was_called(accumulate):
    """The slow twin of a checkpoint that copies in the background: it looks when it is told to."""
    state = toy_state(accumulate=accumulate)
    fit(state, ToyLoader(2), epochs=1, schedule=SCHEDULE)
    settled = state.settled()
    held = [tensor.clone() for tensor in settled]
    calls = []

    def look():
        calls.append(all(map(torch.equal, settled, held)))

    def renew(state, report):
        if state.batch % accumulate:
            assert all(map(torch.equal, settled, held))
        held[:] = [tensor.clone() for tensor in settled]

    state.before_update = look
    fit(state, ToyLoader(2), epochs=3, schedule=SCHEDULE, after_step=renew)
    assert calls == [True] * (4 // accumulate)


def test_settled_are_the_weights_their_average_and_what_the_optimisers_hold_of_them():
    state = toy_state()
    fit(state, ToyLoader(1), epochs=1, schedule=SCHEDULE)
    parameters = list(state.task.parameters())
    moments = 3 * len(parameters)  # Adam's two, and its count of steps
    assert len(state.settled()) == 2 * len(parameters) + moments
    known = {tensor.data_ptr() for tensor in state.settled()}
    saved = state.state_dict()
    assert {p.data_ptr() for p in parameters} <= known
    assert {value.data_ptr() for value in saved["task"].values() if value.ndim} - known == {
        buffer.data_ptr() for buffer in state.task.buffers() if buffer.ndim
    }  # the tensors that train, not copies


def test_a_resumed_epoch_of_another_number_of_batches_begins_anew():
    state = toy_state()
    stopped_after(state, 10)
    resumed = toy_state(seed=99)
    resumed.load_state_dict(state.state_dict())
    seen = []
    fit(
        resumed,
        ToyLoader(5),
        epochs=2,
        schedule=SCHEDULE,
        after_step=lambda state, report: seen.append((state.epoch, state.batch)),
    )
    assert seen == [(1, batch) for batch in range(1, 6)]


def test_a_resumed_epoch_that_stood_within_a_group_of_accumulated_batches_begins_anew():
    state = toy_state()
    stopped_after(state, 10)
    resumed = toy_state(seed=99, accumulate=2)
    resumed.load_state_dict(state.state_dict())
    seen = []
    fit(
        resumed,
        ToyLoader(),
        epochs=2,
        schedule=SCHEDULE,
        after_step=lambda state, report: seen.append(state.batch),
    )
    assert seen == list(range(1, 8))


def test_the_best_score_and_the_number_of_processes_are_in_the_checkpoint(tmp_path):
    state = toy_state()
    state.best = {"score": 0.25, "epoch": 3}
    save_state(tmp_path / "state.pt", state.state_dict())
    resumed = toy_state()
    resumed.load_state_dict(load_state(tmp_path / "state.pt"))
    assert resumed.best == {"score": 0.25, "epoch": 3}
    assert load_state(tmp_path / "state.pt")["world"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_stop_after_the_step(number):
    state = toy_state()

    def after_step(state, report):
        if state.iteration == 3:
            signal.raise_signal(number)

    with pytest.raises(Interrupted), stop_on_signal(state):
        fit(state, ToyLoader(), epochs=3, schedule=SCHEDULE, after_step=after_step)
    assert state.iteration == 3 and state.consistent


def test_a_second_ctrl_c_interrupts_at_once_and_a_second_sigterm_does_not():
    state = toy_state()
    with stop_on_signal(state):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_save_that_is_asked_for_is_heard_at_the_next_step_and_kept_until_it_is_done(accumulate):
    state = toy_state(accumulate=accumulate)
    saved = []

    def after_step(state, report):
        if state.save and state.batch % accumulate == 0:
            saved.append(state.iteration)
            state.save = False
        elif state.iteration == 2:
            state.save = True

    fit(state, ToyLoader(), epochs=1, schedule=SCHEDULE, after_step=after_step)
    assert saved == [3 if accumulate == 1 else 4]


class Remembering(ToyObjective):
    def __init__(self, told):
        super().__init__()
        self.told = told

    def forward(self, output, labels):
        self.told.append("forward")
        return super().forward(output, labels)

    def after_step(self):
        self.told.append("remember")


@pytest.mark.parametrize(
    "settings, events",
    [
        ({}, ["forward", "backward", "update", "remember"] * 2),
        (
            {"accumulate": 2},
            ["forward", "backward", "remember", "forward", "backward", "update", "remember"],
        ),
        # A micro-batch goes backward by itself, the loss sees the whole batch once.
        ({"micro": 6}, ["forward", *["backward"] * 2, "update", "remember"] * 2),
    ],
    ids=["plain", "accumulate", "micro"],
)
def test_losses_are_told_to_remember_once_a_batch_after_backward_and_the_step(settings, events):
    told = []
    state = toy_state(**settings)
    state.task.objective = Remembering(told)
    state.model.backbone[0].weight.register_hook(lambda gradient: told.append("backward"))
    state.before_update = lambda: told.append("update")
    fit(state, ToyLoader(2), epochs=1, schedule=SCHEDULE)
    assert told == events


def test_a_training_in_pieces_is_the_whole_training():
    whole = toy_state()
    fit(whole, ToyLoader(), epochs=4, schedule=SCHEDULE)
    pieces = toy_state()  # only now: it sows what dropout draws
    for until in (1, 3, 3, 4):
        fit(pieces, ToyLoader(), epochs=4, until=until, schedule=SCHEDULE)
        assert pieces.epoch == until
    assert same(whole.task.state_dict(), pieces.task.state_dict())
