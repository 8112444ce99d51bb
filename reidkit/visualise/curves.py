"""The curves of a training: losses, learning rate and scores over epochs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from reidkit.visualise.common import COLOURS, MUTED, save, short


def curves(log: str | Path | Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Write a PNG with three panels over epochs: loss terms, learning rate, scores.

    Losses are drawn faint as logged and bold smoothed. `log` is a `log.jsonl` or its records: kind
    "train" with epoch, terms, lr; kind "evaluation" with epoch, weights, scores. Other kinds are
    passed over; a last line cut off by a crash is ignored. Replaced atomically.

    Raises:
        FileNotFoundError: there is no such log.
        ValueError: a line before the last is no JSON.
    """
    records = _read(Path(log)) if isinstance(log, (str, Path)) else list(log)
    train = [r for r in records if r.get("kind") == "train"]
    evaluations = [r for r in records if r.get("kind") == "evaluation"]
    figure = Figure(figsize=(13, 4), dpi=110, facecolor="white", layout="constrained")
    losses, rates, scores = figure.subplots(1, 3)
    _draw_losses(losses, train)
    if train:
        epochs = [float(r["epoch"]) for r in train]
        rates.plot(
            epochs,
            [r.get("lr", np.nan) for r in train],
            color=COLOURS[0],
            lw=1.8,
            marker=_marker(train),
        )
        rates.yaxis.set_major_formatter(lambda rate, _: f"{rate:.3g}")
    _draw_scores(scores, evaluations)
    for axes, name, empty in (
        (losses, "Loss", not train),
        (rates, "Learning rate", not train),
        (scores, "Scores", not evaluations),
    ):
        axes.set_title(name, loc="left", size=11, weight="bold")
        axes.set_xlabel("epoch")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        if empty:
            axes.set(xticks=[], yticks=[])
            what = "evaluation" if axes is scores else "training step"
            axes.text(
                0.5,
                0.5,
                f"no {what} in the log yet",
                transform=axes.transAxes,
                ha="center",
                color=MUTED,
            )
        else:
            last = max(float(r["epoch"]) for r in (*train, *evaluations))
            axes.set_xlim(0, 1.03 * last if last > 0 else 1)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=last > 3))
    save(figure, Path(path))


def _draw_losses(axes: Axes, train: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for r in train for name in r.get("terms", {})))
    series = [
        (n, [(r["epoch"], r["terms"][n]) for r in train if n in r.get("terms", {})]) for n in names
    ]
    if len(names) != 1 and train:
        series.append(("total", [(r["epoch"], r["loss"]) for r in train if "loss" in r]))
    for number, (name, points) in enumerate(series):
        if not points:
            continue
        epochs, values = np.array(points, dtype=float).T
        colour = "#111111" if name == "total" else COLOURS[number % len(COLOURS)]
        axes.plot(epochs, values, color=colour, alpha=0.22, lw=1)
        axes.plot(
            epochs,
            _smoothed(values),
            color=colour,
            lw=1.9,
            marker=_marker(points),
            label=short(name),
        )
    if any(points for _, points in series):
        axes.legend(frameon=False, fontsize=8)


def _draw_scores(axes: Axes, evaluations: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for r in evaluations for name in r.get("scores", {})))
    weights = list(dict.fromkeys(str(r.get("weights", "raw")) for r in evaluations))
    for number, name in enumerate(names):
        for kind in weights:
            points = [
                (r["epoch"], r["scores"][name])
                for r in evaluations
                if name in r.get("scores", {}) and str(r.get("weights", "raw")) == kind
            ]
            if not points:
                continue
            epochs, values = np.array(points, dtype=float).T
            label = f"{name} {100 * values[-1]:.1f}%" + (f" ({kind})" if len(weights) > 1 else "")
            style = "-" if kind == weights[-1] else "--"
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(
                epochs, values, style, color=colour, lw=1.9, marker="o", ms=4, label=short(label)
            )
    if names:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_ylim(0, 1.02)
        axes.legend(frameon=False, fontsize=8, title="last value", title_fontsize=8, loc="best")


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exponential mean over about a twentieth of the points; over gaps (NaN) it keeps its value."""
    keep = 1 - 1 / max(1.0, len(values) / 20)
    total = weight = 0.0
    smooth = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        if np.isfinite(value):
            total, weight = keep * total + value, keep * weight + 1
        if weight:
            smooth[i] = total / weight
    return smooth


def _marker(points: Sequence[object]) -> str:
    return "o" if len(points) < 4 else ""


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"no training log {path}; a run folder holds log.jsonl")
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
    return records
