"""How it all fits: from a config to a run folder."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from reidkit import data, engine, evaluation, models, visualise
from reidkit.compose.building import (
    build_state,
    build_train_loader,
    check,
    choose_device,
    fingerprint,
    load_benchmarks,
)
from reidkit.compose.inference import QUIET, draw_ranked, extract
from reidkit.config import ConfigError, RunConfig, differences, parse_yaml
from reidkit.distributed import world_size
from reidkit.engine import Console, Interrupted, TrainState
from reidkit.files import write_atomically
from reidkit.types import Benchmark, Features, Sample, Scores


def train(
    config: RunConfig, out: Path, *, resume: bool = False, console: Console = QUIET
) -> dict[str, Scores]:
    """Train, evaluate and write the run folder; returns the scores of each test benchmark.

    Raises ConfigError for faults in the config, FileExistsError when `out` holds a run and `resume`
    is False, Interrupted (after saving) when a signal asked to stop.
    """
    check(config)
    if world_size() > 1:
        raise ValueError(
            f"WORLD_SIZE is {world_size()}: this version trains on one process; "
            "start it without torchrun, or with --nproc-per-node 1"
        )
    device = choose_device(config.device)
    samples, tests = load_benchmarks(config)
    labels, num_classes = data.labels_of(samples)
    state = build_state(config, num_classes, device)
    loader = build_train_loader(config, samples, labels, device)
    schedule_args = {key: v for key, v in config.optim.schedule.items() if key != "name"}
    schedule = engine.SCHEDULES.build(config.optim.schedule["name"], schedule_args)
    info = {
        "train": [benchmark.name for benchmark in config.data.train],
        "images": len(samples),
        "identities": num_classes,
        "fingerprint": fingerprint(samples),
    }
    _open_run(config, out, info, resume=resume)
    log = engine.RunLog(out, tensorboard=config.tensorboard, interval=config.log_interval)
    weights = sum(p.numel() for p in state.model.parameters() if p.requires_grad)
    console.say(
        f"{len(samples)} samples of {num_classes} identities; {weights:,} weights to train; "
        f"{config.optim.epochs} epochs of {len(loader)} batches on {device}; run folder {out}"
    )

    beside: dict[str, dict[str, Scores]] = {test.name: {} for test in tests}
    if resume:
        saved = engine.load_state(out / "state.pt")
        state.load_state_dict(saved["state"])
        schedule.load_state_dict(saved["schedule"])
        log.rewind(state.iteration)
        console.say(f"resumed at epoch {state.epoch + 1}, batch {state.batch + 1}")
    for test in tests:
        beside[test.name] = _yardsticks(config, state, test, console)

    def save() -> None:
        saved = {"state": state.state_dict(), "schedule": schedule.state_dict()}
        engine.save_state(out / "state.pt", saved)

    def score() -> dict[str, Scores]:
        scores = {test.name: _score(state.best_model, test, config, console)[0] for test in tests}
        kind = "ema" if state.ema is not None else "raw"
        for name, values in scores.items():
            prefix = f"{name}/" if len(tests) > 1 else ""
            record = {prefix + key: value for key, value in values.items()}
            log.write(
                {
                    "kind": "evaluation",
                    "epoch": state.epoch,
                    "iteration": state.iteration,
                    "weights": kind,
                    "scores": record,
                }
            )
            first = next(iter(values))
            console.say(f"epoch {state.epoch}: {name} {first} {values[first]:.4f}")
        return scores

    def after_epoch(state: TrainState) -> None:
        every = config.evaluate.every
        if every and state.epoch % every == 0 and state.epoch < config.optim.epochs:
            scores = score()
            if scores:
                schedule.observe(next(iter(next(iter(scores.values())).values())))
        save()

    started = time.monotonic()
    try:
        with (
            engine.stop_on_signal(state),
            console.bar("train", config.optim.epochs * len(loader)) as update,
        ):
            engine.fit(
                state,
                loader,
                epochs=config.optim.epochs,
                schedule=schedule,
                after_step=lambda state, report: _tell(log, state, report, update),
                after_epoch=after_epoch,
            )
    except FloatingPointError as error:
        kept = out / "state.pt"
        told = f"the last good checkpoint is {kept}" if kept.is_file() else "none was saved before"
        raise FloatingPointError(f"{error}; {told}") from error
    except Exception as error:
        # Between two steps the state is whole: nothing that was computed needs to be lost.
        if state.consistent and state.batch % state.accumulate == 0:
            save()
            if isinstance(error, Interrupted):
                raise Interrupted(f"stopped at epoch {state.epoch + 1}; saved {out}") from error
        raise
    finally:
        log.close()
    seconds = time.monotonic() - started
    console.say(f"trained in {seconds / 60:.1f} minutes")
    return _finish(
        config, state, tests, beside, out, {**info, "seconds": round(seconds, 1)}, console
    )


def _open_run(config: RunConfig, out: Path, info: Mapping[str, Any], *, resume: bool) -> None:
    """Start a run folder, or make sure that the one there is of this config and data."""
    plan, facts = out / "config.yaml", out / "data.json"
    if resume:
        if not plan.is_file():
            raise FileNotFoundError(f"no run in {out}: nothing to resume; leave out --resume")
        old = parse_yaml(plan.read_text(), str(plan))
        changed = differences(old, config.model_dump(mode="json"))
        if facts.is_file() and json.loads(facts.read_text()) != dict(info):
            changed.append("the training data: other files, identities or cameras")
        if changed:
            raise ConfigError(
                f"{out} was made with another config; undo this or train into a new folder", changed
            )
        return
    if (out / "state.pt").exists() or plan.exists():
        raise FileExistsError(
            f"{out} already holds a run: --resume goes on with it, --out names another"
        )
    write_atomically(plan, config.to_yaml().encode())
    write_atomically(facts, json.dumps(dict(info), indent=2).encode())


def _tell(log: engine.RunLog, state: TrainState, report: engine.StepReport, update: Any) -> None:
    record = log.step(state, report)
    if record is not None:
        note = (
            f"loss {record['loss']:.3f}  lr {record['lr']:.2e}  "
            f"{record['images_per_second']:.0f} images/s"
        )
        update(state.iteration, note)


def _yardsticks(
    config: RunConfig, state: TrainState, test: Benchmark, console: Console
) -> dict[str, Scores]:
    """Scores of the untrained model and of the cheap baselines, where the config asks for them."""
    rows: dict[str, Scores] = {}
    for name in config.evaluate.baselines:
        measure = data.BASELINES[name]
        rows[name] = evaluation.evaluate(measure(test.query), measure(test.gallery), test.protocol)
    if config.evaluate.untrained and state.iteration == 0:
        rows["untrained"] = _score(state.model, test, config, console)[0]
    return rows


def _score(
    model: nn.Module, test: Benchmark, config: RunConfig, console: Console
) -> tuple[Scores, Features, Features]:
    def features(samples: Sequence[Sample]) -> Features:
        return extract(
            model,
            samples,
            batch_size=config.evaluate.batch_size,
            workers=config.data.workers,
            console=console,
        )

    query = features(test.query)
    gallery = query if test.gallery == test.query else features(test.gallery)
    scores = evaluation.evaluate(query, gallery, test.protocol, metric=config.evaluate.metric)
    return scores, query, gallery


def _finish(
    config: RunConfig,
    state: TrainState,
    tests: Sequence[Benchmark],
    beside: dict[str, dict[str, Scores]],
    out: Path,
    info: dict[str, Any],
    console: Console,
) -> dict[str, Scores]:
    """Score the trained model, write what a run folder promises, and say it."""
    scores: dict[str, Scores] = {}
    report: dict[str, Any] = {}
    log = engine.RunLog(out, tensorboard=False)
    for position, test in enumerate(tests):
        scores[test.name], query, gallery = _score(state.best_model, test, config, console)
        prefix = f"{test.name}/" if len(tests) > 1 else ""
        log.write(
            {
                "kind": "evaluation",
                "epoch": state.epoch,
                "iteration": state.iteration,
                "weights": "ema" if state.ema is not None else "raw",
                "scores": {prefix + name: value for name, value in scores[test.name].items()},
            }
        )
        rows = {**beside[test.name], "trained": scores[test.name]}
        report[test.name] = {name: values.to_dict() for name, values in rows.items()}
        console.say(comparison(test.name, rows))
        if config.evaluate.pictures:
            picture = out / ("ranked.png" if position == 0 else f"ranked-{test.name}.png")
            draw_ranked(picture, query, gallery, test.protocol, config.evaluate.pictures)
            console.say(f"ranked lists: {picture}")
    write_atomically(out / "scores.json", json.dumps(report, indent=2).encode())
    visualise.curves(out / "log.jsonl", out / "curves.png")
    model = state.best_model
    assert isinstance(model, models.EmbeddingModel)
    models.save_model(
        out,
        model,
        config.model,
        num_classes=info["identities"],
        info={**info, "scores": {name: dict(values) for name, values in scores.items()}},
    )
    console.say(f"curves: {out / 'curves.png'}; model: {out / 'model.safetensors'}")
    return scores


def comparison(title: str, rows: Mapping[str, Scores]) -> str:
    """A table of several scores, a line each, in percent."""
    last = list(rows.values())[-1]
    width = max(len(name) for name in (*rows, title))
    lines = [f"{title:<{width}}  " + "  ".join(f"{name:>7}" for name in last)]
    for name, scores in rows.items():
        cells = "  ".join(f"{100 * scores[key]:>6.2f}%" for key in last)
        lines.append(f"{name:<{width}}  {cells}")
    return "\n".join([*lines, *last.table().splitlines()[2:]])
