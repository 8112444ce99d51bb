"""From features to scores: the front door of the room."""

import logging
import re
from collections.abc import Callable
from functools import partial

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from reidkit.evaluation.candidates import Candidates
from reidkit.evaluation.hits import block_rows, find_hits
from reidkit.evaluation.metrics import average_precision, cmc, inverse_negative_penalty, recall_at
from reidkit.evaluation.protocols import protocol as named_protocol
from reidkit.evaluation.scoring import Scorer, pieces
from reidkit.types import EvalProtocol, Features, Hits, Metric, Scores

logger = logging.getLogger(__name__)

CMC_RANKS = 50
COLLAPSED = (
    1e-6  # share of the squared length that varies; an untrained ResNet still has about 1e-2
)


def evaluate(
    query: Features, gallery: Features, protocol: EvalProtocol | str, *, metric: Metric = "cosine"
) -> Scores:
    """Scores the protocol reports, averaged over the queries that have a right answer.

    `protocol` is a record or a name ("market1501", "same_class", "no_camera"). Ties count against
    the model; queries without a right answer are left out of the means and counted in `skipped`.
    `cmc` has shape (K,): K is 50, or as many candidates as the query with most of them has.

    Raises:
        ValueError: an unknown protocol or score, or anything `find_hits` refuses.
    """
    rules = named_protocol(protocol) if isinstance(protocol, str) else protocol
    functions = {name: _metric(name) for name in rules.report}
    hits = find_hits(query, gallery, rules, metric=metric)
    _warn_if_collapsed(gallery, metric)
    counted = hits.offsets.diff() > 0
    values = {name: float(function(hits)[counted].mean()) for name, function in functions.items()}
    curve = cmc(hits, min(CMC_RANKS, int(hits.candidates.max())))
    return Scores(
        values_by_name=values,
        skipped=int((~counted).sum()),
        queries=int(counted.sum()),
        tied=int(hits.tied.sum()),
        cmc=curve[counted].mean(0),
    )


def evaluate_arrays(
    query_vectors: ArrayLike | Tensor,
    query_pids: ArrayLike | Tensor,
    query_camids: ArrayLike | Tensor | None,
    gallery_vectors: ArrayLike | Tensor,
    gallery_pids: ArrayLike | Tensor,
    gallery_camids: ArrayLike | Tensor | None,
    protocol: EvalProtocol | str = "market1501",
    *,
    metric: Metric = "cosine",
) -> Scores:
    """`evaluate` on arrays or tensors from any toolkit.

    Vectors (Q, D) and (G, D) floating; pids and camids (Q,) and (G,) integers. Gallery pid -1 is
    junk and dropped, 0 a distractor that stays as a wrong answer. Camids may be None where the
    protocol does not look at cameras.

    Raises:
        ValueError: wrong shapes, lengths or types (names of identities are refused: number them),
            or anything `evaluate` refuses.
    """
    rules = named_protocol(protocol) if isinstance(protocol, str) else protocol
    if rules.exclude == "same_camera" and (query_camids is None or gallery_camids is None):
        raise ValueError(
            "this protocol leaves out the query's camera and needs camids; or use 'no_camera'"
        )
    query = _features("query", query_vectors, query_pids, query_camids)
    gallery = _features("gallery", gallery_vectors, gallery_pids, gallery_camids)
    return evaluate(query, gallery, rules, metric=metric)


@torch.no_grad()
def nearest(
    query: Features,
    gallery: Features,
    protocol: EvalProtocol | str,
    k: int,
    *,
    metric: Metric = "cosine",
    memory: str | int = "512MB",
) -> tuple[Tensor, Tensor]:
    """The k nearest gallery items that count for each query: what the pictures show.

    Returns indices (Q, k) int64, -1 where fewer remain, and distances (Q, k) float64, NaN there;
    ascending. Items at one distance come in any order: unlike ranks, this order is no judgement.
    """
    rules = named_protocol(protocol) if isinstance(protocol, str) else protocol
    if k < 1:
        raise ValueError(f"k = {k}: expected at least 1 neighbour")
    candidates = Candidates(query, gallery, rules)
    scorer = Scorer(query, gallery, metric)
    rows = block_rows(len(gallery), memory)
    indices = torch.full((len(query), k), -1, dtype=torch.int64)
    distances = torch.full((len(query), k), torch.nan, dtype=torch.float64)
    for start, scores in scorer.blocks(rows):
        for q, row in enumerate(scores, start):
            excluded = torch.from_numpy(candidates.of(q).excluded).to(row.device)
            row[excluded] = -torch.inf
            count = min(k, len(gallery) - len(excluded))
            if count:
                close = row.topk(count).indices
                indices[q, :count] = close.cpu()
                distances[q, :count] = scorer.distances(q, close).cpu()
    return indices, distances


def _metric(name: str) -> Callable[[Hits], Tensor]:
    plain = {"mAP": average_precision, "mINP": inverse_negative_penalty}
    if name in plain:
        return plain[name]
    match = re.fullmatch(r"(?:rank-|R@)([1-9]\d*)", name)
    if match is None:
        raise ValueError(
            f"unknown score {name!r}; known: mAP, mINP, rank-k and R@k with a number k"
        )
    return partial(recall_at, k=int(match[1]))


def _features(
    side: str,
    vectors: ArrayLike | Tensor,
    pids: ArrayLike | Tensor,
    camids: ArrayLike | Tensor | None,
) -> Features:
    try:
        return Features.from_arrays(vectors, pids, camids)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{side}: {error}") from error


def _warn_if_collapsed(gallery: Features, metric: Metric) -> None:
    vectors = gallery.vectors.detach()
    total = torch.zeros(vectors.shape[1], dtype=torch.float64)
    squares = 0.0
    for start, stop in pieces(*vectors.shape):
        rows = vectors[start:stop].cpu().double()
        if metric == "cosine":
            rows = torch.nn.functional.normalize(rows, dim=1)
        total += rows.sum(0)
        squares += float(rows.square().sum())
    share = 1 - float((total / len(gallery)).square().sum()) / (squares / len(gallery) or 1.0)
    if len(gallery) > 1 and share < COLLAPSED:
        logger.warning(
            "the gallery's features are almost all one vector (%.1e of their squared length "
            "varies): the model has collapsed and its ranking is an accident",
            max(share, 0.0),
        )
