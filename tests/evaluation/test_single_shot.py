"""One random image an identity: the expectation, against every gallery that could be drawn."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidkit.evaluation import single_shot as module
from reidkit.evaluation.single_shot import expected_single_shot
from reidkit.types import EvalProtocol, Features

CAMERA, NOTHING = EvalProtocol("same_camera"), EvalProtocol("nothing")


def features(vectors, pids, camids=None):
    return Features.from_arrays(
        torch.as_tensor(np.asarray(vectors, np.float64)), torch.as_tensor(pids), camids
    )


def drawn(seed, q, g, pids, whole=True):
    random = np.random.default_rng(seed)

    def side(n, lowest):
        values = random.integers(-3, 4, (n, 1)) if whole else random.standard_normal((n, 3))
        return features(values, random.integers(lowest, pids, n), random.integers(0, 2, n))

    return side(q, 1), side(g, -1)


def gap(query, gallery, i, j):
    return float((query.vectors[i] - gallery.vectors[j]).norm())


def drawable(query, gallery, i, exclude):
    """The images of each identity that are left for query i."""
    images = {}
    for j, (pid, cam) in enumerate(
        zip(gallery.pids.tolist(), gallery.camids.tolist(), strict=True)
    ):
        same = pid == query.pids[i] and cam == query.camids[i]
        if pid != -1 and not (exclude == "same_camera" and same):
            images.setdefault(pid, []).append(j)
    return images


def slow_single_shot(query, gallery, exclude, ranks):
    """The mean over all galleries that could be drawn, one query at a time."""
    curves, precisions, counts = [], [], []
    for i, pid in enumerate(query.pids.tolist()):
        images = drawable(query, gallery, i, exclude)
        counts.append(len(images))
        places = []
        if pid in images:
            for chosen in product(*images.values()):
                picture = dict(zip(images, chosen, strict=True))
                right = gap(query, gallery, i, picture.pop(pid))
                places.append(1 + sum(gap(query, gallery, i, j) <= right for j in picture.values()))
        found = np.array(places)
        curves.append([(found <= k).mean() if places else np.nan for k in range(1, ranks + 1)])
        precisions.append((1 / found).mean() if places else np.nan)
    return np.array(curves), np.array(precisions), counts


def test_a_case_worked_by_hand():
    # From 0, identity 1 at 1 or 4, identity 2 at 2 or 3, identity 3 at 5, junk at 0.
    # Right image at 1: rank 1. At 4: identity 2 is before it, identity 3 is not: rank 2.
    # CMC (1/2, 1, 1), AP (1 + 1/2) / 2.
    query = features([[0]], [1])
    gallery = features([[1], [4], [2], [3], [5], [0]], [1, 1, 2, 2, 3, -1])
    found = expected_single_shot(query, gallery, NOTHING, metric="euclidean", ranks=3)
    assert found.cmc.tolist() == [[0.5, 1, 1]]
    assert found.average_precision.tolist() == [0.75]
    assert found.candidates.tolist() == [3]
    assert (found.cmc.dtype, found.average_precision.dtype) == (torch.float64, torch.float64)


def test_the_number_before_is_poisson_binomial():
    # Right image at 2; identity 2 is before it with chance 1/2, identity 3 with 1/3.
    # None: 1/2 2/3 = 1/3; one: 1/2 2/3 + 1/2 1/3 = 1/2; two: 1/6. AP 1/3 + 1/4 + 1/18 = 23/36.
    query = features([[0]], [1])
    gallery = features([[2], [1], [5], [1], [5], [6]], [1, 2, 2, 3, 3, 3])
    found = expected_single_shot(query, gallery, NOTHING, metric="euclidean", ranks=4)
    assert found.cmc[0].tolist() == pytest.approx([1 / 3, 5 / 6, 1, 1], abs=1e-15)
    assert found.average_precision.tolist() == pytest.approx([23 / 36], abs=1e-15)


def test_the_own_camera_leaves_before_anything_is_drawn():
    # Identity 1's image at 1 is from the query's camera: only the one at 4 may be drawn. Those of
    # identity 2 stay, whatever their camera.
    query = features([[0]], [1], [0])
    gallery = features([[1], [4], [2], [3]], [1, 1, 2, 2], [0, 1, 0, 1])
    found = expected_single_shot(query, gallery, CAMERA, metric="euclidean", ranks=2)
    assert found.cmc.tolist() == [[0, 1]]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    q=st.integers(1, 4),
    g=st.integers(1, 12),
    pids=st.integers(2, 6),
    whole=st.booleans(),
    exclude=st.sampled_from(["same_camera", "nothing"]),
    ranks=st.integers(1, 7),
)
def test_the_expectation_equals_the_mean_over_all_galleries(
    seed, q, g, pids, whole, exclude, ranks
):
    query, gallery = drawn(seed, q, g, pids, whole)
    curves, precisions, counts = slow_single_shot(query, gallery, exclude, ranks)
    rules = EvalProtocol(exclude)
    if np.isnan(precisions).all():
        with pytest.raises(ValueError, match="no query has a right answer"):
            expected_single_shot(query, gallery, rules, metric="euclidean", ranks=ranks)
        return
    found = expected_single_shot(query, gallery, rules, metric="euclidean", ranks=ranks)
    np.testing.assert_allclose(found.cmc, curves, atol=1e-12)
    np.testing.assert_allclose(found.average_precision, precisions, atol=1e-12)
    assert found.candidates.tolist() == counts


def test_random_draws_tend_to_the_expectation(clustered):
    vectors, labels = clustered(30, 6, 8, noise=0.8)
    both = Features.from_arrays(vectors, labels + 1, torch.arange(len(labels)) % 2)
    query = Features(both.vectors[::6], both.samples[::6])
    found = expected_single_shot(query, both, CAMERA, metric="euclidean", ranks=5)
    random = np.random.default_rng(0)
    distances = torch.cdist(query.vectors, both.vectors).numpy()
    sums, repeats = np.zeros(6), 400
    for i in range(len(query)):
        images = list(drawable(query, both, i, "same_camera").items())
        pids = [pid for pid, _ in images]
        own = pids.index(int(query.pids[i]))
        picked = np.array([distances[i, random.choice(group, repeats)] for _, group in images])
        places = (picked <= picked[own]).sum(0)
        sums += [*((places <= k).sum() for k in range(1, 6)), (1 / places).sum()]
    means = sums / repeats / len(query)
    expected = [*found.cmc.mean(0).tolist(), float(found.average_precision.mean())]
    # 30 queries, 400 draws each: a standard error of at most 0.5 / sqrt(12,000) = 0.0046.
    np.testing.assert_allclose(means, expected, atol=0.015)
    assert 0.2 < expected[0] < 0.8


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_collapsed_model_has_every_other_identity_before_the_right_one(metric):
    same = features(np.ones((12, 3)), np.arange(12) // 3 + 1)
    found = expected_single_shot(same, same, NOTHING, metric=metric, ranks=4)
    assert found.average_precision.tolist() == [0.25] * 12
    assert found.cmc.tolist() == [[0, 0, 0, 1]] * 12


def test_copies_are_tied_wherever_they_stand():
    # Each vector is there twice, once under another identity: a copy of the right image is always
    # before it, in any order of the gallery.
    random = np.random.default_rng(0)
    vectors = random.standard_normal((20, 37))
    pids = np.arange(20) // 4 + 1
    query = features(random.standard_normal((5, 37)), np.arange(1, 6))
    gallery = np.concatenate([vectors, vectors]), np.concatenate([pids, pids + 10])
    plain = expected_single_shot(query, features(*gallery), NOTHING)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(40)
        mixed = features(gallery[0][order], gallery[1][order])
        found = expected_single_shot(query, mixed, NOTHING)
        torch.testing.assert_close(found.cmc, plain.cmc, rtol=0, atol=1e-14)


def test_a_query_without_a_right_answer_has_no_value():
    query = features([[0], [0]], [9, 1])
    found = expected_single_shot(query, features([[1], [2]], [1, 2]), NOTHING, metric="euclidean")
    assert found.cmc.isnan().all(1).tolist() == [True, False]
    assert found.average_precision.isnan().tolist() == [True, False]
    assert found.candidates.tolist() == [2, 2]
    assert found.cmc.shape == (2, 50) and found.cmc[1].tolist() == [1] * 50


def test_the_only_identity_is_always_first():
    only = features([[1], [2]], [1, 1])
    found = expected_single_shot(features([[0]], [1]), only, NOTHING, metric="euclidean", ranks=2)
    assert (found.cmc.tolist(), found.average_precision.tolist()) == ([[1, 1]], [1])


def test_hundreds_of_identities_keep_their_digits():
    # 600 others, each before with chance 1/2: binomial, E[1 / (n + 1)] = (1 - 2^-601) / 300.5.
    before = module._before(np.full((1, 600), 0.5))
    assert (before / np.arange(1, 602)).sum() == pytest.approx(1 / 300.5, rel=1e-12)
    assert before.sum() == pytest.approx(1, abs=1e-12)
    assert before[0] == pytest.approx(0.5**600, rel=1e-10)


@pytest.mark.parametrize("change", ["SCORES", "TOGETHER"])
def test_small_blocks_give_the_same(change, monkeypatch):
    query, gallery = drawn(3, 9, 60, 8, whole=False)
    whole = expected_single_shot(query, gallery, CAMERA)
    monkeypatch.setattr(module, change, 1)
    found = expected_single_shot(query, gallery, CAMERA)
    torch.testing.assert_close(found.cmc, whole.cmc, rtol=0, atol=1e-14)
    torch.testing.assert_close(found.average_precision, whole.average_precision, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"ranks": 0}, "ranks = 0: expected at least 1"),
        ({"metric": "manhattan"}, "unknown metric"),
    ],
)
def test_arguments_out_of_range_are_refused(change, words):
    query, gallery = drawn(0, 3, 9, 4)
    with pytest.raises(ValueError, match=words):
        expected_single_shot(query, gallery, NOTHING, **change)


def test_a_feature_that_is_not_finite_is_refused():
    query, gallery = drawn(0, 3, 9, 4)
    gallery.vectors[2] = torch.nan
    with pytest.raises(ValueError, match=r"gallery feature 2 .* is not finite"):
        expected_single_shot(query, gallery, NOTHING)
