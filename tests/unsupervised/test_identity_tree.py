"""The tree of identities: its walks, cuts, files, and what it is built from."""

import io
import os

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage as scipy_linkage
from scipy.sparse import csr_matrix
from scipy.spatial.distance import pdist, squareform

import reidkit.unsupervised.identity_tree as identity_tree
from reidkit.evaluation import silhouettes
from reidkit.types import Features, Sample, StoredFrames
from reidkit.unsupervised.clustering import numbered
from reidkit.unsupervised.constraints import CannotLink
from reidkit.unsupervised.graphs import all_pairs, nearest_pairs
from reidkit.unsupervised.identity_tree import IdentityTree

LINKAGES = ["average", "complete", "single", "ward", "buc"]

# Seven leaves by hand:        12
#                          10       11
#                       7     9    5   8
#                      0 1   4 2      3 6
SEVEN = [[0, 1], [3, 6], [2, 4], [7, 9], [5, 8], [10, 11]]
SEVEN_HEIGHTS = [0.1, 0.2, 0.3, 0.5, 0.9, 1.0]


def named(count):
    return [Sample((f"{number}.jpg",), number % 3, number % 2) for number in range(count)]


def seven():
    return IdentityTree(SEVEN, SEVEN_HEIGHTS, named(7))


def random_tree(count, seed):
    generator = np.random.default_rng(seed)
    roots = list(range(count))
    merges = []
    for node in range(count, 2 * count - 1):
        pair = sorted(roots.pop(generator.integers(len(roots))) for _ in range(2))
        merges.append(pair)
        roots.append(node)
    return IdentityTree(merges, np.sort(generator.random(count - 1)), named(count))


def chain(count):
    """A tree as deep as there are leaves."""
    merges = [[0, 1]] + [[leaf, count + leaf - 2] for leaf in range(2, count)]
    return IdentityTree(merges, np.arange(1.0, count), named(count))


def features(count, dim=8, seed=0, dtype=torch.float64, parts=5):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(parts, dim, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    pids = torch.arange(count) % parts
    return Features.from_arrays((centres[pids] + 0.2 * noise).to(dtype), pids)


def unnamed(vectors):
    return Features.from_arrays(torch.as_tensor(vectors), np.arange(len(vectors)))


def forbidding(count, *pairs, groups=None):
    groups = np.full(count, -1) if groups is None else np.array(groups)
    return CannotLink(groups, np.array(pairs, np.int64).reshape(-1, 2))


def recursive(tree, node, when):
    if node < len(tree):
        return [node]
    first, second = (int(child) for child in tree.merges[node - len(tree)])
    a, b = recursive(tree, first, when), recursive(tree, second, when)
    return {"pre": [node, *a, *b], "in": [*a, node, *b], "post": [*a, *b, node]}[when]


def recursive_levels(tree, node, depth, found):
    found.setdefault(depth, []).append(node)
    if node >= len(tree):
        for child in tree.merges[node - len(tree)]:
            recursive_levels(tree, int(child), depth + 1, found)
    return found


def ancestors(tree, leaf):
    above = [leaf]
    while above[-1] != tree.root:
        above.append(len(tree) + int(np.flatnonzero((tree.merges == above[-1]).any(1))[0]))
    return above


def test_the_walks_over_seven_leaves_are_those_on_paper():
    tree = seven()
    assert (len(tree), tree.root) == (7, 12)
    assert tree.preorder() == [12, 10, 7, 0, 1, 9, 2, 4, 11, 5, 8, 3, 6]
    assert tree.inorder() == [0, 7, 1, 10, 2, 9, 4, 12, 5, 11, 3, 8, 6]
    assert tree.postorder() == [0, 1, 7, 2, 4, 9, 10, 5, 3, 6, 8, 11, 12]
    assert tree.levels() == [[12], [10, 11], [7, 9, 5, 8], [0, 1, 2, 4, 3, 6]]
    assert tree.path(0, 4) == [0, 7, 10, 9, 4]
    assert tree.path(6, 5) == [6, 8, 11, 5]
    assert tree.path(3, 1) == [3, 8, 11, 12, 10, 7, 1]
    assert tree.path(2, 2) == [2]
    assert tree.cut(clusters=3).tolist() == [0, 0, 0, 1, 0, 2, 1]
    assert tree.cut(height=0.3).tolist() == [0, 0, 1, 2, 1, 3, 2]
    assert tree.cut(by="gap").tolist() == [0, 0, 0, 1, 0, 2, 1]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 60])
def test_every_walk_is_that_of_its_recursive_twin(count):
    for seed in range(5):
        tree = random_tree(count, seed)
        assert tree.preorder() == recursive(tree, tree.root, "pre")
        assert tree.inorder() == recursive(tree, tree.root, "in")
        assert tree.postorder() == recursive(tree, tree.root, "post")
        # Down from the root in the order of preorder: within a level, from left to right.
        assert tree.levels() == list(recursive_levels(tree, tree.root, 0, {}).values())


def test_a_path_goes_over_the_lowest_node_above_both():
    tree = random_tree(25, 1)
    for i in range(25):
        for j in range(25):
            up, down = ancestors(tree, i), ancestors(tree, j)
            lowest = next(node for node in up if node in down)
            back = down[: down.index(lowest)][::-1]
            assert tree.path(i, j) == up[: up.index(lowest) + 1] + back


def test_a_chain_of_twenty_thousand_leaves_is_no_problem():
    tree = chain(20_000)
    assert len(tree.preorder()) == len(tree.inorder()) == len(tree.postorder()) == 39_999
    assert len(tree.levels()) == 20_000
    assert len(tree.path(0, 19_999)) == 20_001
    assert tree.to_newick().count("(") == 19_999
    assert tree.cut(clusters=2).sum() == 1


def cut_by_hand(tree, made):
    """Labels after so many merges, by repainting."""
    labels = list(range(len(tree)))
    below = {leaf: [leaf] for leaf in range(len(tree))}
    for number, (a, b) in enumerate(tree.merges.tolist()):
        below[len(tree) + number] = below[a] + below[b]
        if number < made:
            for leaf in below[a] + below[b]:
                labels[leaf] = len(tree) + number
    names = list(dict.fromkeys(labels))
    return [names.index(label) for label in labels]


@pytest.mark.parametrize("count", [1, 2, 17])
def test_a_cut_at_k_gives_k_for_every_k(count):
    tree = random_tree(count, 2)
    for k in range(1, count + 1):
        labels = tree.cut(clusters=k)
        assert labels.dtype == np.int64 and labels.tolist() == cut_by_hand(tree, count - k)
        assert labels.max() + 1 == k


def test_a_cut_at_k_gives_k_however_many_copies_there_are():
    tree = IdentityTree.build(Features.from_arrays(torch.ones(12, 3), torch.zeros(12, dtype=int)))
    assert not tree.heights.any()
    assert [tree.cut(clusters=k).max() + 1 for k in range(1, 13)] == list(range(1, 13))


def test_a_cut_at_a_height_makes_the_merges_up_to_there():
    tree = seven()
    assert [int(tree.cut(height=h).max()) + 1 for h in (-1, 0.1, 0.2999, 0.3, 1, np.inf)] == [
        7, 6, 5, 4, 1, 1,
    ]  # fmt: skip


def test_no_cut_joins_what_cannot_be_linked():
    tree = IdentityTree.build(features(30), cannot_link=forbidding(30, (0, 5), (5, 10), (10, 0)))
    assert tree.forbidden == 2 and np.isinf(tree.heights[-2:]).all()
    for labels in (
        tree.cut(clusters=3),
        tree.cut(height=np.inf),
        tree.cut(by="gap"),
        tree.cut(by="silhouette"),
    ):
        assert len({labels[0], labels[5], labels[10]}) == 3
    with pytest.raises(ValueError, match=r"2 clusters; expected 3 to 30: fewer would join what ca"):
        tree.cut(clusters=2)


def test_the_gap_is_between_finite_heights():
    merges = [[0, 1], [2, 3], [4, 5]]
    tree = IdentityTree(merges, [0.1, 0.8, np.inf], named(4))
    assert tree.cut(by="gap").tolist() == [0, 0, 1, 2]
    assert IdentityTree(merges, [0.1, 0.2, 0.9], named(4)).cut(by="gap").tolist() == [0, 0, 1, 1]


def test_without_a_gap_every_allowed_merge_is_made():
    assert IdentityTree([[0, 1]], [0.4], named(2)).cut(by="gap").tolist() == [0, 0]
    assert IdentityTree([[0, 1]], [np.inf], named(2)).cut(by="gap").tolist() == [0, 1]
    assert IdentityTree([], [], named(1)).cut(by="gap").tolist() == [0]
    level = IdentityTree([[0, 1], [2, 3], [4, 5]], [1, 1, np.inf], named(4))
    assert level.cut(by="gap").tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("criterion", ["gap", "silhouette"])
def test_clear_identities_are_found_without_labels(criterion):
    given = features(60, dim=16)
    labels = IdentityTree.build(given).cut(by=criterion)
    assert labels.tolist() == given.pids.tolist()


def test_the_silhouette_of_a_cut_is_that_of_the_evaluation():
    given = features(50)
    tree = IdentityTree.build(given)
    units = torch.nn.functional.normalize(given.vectors.float(), dim=1).numpy()
    for k in (1, 2, 5, 20, 50):
        labels = tree.cut(clusters=k)
        expected = float(silhouettes(given.vectors, labels).mean())
        found = identity_tree.mean_silhouette(units, labels, np.arange(50))
        assert found == pytest.approx(expected, abs=1e-5)


def test_the_best_silhouette_of_few_samples_is_the_best_of_all_cuts():
    generator = torch.Generator().manual_seed(3)
    given = Features.from_arrays(
        torch.randn(20, 6, generator=generator), torch.zeros(20, dtype=int)
    )
    tree = IdentityTree.build(given)
    values = {
        k: float(silhouettes(given.vectors, tree.cut(clusters=k)).mean()) for k in range(2, 21)
    }
    best = max(values, key=lambda k: values[k])
    assert tree.cut(by="silhouette").max() + 1 == best


def test_of_many_samples_some_are_judged(monkeypatch):
    monkeypatch.setattr(identity_tree, "JUDGED", 40)
    monkeypatch.setattr(identity_tree, "BLOCK_NUMBERS", 100)
    given = features(200, dim=16)
    assert IdentityTree.build(given).cut(by="silhouette").tolist() == given.pids.tolist()


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_samples_have_a_silhouette_cut(count):
    labels = IdentityTree.build(features(count)).cut(by="silhouette")
    assert labels.tolist() == list(range(count))  # nothing speaks for one identity


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("linkage", ["average", "complete", "single", "ward"])
def test_the_tree_of_features_is_that_of_scipy(linkage, metric, dtype):
    given = features(80, dtype=dtype)
    rows = given.vectors.double().numpy()
    if metric == "cosine":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    distances = pdist(rows)
    if metric == "cosine" and linkage != "ward":
        distances = distances**2 / 2
    expected = scipy_linkage(distances, linkage)
    tree = IdentityTree.build(given, linkage=linkage, metric=metric)
    np.testing.assert_array_equal(tree.merges, np.sort(expected[:, :2].astype(int), axis=1))
    np.testing.assert_allclose(tree.heights, expected[:, 2], rtol=1e-10)
    assert tree.samples == given.samples


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_neighbours_store_each_pair_that_one_end_has(metric):
    given = features(40, dtype=torch.float32)
    graph = nearest_pairs(given.vectors, 4, metric)
    rows = given.vectors.double().numpy()
    if metric == "cosine":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    distances = squareform(pdist(rows, "sqeuclidean") / 2 if metric == "cosine" else pdist(rows))
    order = np.argsort(distances, axis=1)[:, 1:5]
    expected = np.zeros((40, 40), bool)
    np.put_along_axis(expected, order, True, axis=1)
    expected |= expected.T
    assert graph.nnz == expected.sum() and (graph != graph.T).nnz == 0
    dense = graph.toarray()
    assert ((dense > 0) == expected).all()
    np.testing.assert_allclose(dense[expected], distances[expected], rtol=1e-5)


@pytest.mark.parametrize("linkage", ["average", "complete", "single", "ward", "buc"])
def test_neighbours_alone_find_clear_identities(linkage):
    given = features(120, dim=16)
    tree = IdentityTree.build(given, linkage=linkage, neighbours=8)
    assert tree.merges.shape == (119, 2)
    assert tree.cut(clusters=5).tolist() == given.pids.tolist()


def test_as_many_neighbours_as_there_are_is_all_pairs():
    given = features(30)
    every, exact = IdentityTree.build(given, neighbours=29), IdentityTree.build(given)
    assert (every.merges == exact.merges).all() and (every.heights == exact.heights).all()
    assert not np.array_equal(IdentityTree.build(given, neighbours=3).heights, exact.heights)


def test_many_samples_are_built_from_neighbours(monkeypatch):
    monkeypatch.setattr(identity_tree, "EXACT", 50)
    monkeypatch.setattr(identity_tree, "NEIGHBOURS", 6)
    given = features(51)
    found = IdentityTree.build(given)
    asked = IdentityTree.build(given, neighbours=6)
    assert (found.merges == asked.merges).all() and (found.heights == asked.heights).all()


def test_a_zero_vector_is_at_distance_one_from_all():
    vectors = torch.tensor([[1.0, 0], [1, 0.01], [0, 0], [0, 0]])
    tree = IdentityTree.build(Features.from_arrays(vectors, [0, 0, 1, 1]))
    assert tree.heights[1:].tolist() == [1.0, 1.0]


def test_one_sample_is_a_tree_of_one_leaf():
    tree = IdentityTree.build(features(1))
    assert (len(tree), tree.root, tree.merges.shape, tree.heights.shape) == (1, 0, (0, 2), (0,))
    assert tree.preorder() == tree.inorder() == tree.postorder() == [0]
    assert tree.levels() == [[0]] and tree.path(0, 0) == [0]
    assert tree.cut(clusters=1).tolist() == tree.cut(height=1).tolist() == [0]
    assert tree.to_newick() == "'0';"


def test_a_tree_of_a_graph_has_nameless_leaves():
    graph = csr_matrix(np.array([[0, 1, 3], [1, 0, 3], [3, 3, 0.0]]))
    tree = IdentityTree.from_graph(graph, linkage="single", absent=3)
    assert tree.to_newick() == "('2':3.0,('0':1.0,'1':1.0):2.0);"
    with pytest.raises(ValueError, match=r"no vectors to cut it by silhouette .* build it anew"):
        tree.cut(by="silhouette")


def parsed(text):
    """A small reader of Newick: (name or [children], length or None)."""
    place = 0

    def node():
        nonlocal place
        if text[place] == "(":
            inside = []
            while text[place] in "(,":
                place += 1
                inside.append(node())
            assert text[place] == ")"
            place += 1
        else:
            assert text[place] == "'"
            inside = ""
            place += 1
            while not (text[place] == "'" and text[place + 1] != "'"):
                inside += text[place]
                place += 2 if text[place] == "'" else 1
            place += 1
        length = None
        if text[place] == ":":
            end = min(text.index(mark, place) for mark in ",);" if mark in text[place:])
            length = float(text[place + 1 : end])
            place = end
        return inside, length

    tree = node()
    assert text[place:] == ";"
    return tree


def test_newick_is_read_back():
    names = ["it's.jpg", "a (b), c:d;.jpg", "", "''", "späť/[x].jpg", "6 7.jpg", "\\.jpg"]
    samples = [Sample((name,) if name else (), 0) for name in names]
    heights = [*SEVEN_HEIGHTS[:-1], np.inf]
    tree = IdentityTree(SEVEN, heights, samples)
    names[2] = "2"  # of its number, having no file

    def expected(node, top):
        own = 0.0 if node < 7 else min(heights[node - 7], heights[-2])
        inside = names[node] if node < 7 else [expected(c, own) for c in SEVEN[node - 7]]
        return inside, (None if top is None else top - own)

    assert parsed(tree.to_newick()) == expected(12, None)
    assert "inf" not in tree.to_newick() and "nan" not in tree.to_newick()


def stored_tree():
    samples = [
        Sample(("a/ö.jpg",), 7, 2, "090", "nm-01", "street", (1.5, 4.0)),
        Sample(StoredFrames("walks.pack", 3, 20), -1, -1),
        Sample((), 4),
    ]
    return IdentityTree([[0, 2], [1, 3]], [0.25, np.inf], samples)


def test_a_saved_tree_is_read_back(tmp_path):
    tree = stored_tree()
    tree.save(tmp_path / "deep" / "tree.npz")
    found = IdentityTree.load(tmp_path / "deep" / "tree.npz")
    assert found.samples == tree.samples
    assert found.merges.tolist() == tree.merges.tolist() and found.merges.dtype == np.int64
    assert found.heights.tolist() == tree.heights.tolist()
    assert os.listdir(tmp_path / "deep") == ["tree.npz"]
    single = IdentityTree([], [], named(1))
    single.save(tmp_path / "one.npz")
    assert IdentityTree.load(tmp_path / "one.npz").samples == single.samples


def test_a_tree_without_its_vectors_says_so(tmp_path):
    IdentityTree.build(features(9)).save(tmp_path / "tree.npz")
    with pytest.raises(ValueError, match=r"a saved tree keeps none\): build it anew .* by='gap'"):
        IdentityTree.load(tmp_path / "tree.npz").cut(by="silhouette")


def test_a_tree_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "tree.npz"
    stored_tree().save(path)
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=r"No space left on device while writing"):
        seven().save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["tree.npz"]


def test_a_file_that_is_missing_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tree file .*none.npz; `IdentityTree.save`"):
        IdentityTree.load(tmp_path / "none.npz")


def npz(**changes):
    file = io.BytesIO()
    stored_tree_arrays = {
        "merges": np.array([[0, 1]]),
        "heights": np.array([0.5]),
        "pids": np.array([1, 2]),
        "camids": np.array([0, 0]),
        "paths": np.array(["a", "b"]),
        "views": np.array(["", ""]),
        "conditions": np.array(["", ""]),
        "domains": np.array(["", ""]),
        "spans": np.array([[0.0, 1.0], [np.nan, np.nan]]),
    }
    arrays = {**stored_tree_arrays, **changes}
    np.savez(file, **{name: value for name, value in arrays.items() if value is not None})
    return file.getvalue()


def npy():
    file = io.BytesIO()
    np.save(file, np.arange(3))
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a tree at all",
        npy(),
        npz()[:-30],
        npz(merges=None),
        npz(paths=None),
        npz(merges=np.array([[0, 0]])),
        npz(merges=np.array([[0, 2]])),
        npz(merges=np.array([[0.0, 1.0]])),
        npz(merges=np.array([["a", "b"]])),
        npz(merges=np.array(3)),
        npz(merges=np.array([[0, 1, 2]])),
        npz(heights=np.array([np.nan])),
        npz(heights=np.array([0.1, 0.2])),
        npz(heights=np.array(["0.1"])),
        npz(pids=np.array([1, 2, 3])),
        npz(paths=np.array(["a"])),
        npz(camids=np.array(["a", "b"])),
        npz(spans=np.array([0.0, 1.0])),
        npz(views=np.array([{"a": 1}, None], dtype=object)),
    ],
)
def test_a_foreign_or_damaged_file_is_told_in_one_line(tmp_path, content):
    path = tmp_path / "tree.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"tree.npz is no tree file, or is damaged") as caught:
        IdentityTree.load(path)
    assert "\n" not in str(caught.value)


def test_a_flipped_byte_is_told_or_does_no_harm(tmp_path):
    path = tmp_path / "tree.npz"
    content = npz()
    tree = None
    for place in range(0, len(content), 5):
        changed = bytearray(content)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        try:
            tree = IdentityTree.load(path)
        except ValueError as error:
            assert "is no tree file, or is damaged" in str(error)
        else:
            assert tree.merges.tolist() == [[0, 1]] and tree.heights.tolist() == [0.5]


def test_the_picture_is_that_of_the_dendrogram(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("reidkit.visualise.dendrogram", lambda *a, **k: drawn.append((a, k)))
    tree = seven()
    tree.plot(tmp_path / "tree.png")
    tree.plot(tmp_path / "tree.png", labels=np.zeros(7, np.int64))
    (path, merges, heights, labels, samples), options = drawn[0]
    assert path == tmp_path / "tree.png" and samples == tree.samples
    assert (merges is tree.merges, heights is tree.heights) == (True, True)
    assert labels.tolist() == tree.cut(by="gap").tolist() and list(options) == ["show"]
    assert drawn[1][0][3].tolist() == [0] * 7


def test_the_picture_is_written(tmp_path):
    tree = IdentityTree.build(features(6))
    tree.plot(tmp_path / "tree.png")
    assert (tmp_path / "tree.png").read_bytes().startswith(b"\x89PNG")


def not_finite():
    vectors = torch.ones(3, 2)
    vectors[1, 0] = torch.nan
    return Features(vectors, tuple(named(3)))


@pytest.mark.parametrize(
    "given, change, message",
    [
        (Features(torch.empty(0, 4), ()), {}, r"no samples, so no tree; expected at least one"),
        (not_finite(), {}, r"the feature of 1.jpg is not finite; extract it anew"),
        (
            Features(torch.ones(2, 2, dtype=torch.int64), tuple(named(2))),
            {},
            r"must be floating point, got torch.int64",
        ),
        (features(4), {"metric": "manhattan"}, r"unknown metric 'manhattan'; known: cosine, eucl"),
        (features(4), {"linkage": "median"}, r"unknown linkage 'median'; known: average"),
        (features(4), {"neighbours": 0}, r"neighbours = 0: expected at least 1, or None"),
        (features(4), {"cannot_link": forbidding(5)}, r"cannot_link is about 5 samples"),
    ],
)
def test_a_tree_that_cannot_be_built_says_why(given, change, message):
    with pytest.raises(ValueError, match=message):
        IdentityTree.build(given, **change)


@pytest.mark.parametrize(
    "choice, message",
    [
        ({}, r"one of clusters=, height= and by=; expected one"),
        ({"clusters": 2, "height": 0.5}, r"expected one"),
        ({"clusters": 0}, r"no cut gives 0 clusters; expected 1 to 7$"),
        ({"clusters": 8}, r"no cut gives 8 clusters; expected 1 to 7$"),
        ({"height": np.nan}, r"height is nan; expected a number"),
        ({"by": "luck"}, r"unknown criterion 'luck'; known: gap, silhouette"),
    ],
)
def test_a_cut_that_cannot_be_says_why(choice, message):
    with pytest.raises(ValueError, match=message):
        seven().cut(**choice)


@pytest.mark.parametrize("leaves, missing", [((0, 7), 7), ((-1, 0), -1)])
def test_a_path_to_no_leaf_is_told(leaves, missing):
    with pytest.raises(ValueError, match=rf"no leaf {missing}; expected one of 0 to 6"):
        seven().path(*leaves)


@pytest.mark.parametrize(
    "merges, heights, message",
    [
        (SEVEN[:-1], SEVEN_HEIGHTS[:-1], r"5 merges and heights of shape \(5,\) for 7 samples"),
        (SEVEN, SEVEN_HEIGHTS[:-1], r"6 merges and heights of shape \(5,\) for 7 samples"),
        ([[0, 7], *SEVEN[1:]], SEVEN_HEIGHTS, r"the merges are no tree"),
        ([[0, 0], *SEVEN[1:]], SEVEN_HEIGHTS, r"the merges are no tree"),
        (SEVEN, SEVEN_HEIGHTS[::-1], r"the heights fall or are not numbers"),
        (SEVEN, [np.nan] * 6, r"the heights fall or are not numbers"),
    ],
)
def test_what_is_no_tree_is_refused(merges, heights, message):
    with pytest.raises(ValueError, match=message):
        IdentityTree(merges, heights, named(7))


def test_vectors_of_other_samples_are_refused():
    with pytest.raises(ValueError, match=r"vectors of shape \(6, 2\); expected \(7, D\)"):
        IdentityTree(SEVEN, SEVEN_HEIGHTS, named(7), np.ones((6, 2)))


def test_buc_takes_squared_distances_of_unit_vectors_and_sizes():
    angles = np.radians([0, 10, 90, 130])
    items = unnamed(3 * np.column_stack([np.cos(angles), np.sin(angles)]))
    tree = IdentityTree.build(items, linkage="buc", size_weight=0.1)
    squares = 2 - 2 * np.cos(np.radians([10, 40, 80]))
    np.testing.assert_allclose(tree.heights, squares + 0.1 * np.array([2, 2, 4]))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_all_pairs_are_the_distances_with_zeros_stored(metric):
    vectors = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    vectors[7] = vectors[3]
    if metric == "cosine":
        vectors[5] *= 3
    graph = all_pairs(vectors, metric)
    other = vectors.double().numpy()
    expected = pdist(other, metric)
    assert graph.nnz == 400 and graph[3, 7] == 0
    rows, columns = np.triu_indices(20, 1)
    np.testing.assert_allclose(np.asarray(graph[rows, columns])[0], expected, atol=1e-15)
    np.testing.assert_array_equal(graph.toarray(), graph.toarray().T)


def test_a_zero_vector_is_at_cosine_distance_1_from_all():
    vectors = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    for graph in (all_pairs(vectors, "cosine"), nearest_pairs(vectors, 3, "cosine")):
        between = graph.toarray()[~np.eye(4, dtype=bool)]
        assert (between == 1).all()


def test_copies_are_neighbours_at_zero_which_is_stored():
    graph = nearest_pairs(torch.ones(6, 2), 2, "euclidean")
    assert graph.nnz >= 6 * 2 and not graph.data.any()


@pytest.mark.parametrize("neighbours", [None, 6])
def test_permuting_the_samples_permutes_the_labels(neighbours):
    items = features(80, dim=6, seed=5)
    order = np.random.default_rng(6).permutation(80)
    moved = unnamed(items.vectors[order])
    for linkage in ("average", "ward"):
        one = IdentityTree.build(items, linkage=linkage, neighbours=neighbours)
        other = IdentityTree.build(moved, linkage=linkage, neighbours=neighbours)
        # Beyond stored pairs many are equally far.
        for clusters in (10, 30, 50) if neighbours is None else (40, 60):
            expected = numbered(one.cut(clusters=clusters)[order])
            np.testing.assert_array_equal(other.cut(clusters=clusters), expected)


@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize("neighbours", [None, 3])
def test_copies_and_equal_distances_still_make_one_tree(linkage, neighbours):
    grid = np.random.default_rng(0).integers(1, 4, size=(150, 2)).astype(float)
    for vectors in (np.ones((150, 3)), grid):
        tree = IdentityTree.build(
            unnamed(vectors), linkage=linkage, metric="euclidean", neighbours=neighbours
        )
        assert tree.merges.shape == (149, 2)
        assert (np.diff(tree.heights) >= 0).all()


@settings(max_examples=40, deadline=None)
@drawn(
    count=st.integers(2, 25),
    linkage=st.sampled_from(LINKAGES),
    neighbours=st.sampled_from([None, 1, 4]),
    copies=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_no_cut_at_a_finite_height_joins_what_cannot_be_linked(
    count, linkage, neighbours, copies, seed
):
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(count, 3))
    if copies:
        vectors = vectors.round()
    pairs = draw.integers(count, size=(count // 3, 2))
    links = forbidding(
        count, *pairs[pairs[:, 0] != pairs[:, 1]], groups=draw.integers(-1, 4, size=count)
    )
    tree = IdentityTree.build(
        unnamed(vectors), linkage=linkage, cannot_link=links, neighbours=neighbours
    )
    finite = int(np.isfinite(tree.heights).sum())
    for clusters in range(count - finite, count + 1):
        assert links.broken_by(tree.cut(clusters=clusters)) == 0
    assert links.broken_by(tree.cut(height=np.inf)) == 0
    # And nothing was left apart without a reason.
    least = tree.cut(clusters=count - finite)
    for name in range(1, count - finite):
        assert links.broken_by(np.where(least == name, 0, least)) > 0


def test_branches_and_leaves_below_a_node():
    tree = seven()
    assert tree.children(12) == (10, 11) and tree.children(7) == (0, 1) and tree.children(3) == ()
    assert tree.members(10) == [0, 1, 2, 4] and tree.members(11) == [5, 3, 6]
    assert tree.members(6) == [6] and len(tree.members(tree.root)) == 7
    other = random_tree(40, 3)
    for node in range(79):
        below = [item for item in recursive(other, node, "pre") if item < 40]
        assert other.members(node) == below
    for node in (-1, 13):
        for ask in (tree.children, tree.members):
            with pytest.raises(ValueError, match=rf"no node {node}; expected one of 0 to 12"):
                ask(node)


def test_a_forbidden_merge_is_at_the_largest_finite_height_in_newick():
    tree = IdentityTree([[0, 1], [2, 3]], [0.5, np.inf], named(3))
    assert tree.to_newick() == "('2.jpg':0.5,('0.jpg':0.5,'1.jpg':0.5):0.0);"
    apart = IdentityTree([[0, 1]], [np.inf], named(2))
    assert apart.to_newick() == "('0.jpg':0.0,'1.jpg':0.0);"
