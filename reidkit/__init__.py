"""reidkit finds the same individual again: models, losses, training, exact evaluation, features.

Names are imported when they are first used, so that `reidkit --help` need not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reidkit.compose import extract
    from reidkit.data import load_benchmark
    from reidkit.engine import fit
    from reidkit.evaluation import evaluate, evaluate_arrays, find_hits, rerank
    from reidkit.losses import RankedListLoss
    from reidkit.models import GaitSet, ReIDModel, SetPooling, load_model
    from reidkit.types import (
        Benchmark,
        EvalProtocol,
        Features,
        Hits,
        Sample,
        Scores,
    )
    from reidkit.unsupervised import IdentityTree, match_tracklets

__all__ = [
    "RankedListLoss",
    "GaitSet",
    "ReIDModel",
    "SetPooling",
    "Sample",
    "Benchmark",
    "EvalProtocol",
    "Features",
    "Hits",
    "Scores",
    "load_benchmark",
    "load_model",
    "extract",
    "evaluate",
    "evaluate_arrays",
    "find_hits",
    "rerank",
    "IdentityTree",
    "match_tracklets",
    "fit",
]

_HOMES = {
    "reidkit.compose": ("extract",),
    "reidkit.data": ("load_benchmark",),
    "reidkit.engine": ("fit",),
    "reidkit.evaluation": ("evaluate", "evaluate_arrays", "find_hits", "rerank"),
    "reidkit.losses": ("RankedListLoss",),
    "reidkit.models": ("GaitSet", "ReIDModel", "SetPooling", "load_model"),
    "reidkit.types": ("Benchmark", "EvalProtocol", "Features", "Hits", "Sample", "Scores"),
    "reidkit.unsupervised": ("IdentityTree", "match_tracklets"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'reidkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
