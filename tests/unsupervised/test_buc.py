"""Bottom-up clustering: the merges of a double loop, no order that leaks, and an end."""

import numpy as np
import pytest
import torch

from reidkit.types import Features, Sample
from reidkit.unsupervised import METHODS, Labels, NothingToLearn
from reidkit.unsupervised.buc import BottomUpClustering, squared_distances
from reidkit.unsupervised.clustering import numbered


def features(vectors, spans=None):
    samples = tuple(
        Sample((f"{i}.jpg",), -1, 0, span=None if spans is None else spans[i])
        for i in range(len(vectors))
    )
    return Features(torch.as_tensor(vectors).float(), samples)


def slow_merges(vectors, labels, merges, size_weight, forbidden=()):
    """Labels (N,) after so many merges of the nearest two clusters, each looked for anew."""
    units = np.float64(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    clusters = [list(np.flatnonzero(labels == name)) for name in range(max(labels) + 1)]
    for _ in range(merges):
        best = (np.inf, 0, 0)
        for a in range(len(clusters)):
            for b in range(a + 1, len(clusters)):
                pairs = [(i, j) for i in clusters[a] for j in clusters[b]]
                if any(pair in forbidden or pair[::-1] in forbidden for pair in pairs):
                    continue
                nearest = min(((units[i] - units[j]) ** 2).sum() for i, j in pairs)
                size = len(clusters[a]) + len(clusters[b])
                best = min(best, (nearest + size_weight * size, a, b))
        _, a, b = best
        clusters[a] += clusters.pop(b)
    found = np.empty(len(vectors), np.int64)
    for name, members in enumerate(clusters):
        found[members] = name
    return numbered(found)


def rounds(method, items, count):
    """The labels of so many rounds on the same features."""
    found = []
    for number in range(count):
        found.append(method.label(items, number, found[-1] if found else None))
    return found


@pytest.mark.parametrize("size_weight", [0.0, 0.003, 0.2])
@pytest.mark.parametrize("seed", range(2))
def test_every_round_makes_the_merges_of_the_double_loop(clustered, size_weight, seed):
    vectors, _ = clustered(6, 5, 8, seed=seed, noise=0.9)
    method = BottomUpClustering(merge=0.1, size_weight=size_weight)
    expected = np.arange(30)
    found = rounds(method, features(vectors), 8)
    assert found[0].labels.tolist() == expected.tolist()
    for labels in found[1:]:
        expected = slow_merges(vectors.float().numpy(), expected, 3, size_weight)
        np.testing.assert_array_equal(labels.labels.numpy(), expected)


def test_a_round_goes_on_from_the_clusters_before_on_new_features(clustered):
    vectors, _ = clustered(5, 4, 8, noise=0.5)
    others, _ = clustered(5, 4, 8, seed=9, noise=0.5)
    first = rounds(BottomUpClustering(merge=0.2), features(vectors), 2)[-1]
    second = BottomUpClustering(merge=0.2).label(features(others), 2, first)
    expected = slow_merges(others.float().numpy(), first.labels.numpy(), 4, 0.003)
    np.testing.assert_array_equal(second.labels.numpy(), expected)


def test_permuted_samples_have_the_permuted_partition(clustered):
    # The released code began its memory in an order sorted by identity.
    vectors, _ = clustered(8, 5, 16, noise=0.9)
    order = np.random.default_rng(3).permutation(len(vectors))
    straight = rounds(BottomUpClustering(merge=0.1), features(vectors), 9)
    permuted = rounds(BottomUpClustering(merge=0.1), features(vectors[order]), 9)
    for first, second in zip(straight, permuted, strict=True):
        np.testing.assert_array_equal(
            numbered(first.labels.numpy()[order]), numbered(second.labels.numpy())
        )
        assert second.told["silhouette"] == pytest.approx(first.told["silhouette"])


def test_a_larger_weight_keeps_clusters_of_one_size(clustered):
    vectors, _ = clustered(8, 5, 16, noise=0.9)
    free, even = (
        rounds(BottomUpClustering(merge=0.1, size_weight=weight), features(vectors), 8)[-1]
        for weight in (0.0, 1.0)
    )
    assert even.told["largest"] < free.told["largest"]


def test_neighbours_that_are_all_give_what_all_pairs_give(clustered):
    vectors, _ = clustered(6, 5, 8, noise=0.9)
    few, everybody = (
        rounds(BottomUpClustering(merge=0.1, neighbours=number), features(vectors), 8)[-1]
        for number in (29, None)
    )
    assert few.labels.tolist() == everybody.labels.tolist()


def test_samples_seen_at_once_are_never_merged(clustered):
    vectors, _ = clustered(1, 10, 8, noise=0.1)
    spans = [(10.0 * i, 10.0 * i + 5) for i in range(10)]
    spans[1] = spans[2] = spans[0]
    found = rounds(BottomUpClustering(merge=0.1), features(vectors, spans), 9)
    assert len(set(found[-1].labels[:3].tolist())) == 3
    assert found[-1].done and found[-1].told["clusters"] == 3
    forbidden = {(0, 1), (0, 2), (1, 2)}
    expected = slow_merges(vectors.float().numpy(), np.arange(10), 7, 0.003, forbidden)
    np.testing.assert_array_equal(found[-1].labels.numpy(), expected)
    careless = BottomUpClustering(merge=0.1, cannot_link=False)
    assert rounds(careless, features(vectors, spans), 9)[-1].told["clusters"] == 2


def test_what_is_told_is_the_best_silhouette_so_far(clustered):
    vectors, truth = clustered(5, 8, 32, noise=0.4)
    found = rounds(BottomUpClustering(merge=0.125), features(vectors), 8)
    silhouettes = [labels.told["silhouette"] for labels in found]
    best = int(np.argmax(silhouettes))
    assert found[best].labels.tolist() == truth.tolist()
    assert found[0].told == {
        "clusters": 40,
        "largest": 1,
        "silhouette": 0,
        "best_silhouette": 0,
        "best_round": 1,
    }
    assert found[-1].told["best_round"] == best + 1
    assert found[-1].told["best_silhouette"] == max(silhouettes)


def test_the_end_comes_after_as_many_rounds_as_the_share_allows(clustered):
    vectors, _ = clustered(5, 4, 8)
    found = rounds(BottomUpClustering(merge=0.2), features(vectors), 6)
    assert [labels.told["clusters"] for labels in found] == [20, 16, 12, 8, 4, 4]
    assert [labels.done for labels in found] == [False] * 5 + [True]
    assert found[-1].labels.tolist() == found[-2].labels.tolist()


def test_the_end_comes_before_there_are_fewer_clusters_than_asked_for(clustered):
    vectors, _ = clustered(5, 4, 8)
    found = rounds(BottomUpClustering(merge=0.2, stop=9), features(vectors), 4)
    assert [labels.told["clusters"] for labels in found] == [20, 16, 12, 12]
    assert [labels.done for labels in found] == [False, False, False, True]


def test_two_samples_stay_two():
    found = rounds(BottomUpClustering(), features(np.eye(2)), 2)
    assert found[0].classes == 2 and found[1].done and found[1].classes == 2


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_samples_teach_nothing(count):
    with pytest.raises(NothingToLearn, match=rf"{count} samples: nothing to tell apart"):
        BottomUpClustering().label(features(np.ones((count, 3))), 0, None)


def test_labels_of_other_samples_are_refused():
    before = Labels(torch.tensor([0, 1, -1]))
    for items in (np.eye(3), np.eye(4)):
        with pytest.raises(ValueError, match=r"previous labels of 3 samples, 1 of them left out"):
            BottomUpClustering().label(features(items), 1, before)


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"merge": 0}, r"merge = 0: expected the share"),
        ({"merge": 0.7}, r"merge = 0.7"),
        ({"size_weight": -1.0}, r"size_weight = -1.0: expected 0 or more"),
        ({"size_weight": float("nan")}, r"size_weight = nan"),
        ({"stop": 1}, r"stop = 1: expected at least 2"),
        ({"neighbours": 0}, r"neighbours = 0: expected at least 1"),
    ],
)
def test_a_wrong_setting_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        BottomUpClustering(**wrong)


def test_the_registry_builds_it_from_its_signature():
    assert METHODS.build("buc", {"merge": 0.1}).merge == 0.1


def test_squared_distances_are_symmetric_and_hold_the_nearest(clustered):
    vectors, _ = clustered(4, 5, 8)
    units = torch.nn.functional.normalize(vectors, dim=1).numpy()
    squares = ((units[:, None] - units[None]) ** 2).sum(2)
    graph = squared_distances(vectors, 3)
    nearest = np.argsort(squares + 9 * np.eye(20), axis=1)[:, :3]
    expected = np.zeros((20, 20), bool)
    np.put_along_axis(expected, nearest, True, axis=1)
    rows, columns = np.repeat(np.arange(20), np.diff(graph.indptr)), graph.indices
    stored = np.zeros((20, 20), bool)
    stored[rows, columns] = True
    np.testing.assert_array_equal(stored, expected | expected.T)
    np.testing.assert_allclose(graph.data, squares[rows, columns], atol=1e-5)


def test_the_distance_of_copies_is_stored():
    graph = squared_distances(torch.tensor([[1.0, 0], [0, 1], [2, 0]]), 1)
    assert graph.nnz == 4
    np.testing.assert_array_equal(graph.toarray()[1], [2, 0, 0])
