"""All points of a sweep beside one another: mean, deviation, cost, and whom the best is better
than."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from reidkit.compose.sweep.grid import Point
from reidkit.compose.sweep.results import Result

SPENT = ("seconds", "steps", "images", "weights")


@dataclass(frozen=True, slots=True)
class Row:
    """One point with the results of its seeds, and why others of them failed."""

    point: Point
    found: Mapping[int, Result]
    failed: Mapping[int, str] = field(default_factory=dict)

    def values(self, metric: str) -> list[float]:
        """The score of every finished seed that has it, in the seeds' order."""
        scores = [self.found[seed].scores for seed in sorted(self.found)]
        return [named[metric] for named in scores if metric in named]

    def mean(self, metric: str) -> float | None:
        """Mean over the finished seeds, None without any."""
        values = self.values(metric)
        return fmean(values) if values else None

    def deviation(self, metric: str) -> float | None:
        """Sample standard deviation (n - 1) over the finished seeds, None for fewer than two."""
        values = self.values(metric)
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def spent(self, what: str) -> float | None:
        """Mean seconds, steps, images or weights of a finished run, None where unknown; counts
        that are the same in all runs stay whole numbers."""
        found = [getattr(result.spent, what) for result in self.found.values()]
        known = [value for value in found if value is not None]
        if len(set(known)) == 1:
            return known[0]
        return fmean(known) if known else None


def within_error(best: Row, other: Row, metric: str) -> bool | None:
    """Whether the difference of two means is at most one standard error of that difference,
    sqrt(s1^2 / n1 + s2^2 / n2); None where a deviation is unknown."""
    one, two = best.deviation(metric), other.deviation(metric)
    means = best.mean(metric), other.mean(metric)
    if one is None or two is None or means[0] is None or means[1] is None:
        return None
    counts = len(best.values(metric)), len(other.values(metric))
    return abs(means[0] - means[1]) <= float(np.sqrt(one**2 / counts[0] + two**2 / counts[1]))


@dataclass(frozen=True)
class Table:
    """Rows sorted by the first metric's mean, the best first, behind them those that lack seeds:
    fewer runs are luckier.

    `keys` are the settings that vary, `remarks` what the sweep has to say besides.
    """

    rows: Sequence[Row]
    keys: Sequence[str]
    metrics: Sequence[str]
    seeds: Sequence[int]
    remarks: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        rows: Sequence[Row],
        *,
        keys: Sequence[str],
        metrics: Sequence[str],
        seeds: Sequence[int],
        remarks: Sequence[str] = (),
    ) -> "Table":
        """The table of these rows, in order."""

        def place(row: Row) -> tuple[bool, float]:
            mean = row.mean(metrics[0]) if metrics else None
            incomplete = not set(seeds) <= set(row.found)
            return incomplete, float("inf") if mean is None else -mean

        return cls(sorted(rows, key=place), keys, metrics, seeds, remarks)

    @property
    def best(self) -> Row | None:
        """The row with the highest mean, of those with all seeds where there is one; None where
        nothing is finished."""
        return self.rows[0] if self.rows and self.rows[0].found else None

    def tied(self, row: Row) -> bool | None:
        """Whether the best is better than this row by no more than one standard error, None where
        that is unknown."""
        best = self.best
        if best is None:
            return None
        return False if row is best else within_error(best, row, self.metrics[0])

    def yardsticks(self) -> dict[str, dict[str, list[float]]]:
        """Baselines and the untrained model: row -> metric -> its values, one a run, or a single
        one where all runs agree."""
        runs = [result for row in self.rows for result in row.found.values()]
        names = dict.fromkeys(name for run in runs for name in run.yardsticks)
        found: dict[str, dict[str, list[float]]] = {}
        for name in names:
            for metric in self.metrics:
                scores = [run.yardsticks.get(name, {}) for run in runs]
                values = [named[metric] for named in scores if metric in named]
                if values:
                    same = np.ptp(values) < 1e-9
                    found.setdefault(name, {})[metric] = values[:1] if same else values
        return found

    def notes(self) -> list[str]:
        """What has to be known before rows are compared."""
        own = [*_budget_notes(self.rows), *self._seed_notes(), *self._yardstick_notes()]
        return [*own, *self.remarks]

    def _seed_notes(self) -> list[str]:
        found = [row for row in self.rows if row.found]
        if found and len(self.seeds) == 1:
            return ["one seed: nothing tells a better row from a luckier one; give --seeds 3"]
        if len({len(row.found) for row in found}) > 1 or len(found) < len(self.rows):
            return [
                "not the same number of runs in every row: some failed or are still to come, and "
                "such rows come last"
            ]
        return []

    def _yardstick_notes(self) -> list[str]:
        varied = [
            name
            for name, scores in self.yardsticks().items()
            if any(len(values) > 1 for values in scores.values())
        ]
        if not varied:
            return []
        return [f"{', '.join(varied)}: not the same in all runs, so the mean over them"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; scores are fractions."""
        return {
            "metrics": list(self.metrics),
            "seeds": list(self.seeds),
            "settings": list(self.keys),
            "rows": [self._row(row) for row in self.rows],
            "baselines": {
                name: {
                    metric: {"mean": fmean(values), "same_in_all_runs": len(values) == 1}
                    for metric, values in scores.items()
                }
                for name, scores in self.yardsticks().items()
            },
            "notes": self.notes(),
        }

    def _row(self, row: Row) -> dict[str, Any]:
        return {
            "name": row.point.name,
            "settings": dict(row.point.settings),
            "overrides": list(row.point.overrides),
            "runs": len(row.found),
            "scores": {
                metric: {
                    "mean": row.mean(metric),
                    "deviation": row.deviation(metric),
                    "runs": row.values(metric),
                }
                for metric in self.metrics
            },
            "spent": {what: row.spent(what) for what in SPENT},
            "within_one_standard_error_of_best": self.tied(row),
            "seeds": sorted(row.found),
            "failed": {str(seed): reason for seed, reason in row.failed.items()},
        }

    def to_csv(self) -> str:
        """One line a row, one column a number; what is unknown stays empty."""
        file = io.StringIO(newline="")
        writer = csv.writer(file, lineterminator="\n")
        scores = [name for metric in self.metrics for name in (metric, f"{metric} deviation")]
        marks = ("within one standard error of best", "failed")
        writer.writerow(["name", *self.keys, "runs", *scores, *SPENT, *marks])
        for row in self.rows:
            numbers = [
                value
                for metric in self.metrics
                for value in (row.mean(metric), row.deviation(metric))
            ]
            settings = [row.point.settings.get(key, "") for key in self.keys]
            cost = [row.spent(what) for what in SPENT]
            tied = self.tied(row)
            ends = (None if tied is None else int(tied), len(row.failed))
            writer.writerow([row.point.name, *settings, len(row.found), *numbers, *cost, *ends])
        return file.getvalue()


def _budget_notes(rows: Sequence[Row]) -> list[str]:
    spent = [result.spent for row in rows for result in row.found.values()]
    unequal = []
    for what in ("steps", "images"):
        values = [getattr(one, what) for one in spent]
        if len(set(values)) > 1:
            unequal.append(f"{min(values):,} to {max(values):,} {what}")
    if not unequal:
        return []
    return [
        f"not the same budget: {', '.join(unequal)} a run; a row may lead because it was given "
        "more (optim.epochs, data.batch)"
    ]
