"""Metrics as functions of ranks; numbers worked by hand in the comments."""

import math

import pytest
import torch

from reidkit.evaluation import average_precision, cmc, inverse_negative_penalty, recall_at
from reidkit.types import Hits


def hits(*ranks):
    lengths = torch.tensor([0, *map(len, ranks)])
    flat = torch.tensor([r for row in ranks for r in row], dtype=torch.int64)
    queries = len(ranks)
    return Hits(
        flat, lengths.cumsum(0), torch.full((queries,), 20), torch.zeros(queries, dtype=torch.bool)
    )


def test_average_precision_is_the_mean_precision_at_the_right_answers():
    # Ranks 1 and 3: (1/1 + 2/3) / 2 = 0.833333 (trapezoids would give 0.791667). Rank 4 alone: 1/4.
    values = average_precision(hits([1, 3], [4]))
    assert values.tolist() == pytest.approx([0.8333333333333333, 0.25], abs=1e-15)
    assert values.dtype == torch.float64


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


@pytest.mark.parametrize(
    "metric",
    [
        average_precision,
        inverse_negative_penalty,
        lambda h: recall_at(h, 1),
        lambda h: cmc(h, 4)[:, 2],
    ],
)
def test_a_query_without_a_right_answer_has_no_value_wherever_it_stands(metric):
    values = metric(hits([], [1], [], [])).tolist()
    assert [math.isnan(v) for v in values] == [True, False, True, True]
    assert values[1] == 1


@pytest.mark.parametrize("metric", [average_precision, inverse_negative_penalty])
def test_a_perfect_ranking_scores_one(metric):
    assert metric(hits([1, 2, 3], [1])).tolist() == [1, 1]
