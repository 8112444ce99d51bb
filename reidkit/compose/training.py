"""How it all fits: from a config to a run folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from reidkit import data, engine, models, visualise
from reidkit.compose.building import (
    build_schedule,
    build_state,
    build_train_loader,
    check,
    choose_device,
    fingerprint,
    load_benchmarks,
)
from reidkit.compose.inference import QUIET, draw_ranked, extract
from reidkit.compose.scoring import check_views, gait_distance_of, score
from reidkit.config import ConfigError, RunConfig, differences, parse_yaml
from reidkit.distributed import launched
from reidkit.engine import Console, Interrupted, Schedule, StepReport, TrainState
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
    if launched() > 1:
        raise ValueError(
            f"WORLD_SIZE is {launched()}: this version trains on one process; "
            "start it without torchrun, or with --nproc-per-node 1"
        )
    device = choose_device(config.device)
    samples, tests = load_benchmarks(config)
    for test in tests:
        check_views(test)
    labels, num_classes = data.labels_of(samples)
    if -1 in labels:
        first = samples[labels.index(-1)].name
        raise ValueError(
            f"{labels.count(-1)} of {len(labels)} training samples have no identity (pid -1), the "
            f"first is {first}: remove them, or give them one"
        )
    state = build_state(config, num_classes, device)
    loader = build_train_loader(config, samples, labels, device)
    facts = {
        "train": [benchmark.name for benchmark in config.data.train],
        "images": sum(len(sample.frames) for sample in samples),
        "identities": num_classes,
        "fingerprint": fingerprint(samples),
    }
    open_folder(config, out, facts, resume=resume)
    log = engine.RunLog(out, tensorboard=config.tensorboard, interval=config.log_interval)
    run = Run(config, state, build_schedule(config), tests, out, log, console, facts)
    weights = sum(p.numel() for p in state.model.parameters() if p.requires_grad)
    console.say(
        f"{len(samples)} samples of {num_classes} identities; {weights:,} weights to train; "
        f"{config.optim.epochs} epochs of {len(loader)} batches on {device}; run folder {out}"
    )
    if resume and (out / "state.pt").is_file():
        run.load()
    else:
        run.take_yardsticks()
    try:
        with (
            engine.stop_on_signal(state),
            console.bar("train", config.optim.epochs * len(loader)) as run.update,
        ):
            engine.fit(
                state,
                loader,
                epochs=config.optim.epochs,
                schedule=run.schedule,
                after_step=run.after_step,
                after_epoch=run.after_epoch,
            )
        console.say(f"trained for {run.seconds / 60:.1f} minutes")
        return run.finish()
    except FloatingPointError as error:
        kept = out / "state.pt"
        told = f"the last good checkpoint is {kept}" if kept.is_file() else "none was saved before"
        raise FloatingPointError(f"{error}; {told}") from error
    except Exception as error:
        # Between two steps the state is whole: nothing that was computed needs to be lost.
        if state.consistent and state.batch % state.accumulate == 0:
            run.save()
            if isinstance(error, Interrupted):
                raise Interrupted(f"stopped at epoch {state.epoch + 1}; saved {out}") from error
        raise
    finally:
        log.close()


@dataclass
class Run:
    """A training with its folder: what happens after a step, after an epoch, and at the end."""

    config: RunConfig
    state: TrainState
    schedule: Schedule
    tests: Sequence[Benchmark]
    out: Path
    log: engine.RunLog
    console: Console
    facts: dict[str, Any]
    beside: dict[str, dict[str, Scores]] = field(default_factory=dict)  # untrained, baselines
    seconds: float = 0.0  # of training alone, evaluations left out
    update: engine.Update | None = None

    def save(self) -> None:
        """Write everything that a resumed run needs."""
        saved = {"state": self.state.state_dict(), "schedule": self.schedule.state_dict()}
        engine.save_state(self.out / "state.pt", {**saved, "seconds": self.seconds})

    def load(self) -> None:
        """Go on where `save` was called."""
        saved = engine.load_state(self.out / "state.pt")
        self.state.load_state_dict(saved["state"])
        self.schedule.load_state_dict(saved["schedule"])
        self.seconds = saved["seconds"]
        self.log.rewind(self.state.iteration)
        report = self.out / "scores.json"
        if report.is_file():
            self.beside = {
                test: {name: Scores.from_dict(scores) for name, scores in rows.items()}
                for test, rows in json.loads(report.read_text()).items()
            }
        self.console.say(f"resumed at epoch {self.state.epoch + 1}, batch {self.state.batch + 1}")

    def take_yardsticks(self) -> None:
        """Score the cheap baselines and the untrained model, where the config asks for them."""
        for test in self.tests:
            rows = self.beside[test.name] = {}
            for name in self.config.evaluate.baselines:
                self.console.say(f"{test.name}: scoring the baseline {name}")
                baseline = data.BASELINES[name]
                query, gallery = baseline(test.query), baseline(test.gallery)
                rows[name] = score(
                    query,
                    gallery,
                    test.protocol,
                    name=test.name,
                    metric=baseline.metric,
                )
            if self.config.evaluate.untrained:
                rows["untrained"], _, _ = self.score(self.state.model, test)
        self.write_scores({})

    def after_step(self, state: TrainState, report: StepReport) -> None:
        """Log the step, and tell of it now and then."""
        self.seconds += report.data_seconds + report.step_seconds
        record = self.log.step(state, report)
        if record is not None and self.update is not None:
            loss, rate, speed = record["loss"], record["lr"], record["images_per_second"]
            self.update(state.iteration, f"loss {loss:.3f}  lr {rate:.2e}  {speed:.0f} images/s")

    def after_epoch(self, state: TrainState) -> None:
        """Save; and score, when it is time to."""
        every = self.config.evaluate.every
        if every and state.epoch % every == 0 and state.epoch < self.config.optim.epochs:
            for position, test in enumerate(self.tests):
                scores, _, _ = self.score(state.best_model, test)
                name, value = next(iter(scores.items()))
                self.console.say(f"epoch {state.epoch}: {test.name} {name} {100 * value:.2f}%")
                if position == 0:
                    self.schedule.observe(value)
        self.save()

    def score(
        self, model: nn.Module, test: Benchmark, frames: data.FrameSampling | None = None
    ) -> tuple[Scores, Features, Features]:
        """Scores of a model on a benchmark, into the log, and the features they come from."""

        def features(samples: Sequence[Sample]) -> Features:
            return extract(
                model,
                samples,
                batch_size=self.config.evaluate.batch_size,
                workers=self.config.data.workers,
                frames=frames,
                console=self.console,
            )

        query = features(test.query)
        gallery = query if test.gallery == test.query else features(test.gallery)
        rules = self.config.evaluate
        scores = score(
            query,
            gallery,
            test.protocol,
            name=test.name,
            metric=rules.metric,
            gait_distance=gait_distance_of(model, rules),
        )
        prefix = f"{test.name}/" if len(self.tests) > 1 else ""
        self.log.write(
            {
                "kind": "evaluation" if frames is None else "single_frame",
                "epoch": self.state.epoch,
                "iteration": self.state.iteration,
                "weights": "raw" if model is self.state.model else "ema",
                "scores": {prefix + name: value for name, value in scores.items()},
            }
        )
        return scores, query, gallery

    def finish(self) -> dict[str, Scores]:
        """Score the trained model, write what a run folder promises, and say it."""
        # First without scores: should one of the test images be damaged, the model is safe.
        self.save_model({})
        found: dict[str, Scores] = {}
        for position, test in enumerate(self.tests):
            found[test.name], query, gallery = self.score(self.state.best_model, test)
            if self.config.evaluate.single_frame:
                one = data.FrameSampling("evenly", 1)
                single, _, _ = self.score(self.state.best_model, test, one)
                self.beside.setdefault(test.name, {})["single frame"] = single
            rows = {**self.beside.get(test.name, {}), "trained": found[test.name]}
            self.console.say(comparison(test.name, rows))
            if self.config.evaluate.pictures:
                name = "ranked.png" if position == 0 else f"ranked-{test.name}.png"
                count = self.config.evaluate.pictures
                metric = self.config.evaluate.metric
                draw_ranked(self.out / name, query, gallery, test.protocol, count, metric)
                self.console.say(f"ranked lists: {self.out / name}")
        self.write_scores(found)
        self.save_model(found)
        visualise.curves(self.out / "log.jsonl", self.out / "curves.png")
        self.console.say(f"curves: {self.out / 'curves.png'}")
        self.console.say(f"model: {self.out / 'model.safetensors'}")
        return found

    def save_model(self, scores: Mapping[str, Scores]) -> None:
        """Write `model.safetensors` and `model.json`: what a user of the model needs."""
        model = self.state.best_model
        assert isinstance(model, models.EmbeddingModel)
        info = {
            **self.facts,
            "seconds": round(self.seconds, 1),
            "scores": {name: dict(values) for name, values in scores.items()},
        }
        num_classes = self.facts["identities"]
        models.save_model(self.out, model, self.config.model, num_classes=num_classes, info=info)

    def write_scores(self, found: Mapping[str, Scores]) -> None:
        """Write `scores.json`: benchmark -> what was scored -> scores."""
        report = {
            test.name: {
                name: scores.to_dict()
                for name, scores in (
                    *self.beside.get(test.name, {}).items(),
                    *([("trained", found[test.name])] if test.name in found else []),
                )
            }
            for test in self.tests
        }
        write_atomically(self.out / "scores.json", json.dumps(report, indent=2).encode())


def open_folder(config: RunConfig, out: Path, facts: Mapping[str, Any], *, resume: bool) -> None:
    """Start a run folder, or make sure that the one there is of this config and data."""
    plan, card = out / "config.yaml", out / "data.json"
    if resume:
        if not plan.is_file():
            raise FileNotFoundError(f"no run in {out}: nothing to resume; leave out --resume")
        old = parse_yaml(plan.read_text(), str(plan))
        changed = differences(old, config.model_dump(mode="json"))
        if card.is_file() and json.loads(card.read_text()) != dict(facts):
            changed.append("the training data: other files, identities or cameras")
        if changed:
            raise ConfigError(
                f"{out} was made with another config; undo this or train into a new folder", changed
            )
        return
    if plan.exists():
        raise FileExistsError(
            f"{out} already holds a run: --resume goes on with it, --out names another"
        )
    write_atomically(plan, config.to_yaml().encode())
    write_atomically(card, json.dumps(dict(facts), indent=2).encode())


def comparison(title: str, rows: Mapping[str, Scores]) -> str:
    """A table of several scores, a line each, in percent; the last row's names and notes."""
    last = list(rows.values())[-1]
    width = max(len(name) for name in (*rows, title))
    lines = [f"{title:<{width}}  " + "  ".join(f"{name:>7}" for name in last)]
    for name, scores in rows.items():
        cells = "  ".join(f"{100 * scores[key]:>6.2f}%" for key in last)
        lines.append(f"{name:<{width}}  {cells}")
    return "\n".join(line for line in (*lines, last.note(), last.details) if line)
