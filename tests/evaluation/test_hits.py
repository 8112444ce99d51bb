"""Ranks of right answers: by hand, against brute force, and whatever the order of the gallery."""

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidkit.evaluation import find_hits, nearest, protocol
from reidkit.types import EvalProtocol, Features, Sample

MARKET, NOTHING, ITSELF = (EvalProtocol(kind) for kind in ("same_camera", "nothing", "itself"))


def lists(hits):
    return [
        hits.ranks[a:b].tolist() for a, b in zip(hits.offsets[:-1], hits.offsets[1:], strict=True)
    ]


def slow_distances(query, gallery, metric):
    q, g = query.vectors.double().numpy(), gallery.vectors.double().numpy()
    if metric == "cosine":
        q = q / np.maximum(np.linalg.norm(q, axis=1, keepdims=True), 1e-300)
        g = g / np.maximum(np.linalg.norm(g, axis=1, keepdims=True), 1e-300)
        return np.array([[1 - (a * b).sum() for b in g] for a in q])
    return np.array([[((a - b) ** 2).sum() for b in g] for a in q])


def left_out(q, g, i, j, kind):
    if g.pid == -1:
        return True
    return {
        "same_camera": q.pid == g.pid and q.camid == g.camid,
        "same_view": q.view == g.view,
        "itself": i == j,
        "nothing": False,
    }[kind]


def slow_ranks(query, gallery, rules, metric="cosine", tie=1e-11):
    """The definition, one pair at a time: valid items that are closer, wrong ones at the same
    distance included.
    """
    table, answers, counts = slow_distances(query, gallery, metric), [], []
    for i, q in enumerate(query.samples):
        valid = [
            j for j, g in enumerate(gallery.samples) if not left_out(q, g, i, j, rules.exclude)
        ]
        right = sorted((table[i, j], j) for j in valid if gallery.samples[j].pid == q.pid)
        wrong = [table[i, j] for j in valid if gallery.samples[j].pid != q.pid]
        answers.append([1 + n + sum(w <= d + tie for w in wrong) for n, (d, _) in enumerate(right)])
        counts.append(len(valid))
    return answers, counts


def features(vectors, pids, camids=None):
    return Features.from_arrays(
        torch.as_tensor(vectors),
        torch.as_tensor(pids, dtype=torch.int64),
        None if camids is None else torch.as_tensor(camids),
    )


def drawn(seed, q=9, g=40, dim=6, pids=5, whole=False):
    random = np.random.default_rng(seed)

    def side(n):
        vectors = random.integers(-2, 3, (n, dim)) if whole else random.standard_normal((n, dim))
        return features(
            vectors.astype(np.float32), random.integers(1, pids, n), random.integers(0, 3, n)
        )

    return side(q), side(g)


def by_hand():
    """Two queries on a line; numbers are positions, the distance is the gap."""
    query = features([[0.0], [100.0]], [1, 7], [0, 0])
    gallery = features(
        # 0.1: same identity, same camera: left out. 0.2: junk. 1: right. 2: distractor, wrong. 3:
        # wrong and right tie.
        [[0.1], [0.2], [1.0], [2.0], [3.0], [-3.0], [5.0]],
        [1, -1, 1, 0, 1, 2, 1],
        [0, 1, 1, 1, 2, 1, 1],
    )
    return query, gallery


def test_ranks_worked_by_hand_with_junk_distractor_own_camera_and_a_tie():
    hits = find_hits(*by_hand(), MARKET, metric="euclidean")
    # Valid for query 0: 1.0 right (rank 1), 2.0 wrong, then wrong at 3 before right at 3 (rank 4),
    # 5.0 right (rank 5).
    assert lists(hits) == [[1, 4, 5], []]
    assert hits.candidates.tolist() == [5, 6]  # junk is gone for both, the own camera for the first
    assert hits.tied.tolist() == [
        False,
        False,
    ]  # the tie did not decide about the first right answer
    assert (hits.ranks.dtype, hits.offsets.dtype) == (torch.int64, torch.int64)


def test_a_tie_for_the_first_place_is_lost_and_noted():
    hits = find_hits(
        features([[0.0]], [1]), features([[1.0], [-1.0]], [1, 2]), NOTHING, metric="euclidean"
    )
    assert (lists(hits), hits.tied.tolist()) == ([[2]], [True])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    q=st.integers(1, 6),
    g=st.integers(2, 25),
    dim=st.integers(1, 9),
    whole=st.booleans(),
    kind=st.sampled_from(["same_camera", "nothing"]),
    metric=st.sampled_from(["cosine", "euclidean"]),
)
def test_ranks_equal_brute_force_in_float64(seed, q, g, dim, whole, kind, metric):
    query, gallery = drawn(seed, q, g, dim, pids=4, whole=whole)
    rules = EvalProtocol(kind)
    ranks, counts = slow_ranks(query, gallery, rules, metric)
    if not any(ranks):
        with pytest.raises(ValueError, match="no query has a right answer"):
            find_hits(query, gallery, rules, metric=metric)
        return
    hits = find_hits(query, gallery, rules, metric=metric)
    assert lists(hits) == ranks
    assert hits.candidates.tolist() == counts


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_gallery_shuffle_does_not_change_the_ranks(whole, metric):
    query, gallery = drawn(3, q=20, g=211, dim=37, whole=whole)
    # Every vector a second time under another identity: nothing but ties.
    twice = features(
        gallery.vectors.repeat(2, 1),
        torch.cat([gallery.pids, gallery.pids % 4 + 1]),
        gallery.camids.repeat(2),
    )
    before = find_hits(query, twice, MARKET, metric=metric)
    for seed in range(3):
        order = torch.randperm(len(twice), generator=torch.Generator().manual_seed(seed))
        mixed = features(twice.vectors[order], twice.pids[order], twice.camids[order])
        after = find_hits(query, mixed, MARKET, metric=metric)
        assert lists(after) == lists(before)
        assert after.tied.equal(before.tied)
    assert before.tied.any()


@pytest.mark.parametrize("memory", [1, 5000, "1KB", "2MB"])
def test_a_small_memory_gives_the_same_ranks(memory):
    query, gallery = drawn(1, q=33)
    assert lists(find_hits(query, gallery, MARKET, memory=memory)) == lists(
        find_hits(query, gallery, MARKET)
    )


def test_the_blocks_that_are_held_stay_within_the_memory(monkeypatch):
    from reidkit.evaluation import hits

    held, multiply = [], hits.multiply

    def watched(queries, rows, out, device):
        held.append(queries.nbytes + rows.nbytes + out.nbytes)
        multiply(queries, rows, out, device)

    monkeypatch.setattr(hits, "multiply", watched)
    find_hits(*drawn(1, q=33), MARKET, memory=2000)
    assert len(held) > 1 and max(held) <= 2000


def test_cosine_does_not_care_about_lengths_and_euclidean_does():
    query, gallery = drawn(5)
    lengths = torch.arange(1, len(gallery) + 1)[:, None] ** 2.0
    longer = Features(gallery.vectors * lengths, gallery.samples)
    assert lists(find_hits(query, longer, MARKET)) == lists(find_hits(query, gallery, MARKET))
    assert lists(find_hits(query, longer, MARKET, metric="euclidean")) != lists(
        find_hits(query, gallery, MARKET, metric="euclidean")
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_other_floating_types_are_taken_as_they_are(dtype, metric):
    query, gallery = drawn(6)
    query = Features(query.vectors.to(dtype), query.samples)
    gallery = Features(gallery.vectors.to(dtype), gallery.samples)
    ranks, _ = slow_ranks(query, gallery, MARKET, metric)
    assert lists(find_hits(query, gallery, MARKET, metric=metric)) == ranks


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_features_rank_as_ordinary_ones(scale):
    query, gallery = drawn(7)
    small = [Features(side.vectors * scale, side.samples) for side in (query, gallery)]
    for metric in ("cosine", "euclidean"):
        expected = lists(find_hits(query, gallery, MARKET, metric=metric))
        assert lists(find_hits(*small, MARKET, metric=metric)) == expected


def test_a_common_offset_does_not_blur_euclidean_ranks():
    query, gallery = drawn(8)
    moved = [Features(side.vectors.double() + 1e5, side.samples) for side in (query, gallery)]
    assert lists(find_hits(*moved, MARKET, metric="euclidean")) == lists(
        find_hits(query, gallery, MARKET, metric="euclidean")
    )


def test_features_that_need_a_gradient_give_plain_ranks():
    query, gallery = drawn(2)
    hits = find_hits(
        Features(query.vectors.clone().requires_grad_(), query.samples), gallery, MARKET
    )
    assert lists(hits) == lists(find_hits(query, gallery, MARKET))


def test_leave_one_out_leaves_out_the_item_itself_but_not_its_copy():
    # Items 0 and 1 are the same picture twice: each finds the other first.
    both = features([[1.0, 0], [1, 0], [0.9, 0.1], [0, 1]], [1, 1, 2, 2])
    hits = find_hits(both, both, ITSELF)
    # From 3 (0, 1): 2 is the closest. From 2: 0 and 1 are closer than 3.
    assert lists(hits) == [[1], [1], [3], [1]]
    again = features(both.vectors.clone(), both.pids)
    assert lists(find_hits(both, again, ITSELF)) == lists(hits)


def test_leave_one_out_knows_a_query_in_a_larger_gallery_by_its_files():
    gallery = Features(
        torch.tensor([[0.0], [1.0], [3.0]]),
        (Sample(("a",), 1), Sample(("b",), 2), Sample(("c",), 1)),
    )
    query = Features(gallery.vectors[2:], gallery.samples[2:])
    hits = find_hits(query, gallery, ITSELF, metric="euclidean")
    assert (lists(hits), hits.candidates.tolist()) == ([[2]], [2])


def test_the_same_view_is_left_out_for_every_identity():
    query = Features(torch.tensor([[0.0]]), (Sample((), 1, view="090"),))
    views = ["090", "090", "000", "000"]
    gallery = Features(
        torch.tensor([[0.1], [0.2], [2.0], [1.0]]),
        tuple(Sample((), pid, view=view) for pid, view in zip([1, 2, 1, 2], views, strict=True)),
    )
    hits = find_hits(query, gallery, EvalProtocol("same_view"), metric="euclidean")
    assert (lists(hits), hits.candidates.tolist()) == ([[2]], [2])


def with_nan(side, position, name):
    vectors = side.vectors.clone()
    vectors[position, 2] = torch.nan
    samples = list(side.samples)
    samples[position] = Sample((name,), 1)
    return Features(vectors, tuple(samples))


def test_a_feature_that_is_not_finite_is_refused_by_name():
    query, gallery = drawn(0)
    with pytest.raises(ValueError, match=r"gallery feature 5 \(spoilt.jpg\) is not finite"):
        find_hits(query, with_nan(gallery, 5, "spoilt.jpg"), MARKET)
    with pytest.raises(ValueError, match=r"query feature 3 \(bad.jpg\) is not finite"):
        find_hits(with_nan(query, 3, "bad.jpg"), gallery, MARKET)


@pytest.mark.parametrize(
    "query, gallery, words",
    [
        (
            features(torch.ones(2, 3), [1, 1]),
            features(torch.ones(2, 4), [1, 1]),
            "3 dimensions.* 4",
        ),
        (features(torch.ones(0, 3), []), features(torch.ones(2, 3), [1, 1]), "query is empty"),
        (features(torch.ones(2, 3), [1, 1]), features(torch.ones(0, 3), []), "gallery is empty"),
        (
            features(torch.ones(1, 3), [1]),
            features(torch.ones(1, 3), [2]),
            "no query has a right answer",
        ),
        (features(torch.ones(1, 3), [-1]), features(torch.ones(1, 3), [-1]), "has pid -1"),
        (features(torch.ones(1, 0), [1]), features(torch.ones(1, 0), [1]), "at least 1"),
    ],
)
def test_sides_that_cannot_be_compared_are_refused_with_words(query, gallery, words):
    with pytest.raises(ValueError, match=words):
        find_hits(query, gallery, NOTHING)


@pytest.mark.parametrize("memory", ["much", 0, "-3MB", "5TBB"])
def test_a_memory_that_is_no_size_is_refused(memory):
    with pytest.raises(ValueError, match="memory = "):
        find_hits(*drawn(0), MARKET, memory=memory)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="unknown metric 'manhattan'"):
        find_hits(*drawn(0), MARKET, metric="manhattan")


def test_nearest_leaves_out_what_does_not_count_and_fills_up_with_nothing():
    indices, distances = nearest(*by_hand(), MARKET, 6, metric="euclidean")
    assert indices[0, :2].tolist() == [2, 3]
    assert sorted(indices[0, 2:4].tolist()) == [4, 5]  # both at distance 3
    assert indices[0, 4:].tolist() == [6, -1]
    assert distances[0, :5].tolist() == [1, 2, 3, 3, 5]
    assert distances[0, 5].isnan()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_nearest_equals_a_full_sort(metric):
    query, gallery = drawn(4)
    indices, distances = nearest(query, gallery, protocol("no_camera"), 7, metric=metric)
    table = slow_distances(query, gallery, metric)
    table = table if metric == "cosine" else table**0.5
    assert np.array_equal(indices.numpy(), np.argsort(table, axis=1)[:, :7])
    assert np.allclose(distances.numpy(), np.sort(table, axis=1)[:, :7], atol=1e-12)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("rules", [MARKET, NOTHING])
def test_nearest_by_search_equals_nearest_by_rows(monkeypatch, metric, rules):
    module = importlib.import_module("reidkit.evaluation.evaluate")
    query, gallery = drawn(15, q=20, g=90, dim=5)
    by_rows = nearest(query, gallery, rules, 8, metric=metric)
    monkeypatch.setattr(module, "MANY_QUERIES", 1)
    by_search = nearest(query, gallery, rules, 8, metric=metric)
    assert by_search[0].equal(by_rows[0])
    assert torch.allclose(by_search[1], by_rows[1], equal_nan=True)
