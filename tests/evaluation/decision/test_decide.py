"""A decision from features: its threshold, its words, and its walk through JSON."""

import json

import numpy as np
import pytest

from reidkit.evaluation.decision.decide import Decision, decide
from reidkit.evaluation.decision.pairs import PairSource
from reidkit.evaluation.decision.thresholds import (
    TooFewPairs,
    estimated_threshold,
    exact_threshold,
    rate_interval,
)
from reidkit.types import Features


def people(count=120, images=3, cameras=3, noise=0.5, seed=0, first=1):
    random = np.random.default_rng(seed)
    pids = np.repeat(np.arange(count), images)
    vectors = random.normal(size=(count, 12))[pids] + noise * random.normal(size=(len(pids), 12))
    return Features.from_arrays(vectors, pids + first, np.arange(len(pids)) % cameras)


def test_a_decision_worked_by_hand():
    # On a line: people 1 to 4 at 0, 10, 30, 70, each seen twice, 1 apart; person 4 only once. No
    # cameras. Genuine: -1 three times. Impostors: -10 at most, -9 is the nearest of all (1 and 10).
    places = np.array([[0.0], [1], [10], [11], [30], [31], [70]])
    features = Features.from_arrays(places, [1, 1, 2, 2, 3, 3, 4])
    found = decide(features, 0.5, metric="euclidean", independent="pairs")
    # 7 * 6 / 2 = 21 pairs, 18 of impostors, of which 5 may match: P(Bin(18, 1/2) <= 5) = 0.048.
    # The nearest are 9, 10, 10, 11 and 19 apart, then two 20.
    assert found.threshold == np.nextafter(-20, 0)
    assert found.point.observed_rate == 5 / 18
    assert found.point.impostor_pairs == 18 and found.point.genuine_pairs == 3
    assert found.point.true_match_rate == 1
    assert found.point.true_match_interval == (pytest.approx(0.025 ** (1 / 3)), 1)
    assert found.calibration.prior == pytest.approx(3 / 21)
    assert not found.across_cameras
    assert found.same([-1.0, -9, -40, found.threshold]).tolist() == [True, True, False, True]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_each_kind_of_independence_takes_its_threshold(metric):
    features = people()
    source = PairSource(features, metric=metric)
    genuine, impostors = source.genuine(10**6), source.impostors(10**6)
    expected = {
        "identities": exact_threshold(source.disjoint_impostors().similarity, 0.05),
        "estimated": estimated_threshold(impostors.similarity, impostors.identities, 0.05),
        "pairs": exact_threshold(impostors.similarity, 0.05),
    }
    for independent, promise in expected.items():
        found = decide(features, 0.05, metric=metric, independent=independent)
        assert found.threshold == promise.threshold
        assert found.point.upper_bound == promise.upper_bound <= 0.05
        assert found.point.independent_pairs == promise.independent_pairs
        beyond = genuine.similarity >= found.threshold
        of = [beyond[genuine.identities[:, 0] == i].mean() for i in range(120)]
        assert found.point.true_match_rate == pytest.approx(np.mean(of))
        trials = len(genuine) if independent == "pairs" else 120
        assert found.point.true_match_interval == pytest.approx(
            rate_interval(np.mean(of) * trials, trials)
        )
    counts = [promise.independent_pairs for promise in expected.values()]
    assert counts == sorted(counts)


def test_people_who_are_seen_often_weigh_no_more_than_others():
    # Person 1 is seen 10 times and always recognised, person 2 twice and never.
    vectors = np.array([[1.0, 0, 0]] * 10 + [[0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5]])
    features = Features.from_arrays(vectors, [1] * 10 + [2, 2, 3])
    exact = decide(features, 0.99, independent="identities")
    assert (exact.point.true_match_rate, exact.point.genuine_identities) == (0.5, 2)
    assert decide(features, 0.5, independent="pairs").point.true_match_rate == 45 / 46


def test_a_decision_is_the_same_again_and_another_with_another_seed():
    features = people()
    assert decide(features, 0.05) == decide(features, 0.05)
    assert decide(features, 0.05, seed=1).threshold != decide(features, 0.05).threshold


@pytest.mark.parametrize("independent", ["identities", "estimated", "pairs"])
def test_a_decision_survives_json(independent):
    found = decide(people(), 0.05, independent=independent, per_camera_pair=True)
    again = Decision.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    assert again == found
    assert found.camera_pairs
    values = np.linspace(-1, 1, 9)
    np.testing.assert_array_equal(again.same(values), found.same(values))
    np.testing.assert_array_equal(again.probability(values), found.probability(values))


@pytest.mark.parametrize("plain", [{}, {"threshold": 1}, {"true_match_interval": [1]}])
def test_what_is_no_decision_is_refused(plain):
    with pytest.raises(ValueError, match="not a decision"):
        Decision.from_dict(plain)


def test_probabilities_and_answers_keep_the_shape_they_are_asked_in():
    found = decide(people(), 0.05)
    values = np.array([[-0.5, 0.0, 0.5], [0.7, 0.9, 1.0]])
    assert found.same(values).shape == found.probability(values).shape == (2, 3)
    assert found.same(values).dtype == bool
    assert (np.diff(found.probability(values.ravel())) >= 0).all()
    assert found.probability(0.9, prior=0.5) > found.probability(0.9)


def test_every_two_cameras_have_a_threshold_of_their_own_or_that_of_all():
    random = np.random.default_rng(0)
    pids = np.repeat(np.arange(1, 161), 4)
    cameras = np.tile([0, 1, 0, 1], 160)
    cameras[(pids <= 10) & (np.arange(640) % 2 == 0)] = 2  # camera 3 has seen ten people
    vectors = random.normal(size=(161, 12))[pids] + 0.5 * random.normal(size=(640, 12))
    features = Features.from_arrays(vectors, pids, cameras)
    found = decide(features, 0.05, per_camera_pair=True)
    assert set(found.camera_pairs) == {(0, 1)}
    part = np.flatnonzero(cameras < 2)
    alone = Features(features.vectors[part], tuple(features.samples[i] for i in part))
    assert found.threshold_between(1, 0) == decide(alone, 0.05).threshold
    assert found.threshold_between(0, 2) == found.threshold_between(7, 8) == found.threshold
    text = found.text()
    assert f"cameras 1 and 2: from {found.threshold_between(0, 1):.4f}" in text
    assert "there are too few of the cameras: 1 and 3, 2 and 3" in text


def test_more_missing_camera_pairs_than_anybody_reads_are_counted():
    found = decide(people(cameras=30, images=2), 0.1, per_camera_pair=True)
    assert not found.camera_pairs
    assert "1 and 2, 1 and 3, 1 and 4, 1 and 5, 1 and 6, 1 and 7 and 429 more" in found.text()


def test_the_text_says_what_was_done_and_what_it_rests_on():
    text = decide(people(), 0.05).text()
    assert "same identity from a similarity (cosine) of 0." in text
    assert "false matches: promised 5 %, at most" in text
    assert "from 60 pairs that share no identity" in text
    assert "360 genuine pairs of 120 identities" in text
    assert "only pairs of different cameras count" in text
    assert "the prior is the share of genuine pairs" in text
    other = decide(people(cameras=1), 0.05, independent="pairs", prior=0.5).text()
    assert "as if they were independent: too good" in other
    assert "all features are of one camera" in other
    assert "prior 0.5;" in other and "the prior is the share" not in other
    assert "an estimate, no guarantee" in decide(people(), 0.05, independent="estimated").text()
    assert "minus the Euclidean distance" in decide(people(), 0.05, metric="euclidean").text()


def test_a_sample_of_the_pairs_is_told_as_such():
    whole, part = decide(people(), 0.05), decide(people(), 0.05, budget=1000)
    assert "drawn from" not in whole.text()
    assert f"impostor pairs were drawn from {whole.point.impostor_pairs:,} (seed 0)" in part.text()
    assert part.point.impostor_pairs < 1000 < whole.point.impostor_pairs
    # The exact threshold and the prior do not depend on how many pairs were looked at.
    assert part.threshold == whole.threshold
    assert part.calibration.prior == whole.calibration.prior


def test_unknown_people_and_distractors_are_told():
    features = people(first=-1)
    text = decide(features, 0.05).text()
    assert "3 features with pid -1 are left out" in text
    assert "pid 0 is taken for distractors" in text
    assert "354 genuine pairs of 118 identities" in text


def test_a_threshold_that_nobody_reaches_is_told():
    collapsed = Features.from_arrays(np.ones((240, 4)), np.arange(240) // 2)
    nobody = decide(collapsed, 0.05)
    assert not nobody.same(1.0)
    assert "no genuine pair reaches this threshold: it calls nobody the same" in nobody.text()
    assert "all pairs are equally similar: nothing here tells anybody apart" in nobody.text()


@pytest.mark.parametrize(
    "features, settings, words",
    [
        (people(1000, 1), {}, "no genuine pair: no identity has two pictures of different cameras"),
        (
            people(60, 1, cameras=1),
            {},
            "no genuine pair: no identity has two pictures; a threshold",
        ),
        (people(60), {"across_cameras": True, "prior": 1.0}, "prior = 1.0: expected a fraction"),
        (people(60, cameras=1), {"across_cameras": True}, "all items come from camera 1"),
        (people(60, cameras=1), {"per_camera_pair": True}, "at least two cameras; here is one"),
        (people(60), {"independent": "images"}, "independent = 'images'; known: identities"),
        (people(60), {"confidence": 1.0}, "confidence = 1.0"),
        (people(60), {"budget": 0}, "budget = 0"),
        (people(60), {"metric": "l2"}, "unknown metric 'l2'"),
        (people(1), {}, "1 identities"),
    ],
)
def test_features_that_decide_nothing_are_refused_with_a_sentence(features, settings, words):
    with pytest.raises(ValueError, match=words):
        decide(features, 0.1, **settings)


def test_one_person_and_distractors_make_a_single_pair_that_shares_nobody():
    # Person 1 in two cameras, and two distractors: one pair of identities, twice photographed.
    features = Features.from_arrays(np.eye(4), [1, 1, 0, 0], [0, 1, 0, 0])
    assert len(PairSource(features).impostors(9)) == 2
    with pytest.raises(TooFewPairs, match=r"here are 1 such pairs; 0\.95 is possible"):
        decide(features, 0.1)


@pytest.mark.parametrize(
    "independent, words",
    [
        ("identities", "so 5,990 identities; here are 60 such pairs; 0.0488 is possible"),
        ("estimated", "2,995 independent impostor pairs; these are worth"),
        ("pairs", "needs 2,995 impostor pairs; here are"),
    ],
)
def test_too_few_people_for_a_promise_are_told_what_can_be_promised(independent, words):
    features = people(120 if independent == "identities" else 20)
    with pytest.raises(TooFewPairs, match=words):
        decide(features, 0.001, independent=independent)
