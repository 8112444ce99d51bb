"""Genuine against impostor pairs: by hand, against loops over all pairs, and in bounded memory."""

import numpy as np
import pytest
import torch

from reidkit.evaluation import verification as module
from reidkit.evaluation.verification import verification, verify
from reidkit.types import Features


def one_row(genuine, impostors, **options):
    """A single query against gallery items of its identity and of others."""
    scores = np.array([[*genuine, *impostors]], dtype=np.float64)
    pids = [1] * len(genuine) + [2] * len(impostors)
    return verification([(0, scores)], [1], None, pids, None, "nothing", **options)


def drawn(seed, q=20, g=50, whole=False, dtype=np.float64):
    random = np.random.default_rng(seed)
    query = random.integers(1, 6, q), random.integers(0, 3, q)
    gallery = random.integers(-1, 6, g), random.integers(0, 3, g)
    same = query[0][:, None] == gallery[0]
    scores = random.standard_normal((q, g)) + same
    return (np.round(2 * scores) if whole else scores).astype(dtype), *query, *gallery


def slow_pairs(scores, query_pids, query_camids, gallery_pids, gallery_camids, exclude):
    genuine, impostors = [], []
    for i, row in enumerate(scores):
        for j, score in enumerate(row):
            same = query_pids[i] == gallery_pids[j]
            if gallery_pids[j] == -1:
                continue
            if exclude == "same_camera" and same and query_camids[i] == gallery_camids[j]:
                continue
            (genuine if same else impostors).append(float(score))
    return genuine, impostors


def slow_point(genuine, impostors, far):
    """The definition: the lowest impostor score of which no more than k reach it."""
    most = int(far * len(impostors) + 1e-9)
    fitting = [t for t in impostors if sum(i >= t for i in impostors) <= most]
    threshold = min(fitting) if fitting else np.nextafter(max(impostors), np.inf)
    accepted = sum(i >= threshold for i in impostors)
    tar = sum(g >= threshold for g in genuine) / len(genuine)
    return accepted / len(impostors), tar, threshold


def slow_auc(genuine, impostors):
    wins = [(g > i) + (g == i) / 2 for g in genuine for i in impostors]
    return sum(wins) / len(wins)


def slow_eer(genuine, impostors):
    """Along the curve through all distinct scores, where FAR + TAR passes 1."""
    before = (0.0, 0.0)
    for t in sorted({*genuine, *impostors}, reverse=True):
        far = sum(i >= t for i in impostors) / len(impostors)
        tar = sum(g >= t for g in genuine) / len(genuine)
        if far + tar >= 1:
            share = (1 - sum(before)) / (far + tar - sum(before))
            return before[0] + share * (far - before[0])
        before = far, tar
    raise AssertionError


SHARES = (1.0, 0.5, 0.3, 0.1, 0.01, 0.001)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("exclude", ["same_camera", "nothing"])
@pytest.mark.parametrize("seed", range(4))
def test_everything_equals_loops_over_all_pairs(seed, exclude, whole):
    scores, *sides = drawn(seed, whole=whole)
    genuine, impostors = slow_pairs(scores, *sides, exclude)
    found = verification([(0, scores)], *sides, exclude, fars=SHARES)
    assert (found.genuine, found.impostors) == (len(genuine), len(impostors))
    for point in found.points:
        assert (point.far, point.tar, point.threshold) == pytest.approx(
            slow_point(genuine, impostors, point.asked), abs=1e-15
        )
    assert found.auc == pytest.approx(slow_auc(genuine, impostors), abs=1e-13)
    assert found.auc_error == 0
    assert found.eer == pytest.approx(slow_eer(genuine, impostors), abs=1e-13)


def test_a_case_worked_by_hand():
    # Impostors 1 2 3 4 5 6 7 8 9 10, FAR 0.2: k = 2, the second highest is 9. Genuine 9.5 and 9
    # reach it, 8.5 and 3 do not: TAR 1/2, FAR 2/10. FAR 0.1: 10, and nobody reaches it.
    found = one_row([3, 8.5, 9, 9.5], range(1, 11), fars=(0.2, 0.1))
    assert [(p.far, p.tar, p.threshold) for p in found.points] == [(0.2, 0.5, 9), (0.1, 0, 10)]
    # Impostors below 3: 2, and 3 ties; below 8.5: 8; below 9: 8, tied; below 9.5: 9.
    assert found.auc == pytest.approx((2.5 + 8 + 8.5 + 9) / 40)
    # FAR 2/10 has TAR 2/4, down to 8.5 it is 3/4, then FAR grows: 1 - 3/4 is met at 0.25.
    assert found.eer == pytest.approx(0.25)
    assert found.tar == {0.2: 0.5, 0.1: 0}


def test_a_tie_that_would_accept_too_many_moves_the_threshold_up():
    # k = 2 of ten, but the second and third highest are both 5: only the 6 may be accepted.
    impostors = [6, 5, 5, 1, 1, 1, 1, 1, 1, 1]
    (point,) = one_row([5, 6, 7, 8], impostors, fars=(0.2,)).points
    assert (point.far, point.tar, point.threshold) == (0.1, 0.75, 6)


def test_the_threshold_stands_above_the_highest_impostor_where_none_may_be_accepted():
    few = one_row([0.5, 0.9], [0.5, 0.1], fars=(0.1,))
    assert (few.points[0].far, few.points[0].tar) == (0, 0.5)
    assert 0.5 < few.points[0].threshold < 0.5 + 1e-12
    assert "too few impostors for a FAR of 0.1" in few.table()
    tied = one_row([0.5, 0.9], [0.5, 0.5, 0.5], fars=(0.4,))
    assert (tied.points[0].far, tied.points[0].tar) == (0, 0.5)


@pytest.mark.parametrize("far, count", [(0.29, 29), (0.07, 7), (0.57, 57)])
def test_a_far_means_its_decimal_number(far, count):
    # 0.29 * 100 is 28.999999999999996 in floating point.
    assert one_row([1], range(100), fars=(far,)).points[0].far == count / 100


def test_perfect_scores_and_equal_scores():
    perfect = one_row([0.8, 0.9], [0.1, 0.2, 0.3])
    assert (perfect.auc, perfect.eer, *perfect.tar.values()) == (1, 0, 1, 1, 1, 1)
    equal = one_row([0.5] * 3, [0.5] * 7)
    assert (equal.auc, equal.eer, *equal.tar.values()) == (0.5, 0.5, 0, 0, 0, 0)
    reverse = one_row([0.1, 0.2], [0.8, 0.9])
    assert (reverse.auc, reverse.eer) == (0, 1)


def recount(roc, genuine, impostors):
    for far, tar, threshold in zip(*(column.tolist() for column in roc), strict=True):
        assert far == pytest.approx(np.mean(np.array(impostors) >= threshold), abs=1e-15)
        assert tar == pytest.approx(np.mean(np.array(genuine) >= threshold), abs=1e-15)


@pytest.mark.parametrize("whole", [False, True])
def test_every_point_of_the_curve_is_what_its_threshold_does(whole):
    scores, *sides = drawn(0, whole=whole)
    genuine, impostors = slow_pairs(scores, *sides, "nothing")
    roc = verification([(0, scores)], *sides, "nothing").roc
    recount(roc, genuine, impostors)
    assert (roc.far.diff() >= 0).all() and (roc.tar.diff() >= 0).all()
    assert (roc.threshold.diff() < 0).all()
    assert (roc.far[0], roc.tar[0], roc.far[-1], roc.tar[-1]) == (0, 0, 1, 1)
    # So few impostors are all on it.
    assert set(impostors) <= set(roc.threshold.tolist())


def test_a_long_curve_is_thinned_but_keeps_its_ends():
    random = np.random.default_rng(0)
    genuine, impostors = random.standard_normal(500) + 1, random.standard_normal(30_000)
    roc = one_row(genuine, impostors).roc
    assert 1000 < len(roc.far) <= 2000
    recount(roc, genuine, impostors)
    assert roc.far[2] == 1 / 30_000
    assert roc.far.diff().max() < 0.01


@pytest.fixture
def tiny(monkeypatch):
    """Little is held: 8 scores at most, a histogram of 64 bins, pieces of 100 scores."""
    for name, value in {"SMALL": 5, "KEPT": 8, "BINS": 64, "PIECE": 100}.items():
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_not_held_is_still_counted_exactly(tiny, seed, whole):
    scores, *sides = drawn(seed, q=40, g=90, whole=whole)
    genuine, impostors = slow_pairs(scores, *sides, "nothing")
    blocks = [(start, scores[start : start + 7]) for start in range(0, 40, 7)]
    found = verification(blocks, *sides, "nothing", fars=(0.001, 0.02, 0.3, 0.9))
    recount(found.roc, genuine, impostors)
    for point in found.points:
        assert point.far <= point.asked
        assert point.far == np.mean(np.array(impostors) >= point.threshold)
        assert point.tar == pytest.approx(np.mean(np.array(genuine) >= point.threshold))
    # Two of about 2,700 are held, and their threshold is the exact one.
    assert found.points[0].threshold == slow_point(genuine, impostors, 0.001)[2]
    # 64 bins hold four times the range of the first piece: 0.25 to 0.5 wide here.
    assert slow_point(genuine, impostors, 0.3)[2] == pytest.approx(
        found.points[2].threshold, abs=0.5
    )
    assert abs(found.auc - slow_auc(genuine, impostors)) <= found.auc_error + 1e-12
    assert 0 < found.auc_error < 0.08
    assert found.eer == pytest.approx(slow_eer(genuine, impostors), abs=0.05)


def test_a_histogram_of_the_usual_size_blurs_almost_nothing(monkeypatch):
    scores, *sides = drawn(0, q=100, g=500)
    exact = verification([(0, scores)], *sides, "nothing")
    monkeypatch.setattr(module, "SMALL", 5)
    monkeypatch.setattr(module, "KEPT", 8)
    found = verification([(0, scores)], *sides, "nothing")
    assert 0 < found.auc_error < 2e-4
    assert found.auc == pytest.approx(exact.auc, abs=1e-5)
    assert found.eer == pytest.approx(exact.eer, abs=1e-4)
    assert list(found.tar.values()) == pytest.approx(list(exact.tar.values()), abs=1e-3)


def test_the_histogram_follows_scores_that_leave_its_range(tiny):
    # Each block is a hundred times as wide as the one before, and the first has no width at all.
    scores = np.concatenate(
        [np.zeros((1, 60)), *(100.0**n * np.linspace(-1, 1, 60)[None] for n in range(4))]
    )
    pids = np.array([1] * 10 + [2] * 50)
    found = verification(
        [(n, row[None]) for n, row in enumerate(scores)], [1] * 5, None, pids, None, "nothing"
    )
    genuine, impostors = scores[:, :10].ravel(), scores[:, 10:].ravel()
    recount(found.roc, genuine, impostors)
    assert abs(found.auc - slow_auc(genuine, impostors)) <= found.auc_error + 1e-12


def test_only_the_highest_impostors_are_held(tiny):
    tally = module._Impostors(total=10_000, wanted=7)
    values = np.random.default_rng(0).permutation(10_000).astype(np.float64)
    for piece in np.split(values, 100):
        tally.add(piece)
    assert len(tally.buffer) == 16
    assert tally.highest().tolist() == list(range(9992, 10_000))
    edges, counts = tally.bins()
    assert counts.sum() == 10_000
    for edge, count in zip(edges, counts.cumsum(), strict=True):
        assert (values >= edge).sum() == count


@pytest.mark.parametrize("form", ["one", "rows", "backwards", "tensors", "float32", "generator"])
def test_blocks_may_come_in_any_size_order_and_type(form):
    scores, *sides = drawn(1, dtype=np.float32 if form == "float32" else np.float64)
    expected = verification([(0, scores.astype(np.float64))], *sides)
    steps = {"one": 20, "rows": 1}.get(form, 6)
    blocks = [(start, scores[start : start + steps]) for start in range(0, 20, steps)]
    if form == "backwards":
        blocks = blocks[::-1]
    if form == "tensors":
        blocks = [(start, torch.from_numpy(block)) for start, block in blocks]
    before = scores.copy()
    found = verification(iter(blocks) if form == "generator" else blocks, *sides)
    assert found.points == expected.points
    assert (found.auc, found.eer) == (expected.auc, expected.eer)
    assert np.array_equal(scores, before)


def test_an_item_is_no_pair_with_itself():
    scores = np.array([[9.0, 3, 1], [3, 9, 2], [1, 2, 9]])
    found = verification([(0, scores)], [1, 1, 2], None, [1, 1, 2], None, "itself", fars=(0.5,))
    # Genuine 3, 3; impostors 1, 2, 1, 2: k = 2, threshold 2.
    assert (found.genuine, found.impostors) == (2, 4)
    assert (found.points[0].threshold, found.points[0].tar) == (2, 1)


def sides(seed=0, q=30, g=80):
    random = np.random.default_rng(seed)
    centres = random.standard_normal((7, 12))

    def side(n):
        pids = random.integers(0, 7, n)
        vectors = (centres[pids] + random.standard_normal((n, 12))).astype(np.float32)
        return Features.from_arrays(vectors, pids, random.integers(0, 3, n))

    return side(q), side(g)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_features_give_what_their_scores_give(metric):
    query, gallery = sides()
    # Queries of many lengths: a query's own must not tell on its distances.
    lengths = torch.linspace(0.2, 3, len(query))[:, None]
    query = Features(query.vectors * lengths, query.samples)
    a, b = query.vectors.double().numpy(), gallery.vectors.double().numpy()
    if metric == "cosine":
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        scores = a @ b.T
    else:
        scores = -np.linalg.norm(a[:, None] - b, axis=2)
    pids = query.pids, query.camids, gallery.pids, gallery.camids
    expected = verification([(0, scores)], *pids, fars=(0.1, 0.01))
    found = verify(query, gallery, "market1501", metric=metric, fars=(0.1, 0.01))
    assert (found.genuine, found.impostors) == (expected.genuine, expected.impostors)
    assert found.tar == expected.tar
    for point, exact in zip(found.points, expected.points, strict=True):
        assert point.threshold == pytest.approx(exact.threshold, abs=1e-12)
    assert (found.auc, found.eer) == pytest.approx((expected.auc, expected.eer), abs=1e-12)


def test_leave_one_out_features_are_no_pairs_with_themselves():
    _, both = sides()
    found = verify(both, both, "same_class")
    same = (both.pids[:, None] == both.pids).sum() - len(both)
    assert found.genuine == same
    assert found.impostors == len(both) ** 2 - len(both) - same


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_few_queries_at_a_time_give_the_same(metric, monkeypatch):
    whole = verify(*sides(), "no_camera", metric=metric)
    monkeypatch.setattr(module, "PIECE", 200)
    found = verify(*sides(), "no_camera", metric=metric)
    assert found.tar == whole.tar
    assert (found.auc, found.eer) == pytest.approx((whole.auc, whole.eer))


def test_the_table_and_the_plain_values_say_the_same():
    found = one_row([3, 8.5, 9, 9.5], range(1, 11), fars=(0.2,))
    assert "50.00%" in found.table()
    assert "4 genuine pairs, 10 impostors; EER 25.00 %, AUC 70.00 %" in found.table()
    plain = found.to_dict()
    assert plain["points"] == [{"asked": 0.2, "far": 0.2, "tar": 0.5, "threshold": 9.0}]
    assert plain["roc"]["far"] == found.roc.far.tolist()


GOOD = [(0, np.ones((2, 3)))]
PIDS = [1, 2], None, [1, 2, 2], None, "nothing"


@pytest.mark.parametrize(
    "blocks, words",
    [
        ([(0, np.ones((2, 4)))], r"\(2, 4\) float64; expected floating \(rows, 3\)"),
        ([(0, np.ones(3))], r"expected floating \(rows, 3\)"),
        ([(0, np.ones((2, 3), int))], "int64; expected floating"),
        ([(0, np.ones((1, 3)))], "no block holds query 1"),
        ([], "no block holds query 0"),
        ([*GOOD, *GOOD], "queries 0 to 1; expected each of the 2 queries once"),
        ([(1, np.ones((2, 3)))], "queries 1 to 2"),
        ([(0, np.array([[1, 1, 1], [1, np.nan, 1]]))], "score of query 1 is not finite"),
        ([(0, np.full((2, 3), np.inf))], "score of query 0 is not finite"),
    ],
)
def test_blocks_that_are_no_scores_of_all_queries_are_refused(blocks, words):
    with pytest.raises(ValueError, match=words):
        verification(blocks, *PIDS)


@pytest.mark.parametrize(
    "change, words",
    [
        ({0: [-1, 2]}, "pid -1"),
        ({0: [1.0, 2.0]}, "query: pids must be integers"),
        ({2: ["a", "b", "b"]}, "gallery: pids must be integers"),
        ({2: [[1, 2, 2]]}, "gallery: pids has shape"),
        ({0: np.empty(0, int)}, "query is empty"),
        ({2: [3, 3, 3]}, "no query has a right answer"),
        ({0: [1, 1], 2: [1, 1, 1]}, "no impostor pair is left"),
        ({4: "same_camera"}, "needs camids"),
        ({4: "same_view"}, "unknown exclusion 'same_view'"),
        ({4: "itself"}, "one set in one order"),
        ({1: [0], 3: [0, 0, 0]}, "query: camids has shape"),
    ],
)
def test_identities_that_do_not_fit_are_refused(change, words):
    arguments = [change.get(n, value) for n, value in enumerate(PIDS)]
    with pytest.raises(ValueError, match=words):
        verification(GOOD, *arguments)


@pytest.mark.parametrize("far", [0, -0.1, 1.5, float("nan")])
def test_a_far_out_of_range_is_refused(far):
    with pytest.raises(ValueError, match=r"FAR = .*expected a share in \(0, 1\]"):
        verification(GOOD, *PIDS, fars=(0.1, far))


def test_features_that_cannot_be_compared_are_refused():
    query, gallery = sides()
    spoilt = Features(query.vectors.clone(), query.samples)
    spoilt.vectors[3, 2] = torch.nan
    with pytest.raises(ValueError, match=r"query feature 3 .* is not finite"):
        verify(spoilt, gallery, "market1501")
    with pytest.raises(ValueError, match="unknown metric"):
        verify(query, gallery, "market1501", metric="manhattan")
    with pytest.raises(ValueError, match="unknown protocol"):
        verify(query, gallery, "market")
