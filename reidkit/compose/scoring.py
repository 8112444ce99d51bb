"""Features of a benchmark's two sides -> Scores, by whatever its protocol reports."""

from torch import nn

from reidkit import evaluation
from reidkit.config import EvaluateConfig
from reidkit.evaluation.gait.part_distances import Distance
from reidkit.registry import UnknownName
from reidkit.types import Benchmark, EvalProtocol, Features, Metric, Scores

GAIT_TABLE = "gait_table"


def is_gait(protocol: EvalProtocol) -> bool:
    """Whether the protocol reports a gait table."""
    return GAIT_TABLE in protocol.report


def score(
    query: Features,
    gallery: Features,
    protocol: EvalProtocol,
    *,
    name: str,
    metric: Metric = "cosine",
    gait_distance: Distance | None = None,
) -> Scores:
    """Retrieval scores, or the means of a gait table with the table as their details.

    `name` is the benchmark's. `gait_distance` is for gait features: "parts", the mean over the
    parts of their Euclidean distance, or "flat"; retrieval by it where it is given, by `metric`
    where it is None. A gait table is always of one of the two, "parts" where it is None.
    """
    if is_gait(protocol):
        rules = gait_rules(gallery, protocol, name)
        table = evaluation.gait_table(query, gallery, rules, distance=gait_distance or "parts")
        return Scores(
            {condition: table.mean(condition) for condition in table.conditions},
            queries=sum(sample.condition in asked_for(rules) for sample in query.samples),
            details=table.table(),
            plain_details=table.to_dict(),
        )
    if gait_distance != "parts" or query.parts == 1:
        metric = metric if gait_distance is None else "euclidean"
        return evaluation.evaluate(query, gallery, protocol, metric=metric)
    blocks = (block for _, block in evaluation.part_distances(query, gallery))
    sides = (query.pids, query.camids, gallery.pids, gallery.camids)
    return evaluation.evaluate_distances(blocks, *sides, protocol)


def asked_for(rules: evaluation.GaitProtocol) -> set[str]:
    """The conditions of all probes."""
    return {condition for group in rules.probes.values() for condition in group}


def check_views(test: Benchmark) -> None:
    """Raise a ValueError where a gait table of this benchmark could only be empty.

    A table leaves identical views out, so it needs a probe with a gallery of another view.
    """
    views = {sample.view for sample in test.gallery}
    if is_gait(test.protocol) and not any(views - {probe.view} for probe in test.query):
        told = ", ".join(sorted(views)) or "none"
        raise ValueError(
            f"{test.name}: probes and gallery have one view ({told}), and a gait table leaves "
            "identical views out: nothing can be scored; test on data of two views, or train with "
            "data.test=[]"
        )


def gait_distance_of(model: nn.Module, rules: EvaluateConfig) -> Distance | None:
    """The config's gait distance where the model is one of gait, else None."""
    return None if getattr(model, "unit_parts", True) else rules.gait_distance


def rules_of(name: str) -> EvalProtocol:
    """The protocol of that name, a gait protocol too; UnknownName lists them."""
    gait = evaluation.GAIT_PROTOCOLS.get(name)
    if gait is not None:
        return EvalProtocol("same_view", report=(GAIT_TABLE,), groups=gait.probes)
    if name not in evaluation.PROTOCOLS:
        known = [*evaluation.PROTOCOLS, *evaluation.GAIT_PROTOCOLS]
        raise UnknownName.among("protocol", name, known)
    return evaluation.protocol(name)


def gait_rules(gallery: Features, protocol: EvalProtocol, name: str) -> evaluation.GaitProtocol:
    """The gait protocol of that name, or one with the same conditions on both sides; else one of
    the gallery's own conditions."""
    named = evaluation.GAIT_PROTOCOLS.get(name)
    if named is not None and dict(named.probes) == dict(protocol.groups):
        return named
    conditions = tuple(sorted({sample.condition for sample in gallery.samples}))
    for known in evaluation.GAIT_PROTOCOLS.values():
        # The groups alone tell them apart; data may lack a condition of the gallery.
        if set(conditions) <= set(known.gallery) and dict(known.probes) == dict(protocol.groups):
            return known
    return evaluation.GaitProtocol(name=name, gallery=conditions, probes=protocol.groups)
