"""From arrays or features to scores, as a user calls it."""

import logging

import numpy as np
import pytest
import torch

from reidkit.evaluation import PROTOCOLS, evaluate, evaluate_arrays, protocol
from reidkit.types import EvalProtocol, Features

# Two queries, a gallery of six on a line (Euclidean): the third query has no right answer.
QUERY = (np.array([[0.0], [10.0], [50.0]]), np.array([1, 2, 9]), np.array([0, 1, 0]))
GALLERY = (
    np.array([[0.5], [1.0], [2.0], [3.0], [9.0], [10.1]]),
    np.array([1, 0, 1, 1, 2, -1]),
    np.array([0, 1, 1, 2, 2, 0]),
)


def scores(**changes):
    q, g = [*QUERY], [*GALLERY]
    for name, value in changes.items():
        side, position = name.split("_")
        (q if side == "query" else g)[int(position)] = value
    return evaluate_arrays(*q, *g, metric="euclidean")


def test_scores_worked_by_hand():
    # Query 0: 0.5 is its own camera: out. 1.0 distractor (wrong), 2.0 right at rank 2, 3.0 right at
    # rank 3: AP = (1/2 + 2/3) / 2 = 7/12, INP = 2/3, rank-1 = 0. Query 1: junk at 10.1 is out, 9.0
    # right at rank 1: AP = INP = rank-1 = 1. Query 2: no right answer, skipped.
    found = scores()
    assert found["mAP"] == pytest.approx((7 / 12 + 1) / 2)
    assert found["mINP"] == pytest.approx((2 / 3 + 1) / 2)
    assert (found["rank-1"], found["rank-5"]) == (0.5, 1.0)
    assert (found.queries, found.skipped, found.tied) == (2, 1, 0)
    assert found.cmc.tolist() == [0.5, 1, 1, 1, 1]  # five candidates at most
    assert "1 without a right answer" in found.table()


def test_arrays_tensors_and_features_agree():
    as_tensors = evaluate_arrays(
        *map(torch.as_tensor, QUERY), *map(torch.as_tensor, GALLERY), metric="euclidean"
    )
    as_features = evaluate(
        Features.from_arrays(*QUERY),
        Features.from_arrays(*GALLERY),
        "market1501",
        metric="euclidean",
    )
    assert dict(as_tensors) == dict(as_features) == dict(scores())


def test_the_protocol_decides_what_is_reported():
    both = Features.from_arrays(torch.eye(4)[[0, 0, 1, 1]], [1, 1, 2, 2])
    assert list(evaluate(both, both, EvalProtocol("itself", ("R@1", "R@3", "mAP")))) == [
        "R@1",
        "R@3",
        "mAP",
    ]
    assert evaluate(both, both, "same_class")["R@1"] == 1


def test_a_collapsed_model_scores_as_badly_as_it_is_and_says_so(caplog):
    # One right answer among 20 at the same place: rank 20, AP 1/20.
    query = Features.from_arrays(torch.ones(1, 4), [1])
    gallery = Features.from_arrays(torch.ones(20, 4), list(range(1, 21)))
    with caplog.at_level(logging.WARNING):
        found = evaluate(query, gallery, "no_camera")
    assert (found["rank-1"], found["rank-10"], found["rank-20"]) == (0, 0, 1)
    assert found["mAP"] == pytest.approx(1 / 20)
    assert found.tied == 1
    assert "collapsed" in caplog.text


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_ordinary_features_raise_no_warning(clustered, caplog, metric):
    vectors, labels = clustered(5, 4, 8)
    side = Features.from_arrays(vectors, labels)
    evaluate(side, side, "same_class", metric=metric)
    assert not caplog.records


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_every_protocol_scores_clustered_features_well_and_noise_badly(clustered, name):
    values = []
    for noise in (0.05, 50.0):
        vectors, labels = clustered(12, 6, 16, noise=noise)
        cameras = torch.arange(len(labels)) % 3
        side = Features.from_arrays(vectors, labels, cameras)
        query = side
        if PROTOCOLS[name].exclude != "itself":
            asked = torch.arange(len(labels)) % 6 == 0
            query = Features.from_arrays(vectors[asked], labels[asked], cameras[asked])
            side = Features.from_arrays(vectors[~asked], labels[~asked], cameras[~asked])
        scores = evaluate(query, side, name)
        assert list(scores) == list(PROTOCOLS[name].report)
        values.append(scores[PROTOCOLS[name].report[0]])
    assert values[0] > 0.99
    assert values[1] < 0.6


@pytest.mark.parametrize(
    "change, words",
    [
        ({"query_0": np.array([[0], [10], [50]])}, "query: .*floating"),
        ({"gallery_0": np.array([[0.5]])}, r"gallery: pids has shape \(6,\), expected \(1,\)"),
        ({"query_1": np.array(["a", "b", "c"])}, "query: pids must be integers"),
        ({"gallery_1": np.array([1.0, 0, 1, 1, 2, -1])}, "gallery: pids must be integers"),
        ({"gallery_2": np.array([0, 1])}, "gallery: camids has shape"),
        ({"query_0": np.array([0.0, 10.0, 50.0])}, "query: .*shape"),
        ({"query_0": np.array([["a"], ["b"], ["c"]])}, "query: "),
        ({"query_0": np.array([[0.0], [np.nan], [50.0]])}, "query feature 1 .*not finite"),
        (
            {"gallery_0": np.array([[0.5], [np.inf], [2], [3], [9], [10]])},
            "gallery feature 1 .*not finite",
        ),
        ({"query_0": np.ones((3, 2))}, "2 dimensions"),
        ({"gallery_1": np.full(6, 77)}, "no query has a right answer"),
        ({"query_2": None}, "needs camids"),
    ],
)
def test_wrong_arrays_are_refused_with_the_side_and_the_reason(change, words):
    with pytest.raises(ValueError, match=words):
        scores(**change)


def test_cameras_may_be_absent_where_nobody_looks_at_them():
    found = evaluate_arrays(*QUERY[:2], None, *GALLERY[:2], None, "no_camera", metric="euclidean")
    assert found["rank-1"] == 1  # 0.5 counts now


def test_a_misspelt_protocol_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'market1501'"):
        protocol("market1051")


def test_an_unknown_score_is_refused_before_anything_is_computed():
    side = Features.from_arrays(torch.full((2, 2), torch.nan), [1, 1])
    with pytest.raises(ValueError, match="unknown score 'rank-0'"):
        evaluate(side, side, EvalProtocol("itself", ("rank-0",)))
