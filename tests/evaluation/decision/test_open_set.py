"""Who is it, and is it anybody we know: worked by hand, and against the loop."""

import json

import numpy as np
import pytest
import torch

from reidkit.evaluation.decision.open_set import identify, open_set
from reidkit.types import Features

# On a line: people 1, 2, 3 at 0, 10, 20.
GALLERY = Features.from_arrays(np.array([[0.0], [10], [20]]), [1, 2, 3])
# Person 1 at a distance of 0.5, person 2 at 1; person 3 is nearer to person 2. Strangers at
# distances of 2, 4, 10, 20.
QUERY = Features.from_arrays(
    np.array([[0.5], [11], [12], [2], [14], [30], [40]]), [1, 2, 3, 7, 7, 8, 9]
)


def on_the_line(rates, query=QUERY, gallery=GALLERY):
    return open_set(query, gallery, "no_camera", rates, metric="euclidean")


def test_detection_at_a_false_alarm_rate_worked_by_hand():
    # One of four strangers may alarm: the threshold lies just above the second's -4. The alarm is
    # the one at -2. Of three known people two are found, the third is taken for another.
    found = on_the_line([0.25, 0.5, 0.49])
    quarter, half, below = found.points
    assert (found.mated, found.nonmated) == (3, 4)
    assert quarter.threshold == np.nextafter(-4, 0)
    assert (quarter.false_alarm, quarter.detection) == (0.25, pytest.approx(2 / 3))
    assert (half.threshold, half.false_alarm) == (np.nextafter(-10, 0), 0.5)
    assert below == type(below)(0.49, *[getattr(quarter, n) for n in quarter.__slots__[1:]])


def test_a_right_answer_below_the_threshold_is_not_detected():
    near = Features.from_arrays(np.array([[0.1], [10.1], [20.1], [30]]), [7, 7, 7, 7])
    query = Features.from_arrays(np.array([[0.05], [10.5]]), [1, 2])
    both = Features(torch.cat([query.vectors, near.vectors]), (*query.samples, *near.samples))
    # Strangers at 0.1, 0.1, 0.1 and 10: with one in four the threshold is just above -0.1.
    (point,) = on_the_line([0.25], both).points
    assert point.false_alarm <= 0.25  # tied strangers fall below together
    assert point.detection == 0.5


def test_a_tie_with_a_wrong_item_is_no_detection():
    gallery = Features.from_arrays(np.array([[0.0], [0]]), [1, 2])
    query = Features.from_arrays(np.array([[0.0], [5], [6]]), [1, 8, 9])
    assert on_the_line([0.5], query, gallery).points[0].detection == 0


def test_one_stranger_in_ten_is_ten_percent():
    query = Features.from_arrays(np.arange(11.0)[:, None], [1] + [9] * 10)
    gallery = Features.from_arrays(np.array([[0.0]]), [1])
    assert [on_the_line([r], query, gallery).points[0].false_alarm for r in (0.1, 0.3, 0.7)] == [
        0.1,
        0.3,
        0.7,
    ]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("protocol", ["market1501", "no_camera"])
@pytest.mark.parametrize("seed", range(3))
def test_open_set_equals_the_double_loop(metric, protocol, seed):
    random = np.random.default_rng(seed)
    centres = random.normal(size=(40, 6))
    pids = random.integers(0, 40, 150), random.integers(0, 20, 80)
    sides = [
        Features.from_arrays(
            centres[p] + 0.4 * random.normal(size=(len(p), 6)), p, random.integers(0, 3, len(p))
        )
        for p in pids
    ]
    found = open_set(*sides, protocol, [0.1, 0.4], metric=metric)
    alarms, rights = [], []
    for x, a in zip(sides[0].vectors.numpy(), sides[0].samples, strict=True):
        right, wrong = [-np.inf], [-np.inf]
        for y, b in zip(sides[1].vectors.numpy(), sides[1].samples, strict=True):
            if protocol == "market1501" and (a.pid, a.camid) == (b.pid, b.camid):
                continue
            cosine = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
            similarity = cosine if metric == "cosine" else -np.linalg.norm(x - y)
            (right if a.pid == b.pid else wrong).append(similarity)
        if max(right) == -np.inf:
            alarms.append(max(wrong))
        else:
            rights.append(max(right) if max(right) > max(wrong) else -np.inf)
    assert (found.mated, found.nonmated) == (len(rights), len(alarms))
    for point in found.points:
        lower = point.threshold - 1e-9
        assert point.false_alarm == pytest.approx(np.mean(np.array(alarms) > lower + 2e-9))
        assert point.detection == pytest.approx(np.mean(np.array(rights) > lower))
        # The lowest such threshold: the next stranger would be one too many.
        assert np.mean(np.array(alarms) >= lower) > point.rate


def test_an_open_set_prints_and_goes_into_json():
    found = on_the_line([0.25])
    assert "3 queries are in the gallery, 4 not" in found.table()
    assert "66.67%" in found.table()
    assert json.loads(json.dumps(found.to_dict()))["points"][0]["rate"] == 0.25


@pytest.mark.parametrize(
    "rates, words",
    [
        ([0.2], "needs 5 queries that are not in the gallery; here are 4, enough for 0.25"),
        ([0.0], "false-alarm rate 0.0: expected a fraction"),
        ([1], "false-alarm rate 1: expected a fraction"),
        ([], "no false-alarm rate"),
    ],
)
def test_rates_that_the_strangers_cannot_tell_are_refused(rates, words):
    with pytest.raises(ValueError, match=words):
        on_the_line(rates)


def test_without_strangers_or_without_acquaintances_nothing_is_said():
    known = Features(QUERY.vectors[:3], QUERY.samples[:3])
    with pytest.raises(ValueError, match="needs some that have none"):
        on_the_line([0.5], known)
    strangers = Features(QUERY.vectors[3:], QUERY.samples[3:])
    with pytest.raises(ValueError, match="no query has a right answer"):
        on_the_line([0.5], strangers)


def test_identify_names_the_nearest_or_nobody():
    gallery = Features.from_arrays(np.array([[0.0], [9.9], [10], [20]]), [1, -1, 2, 3])
    query = Features.from_arrays(np.array([[0.5], [9.9], [14]]), [-1, -1, -1])
    answers = identify(query, gallery, -1.0, metric="euclidean")
    assert [answer.pid for answer in answers] == [1, 2, None]  # junk at 9.9 answers nothing
    assert [answer.item for answer in answers] == [0, 2, 2]
    np.testing.assert_allclose([answer.similarity for answer in answers], [-0.5, -0.1, -4])


def test_identify_is_inclusive_and_a_cosine_by_default():
    gallery = Features.from_arrays(np.array([[2.0, 0], [0, 3]]), [4, 5])
    query = Features.from_arrays(np.array([[7.0, 0], [1, 1.001]]), [-1, -1])
    assert [answer.pid for answer in identify(query, gallery, 1.0)] == [4, None]
    assert [answer.pid for answer in identify(query, gallery, 0.7)] == [4, 5]


def test_identify_keeps_the_false_alarms_of_the_open_set():
    (point,) = on_the_line([0.25]).points
    strangers = Features(QUERY.vectors[3:], QUERY.samples[3:])
    answers = identify(strangers, GALLERY, point.threshold, metric="euclidean")
    assert [answer.pid for answer in answers] == [1, None, None, None]


def test_identify_refuses_a_gallery_of_nobody_and_a_threshold_of_nothing():
    with pytest.raises(ValueError, match="holds no identity"):
        identify(QUERY, Features.from_arrays(np.ones((2, 1)), [-1, -1]), 0.5)
    with pytest.raises(ValueError, match="threshold is NaN"):
        identify(QUERY, GALLERY, float("nan"))
