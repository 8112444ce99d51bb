"""The settings of a sweep side by side: lines, bars or a heat map."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from reidkit.visualise.common import COLOURS, MUTED, QUERY, literal, save, short

BARS = 30  # the best of a sweep that are drawn
STYLES = ("--", ":", "-.")


def sweep_chart(
    path: str | Path,
    names: Sequence[str],
    scores: Mapping[str, Sequence[tuple[float, float]]],
    *,
    numbers: Mapping[str, Sequence[float]] | None = None,
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    title: str = "",
) -> None:
    """Write a PNG of R compared settings, a panel a metric: a line where one number varies, a heat
    map where two do, else bars, with the deviations; baselines are dashed. Replaced atomically.

    Args:
        names: (R,) what the settings are called, the best first.
        scores: metric -> (R,) mean and standard deviation as fractions; a mean may be NaN.
        numbers: the one or two numbers that vary, (R,) each; empty where names do.
        baselines: name -> metric -> score.
    """
    names, title = [literal(name) for name in names], literal(title)
    scores = {literal(metric): found for metric, found in scores.items()}
    numbers = {literal(key): values for key, values in (numbers or {}).items()}
    baselines = {
        literal(name): {literal(metric): value for metric, value in values.items()}
        for name, values in (baselines or {}).items()
    }
    lengths = {len(values) for values in (names, *scores.values(), *numbers.values())}
    if not names or not scores or len(lengths) > 1:
        raise ValueError(
            f"{len(names)} names with columns of {sorted(lengths)}; expected one length, and at "
            "least one name and one metric"
        )
    axes_of = [sorted(set(values)) for values in numbers.values()]
    # Of a search hardly two points share a number: such a map would be empty.
    as_map = len(axes_of) == 2 and len(axes_of[0]) * len(axes_of[1]) <= 2 * len(names)
    as_line = len(axes_of) == 1 and len(axes_of[0]) == len(names)
    rows = 6 if as_map or as_line else min(len(names), BARS) + 2
    width = 1 + 4.6 * len(scores)
    figure = Figure((width, 1.4 + 0.42 * rows), dpi=110, facecolor="white", layout="constrained")
    figure.suptitle(title or "Sweep", x=0.01, ha="left", size=12, weight="bold")
    panels = figure.subplots(1, len(scores), squeeze=False)[0]
    for position, (axes, (metric, found)) in enumerate(zip(panels, scores.items(), strict=True)):
        known = {name: values[metric] for name, values in baselines.items() if metric in values}
        axes.set_title(metric, loc="left", size=11, weight="bold")
        means, errors = np.array(found, dtype=float).T
        if as_map:
            _draw_map(axes, numbers, means, errors, known)
            continue
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        if as_line:
            _draw_line(axes, next(iter(numbers.items())), means, errors, known)
        else:
            _draw_bars(axes, names if position == 0 else [""] * len(names), means, errors, known)
        if known and as_line:
            axes.legend(frameon=False, fontsize=8, loc="best")
        elif known:  # bars leave no room inside
            below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12)}
            axes.legend(frameon=False, fontsize=8, ncols=len(known), **below)
    save(figure, Path(path))


def _draw_line(
    axes: Axes,
    number: tuple[str, Sequence[float]],
    means: NDArray[np.float64],
    errors: NDArray[np.float64],
    baselines: Mapping[str, float],
) -> None:
    name, places = number
    order = np.argsort(places)
    x = np.asarray(places, dtype=float)[order]
    axes.errorbar(x, means[order], errors[order], color=COLOURS[0], lw=1.9, marker="o", capsize=4)
    for index, (label, value) in enumerate(baselines.items()):
        style = STYLES[index % len(STYLES)]
        told = f"{short(label)} {100 * value:.1f}%"
        axes.axhline(value, ls=style, color=MUTED, lw=1.4, label=told)
    if x[0] > 0 and x[-1] >= 20 * x[0]:
        axes.set_xscale("log")
    elif len(x) <= 8:
        axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.set_xlabel(name)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _draw_bars(
    axes: Axes,
    names: Sequence[str],
    means: NDArray[np.float64],
    errors: NDArray[np.float64],
    baselines: Mapping[str, float],
) -> None:
    shown = min(len(names), BARS)
    places = np.arange(shown)
    means, errors = means[:shown], errors[:shown]
    axes.barh(places, means, xerr=errors, color=COLOURS[0], alpha=0.6, height=0.65, capsize=3)
    for index, (label, value) in enumerate(baselines.items()):
        dashes = STYLES[index % len(STYLES)]
        told = f"{short(label)} {100 * value:.1f}%"
        axes.axvline(value, ls=dashes, color=QUERY, lw=1.4, label=told)
    axes.set_yticks(places, [short(name) for name in names[:shown]], fontsize=9)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    if shown < len(names):
        axes.set_xlabel(f"the best {shown} of {len(names)}")


def _draw_map(
    axes: Axes,
    numbers: Mapping[str, Sequence[float]],
    means: NDArray[np.float64],
    errors: NDArray[np.float64],
    baselines: Mapping[str, float],
) -> None:
    (down, rows), (across, columns) = numbers.items()
    y, x = sorted(set(rows)), sorted(set(columns))
    cells = np.full((len(y), len(x)), np.nan)
    for row, column, mean in zip(rows, columns, means, strict=True):
        cells[y.index(row), x.index(column)] = mean
    image = axes.imshow(cells, origin="lower", aspect="auto", cmap="viridis")
    middle = (np.nanmin(cells) + np.nanmax(cells)) / 2 if np.isfinite(cells).any() else 0
    for row, column, mean, error in zip(rows, columns, means, errors, strict=True):
        if cells.size <= 64 and np.isfinite(mean):
            told = f"{100 * mean:.1f}" + (f"\n±{100 * error:.1f}" if error else "")
            colour = "white" if mean <= middle else "black"
            place = x.index(column), y.index(row)
            axes.text(*place, told, ha="center", va="center", size=8, color=colour)
    axes.set_xticks(range(len(x)), [f"{value:g}" for value in x])
    axes.set_yticks(range(len(y)), [f"{value:g}" for value in y])
    known = ", ".join(f"{short(name)} {100 * value:.1f}%" for name, value in baselines.items())
    axes.set_xlabel(f"{across}\n{known}" if known else across)
    axes.set_ylabel(down)
    bar = axes.figure.colorbar(image, ax=axes)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
