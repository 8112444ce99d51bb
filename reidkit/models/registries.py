"""The models room's registries: a config's word -> the constructor that answers to it."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from reidkit.models.base import EmbeddingModel
from reidkit.registry import Registry

BACKBONES: Registry[nn.Module] = Registry("backbone")
MIXING: Registry[nn.Module] = Registry("mixing over frames")
SPATIAL: Registry[nn.Module] = Registry("spatial pooling")
TEMPORAL: Registry[nn.Module] = Registry("temporal pooling")
REDUCTIONS: Registry[nn.Module] = Registry("reduction")
NECKS: Registry[nn.Module] = Registry("neck")
MODELS: Registry[EmbeddingModel] = Registry("model")

REGISTRIES: tuple[Registry[Any], ...] = (
    MODELS,
    BACKBONES,
    MIXING,
    SPATIAL,
    TEMPORAL,
    REDUCTIONS,
    NECKS,
)


def refuse(problems: Iterable[str]) -> None:
    """Raise one ValueError with all the problems, if there are any.

    A constructor with limits that a type cannot say offers them as a static method
    `problems(...) -> list[str]`, so that `model_faults` can ask before anything is built.
    """
    sentences = list(problems)
    if sentences:
        raise ValueError("; ".join(sentences))


def value_problems(registry: Registry[Any], name: str, args: Mapping[str, Any]) -> list[str]:
    """What the constructor's own `problems` says of arguments that already fit its signature."""
    problems = getattr(registry[name], "problems", None)
    if problems is None:
        return []
    return list(problems(**{key: args[key] for key in inspect.signature(problems).parameters}))
