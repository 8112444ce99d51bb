"""Groups of k-means against identities: numbers by hand, and what moves them."""

import math

import numpy as np
import pytest
import torch

from reidkit.evaluation.clustering import nmi
from reidkit.types import Features, Sample

BACKENDS = ["faiss", "sklearn"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param == "faiss":
        pytest.importorskip("faiss")
    return request.param


def features(vectors, pids):
    return Features.from_arrays(torch.as_tensor(vectors), torch.as_tensor(pids))


def slow_nmi(labels, groups):
    def entropy(counts):
        shares = counts[counts > 0] / counts.sum()
        return -(shares * np.log(shares)).sum()

    table = np.zeros((max(labels) + 1, max(groups) + 1))
    for label, group in zip(labels, groups, strict=True):
        table[label, group] += 1
    rows, columns = entropy(table.sum(1)), entropy(table.sum(0))
    return 2 * (rows + columns - entropy(table)) / (rows + columns)


def test_identities_that_lie_apart_score_one(clustered, backend):
    vectors, labels = clustered(6, 5, 16, noise=0.01)
    assert nmi(features(vectors, labels), backend=backend) == pytest.approx(1)


def test_a_misplaced_item_costs_what_the_formula_says(backend):
    # Two far groups of four on a line; one item of identity 1 lies among those of identity 2.
    # Whatever the start, k-means finds the groups {3 of 1} and {1 of 1, 4 of 2}.
    vectors = [[0.0], [0.1], [0.2], [10.0], [10.1], [10.2], [10.3], [10.4]]
    pids = [1, 1, 1, 1, 2, 2, 2, 2]
    expected = slow_nmi([0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1])
    # By hand: H(pids) = ln 2, H(groups) = 0.6616, joint 3/8, 1/8, 4/8: 0.9743; mutual 0.3804.
    assert expected == pytest.approx(2 * 0.3804 / (math.log(2) + 0.6616), abs=1e-4)
    for seed in range(3):
        found = nmi(features(vectors, pids), metric="euclidean", seed=seed, backend=backend)
        assert found == pytest.approx(expected)


def test_noise_scores_low(clustered, backend):
    vectors, labels = clustered(4, 50, 8, noise=100.0)
    assert nmi(features(vectors, labels), backend=backend) < 0.2


def test_one_seed_gives_one_number(clustered, backend):
    vectors, labels = clustered(20, 6, 8, noise=2.0)
    side = features(vectors, labels)
    values = {nmi(side, seed=5, backend=backend) for _ in range(3)}
    assert len(values) == 1
    assert len({nmi(side, seed=seed, backend=backend) for seed in range(6)}) > 1


def test_cosine_does_not_care_about_lengths_and_euclidean_not_about_an_offset(clustered, backend):
    vectors, labels = clustered(5, 6, 8, noise=0.05)
    lengths = torch.arange(1, len(labels) + 1)[:, None] ** 2.0
    assert nmi(features(vectors * lengths, labels), backend=backend) == pytest.approx(1)
    moved = features(vectors.double() + 1e4, labels)
    assert nmi(moved, metric="euclidean", backend=backend) == pytest.approx(1)


def test_the_names_of_identities_and_junk_do_not_matter(clustered, backend):
    vectors, labels = clustered(6, 5, 16, noise=1.0)
    plain = nmi(features(vectors, labels), backend=backend)
    renamed = nmi(features(vectors, 1000 - 7 * labels), backend=backend)
    assert renamed == pytest.approx(plain)
    junk = features(torch.cat([vectors, vectors[:3]]), torch.cat([labels, torch.full((3,), -1)]))
    assert nmi(junk, backend=backend) == pytest.approx(plain)


def test_both_backends_find_the_same_groups(clustered):
    pytest.importorskip("faiss")
    side = features(*clustered(10, 20, 8, noise=0.3))
    found = [nmi(side, backend=backend) for backend in BACKENDS]
    assert 0.7 < found[0] < 1
    assert found[0] == pytest.approx(found[1], abs=0.02)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_a_collapsed_model_has_no_groups(backend):
    assert nmi(features(torch.ones(8, 3), [1, 1, 2, 2, 3, 3, 4, 4]), backend=backend) < 0.6


def test_without_a_choice_faiss_is_taken_where_it_is(clustered):
    pytest.importorskip("faiss")
    vectors, labels = clustered(20, 6, 8, noise=2.0)
    side = features(vectors, labels)
    assert nmi(side) == nmi(side, backend="faiss")


def test_one_identity_is_refused():
    with pytest.raises(ValueError, match="1 identities; groups can be compared from two on"):
        nmi(features(torch.ones(3, 2), [4, 4, -1]))


def test_a_feature_that_is_not_finite_is_refused_by_name():
    vectors = torch.ones(3, 2)
    vectors[2, 1] = torch.nan
    side = Features(vectors, tuple(Sample((f"{n}.jpg",), n - 1) for n in range(3)))
    with pytest.raises(ValueError, match=r"feature 2 \(2.jpg\) is not finite"):
        nmi(side)


@pytest.mark.parametrize(
    "change, words",
    [({"metric": "manhattan"}, "unknown metric"), ({"backend": "cuml"}, "unknown backend")],
)
def test_unknown_words_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        nmi(features(torch.eye(2), [1, 2]), **change)
