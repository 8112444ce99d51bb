"""The mean of several runs: the ten splits of iLIDS-VID and PRID-2011, or several seeds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Values = dict[str, dict[str, dict[str, list[float]]]]  # benchmark -> what was scored -> score


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean and standard deviation (over runs, n - 1) of each score of the same runs."""

    runs: tuple[str, ...]
    values: Values

    def text(self) -> str:
        """A table for each benchmark, in percent: mean, then plus-minus the deviation."""
        lines = [f"mean of {len(self.runs)} runs, +- standard deviation over them"]
        for benchmark, rows in self.values.items():
            names = list(next(iter(rows.values())))
            width = max(len(word) for word in (benchmark, *rows))
            lines.append(f"{benchmark:<{width}}  " + "  ".join(f"{name:>14}" for name in names))
            for row, scores in rows.items():
                cells = [
                    f"{100 * np.mean(found):6.2f} +- {100 * np.std(found, ddof=1):4.2f}"
                    for found in scores.values()
                ]
                lines.append(f"{row:<{width}}  " + "  ".join(f"{cell:>14}" for cell in cells))
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: each run's score beside mean and deviation."""
        return {
            "runs": list(self.runs),
            "benchmarks": {
                benchmark: {
                    row: {
                        name: {
                            "mean": float(np.mean(found)),
                            "deviation": float(np.std(found, ddof=1)),
                            "runs": found,
                        }
                        for name, found in scores.items()
                    }
                    for row, scores in rows.items()
                }
                for benchmark, rows in self.values.items()
            },
        }


def mean_of_runs(runs: Sequence[Path]) -> Mean:
    """The mean over the `scores.json` of runs that were scored on the same benchmarks.

    Raises ValueError for fewer than two runs, one that is named twice, one that is not finished, or
    runs with other benchmarks or scores than the first.
    """
    if len(runs) < 2:
        raise ValueError(f"{len(runs)} run: a mean needs at least two run folders")
    if len({run.resolve() for run in runs}) < len(runs):
        raise ValueError("a run is named twice; name each run folder once")
    values: Values = {}
    first: dict[str, Any] = {}
    for run in runs:
        table = _table(run)
        shape = {name: {row: sorted(scores) for row, scores in rows.items()}
                 for name, rows in table.items()}  # fmt: skip
        first = first or shape
        if shape != first:
            raise ValueError(
                f"{run} was scored on {_words(shape)}, {runs[0]} on {_words(first)}; a mean needs "
                "the same benchmarks, rows and scores in every run"
            )
        for benchmark, rows in table.items():
            for row, scores in rows.items():
                for name, value in scores.items():
                    kept = values.setdefault(benchmark, {}).setdefault(row, {})
                    kept.setdefault(name, []).append(float(value))
    return Mean(tuple(map(str, runs)), values)


def _table(run: Path) -> dict[str, dict[str, dict[str, float]]]:
    path = run / "scores.json" if run.is_dir() else run
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: name run folders that `reidkit train` finished")
    try:
        plain = json.loads(path.read_text())
        table = {
            benchmark: {row: found["scores"] for row, found in rows.items()}
            for benchmark, rows in plain.items()
        }
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no scores.json (benchmark -> what was scored -> scores): {error}"
        ) from error
    if not table or not all("trained" in rows for rows in table.values()):
        raise ValueError(f"{path} has no scores of a trained model: finish the run with --resume")
    return table


def _words(shape: dict[str, Any]) -> str:
    return "; ".join(f"{benchmark} ({', '.join(rows)})" for benchmark, rows in shape.items())
