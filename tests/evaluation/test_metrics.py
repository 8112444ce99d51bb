"""Metrics as functions of ranks; numbers worked by hand in the comments."""

import math

import numpy as np
import pytest
import torch

from reidkit.evaluation import average_precision, cmc, inverse_negative_penalty, recall_at
from reidkit.evaluation.metrics import (
    average_precision_at,
    map_at_r,
    metric,
    precision_at,
    r_precision,
)
from reidkit.registry import UnknownName
from reidkit.types import Hits


def hits(*ranks):
    lengths = torch.tensor([0, *map(len, ranks)])
    flat = torch.tensor([r for row in ranks for r in row], dtype=torch.int64)
    queries = len(ranks)
    return Hits(
        flat, lengths.cumsum(0), torch.full((queries,), 20), torch.zeros(queries, dtype=torch.bool)
    )


def slow(name, ranking):
    """The definitions, from a list of booleans: is the answer at this place right?"""
    total = sum(ranking)
    if not total:
        return np.nan
    if name == "mAP trapezoid":
        area, precision, recall = 0.0, 1.0, 0.0
        for place in range(1, len(ranking) + 1):
            now = sum(ranking[:place])
            area += (now / total - recall) * (precision + now / place) / 2
            precision, recall = now / place, now / total
        return area
    kind, _, number = name.partition("@")
    k = {"R": total, "": len(ranking)}.get(number) or int(number)
    if name == "R-precision":
        return sum(ranking[:total]) / total
    if kind == "P":
        return sum(ranking[:k]) / k
    if kind == "R":
        return float(any(ranking[:k]))
    if name == "mINP":
        last = max(place for place in range(1, len(ranking) + 1) if ranking[place - 1])
        return total / last
    found = 0.0
    for place in range(1, min(k, len(ranking)) + 1):
        if ranking[place - 1]:
            found += sum(ranking[:place]) / place
    return found / min(total, k)


NAMES = ("mAP", "mINP", "R-precision", "MAP@R")
NUMBERED = [f"{kind}@{k}" for kind in ("mAP", "P", "R") for k in (1, 3, 10, 40)]


@pytest.mark.parametrize("name", [*NAMES, *NUMBERED, "mAP trapezoid"])
def test_every_metric_equals_the_double_loop(name):
    random = np.random.default_rng(0)
    rankings = [random.random(30) < share for share in np.linspace(0, 1, 25)]
    ranks = hits(*((np.flatnonzero(ranking) + 1).tolist() for ranking in rankings))
    function = metric("mAP", "trapezoid") if name == "mAP trapezoid" else metric(name)
    values = function(ranks)
    assert values.dtype == torch.float64
    np.testing.assert_allclose(values, [slow(name, list(r)) for r in rankings], rtol=1e-13)


def test_average_precision_is_the_mean_precision_at_the_right_answers():
    # Ranks 1 and 3: (1/1 + 2/3) / 2 = 0.833333. Rank 4 alone: 1/4.
    values = average_precision(hits([1, 3], [4]))
    assert values.tolist() == pytest.approx([0.8333333333333333, 0.25], abs=1e-15)


def test_trapezoids_look_one_place_back():
    # Ranks 1 and 3: at 1 (1 + 1)/2, at 3 (1/2 + 2/3)/2 = 7/12; half of each: 19/24 = 0.791667.
    # Rank 4 alone: (0/3 + 1/4)/2 = 1/8. Ranks 1, 2: all 1.
    values = average_precision(hits([1, 3], [4], [1, 2]), "trapezoid")
    assert values.tolist() == pytest.approx([0.7916666666666666, 0.125, 1], abs=1e-15)


def test_inverse_negative_penalty_is_right_answers_over_the_last_rank():
    # Two right answers, the last at rank 3: 2/3.
    assert inverse_negative_penalty(hits([1, 3], [5])).tolist() == pytest.approx([2 / 3, 0.2])


def test_recall_asks_for_the_first_right_answer_only():
    three = hits([1, 9], [2, 3], [7])
    assert recall_at(three, 1).tolist() == [1, 0, 0]
    assert recall_at(three, 2).tolist() == [1, 1, 0]
    assert recall_at(three, 7).tolist() == [1, 1, 1]


def test_cmc_columns_are_recalls():
    three = hits([1, 9], [2, 3], [7])
    curve = cmc(three, 10)
    assert curve.shape == (3, 10)
    for k in range(1, 11):
        assert curve[:, k - 1].equal(recall_at(three, k))


def test_r_precision_and_map_at_r_stop_at_the_number_of_right_answers():
    # R = 3. Ranks 1, 3, 4: two of three inside, 2/3; (1/1 + 2/3) / 3 = 5/9. Ranks 4, 5, 6: none.
    both = hits([1, 3, 4], [4, 5, 6])
    assert r_precision(both).tolist() == pytest.approx([2 / 3, 0])
    assert map_at_r(both).tolist() == pytest.approx([5 / 9, 0])


def test_precision_at_k_counts_empty_places_as_wrong():
    # Two right answers can fill half of four places.
    assert precision_at(hits([1, 2], [4, 5]), 4).tolist() == [0.5, 0.25]


def test_what_is_missed_inside_k_lowers_map_at_k():
    # Right answers at 2 and 9, k = 4: (1/2) / min(4, 2) = 0.25. Dividing by the one inside, as
    # open-metric-learning does, gives 0.5: the same as for a query whose only answer is at 2.
    assert average_precision_at(hits([2, 9], [2]), 4).tolist() == [0.25, 0.5]


def test_map_at_k_of_more_right_answers_than_places_can_be_one():
    # Five right answers, k = 2, both places right: (1 + 1) / min(2, 5) = 1.
    assert average_precision_at(hits([1, 2, 3, 4, 5]), 2).tolist() == [1]


ALL = (*NAMES, "rank-1", "R@3", "mAP@5", "P@1")


@pytest.mark.parametrize("function", [*map(metric, ALL), lambda h: cmc(h, 4)[:, 2]])
def test_a_query_without_a_right_answer_has_no_value_wherever_it_stands(function):
    values = function(hits([], [1], [], [])).tolist()
    assert [math.isnan(v) for v in values] == [True, False, True, True]
    assert values[1] == 1


@pytest.mark.parametrize("name", ALL)
def test_a_perfect_ranking_scores_one(name):
    assert metric(name)(hits([1, 2, 3], [1])).tolist() == [1, 1]


def test_rank_k_and_recall_at_k_are_two_words_for_one_thing():
    some = hits([4, 5], [11], [])
    assert metric("rank-10")(some).nan_to_num(9).equal(metric("R@10")(some).nan_to_num(9))


def test_only_map_knows_two_forms():
    some = hits([1, 3])
    assert metric("mAP", "trapezoid")(some).tolist() == pytest.approx([19 / 24])
    for name in ALL[1:]:
        assert metric(name, "trapezoid")(some).equal(metric(name)(some))


@pytest.mark.parametrize("name", ["rank-0", "rank-", "R@-1", "mAP@R", "map", "P@1.5", "", "NMI"])
def test_an_unknown_score_lists_the_known_ones(name):
    with pytest.raises(UnknownName, match=f"unknown score '{name}'; known: mAP, mINP, R-precision"):
        metric(name)


@pytest.mark.parametrize("name, near", [("rank1", "rank-1"), ("R_precision", "R-precision")])
def test_a_misspelt_score_names_the_nearest(name, near):
    with pytest.raises(UnknownName, match=f"Did you mean '{near}'"):
        metric(name)


def test_an_unknown_form_of_precision_is_refused():
    with pytest.raises(ValueError, match="unknown precision 'simpson'"):
        average_precision(hits([1]), "simpson")


@pytest.mark.parametrize("function", [average_precision_at, precision_at])
def test_no_places_are_refused(function):
    with pytest.raises(ValueError, match="k = 0"):
        function(hits([1]), 0)
