"""Label estimation across cameras: the toy cases, a slow twin, and what must make no difference."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidkit.unsupervised.constraints import CannotLink
from reidkit.unsupervised.matching import (
    estimate_matches,
    join,
    match_tracklets,
    mutual_best,
    nearest,
    propagate,
)


def apart(x, y):
    """|x - y| of 1-D tracklets of one frame."""
    return np.abs(np.subtract.outer(np.asarray(x, float), np.asarray(y, float)))


def blocks_of(*cameras):
    """Distances of cameras 0, 1, ... whose tracklets are rows (N, d)."""
    between = [[np.linalg.norm(a[:, None] - b[None], axis=2) for b in cameras] for a in cameras]
    return {(i, j): between[i][j] for i in range(len(cameras)) for j in range(i, len(cameras))}


def cloud(*counts, dim=3, noise=0.4, seed=0):
    """Cameras that see the same people, with noise, each in an order of its own."""
    draw = np.random.default_rng(seed)
    people = draw.standard_normal((max(counts), dim))
    return [
        people[draw.permutation(len(people))[:count]] + noise * draw.standard_normal((count, dim))
        for count in counts
    ]


def estimate(a, b, **options):
    return estimate_matches(apart(a, a), apart(b, b), apart(a, b), **options)


def pairs(found):
    return {(match.cam_a, match.a, match.cam_b, match.b) for match in found}


T1 = ([0, 3, 10], [0.5, 2.5, 6])
T2 = ([0, 3, 10], [2.4, 6, 10.2])


def test_t1_gives_the_printed_numbers():
    found = estimate(*T1, k=2, sigma=1)
    scores = [[0.6440, 0.0379, 0], [0.0379, 0.6440, 0], [0, 0, 0.8304]]
    to_b = [[0.8114, 0.2378, 0.0023], [0.2378, 0.8114, 0.0138], [0, 0, 0.2007]]
    np.testing.assert_array_equal(found.scores.round(4), scores)
    np.testing.assert_array_equal(found.to_b.round(4), to_b)
    assert mutual_best(found.scores).tolist() == [[0, 0], [1, 1], [2, 2]]


def test_t2_gives_the_printed_numbers():
    found = estimate(*T2, k=2, sigma=1)
    scores = [[0.3192, 0.3658, 0], [0, 0.2834, 0.0415], [0, 0, 0.8223]]
    np.testing.assert_array_equal(found.scores.round(4), scores)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("combine", ["product", "sum"])
def test_in_t2_the_hard_negative_is_claimed_by_its_true_partner(k, combine):
    a, b = T2
    assert apart(a, b).argmin(1).tolist() == [0, 0, 2]  # the nearest of A0 is a false match
    found = mutual_best(estimate(a, b, k=k, sigma=1, combine=combine).scores)
    assert found.tolist() == [[1, 0], [2, 2]]


def slow_twin(within_a, within_b, across, k, sigma, gate, combine):
    """Steps 1 to 7 with loops; the propagation as a long walk, summed step by step."""
    n, m = across.shape
    blocks = {"aa": within_a, "bb": within_b, "ab": across, "ba": across.T}
    similar, kept = {}, {}
    for name, block in blocks.items():
        rows, columns = block.shape
        similar[name] = [
            [math.exp(-abs(block[i][j]) / sigma) for j in range(columns)] for i in range(rows)
        ]
        kept[name] = [[False] * columns for _ in range(rows)]
        for j in range(columns):
            order = sorted(range(rows), key=lambda i: -similar[name][i][j])
            for i in order[:k]:
                kept[name][i][j] = True
    w = np.zeros((n + m, n + m))
    for i in range(n):
        for j in range(n):
            w[i, j] = similar["aa"][i][j] * kept["aa"][i][j]
    for i in range(m):
        for j in range(m):
            w[n + i, n + j] = similar["bb"][i][j] * kept["bb"][i][j]
    for a in range(n):
        for b in range(m):
            to_b, to_a = kept["ba"][b][a], kept["ab"][a][b]
            both = to_a and to_b
            w[n + b, a] = similar["ba"][b][a] * (both if gate else to_b)
            w[a, n + b] = similar["ab"][a][b] * (both if gate else to_a)
    for column in range(n + m):
        if w[:, column].sum() > 0:
            w[:, column] /= w[:, column].sum()
    strongest = []
    for within, entering in ((w[n:, n:], w[n:, :n]), (w[:n, :n], w[:n, n:])):
        reached, step = np.zeros(entering.shape), entering
        for _ in range(20_000):
            reached, step = reached + step, within @ step
        for column in reached.T:
            for i in sorted(range(len(column)), key=lambda i: -column[i])[k:]:
                column[i] = 0
            if column.sum() > 0:
                column /= column.sum()
        strongest.append(reached)
    forth, back = strongest[0], strongest[1].T
    return forth * back if combine == "product" else forth + back


@pytest.mark.parametrize("counts", [(7, 7), (9, 5), (1, 6)])
@pytest.mark.parametrize("k, combine", [(1, "product"), (3, "product"), (3, "sum"), (50, "sum")])
def test_scores_equal_the_slow_twin(counts, k, combine):
    blocks = blocks_of(*cloud(*counts, seed=sum(counts)))
    options = {"k": k, "sigma": 1.5, "gate": False, "combine": combine}
    found = estimate_matches(blocks[0, 0], blocks[1, 1], blocks[0, 1], **options)
    expected = slow_twin(blocks[0, 0], blocks[1, 1], blocks[0, 1], **options)
    np.testing.assert_allclose(found.scores, expected, atol=1e-8)


def test_the_gate_equals_the_slow_twin():
    blocks = blocks_of(*cloud(8, 8, noise=0.2, seed=1))
    options = {"k": 3, "sigma": 1.5, "gate": True, "combine": "product"}
    found = estimate_matches(blocks[0, 0], blocks[1, 1], blocks[0, 1], **options)
    expected = slow_twin(blocks[0, 0], blocks[1, 1], blocks[0, 1], **options)
    np.testing.assert_allclose(found.scores, expected, atol=1e-8)


cameras = st.builds(
    lambda seed, n, m, noise: cloud(n, m, noise=noise, seed=seed),
    st.integers(0, 10_000),
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.3, 1.0]),
)
options = st.fixed_dictionaries(
    {
        "k": st.integers(1, 12),
        "gate": st.booleans(),
        "combine": st.sampled_from(["product", "sum"]),
        "sigma": st.sampled_from([None, 0.5]),
    }
)


@given(cameras, options, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_permuting_a_camera_permutes_the_matches_and_nothing_else(two, how, random):
    a, b = two
    order = list(range(len(b)))
    random.shuffle(order)
    found = match_tracklets(blocks_of(a, b), **how)
    permuted = match_tracklets(blocks_of(a, b[order]), **how)
    assert pairs(found) == {(i, x, j, order[y]) for i, x, j, y in pairs(permuted)}
    score = {(match.a, match.b): match.score for match in found}
    for match in permuted:
        assert match.score == pytest.approx(score[match.a, order[match.b]], rel=1e-6)


@given(cameras, options)
@settings(max_examples=60, deadline=None)
def test_swapping_the_cameras_transposes_the_matches(two, how):
    a, b = two
    found, swapped = (
        match_tracklets(blocks_of(a, b), **how),
        match_tracklets(blocks_of(b, a), **how),
    )
    assert pairs(found) == {(0, y, 1, x) for _, x, _, y in pairs(swapped)}


def gated(a, b, k, rule):
    """Which cross pairs a gate keeps, (N_b, N_a)."""
    similarity = np.exp(-np.linalg.norm(a[:, None] - b[None], axis=2))
    b_near_a, a_near_b = nearest(similarity.T, k), nearest(similarity, k)
    if rule == "released":
        # Row i of A and of B are taken for one person: [b_j in kNN(a_i)] [b_i in kNN(a_j)].
        return b_near_a & b_near_a.T
    return b_near_a & a_near_b.T


def test_the_released_code_s_gate_changes_with_the_order_and_ours_does_not():
    draw = np.random.default_rng(0)
    people = draw.standard_normal((12, 3))
    a, b = (people + 0.5 * draw.standard_normal((12, 3)) for _ in range(2))
    order = np.random.default_rng(5).permutation(12)
    back = np.argsort(order)
    leaking = gated(a, b, 3, "released"), gated(a, b[order], 3, "released")[back]
    assert (leaking[0] != leaking[1]).any()
    ours = gated(a, b, 3, "spec"), gated(a, b[order], 3, "spec")[back]
    assert (ours[0] == ours[1]).all()
    found = match_tracklets(blocks_of(a, b), k=3, gate=True)
    permuted = match_tracklets(blocks_of(a, b[order]), k=3, gate=True)
    assert len(found) > 3
    assert pairs(found) == {(i, x, j, int(order[y])) for i, x, j, y in pairs(permuted)}


def test_the_gate_keeps_pairs_that_are_each_other_s_neighbours():
    a, b = cloud(12, 12, noise=0.5, seed=3)
    distance = np.linalg.norm(a[:, None] - b[None], axis=2)
    mutual = gated(a, b, 2, "spec")
    for i in range(12):
        for j in range(12):
            near = j in np.argsort(distance[i])[:2] and i in np.argsort(distance[:, j])[:2]
            assert mutual[j, i] == near


def test_the_upper_block_is_not_transposed():
    # With the transposed block a0's neighbour in B would be read where b0's neighbour in A stands.
    a, b = np.array([0.0, 10, 20]), np.array([20.0, 0, 10])
    found = match_tracklets({(0, 0): apart(a, a), (0, 1): apart(a, b), (1, 1): apart(b, b)}, k=1)
    assert pairs(found) == {(0, 0, 1, 1), (0, 1, 1, 2), (0, 2, 1, 0)}


def test_every_two_of_several_cameras_are_matched_as_if_alone():
    three = cloud(9, 6, 8, noise=0.2)
    blocks = blocks_of(*three)
    found = match_tracklets({(i * 7, j * 7): block for (i, j), block in blocks.items()}, k=4)
    assert [(m.cam_a, m.cam_b, m.a) for m in found] == sorted(
        (m.cam_a, m.cam_b, m.a) for m in found
    )
    for i, j in ((0, 1), (0, 2), (1, 2)):
        alone = match_tracklets(blocks_of(three[i], three[j]), k=4)
        ours = {(m.a, m.b) for m in found if (m.cam_a, m.cam_b) == (i * 7, j * 7)}
        assert ours == {(m.a, m.b) for m in alone} and ours


def test_the_block_of_a_pair_may_be_given_either_way_round():
    blocks = blocks_of(*cloud(6, 4))
    other = {(0, 0): blocks[0, 0], (1, 1): blocks[1, 1], (1, 0): blocks[0, 1].T}
    assert match_tracklets(other) == match_tracklets(blocks)
    assert match_tracklets(blocks | other) == match_tracklets(blocks)


def test_negative_distances_count_by_their_size():
    blocks = blocks_of(*cloud(6, 4))
    assert match_tracklets({pair: -block for pair, block in blocks.items()}) == match_tracklets(
        blocks
    )


def test_without_sigma_the_scale_of_the_distances_makes_no_difference():
    blocks = blocks_of(*cloud(8, 8))
    larger = {pair: 1e6 * block for pair, block in blocks.items()}
    assert pairs(match_tracklets(larger)) == pairs(match_tracklets(blocks))


def test_ties_are_no_match():
    same = {(0, 0): np.zeros((3, 3)), (0, 1): np.zeros((3, 4)), (1, 1): np.zeros((4, 4))}
    assert match_tracklets(same) == []
    a, b = [0.0, 9.0], [1.0, 1.0, 9.0]  # two of B stand at one place
    twins = {(0, 0): apart(a, a), (0, 1): apart(a, b), (1, 1): apart(b, b)}
    assert pairs(match_tracklets(twins)) == {(0, 1, 1, 2)}


def test_tracklets_that_never_reach_the_other_camera_stay_alone():
    a, b = [0.0, 100.0, 101.0], [0.0, 1000.0, 1001.0]
    far = {(0, 0): apart(a, a), (0, 1): apart(a, b), (1, 1): apart(b, b)}
    found = match_tracklets(far, k=1, gate=True, sigma=1)
    assert (0, 0, 1, 0) in pairs(found)
    assert np.isfinite([match.score for match in found]).all()


def test_a_singular_block_is_solved_with_a_ridge():
    found = propagate(np.eye(2), np.array([[0.5], [0.0]]))
    np.testing.assert_allclose(found, [[0.5e6], [0]])
    chain = np.array([[0.0, 0, 0], [0, 0.5, 0.5], [0, 0.5, 0.5]])  # the last two never leave
    np.testing.assert_allclose(
        propagate(chain, np.array([[1.0], [0], [0]])).ravel(), [1, 0, 0], atol=1e-5
    )


@pytest.mark.parametrize("gate", [False, True])
def test_no_similarity_at_all_is_no_match(gate):
    a, b = [0.0, 1.0], [1e6, 2e6]
    far = {(0, 0): apart(a, a), (0, 1): apart(a, b), (1, 1): apart(b, b)}
    assert match_tracklets(far, sigma=1, gate=gate) == []


def test_a_camera_without_tracklets_has_no_match_and_disturbs_nobody():
    a, b = cloud(5, 5)
    nobody = np.empty((0, 3))
    assert match_tracklets(blocks_of(a, nobody)) == []
    found = pairs(match_tracklets(blocks_of(a, nobody, b)))
    assert found == {(0, x, 2, y) for _, x, _, y in pairs(match_tracklets(blocks_of(a, b)))}


def test_a_tracklet_alone_in_its_camera_is_matched_by_the_nearest():
    b = [3, 1, 2]
    found = match_tracklets({(0, 0): [[0]], (0, 1): [b], (1, 1): apart(b, b)}, k=1)
    assert pairs(found) == {(0, 0, 1, 1)}


def test_two_cameras_of_one_tracklet_are_a_match():
    found = match_tracklets({(0, 0): [[0]], (0, 1): [[5]], (1, 1): [[0]]})
    assert found == [(0, 0, 1, 0, pytest.approx(1))]


def test_one_camera_and_none_have_no_match():
    assert match_tracklets({(0, 0): np.zeros((3, 3))}) == []
    assert match_tracklets({}) == []


GOOD = {(0, 0): np.zeros((2, 2)), (0, 1): np.ones((2, 3)), (1, 1): np.zeros((3, 3))}


@pytest.mark.parametrize(
    "change, options, message",
    [
        ({(0, 0): None}, {}, r"no distances within camera 0; expected a block \(0, 0\)"),
        ({(0, 1): None}, {}, r"no distances between cameras 0 and 1"),
        ({(0, 1): np.ones((3, 2))}, {}, r"\(0, 1\) have shape \(3, 2\), expected \(2, 3\)"),
        ({(0, 0): np.ones((2, 3))}, {}, r"camera 0 have shape \(2, 3\), expected \(N, N\)"),
        ({(0, 0): np.ones(4)}, {}, r"camera 0 have shape \(4,\)"),
        ({(0, 1): np.full((2, 3), np.nan)}, {}, r"\(0, 1\) hold NaN or infinity; look for"),
        ({(1, 1): np.full((3, 3), np.inf)}, {}, r"\(1, 1\) hold NaN or infinity"),
        ({(1, 0): np.zeros((3, 2))}, {}, r"\(1, 0\) are not the transpose of \(0, 1\)"),
        ({}, {"k": 0}, r"k is 0, expected at least 1"),
        ({}, {"sigma": 0.0}, r"sigma is 0.0, expected a distance above 0"),
        ({}, {"sigma": math.nan}, r"sigma is nan"),
        ({}, {"combine": "mean"}, r"combine is 'mean', expected product or sum"),
    ],
)
def test_what_cannot_be_matched_is_refused(change, options, message):
    blocks = {pair: block for pair, block in (GOOD | change).items() if block is not None}
    with pytest.raises(ValueError, match=message):
        match_tracklets(blocks, **options)


def test_matched_pairs_are_joined_into_clusters():
    labels, joined = join(
        np.array([[0, 3], [3, 4], [1, 2]]), [0.5, 0.9, 0.1], CannotLink.nothing(6)
    )
    assert labels.tolist() == [0, 1, 1, 0, 0, 2]
    assert joined.all()


def test_the_surer_of_two_contradicting_pairs_wins():
    same_camera = CannotLink(np.array([7, 7, -1]), np.empty((0, 2), np.int64))
    two = np.array([[0, 2], [2, 1]])
    assert join(two, [0.5, 0.4], same_camera)[0].tolist() == [0, 1, 0]
    labels, joined = join(two, [0.4, 0.5], same_camera)
    assert labels.tolist() == [0, 1, 1] and joined.tolist() == [False, True]


def test_no_pair_leaves_everybody_alone():
    labels, joined = join(np.empty((0, 2), np.int64), [], CannotLink.nothing(3))
    assert labels.tolist() == [0, 1, 2] and joined.shape == (0,)


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=60, deadline=None)
def test_joining_never_breaks_a_constraint_and_joins_all_it_may(seed, grouped):
    draw = np.random.default_rng(seed)
    count = int(draw.integers(2, 25))
    groups = draw.integers(-1, 6, count) if grouped else np.full(count, -1)
    forbidden = draw.integers(0, count, (10, 2))
    apart_ = CannotLink(groups, forbidden[forbidden[:, 0] != forbidden[:, 1]])
    found = draw.integers(0, count, (30, 2))
    scores = draw.random(30)
    labels, joined = join(found, scores, apart_)
    assert apart_.broken_by(labels) == 0
    assert labels.max() + 1 == len(np.unique(labels))
    for first, second in found[~joined]:
        linked = np.where(labels == labels[second], labels[first], labels)
        assert apart_.broken_by(linked) > 0
