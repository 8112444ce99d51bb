"""The scatters of pairs and the metric made of them."""

import numpy as np
import pytest

from reidkit.unsupervised.xqda import Scatter, scatters, xqda


def rows(count, dim=5, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dim))


def brute_force(gallery, gallery_labels, probe, probe_labels):
    dim = gallery.shape[1]
    sums = {True: np.zeros((dim, dim)), False: np.zeros((dim, dim))}
    counts = {True: 0, False: 0}
    for x, of_x in zip(gallery, gallery_labels, strict=True):
        for y, of_y in zip(probe, probe_labels, strict=True):
            same = bool(of_x == of_y)
            sums[same] += np.outer(x - y, x - y)
            counts[same] += 1
    return sums[True] / counts[True], sums[False] / counts[False]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_scatters_of_one_set_equal_the_double_loop(seed, offset):
    x, labels = rows(24, seed=seed) + offset, np.random.default_rng(seed).integers(0, 5, 24)
    found, expected = scatters(x, labels, x, labels), brute_force(x, labels, x, labels)
    np.testing.assert_allclose(found.intra, expected[0], rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.extra, expected[1], rtol=0, atol=1e-10)


def test_scatters_of_two_sets_with_labels_of_their_own_equal_the_double_loop():
    gallery, probe = rows(17), rows(11, seed=1)
    of_gallery = np.random.default_rng(2).integers(0, 4, 17) * 10
    of_probe = np.random.default_rng(3).integers(0, 6, 11) * 10
    found = scatters(gallery, of_gallery, probe, of_probe)
    expected = brute_force(gallery, of_gallery, probe, of_probe)
    np.testing.assert_allclose(found.intra, expected[0], rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.extra, expected[1], rtol=0, atol=1e-10)


def toy():
    frames = np.array([[0, 0], [1, 0], [0, 4], [1, 4]], float)
    return scatters(frames, [0, 0, 1, 1], frames, [0, 0, 1, 1])


def test_the_scatters_of_the_toy_example_are_those_done_by_hand():
    found = toy()
    np.testing.assert_allclose(found.intra, [[0.5, 0], [0, 0]], atol=1e-15)
    np.testing.assert_allclose(found.extra, [[0.5, 0], [0, 16]], atol=1e-15)


def test_the_metric_of_the_toy_example_keeps_the_one_direction_that_tells_apart():
    metric = xqda(toy())
    np.testing.assert_allclose(np.abs(metric.projection), [[0], [1]], atol=1e-12)
    np.testing.assert_allclose(metric.kernel, [[9999.9375]], rtol=1e-12)
    np.testing.assert_allclose(metric.matrix, [[0, 0], [0, 9999.9375]], atol=1e-8)


def test_one_direction_is_kept_where_none_tells_apart():
    metric = xqda(Scatter(np.diag([2.0, 3.0]), np.diag([1.0, 1.0])), ridge=0)
    assert metric.projection.shape == (2, 1)
    assert metric.kernel[0, 0] < 0  # such a distance is negative


def test_the_metric_is_the_formula_in_the_kept_directions():
    x, labels = rows(40), np.arange(40) % 8
    x = x + 2 * rows(8, seed=5)[labels]
    scatter = scatters(x, labels, x, labels)
    intra = scatter.intra + 1e-4 * np.eye(5)
    left, values, _ = np.linalg.svd(np.linalg.inv(intra) @ scatter.extra)
    w = left[:, values > 1]
    kernel = np.linalg.inv(w.T @ intra @ w) - np.linalg.inv(w.T @ scatter.extra @ w)
    np.testing.assert_allclose(xqda(scatter).matrix, w @ kernel @ w.T, rtol=1e-8, atol=1e-10)


def test_the_order_of_rows_and_the_names_of_classes_make_no_difference():
    x, labels = rows(20), np.arange(20) % 4
    order = np.random.default_rng(1).permutation(20)
    names = np.array(["d", "a", "c", "b"])[labels]
    found = scatters(x[order], names[order], x[order], names[order])
    np.testing.assert_allclose(found.extra, scatters(x, labels, x, labels).extra, atol=1e-12)


@pytest.mark.parametrize(
    "gallery, labels, probe, probe_labels, message",
    [
        (rows(3), [1, 1, 1], rows(2), [1, 1], r"pairs of two identities.*two tracklets or more"),
        (rows(2), [0, 1], rows(2), [2, 3], r"share no label"),
        (rows(2), [0, 1], rows(2, dim=4), [0, 1], r"5 dimensions and probe of 4"),
        (rows(2), [0, 1, 2], rows(2), [0, 1], r"gallery labels have shape \(3,\), expected \(2,\)"),
        (rows(2), [0, 1], rows(2)[0], [0, 1], r"probe has shape \(5,\)"),
        (rows(0), [], rows(2), [0, 1], r"gallery has shape \(0, 5\).*not empty"),
        (rows(2) * np.array([[1], [np.nan]]), [0, 1], rows(2), [0, 1], r"gallery row 1 is not fin"),
    ],
)
def test_rows_that_give_no_scatter_are_refused(gallery, labels, probe, probe_labels, message):
    with pytest.raises(ValueError, match=message):
        scatters(gallery, labels, probe, probe_labels)


@pytest.mark.parametrize(
    "scatter, ridge, message",
    [
        (Scatter(np.zeros((2, 2)), np.eye(2)), 0.0, r"singular scatter.*raise the ridge"),
        (Scatter(np.eye(2), np.eye(3)), 1e-4, r"expected two \(d, d\)"),
        (Scatter(np.full((2, 2), np.nan), np.eye(2)), 1e-4, r"not finite"),
        (Scatter(np.eye(2), np.eye(2)), -1.0, r"ridge is -1"),
    ],
)
def test_scatters_that_give_no_metric_are_refused(scatter, ridge, message):
    with pytest.raises(ValueError, match=message):
        xqda(scatter, ridge)
