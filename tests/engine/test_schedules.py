import math

import pytest
import torch

from reidkit.engine import SCHEDULES
from reidkit.engine.optim import set_rates

EPOCHS = 120


def ours(name, **args):
    schedule = SCHEDULES.build(name, args)
    return [schedule(epoch / EPOCHS) for epoch in range(EPOCHS)]


def torchs(make, scores=None):
    """torch's rate after each of 120 epochs, from a base rate of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    scheduler = make(optimizer)
    factors = []
    for epoch in range(EPOCHS):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*(scores[epoch : epoch + 1] if scores else ()))
    return factors


def assert_same(found, expected):
    """Equal to 1e-12 of each value."""
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def after_warm_up(make, epochs=10):
    """torch's scheduler behind a linear warm-up, counting from where the warm-up ends."""

    def chain(optimizer):
        parts = [LR.LinearLR(optimizer, 0.01, total_iters=epochs), make(optimizer)]
        return LR.SequentialLR(optimizer, parts, milestones=[epochs])

    return chain


LR = torch.optim.lr_scheduler
TENTH = 10 / EPOCHS  # not a tenth: the ten epochs of warm-up
PAIRS = [
    ("constant", {}, lambda o: LR.ConstantLR(o, 1.0)),
    ("constant", {"warmup": TENTH}, lambda o: LR.LinearLR(o, 0.01, total_iters=10)),
    (
        "constant",
        {"warmup": 0.5, "warmup_factor": 0.25},
        lambda o: LR.LinearLR(o, 0.25, total_iters=60),
    ),
    # A rate that rises, too.
    (
        "warmup_multistep",
        {"milestones": [30 / 120], "gamma": 4.0, "warmup": 0.0},
        lambda o: LR.MultiStepLR(o, [30], 4.0),
    ),
    # Chained: both count from the start.
    (
        "warmup_multistep",
        {},
        lambda o: LR.ChainedScheduler(
            [LR.LinearLR(o, 0.01, total_iters=10), LR.MultiStepLR(o, [40, 70])]
        ),
    ),
    # One after the other: the second counts from the switch.
    ("warmup_multistep", {}, after_warm_up(lambda o: LR.MultiStepLR(o, [30, 60]))),
    ("cosine", {}, lambda o: LR.CosineAnnealingLR(o, EPOCHS)),
    ("cosine", {"final": 0.01}, lambda o: LR.CosineAnnealingLR(o, EPOCHS, 0.01)),
    (
        "warmup_cosine",
        {"warmup": TENTH, "final": 0.01},
        after_warm_up(lambda o: LR.CosineAnnealingLR(o, EPOCHS - 10, 0.01)),
    ),
    ("warmup_cosine", {"warmup": TENTH}, after_warm_up(lambda o: LR.CosineAnnealingLR(o, 110))),
    # torch counts total_steps - 1 intervals; one step more makes its intervals ours.
    (
        "one_cycle",
        {"peak": 0.3},
        lambda o: LR.OneCycleLR(o, 1.0, total_steps=EPOCHS + 1, pct_start=37 / 121),
    ),
    (
        "one_cycle",
        {"peak": 0.5, "divisor": 10, "final_divisor": 100},
        lambda o: LR.OneCycleLR(
            o, 1.0, total_steps=121, pct_start=61 / 121, div_factor=10, final_div_factor=100
        ),
    ),
    ("poly", {"power": 0.9}, lambda o: LR.PolynomialLR(o, EPOCHS, 0.9)),
    ("poly", {"power": 2}, lambda o: LR.PolynomialLR(o, EPOCHS, 2)),
    ("exponential", {"final": 0.5**EPOCHS}, lambda o: LR.ExponentialLR(o, 0.5)),
    ("exponential", {"final": 0.97**EPOCHS}, lambda o: LR.ExponentialLR(o, 0.97)),
    ("step", {}, lambda o: LR.StepLR(o, 40)),
    ("step", {"every": 7 / 120, "gamma": 0.7}, lambda o: LR.StepLR(o, 7, 0.7)),
    (
        "step",
        {"every": 40 / 120, "warmup": TENTH},
        lambda o: LR.ChainedScheduler([LR.LinearLR(o, 0.01, total_iters=10), LR.StepLR(o, 40)]),
    ),
]


@pytest.mark.parametrize(
    "name, args, make", PAIRS, ids=lambda value: "torch" if callable(value) else str(value)[:40]
)
def test_a_schedule_equals_torchs_own_over_120_epochs(name, args, make):
    assert_same(ours(name, **args), torchs(make))


def test_every_schedule_is_compared_with_torchs():
    assert {name for name, _, _ in PAIRS} | {"plateau"} == set(SCHEDULES)


@pytest.mark.parametrize("patience", [0, 3])
@pytest.mark.parametrize("threshold", [1e-4, 0.05])
def test_plateau_equals_torchs_own_over_120_evaluations(patience, threshold):
    noise = torch.rand(EPOCHS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    scores = [1 - math.exp(-epoch / 30) + 0.1 * float(noise[epoch]) for epoch in range(EPOCHS)]

    def make(optimizer):
        return LR.ReduceLROnPlateau(
            optimizer,
            mode="max",
            factor=0.9,
            patience=patience,
            threshold=threshold,
            threshold_mode="abs",
            eps=0,
        )

    schedule = SCHEDULES.build(
        "plateau", {"patience": patience, "threshold": threshold, "gamma": 0.9}
    )
    found = []
    for epoch, score in enumerate(scores):
        found.append(schedule(epoch / EPOCHS))
        schedule.observe(score)
    assert_same(found, torchs(make, scores))
    assert len(set(found)) > 3  # the comparison saw the rate fall


def test_milestones_fall_on_their_epoch_whatever_the_number_of_batches():
    schedule = SCHEDULES.build("warmup_multistep", {})
    steps = SCHEDULES.build("step", {"every": 40 / 120})
    for batches in (1, 3, 7, 201, 1999):
        for epoch, before, after in ((40, 1.0, 0.1), (70, 0.1, 0.01)):
            done, total = epoch * batches, EPOCHS * batches
            assert schedule((done - 1) / total) == pytest.approx(before)
            assert schedule(done / total) == pytest.approx(after)
        assert steps((40 * batches - 1) / (EPOCHS * batches)) == 1
        assert steps(40 * batches / (EPOCHS * batches)) == pytest.approx(0.1)


def test_warm_up_multistep_gives_the_published_rates():
    rates = [3.5e-4 * factor for factor in ours("warmup_multistep")]
    expected = {
        0: 3.5e-6,
        1: 3.815e-5,
        5: 1.7675e-4,
        9: 3.1535e-4,
        10: 3.5e-4,
        39: 3.5e-4,
        40: 3.5e-5,
        70: 3.5e-6,
        119: 3.5e-6,
    }
    assert_same([rates[epoch] for epoch in expected], list(expected.values()))


def test_cosine_passes_through_the_specs_numbers_and_never_rises_again():
    schedule = SCHEDULES.build("cosine", {"final": 0.01})
    assert schedule(0.25) == pytest.approx(0.855018, abs=1e-6)
    assert_same([schedule(0.5), schedule(1.0)], [0.505, 0.01])
    factors = [schedule(i / 10_000) for i in range(10_000)]
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] > 0.01  # its end is the training's end: there is no step behind it


def test_param_groups_keep_the_ratio_of_their_rates():
    weights = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    groups = [{"params": weights[:1], "lr": 1e-3}, {"params": weights[1:], "lr": 1e-4}]
    optimizer = torch.optim.SGD(groups)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    schedule = SCHEDULES.build("warmup_cosine", {"warmup": 0.1})
    for epoch in range(EPOCHS):
        set_rates(optimizer, schedule(epoch / EPOCHS))
        assert_same(optimizer.param_groups[1]["lr"] * 10, optimizer.param_groups[0]["lr"])


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
