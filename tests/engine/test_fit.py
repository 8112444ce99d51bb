import copy

import pytest
import torch

from reidkit.engine import SCHEDULES, Interrupted, fit, load_state, save_state
from tests.engine.toy import ToyLoader, toy_state

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
