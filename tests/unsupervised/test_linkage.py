"""The tree of a sparse graph against a greedy search over all pairs, and against SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage as scipy_linkage
from scipy.sparse import csr_matrix
from scipy.spatial.distance import pdist, squareform

from reidkit.unsupervised.constraints import CannotLink
from reidkit.unsupervised.linkage import GROUPS_AS_BITS, agglomerate

LINKAGES = ["average", "complete", "single", "ward", "buc"]
ABSENT = 9.0


def stored(pairs):
    """Every entry of (N, N) but NaN as a stored distance, zeros included."""
    rows, columns = np.nonzero(~np.isnan(pairs))
    return csr_matrix((pairs[rows, columns], (rows, columns)), shape=pairs.shape)


def random_pairs(count, share, seed):
    """Points (N, 3), and their distances (N, N) of which about `share` are there, NaN else."""
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(count, 3))
    pairs = squareform(pdist(points))
    gone = np.triu(generator.random((count, count)) > share)
    pairs[gone | gone.T] = np.nan
    np.fill_diagonal(pairs, 0)
    return points, pairs


def random_constraints(count, seed):
    generator = np.random.default_rng(seed)
    groups = np.where(generator.random(count) < 0.5, generator.integers(3, size=count), -1)
    pairs = generator.integers(count, size=(count // 3, 2))
    return CannotLink(groups, pairs[pairs[:, 0] != pairs[:, 1]])


def forbidden(constraints, count):
    """(N, N), which samples cannot be linked."""
    groups = constraints.groups
    apart = (groups[:, None] == groups) & (groups >= 0)
    apart[constraints.pairs[:, 0], constraints.pairs[:, 1]] = True
    np.fill_diagonal(apart, False)
    return apart | apart.T


def greedy(pairs, linkage, constraints, points=None, start=None, size_weight=0.0):
    """The slow twin: the nearest two clusters of all that may be joined, looked up anew each time.

    Gives {members of a cluster: its height}.
    """
    count = len(pairs)
    filled = np.where(np.isnan(pairs), ABSENT, pairs)
    apart = forbidden(constraints, count)

    def distance(a, b):
        if apart[np.ix_(a, b)].any():
            return np.inf
        if linkage == "ward":
            gap = np.linalg.norm(points[a].mean(0) - points[b].mean(0))
            return np.sqrt(2 * len(a) * len(b) / (len(a) + len(b))) * gap
        block = filled[np.ix_(a, b)]
        if linkage == "average":
            return block.mean()
        if linkage == "complete":
            return block.max()
        return block.min() + (size_weight * (len(a) + len(b)) if linkage == "buc" else 0)

    names = np.arange(count) if start is None else start
    clusters = [list(np.flatnonzero(names == name)) for name in np.unique(names)]
    tree = {}
    while len(clusters) > 1:
        choices = [
            (distance(clusters[i], clusters[j]), i, j)
            for i in range(len(clusters))
            for j in range(i + 1, len(clusters))
        ]
        height, i, j = min(choices)
        made = clusters[i] + clusters[j]
        clusters = [c for n, c in enumerate(clusters) if n not in (i, j)] + [made]
        tree[frozenset(map(int, made))] = height
    return tree


def members(merges):
    """The leaves below each merge."""
    below = [frozenset([leaf]) for leaf in range(len(merges) + 1)]
    for a, b in merges:
        below.append(below[a] | below[b])
    return below[len(merges) + 1 :]


def as_tree(merges, heights, limit=np.inf):
    """{members of a cluster: its height}, of heights below the limit."""
    pairs = zip(members(merges), heights, strict=True)
    return {key: height for key, height in pairs if height < limit}


def check_tree(merges, heights):
    """What every tree is."""
    count = len(merges) + 1
    assert merges.dtype == np.int64 and heights.dtype == np.float64
    assert merges.shape == (count - 1, 2) and heights.shape == (count - 1,)
    assert sorted(merges.ravel()) == list(range(2 * count - 2))
    assert (merges[:, 0] < merges[:, 1]).all()
    assert (merges[:, 1] < count + np.arange(count - 1)).all()
    assert (heights[1:] >= heights[:-1]).all()


def check_constraints(merges, heights, constraints):
    """No forbidden pair below a finite height, and nothing left that might have been joined."""
    count = len(merges) + 1
    apart = forbidden(constraints, count)
    finite = int(np.isfinite(heights).sum())
    below = [frozenset([leaf]) for leaf in range(count)] + members(merges)
    used = set(merges[:finite].ravel())
    for node in below[: count + finite]:
        assert not apart[np.ix_(list(node), list(node))].any()
    left = [list(below[node]) for node in range(count + finite) if node not in used]
    for i, one in enumerate(left):
        for other in left[i + 1 :]:
            assert apart[np.ix_(one, other)].any()


def assert_trees_equal(found, expected):
    assert found.keys() == expected.keys()
    assert all(found[key] == pytest.approx(expected[key], rel=1e-10) for key in expected)


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("linkage", LINKAGES)
def test_all_pairs_give_the_greedy_tree(linkage, constrained):
    for seed in range(12):
        count = 5 + 2 * seed
        points, pairs = random_pairs(count, 1.0, seed)
        constraints = CannotLink.nothing(count)
        if constrained:
            constraints = random_constraints(count, seed)
        merges, heights = agglomerate(
            stored(pairs),
            linkage=linkage,
            absent=ABSENT,
            cannot_link=constraints,
            vectors=points,
            size_weight=0.05,
        )
        check_tree(merges, heights)
        check_constraints(merges, heights, constraints)
        expected = greedy(pairs, linkage, constraints, points, size_weight=0.05)
        reached = {key: height for key, height in expected.items() if np.isfinite(height)}
        assert_trees_equal(as_tree(merges, heights), reached)


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("share", [0.15, 0.4, 0.8])
@pytest.mark.parametrize("linkage", ["average", "complete", "single", "buc"])
def test_some_pairs_give_the_greedy_tree_up_to_where_absent_ones_tie(linkage, share, constrained):
    for seed in range(8):
        count = 12 + 3 * seed
        _, pairs = random_pairs(count, share, seed)
        constraints = CannotLink.nothing(count)
        if constrained:
            constraints = random_constraints(count, seed)
        merges, heights = agglomerate(
            stored(pairs),
            linkage=linkage,
            absent=ABSENT,
            cannot_link=constraints,
            size_weight=0.3,
        )
        check_tree(merges, heights)
        check_constraints(merges, heights, constraints)
        expected = greedy(pairs, linkage, constraints, size_weight=0.3)
        limit = ABSENT + (2 * 0.3 if linkage == "buc" else 0) - 1e-9
        below = {key: height for key, height in expected.items() if height < limit}
        assert_trees_equal(as_tree(merges, heights, limit), below)
        if not constrained and linkage != "buc":
            assert heights[len(below) :] == pytest.approx(ABSENT)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(2, 24),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    linkage=st.sampled_from(LINKAGES),
    coarse=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_no_constraint_is_ever_violated(count, share, linkage, coarse, seed):
    points, pairs = random_pairs(count, share, seed)
    if coarse:  # ties everywhere
        points, pairs = points.round(), pairs.round(0) / 10
    constraints = random_constraints(count, seed)
    merges, heights = agglomerate(
        stored(pairs),
        linkage=linkage,
        absent=ABSENT,
        cannot_link=constraints,
        vectors=points,
        size_weight=0.1,
    )
    check_tree(merges, heights)
    check_constraints(merges, heights, constraints)


@pytest.mark.parametrize("linkage", ["average", "complete", "single", "ward"])
def test_all_pairs_give_the_tree_of_scipy(linkage):
    points = np.random.default_rng(3).normal(size=(300, 8))
    distances = pdist(points)
    merges, heights = agglomerate(
        csr_matrix(squareform(distances)), linkage=linkage, absent=distances.max(), vectors=points
    )
    expected = scipy_linkage(distances, linkage)
    np.testing.assert_array_equal(merges, np.sort(expected[:, :2].astype(int), axis=1))
    np.testing.assert_allclose(heights, expected[:, 2], rtol=1e-10)


def test_ward_of_all_pairs_of_float32_vectors_is_that_of_scipy():
    points = np.random.default_rng(4).normal(size=(60, 5)).astype(np.float32)
    merges, heights = agglomerate(
        csr_matrix(np.ones((60, 60))), linkage="ward", absent=1, vectors=points
    )
    expected = scipy_linkage(points.astype(np.float64), "ward")
    np.testing.assert_array_equal(merges, np.sort(expected[:, :2].astype(int), axis=1))
    np.testing.assert_allclose(heights, expected[:, 2], rtol=1e-10)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
def test_ward_of_some_pairs_is_a_tree_that_obeys(share):
    for seed in range(10):
        points, pairs = random_pairs(40, share, seed)
        constraints = random_constraints(40, seed)
        for given_constraints in (CannotLink.nothing(40), constraints):
            merges, heights = agglomerate(
                stored(pairs),
                linkage="ward",
                absent=ABSENT,
                vectors=points,
                cannot_link=given_constraints,
            )
            check_tree(merges, heights)
            check_constraints(merges, heights, given_constraints)


def test_ward_of_no_pair_at_all_is_the_tree_of_scipy():
    points = np.random.default_rng(5).normal(size=(50, 4))
    merges, heights = agglomerate(csr_matrix((50, 50)), linkage="ward", absent=1, vectors=points)
    expected = scipy_linkage(points, "ward")
    np.testing.assert_array_equal(merges, np.sort(expected[:, :2].astype(int), axis=1))
    np.testing.assert_allclose(heights, expected[:, 2], rtol=1e-10)


@pytest.mark.parametrize("linkage", LINKAGES)
def test_permuting_the_leaves_permutes_the_tree(linkage):
    count = 40
    points, pairs = random_pairs(count, 1.0, 7)
    constraints = random_constraints(count, 7)
    order = np.random.default_rng(8).permutation(count)  # leaf i is then leaf order[i] of before
    place = np.argsort(order)
    moved = CannotLink(constraints.groups[order], place[constraints.pairs])
    settings = {"linkage": linkage, "absent": ABSENT, "size_weight": 0.05}
    plain = agglomerate(stored(pairs), cannot_link=constraints, vectors=points, **settings)
    mixed = agglomerate(
        stored(pairs[np.ix_(order, order)]), cannot_link=moved, vectors=points[order], **settings
    )
    found = as_tree(*mixed)
    back = {frozenset(int(order[leaf]) for leaf in key): h for key, h in found.items()}
    assert_trees_equal(back, as_tree(*plain))


@pytest.mark.parametrize("linkage", LINKAGES)
def test_clusters_to_begin_with_are_joined_first_at_height_zero(linkage):
    for seed in range(6):
        points, pairs = random_pairs(24, 1.0, seed)
        start = np.random.default_rng(seed).integers(8, size=24) * 3
        merges, heights = agglomerate(
            stored(pairs),
            linkage=linkage,
            absent=ABSENT,
            vectors=points,
            start=start,
            size_weight=0.1,
        )
        check_tree(merges, heights)
        given = 24 - len(np.unique(start))
        assert (heights[:given] == 0).all() and (heights[given:] > 0).all()
        expected = greedy(
            pairs, linkage, CannotLink.nothing(24), points, start=start, size_weight=0.1
        )
        found = as_tree(merges, heights)
        assert_trees_equal({key: h for key, h in found.items() if h > 0}, expected)


def test_the_weight_of_sizes_puts_a_small_absent_cluster_before_a_large_stored_one():
    # Six in a row, near; the seventh is stored with them at 1, the eighth with nobody.
    pairs = np.full((8, 8), np.nan)
    for i in range(5):
        pairs[i, i + 1] = pairs[i + 1, i] = 0.1
    pairs[6, 5] = pairs[5, 6] = 1.0
    merges, heights = agglomerate(stored(pairs), linkage="buc", absent=1.5, size_weight=0.2)
    # 1 + 0.2 (6 + 1) = 2.4 with the six, 1.5 + 0.2 (1 + 1) = 1.9 with the lonely one.
    assert as_tree(merges, heights)[frozenset([6, 7])] == pytest.approx(1.9)
    assert heights[-1] == pytest.approx(1.0 + 0.2 * 8)


def test_without_a_weight_of_sizes_buc_is_single_linkage():
    _, pairs = random_pairs(40, 0.2, 3)
    constraints = random_constraints(40, 3)
    trees = [
        agglomerate(stored(pairs), linkage=name, absent=ABSENT, cannot_link=constraints)
        for name in ("buc", "single")
    ]
    np.testing.assert_array_equal(trees[0][0], trees[1][0])
    np.testing.assert_array_equal(trees[0][1], trees[1][1])


@pytest.mark.parametrize("linkage", LINKAGES)
def test_rounding_between_the_two_ends_of_ties_does_no_harm(linkage):
    # Sums of tenths differ by the order in which they are taken, and so by the end.
    for seed in range(30):
        generator = np.random.default_rng(seed)
        upper = np.triu(generator.integers(1, 4, size=(30, 30)) * 0.1, 1)
        upper[generator.random((30, 30)) > 0.6] = 0
        graph = csr_matrix(upper + upper.T)
        merges, heights = agglomerate(
            graph, linkage=linkage, absent=0.3, size_weight=0.1, vectors=upper
        )
        check_tree(merges, heights)


def test_float32_distances_a_little_above_absent_and_unlike_at_both_ends_are_taken():
    pairs = np.float32([[0, 1, 2.0000002], [1.0000001, 0, 1.5], [2, 1.5, 0]])
    merges, heights = agglomerate(csr_matrix(pairs), linkage="complete", absent=2.0)
    assert merges.tolist() == [[0, 1], [2, 3]] and heights == pytest.approx([1, 2])


def test_rows_that_are_not_sorted_give_the_same_tree():
    _, pairs = random_pairs(30, 0.5, 1)
    graph = stored(pairs)
    mixed = graph.copy()
    for row in range(30):
        part = slice(mixed.indptr[row], mixed.indptr[row + 1])
        order = np.argsort(mixed.data[part])
        mixed.indices[part], mixed.data[part] = mixed.indices[part][order], mixed.data[part][order]
    mixed.has_sorted_indices = mixed.has_canonical_format = False
    plain, found = (agglomerate(g, linkage="average", absent=ABSENT) for g in (graph, mixed))
    np.testing.assert_array_equal(plain[0], found[0])
    np.testing.assert_array_equal(plain[1], found[1])


def test_clusters_without_a_stored_pair_are_joined_at_absent():
    pairs = np.full((6, 6), np.nan)
    pairs[0, 1] = pairs[1, 0] = 0.0  # a stored zero is a distance
    pairs[2, 3] = pairs[3, 2] = 0.4
    merges, heights = agglomerate(stored(pairs), linkage="average", absent=2.0)
    assert merges.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert heights.tolist() == [0.0, 0.4, 2.0, 2.0, 2.0]


def test_of_small_clusters_without_stored_pairs_the_smallest_are_joined_first():
    start = np.array([0, 0, 0, 1, 1, 2, 3])
    merges, heights = agglomerate(
        csr_matrix((7, 7)), linkage="buc", absent=1.0, start=start, size_weight=0.5
    )
    assert heights[3:] == pytest.approx([1 + 0.5 * 2, 1 + 0.5 * 4, 1 + 0.5 * 7])
    assert members(merges)[3:5] == [frozenset([5, 6]), frozenset([3, 4, 5, 6])]


def test_missing_pairs_of_members_count_as_absent():
    pairs = np.full((3, 3), np.nan)
    pairs[0, 1] = pairs[1, 0] = 0.2
    pairs[1, 2] = pairs[2, 1] = 0.6
    heights = {
        linkage: agglomerate(stored(pairs), linkage=linkage, absent=2.0)[1][-1]
        for linkage in ("average", "complete", "single")
    }
    assert heights == pytest.approx({"average": (0.6 + 2.0) / 2, "complete": 2.0, "single": 0.6})


def test_everything_forbidden_is_still_one_tree_at_height_inf():
    constraints = CannotLink(np.zeros(5, np.int64), np.empty((0, 2), np.int64))
    for linkage in LINKAGES:
        merges, heights = agglomerate(
            csr_matrix(np.ones((5, 5))),
            linkage=linkage,
            absent=1.0,
            cannot_link=constraints,
            vectors=np.eye(5),
        )
        check_tree(merges, heights)
        assert np.isinf(heights).all()


def test_more_groups_than_fit_into_bits_are_obeyed():
    count = 2 * (GROUPS_AS_BITS + 40)
    groups = np.repeat(np.arange(count // 2), 2)
    constraints = CannotLink(groups, np.empty((0, 2), np.int64))
    points = np.random.default_rng(0).normal(size=(count // 2, 1)).repeat(2, axis=0)
    rows = np.arange(count - 1)
    near = np.abs(points[1:] - points[:-1])[:, 0] / 10
    graph = csr_matrix((near, (rows, rows + 1)), shape=(count, count))
    graph = graph + graph.T
    merges, heights = agglomerate(graph, linkage="single", absent=1.0, cannot_link=constraints)
    check_tree(merges, heights)
    finite = int(np.isfinite(heights).sum())
    assert not np.isfinite(heights[finite:]).any()
    roots = set(range(count + finite)) - set(merges[:finite].ravel().tolist())
    below = [frozenset([leaf]) for leaf in range(count)] + members(merges)
    for node in roots:
        assert len({groups[leaf] for leaf in below[node]}) == len(below[node])


def test_one_sample_is_a_tree_without_merges():
    merges, heights = agglomerate(csr_matrix((1, 1)), linkage="average", absent=1.0)
    assert merges.shape == (0, 2) and heights.shape == (0,)


def test_the_graph_stays_as_it_was():
    _, pairs = random_pairs(20, 0.5, 0)
    graph = stored(pairs)
    before = graph.copy()
    agglomerate(graph, linkage="average", absent=ABSENT)
    assert (graph != before).nnz == 0 and graph.nnz == before.nnz


def test_copies_and_ties_give_the_same_tree_each_time():
    points = np.random.default_rng(1).integers(3, size=(60, 2)) * 0.1
    graph = csr_matrix(squareform(pdist(points)) + 0.3)
    for linkage in LINKAGES:
        first, again = (
            agglomerate(graph, linkage=linkage, absent=1.0, vectors=points) for _ in range(2)
        )
        check_tree(*first)
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])


def full(count, value=1.0):
    return csr_matrix(np.full((count, count), value))


ONE_SIDED = csr_matrix(([1.0], ([0], [1])), shape=(3, 3))


@pytest.mark.parametrize(
    "graph, change, message",
    [
        (full(3), {"linkage": "median"}, r"unknown linkage 'median'; known: average, complete"),
        (csr_matrix((3, 4)), {}, r"shape \(3, 4\), expected \(N, N\)"),
        (csr_matrix((0, 0)), {}, r"shape \(0, 0\), expected \(N, N\) with N of 1 or more"),
        (full(3, -1.0), {}, r"negative or not finite"),
        (full(3, np.nan), {}, r"negative or not finite"),
        (full(3, 2.0), {}, r"absent is 1.0, .* no less than the largest .* 2.0"),
        (full(3), {"absent": np.inf}, r"absent is inf"),
        (ONE_SIDED, {}, r"not symmetric in row 0; expected each pair twice"),
        (full(3), {"size_weight": -1.0}, r"size_weight is -1.0, expected a number of 0 or more"),
        (full(3), {"linkage": "ward"}, r"ward needs the vectors"),
        (full(3), {"linkage": "ward", "vectors": np.ones((2, 2))}, r"vectors is about 2 samples"),
        (full(3), {"linkage": "ward", "vectors": np.full((3, 2), np.nan)}, r"not finite"),
        (full(3), {"cannot_link": CannotLink.nothing(4)}, r"cannot_link is about 4 samples"),
        (full(3), {"start": np.zeros(2, int)}, r"start is about 2 samples"),
        (full(3), {"start": np.array([0, -1, 0])}, r"lowest label -1; expected a cluster"),
        (
            full(3),
            {
                "start": np.zeros(3, int),
                "cannot_link": CannotLink(np.full(3, -1), np.array([[0, 2]])),
            },
            r"start joins 1 pairs of samples that cannot be linked",
        ),
    ],
)
def test_what_cannot_be_is_told(graph, change, message):
    with pytest.raises(ValueError, match=message):
        agglomerate(graph, **{"linkage": "average", "absent": 1.0, **change})
