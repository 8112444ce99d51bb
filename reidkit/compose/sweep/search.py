"""Optuna chooses the next points, from a journal in the sweep's folder."""

import importlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from reidkit.compose.sweep.checks import refuse_changed_data
from reidkit.compose.sweep.conduct import Sweep
from reidkit.compose.sweep.grid import Point
from reidkit.compose.sweep.ranges import Range, Space, chosen_point
from reidkit.compose.sweep.runs import Run, configure, make_runs
from reidkit.config import ConfigError, load_config

JOURNAL = "search.journal"
SEED = 0  # of the sampler; every trial adds its number
CHOSEN = (
    "the best was chosen by these scores, which flatter it: tell its score on a benchmark that had "
    "no say"
)


@dataclass
class Search:
    """The points of a search, each with the seeds of the sweep, told by the first metric's mean.

    Args:
        config: the file that the points override.
        space: what is chosen; `fixed` and `variants` as on the command line.
    """

    config: Path
    sweep: Sweep
    space: Space
    fixed: Mapping[str, str]
    variants: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        self.optuna = require_optuna()
        self.sweep.remarks.append(CHOSEN)
        self.study = self._open()

    def _open(self) -> Any:
        self.optuna.logging.set_verbosity(self.optuna.logging.WARNING)
        storages = self.optuna.storages
        backend = storages.journal.JournalFileBackend(str(self.sweep.out / JOURNAL))
        study = self.optuna.create_study(
            storage=storages.JournalStorage(backend),
            study_name="sweep",
            direction="maximize",
            load_if_exists=True,
        )
        plain = json.dumps(
            [
                {k: asdict(v) if isinstance(v, Range) else v for k, v in self.space.items()},
                dict(self.fixed),
                dict(self.variants),
                list(self.sweep.seeds),
                list(self.sweep.metrics),
                load_config(self.config).model_dump(mode="json"),
            ]
        )
        before = study.user_attrs.get("space")
        if before is not None and before != plain:
            fault = "holds a search of another config, range, seed or metric: give another --out"
            raise ConfigError(str(self.sweep.out), [fault])
        if before is None:
            study.set_user_attr("space", plain)
        return study

    def run(self, trials: int, minutes: float | None = None) -> None:
        """Bring the search to `trials` trials, begin none after `minutes`; a trial that was
        stopped is gone on with first."""
        end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
        width = max(self.sweep.jobs // len(self.sweep.seeds), 1)
        self._recall()
        while not self.sweep.trainer.stopped:
            batch = self._running()[:width]
            count = len(self.study.get_trials(deepcopy=False))
            while len(batch) < width and count < trials and time.monotonic() < end:
                batch.append(self._ask(count))
                count += 1
            if not batch:
                return
            self._perform(batch)

    def _running(self) -> list[Any]:
        running = self.optuna.trial.TrialState.RUNNING
        return list(self.study.get_trials(deepcopy=False, states=(running,)))

    def _recall(self) -> None:
        """Take in what an earlier call has finished."""
        runs: list[Run] = []
        for trial in self.study.get_trials(deepcopy=False):
            if not trial.state.is_finished():
                continue
            point = self._point(trial)
            self.sweep.points.append(point)
            try:
                configs = configure(self.config, [point])
                runs += make_runs(configs, self.sweep.seeds, self.sweep.out)
            except ConfigError as error:
                self._refuse(point, error)
        refuse_changed_data(runs)
        for run in runs:
            if run.state == "finished":
                self.sweep.take(run)
            else:
                self.sweep.failed[run.point, run.seed] = _lost(run)
        self.sweep.write()

    def _ask(self, number: int) -> Any:
        # A seed a trial: a search that was interrupted would else draw its first points again.
        self.study.sampler = self.optuna.samplers.TPESampler(seed=SEED + number)
        return self.study.ask({key: self._distribution(kind) for key, kind in self.space.items()})

    def _distribution(self, kind: Range | tuple[str, ...]) -> Any:
        known = self.optuna.distributions
        if not isinstance(kind, Range):
            return known.CategoricalDistribution(kind)
        if kind.whole:
            return known.IntDistribution(int(kind.low), int(kind.high), log=kind.log)
        return known.FloatDistribution(kind.low, kind.high, log=kind.log)

    def _point(self, trial: Any) -> Point:
        chosen = {}
        for key, kind in self.space.items():
            value = trial.params[key]
            chosen[key] = kind.text(value) if isinstance(kind, Range) else str(value)
        return chosen_point(f"trial-{trial.number:03d}", chosen, self.fixed, self.variants)

    def _perform(self, trials: Sequence[Any]) -> None:
        """Train these trials' points and tell the study; nothing of one that was stopped."""
        points, runs = [], []
        for trial in trials:
            point = self._point(trial)
            points.append(point)
            try:
                configs = configure(self.config, [point])
                runs += make_runs(configs, self.sweep.seeds, self.sweep.out)
            except ConfigError as error:  # values that do not go together
                self._refuse(point, error)
        self.sweep.perform(points, runs)
        for trial, point in zip(trials, points, strict=True):
            self._tell(trial, point)

    def _refuse(self, point: Point, error: ConfigError) -> None:
        for seed in self.sweep.seeds:
            self.sweep.failed[point.name, seed] = "; ".join(error.faults)

    def _tell(self, trial: Any, point: Point) -> None:
        keys = [(point.name, seed) for seed in self.sweep.seeds]
        scores = [self.sweep.found[key].scores for key in keys if key in self.sweep.found]
        if len(scores) == len(keys):
            value = fmean(named[self.sweep.metrics[0]] for named in scores)
            self.study.tell(trial.number, value)
        elif any(key in self.sweep.failed for key in keys) and not self.sweep.trainer.stopped:
            self.study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)


def _lost(run: Run) -> str:
    """Why a run of a trial that is over has no scores, and what can be done."""
    if not run.folder.is_dir():
        return (
            f"of an earlier call, and {run.folder} is gone; no trial is tried twice: give a larger "
            "--search, or begin anew in another --out"
        )
    return (
        f"failed in an earlier call, see {run.console}; no trial is tried twice: give a larger "
        "--search"
    )


def require_optuna() -> Any:
    """The package; ModuleNotFoundError says how to get it."""
    try:
        return importlib.import_module("optuna")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "--search chooses by Optuna, which is not installed: pip install 'reidkit[search]'"
        ) from error
