"""Components of pytorch-metric-learning by class name, their arguments held to its signatures."""

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from torch import nn

from reidkit.registry import nearest

# Arguments that take a component: where its class is found.
FAMILIES: Mapping[str, ModuleType] = {
    "loss": losses,
    "miner": miners,
    "distance": distances,
    "reducer": reducers,
    "embedding_regularizer": regularizers,
    "weight_regularizer": regularizers,
}
OFFERED = ("num_classes", "embedding_size", "descriptors_dim")  # by the run, where required
UNSUITABLE: Mapping[str, str] = {
    "BatchedDistance": "it hands its blocks to a function of its own and gives no distances back",
    "CrossBatchMemory": "set memory_size to compare with a memory of earlier batches",
    "DoNothingReducer": "a loss must come out as one number",
    "EmbeddingsAlreadyPackagedAsTriplets": "batches are identities x instances, not triplets",
    "GenericPairLoss": "it is a base class",
    "ManifoldLoss": "it learns without labels",
    "MultipleLosses": "write one term for each loss",
    "MultipleReducers": "it needs a reducer for each part of a loss; write it in Python",
    "SelfSupervisedLoss": "it learns without labels",
    "VICRegLoss": "it compares two views of an image and takes no labels",
}
# The library takes any word here, and an unknown one as "all".
CHOICES: Mapping[str, tuple[str, ...]] = {
    "type_of_triplets": ("all", "hard", "semihard", "easy"),
}


def known_names(kind: str) -> list[str]:
    """The class names that can be asked for. kind: a key of FAMILIES."""
    members = inspect.getmembers(FAMILIES[kind], inspect.isclass)
    return [name for name, _ in members if not name.startswith("Base") and not _unsuitable(name)]


def accepted_arguments(constructor: type) -> dict[str, inspect.Parameter]:
    """What a constructor takes, with what its `**kwargs` hand on to the classes above."""
    found: dict[str, inspect.Parameter] = {}
    for owner in constructor.__mro__:
        if owner in (nn.Module, object):
            break
        if owner is losses.GenericPairLoss or "__init__" not in vars(owner):
            continue  # the pair losses themselves give it the one argument it wants
        parameters = list(inspect.signature(owner).parameters.values())
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(parameter.name, parameter)
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def catalogue() -> dict[str, dict[str, str]]:
    """What `metric_learning` takes by name: kind -> class name -> the arguments of a config."""
    # They are one family, and two arguments.
    kinds = [kind for kind in FAMILIES if kind != "weight_regularizer"]
    return {
        f"metric_learning {kind.removeprefix('embedding_')}": {
            name: _signature(getattr(FAMILIES[kind], name)) for name in known_names(kind)
        }
        for kind in kinds
    }


def _signature(constructor: type) -> str:
    parts = []
    for key, parameter in accepted_arguments(constructor).items():
        if parameter.default is parameter.empty:
            parts += [] if key in OFFERED else [key]
        elif key != "collect_stats" and not callable(parameter.default):
            parts.append(f"{key}={parameter.default!r}")
    return ", ".join(parts)


def component_faults(
    kind: str, name: str, args: Mapping[str, Any], facts: Mapping[str, Any]
) -> list[str]:
    """Everything wrong with a component, a sentence each; empty when it can be built."""
    if reason := _unsuitable(name):
        return [f"{kind} {name!r} does not fit here: {reason}"]
    known = known_names(kind)
    if name not in known:
        return [
            f"unknown {kind} {name!r}; pytorch-metric-learning has: "
            f"{', '.join(known)}.{nearest(name, known)}"
        ]
    accepted = accepted_arguments(getattr(FAMILIES[kind], name))
    faults = []
    for key, parameter in accepted.items():
        required = parameter.default is parameter.empty
        if required and key in facts:
            if key in args:
                faults.append(f"{name}: {key} is set by reidkit at run time; remove it")
            elif facts[key] is None:
                faults.append(f"{name} needs {key}")
        elif required and key not in args:
            faults.append(f"{name} needs {key!r}")
    options = [
        key
        for key in accepted
        if accepted[key].default is not inspect.Parameter.empty or key not in facts
    ]
    for key, value in args.items():
        if key not in accepted:
            faults.append(
                f"{name}: unknown key {key!r}; it takes: "
                f"{', '.join(options)}.{nearest(key, options)}"
            )
        else:
            faults += _value_faults(name, key, value, accepted[key].default, facts)
    return faults


def component(kind: str, name: str, args: Mapping[str, Any], facts: Mapping[str, Any]) -> nn.Module:
    """The component itself; ValueError when its own constructor refuses a value."""
    constructor = getattr(FAMILIES[kind], name)
    accepted = accepted_arguments(constructor)
    given = {key: _value(key, value, accepted[key].default, facts) for key, value in args.items()}
    for key, parameter in accepted.items():
        if parameter.default is parameter.empty and key in facts:
            given[key] = facts[key]
    try:
        built: nn.Module = constructor(**given)
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(
            f"{kind} {name}: {str(error) or 'its arguments do not fit together'}"
        ) from error
    return built


def _unsuitable(name: str) -> str | None:
    return "it is a base class" if name.endswith("Mixin") else UNSUITABLE.get(name)


def _value_faults(
    owner: str, key: str, value: Any, default: Any, facts: Mapping[str, Any]
) -> list[str]:
    """The library's signatures have no types, so the default's type is what a value is held to."""
    if key in FAMILIES and isinstance(value, str | Mapping):
        name, args = _named(value)
        if not isinstance(name, str):
            return [f"{owner}: {key} needs a class name, as in {{name: LpDistance, p: 2}}"]
        return [f"{owner}: {fault}" for fault in component_faults(key, name, args, facts)]
    if key in CHOICES and value not in CHOICES[key]:
        return [f"{owner}: {key} = {value!r} must be one of: {', '.join(CHOICES[key])}"]
    if isinstance(default, bool):
        return (
            [] if isinstance(value, bool) else [f"{owner}: {key} = {value!r} must be true or false"]
        )
    if isinstance(default, int | float) and _number(value) is None:
        return [f"{owner}: {key} = {value!r} must be a number"]
    return []


def _value(key: str, value: Any, default: Any, facts: Mapping[str, Any]) -> Any:
    if key in FAMILIES and isinstance(value, str | Mapping):
        name, args = _named(value)
        return component(key, name, args, facts)
    if key == "weights" and isinstance(value, list | tuple):
        return torch.tensor(value, dtype=torch.float32)  # one for each identity
    if isinstance(default, int | float) and not isinstance(default, bool):
        return _number(value)
    return value


def _named(value: str | Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    if isinstance(value, str):
        return value, {}
    return value.get("name"), {key: item for key, item in value.items() if key != "name"}


def _number(value: Any) -> float | int | None:
    """A number, also one that YAML left as a string (`5e-4`); None when it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None
