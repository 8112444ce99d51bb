"""Which pairs are scored, against the double loop over all of them."""

import numpy as np
import pytest
import torch

from reidkit.evaluation.decision.pairs import PairSource
from reidkit.types import Features, Sample


def some_features(seed=0, count=40, cameras=3, people=7):
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(count, 5))
    pids = random.integers(-1, people, count)  # junk and distractors among them
    return Features.from_arrays(vectors, pids, random.integers(0, cameras, count))


def double_loop(features, metric, across):
    """Similarities of the genuine and of the impostor pairs, each ascending."""
    genuine, impostors = [], []
    rows = features.vectors.numpy()
    for i, a in enumerate(features.samples):
        for j in range(i):
            b = features.samples[j]
            if -1 in (a.pid, b.pid) or a.pid == b.pid == 0 or (across and a.camid == b.camid):
                continue
            if metric == "cosine":
                value = rows[i] @ rows[j] / np.linalg.norm(rows[i]) / np.linalg.norm(rows[j])
            else:
                value = -np.linalg.norm(rows[i] - rows[j])
            (genuine if a.pid == b.pid else impostors).append(value)
    return sorted(genuine), sorted(impostors)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_all_pairs_are_those_of_the_double_loop(metric, across, seed):
    features = some_features(seed)
    source = PairSource(features, metric=metric, across_cameras=across)
    expected = double_loop(features, metric, across)
    for pairs, values in zip((source.genuine(9999), source.impostors(9999)), expected, strict=True):
        np.testing.assert_allclose(np.sort(pairs.similarity), values, atol=1e-12)
        assert len(pairs) == pairs.possible == len(values)


def test_pairs_know_their_identities():
    features = Features.from_arrays(np.eye(4), [5, 5, 9, 7])
    source = PairSource(features)
    assert source.genuine(99).identities.tolist() == [[0, 0]]
    people = {tuple(sorted(pair)) for pair in source.impostors(99).identities.tolist()}
    assert people == {(0, 1), (0, 2), (1, 2)}  # 5 is number 0, 7 number 1, 9 number 2


def test_identities_of_two_domains_differ_though_their_pids_agree():
    samples = tuple(Sample((), 3, 0, domain=name) for name in ("a", "a", "b"))
    source = PairSource(Features(torch.eye(3), samples))
    assert (len(source.genuine(9)), len(source.impostors(9))) == (1, 2)


def test_cameras_count_only_where_there_are_several():
    features = Features.from_arrays(np.eye(4), [1, 1, 2, 2], [3, 3, 3, 3])
    assert not PairSource(features).across_cameras
    assert PairSource(features).genuine(9).possible == 2
    with pytest.raises(ValueError, match="all items come from camera 4"):
        PairSource(features, across_cameras=True)


@pytest.mark.parametrize("across", [True, False])
def test_a_sample_is_part_of_all_pairs_and_takes_none_twice(across):
    features = some_features(1, 60)
    source = PairSource(features, across_cameras=across)
    every = source.impostors(99_999)
    drawn = source.impostors(300)
    assert 150 < len(drawn) < 300
    assert drawn.possible == len(every)
    assert len(np.unique(drawn.similarity)) == len(drawn)
    assert np.isin(drawn.similarity, every.similarity).all()
    np.testing.assert_array_equal(drawn.similarity, source.impostors(300).similarity)


def test_every_pair_is_drawn_as_often_as_any_other():
    # Five items of four people: 9 impostor pairs. Five draws find 9 (1 - (8/9)^5) = 4.0 of them.
    features = Features.from_arrays(np.random.default_rng(0).normal(size=(5, 3)), [1, 1, 2, 3, 4])
    drawn = [PairSource(features, seed=seed).impostors(5).similarity for seed in range(600)]
    counts = np.unique(np.concatenate(drawn), return_counts=True)[1]
    assert len(counts) == 9
    assert counts.min() > 220 and counts.max() < 315  # 267 expected, standard deviation 12


@pytest.mark.parametrize("across", [True, False])
def test_disjoint_pairs_share_no_identity(across):
    features = some_features(2, 200, people=31)
    source = PairSource(features, across_cameras=across)
    pairs = source.disjoint_impostors()
    assert len(np.unique(pairs.identities)) == 2 * len(pairs) == 30  # 31 people with pid 0
    assert np.isin(pairs.similarity, source.impostors(99_999).similarity).all()


def test_two_people_whom_no_two_cameras_saw_make_no_pair():
    features = Features.from_arrays(np.eye(4), [1, 2, 3, 4], [0, 0, 0, 1])
    # Only the pair with person 4 is of two cameras, whoever the other one is.
    assert len(PairSource(features, across_cameras=True).disjoint_impostors()) == 1


def test_within_two_cameras_only_pairs_between_them_count():
    features = some_features(3, 60)
    between = PairSource(features).within(0, 2)
    chosen = [s for s in range(60) if features.samples[s].camid in (0, 2)]
    part = Features(features.vectors[chosen], tuple(features.samples[i] for i in chosen))
    for pairs, values in zip(
        (between.genuine(9999), between.impostors(9999)),
        double_loop(part, "cosine", across=True),
        strict=True,
    ):
        np.testing.assert_allclose(np.sort(pairs.similarity), values, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_length_of_vectors_does_not_matter_to_the_cosine(scale):
    features = some_features(4)
    scaled = Features((features.vectors * scale).float(), features.samples)
    a, b = (PairSource(side).impostors(999).similarity for side in (features, scaled))
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_zero_vector_has_cosine_zero():
    features = Features.from_arrays(np.array([[0.0, 0], [1, 0]]), [1, 2])
    assert PairSource(features).impostors(9).similarity.tolist() == [0]


@pytest.mark.parametrize(
    "vectors, pids, words",
    [
        ([[1.0], [np.nan]], [1, 2], r"feature 1 \(pid 2\) is not finite"),
        ([[1.0], [2.0]], [1, 1], "1 identities"),
        ([[1.0], [2.0]], [-1, -1], "0 identities"),
        (np.empty((2, 0)), [1, 2], "no dimension"),
    ],
)
def test_features_that_make_no_pairs_are_refused(vectors, pids, words):
    features = Features.from_arrays(np.array(vectors), pids)
    with pytest.raises(ValueError, match=words):
        PairSource(features)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="unknown metric 'manhattan'; known: cosine"):
        PairSource(some_features(), metric="manhattan")
