"""A sweep at work: what is finished is kept, the rest is trained, and the table grows."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from reidkit import visualise
from reidkit.compose.inference import QUIET
from reidkit.compose.sweep.grid import VARIANT, Point, short_keys
from reidkit.compose.sweep.launch import Outcome, Trainer, carry_out
from reidkit.compose.sweep.results import Result, read_result
from reidkit.compose.sweep.runs import Run
from reidkit.compose.sweep.table import Row, Table
from reidkit.config import ConfigError
from reidkit.engine import Console, saved_states
from reidkit.files import write_atomically

LABEL = 44  # letters at a bar
Key = tuple[str, int]  # a point's name and a seed
Value = TypeVar("Value")


@dataclass
class Sweep:
    """Trains runs, and writes `sweep.json`, `sweep.csv` and `sweep.png` into `out`.

    Args:
        keys: the settings that vary.
        metrics: scores to compare, the first one decides; the first three that are reported where
            empty.
        expected: how many runs there will be, for the time that is left.
    """

    out: Path
    trainer: Trainer
    keys: Sequence[str]
    seeds: Sequence[int]
    metrics: Sequence[str] = ()
    jobs: int = 1
    expected: int = 0
    remarks: list[str] = field(default_factory=list)
    console: Console = QUIET
    points: list[Point] = field(default_factory=list)
    found: dict[Key, Result] = field(default_factory=dict)
    failed: dict[Key, str] = field(default_factory=dict)
    trained_here: int = 0
    saved: int = 0  # trainings that were stopped, with a state to go on from
    began: float = field(default_factory=time.monotonic)

    def tell_replaced(self) -> None:
        """Say it where the table in the folder is of other settings and gives way to this one."""
        try:
            before = set(json.loads((self.out / "sweep.json").read_text())["settings"])
        except (OSError, ValueError, KeyError, TypeError):  # none, or nothing to keep
            return
        if before != set(self.keys):
            names = ", ".join(sorted(before)) or "no setting"
            self.console.say(f"sweep.json of another grid ({names}) is replaced; its runs stay")

    def perform(self, points: Sequence[Point], runs: Sequence[Run]) -> None:
        """Bring all runs of some more points to their end, as far as none fails and nobody asks to
        stop.

        Raises ConfigError where a metric is none that the runs report.
        """
        self.points += points
        kept = [run for run in runs if run.state == "finished"]
        for run in kept:
            self.take(run)
        todo = [run for run in runs if run.state != "finished"]
        if kept or any(run.state == "begun" for run in todo):
            begun = sum(run.state == "begun" for run in todo)
            self.console.say(
                f"{len(kept)} finished before, {begun} to go on with, {len(todo) - begun} to begin"
            )
        self.write()
        carry_out(todo, self.trainer, self.jobs, self.after)

    def take(self, run: Run) -> None:
        """Take in what a finished run scored."""
        result = read_result(run)
        self.metrics = self.metrics or tuple(result.scores)[:3]
        unknown = [name for name in self.metrics if name not in result.scores]
        if unknown:
            known = ", ".join(result.scores)
            raise ConfigError(f"--metrics {','.join(unknown)}", [f"{run.title} reports: {known}"])
        self.found[run.point, run.seed] = result

    def after(self, run: Run, outcome: Outcome) -> None:
        """Tell how a run ended, and write the table anew."""
        finished = run.state == "finished"
        if outcome.stopped and not finished:
            self.saved += bool(saved_states(run.folder / "state.pt"))
            return
        self.trained_here += 1
        if finished:
            self.take(run)
            self.say_done(run)
            if outcome.failure and not outcome.stopped:
                self.console.say(f"{run.title} has its scores, but then: {outcome.failure}")
        else:
            reason = outcome.failure or f"ended without scores, see {run.console}"
            self.failed[run.point, run.seed] = reason
            self.console.say(f"{self._count()} {run.title} failed: {reason} (see {run.console})")
        self.write()

    def say_done(self, run: Run) -> None:
        """A line of a finished run: its score, its time, and the time that is left."""
        result = self.found[run.point, run.seed]
        name, seconds = self.metrics[0], result.spent.seconds
        told = "" if seconds is None else f", trained for {seconds:.0f} s"
        score = f"{name} {100 * result.scores[name]:.2f}%"
        self.console.say(f"{self._count()} {run.title}: {score}{told}{self._left()}")

    def _count(self) -> str:
        return f"[{len(self.found) + len(self.failed)}/{self.expected}]"

    def _left(self) -> str:
        rest = self.expected - len(self.found) - len(self.failed)
        if rest <= 0:
            return ""
        seconds = (time.monotonic() - self.began) / self.trained_here * rest
        return f"; {seconds:.0f} s left" if seconds < 120 else f"; {seconds / 60:.0f} min left"

    def table(self) -> Table:
        """All that is known by now."""
        rows = [
            Row(point, _of(point, self.found), _of(point, self.failed)) for point in self.points
        ]
        return Table.of(
            rows, keys=self.keys, metrics=self.metrics, seeds=self.seeds, remarks=self.remarks
        )

    def write(self) -> None:
        """Replace `sweep.json` and `sweep.csv`."""
        table = self.table()
        plain = json.dumps(table.to_dict(), indent=2) + "\n"
        write_atomically(self.out / "sweep.json", plain.encode())
        write_atomically(self.out / "sweep.csv", table.to_csv().encode())

    def draw(self) -> Path | None:
        """Replace `sweep.png`, and return where it is; None where nothing is finished."""
        table = self.table()
        rows = [row for row in table.rows if row.found]
        if not rows:
            return None
        path = self.out / "sweep.png"
        visualise.sweep_chart(
            path,
            [_label(row.point, short_keys(table.keys)) for row in rows],
            {metric: [_with_error(row, metric) for row in rows] for metric in table.metrics},
            numbers=_numbers(rows, table.keys),
            baselines={
                name: {metric: sum(values) / len(values) for metric, values in scores.items()}
                for name, scores in table.yardsticks().items()
            },
            title=f"{self.out.name}: mean and standard deviation over seeds",
        )
        return path


def _of(point: Point, values: Mapping[Key, Value]) -> dict[int, Value]:
    return {seed: value for (name, seed), value in values.items() if name == point.name}


def _with_error(row: Row, metric: str) -> tuple[float, float]:
    mean = row.mean(metric)
    return math.nan if mean is None else mean, row.deviation(metric) or 0.0


def _numbers(rows: Sequence[Row], keys: Sequence[str]) -> dict[str, list[float]]:
    """The settings as numbers where one or two vary and all of them are numbers, else none."""
    if not 1 <= len(keys) <= 2 or VARIANT in keys:
        return {}
    try:
        return {
            short: [float(row.point.settings[key]) for row in rows]
            for key, short in short_keys(keys).items()
        }
    except ValueError:
        return {}


def _label(point: Point, short: Mapping[str, str]) -> str:
    """What to write at a point's bar."""
    words = [
        text if key == VARIANT else f"{short[key]}={text}" for key, text in point.settings.items()
    ]
    label = ", ".join(words) or point.name
    return label if len(label) <= LABEL else f"{label[: LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"
