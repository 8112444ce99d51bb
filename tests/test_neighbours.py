"""The k nearest rows with and without FAISS."""

import importlib.util

import pytest
import torch
from torch.testing import assert_close

import reidkit.neighbours as neighbours
from reidkit.neighbours import knn

HAS_FAISS = importlib.util.find_spec("faiss") is not None
BACKENDS = [
    "torch",
    pytest.param("faiss", marks=pytest.mark.skipif(not HAS_FAISS, reason="needs faiss")),
]


def rows(n, dim=8, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def slow(queries, gallery, k, metric):
    a, b = queries.double(), gallery.double()
    if metric == "cosine":
        a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
        table = torch.stack([1 - (b * row).sum(1) for row in a])
    else:
        table = torch.stack([(b - row).norm(dim=1) for row in a])
    distances, order = table.sort(dim=1)
    return distances[:, :k].float(), order[:, :k]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_neighbours_equal_a_full_sort(backend, metric):
    distances, indices = knn(rows(30), rows(200, seed=1), 9, metric=metric, backend=backend)
    expected = slow(rows(30), rows(200, seed=1), 9, metric)
    assert indices.equal(expected[1])
    assert_close(distances, expected[0], atol=1e-5, rtol=1e-5)
    assert (distances.dtype, indices.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_row_finds_itself_first_at_distance_zero(backend, metric):
    both = rows(50) + 30
    distances, indices = knn(both, both, 3, metric=metric, backend=backend)
    assert indices[:, 0].equal(torch.arange(50))
    assert distances[:, 0].abs().max() == 0


def test_small_blocks_change_nothing(monkeypatch):
    expected = knn(rows(30), rows(40, seed=1), 5, backend="torch")
    monkeypatch.setattr(neighbours, "BLOCK_NUMBERS", 100)
    distances, indices = knn(rows(30), rows(40, seed=1), 5, backend="torch")
    assert indices.equal(expected[1])
    assert_close(distances, expected[0])


def test_without_faiss_torch_answers(monkeypatch):
    expected = knn(rows(5), rows(9, seed=1), 2, backend="torch")
    monkeypatch.setattr(neighbours.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(neighbours, "_search_faiss", None)
    assert knn(rows(5), rows(9, seed=1), 2)[1].equal(expected[1])


def test_a_zero_row_has_cosine_distance_one():
    distances, _ = knn(torch.zeros(1, 3), torch.eye(3), 2, backend="torch")
    assert distances.tolist() == [[1, 1]]


def test_no_queries_give_no_rows():
    distances, indices = knn(torch.empty(0, 3), torch.eye(3), 2, backend="torch")
    assert distances.shape == indices.shape == (0, 2)


@pytest.mark.parametrize(
    "queries, gallery, k, words",
    [
        (rows(2), rows(3), 4, "k = 4, but the gallery has 3 rows"),
        (rows(2), rows(3), 0, "k = 0"),
        (rows(2, 3), rows(3, 4), 1, "of one D"),
        (rows(2)[0], rows(3), 1, "of one D"),
        (rows(2).long(), rows(3), 1, "floating point"),
        (rows(2), rows(3) / 0, 1, "row 0 of the gallery is not finite"),
    ],
)
def test_what_does_not_fit_is_refused_with_words(queries, gallery, k, words):
    with pytest.raises(ValueError, match=words):
        knn(queries, gallery, k)
