"""The k nearest rows, exactly: FAISS where it is installed, torch where it is not."""

import importlib.util
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from reidkit.types import Metric

Backend = Literal["auto", "faiss", "torch"]
BLOCK_NUMBERS = 2**24  # scores or gathered numbers held at a time: 64 MB of float32


@torch.no_grad()
def knn(
    queries: Tensor,
    gallery: Tensor,
    k: int,
    *,
    metric: Metric = "cosine",
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Distances and positions of the k nearest gallery rows of each query, ascending.

    queries (Q, D), gallery (G, D), floating -> (Q, k) float32, (Q, k) int64. A row that is in both
    finds itself first, at distance 0. Distances are 1 - cos in [0, 2] (rows are normalised here) or
    Euclidean. Both backends search in float32 and then measure what they found by differences, so
    they agree but for rows that lie equally far. Results live on the queries' device.

    Raises:
        ValueError: shapes that do not fit, k outside 1..G, values that are not finite, an unknown
            metric or backend.
        ModuleNotFoundError: backend "faiss" without FAISS.
    """
    _check(queries, gallery, k, metric)
    if backend == "auto":
        backend = "faiss" if importlib.util.find_spec("faiss") else "torch"
    if backend not in ("faiss", "torch"):
        raise ValueError(f"unknown backend {backend!r}; known: auto, faiss, torch")
    a, b = queries.detach().float(), gallery.detach().to(queries.device).float()
    if metric == "cosine":
        a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    else:
        # A common offset cancels in every distance but not in the float32 products the search is
        # made of.
        centre = b.mean(0)
        a, b = a - centre, b - centre
    search = _search_faiss if backend == "faiss" else _search_torch
    return _measured(a, b, search(a, b, k, metric), metric)


def _search_faiss(a: Tensor, b: Tensor, k: int, metric: Metric) -> Tensor:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "backend 'faiss' needs FAISS: pip install 'reidkit[cpu]' (or 'reidkit[gpu]')"
        ) from error
    index = faiss.IndexFlatIP(b.shape[1]) if metric == "cosine" else faiss.IndexFlatL2(b.shape[1])
    index.add(b.cpu().contiguous().numpy())
    _, found = index.search(a.cpu().contiguous().numpy(), k)
    return torch.from_numpy(found).to(a.device)


def _search_torch(a: Tensor, b: Tensor, k: int, metric: Metric) -> Tensor:
    bias = b.new_zeros(len(b)) if metric == "cosine" else -b.square().sum(1)
    blocks = a.split(max(1, BLOCK_NUMBERS // len(b)))
    found = [torch.addmm(bias, rows, b.t(), alpha=2).topk(k).indices for rows in blocks]
    return torch.cat(found) if found else torch.empty(0, k, dtype=torch.int64, device=a.device)


def _measured(a: Tensor, b: Tensor, indices: Tensor, metric: Metric) -> tuple[Tensor, Tensor]:
    """Distances of the found pairs from their differences, which do not cancel as products do;
    sorted again.
    """
    step = max(1, BLOCK_NUMBERS // max(1, indices.shape[1] * a.shape[1]))
    distances = torch.empty(indices.shape, dtype=torch.float32, device=a.device)
    for start in range(0, len(a), step):
        rows = slice(start, start + step)
        if metric == "cosine":
            distances[rows] = _cosine(a[rows, None], b[indices[rows]])
        else:
            distances[rows] = (a[rows, None] - b[indices[rows]]).norm(dim=2)
    distances, order = distances.sort(dim=1, stable=True)
    return distances, indices.gather(1, order)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    # |a - b|^2 / 2 is 1 - a.b for unit vectors; a zero row has length 0 and, by definition,
    # distance 1.
    halves = (a - b).square().sum(2) / 2
    empty = ~(a.any(2) & b.any(2))
    return torch.where(empty, torch.ones_like(halves), halves)


def _check(queries: Tensor, gallery: Tensor, k: int, metric: str) -> None:
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"unknown metric {metric!r}; known: cosine, euclidean")
    shapes = tuple(queries.shape), tuple(gallery.shape)
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"expected queries (Q, D) and gallery (G, D) of one D; got {shapes[0]}, {shapes[1]}"
        )
    if not 1 <= k <= len(gallery):
        raise ValueError(
            f"k = {k}, but the gallery has {len(gallery)} rows; expected 1 <= k <= rows"
        )
    for side, rows in (("queries", queries), ("gallery", gallery)):
        if not rows.is_floating_point():
            raise ValueError(f"{side} must be floating point, got {rows.dtype}")
        if not rows.isfinite().all():
            bad = int((~rows.isfinite()).any(1).nonzero()[0])
            raise ValueError(f"row {bad} of the {side} is not finite")
