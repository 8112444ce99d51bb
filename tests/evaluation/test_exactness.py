"""What other evaluators get wrong, and the paths that plain data does not reach."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidkit.evaluation import (
    evaluate,
    evaluate_arrays,
    evaluate_distances,
    evaluate_reranked,
    find_hits,
    kernels,
    rerank,
)
from reidkit.evaluation import hits as module
from reidkit.evaluation.sides import side_of_arrays
from reidkit.types import EvalProtocol, Features, Sample
from tests.evaluation.test_hits import MARKET, NOTHING, drawn, features, lists, slow_ranks

SAME_VIEW = EvalProtocol("same_view")


def slow_scores(ranks):
    """mAP, mINP, rank-1, rank-5, rank-10 of lists of ranks, queries without any left out."""
    per_query = []
    for row in (row for row in ranks if row):
        precision = sum((i + 1) / r for i, r in enumerate(row)) / len(row)
        per_query.append([precision, len(row) / row[-1], *(row[0] <= k for k in (1, 5, 10))])
    return np.mean(per_query, axis=0)


def tracklets(seed, pids=6, frames=4):
    """A video benchmark: a tracklet's vector is the mean of its frames', some are junk."""
    random = np.random.default_rng(seed)

    def side(count, lowest):
        vectors = random.standard_normal((count, frames, 5)).mean(1).astype(np.float32)
        return features(vectors, random.integers(lowest, pids, count), random.integers(0, 2, count))

    return side(7, 1), side(30, -1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    q=st.integers(1, 8),
    g=st.integers(1, 60),
    dim=st.integers(1, 40),
    kind=st.sampled_from(["random", "whole", "copies", "long", "video"]),
    metric=st.sampled_from(["cosine", "euclidean"]),
)
def test_every_score_equals_brute_force(seed, q, g, dim, kind, metric):
    query, gallery = drawn(seed, q, g, dim, pids=5, whole=kind == "whole")
    random = np.random.default_rng(seed)
    if kind == "copies":
        which = random.integers(0, g, 2 * g)
        pids = random.integers(-1, 5, 2 * g)  # junk and distractors among them
        gallery = features(gallery.vectors[which], pids, random.integers(0, 3, 2 * g))
    if kind == "long":
        gallery = Features(
            gallery.vectors * 10 ** torch.linspace(-2, 2, g)[:, None], gallery.samples
        )
    if kind == "video":
        query, gallery = tracklets(seed)
    ranks, _ = slow_ranks(query, gallery, MARKET, metric)
    if not any(ranks):
        with pytest.raises(ValueError, match="no query has a right answer"):
            evaluate(query, gallery, MARKET, metric=metric)
        return
    found = evaluate(query, gallery, MARKET, metric=metric)
    assert list(found.values()) == pytest.approx(slow_scores(ranks), abs=1e-9)
    assert found.skipped == sum(not row for row in ranks)


def blob(count, dim, seed, spread):
    """Nearly the same vector many times: float32 products cannot tell them apart."""
    random = np.random.default_rng(seed)
    return (1 + spread * random.standard_normal((count, dim))).astype(np.float32)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("spread", [1e-3, 1e-4])
def test_pairs_that_float32_cannot_tell_apart_are_ranked_by_float64(metric, spread):
    query = features(blob(6, 300, 1, spread), [1, 2, 3, 1, 2, 3])
    gallery = features(blob(150, 300, 2, spread), np.arange(150) % 4)
    ranks, _ = slow_ranks(query, gallery, NOTHING, metric, tie=1.5e-13)
    assert lists(find_hits(query, gallery, NOTHING, metric=metric)) == ranks


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_too_many_undecided_pairs_are_settled_by_float64_products(monkeypatch, metric):
    query, gallery = drawn(4, q=12, g=150, dim=30)
    expected = find_hits(query, gallery, MARKET, metric=metric)
    dtypes, place = set(), kernels.place

    def watched(rows, centre, scales, out, squares):
        dtypes.add(out.dtype)
        place(rows, centre, scales, out, squares)

    monkeypatch.setattr("reidkit.evaluation.space.CERTAIN", 1e9)  # all pairs are undecided
    monkeypatch.setattr(kernels, "place", watched)
    found = find_hits(query, gallery, MARKET, metric=metric)
    assert lists(found) == lists(expected) and found.tied.equal(expected.tied)
    assert np.dtype(np.float64) in dtypes


@pytest.mark.parametrize("many", [0, 10_000])
@pytest.mark.parametrize("whole", [True, False])
def test_both_ways_to_count_give_the_same_ranks(monkeypatch, many, whole):
    # Three identities in 300: a query has a hundred right answers.
    query, gallery = drawn(5, q=10, g=300, dim=8, pids=4, whole=whole)
    ranks, _ = slow_ranks(query, gallery, MARKET)
    if many == 0:
        python = kernels.count_closer.py_func
        monkeypatch.setattr(kernels, "MANY", 0)
        monkeypatch.setattr(kernels, "count_closer", python)
    assert lists(find_hits(query, gallery, MARKET)) == ranks


def test_a_memory_mapped_gallery_gives_the_same_scores(tmp_path):
    query, gallery = drawn(6, q=20, g=500, dim=16)
    np.save(tmp_path / "gallery.npy", gallery.vectors.numpy())
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    arrays = [query.vectors, query.pids, query.camids], [gallery.pids, gallery.camids]
    for metric in ("cosine", "euclidean"):
        found = evaluate_arrays(*arrays[0], mapped, *arrays[1], metric=metric, memory="64KB")
        assert dict(found) == dict(evaluate(query, gallery, "market1501", metric=metric))
    assert side_of_arrays(mapped, *arrays[1]).vectors is mapped  # never copied


@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_threads_gives_the_same_ranks(monkeypatch, threads):
    query, gallery = drawn(7, q=40, g=400, dim=16)
    expected = lists(find_hits(query, gallery, MARKET))
    monkeypatch.setattr("reidkit.evaluation.threads.SMALL", 0)  # threads even for so little
    monkeypatch.setattr(module, "GALLERY_ROWS", 32)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert lists(find_hits(query, gallery, MARKET)) == expected


def test_an_error_in_a_thread_reaches_the_caller(monkeypatch):
    def broken(*arguments):
        raise RuntimeError("no product today")

    monkeypatch.setattr("reidkit.evaluation.threads.SMALL", 0)
    monkeypatch.setattr(module, "multiply", broken)
    with pytest.raises(RuntimeError, match="no product today"):
        find_hits(*drawn(8), MARKET)


def test_the_product_on_a_device_equals_the_one_on_the_cpu():
    # The path that a GPU takes, with the CPU as the device: a name that is not "cpu" takes it.
    query, gallery = drawn(9, q=10, g=90, dim=33)
    out, expected = np.empty((10, 90), np.float32), np.empty((10, 90), np.float32)
    cpu = torch.device("cpu")
    from reidkit.evaluation.space import multiply, multiply_on_device

    multiply(query.vectors.numpy(), gallery.vectors.numpy(), expected, cpu)
    multiply_on_device(query.vectors.numpy(), gallery.vectors.numpy(), out, cpu)
    assert np.allclose(out, expected, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_features_on_a_gpu_give_the_ranks_of_the_cpu():
    query, gallery = drawn(10, q=30, g=300, dim=64)
    moved = [Features(side.vectors.cuda(), side.samples) for side in (query, gallery)]
    assert lists(find_hits(*moved, MARKET)) == lists(find_hits(query, gallery, MARKET))


# The known errors of other evaluators, each as a case that ours must get right.


def test_fewer_than_twenty_items_left_do_not_read_the_query_before():
    # A compiled CMC elsewhere reads the previous query's tail where fewer than 20 items are left.
    # Query 0 has 25 candidates and its right answer last; query 1 has 2 (the rest is its own
    # camera), the right one second.
    query = features([[0.0], [100.0]], [1, 2], [0, 0])
    near = [[float(i)] for i in range(1, 25)]
    gallery = features(
        [*near, [30.0], *[[100.0 + i] for i in range(30)], [95.0], [90.0]],
        [*[3] * 24, 1, *[2] * 30, 4, 2],
        [*[1] * 25, *[0] * 30, 1, 1],
    )
    rules = EvalProtocol("same_camera", ("rank-1", "rank-2", "rank-20"))
    found = find_hits(query, gallery, rules, metric="euclidean")
    # For query 1: 95 (wrong), 90 (right), then the 25 of query 0: it has 27 candidates.
    assert lists(found) == [[25], [2]]
    assert found.candidates.tolist() == [57, 27]
    only_two = Features(gallery.vectors[25:], gallery.samples[25:])
    with_few = evaluate(query, only_two, rules, metric="euclidean")
    assert (with_few["rank-1"], with_few["rank-2"], with_few["rank-20"]) == (0, 1, 1)
    assert with_few.skipped == 1 and len(with_few.cmc) == 32


def test_right_answers_with_a_score_below_zero_count():
    # torchmetrics drops right answers whose score is not above 0: cosine -0.6 is one.
    query = features([[1.0, 0]], [1])
    gallery = features([[-0.6, 0.8], [-0.8, 0.6], [0.0, 1]], [1, 1, 2])
    found = find_hits(query, gallery, NOTHING)
    assert lists(found) == [[2, 3]]


def test_distances_that_are_nan_are_refused_with_their_place():
    distances = np.array([[0.1, 0.2], [0.3, np.nan]])
    with pytest.raises(ValueError, match="query 1 to gallery item 1 is NaN"):
        evaluate_distances(distances, [1, 2], None, [1, 2], None, "no_camera")


def test_a_collapsed_model_gets_the_same_low_score_whatever_the_order():
    # Elsewhere ties give 0.025 to 0.375 rank-1 depending on the gallery's order.
    query = features(np.ones((40, 8)), np.arange(40) % 8 + 1)
    for seed in range(3):
        pids = np.random.default_rng(seed).permutation(np.arange(40) % 8 + 1)
        found = evaluate(query, features(np.ones((40, 8)), pids), "no_camera")
        # 35 wrong answers stand before 5 right ones: AP = mean of i / (35 + i).
        assert found["rank-1"] == 0
        assert found["mAP"] == pytest.approx(np.mean([i / (35 + i) for i in range(1, 6)]))
        assert found.tied == 40


def test_queries_without_an_answer_are_no_zeros_in_the_mean():
    # open-metric-learning counts them as 0.
    query = features([[0.0], [5.0]], [1, 9])
    found = evaluate(query, features([[0.1], [5.1]], [1, 2]), "no_camera", metric="euclidean")
    assert (found["rank-1"], found.queries, found.skipped) == (1, 1, 1)


# Distances from elsewhere.


@pytest.mark.parametrize("rules", [MARKET, NOTHING])
@pytest.mark.parametrize("whole", [True, False])
def test_distances_give_the_scores_of_the_features_they_come_from(rules, whole):
    query, gallery = drawn(11, q=30, g=120, dim=6, whole=whole)
    q, g = query.vectors.double(), gallery.vectors.double()
    table = (q[:, None] - g[None]).square().sum(2)
    ids = query.pids, query.camids, gallery.pids, gallery.camids
    expected = evaluate(query, gallery, rules, metric="euclidean")
    for blocks in (table, table.numpy(), table.split(7), iter(table.numpy()[:, None])):
        found = evaluate_distances(blocks, *ids, rules)
        assert dict(found) == pytest.approx(dict(expected), abs=1e-12)
        assert found.tied == expected.tied


@pytest.mark.parametrize(
    "blocks, words",
    [
        (np.zeros((3, 4)), "expected rows of 2 gallery items, 2 rows in all"),
        (np.zeros((1, 2)), "1 rows of distances for 2 queries"),
        (np.zeros((3, 2)), "2 rows in all"),
        (np.zeros(4), r"need shape \(Q, G\)"),
    ],
)
def test_distances_that_do_not_fit_are_refused(blocks, words):
    with pytest.raises(ValueError, match=words):
        evaluate_distances(blocks, [1, 2], None, [1, 2], None, "no_camera")


def test_a_protocol_that_needs_features_refuses_distances():
    with pytest.raises(ValueError, match="which distances do not tell"):
        evaluate_distances(np.zeros((1, 1)), [1], [0], [1], [1], "cuhk03_single_shot")


@pytest.mark.parametrize(
    "rules", [EvalProtocol("same_view"), EvalProtocol("nothing", gallery="without_queries")]
)
def test_a_protocol_about_views_or_files_refuses_bare_distances(rules):
    with pytest.raises(ValueError, match="which pids and camids do not tell"):
        evaluate_distances(np.zeros((1, 1)), [1], [0], [1], [1], rules)


def test_reranked_scores_are_those_of_the_reranked_distances():
    query, gallery = drawn(16, q=20, g=90, dim=8)
    blocks = rerank(query, gallery)
    ids = query.pids, query.camids, gallery.pids, gallery.camids
    expected = evaluate_distances(np.concatenate(list(blocks)), *ids)
    found = evaluate_reranked(query, gallery, "market1501")
    assert dict(found) == dict(expected) == dict(evaluate_distances(blocks, *ids))
    assert dict(found) != dict(evaluate(query, gallery, "market1501"))


def test_an_infinite_distance_is_far_but_stays_an_answer():
    # The first item is left out (own camera), the second right, the third wrong and as far.
    table = np.array([[0.0, np.inf, np.inf]])
    found = evaluate_distances(table, [1], [0], [1, 1, 2], [0, 1, 1])
    assert (found["mAP"], found.tied) == (0.5, 1)


# What should be pointed out.


@pytest.mark.parametrize("side", [0, 1])
def test_cameras_that_are_unknown_on_one_side_are_no_cameras(side):
    # Query cameras against a gallery without any would leave nothing out, and look like a score.
    sides = list(drawn(17))
    sides[side] = features(sides[side].vectors, sides[side].pids)
    with pytest.raises(ValueError, match=f"those of the {('query', 'gallery')[side]} are unknown"):
        evaluate(*sides, "market1501")
    evaluate(*sides, "no_camera")


def test_features_of_two_models_are_never_compared():
    query, gallery = drawn(12)
    one = Features(query.vectors, query.samples, model="aaaa")
    with pytest.raises(ValueError, match="of model aaaa, gallery features of bbbb"):
        evaluate(one, Features(gallery.vectors, gallery.samples, model="bbbb"), MARKET)
    evaluate(one, gallery, MARKET)  # an unknown model is no other model


def test_a_query_that_stands_in_the_gallery_itself_is_pointed_out(caplog):
    query, gallery = drawn(13, pids=3)
    both = Features(torch.cat([gallery.vectors, query.vectors]), (*gallery.samples, *query.samples))
    found = evaluate(query, both, "no_camera")
    assert "9 queries have a right answer at distance 0" in found.warnings[0]
    assert "9 queries" in caplog.text
    assert not evaluate(query, both, "market1501").warnings  # the camera rule leaves them out
    assert not evaluate(query, gallery, "no_camera").warnings


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("side", [0, 1])
def test_either_side_may_have_collapsed_and_either_is_named(caplog, metric, value, side):
    sides = list(drawn(18))
    sides[side] = Features(torch.full_like(sides[side].vectors, value), sides[side].samples)
    found = evaluate(*sides, "no_camera", metric=metric)
    assert f"features of the {('query', 'gallery')[side]} are almost all one" in found.warnings[0]
    assert "collapsed" in caplog.text


def test_leave_one_out_on_two_sets_is_pointed_out():
    query, gallery = drawn(19)
    assert "leave-one-out" in evaluate(query, gallery, "same_class").warnings[0]
    assert not evaluate(gallery, gallery, "same_class").warnings


def test_numbers_whose_squares_leave_float64_are_told_apart_from_nan():
    query, gallery = drawn(21)
    huge = Features(gallery.vectors.double() * 1e300, gallery.samples)
    with pytest.raises(ValueError, match=r"gallery feature 0 .* is so large that its square"):
        evaluate(query, huge, "market1501")


def test_identities_beyond_64_bits_are_refused():
    with pytest.raises(ValueError, match="pids go up to 18446744073709551615"):
        Features.from_arrays(torch.eye(2), np.array([1, 2**64 - 1], dtype=np.uint64))


def test_the_intervals_hold_the_scores():
    query, gallery = drawn(14, q=60, g=200)
    found = evaluate(query, gallery, "market1501")
    assert list(found.interval) == list(found)
    for name, (low, high) in found.interval.items():
        assert 0 <= low <= found[name] <= high <= 1
    assert found.interval["mAP"][0] < found["mAP"] < found.interval["mAP"][1]
    assert "95 %" in found.table()


def test_a_gallery_without_the_queries_leaves_out_every_query_for_all():
    names = [("a",), ("b",), ("c",), ("d",)]
    pids = [1, 1, 2, 2]
    gallery = Features(
        torch.tensor([[0.0], [1.0], [0.4], [3.0]]),
        tuple(
            Sample(name, pid, camid=i % 2)
            for i, (name, pid) in enumerate(zip(names, pids, strict=True))
        ),
    )
    query = Features(gallery.vectors[[0, 2]], (gallery.samples[0], gallery.samples[2]))
    rules = EvalProtocol("same_camera", gallery="without_queries")
    hits = find_hits(query, gallery, rules, metric="euclidean")
    # b and d are left: from a (0): b (1) right; from c (0.4): b (0.6) wrong, d (2.6) right.
    assert lists(hits) == [[1], [2]]
    assert hits.candidates.tolist() == [2, 2]
