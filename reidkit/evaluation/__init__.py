"""Features in, scores out: exact ranks, metrics per query, protocols by name."""

from reidkit.evaluation.evaluate import evaluate, evaluate_arrays, evaluate_distances, nearest
from reidkit.evaluation.hits import find_hits
from reidkit.evaluation.metrics import average_precision, cmc, inverse_negative_penalty, recall_at
from reidkit.evaluation.protocols import PROTOCOLS, protocol

__all__ = [
    "evaluate",
    "evaluate_arrays",
    "evaluate_distances",
    "nearest",
    "find_hits",
    "average_precision",
    "cmc",
    "inverse_negative_penalty",
    "recall_at",
    "PROTOCOLS",
    "protocol",
]
