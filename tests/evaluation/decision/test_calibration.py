"""Probabilities: monotone, never certain, and worth what the held-out pairs say."""

import json
import math

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm

from reidkit.evaluation.decision.calibration import (
    Calibration,
    ReliabilityBin,
    calibrate,
    expected_calibration_error,
    fit,
    reliability_table,
)

GRID = np.linspace(-3, 3, 601)


def scored(draw, people=40, each=12, seed=0):
    """Similarities of genuine and impostor pairs as `draw(random, same)` makes them, same (P,),
    identities (P, 2)."""
    random = np.random.default_rng(seed)
    first = np.repeat(np.arange(people), 2 * each)
    same = np.tile(np.repeat([True, False], each), people)
    second = np.where(same, first, (first + random.integers(1, people, len(first))) % people)
    return draw(random, same), same, np.stack([first, second], 1)


def gaussian(random, same):
    return random.normal(size=len(same)) * 0.5 + same


def two_humps(random, same):
    """Genuine pairs are seldom (other clothes) or nearly always alike; not a logistic curve."""
    alike = random.random(len(same)) < 0.5
    noise = 0.25 * random.normal(size=len(same))
    return np.where(same, np.where(alike, 1.5, 0.5), np.where(alike, 0.0, 0.5)) + noise


@pytest.mark.parametrize("kind", ["isotonic", "platt"])
@pytest.mark.parametrize("seed", range(3))
def test_a_larger_similarity_is_never_less_probable_and_never_certain(kind, seed):
    values, same, _ = scored(gaussian, seed=seed)
    curve = fit(kind, values, same, 0.3)
    probability = curve.probability(np.linspace(-10, 10, 4001))
    assert (np.diff(probability) >= 0).all()
    beyond = curve.probability([values.min(), values.max()])
    assert 0 < beyond[0] < 0.05 and 0.95 < beyond[1] < 1


def test_platt_finds_the_log_likelihood_ratio_of_two_normals():
    # Means 1 and 0, variance 1/4: the ratio is (s - 1/2) / (1/4) = 4 s - 2.
    values, same, _ = scored(gaussian, people=500, each=100)
    curve = fit("platt", values, same, 0.5)
    assert curve.slope == pytest.approx(4, rel=0.02)
    assert curve.intercept == pytest.approx(-2, rel=0.02)
    np.testing.assert_allclose(curve.probability(GRID), expit(4 * GRID - 2), atol=0.01)


def test_isotonic_is_the_pooled_adjacent_violators_worked_by_hand():
    # Impostors at 0, 2; genuine at 1, 3; and a genuine pair added at 0, an impostor at 3. Of three
    # each, all weigh alike. At 0 one of two is genuine, at 1 one of one, at 2 none of one, at 3 one
    # of two: 1 and 2 pool to 1/2, so all are 1/2 and every log ratio is 0.
    flat = fit("isotonic", [0.0, 1, 2, 3], np.array([False, True, False, True]), 0.5)
    np.testing.assert_allclose(flat.log_ratio([-1, 0, 1.5, 9]), 0, atol=1e-12)
    # Three impostors at 0, three genuine at 1, one of each added: 1 of 4 and 3 of 4.
    steep = fit("isotonic", [0.0] * 3 + [1.0] * 3, np.repeat([False, True], 3), 0.5)
    np.testing.assert_allclose(steep.probability([0, 1]), [0.25, 0.75])
    np.testing.assert_allclose(steep.log_ratio([0, 0.5, 1]), [-math.log(3), 0, math.log(3)])


@pytest.mark.parametrize("kind", ["isotonic", "platt"])
def test_the_prior_moves_the_odds_and_nothing_else(kind):
    values, same, _ = scored(gaussian)
    curve = fit(kind, values, same, 0.2)
    odds = {p: np.exp(logit(curve.probability(GRID, p))) for p in (None, 0.2, 0.5)}
    np.testing.assert_allclose(odds[None], odds[0.2])
    np.testing.assert_allclose(odds[0.5], odds[0.2] * 4)  # 0.5 / 0.5 is 4 times 0.2 / 0.8


@pytest.mark.parametrize("kind", ["isotonic", "platt"])
def test_a_thousand_times_more_impostors_change_the_prior_and_not_the_ratio(kind):
    values, same, _ = scored(gaussian)
    more = np.concatenate([values[same], np.tile(values[~same], 50)])
    labels = np.repeat([True, False], [same.sum(), 50 * (~same).sum()])
    few, many = fit(kind, values, same, 0.5), fit(kind, more, labels, 0.5)
    inside = GRID[(values[same].min() < GRID) & (values[~same].max() > GRID)]
    np.testing.assert_allclose(few.probability(inside), many.probability(inside), atol=0.05)


@pytest.mark.parametrize("kind", ["isotonic", "platt"])
def test_a_model_worse_than_chance_gets_a_flat_curve_at_the_prior(kind):
    values, same, _ = scored(lambda random, same: random.normal(size=len(same)) - 2 * same)
    np.testing.assert_allclose(fit(kind, values, same, 0.3).probability(GRID), 0.3, atol=0.02)


@pytest.mark.parametrize("kind", ["isotonic", "platt"])
def test_pairs_that_part_cleanly_or_all_agree_are_no_trouble(kind):
    same = np.repeat([True, False], 20)
    clean = fit(kind, same * 1.0, same, 0.5).probability([0, 1])
    assert 0 < clean[0] < 0.1 and 0.9 < clean[1] < 1
    assert fit(kind, np.zeros(40), same, 0.5).probability(0) == pytest.approx(0.5)


def test_the_better_kind_is_chosen_by_the_held_out_loss():
    normal = calibrate(*scored(gaussian))
    assert normal.kind == "platt" and normal.log_loss["platt"] < normal.log_loss["isotonic"]
    humps = calibrate(*scored(two_humps, people=200))
    assert humps.kind == "isotonic" and humps.log_loss["isotonic"] < humps.log_loss["platt"]


def test_the_held_out_loss_is_the_plain_mean_where_the_prior_is_that_of_the_pairs():
    """The loop: each half judged by a curve fitted on the other, no pair across the halves."""
    values, same, people = scored(gaussian, people=10, each=6)
    found = calibrate(values, same, people, prior=0.4, seed=3)
    half = np.random.default_rng(3).permutation(10) % 2
    total = {True: [], False: []}
    for judged in (0, 1):
        inside = [half[a] == half[b] == judged for a, b in people]
        learnt = [half[a] == half[b] == 1 - judged for a, b in people]
        curve = fit("platt", values[learnt], same[learnt], 0.4)
        for value, genuine in zip(values[inside], same[inside], strict=True):
            p = float(curve.probability(value))
            total[bool(genuine)].append(-math.log(p if genuine else 1 - p))
    expected = 0.4 * np.mean(total[True]) + 0.6 * np.mean(total[False])
    assert found.log_loss["platt"] == pytest.approx(expected)
    assert sum(row.count for row in found.reliability) == sum(map(len, total.values()))


def test_probabilities_of_people_never_seen_are_true():
    values, same, people = scored(gaussian, people=300, each=20)
    curve = calibrate(values, same, people)
    assert curve.prior == 0.5
    assert curve.error < 0.02
    fresh, truth, _ = scored(gaussian, people=300, each=20, seed=9)
    table = reliability_table(curve.probability(fresh), truth)
    assert expected_calibration_error(table) < 0.02
    rare = curve.probability(0.5, prior=0.01)
    ratio = norm.pdf(0.5, 1, 0.5) / norm.pdf(0.5, 0, 0.5)
    assert rare == pytest.approx(0.01 * ratio / (0.01 * ratio + 0.99), abs=0.003)


def test_with_too_few_identities_nothing_is_held_out():
    curve = calibrate([0.1, 0.9, 0.8], np.array([False, True, True]), [[0, 1], [0, 0], [1, 1]])
    assert curve.kind == "platt"
    assert (curve.log_loss, curve.error, curve.reliability) == (None, None, ())


def test_a_reliability_table_and_its_error_worked_by_hand():
    # Bins of one half: 0.2 and 0.4 mean 0.3, one of two so: 0.5; 0.5 and 1.0 mean 0.75, all so.
    table = reliability_table([0.2, 0.4, 0.5, 1.0], np.array([False, True, True, True]), bins=2)
    assert [(row.count, row.share) for row in table] == [(2, 0.5), (2, 0.5)]
    assert [row.predicted for row in table] == pytest.approx([0.3, 0.75])
    assert [row.observed for row in table] == [0.5, 1.0]
    assert expected_calibration_error(table) == pytest.approx((0.2 + 0.25) / 2)


def test_weights_count_as_so_many_pairs():
    said, same = np.array([0.1, 0.2, 0.7]), np.array([False, True, True])
    heavy = reliability_table(said, same, weights=[1, 3, 2])
    repeated = reliability_table(said[[0, 1, 1, 1, 2, 2]], same[[0, 1, 1, 1, 2, 2]])
    assert [(r.predicted, r.observed, r.share) for r in heavy] == [
        pytest.approx((r.predicted, r.observed, r.share)) for r in repeated
    ]
    assert [row.count for row in heavy] == [1, 1, 1]


@pytest.mark.parametrize("draw", [gaussian, two_humps])
def test_a_calibration_survives_json(draw):
    curve = calibrate(*scored(draw, people=100))
    again = Calibration.from_dict(json.loads(json.dumps(curve.to_dict(), allow_nan=False)))
    assert again == curve
    np.testing.assert_array_equal(again.probability(GRID), curve.probability(GRID))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"same": np.array([True, True, True])}, "no impostor pair among 3"),
        ({"same": np.array([False, False, False])}, "no genuine pair among 3"),
        ({"same": [1, 0, 1]}, "booleans, got .* of int64"),
        ({"similarity": [0.1, np.nan, 0.2]}, "value 1 is not finite"),
        ({"similarity": [0.1, 0.2]}, r"got \(2,\) and \(3,\)"),
        ({"identities": [[0, 0]]}, r"identities have shape \(1, 2\), expected \(3, 2\)"),
        ({"prior": 0.0}, "prior = 0.0: expected a share"),
    ],
)
def test_pairs_that_cannot_be_calibrated_are_refused(change, words):
    pairs = {
        "similarity": [0.1, 0.2, 0.3],
        "same": np.array([True, False, True]),
        "identities": [[0, 0], [0, 1], [1, 1]],
    }
    with pytest.raises(ValueError, match=words):
        calibrate(**{**pairs, **change})


@pytest.mark.parametrize(
    "said, settings, words",
    [
        ([0.1, 1.2], {}, r"probabilities in \[0, 1\]"),
        ([0.1, 0.2], {"bins": 0}, "at least 1 bin"),
        ([0.1, 0.2], {"weights": [1, -1]}, "positive numbers"),
        ([], {}, "no pairs"),
    ],
)
def test_tables_of_what_is_no_probability_are_refused(said, settings, words):
    same = np.ones(len(said), dtype=bool)
    with pytest.raises(ValueError, match=words):
        reliability_table(said, same, **settings)


def test_an_empty_table_has_no_error():
    with pytest.raises(ValueError, match="empty"):
        expected_calibration_error(())
    assert expected_calibration_error((ReliabilityBin(0.2, 0.2, 3, 1.0),)) == 0
