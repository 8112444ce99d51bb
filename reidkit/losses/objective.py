"""What training descends: weighted terms, each a loss that reads one of the model's outputs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from reidkit.distributed import world_size
from reidkit.losses.cluster_memory import ClusterMemory
from reidkit.losses.pairs import full_precision
from reidkit.losses.registries import LOSSES
from reidkit.losses.rows import Rows, Source, means_over_ranks, require_equal_rows
from reidkit.types import ModelOutput

# For what only a run knows: enough to let a constructor judge its arguments.
_STAND_INS: Mapping[str, Any] = {
    "num_classes": 2,
    "embedding_size": 8,
    "parts": 1,
    "rivals": None,
}


@runtime_checkable
class _OwnOptimizer(Protocol):
    def own_optimizer(self) -> torch.optim.Optimizer: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


@runtime_checkable
class _Measuring(Protocol):
    def measures(self) -> dict[str, Tensor]: ...


@runtime_checkable
class _Remembering(Protocol):
    def after_step(self) -> None: ...


@dataclass(frozen=True, eq=False)
class Term:
    """One loss, what it reads and how much it counts.

    `loss` is called with (B, D) or (B, K) and labels (B,). Several of them are one for each body
    part; a single one is applied to every part in turn, or, if its class says `takes_parts = True`,
    once to all of them, (B, P, D). `rate` is the factor on the learning rate of what the loss
    itself learns (proxies, class weights).
    """

    name: str
    loss: nn.Module | Sequence[nn.Module]
    on: Source = "embedding"
    weight: float = 1.0
    rate: float = 1.0


class Objective(nn.Module):
    """The weighted sum of its terms, each averaged over body parts.

    A loss with an `own_optimizer()` keeps the term's weight away from its parameters: their
    gradient is that of the unweighted loss. Terms of one name become `name`, `name_2`, ...

    Of several processes each holds its rows of the batch, and DDP takes the mean of their
    gradients. A loss whose class says `per_sample = True` is a mean over rows, so it sees its own;
    every other loss sees the rows of all ranks, in the order of ranks, and so is the same number
    on all of them. Both give the gradients of one process with the whole batch: gathering is
    differentiable and knows of DDP's mean (`distributed.gather_with_grad`). What does not: pairs
    of the local rows alone, which are other pairs and not a multiple of the loss; and the usual
    all_gather with the own rows put back, which leaves 1 / world of the gradient. Parameters that a
    gathered loss learns (proxies) get the whole gradient on every rank, and a memory of earlier
    batches the same rows in the same order. A miner that draws does so on each rank by itself.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("an objective needs at least one term")
        self.sources: dict[str, Source] = {}
        self.weights: dict[str, float] = {}
        self.rates: dict[str, float] = {}
        self.losses = nn.ModuleDict()
        for term in terms:
            faults = _number_faults("weight", term.weight) + _number_faults("rate", term.rate)
            if faults := faults + _source_faults(term.on):
                raise ValueError(f"{term.name}: {'; '.join(faults)}")
            if term.name == "loss":
                raise ValueError("no term may be called 'loss': that is the sum")
            name = _unused(term.name, self.losses)
            losses = [term.loss] if isinstance(term.loss, nn.Module) else list(term.loss)
            if len(losses) > 1 and any(_takes_parts(loss) for loss in losses):
                raise ValueError(
                    f"{term.name}: the loss takes all parts at once; give one, not {len(losses)}"
                )
            self.losses[name] = nn.ModuleList(losses)
            self.sources[name] = term.on
            self.weights[name] = float(term.weight)
            self.rates[name] = float(term.rate)
            for loss in losses:
                if isinstance(loss, _OwnOptimizer):
                    _keep_weight_away(loss, float(term.weight) / len(losses))
        self._compared = False  # whether the ranks have told one another their rows

    def forward(self, output: ModelOutput, labels: Tensor) -> dict[str, Tensor]:
        """Every term by its name, not weighted, and "loss", the weighted sum to descend; each ().

        A loss with `measures() -> dict[str, Tensor]` adds these as `<term>_<measure>`, for the logs
        only. labels (B,) in [0, num_classes). Values are those of the whole batch, also where each
        of several processes holds a part of it; parts of different sizes are a ValueError.
        """
        if world_size() > 1 and not self._compared:
            require_equal_rows(labels)
            self._compared = True
        rows = Rows(output, labels)
        terms: dict[str, Tensor] = {}
        with full_precision(output.embedding):
            for name in self.losses:
                terms[name] = self._value(name, output, rows)
            local = [name for name in terms if self._per_sample(name)]
            terms.update(means_over_ranks({name: terms[name] for name in local}))
            weighted = [self.weights[name] * value for name, value in terms.items()]
            told = {key: value for key, value in self._measures().items() if key not in terms}
            return {**terms, **told, "loss": torch.stack(weighted).sum()}

    def _measures(self) -> dict[str, Tensor]:
        return {
            f"{name}_{measure}": value.detach()
            for name in self.losses
            for loss in self._losses(name)
            if isinstance(loss, _Measuring)
            for measure, value in loss.measures().items()
        }

    def _per_sample(self, name: str) -> bool:
        return all(bool(getattr(loss, "per_sample", False)) for loss in self._losses(name))

    def _value(self, name: str, output: ModelOutput, rows: Rows) -> Tensor:
        source = self.sources[name]
        read: Tensor | None = getattr(output, source)
        if read is None:
            raise ValueError(
                f"loss term {name!r} reads logits, but the model has no classifier; "
                "give it one or drop the term"
            )
        if read.ndim != 3 or not read.shape[1]:
            raise ValueError(
                f"loss term {name!r} reads {source} of shape (B, P, D), got {tuple(read.shape)}"
            )
        own = self._per_sample(name)
        vectors, labels = rows.of(source, own=own), rows.labels(own=own)
        value = self._mean_over_parts(name, vectors, labels)
        # A rank that had nothing to go back through would leave the others waiting for it. The sum
        # of no elements is 0, whatever the vectors hold.
        return value if value.requires_grad else value + vectors[:0].sum()

    def _mean_over_parts(self, name: str, vectors: Tensor, labels: Tensor) -> Tensor:
        losses = self._losses(name)
        if _takes_parts(losses[0]):
            value: Tensor = losses[0](vectors, labels)
            return value
        parts = vectors.shape[1]
        if len(losses) == 1 and (parts == 1 or not _remembers(losses[0])):
            losses = losses * parts
        if len(losses) != parts:
            raise ValueError(
                f"loss term {name!r} learns something of its own for {len(losses)} part(s), "
                f"but the model gives {parts}; build the objective with parts={parts}"
            )
        return torch.stack(
            [loss(vectors[:, part], labels) for part, loss in enumerate(losses)]
        ).mean()

    def _losses(self, name: str) -> list[nn.Module]:
        return list(cast(nn.ModuleList, self.losses[name]))

    def after_step(self) -> None:
        """After a batch's step: let each loss that has an `after_step()` remember what it saw."""
        for name in self.losses:
            for loss in self._losses(name):
                if isinstance(loss, _Remembering):
                    loss.after_step()

    def memories(self) -> list[ClusterMemory]:
        """The memories of classes among the losses, which a round begins by filling."""
        return [
            loss
            for name in self.losses
            for loss in self._losses(name)
            if isinstance(loss, ClusterMemory)
        ]

    def own_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """New optimisers of the losses that bring their own, by term.

        With several parts every part's loss has one: `term.0`, `term.1`, ...
        """
        found: dict[str, torch.optim.Optimizer] = {}
        for name in self.losses:
            losses = self._losses(name)
            for part, loss in enumerate(losses):
                if isinstance(loss, _OwnOptimizer):
                    key = name if len(losses) == 1 else f"{name}.{part}"
                    found[key] = loss.own_optimizer()
        return found

    def main_parameters(self) -> dict[float, list[nn.Parameter]]:
        """Parameters of losses (proxies, class weights) that the model's optimiser has to move, by
        the factor on their learning rate."""
        found: dict[float, list[nn.Parameter]] = {}
        for name in self.losses:
            for loss in self._losses(name):
                wanted = [p for p in loss.parameters() if p.requires_grad]
                if wanted and not isinstance(loss, _OwnOptimizer):
                    found.setdefault(self.rates[name], []).extend(wanted)
        return found


def build_objective(
    specs: Sequence[Mapping[str, Any]],
    *,
    num_classes: int,
    embedding_size: int,
    parts: int = 1,
    rivals: Tensor | None = None,
) -> Objective:
    """The objective of a config.

    Each spec has `name`, if wanted `on`, `weight` and `rate`, and the loss's own arguments.
    embedding_size is D of one part. With several parts every part gets a loss of its own, so that
    centres, proxies and memories of different parts do not mix; one that takes all parts is alone.
    rivals (num_classes, G) bool: two classes that share a group are two identities, None where all
    are; a loss that does not ask takes all for that. Raises ValueError with every fault.
    """
    if faults := objective_faults(specs):
        raise ValueError("; ".join(faults))
    terms = []
    for spec in specs:
        name, args = spec["name"], _arguments(spec)
        losses = [
            LOSSES.build(
                name,
                args,
                num_classes=num_classes,
                embedding_size=embedding_size,
                parts=parts,
                rivals=rivals,
            )
            for _ in range(1 if _takes_parts(LOSSES[name]) else parts)
        ]
        weight, rate = float(spec.get("weight", 1.0)), float(spec.get("rate", 1.0))
        terms.append(Term(name, losses, source_of(spec), weight, rate))
    return Objective(terms)


def objective_faults(specs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Everything wrong with the specs, a sentence each with its place ("losses.0: ...").

    No model is needed.
    """
    if isinstance(specs, str | Mapping) or not isinstance(specs, Sequence):
        return ["losses: must be a list of {name: ..., weight: ...}"]
    if not specs:
        return ["losses: is empty; training needs at least one"]
    return [
        f"losses.{place}: {fault}"
        for place, spec in enumerate(specs)
        for fault in _spec_faults(spec)
    ]


def source_of(spec: Mapping[str, Any]) -> Source:
    """Which of the model's outputs a term reads: what it says, else what the loss reads first."""
    return cast(Source, spec.get("on", _reads(spec["name"])[0]))


def _spec_faults(spec: Any) -> list[str]:
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        return [f"needs a name, one of: {', '.join(LOSSES)}"]
    name, args = spec["name"], _arguments(spec)
    faults = LOSSES.faults(name, args, _STAND_INS)
    if name not in LOSSES:
        return faults
    if not faults:
        try:
            loss = _trial(spec)
            if "rate" in spec and not any(True for _ in loss.parameters()):
                faults.append(f"rate = {spec['rate']!r}: {name} learns nothing; leave it out")
        except ValueError as error:
            faults.append(f"loss {name!r}: {error}")
    faults += _number_faults("weight", spec.get("weight", 1.0))
    faults += _rate_faults(spec)
    on = source_of(spec)
    if not (wrong := _source_faults(on)) and on not in _reads(name):
        wrong = [f"on = {on!r}: {name} reads {' or '.join(_reads(name))}"]
    return faults + wrong


def learns_classes(specs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which terms cannot follow when the classes are others every round, a sentence each with its
    place; of specs in which `objective_faults` finds nothing wrong.

    These are terms that read logits, learn parameters (which a new objective would lose), or hold
    something for each class. A loss that a round may make anew says `every_round = True`.
    """
    return [
        f"losses.{place}: {spec['name']} {reason}, but without labels the classes are others every "
        "round; use cluster_memory, known_rivals or another loss over pairs"
        for place, spec in enumerate(specs)
        if (reason := _bound_to_classes(spec))
    ]


def _bound_to_classes(spec: Mapping[str, Any]) -> str:
    """Why a term needs the same classes all the time, empty where it does not."""
    if source_of(spec) == "logits":
        return "reads logits, which stand for fixed classes"
    few, more = _trial(spec), _trial(spec, num_classes=3)
    if any(True for _ in more.parameters()):
        return "learns something of its own"
    sizes, others = ({k: v.shape for k, v in loss.named_buffers()} for loss in (few, more))
    if sizes != others and not getattr(more, "every_round", False):
        return "holds something for each class"
    return ""


def _trial(spec: Mapping[str, Any], **facts: Any) -> nn.Module:
    """The loss of a spec on stand-ins for what only a run knows; no random number is used up."""
    with torch.random.fork_rng(devices=[]):
        return LOSSES.build(spec["name"], _arguments(spec), **{**_STAND_INS, **facts})


def _arguments(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {k: value for k, value in spec.items() if k not in ("name", "on", "weight", "rate")}


def _reads(name: str) -> tuple[Source, ...]:
    """What a loss can read, its usual source first; a loss that does not say reads anything."""
    reads: tuple[Source, ...] = getattr(LOSSES[name], "reads", get_args(Source))
    return reads


def _number_faults(key: str, value: Any) -> list[str]:
    try:
        fits = not isinstance(value, bool) and math.isfinite(float(value)) and float(value) >= 0
    except (TypeError, ValueError):
        fits = False
    return [] if fits else [f"{key} = {value!r} must be a number >= 0"]


def _rate_faults(spec: Mapping[str, Any]) -> list[str]:
    if "rate" in spec and hasattr(LOSSES[spec["name"]], "own_optimizer"):
        return [f"rate: {spec['name']} has an optimiser of its own; set its lr"]
    return _number_faults("rate", spec.get("rate", 1.0))


def _source_faults(on: Any) -> list[str]:
    options = get_args(Source)
    return [] if on in options else [f"on = {on!r} must be one of: {', '.join(options)}"]


def _unused(name: str, taken: nn.ModuleDict) -> str:
    unique, number = name, 1
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    return unique


def _takes_parts(loss: object) -> bool:
    return bool(getattr(loss, "takes_parts", False))


def _remembers(loss: nn.Module) -> bool:
    """Whether a loss holds parameters or a memory, which parts must not share."""
    return any(True for _ in loss.parameters()) or any(True for _ in loss.buffers())


def _keep_weight_away(loss: _OwnOptimizer, weight: float) -> None:
    if weight == 0:
        return  # the gradient is 0 as it stands, and so the parameters rest
    for parameter in loss.parameters():
        parameter.register_hook(lambda gradient: gradient / weight)
