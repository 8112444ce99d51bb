"""From a config's model section to a model, and everything that is wrong with one."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from reidkit.models.base import EmbeddingModel
from reidkit.models.registries import (
    BACKBONES,
    MIXING,
    MODELS,
    NECKS,
    REDUCTIONS,
    SPATIAL,
    TEMPORAL,
    value_problems,
)
from reidkit.models.reid import ReIDModel, whole_number
from reidkit.registry import Registry
from reidkit.types import Preprocessing

# Which registry answers for a key, and what is learned at run time and so not set in a config.
COMPONENTS: dict[str, tuple[Registry[nn.Module], frozenset[str]]] = {
    "backbone": (BACKBONES, frozenset({"size"})),
    "mixing": (MIXING, frozenset({"in_dim"})),
    "spatial": (SPATIAL, frozenset()),
    "temporal": (TEMPORAL, frozenset({"in_dim"})),
    "reduction": (REDUCTIONS, frozenset({"in_dim", "parts"})),
    "neck": (NECKS, frozenset({"in_dim", "parts", "num_classes"})),
}
MODEL_FACTS = frozenset({"num_classes", "size", "preprocessing"})

Spec = Mapping[str, Any]


@MODELS.register("reid")
def reid(
    backbone: dict[str, Any],
    mixing: dict[str, Any] | None = None,
    spatial: dict[str, Any] | None = None,
    temporal: dict[str, Any] | None = None,
    reduction: dict[str, Any] | None = None,
    neck: dict[str, Any] | None = None,
    channels_last: bool = True,
    flip_test: bool = False,
    num_classes: int | None = None,
    size: tuple[int, int] | None = None,
    preprocessing: Preprocessing | None = None,
) -> ReIDModel:
    """A ReIDModel of named components; average pooling, temporal mean and BNNeck where not said,
    mixing and reduction only where said."""
    body = component("backbone", backbone, size=size)
    pool = component("spatial", spatial or {"name": "average"})
    dim, parts = whole_number(body, "out_channels"), whole_number(pool, "parts")
    between = None if mixing is None else component("mixing", mixing, in_dim=dim)
    over_time = component("temporal", temporal or {"name": "mean"}, in_dim=dim)
    smaller = None
    if reduction is not None:
        smaller = component("reduction", reduction, in_dim=dim, parts=parts)
        dim = whole_number(smaller, "dim")
    head = component(
        "neck", neck or {"name": "bnneck"}, in_dim=dim, parts=parts, num_classes=num_classes
    )
    return ReIDModel(
        body,
        pool,
        over_time,
        head,
        preprocessing,
        mixing=between,
        reduction=smaller,
        channels_last=channels_last,
        flip_test=flip_test,
    )


def component(key: str, spec: Spec, **facts: Any) -> nn.Module:
    """The component of a model that `spec` ({"name": ..., arguments}) describes."""
    registry, _ = COMPONENTS[key]
    return registry.build(spec["name"], arguments(spec), **facts)


def build_model(
    spec: Spec,
    *,
    num_classes: int | None,
    size: tuple[int, int],
    preprocessing: Preprocessing,
) -> EmbeddingModel:
    """The model of a spec such as {"name": "reid", "backbone": {"name": "resnet", "depth": 18}}.

    Raises ValueError with every fault, WeightsUnavailable where pretrained weights cannot be had.
    """
    faults = model_faults(spec)
    if faults:
        raise ValueError("; ".join(faults))
    return MODELS.build(
        spec["name"],
        arguments(spec),
        num_classes=num_classes,
        size=size,
        preprocessing=preprocessing,
    )


def model_faults(spec: Spec) -> list[str]:
    """Everything wrong with a model's spec, a sentence each with its key path; nothing is built."""
    faults = section_faults("model", spec, MODELS, MODEL_FACTS)
    if not isinstance(spec, Mapping) or spec.get("name") not in MODELS:
        return faults
    takes = MODELS.parameters(spec["name"])
    for key, (registry, facts) in COMPONENTS.items():
        if key in takes and spec.get(key) is not None:
            faults += section_faults(f"model.{key}", spec[key], registry, facts)
    return faults


def section_faults(
    path: str, spec: Any, registry: Registry[Any], facts: frozenset[str]
) -> list[str]:
    """What is wrong with one {"name": ..., arguments} of this registry."""
    known = ", ".join(registry)
    if not isinstance(spec, Mapping):
        return [f"{path}: expected {{name: ..., ...}}, got {spec!r}; known names: {known}"]
    name = spec.get("name")
    if not isinstance(name, str):
        return [f"{path}: needs 'name', one of: {known}"]
    args = arguments(spec)
    if registry is MODELS:
        # Each component is checked for itself, with its own path; here it only has to be there.
        given = {key: args[key] for key in COMPONENTS if args.get(key) is not None}
        args |= {key: part if isinstance(part, dict) else {} for key, part in given.items()}
    sentences = registry.faults(name, args, facts)
    if not sentences:
        values = registry.schema(name, facts)(**args)
        settled = {key: getattr(values, key) for key in type(values).model_fields}
        sentences = value_problems(registry, name, settled)
    prefix = f"{registry.kind} {name!r}: "
    return [f"{path}: {sentence.removeprefix(prefix)}" for sentence in sentences]


def arguments(spec: Spec) -> dict[str, Any]:
    """The spec without its name."""
    return {key: value for key, value in spec.items() if key != "name"}
