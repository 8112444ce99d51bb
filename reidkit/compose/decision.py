"""A decision from a feature file: stored beside its model, drawn, and read again."""

from pathlib import Path
from typing import Any

from reidkit import models, visualise
from reidkit.compose.inference import run_config, weights_hash
from reidkit.evaluation.decision.decide import Decision, decide
from reidkit.models.weights import store_info
from reidkit.types import Features, Metric

__all__ = ["decide_file", "draw_reliability", "read_decision"]
ENTRY = "threshold"  # its name in the `info` of model.json


def decide_file(
    features: Path,
    false_match_rate: float,
    *,
    run: Path | None = None,
    metric: Metric | None = None,
    plot: Path | None = None,
    **settings: Any,
) -> Decision:
    """`decide` on a file of `Features.save`; with `run` stored in that run's `model.json`.

    Args:
        features: an `.npz`.
        false_match_rate: to be promised, in (0, 1).
        run: a run folder whose model made the features; nothing in it changes if anything fails.
        metric: None is the run's own, else cosine.
        plot: a PNG to write the reliability into.
        settings: what else `decide` takes.

    Raises:
        FileNotFoundError: no such file or run.
        ValueError: features of another model than the run's (by fingerprint, or by their length),
            no held-out pair to draw, or anything `decide` refuses.
    """
    found = Features.load(features)
    if run is not None:
        card = models.read_card(run)
        length = found.vectors.shape[1]
        if length != card.embedding_size:
            raise ValueError(
                f"{features} holds features of {length} numbers, the model in {run} makes "
                f"{card.embedding_size}: extract them with this model"
            )
        if found.model and found.model != (own := weights_hash(models.load_model(run))):
            raise ValueError(
                f"{features} holds features of model {found.model}, but {run} is model {own}: "
                "extract them with this model"
            )
        config = run_config(run)
        if metric is None and config is not None:
            metric = config.evaluate.metric
    decision = decide(found, false_match_rate, metric=metric or "cosine", **settings)
    if plot is not None:
        draw_reliability(plot, decision)
    if run is not None:
        store_info(run, ENTRY, decision.to_dict())
    return decision


def read_decision(run: str | Path) -> Decision:
    """The decision stored with a model.

    Raises:
        FileNotFoundError: no model there.
        ValueError: the model has no threshold yet, or a broken one.
    """
    info = models.read_card(run).info
    if ENTRY not in info:
        raise ValueError(
            f"{run} has no threshold yet: reidkit decide FEATURES --false-match-rate 0.001 "
            f"--run {run}"
        )
    return Decision.from_dict(info[ENTRY])


def draw_reliability(path: str | Path, decision: Decision) -> None:
    """Write a PNG of predicted against observed; ValueError where no identities were held out."""
    curve = decision.calibration
    table = curve.reliability
    if not table:
        raise ValueError("no reliability to draw: there were too few identities to hold some out")
    visualise.reliability(
        path,
        [row.predicted for row in table],
        [row.observed for row in table],
        [row.count for row in table],
        title=f"Reliability of {curve.kind} at prior {curve.prior:.3g}",
    )
