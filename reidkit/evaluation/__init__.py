"""Features in, scores out: exact ranks, metrics per query, protocols by name."""

from reidkit.evaluation.breakdown import Breakdown, by_camera_pair, by_view
from reidkit.evaluation.clustering import nmi
from reidkit.evaluation.decision import (
    Answer,
    Decision,
    OpenSet,
    TooFewPairs,
    decide,
    identify,
    open_set,
)
from reidkit.evaluation.evaluate import (
    evaluate,
    evaluate_arrays,
    evaluate_distances,
    evaluate_reranked,
    nearest,
)
from reidkit.evaluation.gait import (
    GAIT_PROTOCOLS,
    GaitProtocol,
    GaitTable,
    gait_table,
    grew_check,
    grew_submission,
    part_distances,
)
from reidkit.evaluation.hits import find_hits
from reidkit.evaluation.intervals import bootstrap
from reidkit.evaluation.label_quality import (
    LabelQuality,
    MatchQuality,
    pairs_quality,
    pairwise,
    silhouettes,
)
from reidkit.evaluation.metrics import (
    average_precision,
    average_precision_at,
    cmc,
    inverse_negative_penalty,
    map_at_r,
    precision_at,
    r_precision,
    recall_at,
)
from reidkit.evaluation.protocols import PROTOCOLS, describe, protocol
from reidkit.evaluation.reranking import (
    Reranked,
    augment_database,
    expand_query,
    jaccard_distance,
    rerank,
)
from reidkit.evaluation.verification import Roc, Verification, verify

__all__ = [
    # features -> scores
    "evaluate",
    "evaluate_arrays",
    "evaluate_distances",
    "evaluate_reranked",
    "nearest",
    "find_hits",
    "average_precision",
    "average_precision_at",
    "cmc",
    "inverse_negative_penalty",
    "map_at_r",
    "precision_at",
    "r_precision",
    "recall_at",
    "bootstrap",
    "by_camera_pair",
    "by_view",
    "Breakdown",
    "nmi",
    "PROTOCOLS",
    "protocol",
    "describe",
    # pairs
    "verify",
    "Verification",
    "Roc",
    "decide",
    "Decision",
    "TooFewPairs",
    "open_set",
    "OpenSet",
    "identify",
    "Answer",
    # found labels
    "pairwise",
    "LabelQuality",
    "pairs_quality",
    "MatchQuality",
    "silhouettes",
    # gait
    "gait_table",
    "GaitTable",
    "GaitProtocol",
    "GAIT_PROTOCOLS",
    "part_distances",
    "grew_submission",
    "grew_check",
    # a second look
    "rerank",
    "Reranked",
    "jaccard_distance",
    "expand_query",
    "augment_database",
]
