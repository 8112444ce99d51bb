"""Cluster-Contrast: labels of a round, what it says of them, and advice where there are none."""

import numpy as np
import pytest
import torch

from reidkit.types import Features, Sample
from reidkit.unsupervised import METHODS, Labels, NothingToLearn
from reidkit.unsupervised.cluster_contrast import ClusterContrast
from reidkit.unsupervised.clustering import cluster

NOISE = np.random.default_rng(0).normal(size=(20, 64))


def features(vectors, spans=None):
    samples = tuple(
        Sample((f"{i}.jpg",), -1, 0, span=None if spans is None else spans[i])
        for i in range(len(vectors))
    )
    return Features(torch.as_tensor(vectors).float(), samples)


@pytest.fixture
def people(clustered):
    """Six people with eight samples each, and who they are."""
    vectors, labels = clustered(6, 8, 16, noise=0.4)
    return vectors, labels


def test_the_registry_builds_it_from_its_signature():
    method = METHODS.build("cluster_contrast", {"eps": 0.5, "clusterer": "hdbscan"})
    assert (method.eps, method.clusterer) == (0.5, "hdbscan")


@pytest.mark.parametrize("clusterer", ["dbscan", "hdbscan"])
def test_labels_are_the_clusters_and_are_told(people, clusterer):
    vectors, truth = people
    vectors = torch.cat([vectors, -vectors.sum(0, keepdim=True)])
    found = ClusterContrast(k1=8, k2=1, clusterer=clusterer).label(features(vectors), 0, None)
    assert found.labels.tolist() == [*truth.tolist(), -1]
    assert found.labels.dtype == torch.int64
    assert dict(found.told) == {"clusters": 6, "left_out": 1, "largest": 8}
    assert found.classes == 6 and found.groups is None and not found.done
    assert found.matches.shape == (0, 2)


def test_the_round_and_the_labels_before_make_no_difference(people):
    vectors, _ = people
    method = ClusterContrast(k1=8, k2=3)
    before = Labels(torch.zeros(len(vectors), dtype=torch.int64))
    first, later = (method.label(features(vectors), *given) for given in ((0, None), (7, before)))
    assert first.labels.tolist() == later.labels.tolist()


def test_samples_seen_at_once_are_parted_where_times_are_known_and_wanted(people):
    vectors, truth = people
    spans = [(10.0 * i, 10.0 * i + 5) for i in range(len(vectors))]
    spans[7] = spans[0]
    found = ClusterContrast(k1=8, k2=3).label(features(vectors, spans), 0, None).labels
    assert found[0] != found[7]
    careless = ClusterContrast(k1=8, k2=3, cannot_link=False)
    assert careless.label(features(vectors, spans), 0, None).labels.tolist() == truth.tolist()


def test_labels_are_those_of_cluster(clustered):
    vectors, _ = clustered(20, 6, 8, noise=0.9)
    found = ClusterContrast(eps=0.5, min_samples=2, k1=10, k2=3).label(features(vectors), 0, None)
    expected = cluster(features(vectors), eps=0.5, min_samples=2, k1=10, k2=3)
    np.testing.assert_array_equal(found.labels.numpy(), expected)


@pytest.mark.parametrize(
    "vectors, settings, words",
    [
        (
            NOISE,
            {"k1": 2, "eps": 0.1},
            r"all 20 samples are outliers: no cluster of 4 samples within eps = 0.1; raise eps or "
            r"k1 \(2\), lower min_samples",
        ),
        (
            NOISE[:3],
            {"k1": 2, "clusterer": "hdbscan"},
            r"all 3 samples are outliers: no cluster of 4 samples; raise k1 \(2\), lower",
        ),
        (
            np.ones((9, 3)),
            {},
            r"one cluster of 9 of 9 samples: nothing to push apart; lower eps "
            r"\(0.6\) or k1 \(30\)",
        ),
        (np.ones((1, 3)), {}, r"all 1 samples are outliers"),
        (np.empty((0, 3)), {}, r"no samples to cluster"),
    ],
)
def test_where_nothing_can_be_learned_there_is_advice(vectors, settings, words):
    with pytest.raises(NothingToLearn, match=words):
        ClusterContrast(**settings).label(features(vectors), 0, None)


@pytest.mark.parametrize("wrong", [{"eps": 2.0}, {"min_samples": 0}, {"clusterer": "dbscam"}])
def test_a_wrong_setting_is_refused_before_the_first_round(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        ClusterContrast(**wrong)
