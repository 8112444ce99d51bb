"""Re-ranking: the values of the dense algorithm, whatever the parameters, and expanded queries."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from reidkit.evaluation.reranking.k_reciprocal import jaccard_distance, rerank
from reidkit.evaluation.reranking.query_expansion import augment_database, expand_query
from reidkit.types import Features, Sample


def features(vectors, name="item"):
    """Features whose samples are called by their position."""
    matrix = torch.as_tensor(np.asarray(vectors))
    return Features(matrix, tuple(Sample((f"{name}{i}",), i) for i in range(len(matrix))))


def clusters(count, dim, seed=0, offset=0.0, noise=0.5):
    """Noisy clusters of about five, float32 (count, dim)."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(max(1, count // 5), dim))
    rows = centres[generator.integers(len(centres), size=count)]
    return (rows + noise * generator.normal(size=(count, dim)) + offset).astype(np.float32)


def placed(vectors, metric):
    rows = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1) if metric == "cosine" else rows


def dense(vectors, k1, k2, metric="cosine"):
    """The algorithm on N x N matrices, as the paper and the authors' facts have it: Jaccard
    distances and the original ones, both (N, N).
    """
    rows = placed(vectors, metric)
    squares = np.array([((rows - row) ** 2).sum(1) for row in rows])
    largest = squares.max(axis=0)
    original = np.transpose(squares / np.where(largest > 0, largest, 1))
    count = len(rows)
    # Itself first, then by distance, then by position.
    order = np.argsort(squares - np.eye(count), axis=1, kind="stable")

    def reciprocal(i, k):
        forward = order[i, : k + 1]
        return [j for j in forward if i in order[j, : k + 1]]

    weights = np.zeros((count, count))
    for i in range(count):
        known = reciprocal(i, k1)
        expanded = set(known)
        for candidate in known:
            theirs = reciprocal(candidate, int(np.around(k1 / 2)))
            if len(set(theirs) & set(known)) > 2 / 3 * len(theirs):
                expanded |= set(theirs)
        members = sorted(expanded)
        weights[i, members] = np.exp(-original[i, members])
        weights[i] /= weights[i].sum()
    if k2 != 1:
        weights = np.array([weights[order[i, :k2]].mean(0) for i in range(count)])
    shared = np.array([np.minimum(weights, row).sum(1) for row in weights])
    return 1 - shared / (2 - shared), original


def whole(blocks):
    return np.concatenate(list(blocks))


def densely(matrix):
    """(N, N) with 1 where the sparse matrix has no entry."""
    found = np.ones(matrix.shape)
    for i in range(len(found)):
        stretch = slice(matrix.indptr[i], matrix.indptr[i + 1])
        found[i, matrix.indices[stretch]] = matrix.data[stretch]
    return found


def check(query, gallery, k1, k2, lambda_value, metric, memory="512MB"):
    found = rerank(
        features(query),
        features(gallery),
        k1=k1,
        k2=k2,
        lambda_value=lambda_value,
        metric=metric,
        memory=memory,
    )
    jaccard, original = dense(np.concatenate([query, gallery]), k1, k2, metric)
    final = (1 - lambda_value) * jaccard + lambda_value * original
    np.testing.assert_allclose(whole(found), final[: len(query), len(query) :], atol=1e-5, rtol=0)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k1, k2", [(20, 6), (1, 1), (2, 1), (3, 2), (5, 9), (7, 3), (10, 4)])
@pytest.mark.parametrize("lambda_value", [0.0, 0.3, 1.0])
def test_distances_equal_the_dense_algorithm(metric, k1, k2, lambda_value):
    items = clusters(70, 8, offset=0.5)
    check(items[:15], items[15:], k1, k2, lambda_value, metric)


def test_several_blocks_equal_the_dense_algorithm():
    items = clusters(330, 6, seed=1)
    items[100:130] = items[100]
    check(items[:270], items[270:], 12, 4, 0.3, "cosine", memory="8KB")


@settings(max_examples=40, deadline=None)
@given(
    queries=st.integers(1, 12),
    gallery=st.integers(1, 30),
    dim=st.integers(1, 5),
    k1=st.integers(1, 60),
    k2=st.integers(1, 40),
    lambda_value=st.floats(0, 1),
    metric=st.sampled_from(["cosine", "euclidean"]),
    seed=st.integers(0, 2**16),
)
def test_small_integers_with_copies_and_ties_equal_the_dense_algorithm(
    queries, gallery, dim, k1, k2, lambda_value, metric, seed
):
    # Cosines of arbitrary integers tie only up to rounding, which no order could be asked of; unit
    # vectors and their negatives tie exactly.
    generator = np.random.default_rng(seed)
    if metric == "euclidean":
        items = generator.integers(-2, 3, (queries + gallery, dim)).astype(np.float32)
    else:
        signs = generator.choice([-1, 1, 4], queries + gallery)
        items = (np.eye(dim)[generator.integers(dim, size=queries + gallery)].T * signs).T
        items = items.astype(np.float32)
    check(items[:queries], items[queries:], k1, k2, lambda_value, metric)


def test_more_copies_than_a_list_holds_equal_the_dense_algorithm():
    items = clusters(90, 6, seed=2)
    items[10:50] = items[10]
    items[60:] = items[60]
    check(items[:20], items[20:], 6, 3, 0.3, "cosine")
    check(items[:20], items[20:], 6, 3, 0.3, "euclidean")


def test_a_far_offset_with_near_ties_equals_the_dense_algorithm():
    # One part in 10^4 of the length varies: float32 products alone would not find the neighbours.
    items = clusters(120, 6, seed=3).astype(np.float64) + 1e4
    check(items[:30], items[30:], 8, 3, 0.3, "euclidean")
    check(items[:30], items[30:], 8, 3, 0.3, "cosine")


def test_an_outlier_far_away_leaves_the_others_exact():
    items = clusters(120, 6, seed=4)
    items[50] *= 1e6
    check(items[:30], items[30:], 8, 3, 0.3, "euclidean")


def test_the_cosine_does_not_look_at_lengths():
    items = clusters(60, 8, seed=5)
    lengths = 2.0 ** np.random.default_rng(0).integers(-60, 60, (60, 1))
    plain = whole(rerank(features(items[:10]), features(items[10:])))
    scaled = (items * lengths).astype(np.float32)
    np.testing.assert_array_equal(
        plain, whole(rerank(features(scaled[:10]), features(scaled[10:])))
    )
    check(scaled[:10], scaled[10:], 20, 6, 0.3, "cosine")


def test_a_scale_does_not_change_euclidean_results():
    items = clusters(60, 8, seed=6)
    plain = whole(rerank(features(items[:10]), features(items[10:]), metric="euclidean"))
    for scale in (2.0**-90, 2.0**60):
        scaled = items * np.float32(scale)
        found = rerank(features(scaled[:10]), features(scaled[10:]), metric="euclidean")
        np.testing.assert_allclose(whole(found), plain, atol=1e-6)


def test_a_zero_vector_is_at_squared_distance_1_from_all_unit_vectors():
    items = clusters(40, 8, seed=7)
    items[[3, 20]] = 0
    # Only rounding orders what lies at one distance by arithmetic and not by being copies: the
    # original distance has no order in it.
    check(items[:10], items[10:], 5, 3, 1.0, "cosine")


def test_half_precision_and_mixed_types_are_taken_as_they_are():
    items = clusters(40, 8, seed=8).astype(np.float16)
    found = rerank(features(items[:10]), features(items[10:].astype(np.float64)), k1=5, k2=3)
    jaccard, original = dense(items, 5, 3)
    np.testing.assert_allclose(whole(found), (0.7 * jaccard + 0.3 * original)[:10, 10:], atol=1e-5)


def test_items_that_all_coincide_are_at_distance_0_originally_and_finite():
    items = np.full((50, 7), 0.1, np.float32)
    found = whole(rerank(features(items[:20]), features(items[20:]), k1=5, lambda_value=1.0))
    np.testing.assert_array_equal(found, 0)
    assert np.isfinite(whole(rerank(features(items[:20]), features(items[20:]), k1=5))).all()


def test_two_items_worked_by_hand():
    # Squared distance 4, both items' largest: original 1. Each list holds both, so the weights are
    # (1, 1/e) / (1 + 1/e) = (0.7311, 0.2689) and the other way round; the minima sum to 0.5379 and
    # the Jaccard distance is 1 - 0.5379 / 1.4621 = 0.6321 = 1 - 1/e. 0.7 of it and 0.3 of 1 make
    # 0.7425.
    pair = rerank(
        features(np.float32([[0.0]])), features(np.float32([[2.0]])), k1=1, k2=1, metric="euclidean"
    )
    assert whole(pair) == pytest.approx(0.7 * (1 - np.exp(-1)) + 0.3, abs=1e-6)


def test_a_result_can_be_read_again_and_in_blocks_of_any_size():
    items = clusters(80, 8, seed=9)
    sides = features(items[:30]), features(items[30:])
    found = rerank(*sides)
    small = rerank(*sides, memory=1000)  # 5 rows of 50 float32
    assert found.shape == small.shape == (30, 50)
    assert [len(block) for block in small] == [5] * 6
    assert [len(block) for block in found] == [30]
    np.testing.assert_array_equal(whole(found), whole(found))
    np.testing.assert_allclose(whole(small), whole(found), atol=1e-6)


def test_several_threads_give_what_one_gives(monkeypatch):
    monkeypatch.setattr("reidkit.evaluation.threads.SMALL", 0)  # threads for small work, too
    items = clusters(600, 8, seed=10)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append(whole(rerank(features(items[:200]), features(items[200:]))))
            found.append(jaccard_distance(features(items)).data)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)
    np.testing.assert_allclose(found[1], found[3], atol=1e-6)


@pytest.mark.parametrize("k1, k2", [(20, 6), (30, 6), (4, 1), (100, 5)])
def test_jaccard_distances_equal_the_dense_algorithm(k1, k2):
    items = clusters(90, 8, seed=11)
    items[5] = items[70]
    found = jaccard_distance(features(items), k1=k1, k2=k2)
    np.testing.assert_allclose(densely(found), dense(items, k1, k2)[0], atol=1e-5)


def test_jaccard_distances_are_symmetric_with_zeros_on_the_diagonal():
    items = clusters(300, 8, seed=12)
    items[40:90] = items[40]
    matrix = jaccard_distance(features(items), k1=8, k2=3)
    found = densely(matrix)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(found.diagonal(), 0)
    assert matrix.dtype == np.float32 and (matrix.data < 1).all() and (matrix.data >= 0).all()


def test_rows_come_nearest_first_and_within_the_limit():
    items = features(clusters(200, 8, seed=13))
    everything, near = jaccard_distance(items), jaccard_distance(items, within=0.6)
    for i in range(len(items)):
        assert (np.diff(near.data[near.indptr[i] : near.indptr[i + 1]]) >= 0).all()
    expected = densely(everything)
    np.testing.assert_array_equal(densely(near), np.where(expected <= 0.6, expected, 1))
    assert near.nnz == (expected <= 0.6).sum() < everything.nnz


@pytest.mark.parametrize("within", [0.6, 1.0])
def test_dbscan_finds_the_clusters_of_the_dense_matrix(within):
    items = clusters(250, 16, seed=14, noise=0.7)
    items[7] = items[8]  # a pair at distance 0 beside the diagonal
    sparse = jaccard_distance(features(items), k1=10, k2=3, within=within)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # rows that are not sorted would be a warning
        found = DBSCAN(eps=0.6, min_samples=4, metric="precomputed").fit_predict(sparse)
    distances = np.maximum(dense(items, 10, 3)[0], 0)
    expected = DBSCAN(eps=0.6, min_samples=4, metric="precomputed").fit_predict(distances)
    np.testing.assert_array_equal(found, expected)
    assert len(set(expected)) > 10


def test_one_item_alone_is_a_matrix_of_one_zero():
    alone = jaccard_distance(features(np.float32([[1.0, 2.0]])))
    assert alone.shape == (1, 1) and alone.nnz == 1 and alone.data[0] == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"k1": 0}, "k1 = 0: expected at least 1"),
        ({"k2": 0}, "k2 = 0: expected at least 1"),
        ({"lambda_value": -0.1}, r"lambda_value = -0.1: expected .* in \[0, 1\]"),
        ({"lambda_value": 1.5}, r"lambda_value = 1.5: expected .* in \[0, 1\]"),
        ({"lambda_value": float("nan")}, "lambda_value = nan"),
        ({"metric": "manhattan"}, "unknown metric 'manhattan'; known: cosine, euclidean"),
        ({"memory": "much"}, "memory = 'much': expected a positive size"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    items = features(clusters(20, 4))
    with pytest.raises(ValueError, match=message):
        rerank(items, items, **arguments)


def test_sides_of_different_dimensions_are_refused():
    with pytest.raises(ValueError, match="query features have 4 dimensions, gallery features 5"):
        rerank(features(clusters(9, 4)), features(clusters(9, 5)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_feature_that_is_not_finite_is_refused_by_name(value):
    whole_side, broken = clusters(20, 4), clusters(20, 4)
    broken[13, 2] = value
    for call in (
        lambda: rerank(features(whole_side), features(broken, "shot")),
        lambda: rerank(features(broken, "shot"), features(whole_side)),
        lambda: jaccard_distance(features(broken, "shot")),
        lambda: expand_query(features(whole_side), features(broken, "shot")),
        lambda: augment_database(features(broken, "shot")),
    ):
        with pytest.raises(ValueError, match=r"feature 13 \(shot13\) is not finite"):
            call()


def test_empty_sides_and_integers_are_refused():
    items, nobody = features(clusters(9, 4)), features(np.empty((0, 4), np.float32))
    with pytest.raises(ValueError, match="the gallery is empty"):
        rerank(items, nobody)
    with pytest.raises(ValueError, match="the query is empty"):
        rerank(nobody, items)
    with pytest.raises(ValueError, match=r"must be floating point, got torch\.int64"):
        rerank(items, features(np.ones((9, 4), np.int64)))


def test_a_limit_that_is_no_jaccard_distance_is_refused():
    with pytest.raises(ValueError, match=r"within = 2: expected a Jaccard distance in \[0, 1\]"):
        jaccard_distance(features(clusters(9, 4)), within=2)


def slow_expansion(query, gallery, k, alpha, itself=False):
    """The item itself and its k nearest, one at a time."""
    moved = []
    q, g = placed(query, "cosine"), placed(gallery, "cosine")
    for i, row in enumerate(q):
        similarity = g @ row
        nearest = [j for j in np.argsort(-similarity) if not (itself and i == j)][:k]
        total = row + sum(max(similarity[j], 0.0) ** alpha * g[j] for j in nearest)
        moved.append(total / np.linalg.norm(total))
    return np.array(moved)


@pytest.mark.parametrize("k", [1, 3, 30])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0, 0.5])
def test_expanded_queries_and_galleries_equal_the_loop(k, alpha):
    query, gallery = clusters(12, 6, seed=15), clusters(31, 6, seed=16)
    found = expand_query(features(query), features(gallery), k=k, alpha=alpha)
    expected = slow_expansion(query, gallery, k, alpha)
    np.testing.assert_allclose(found.vectors.numpy(), expected, atol=1e-5)
    found = augment_database(features(gallery), k=k, alpha=alpha)
    expected = slow_expansion(gallery, gallery, k, alpha, itself=True)
    np.testing.assert_allclose(found.vectors.numpy(), expected, atol=1e-5)


def test_an_expanded_query_worked_by_hand():
    # (1, 0) and its nearest (3, 4) / 5 at cosine 0.6. Average: (1.6, 0.8), of length 1.7889, gives
    # (0.8944, 0.4472). alpha = 1: (1, 0) + 0.6 (0.6, 0.8) = (1.36, 0.48) gives (0.943, 0.3328).
    query, gallery = features(np.float32([[2, 0]])), features(np.float32([[3, 4], [-1, 0]]))
    average = expand_query(query, gallery, k=1)
    assert average.vectors[0].tolist() == pytest.approx([0.8944, 0.4472], abs=1e-4)
    weighted = expand_query(query, gallery, k=1, alpha=1)
    assert weighted.vectors[0].tolist() == pytest.approx([0.9430, 0.3328], abs=1e-4)


def test_expansion_keeps_samples_parts_and_type_and_leaves_its_input():
    vectors = torch.from_numpy(clusters(20, 6)).half()
    before = vectors.clone()
    given_features = Features(vectors, features(vectors).samples, parts=2)
    for found in (expand_query(given_features, given_features), augment_database(given_features)):
        assert found.samples == given_features.samples and found.parts == 2
        assert found.vectors.dtype == torch.float16
        np.testing.assert_allclose(found.vectors.float().norm(dim=1), 1, atol=2e-3)
    assert torch.equal(vectors, before)


def test_copies_beyond_the_list_do_not_enter_their_own_neighbours_twice():
    copies = features(np.tile(np.float32([[0.6, 0.8]]), (9, 1)))
    found = augment_database(copies, k=3)
    np.testing.assert_allclose(found.vectors.numpy(), copies.vectors.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    "k, alpha, message",
    [
        (0, 0.0, "k = 0: expected at least 1 and at most 9"),
        (10, 0.0, "k = 10: expected at least 1 and at most 9"),
        (3, -1.0, "alpha = -1.0: expected 0"),
        (3, float("nan"), "alpha = nan"),
    ],
)
def test_expansion_refuses_numbers_out_of_range(k, alpha, message):
    items = features(clusters(10, 4))
    with pytest.raises(ValueError, match=message):
        augment_database(items, k=k, alpha=alpha)


@pytest.mark.parametrize("lambda_value", [0.0, 0.3])
def test_in_leave_one_out_no_item_is_there_twice(lambda_value):
    items = clusters(60, 8, seed=3)
    jaccard, original = dense(items, 10, 4)
    expected = (1 - lambda_value) * jaccard + lambda_value * original
    one = features(items)
    for other in (one, features(items)):  # the same set, and an equal one
        found = rerank(one, other, k1=10, k2=4, lambda_value=lambda_value)
        assert found.shape == (60, 60)
        np.testing.assert_allclose(whole(found), expected, atol=1e-5, rtol=0)
