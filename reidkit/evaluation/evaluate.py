"""From features to scores: the front door of the room."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from reidkit.evaluation.candidates import Candidates
from reidkit.evaluation.clustering import nmi
from reidkit.evaluation.hits import Ranking, block_rows, hits_of_distances, rank
from reidkit.evaluation.intervals import bootstrap
from reidkit.evaluation.metrics import cmc
from reidkit.evaluation.metrics import metric as named_metric
from reidkit.evaluation.protocols import OF_FEATURES
from reidkit.evaluation.protocols import protocol as named_protocol
from reidkit.evaluation.reranking import rerank
from reidkit.evaluation.scoring import Scorer
from reidkit.evaluation.sides import Side, as_side, side_of_arrays
from reidkit.evaluation.single_shot import expected_single_shot
from reidkit.neighbours import knn
from reidkit.types import EvalProtocol, Features, Hits, Metric, Scores

logger = logging.getLogger(__name__)

CMC_RANKS = 50
MANY_QUERIES, LONGEST_LIST = 256, 1024  # where copying the gallery into a search index pays
# Share of the squared length that varies; an untrained ResNet still has about 1e-2.
COLLAPSED = 1e-6


def evaluate(
    query: Features | Side,
    gallery: Features | Side,
    protocol: EvalProtocol | str,
    *,
    metric: Metric = "cosine",
    memory: str | int = "512MB",
) -> Scores:
    """Scores the protocol reports, averaged over the queries that have a right answer.

    `protocol` is a record or a name (`PROTOCOLS` holds all). Ties count against the model; queries
    without a right answer are left out of the means and counted in `skipped`. `cmc` has shape (K,):
    K is 50, or as many candidates as the query with most of them has. `interval` holds 95 %
    bootstrap intervals over queries. What makes the numbers doubtful (collapsed features, queries
    that stand in the gallery themselves) is logged, and kept in `warnings`.

    Raises:
        ValueError: an unknown protocol or score, or anything `find_hits` refuses.
    """
    rules = named_protocol(protocol) if isinstance(protocol, str) else protocol
    _check_report(rules)
    if rules.single_shot:
        return _single_shot(query, gallery, rules, metric)
    ranking = rank(query, gallery, rules, metric=metric, memory=memory)
    scores = scores_of_hits(ranking.hits, rules, warnings=_doubts(ranking, rules))
    values = dict(scores)
    for name in OF_FEATURES.intersection(rules.report):
        values[name] = nmi(_features(gallery), metric=metric)
    ordered = {name: values[name] for name in rules.report}
    return replace(scores, values_by_name=ordered)


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
    memory: str | int = "512MB",
) -> Scores:
    """`evaluate` on arrays or tensors from any toolkit.

    Vectors (Q, D) and (G, D) floating; pids and camids (Q,) and (G,) integers. Gallery pid -1 is
    junk and dropped, 0 a distractor that stays as a wrong answer. Camids may be None where the
    protocol does not look at cameras. A memory-mapped gallery (`numpy.load(..., mmap_mode="r")`) is
    read in blocks and never held.

    Raises:
        ValueError: wrong shapes, lengths or types (names of identities are refused: number them),
            or anything `evaluate` refuses.
    """
    rules = named_protocol(protocol) if isinstance(protocol, str) else protocol
    query = _side("query", query_vectors, query_pids, query_camids)
    gallery = _side("gallery", gallery_vectors, gallery_pids, gallery_camids)
    return evaluate(query, gallery, rules, metric=metric, memory=memory)


def evaluate_distances(
    blocks: NDArray | Tensor | Iterable[NDArray | Tensor],
    query_pids: ArrayLike | Tensor,
    query_camids: ArrayLike | Tensor | None,
    gallery_pids: ArrayLike | Tensor,
    gallery_camids: ArrayLike | Tensor | None,
    protocol: EvalProtocol | str = "market1501",
) -> Scores:
    """Scores of distances from anywhere: a matrix (Q, G), or its row blocks in order.

    Smaller is closer; equal numbers are tied. What `rerank` gives goes here.

    Raises:
        ValueError: blocks that do not fit the pids, a distance that is NaN, a protocol or score
            that needs the features, or anything `evaluate_arrays` refuses.
    """
    rules = named_protocol(protocol) if isinstance(protocol, str) else protocol
    _check_report(rules)
    _check_distances_suffice(rules)
    if rules.exclude == "same_view" or rules.gallery == "without_queries":
        raise ValueError(
            "this protocol looks at views or files, which pids and camids do not tell: use "
            "`evaluate`"
        )
    counts = [len(np.asarray(pids)) for pids in (query_pids, gallery_pids)]
    query = _side("query", np.zeros((counts[0], 1), np.float32), query_pids, query_camids)
    gallery = _side("gallery", np.zeros((counts[1], 1), np.float32), gallery_pids, gallery_camids)
    rows = _row_blocks(blocks) if isinstance(blocks, np.ndarray | Tensor) else blocks
    return scores_of_hits(hits_of_distances(rows, query, gallery, rules), rules)


def evaluate_reranked(
    query: Features,
    gallery: Features,
    protocol: EvalProtocol | str,
    *,
    metric: Metric = "cosine",
    memory: str | int = "512MB",
) -> Scores:
    """`evaluate` after k-reciprocal re-ranking with the values of its paper (see `rerank`).

    Raises:
        ValueError: a protocol whose scores are no functions of distances, or anything `rerank`
            refuses.
    """
    rules = named_protocol(protocol) if isinstance(protocol, str) else protocol
    _check_report(rules)
    _check_distances_suffice(rules)
    blocks = rerank(query, gallery, metric=metric, memory=memory)
    return scores_of_hits(hits_of_distances(blocks, as_side(query), as_side(gallery), rules), rules)


def scores_of_hits(hits: Hits, rules: EvalProtocol, *, warnings: tuple[str, ...] = ()) -> Scores:
    """The scores of a protocol that are functions of ranks, with their intervals."""
    counted = hits.offsets.diff() > 0
    names = [name for name in rules.report if name not in OF_FEATURES]
    columns = [named_metric(name, rules.precision)(hits)[counted] for name in names]
    values = torch.stack(columns, 1) if columns else torch.empty(int(counted.sum()), 0)
    curve = cmc(hits, min(CMC_RANKS, int(hits.candidates.max())))
    return Scores(
        values_by_name=dict(zip(names, values.mean(0).tolist(), strict=True)),
        skipped=int((~counted).sum()),
        queries=int(counted.sum()),
        tied=int(hits.tied.sum()),
        cmc=curve[counted].mean(0),
        interval=_intervals(names, values),
        warnings=warnings,
    )


@torch.no_grad()
def nearest(
    query: Features | Side,
    gallery: Features | Side,
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
    same = query is gallery
    query = as_side(query)
    gallery = query if same else as_side(gallery)
    candidates = Candidates(query, gallery, rules)
    scorer = Scorer(query, gallery, metric)
    remaining = candidates.counts()
    wide = k + len(gallery) - len(candidates.left_out) - int(remaining.min())
    if len(query) >= MANY_QUERIES and wide <= LONGEST_LIST:
        found = _search(query, gallery, candidates, wide, metric)
    else:
        found = _topk(scorer, candidates, remaining, k, memory)
    indices = torch.full((len(query), k), -1, dtype=torch.int64)
    distances = torch.full((len(query), k), torch.nan, dtype=torch.float64)
    for q, columns in found:
        far, order = scorer.distances(q, torch.from_numpy(columns)).sort(stable=True)
        count = min(k, len(columns))
        indices[q, :count] = torch.from_numpy(columns)[order[:k]]
        distances[q, :count] = far[:k]
    return indices, distances


def _search(
    query: Side, gallery: Side, candidates: Candidates, wide: int, metric: Metric
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Positions near each query by FAISS, so many that k are left without the excluded ones."""
    kept = np.setdiff1d(np.arange(len(gallery)), candidates.left_out)
    vectors = torch.from_numpy(gallery.vectors[kept]).to(gallery.device)
    asked = torch.from_numpy(np.asarray(query.vectors)).to(query.device)
    _, found = knn(asked, vectors, min(wide, len(kept)), metric=metric)
    for q, row in enumerate(kept[found.cpu().numpy()]):
        yield q, row[~np.isin(row, candidates.of(q).excluded)]


def _topk(
    scorer: Scorer, candidates: Candidates, remaining: NDArray, k: int, memory: str | int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The k nearest positions of each query from whole rows of scores: no copy of the gallery."""
    for start, scores in scorer.blocks(block_rows(candidates.size, memory)):
        for q, row in enumerate(scores, start):
            row[torch.from_numpy(candidates.of(q).excluded)] = -torch.inf
            yield q, row.topk(min(k, int(remaining[q]))).indices.numpy()


def _single_shot(
    query: Features | Side, gallery: Features | Side, rules: EvalProtocol, metric: Metric
) -> Scores:
    """Expected scores over galleries of one image an identity; a tie decides in no one of them."""
    found = expected_single_shot(query, gallery, rules, metric=metric, ranks=CMC_RANKS)
    counted = ~found.average_precision.isnan()
    columns = [
        found.average_precision if name == "mAP" else found.cmc[:, int(name[5:]) - 1]
        for name in rules.report
    ]
    values = torch.stack(columns, 1)[counted]
    return Scores(
        values_by_name=dict(zip(rules.report, values.mean(0).tolist(), strict=True)),
        skipped=int((~counted).sum()),
        queries=int(counted.sum()),
        cmc=found.cmc[counted].mean(0),
        interval=_intervals(rules.report, values),
    )


def _check_report(rules: EvalProtocol) -> None:
    """Refuse an unknown score before anything is computed."""
    for name in rules.report:
        if name in OF_FEATURES:
            continue
        named_metric(name)
        if rules.single_shot and name != "mAP" and not name.startswith("rank-"):
            raise ValueError(f"a single-shot protocol reports rank-k and mAP, not {name!r}")


def _check_distances_suffice(rules: EvalProtocol) -> None:
    if rules.single_shot or OF_FEATURES.intersection(rules.report):
        raise ValueError(
            "this protocol has scores of the features (NMI) or of drawn galleries, which distances "
            "do not tell: score the features, without re-ranking"
        )


def _doubts(ranking: Ranking, rules: EvalProtocol) -> tuple[str, ...]:
    """What makes the scores doubtful, in words; logged as warnings."""
    space, doubts = ranking.space, []
    for side, found in (("gallery", space.gallery_survey), ("query", space.query_survey)):
        if len(found.norms) > 1 and found.varies < COLLAPSED:
            doubts.append(
                f"the features of the {side} are almost all one vector "
                f"({max(found.varies, 0.0):.1e} of their squared length varies): the model has "
                "collapsed and its ranking is an accident"
            )
            break
    copies = ranking.nearest_right
    same = (1 - copies if space.metric == "cosine" else -copies) <= space.tie(copies)
    remaining = ranking.hits.candidates
    if not doubts and rules.exclude != "itself" and same.any():
        doubts.append(
            f"{int(same.sum())} queries have a right answer at distance 0: is the query's own "
            "image in the gallery? Protocol 'same_class' leaves out the query itself"
        )
    if rules.exclude == "itself" and int(remaining.max()) == int(np.isfinite(space.bias).sum()):
        doubts.append(
            "leave-one-out was asked for, but some query does not stand in the gallery: nothing "
            "was left out for it"
        )
    for doubt in doubts:
        logger.warning("%s", doubt)
    return tuple(doubts)


def _intervals(names: Iterable[str], values: Tensor) -> dict[str, tuple[float, float]]:
    ends = bootstrap(values).tolist() if values.numel() else []
    # Scores are fractions; rounding may put an end a hair outside.
    return {
        name: (max(low, 0.0), min(high, 1.0)) for name, (low, high) in zip(names, ends, strict=True)
    }


def _features(side: Features | Side) -> Features:
    if isinstance(side, Features):
        return side
    return Features.from_arrays(np.asarray(side.vectors), side.pids, side.camids)


def _side(
    name: str,
    vectors: ArrayLike | Tensor,
    pids: ArrayLike | Tensor,
    camids: ArrayLike | Tensor | None,
) -> Side:
    try:
        return side_of_arrays(vectors, pids, camids)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def _row_blocks(matrix: NDArray | Tensor) -> Iterator[NDArray | Tensor]:
    if matrix.ndim != 2:
        raise ValueError(f"distances need shape (Q, G); got {tuple(matrix.shape)}")
    rows = block_rows(max(matrix.shape[1], 1), "512MB")
    for start in range(0, len(matrix), rows):
        yield matrix[start : start + rows]
