"""The tree as a picture, and the contact sheet: what is drawn where, read back from the pixels."""

import importlib
import warnings

import cv2
import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from reidkit.types import Sample
from reidkit.visualise import contact_sheet, dendrogram
from reidkit.visualise.dendrogram import MIXED, Tree

BLUE, GREY, DASHES = (10, 20, 250), (217, 217, 217), (154, 160, 166)
MERGES = [[0, 1], [2, 3], [5, 6], [4, 7]]
HEIGHTS = [0.1, 0.2, 0.6, 0.9]


@pytest.fixture
def blue(tmp_path):
    file = tmp_path / "blue.png"
    cv2.imwrite(str(file), np.full((64, 32, 3), BLUE[::-1], np.uint8))
    return Sample((str(file),), 3, 1)


def read(path):
    return cv2.imread(str(path))[:, :, ::-1].astype(int)


def pixels(path, colour):
    return int((np.abs(read(path) - colour).max(2) <= 3).sum())


def random_tree(count, clusters, seed=0):
    found = linkage(np.random.default_rng(seed).random((count, 2)), "average")
    labels = fcluster(found, clusters, "maxclust") - 1
    return found[:, :2].astype(int), found[:, 2], labels


def draw(path, samples, labels, merges=MERGES, heights=HEIGHTS, **options):
    dendrogram(path, merges, heights, labels, samples, **options)
    return path


def test_every_leaf_has_its_picture(tmp_path, blue):
    whole = pixels(draw(tmp_path / "a.png", [blue] * 5, [0, 0, 1, 1, 2]), BLUE)
    three = [blue, blue, blue, Sample(("nowhere.jpg",), 1), Sample((), 1)]
    fewer = pixels(draw(tmp_path / "b.png", three, [0, 0, 1, 1, 2]), BLUE)
    assert whole > 5000
    assert fewer == pytest.approx(0.6 * whole, rel=0.05)


@pytest.mark.parametrize("content", [None, b"", b"no picture"])
def test_a_picture_that_cannot_be_read_is_a_grey_box(tmp_path, blue, content):
    broken = tmp_path / "broken.jpg"
    if content is not None:
        broken.write_bytes(content)
    spoilt = [Sample((str(broken),), 1), *[blue] * 4]
    good = pixels(draw(tmp_path / "a.png", [blue] * 5, [0] * 5), GREY)
    assert pixels(draw(tmp_path / "b.png", spoilt, [0] * 5), GREY) > good + 1000


def test_show_gives_red_green_and_blue_or_a_grey_box(tmp_path):
    def show(sample):
        if sample.pid:
            raise FileNotFoundError("no such store")
        return np.full((40, 20, 3), BLUE, np.uint8)

    path = draw(tmp_path / "a.png", [Sample((), i % 2) for i in range(5)], [0] * 5, show=show)
    assert pixels(path, BLUE) > 3000
    assert pixels(path, GREY) > 1500


def test_forbidden_merges_are_dashed_and_no_other_is(tmp_path, blue):
    allowed = draw(tmp_path / "a.png", [blue] * 5, [0, 0, 1, 1, 2])
    forbidden = draw(
        tmp_path / "b.png", [blue] * 5, [0, 0, 1, 1, 2], heights=[0.1, 0.2, np.inf, np.inf]
    )
    assert pixels(forbidden, DASHES) > pixels(allowed, DASHES) + 50
    draw(tmp_path / "c.png", [blue] * 5, [0, 1, 2, 3, 4], heights=[np.inf] * 4)


def test_a_branch_of_one_identity_has_its_colour_and_others_are_grey(tmp_path, blue):
    def colours(labels):
        left = read(draw(tmp_path / "x.png", [blue] * 5, labels))[90:-70, 40:740]
        ink = left[np.ptp(left, axis=2) > 80]
        return {
            tuple(colour)
            for colour, n in zip(*np.unique(ink, axis=0, return_counts=True), strict=True)
            if n > 60
        }

    assert len(colours([0] * 5)) == 1
    assert len(colours([0, 0, 1, 1, 2])) == 3
    assert len(colours([-1] * 5)) == 0
    assert colours([0, 0, 1, 1, -1]) == colours([0, 0, 1, 1, 2]) - colours([2] * 5)


def test_a_cut_is_found_where_the_labels_are_one():
    def cut(labels, heights=HEIGHTS):
        return Tree.of(MERGES, heights, labels, 5).cut()

    assert cut([0, 0, 1, 1, 2]) == pytest.approx(0.4)
    assert cut([0, 0, 0, 0, 1]) == pytest.approx(0.75)
    assert cut([0, 1, 2, 3, 4]) == pytest.approx(0.05)
    assert 0.9 <= cut([7] * 5) < 1
    assert cut([0, 0, 1, 1, -1]) == pytest.approx(0.4)
    assert cut([0, 1, 2, 2, 2]) is None
    assert cut([0, 1, 2, 2, 3]) is None
    assert 0.2 <= cut([0, 0, 1, 1, 2], [0.1, 0.2, np.inf, np.inf]) < 0.3
    assert cut([0, 0, 1, 1, 2], [0, 0, 0, 0]) is None


@pytest.mark.parametrize("count, clusters", [(2, 1), (30, 7), (60, 60)])
def test_leaves_lie_below_their_nodes_and_labels_are_what_they_share(count, clusters):
    merges, heights, labels = random_tree(count, clusters)
    tree = Tree.of(merges, heights, labels, count)
    below = [{leaf} for leaf in range(count)]
    for a, b in merges:
        below.append(below[a] | below[b])
    for node, leaves in enumerate(below):
        assert set(tree.leaves(node).tolist()) == leaves
        shared = {int(labels[leaf]) for leaf in leaves}
        assert tree.label[node] == (shared.pop() if len(shared) == 1 else MIXED)


def test_above_so_many_leaves_the_tree_ends_at_its_identities(tmp_path, blue):
    merges, heights, labels = random_tree(60, 9)
    tree = Tree.of(merges, heights, labels, 60)
    units, whole = tree.units(20)
    assert whole == len(units) == 9
    assert sorted(tree.label[units].tolist()) == list(range(9))
    assert sum(int(tree.size[unit]) for unit in units) == 60
    path = draw(tmp_path / "x.png", [blue] * 60, labels, merges, heights, most=20)
    assert (
        read(path).shape[0]
        < read(draw(tmp_path / "y.png", [blue] * 60, labels, merges, heights)).shape[0]
    )


def test_of_too_many_identities_the_largest_are_drawn(tmp_path, blue):
    merges, heights, labels = random_tree(60, 30)
    labels[labels == labels[0]] = -1
    tree = Tree.of(merges, heights, labels, 60)
    units, whole = tree.units(5)
    assert (len(units), whole) == (5, 29)
    assert (tree.label[units] >= 0).all()
    sizes = np.bincount(labels[labels >= 0])
    assert sorted(tree.size[units]) == sorted(np.sort(sizes)[-5:])
    draw(tmp_path / "x.png", [blue] * 60, labels, merges, heights, most=5)
    draw(tmp_path / "x.png", [blue] * 60, [-1] * 60, merges, heights, most=5)


def test_what_was_not_drawn_is_told_where_every_identity_has_one_sample(monkeypatch):
    lines = []
    module = importlib.import_module("reidkit.visualise.dendrogram")
    monkeypatch.setattr(module, "save", lambda figure, path: lines.append(figure.texts[-1]))
    merges, heights, _ = random_tree(20, 2)
    nobody = [Sample((), 1)] * 20
    for most in (12, 20):
        draw("x.png", nobody, np.arange(20), merges, heights, most=most)
    some, every = (line.get_text() for line in lines)
    assert "12 branches of one identity drawn, 8 no larger ones not" in some
    assert "drawn" not in every


def test_names_in_other_scripts_are_drawn_without_a_warning(tmp_path):
    names = ["\u4e2d\u6587.jpg", "\u0627\u0644.jpg", "\u0915.jpg", "a.jpg", "b.jpg"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(tmp_path / "x.png", [Sample((name,), 1) for name in names], [0, 0, 1, 1, 2])
    assert read(tmp_path / "x.png").any()


def test_a_deep_tree_needs_no_recursion(tmp_path):
    count = 3000
    merges = [[0, 1], *([count + m, m + 2] for m in range(count - 2))]
    labels = np.arange(count) // 100
    draw(tmp_path / "x.png", [Sample((), 1)] * count, labels, merges, np.arange(count - 1.0))
    assert read(tmp_path / "x.png").shape[0] > 500


def test_one_tracklet_and_names_like_formulas_are_drawn(tmp_path):
    odd = Sample(("folder/$x_$<b>\né.jpg",), -1, -1)
    draw(tmp_path / "x.png", [odd], [0], np.empty((0, 2)), [])
    draw(tmp_path / "y.png", [odd] * 5, [10**12] * 5)
    assert pixels(tmp_path / "x.png", GREY) > 300


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"samples": []}, r"4 merges and heights of shape \(4,\) for 0 samples"),
        ({"merges": MERGES[:3]}, "3 merges"),
        ({"heights": HEIGHTS[:2]}, r"heights of shape \(2,\)"),
        ({"labels": [0]}, r"labels \(1,\)"),
        ({"merges": [[0, 1], [0, 3], [5, 6], [4, 7]]}, "no tree"),
        ({"merges": [[0, 6], [2, 3], [5, 1], [4, 7]]}, "no tree"),
        ({"heights": [0.1, 0.6, 0.2, 0.9]}, "heights fall"),
        ({"heights": [0.1, 0.2, 0.6, np.nan]}, "heights fall or are not numbers"),
        ({"labels": [0, 0, 1, 1, -2]}, "label -2: expected identities from 0"),
        ({"most": 0}, "at most 0 leaves: expected 1 or more"),
    ],
)
def test_what_is_no_tree_is_refused(tmp_path, blue, changes, told):
    parts = {"merges": MERGES, "heights": HEIGHTS, "labels": [0] * 5, "samples": [blue] * 5}
    with pytest.raises(ValueError, match=told):
        dendrogram(tmp_path / "x.png", **(parts | changes))
    assert not (tmp_path / "x.png").exists()


def test_a_contact_sheet_has_every_picture(tmp_path, blue):
    areas = []
    for count in (1, 4, 13):
        path = tmp_path / f"{count}.png"
        contact_sheet(path, [blue] * count, title="one", confidences=[0.5] * count)
        areas.append(pixels(path, BLUE))
    assert areas[1] == 4 * areas[0] and areas[2] == 13 * areas[0] > 0
    assert read(tmp_path / "13.png").shape[0] > read(tmp_path / "4.png").shape[0]


def test_a_contact_sheet_shows_the_first_of_too_many_and_has_its_columns(tmp_path, blue):
    contact_sheet(tmp_path / "a.png", [blue] * 6, title="x", columns=6)
    contact_sheet(tmp_path / "b.png", [blue] * 300, title="x", columns=6, most=6)
    contact_sheet(tmp_path / "c.png", [blue] * 6, title="x", columns=2)
    a, b, c = (read(tmp_path / f"{name}.png").shape for name in "abc")
    assert a == b
    assert c[0] > 2 * a[0] and c[1] < a[1]


def test_a_contact_sheet_is_a_jpeg_or_a_png_by_its_name(tmp_path, blue):
    for name, opening in (("a.png", b"\x89PNG"), ("b.JPG", b"\xff\xd8"), ("c.jpeg", b"\xff\xd8")):
        contact_sheet(tmp_path / name, [blue], title="$x$ <b>", captions=["any $ words"])
        assert (tmp_path / name).read_bytes().startswith(opening)


def test_unreadable_pictures_on_a_sheet_are_grey_boxes(tmp_path, blue):
    def show(sample):
        raise OSError("gone")

    contact_sheet(tmp_path / "a.png", [blue, Sample(("nowhere.jpg",), 1)], title="x")
    assert pixels(tmp_path / "a.png", GREY) > 10000
    contact_sheet(tmp_path / "b.png", [blue], title="x", show=show)
    assert pixels(tmp_path / "b.png", BLUE) == 0


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"path": "x.gif"}, r"x\.gif: expected a name that ends in \.png"),
        ({"samples": []}, "a contact sheet of 0 samples"),
        ({"columns": 0}, "in 0 columns"),
        ({"most": 0}, "at most 0"),
        ({"confidences": [1.0]}, "1 confidences for 2 samples"),
        ({"captions": ["a", "b", "c"]}, "3 captions for 2 samples"),
    ],
)
def test_a_sheet_that_cannot_be_is_refused(tmp_path, blue, changes, told):
    parts = {"path": "x.png", "samples": [blue, blue], "title": "x"} | changes
    parts["path"] = tmp_path / parts["path"]
    with pytest.raises(ValueError, match=told):
        contact_sheet(**parts)
