import math

import pytest
import torch

from reidkit.engine import SCHEDULES

EPOCHS = 120


def ours(name, **args):
    schedule = SCHEDULES.build(name, args)
    return [schedule(epoch / EPOCHS) for epoch in range(EPOCHS)]


def torchs(make):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    scheduler = make(optimizer)
    factors = []
    for _ in range(EPOCHS):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


def bag_of_tricks(optimizer):
    lr = torch.optim.lr_scheduler
    parts = [lr.LinearLR(optimizer, 0.01, total_iters=10), lr.MultiStepLR(optimizer, [40, 70])]
    return lr.ChainedScheduler(parts)


LR = torch.optim.lr_scheduler
PAIRS = {
    "constant": ({}, lambda o: LR.ConstantLR(o, 1.0)),
    "warmup_multistep": ({}, bag_of_tricks),
    "cosine": ({"final": 0.01}, lambda o: LR.CosineAnnealingLR(o, EPOCHS, 0.01)),
    "one_cycle": (
        # torch counts total_steps - 1 intervals; one step more makes its intervals ours.
        {"peak": 0.3},
        lambda o: LR.OneCycleLR(o, 1.0, total_steps=EPOCHS + 1, pct_start=37 / 121),
    ),
    "poly": ({"power": 0.9}, lambda o: LR.PolynomialLR(o, EPOCHS, 0.9)),
    "exponential": ({"final": 0.5**EPOCHS}, lambda o: LR.ExponentialLR(o, 0.5)),
    "step": ({"every": 1 / 3}, lambda o: LR.StepLR(o, EPOCHS // 3)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_schedule_equals_torchs_own_over_120_epochs(name):
    args, make = PAIRS[name]
    torch.testing.assert_close(ours(name, **args), torchs(make), rtol=0, atol=1e-9)


def test_warm_up_multistep_gives_the_published_rates():
    factors = ours("warmup_multistep")
    expected = {0: 0.01, 1: 0.109, 5: 0.505, 9: 0.901, 10: 1.0, 39: 1.0, 40: 0.1, 70: 0.01}
    for epoch, factor in expected.items():
        assert factors[epoch] == pytest.approx(factor, abs=1e-12)


def test_cosine_passes_through_the_specs_numbers():
    schedule = SCHEDULES.build("cosine", {"final": 0.01})
    assert schedule(0.25) == pytest.approx(0.855018, abs=1e-6)
    assert schedule(0.5) == pytest.approx(0.505, abs=1e-12)


def test_warm_up_meets_the_schedule_without_a_jump():
    schedule = SCHEDULES.build("warmup_cosine", {"warmup": 0.1})
    assert schedule(0.0) == pytest.approx(0.01)
    assert schedule(0.1 - 1e-9) == pytest.approx(schedule(0.1), abs=1e-6)
    assert schedule(0.1) == pytest.approx(1.0)


def test_plateau_waits_then_lowers_and_survives_a_resume():
    plateau = SCHEDULES.build("plateau", {"patience": 1, "gamma": 0.5})
    for score in (0.1, 0.2, 0.2):
        plateau.observe(score)
    assert plateau(0.5) == 1.0
    resumed = SCHEDULES.build("plateau", {"patience": 1, "gamma": 0.5})
    resumed.load_state_dict(plateau.state_dict())
    resumed.observe(0.1)
    assert resumed(0.5) == 0.5


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_every_schedule_stays_finite_and_positive_over_the_whole_training(name):
    factors = ours(name)
    assert all(math.isfinite(factor) and factor > 0 for factor in factors)


@pytest.mark.parametrize(
    "name, args",
    [
        ("cosine_warmup", {}),
        ("warmup_cosine", {"warmup": 1.5}),
        ("warmup_multistep", {"milestones": [40, 70]}),
        ("one_cycle", {"peak": 2}),
        ("exponential", {"final": 0}),
        ("step", {"every": 40}),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(name, args):
    with pytest.raises(ValueError, match=r"expected|unknown schedule"):
        SCHEDULES.build(name, args)
