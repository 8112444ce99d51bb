"""Clusters of sparse Jaccard distances: those of the dense matrix, and none that is forbidden."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import DBSCAN, HDBSCAN

from reidkit.evaluation import jaccard_distance
from reidkit.types import Features
from reidkit.unsupervised.clustering import cluster, joined, numbered
from reidkit.unsupervised.constraints import CannotLink
from tests.evaluation.reranking.test_rerank import dense, densely

SMALL = {"k1": 8, "k2": 3}


def features(vectors):
    return Features.from_arrays(torch.as_tensor(vectors).float(), np.arange(len(vectors)))


@pytest.fixture
def people(clustered):
    """Features of six people with eight samples each, and who they are."""
    vectors, labels = clustered(6, 8, 16, noise=0.4)
    return features(vectors), labels.numpy()


def constraint(count, pairs=(), groups=None):
    everybody = np.full(count, -1) if groups is None else np.asarray(groups)
    return CannotLink(everybody, np.array(pairs, np.int64).reshape(-1, 2))


def same_partition(first, second):
    return (numbered(first) == numbered(second)).all()


@pytest.mark.parametrize("method", ["dbscan", "hdbscan"])
def test_people_who_lie_apart_are_the_clusters(people, method):
    items, truth = people
    found = cluster(items, method=method, k1=8, k2=1)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, truth)


@pytest.mark.parametrize("noise", [0.5, 0.9, 1.3])
@pytest.mark.parametrize("eps, min_samples", [(0.6, 4), (0.45, 1), (0.4, 2)])
def test_dbscan_gives_the_labels_of_the_dense_matrix(clustered, noise, eps, min_samples):
    vectors, _ = clustered(15, 8, 8, noise=noise)
    found = cluster(features(vectors), eps=eps, min_samples=min_samples, k1=10, k2=3)
    matrix, _ = dense(vectors.float().numpy(), 10, 3)
    search = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed")
    np.testing.assert_array_equal(found, numbered(search.fit_predict(matrix.clip(0))))


@pytest.mark.slow
def test_1500_samples_give_the_dense_distances_and_labels(clustered):
    vectors, _ = clustered(75, 20, 64, noise=1.5)
    items = features(vectors)
    matrix, _ = dense(vectors.float().numpy(), 30, 6)
    np.testing.assert_allclose(densely(jaccard_distance(items, k1=30, k2=6)), matrix, atol=1e-5)
    search = DBSCAN(eps=0.6, min_samples=4, metric="precomputed")
    np.testing.assert_array_equal(cluster(items), numbered(search.fit_predict(matrix.clip(0))))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [0.5, 0.9, 1.3])
@pytest.mark.parametrize("min_samples", [1, 2, 4, 7])
def test_hdbscan_gives_the_clusters_of_the_dense_matrix(clustered, seed, noise, min_samples):
    vectors, _ = clustered(12, 8, 8, seed=seed, noise=noise)
    # Averaged weights (k2) have many pairs at exactly one distance, and then any order is right.
    settings = {"k1": 8, "k2": 1}
    items = features(vectors)
    matrix = densely(jaccard_distance(items, **settings, within=0.9)).astype(np.float64)
    core = np.sort(matrix, axis=1)[:, min_samples - 1]
    reach = np.maximum(np.maximum(matrix, core), core[:, None])
    # No ties: of pairs that reach each other at one distance the nearer goes first, and of those
    # at 1 the ones that are no cluster go last.
    component = connected_components(reach < 1)[1]
    small = np.bincount(component)[component] < max(2, min_samples)
    reach = np.where(reach < 1, reach + 1e-9 * matrix, 1 + 1e-9 * (small | small[:, None]))
    np.fill_diagonal(reach, 0)
    search = HDBSCAN(
        min_cluster_size=max(2, min_samples), min_samples=1, metric="precomputed", copy=True
    )
    found = cluster(items, method="hdbscan", min_samples=min_samples, **settings)
    np.testing.assert_array_equal(found, numbered(search.fit_predict(reach)))


def test_hdbscan_finds_people_who_share_no_neighbour_with_anybody_else(clustered):
    vectors, labels = clustered(3, 9, 16, noise=0.05)
    loner = -vectors.sum(0, keepdim=True)
    found = cluster(features(torch.cat([loner, vectors])), method="hdbscan", k1=8, k2=1)
    np.testing.assert_array_equal(found, [-1, *labels])


@pytest.mark.parametrize("method", ["dbscan", "hdbscan"])
def test_copies_are_one_cluster(method):
    vectors = np.repeat(np.eye(3), 6, axis=0)
    found = cluster(features(vectors), method=method, k1=5, k2=2)
    np.testing.assert_array_equal(found, np.arange(18) // 6)


@pytest.mark.parametrize("method", ["dbscan", "hdbscan"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_samples_are_outliers(method, count):
    found = cluster(features(np.eye(4)[:count]), method=method)
    np.testing.assert_array_equal(found, [-1] * count)


@pytest.mark.parametrize("method", ["dbscan", "hdbscan"])
def test_permuted_samples_have_permuted_clusters(clustered, method):
    vectors, _ = clustered(10, 8, 16, noise=0.6)
    order = np.random.default_rng(0).permutation(len(vectors))
    settings = {"method": method, "min_samples": 3, **SMALL}
    straight = cluster(features(vectors), **settings)
    assert same_partition(cluster(features(vectors[order]), **settings), straight[order])


def test_clusters_are_numbered_by_their_first_sample():
    np.testing.assert_array_equal(numbered(np.array([-1, 7, 3, -1, 7, 0])), [-1, 0, 1, -1, 0, 2])


def test_joined_makes_the_first_merges_and_no_more():
    merges = np.array([[1, 3], [0, 4], [2, 5]])
    for count, expected in enumerate(([0, 1, 2, 3], [0, 1, 2, 1], [0, 0, 1, 0], [0, 0, 0, 0])):
        np.testing.assert_array_equal(joined(merges, 4, count), expected)


def test_a_forbidden_pair_parts_two_people_who_were_one_cluster(clustered):
    # Two people so alike that they are one cluster; one pair of their samples was seen at once.
    vectors, truth = clustered(2, 8, 16, noise=0.3)
    vectors = vectors[:1] + 0.3 * vectors
    items = features(vectors)
    settings = {"eps": 0.9, "k1": 12, "k2": 6}
    assert set(cluster(items, **settings)) == {0}
    found = cluster(items, **settings, cannot_link=constraint(16, [(0, 15)]))
    np.testing.assert_array_equal(found, truth)


@pytest.mark.parametrize("method", ["dbscan", "hdbscan"])
def test_clusters_without_a_forbidden_pair_stay_as_they_were(people, method):
    items, truth = people
    settings = {"method": method, "k1": 8, "k2": 1}
    groups = np.full(len(truth), -1)
    groups[[1, 9, 17]] = 0  # of three people: nothing to part
    untouched = cluster(items, **settings, cannot_link=constraint(len(truth), [(0, 47)], groups))
    np.testing.assert_array_equal(untouched, truth)
    parted = cluster(items, **settings, cannot_link=constraint(len(truth), [(8, 15)]))
    assert parted[8] != parted[15] or parted[8] == -1
    assert same_partition(parted[truth != 1], truth[truth != 1])


def test_single_samples_left_by_parting_are_outliers_but_for_min_samples_1():
    vectors = np.repeat(np.eye(2), 5, axis=0) + 0.01 * np.random.default_rng(0).normal(size=(10, 2))
    everybody = constraint(10, groups=[0] * 5 + [-1] * 5)
    settings = {"k1": 4, "k2": 1, "cannot_link": everybody}
    few = cluster(features(vectors), min_samples=2, **settings)
    np.testing.assert_array_equal(few, [-1] * 5 + [0] * 5)
    found = cluster(features(vectors), min_samples=1, **settings)
    np.testing.assert_array_equal(found, [0, 1, 2, 3, 4] + [5] * 5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), method=st.sampled_from(["dbscan", "hdbscan"]))
def test_no_cluster_ever_holds_a_forbidden_pair(seed, method):
    generator = np.random.default_rng(seed)
    vectors = np.repeat(generator.normal(size=(4, 6)), 7, axis=0)
    vectors += generator.choice([0.1, 0.5, 1.0]) * generator.normal(size=vectors.shape)
    pairs = generator.integers(28, size=(generator.integers(12), 2))
    limits = constraint(28, pairs[pairs[:, 0] != pairs[:, 1]], generator.integers(-1, 8, size=28))
    found = cluster(features(vectors), method=method, min_samples=2, cannot_link=limits, **SMALL)
    assert limits.broken_by(found) == 0
    np.testing.assert_array_equal(found, numbered(found))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"method": "kmeans"}, r"unknown clusterer 'kmeans'; known: dbscan, hdbscan"),
        ({"eps": 1.0}, r"eps = 1.0: expected a Jaccard distance in \(0, 1\)"),
        ({"eps": 0.0}, r"eps = 0.0"),
        ({"min_samples": 0}, r"min_samples = 0: expected at least 1"),
        ({"k1": 0}, r"k1 = 0"),
        ({"k2": 0}, r"k2 = 0"),
        ({"metric": "manhattan"}, r"manhattan"),
        ({"cannot_link": CannotLink.nothing(3)}, r"is about 3 samples, but there are 48"),
    ],
)
def test_a_wrong_setting_is_refused(people, change, words):
    with pytest.raises(ValueError, match=words):
        cluster(people[0], **change)


def test_no_samples_and_features_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=r"no samples; expected at least one"):
        cluster(features(np.empty((0, 3))))
    with pytest.raises(ValueError, match=r"finite"):
        cluster(features([[1.0, np.nan]] * 5))
