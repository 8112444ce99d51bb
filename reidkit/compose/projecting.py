"""Fewer dimensions for a trained model: fitted on samples, scored before and after, saved."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import nn

from reidkit import data, models
from reidkit.compose.building import at_root, choose_device, load_benchmarks
from reidkit.compose.decision import ENTRY
from reidkit.compose.inference import QUIET, extract, find_samples, run_config
from reidkit.compose.ranks import main_alone
from reidkit.compose.reporting import score_sides, sides_of, write_scores
from reidkit.config import ConfigError, RunConfig
from reidkit.engine import Console
from reidkit.models.projection import Whiten
from reidkit.models.weights import WEIGHTS_FILE, card_file
from reidkit.types import Benchmark, Features, Sample, Scores

PLAN = "config.yaml"
TAKEN = (WEIGHTS_FILE, PLAN, "state.pt", "scores.json")  # of a run that a projection would mix with


def check_projection(config: RunConfig, model: nn.Module, labels: Sequence[int]) -> None:
    """Raise ConfigError where the config's `project` could not be fitted once training is over."""
    wanted = config.project
    if wanted is None:
        return
    assert isinstance(model, models.EmbeddingModel)
    faults = models.projection_faults(model, wanted.dim, len(labels))
    if wanted.whiten == "learned" and not 1 < len(set(labels)) < len(labels):
        faults.append("whiten: learned needs pairs of one identity and of two; use pca")
    if faults:
        raise ConfigError("config", [f"project: {fault}" for fault in faults])


def fit_to(
    model: models.EmbeddingModel,
    features: Features,
    *,
    dim: int,
    whiten: Whiten,
    shrink: float | None = None,
) -> tuple[models.Projected, dict[str, Any]]:
    """The model with a projection fitted to its own features, and what to tell of it.

    Of several processes the first fits. Raises ValueError where the features allow none.
    """

    def fit() -> models.Projection:
        labels = data.labels_of(features.samples)[0] if whiten == "learned" else None
        unit = F.normalize(features.vectors, dim=1)
        return models.fit_projection(unit, dim, whiten, labels=labels, shrink=shrink)

    projection = main_alone(fit)
    facts = {
        "dim": dim,
        "whiten": whiten,
        **({} if shrink is None else {"shrink": shrink}),
        "of": model.embedding_size,
        "samples": len(features),
        "kept": round(projection.kept, 4),
    }
    return models.Projected.fitted(model, projection, whiten), facts


def in_words(facts: dict[str, Any]) -> str:
    """One line about a projection."""
    what = "of what tells identities apart" if facts["whiten"] == "learned" else "of the variance"
    return (
        f"projected {facts['of']} numbers to {facts['dim']} (whiten: {facts['whiten']}), which "
        f"keep {100 * facts['kept']:.1f}% {what} in {facts['samples']} samples"
    )


def project_run(
    run: Path,
    out: Path,
    *,
    dim: int,
    whiten: Whiten = "pca",
    shrink: float | None = None,
    source: str | None = None,
    root: Path | None = None,
    batch_size: int = 64,
    workers: int = 0,
    console: Console = QUIET,
) -> dict[str, dict[str, Scores]]:
    """Write `out`, a run folder with the model of `run` projected to `dim` numbers.

    Fitted on the samples of `source`, as `find_samples` takes it, or on the run's training data.
    Returns the scores, "unprojected" and "trained" as in `out`'s scores.json, on each benchmark
    that the run was tested on; none where it has no config.yaml. Under torchrun each process
    extracts a part.

    Raises:
        ConfigError: a model or a number of dimensions that cannot be.
        FileExistsError: `out` holds a model or a run.
        ValueError: samples that allow no such projection.
    """
    card, config = models.read_card(run), run_config(run)
    if taken := [name for name in TAKEN if (out / name).exists()]:
        raise FileExistsError(f"{out} already holds {taken[0]}: name another folder with --out")
    model = models.load_model(run).to(choose_device())
    _refuse(run, models.projection_faults(model, dim))
    samples: Sequence[Sample] = ()
    tests: Sequence[Benchmark] = ()
    if config is not None:
        samples, tests = load_benchmarks(at_root(config, root))
    elif source is None:
        raise ConfigError(str(run), ["has no config.yaml that names its training data: give --on"])
    if source is not None:
        samples = find_samples(source, root)
    _refuse(source or str(run), models.projection_faults(model, dim, len(samples)))
    features = extract(model, samples, batch_size=batch_size, workers=workers, console=console)
    projected, facts = fit_to(model, features, dim=dim, whiten=whiten, shrink=shrink)
    console.say(in_words(facts))
    info = {**card.info, "projection": facts | {"on": source or "the run's training data"}}
    # What was told of the inner model alone: its scores, and a threshold for its distances.
    for stale in ("scores", ENTRY):
        info.pop(stale, None)
    found: dict[str, dict[str, Scores]] = {}
    for test in tests:
        found[test.name] = _before_and_after(run, test, projected, console)

    def write() -> None:
        trained = {name: dict(rows["trained"]) for name, rows in found.items()}
        models.save_model(
            out,
            projected,
            projected.spec(card.spec),
            num_classes=card.num_classes,
            info={**info, "scores": trained},
        )
        if config is not None:
            shutil.copyfile(card_file(run).with_name(PLAN), out / PLAN)
        for row in ("unprojected", "trained"):
            scores = {name: rows[row] for name, rows in found.items()}
            write_scores(out / "scores.json", scores, row)

    main_alone(write)
    return found


def _before_and_after(
    run: Path, test: Benchmark, model: models.Projected, console: Console
) -> dict[str, Scores]:
    """Both scores from one extraction: the projection is a function of the inner features."""
    query, gallery = sides_of(model.model, test, console)
    fewer = _project(model, query)
    rows = {
        "unprojected": (query, gallery),
        "trained": (fewer, fewer if gallery is query else _project(model, gallery)),
    }

    def score() -> dict[str, Scores]:
        return {
            name: score_sides(sides, model, test, test.protocol, run=run, name=name).scores
            for name, sides in rows.items()
        }

    return main_alone(score)


def _project(model: models.Projected, features: Features) -> Features:
    vectors = model.project(features.vectors.to(model.mean.device)).cpu()
    return replace(features, vectors=vectors, parts=1)


def _refuse(what: object, faults: Sequence[str]) -> None:
    if faults:
        raise ConfigError(str(what), faults)
