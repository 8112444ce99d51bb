"""How it all fits: from a config to a run folder."""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reidkit import data, engine, models, visualise
from reidkit.compose.building import (
    build_schedule,
    build_state,
    build_train_loader,
    check,
    fingerprint,
    load_benchmarks,
)
from reidkit.compose.inference import QUIET, draw_ranked, extract
from reidkit.compose.inspection import usable_cores
from reidkit.compose.projecting import check_projection, fit_to, in_words
from reidkit.compose.ranks import main_alone, main_first, mark_launch, together
from reidkit.compose.rounds import Rounds, sparse
from reidkit.compose.scoring import check_views, gait_distance_of, score
from reidkit.config import (
    ConfigError,
    RunConfig,
    differences,
    parse_config,
    parse_yaml,
)
from reidkit.distributed import FailedElsewhere, is_main, launched_here, share_buffers, world_size
from reidkit.engine import Console, Interrupted, Schedule, StepReport, TrainState
from reidkit.files import write_atomically
from reidkit.types import Benchmark, Features, Sample, Scores


def train(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    force: bool = False,
    console: Console = QUIET,
) -> dict[str, Scores]:
    """Train, evaluate and write the run folder; returns the scores of each test benchmark.

    Under torchrun on every process alike; the first alone writes and speaks. `force` lets `resume`
    go on although config or data are others than before.

    Raises ConfigError for faults in the config, FileExistsError when `out` holds a run and `resume`
    is False, Interrupted (after saving) when a signal asked to stop.
    """
    check(config)
    with together(config.device) as device:
        return _train(config, out, device, resume, force, console if is_main() else QUIET)


def _train(
    config: RunConfig,
    out: Path,
    device: torch.device,
    resume: bool,
    force: bool,
    console: Console,
) -> dict[str, Scores]:
    samples, tests = main_first(lambda: load_benchmarks(config))
    for test in tests:
        check_views(test)
    labels, num_classes = data.labels_of(samples)
    if config.method is not None:
        samples = sparse(samples, config.method.gap)
        labels = [-1] * len(samples)
    elif -1 in labels:
        first = samples[labels.index(-1)].name
        raise ValueError(
            f"{labels.count(-1)} of {len(labels)} training samples have no identity (pid -1), the "
            f"first is {first}: remove them, or give them one"
        )
    supervised = config.method is None
    state = build_state(config, num_classes if supervised else None, device)
    check_micro(config, state)
    check_projection(config, state.model, labels)
    facts = {
        "train": [benchmark.name for benchmark in config.data.train],
        "images": sum(len(sample.frames) for sample in samples),
        "identities": num_classes if supervised else None,
        "fingerprint": fingerprint(samples),
    }
    changed = main_alone(lambda: open_folder(config, out, facts, resume=resume, force=force))
    log = engine.RunLog(
        out,
        engine.open_trackers(
            out,
            tensorboard=config.tensorboard,
            track=config.track,
            config=config.model_dump(mode="json"),
            name=out.name,
        ),
        interval=config.log_interval,
    )
    keeper = engine.Checkpointer(
        out / "state.pt",
        keep=config.checkpoint.keep,
        minutes=config.checkpoint.minutes,
        steps=config.checkpoint.steps,
    )
    state.before_update = keeper.wait_for_copy
    run = Run(
        config,
        state,
        build_schedule(config),
        build_train_loader(config, samples, labels, device) if supervised else None,
        tests,
        out,
        log,
        keeper,
        console,
        facts,
        samples,
    )
    if not supervised:
        run.rounds = Rounds(config, state, samples, out, run.features, log, console)
    run.introduce(len(samples))
    seen = {(sample.domain, sample.pid) for sample in samples}
    for test in tests:
        if both := seen & {(sample.domain, sample.pid) for sample in test.query}:
            console.say(
                f"{test.name}: {len(both)} identities that are asked for are trained on, too, so "
                "scores say little about others; give data.train and data.test the same split"
            )
    for line in changed:
        console.say(f"changed since the run began: {line}")
    if resume and main_alone(lambda: engine.saved_states(out / "state.pt") != []):
        run.load()
    else:
        run.take_yardsticks()
    if changed:  # only now: a state that does not fit leaves the folder as it was
        main_alone(lambda: write_plan(config, out, facts))
    try:
        with engine.stop_on_signal(state):
            try:
                with console.bar("train", config.optim.epochs * run.batches) as run.update:
                    run.train()
                if state.stop:
                    raise Interrupted
            except Interrupted as error:
                run.save(wait=True)
                raise Interrupted(f"stopped at epoch {state.epoch + 1}; saved {out}") from error
            # Before the wait: a disk that is full by now loses no more than the last state.
            console.say(f"trained for {run.seconds / 60:.1f} minutes")
            main_alone(keeper.wait)
        with engine.interrupted_by_signal():
            return run.finish()
    except FloatingPointError as error:
        kept = out / "state.pt"
        told = f"the last good checkpoint is {kept}" if kept.is_file() else "none was saved before"
        raise FloatingPointError(f"{error}; {told}") from error
    except Interrupted:
        raise
    except Exception:
        # Between two steps the state is whole: nothing that was computed needs to be lost. Of
        # several processes the others may be anywhere, and what they hold cannot be asked for.
        if world_size() == 1 and state.consistent and state.batch % state.accumulate == 0:
            with contextlib.suppress(OSError):  # the error that led here is the one to tell
                run.save(wait=True)
        raise
    finally:
        run.rounds = None  # else run and rounds keep one another, and DDP outlives its processes
        keeper.close()
        log.close()


@dataclass
class Run:
    """A training with its folder: what happens after a step, after an epoch, and at the end."""

    config: RunConfig
    state: TrainState
    schedule: Schedule
    loader: data.StagedLoader | None  # of the round under way, where there are rounds
    tests: Sequence[Benchmark]
    out: Path
    log: engine.RunLog
    keeper: engine.Checkpointer
    console: Console
    facts: dict[str, Any]
    samples: Sequence[Sample]
    beside: dict[str, dict[str, Scores]] = field(default_factory=dict)  # untrained, baselines
    seconds: float = 0.0  # of training alone, evaluations left out
    update: engine.Update | None = None
    reserved: bool = False  # memory for a copy of the state
    advised: set[str] = field(default_factory=set)
    projected: models.Projected | None = None
    rounds: Rounds | None = None  # without labels

    def introduce(self, samples: int) -> None:
        """Say what is about to be trained, and on what."""
        processes = f" in {world_size()} processes" if world_size() > 1 else ""
        who = f"of {self.facts['identities']} identities"
        if self.rounds is not None:
            who = f"without labels, {self.rounds.count} rounds"
        self.console.say(
            f"{samples} samples {who}; {self.weights:,} weights "
            f"to train; {self.config.optim.epochs} epochs of {self.batches} batches on "
            f"{self.state.device}{processes}; run folder {self.out}"
        )
        if self.config.data.batch.micro and engine.live_batch_norm(self.state.model):
            self.console.say(
                "batch.micro: each micro-batch has batch-norm statistics of its own, so this is "
                "not exactly the whole batch; with group or layer norms it is"
            )

    @property
    def batches(self) -> int:
        """How many make an epoch."""
        if self.rounds is not None:
            return self.rounds.batches
        assert self.loader is not None
        return len(self.loader)

    def train(self) -> None:
        """Go through the epochs that are left, in rounds where labels have to be found first."""
        if self.rounds is None:
            self.fit(self.config.optim.epochs)
        else:
            self.rounds.train(self.fit_round)

    def fit_round(self, loader: data.StagedLoader, until: int) -> None:
        """Train on the labels of a round, as far as this epoch."""
        self.loader = loader
        self.fit(until)

    def fit(self, until: int) -> None:
        """Train as far as this epoch."""
        assert self.loader is not None
        engine.fit(
            self.state,
            self.loader,
            epochs=self.config.optim.epochs,
            until=until,
            schedule=self.schedule,
            after_step=self.after_step,
            after_epoch=self.after_epoch,
        )

    @property
    def weights(self) -> int:
        """How many numbers the model and the losses learn."""
        learned = (*self.state.model.parameters(), *self.state.task.objective.parameters())
        return sum(parameter.numel() for parameter in learned if parameter.requires_grad)

    def save(self, *, wait: bool = False) -> None:
        """Write everything that a resumed run needs, in the background unless `wait`; on all ranks
        at the same step.

        A state that cannot be written is told, and the training goes on with the one before; with
        `wait` it is an OSError.
        """
        content = {
            "state": self.state.state_dict(),
            "schedule": self.schedule.state_dict(),
            "seconds": self.seconds,
            "round": None if self.rounds is None else self.rounds.state_dict(),
        }
        self.state.save = False
        if is_main():
            try:
                self.keeper.save(content, settled=self.state.settled())
            except OSError as error:  # of the save before; this one is under way
                self.console.say(f"not saved: {error}")
        if wait:  # all of them: torchrun ends everybody as soon as one has left
            main_alone(self.keeper.wait)

    def load(self) -> None:
        """Go on where `save` was called."""
        path = self.out / "state.pt"
        saved = main_alone(lambda: engine.load_state(path, tell=self.console.say))
        before = saved["state"]["world"]
        if self.rounds is not None:  # first: how large a memory is follows from the labels
            self.rounds.load_state_dict(saved["round"])
        self.state.load_state_dict(saved["state"])
        if saved["schedule"].keys() == self.schedule.state_dict().keys():  # else it was another one
            self.schedule.load_state_dict(saved["schedule"])
        self.seconds = saved["seconds"]
        if self.state.batches != self.batches:
            self.console.say(
                f"an epoch had {self.state.batches} batches and has {self.batches} now: going "
                "on from the start of the epoch"
            )
            self.state.batch, self.state.batches = 0, self.batches
        place = self.state.iteration / self.state.batches
        self.log.rewind(self.state.iteration, place)
        report = self.out / "scores.json"
        if report.is_file():
            self.beside = {
                test: {name: Scores.from_dict(scores) for name, scores in rows.items()}
                for test, rows in json.loads(report.read_text()).items()
            }
        self.console.say(f"resumed at epoch {self.state.epoch + 1}, batch {self.state.batch + 1}")
        if before != world_size():
            self.console.say(f"{before} processes before, {world_size()} now")
        self.log.write(
            {
                "kind": "resume",
                "epoch": self.state.epoch,
                "iteration": self.state.iteration,
                "processes": world_size(),
            }
        )

    def take_yardsticks(self) -> None:
        """Score the cheap baselines and the untrained model, where the config asks for them."""
        self.log.rewind(-1)  # what a run wrote that never came to save
        for test in self.tests:
            rows = self.beside[test.name] = {}
            for name in self.config.evaluate.baselines:
                self.console.say(f"{test.name}: scoring the baseline {name}")
                rows[name] = main_alone(partial(_baseline_scores, name, test))
            if self.config.evaluate.untrained:
                rows["untrained"], _, _ = self.score(self.state.model, test)
        main_alone(lambda: self.write_scores({}))

    def after_step(self, state: TrainState, report: StepReport) -> None:
        """Log the step, tell of it now and then, and save when it is time to."""
        self.seconds += report.data_seconds + report.step_seconds
        if not self.reserved and is_main() and state.batch % state.accumulate == 0:
            self.reserved = True  # by now the optimisers hold what they hold
            self.keeper.reserve(state.settled())
        began = time.perf_counter()
        record = self.log.step(state, report)
        self.seconds += time.perf_counter() - began  # an accelerator ends its steps here
        # Gradients that wait for the rest of their group are in no checkpoint.
        if state.save and state.batch % state.accumulate == 0:
            state.require_finite(report.terms)
            self.save()
        elif is_main() and self.keeper.due(state.iteration):
            state.save = True  # after the next step, when all ranks have heard of it
        if record is not None and self.update is not None:
            loss, rate, speed = record["loss"], record["lr"], record["images_per_second"]
            self.update(state.iteration, f"loss {loss:.3f}  lr {rate:.2e}  {speed:.0f} images/s")
            if state.iteration > self.config.log_interval:  # until then workers start
                self.advise(record["waiting"])

    def advise(self, waiting: float) -> None:
        """Say once which knob to turn when the device waits for data."""
        settings = self.config.data
        line = engine.advice(
            waiting,
            workers=settings.workers,
            cores=max(usable_cores() // launched_here(), 1),
            kind=settings.worker_kind,
            packed=settings.store is not None or settings.pixels == "silhouettes",
        )
        if line is not None and line.partition(";")[2] not in self.advised:
            self.advised.add(line.partition(";")[2])
            self.console.say(line)

    def after_epoch(self, state: TrainState) -> None:
        """Save; and score, when it is time to."""
        every, done = self.config.evaluate.every, state.epoch
        if self.rounds is not None:
            done = self.rounds.done_after(state.epoch)
        state.consistent = False  # an epoch is done when its scores are in
        if every and done and done % every == 0 and state.epoch < self.config.optim.epochs:
            for position, test in enumerate(self.tests):
                scores, _, _ = self.score(state.best_model, test)
                name, value = next(iter(scores.items()))
                self.console.say(f"epoch {state.epoch}: {test.name} {name} {100 * value:.2f}%")
                if position == 0:
                    self.schedule.observe(value)
                    if value > state.best.get("score", -1.0):
                        state.best = {"score": value, "epoch": state.epoch}
        state.consistent = True
        self.save()

    def score(
        self, model: nn.Module, test: Benchmark, frames: data.FrameSampling | None = None
    ) -> tuple[Scores, Features, Features]:
        """Scores of a model on a benchmark, into the log, and the features they come from.

        Every rank extracts a part, the first one scores.
        """
        query = self.features(model, test.query, frames)
        same = test.gallery == test.query
        gallery = query if same else self.features(model, test.gallery, frames)
        rules = self.config.evaluate
        scores = main_alone(
            lambda: score(
                query,
                gallery,
                test.protocol,
                name=test.name,
                metric=rules.metric,
                gait_distance=gait_distance_of(model, rules),
            )
        )
        prefix = f"{test.name}/" if len(self.tests) > 1 else ""
        kind = "evaluation" if frames is None else "single_frame"
        if isinstance(model, models.Projected):  # no point of the unprojected model's curve
            kind, model = "projected" if frames is None else kind, model.model
        weights = "raw" if model is self.state.model else "ema"
        if self.rounds is not None and self.rounds.kept_earlier:
            weights = "best round"
        self.log.write(
            {
                "kind": kind,
                "epoch": self.state.epoch,
                "iteration": self.state.iteration,
                "weights": weights,
                "scores": {prefix + name: value for name, value in scores.items()},
            }
        )
        return scores, query, gallery

    def features(
        self, model: nn.Module, samples: Sequence[Sample], frames: data.FrameSampling | None = None
    ) -> Features:
        """Features of samples, of which every rank extracts a part."""
        share_buffers(model)
        return extract(
            model,
            samples,
            batch_size=self.config.evaluate.batch_size,
            workers=self.config.data.workers,
            worker_kind=self.config.data.worker_kind,
            frames=frames,
            console=self.console,
        )

    def finish(self) -> dict[str, Scores]:
        """Score the trained model, write what a run folder promises, and say it."""
        if self.rounds is not None:
            self.rounds.keep_best()
        if self.config.optim.update_bn:
            self.console.say("taking the averaged weights' batch-norm statistics anew")
            assert self.loader is not None
            self.loader.set_epoch(self.config.optim.epochs)
            engine.update_batch_norm(self.state.best_model, self.loader)
        # First without scores: should one of the test images be damaged, the model is safe.
        main_alone(lambda: self.save_model({}))
        failure = self.project() if self.config.project is not None else None
        model = self.state.best_model if self.projected is None else self.projected
        found: dict[str, Scores] = {}
        pictures: list[tuple[Benchmark, Features, Features]] = []
        for test in self.tests:
            beside = self.beside.setdefault(test.name, {})
            if self.projected is not None:
                beside["unprojected"], _, _ = self.score(self.state.best_model, test)
            found[test.name], query, gallery = self.score(model, test)
            if self.config.evaluate.raw:
                beside["raw weights"], _, _ = self.score(self.state.model, test)
            if self.config.evaluate.single_frame:
                one = data.FrameSampling("evenly", 1)
                beside["single frame"], _, _ = self.score(model, test, one)
            pictures.append((test, query, gallery))
        main_alone(lambda: self.tell(found, pictures))
        if failure is not None:
            raise failure
        return found

    def project(self) -> Exception | None:
        """Fit a projection to the training samples' features, and save the model with it.

        Returns why these features allow none: the training is over, and its model and scores are
        not to be lost for that.
        """
        model, wanted = self.state.best_model, self.config.project
        assert isinstance(model, models.EmbeddingModel) and wanted is not None
        features = self.features(model, self.samples)
        try:
            self.projected, facts = fit_to(model, features, **wanted.model_dump())
        except (ValueError, FailedElsewhere) as error:
            self.console.say(f"not projected: {error}")
            return error
        self.facts["projection"] = facts
        self.console.say(in_words(facts))
        main_alone(lambda: self.save_model({}))
        return None

    def tell(
        self,
        found: Mapping[str, Scores],
        sides: Sequence[tuple[Benchmark, Features, Features]],
    ) -> None:
        """Print the scores, write them with the model, and draw."""
        self.write_scores(found)
        self.save_model(found)  # the run is whole now, whatever becomes of the pictures
        for position, (test, query, gallery) in enumerate(sides):
            rows = {**self.beside.get(test.name, {}), "trained": found[test.name]}
            self.console.say(comparison(test.name, rows))
            if self.rounds is not None and position == 0:
                self.console.say(self.rounds.table())
            if self.config.evaluate.pictures:
                name = "ranked.png" if position == 0 else f"ranked-{test.name}.png"
                count = self.config.evaluate.pictures
                metric = self.config.evaluate.metric
                draw_ranked(self.out / name, query, gallery, test.protocol, count, metric)
                self.console.say(f"ranked lists: {self.out / name}")
        best = self.state.best
        if best:
            self.console.say(
                f"best on the way: {100 * best['score']:.2f}% after epoch {int(best['epoch'])}"
            )
        visualise.curves(self.out / "log.jsonl", self.out / "curves.png")
        self.console.say(f"curves: {self.out / 'curves.png'}")
        self.console.say(f"model: {self.out / 'model.safetensors'}")

    def save_model(self, scores: Mapping[str, Scores]) -> None:
        """Write `model.safetensors` and `model.json`: what a user of the model needs."""
        model = self.state.best_model
        assert isinstance(model, models.EmbeddingModel)
        info = {
            **self.facts,
            "seconds": round(self.seconds, 1),
            "weights": self.weights,
            "scores": {name: dict(values) for name, values in scores.items()},
        }
        spec: Mapping[str, Any] = self.config.model
        if self.projected is not None:
            model, spec = self.projected, self.projected.spec(spec)
        num_classes = self.facts["identities"]
        models.save_model(self.out, model, spec, num_classes=num_classes, info=info)

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


def open_folder(
    config: RunConfig, out: Path, facts: Mapping[str, Any], *, resume: bool, force: bool = False
) -> list[str]:
    """Start a run folder, or make sure that the one there is of this config and data.

    Returns what has changed where `force` lets that pass.
    """
    plan, card = out / "config.yaml", out / "data.json"
    if resume:
        if not plan.is_file():
            raise FileNotFoundError(f"no run in {out}: nothing to resume; leave out --resume")
        old = parse_config(parse_yaml(plan.read_text(), str(plan)), str(plan))
        changed = differences(old.model_dump(mode="json"), config.model_dump(mode="json"))
        if card.is_file():
            before = json.loads(card.read_text())
            changed += [f"data {line}" for line in differences(before, dict(facts))]
        if changed and not force:
            raise ConfigError(
                f"{out} was made with another config or data; undo this, train into a new folder, "
                "or go on all the same with --force",
                changed,
            )
        return changed
    if plan.exists():
        raise FileExistsError(
            f"{out} already holds a run: --resume goes on with it, --out names another"
        )
    mark_launch(out)
    write_plan(config, out, facts)
    return []


def write_plan(config: RunConfig, out: Path, facts: Mapping[str, Any]) -> None:
    """Write what a run folder is of: its config and its data."""
    write_atomically(out / "config.yaml", config.to_yaml().encode())
    write_atomically(out / "data.json", json.dumps(dict(facts), indent=2).encode())


def check_micro(config: RunConfig, state: TrainState) -> None:
    """Raise ConfigError where a micro-batch would be too small for the model's batch norms."""
    batch = config.data.batch
    if batch.micro is None or not engine.live_batch_norm(state.model):
        return
    rows = batch.identities * batch.instances // (1 if batch.per_process else world_size())
    least = rows // -(-rows // batch.micro)
    if least < 2:
        fault = (
            f"data.batch.micro: {batch.micro} of {rows} samples leaves a single one, which a batch "
            "norm cannot normalise; set 3 or more"
        )
        raise ConfigError("config", [fault])


def _baseline_scores(name: str, test: Benchmark) -> Scores:
    baseline = data.BASELINES[name]
    query, gallery = baseline(test.query), baseline(test.gallery)
    return score(query, gallery, test.protocol, name=test.name, metric=baseline.metric)


def comparison(title: str, rows: Mapping[str, Scores]) -> str:
    """A table of several scores, a line each, in percent; the last row's names and notes."""
    last = list(rows.values())[-1]
    width = max(len(name) for name in (*rows, title))
    lines = [f"{title:<{width}}  " + "  ".join(f"{name:>7}" for name in last)]
    for name, scores in rows.items():
        cells = "  ".join(f"{100 * scores[key]:>6.2f}%" for key in last)
        lines.append(f"{name:<{width}}  {cells}")
    return "\n".join(line for line in (*lines, last.note(), last.details) if line)
