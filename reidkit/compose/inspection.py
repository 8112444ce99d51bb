"""What reidkit offers, and what this machine has."""

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import torch

from reidkit import data, engine, evaluation, losses, models
from reidkit.compose.building import choose_device
from reidkit.registry import Registry, UnknownName


def components(kind: str | None = None) -> dict[str, dict[str, str]]:
    """Kind -> name -> arguments of everything registered; of one kind where it is named.

    Protocols have no arguments: a text says what each is.
    """
    registries = [
        data.BENCHMARKS,
        *models.REGISTRIES,
        losses.LOSSES,
        engine.OPTIMIZERS,
        engine.SCHEDULES,
    ]
    by_kind = {registry.kind: registry for registry in registries}
    known = [*by_kind, "protocol"]
    if kind is not None and kind not in known:
        raise UnknownName.among("kind", kind, known)
    found = {
        title: {name: _signature(registry, name) for name in registry}
        for title, registry in by_kind.items()
        if kind in (None, title)
    }
    if kind in (None, "protocol"):
        texts = {name: evaluation.describe(name) for name in evaluation.PROTOCOLS}
        found["protocol"] = {name: text.removeprefix(f"{name}: ") for name, text in texts.items()}
        found["protocol"] |= {
            name: f"a gait table, rank-1 a probe view; {gait.source}"
            for name, gait in evaluation.GAIT_PROTOCOLS.items()
        }
    return found


# What reidkit tells a constructor at run time: no config may set it.
FACTS: Mapping[str, frozenset[str]] = {
    data.BENCHMARKS.kind: frozenset({"root", "check"}),
    losses.LOSSES.kind: frozenset({"num_classes", "embedding_size"}),
    engine.OPTIMIZERS.kind: frozenset({"params", "lr", "weight_decay"}),
    models.MODELS.kind: models.MODEL_FACTS,
    **{registry.kind: facts for registry, facts in models.COMPONENTS.values()},
}


def _signature(registry: Registry[Any], name: str) -> str:
    words = []
    for key, parameter in registry.parameters(name).items():
        if key not in FACTS.get(registry.kind, ()):
            default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
            words.append(key + default)
    return ", ".join(words)


PACKAGES = ("torch", "torchvision", "timm", "pytorch-metric-learning", "opencv-python-headless")


def diagnose() -> dict[str, str]:
    """What this machine has, a line a fact; each missing piece with its remedy."""
    facts = {
        "python": platform.python_version(),
        "cores": f"{os.cpu_count()}, torch uses {torch.get_num_threads()}",
        "memory": _memory(),
        "device": str(choose_device()),
    }
    for package in PACKAGES:
        facts[package] = _version(package) or "missing: reinstall reidkit"
    found = [name for name in ("faiss-cpu", "faiss-gpu") if _version(name)]
    facts["faiss"] = ", ".join(f"{name} {_version(name)}" for name in found) or (
        "missing: exact search falls back to torch; pip install 'reidkit[cpu]'"
    )
    if len(found) > 1:
        facts["faiss"] += ": they share one folder and break each other; uninstall one"
    root = data.default_root()
    facts["data"] = f"{root}" + ("" if root.is_dir() else ": no such folder; set REIDKIT_DATA")
    return facts


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not a POSIX system
        return "unknown"
    return f"{total / 2**30:.1f} GiB"
