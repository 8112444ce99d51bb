"""Found labels against identities and by themselves: numbers by hand and slow twins."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import silhouette_samples

from reidkit.evaluation import label_quality, pairs_quality, pairwise, silhouettes

nan = math.nan
NOBODY = np.empty((0, 2), np.int64)


def share(part, whole):
    return part / whole if whole else nan


def slow_pairwise(labels, pids):
    """Precision, recall and F over all pairs of samples, and purity."""
    known = [i for i, pid in enumerate(pids) if pid >= 0]
    told = true = right = 0
    for i, j in combinations(known, 2):
        one_label = labels[i] == labels[j] != -1
        one_identity = pids[i] == pids[j]
        told, true = told + one_label, true + one_identity
        right += one_label and one_identity
    precision, recall = share(right, told), share(right, true)
    f1 = nan
    if told or true:
        f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    labelled = [i for i in known if labels[i] >= 0]
    groups = {labels[i]: [pids[j] for j in labelled if labels[j] == labels[i]] for i in labelled}
    best = sum(max(group.count(pid) for pid in group) for group in groups.values())
    return precision, recall, f1, share(best, len(labelled))


def slow_matches(matches, pids, camids):
    """Precision and recall; the largest one-to-one set of right matches by trying all."""
    pairs = {tuple(sorted(pair)) for pair in matches}
    judged = [(i, j) for i, j in pairs if pids[i] >= 0 and pids[j] >= 0]
    right = [(i, j) for i, j in judged if pids[i] == pids[j]]
    found = possible = 0
    for a, b in combinations(sorted(set(camids) - {-1}), 2):
        edges = [pair for pair in right if {camids[pair[0]], camids[pair[1]]} == {a, b}]
        found += max(
            size
            for size in range(len(edges) + 1)
            for chosen in combinations(edges, size)
            if len({end for edge in chosen for end in edge}) == 2 * size
        )
        for pid in set(pids) - {-1}:
            sizes = [
                sum(p == pid and c == cam for p, c in zip(pids, camids, strict=True))
                for cam in (a, b)
            ]
            possible += min(sizes)
    return share(len(right), len(judged)), share(found, possible)


def slow_silhouettes(vectors, labels):
    """Rousseeuw's formula, distance by distance."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    values = np.zeros(len(labels))
    for i, own in enumerate(labels):
        means = {
            name: np.mean(
                [1 - units[i] @ units[j] for j in np.flatnonzero(labels == name) if j != i]
            )
            for name in set(labels) - {-1}
            if any(j != i for j in np.flatnonzero(labels == name))
        }
        if own in means and len(means) > 1:
            a, b = means.pop(own), min(means.values())
            values[i] = (b - a) / max(a, b)
    return values


def test_pairs_worked_by_hand():
    # Label 0 holds identities 7 7 8, label 1 holds 8 8; one 7 is left out, one is unknown.
    # Pairs told: 3 + 1 = 4, right 1 + 1 = 2. True pairs: of three 7s 3, of three 8s 3.
    quality = pairwise([0, 0, 0, 1, 1, -1, 1], [7, 7, 8, 8, 8, 7, -1])
    assert quality.precision == 2 / 4
    assert quality.recall == 2 / 6
    assert quality.f1 == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert quality.purity == 4 / 5
    assert (quality.identities, quality.true_identities) == (2, 2)
    assert quality.left_out == 1 / 6


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), min_size=1, max_size=25).filter(
        lambda rows: any(pid >= 0 for _, pid in rows)
    )
)
def test_pairs_equal_the_double_loop(rows):
    labels, pids = zip(*rows, strict=True)
    found = pairwise(torch.tensor(labels), np.array(pids))
    expected = slow_pairwise(labels, pids)
    assert (found.precision, found.recall, found.f1, found.purity) == pytest.approx(
        expected, nan_ok=True
    )


def test_labels_that_are_the_identities_under_other_names_are_perfect():
    quality = pairwise([5, 5, 0, 0, 9], [1, 1, 2, 2, 3])
    assert (quality.precision, quality.recall, quality.f1, quality.purity) == (1, 1, 1, 1)


def test_without_a_pair_precision_is_nan_and_without_labels_purity_too():
    alone = pairwise([0, 1, 2], [4, 4, 5])
    assert math.isnan(alone.precision) and (alone.recall, alone.f1, alone.purity) == (0, 0, 1)
    nothing = pairwise([-1, -1], [4, 4])
    assert math.isnan(nothing.purity) and (nothing.left_out, nothing.identities) == (1, 0)
    distinct = pairwise([0, 1], [4, 5])
    assert math.isnan(distinct.recall) and math.isnan(distinct.f1)


def test_a_hundred_thousand_samples_are_counted_in_a_table():
    pids = np.arange(100_000) // 50_000
    quality = pairwise(np.zeros(100_000, np.int64), pids)
    assert quality.recall == 1
    assert quality.precision == (50_000 * 49_999) / (100_000 * 99_999 / 2)


@pytest.mark.parametrize(
    "labels, pids, words",
    [
        ([0, 1], [0], r"2 labels for 1 pids"),
        ([0, 1], [-1, -1], r"none of 2 samples has an identity"),
        ([], [], r"none of 0 samples has an identity"),
        ([0.5], [1], r"labels must be integers, got float64"),
        ([[0]], [1], r"labels have shape \(1, 1\), expected \(N,\)"),
    ],
)
def test_labels_that_cannot_be_judged_are_refused(labels, pids, words):
    with pytest.raises(ValueError, match=words):
        pairwise(labels, pids)


def test_matches_worked_by_hand():
    # Identity 1: two samples in camera 0, one in camera 1, one in camera 2: 1 + 1 + 1 can be found.
    # Identity 2: one in camera 0 and one in camera 1: 1. Of these four, (0, 2) and (4, 5) are.
    pids, camids = [1, 1, 1, 1, 2, 2], [0, 0, 1, 2, 0, 1]
    quality = pairs_quality([[0, 2], [5, 4], [3, 5]], pids, camids)
    assert quality.precision == pytest.approx(2 / 3)
    assert quality.recall == pytest.approx(2 / 4)


def test_matching_everybody_with_everybody_finds_no_more_than_there_is():
    pids, camids = [1] * 4, [0, 0, 1, 1]
    everything = [[0, 2], [0, 3], [1, 2], [1, 3], [3, 1]]
    assert pairs_quality(everything, pids, camids) == (1, 1)
    assert pairs_quality([[0, 2], [0, 3]], pids, camids) == (1, 1 / 2)


def test_unknown_identities_and_cameras_and_pairs_of_one_camera_find_nothing():
    assert pairs_quality([[0, 1]], [-1, 3], [0, 1]) == pytest.approx((nan, nan), nan_ok=True)
    quality = pairs_quality([[0, 1], [0, 2]], [3, 3, 3, 3], [0, 0, -1, 1])
    assert quality == (1, 0)
    assert pairs_quality(NOBODY, [3, 3], [0, 1]) == pytest.approx((nan, 0), nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_matches_equal_all_that_can_be_tried(data):
    count = data.draw(st.integers(2, 9))
    draw = lambda low, high: data.draw(  # noqa: E731
        st.lists(st.integers(low, high), min_size=count, max_size=count)
    )
    pids, camids = draw(-1, 2), draw(-1, 2)
    place = st.integers(0, count - 1)
    pair = st.tuples(place, place).filter(lambda ends: ends[0] != ends[1])
    matches = data.draw(st.lists(pair, max_size=8))
    found = pairs_quality(np.array(matches, np.int64).reshape(-1, 2), pids, camids)
    assert found == pytest.approx(slow_matches(matches, pids, camids), nan_ok=True)


@pytest.mark.parametrize(
    "matches, words",
    [
        ([[0, 0]], r"name sample 0 with itself"),
        ([[0, 5]], r"positions 0 to 5; expected within the 2 samples"),
        ([[-1, 1]], r"positions -1 to 1"),
        ([[0, 1, 1]], r"matches of shape \(1, 3\)"),
        ([0, 1], r"matches have shape \(2,\), expected \(M, 2\)"),
    ],
)
def test_matches_that_are_none_are_refused(matches, words):
    with pytest.raises(ValueError, match=words):
        pairs_quality(matches, [1, 1], [0, 1])


def test_pids_and_camids_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"2 pids, 1 camids"):
        pairs_quality(NOBODY, [1, 1], [0])


@pytest.mark.parametrize("seed", range(3))
def test_silhouettes_equal_the_double_loop(clustered, seed, monkeypatch):
    monkeypatch.setattr(label_quality, "BLOCK_NUMBERS", 20)
    vectors, labels = clustered(5, 6, 4, seed=seed, noise=1.0)
    labels[::7] = -1
    labels[3] = 11
    found = silhouettes(vectors.float(), labels * 3)
    expected = slow_silhouettes(vectors.float().double().numpy(), labels.numpy())
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)
    assert found.dtype == torch.float64 and (found[labels < 0] == 0).all() and found[3] == 0


def test_silhouettes_are_those_of_scikit_learn(clustered):
    vectors, labels = clustered(6, 5, 8, noise=0.8)
    expected = silhouette_samples(vectors.numpy(), labels.numpy(), metric="cosine")
    np.testing.assert_allclose(silhouettes(vectors, labels).numpy(), expected, atol=1e-9)


def test_the_true_identities_have_a_better_silhouette_than_halves_or_couples_of_them(clustered):
    vectors, labels = clustered(8, 10, 32)
    halves = labels * 2 + torch.arange(80) % 2
    mean = {
        name: float(silhouettes(vectors, found).mean())
        for name, found in (("true", labels), ("halves", halves), ("couples", labels // 2))
    }
    assert mean["true"] > max(mean["halves"], mean["couples"])


def test_pairs_of_noise_have_no_silhouette(clustered):
    vectors, _ = clustered(1, 400, 64, noise=1e6)
    assert float(silhouettes(vectors, torch.arange(400) // 2).mean()) < 0


def test_copies_in_two_clusters_and_zero_vectors_are_at_0():
    vectors = torch.full((4, 3), 0.1)
    assert silhouettes(vectors, torch.tensor([0, 0, 1, 1])).tolist() == [0] * 4
    assert silhouettes(torch.zeros(4, 3), torch.tensor([0, 0, 1, 1])).tolist() == [0] * 4


def test_one_cluster_no_cluster_and_no_sample_are_at_0():
    vectors = torch.randn(3, 2)
    assert silhouettes(vectors, torch.zeros(3, dtype=torch.int64)).tolist() == [0] * 3
    assert silhouettes(vectors, torch.full((3,), -1)).tolist() == [0] * 3
    assert len(silhouettes(torch.empty(0, 2), torch.empty(0, dtype=torch.int64))) == 0


@pytest.mark.parametrize(
    "vectors, labels, words",
    [
        (torch.zeros(2, 3), [0], r"shape \(2, 3\) and torch.float32 for 1 labels"),
        (torch.zeros(2, 3, dtype=torch.int64), [0, 0], r"torch.int64 for 2 labels"),
        (torch.zeros(2), [0, 0], r"shape \(2,\)"),
        (torch.tensor([[0.0], [nan]]), [0, 0], r"the vector of sample 1 is not finite"),
    ],
)
def test_vectors_that_have_no_silhouette_are_refused(vectors, labels, words):
    with pytest.raises(ValueError, match=words):
        silhouettes(vectors, labels)
