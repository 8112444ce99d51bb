"""Pictures of a run: ranked strips of a few queries, the curves of its training, and of a sweep."""

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from reidkit.files import replacing
from reidkit.types import Sample

RIGHT, WRONG, QUERY, MUTED = "#1a9850", "#d73027", "#333333", "#777777"
COLOURS = ("#1f77b4", "#ff7f0e", "#9467bd", "#8c564b", "#17becf", "#e377c2", "#7f7f7f", "#bcbd22")
SMALLEST_ROW = 10  # cells in the widest row, so that short rows keep their size


@dataclass(frozen=True, slots=True)
class RankedRow:
    """One query with its gallery items, nearest first; the three sequences have one length.

    `right` is None where nobody knows.
    """

    query: Sample
    matches: Sequence[Sample]
    distances: Sequence[float]
    right: Sequence[bool | None]

    def __post_init__(self) -> None:
        lengths = len(self.matches), len(self.distances), len(self.right)
        if len(set(lengths)) != 1:
            raise ValueError(
                f"query {self.query.name}: {lengths[0]} matches, {lengths[1]} distances and "
                f"{lengths[2]} right-or-wrong; one of each is expected"
            )


def ranked_strips(
    path: str | Path,
    rows: Sequence[RankedRow],
    *,
    title: str = "",
    show: Callable[[Sample], NDArray[np.uint8] | None] = lambda sample: None,
) -> None:
    """Write a PNG: a query a row, its nearest items beside it, framed green (right) or red (wrong).

    Under each picture stand its camera and distance; cells stay empty where a row has fewer items,
    and a file that cannot be read is a grey cell that says so. Of a tracklet the middle frame is
    shown, unless `show` has a picture (H, W, 3) of the sample in RGB. Replaced atomically.
    """
    if not rows:
        raise ValueError("no rows to draw; give at least one query with its matches")
    samples = {s.name: s for row in rows for s in (row.query, *row.matches)}
    own = {name: show(sample) for name, sample in samples.items()}
    pictures = {
        name: _picture(samples[name]) if image is None else image for name, image in own.items()
    }
    shapes = [image.shape for image in pictures.values() if image is not None]
    aspect = float(np.clip(np.median([h / w for h, w, _ in shapes]), 0.6, 2.2)) if shapes else 2.0
    columns = max(SMALLEST_ROW, *(len(row.matches) for row in rows))
    cell, gap, caption, left, head = 0.95, 0.14, 0.40, 0.16, 0.78
    pitch, height = cell + gap, cell * aspect
    width = left + (columns + 1) * pitch + 0.3 + left - gap
    total = head + len(rows) * (height + caption) + 0.05
    figure = Figure(figsize=(width, total), dpi=110, facecolor="white")
    figure.text(
        left / width,
        1 - 0.27 / total,
        title or "Ranked gallery",
        size=12,
        weight="bold",
        va="center",
    )
    start = (left + pitch + 0.3) / width
    figure.text(left / width, 1 - 0.60 / total, "query", size=9, color=QUERY, va="center")
    figure.text(start, 1 - 0.60 / total, "nearest first:", size=9, color=QUERY, va="center")
    figure.text(
        start + 0.9 / width, 1 - 0.60 / total, "■ same identity", size=9, color=RIGHT, va="center"
    )
    figure.text(
        start + 2.1 / width, 1 - 0.60 / total, "■ another", size=9, color=WRONG, va="center"
    )
    for number, row in enumerate(rows):
        bottom = total - head - number * (height + caption) - height

        def axes(position: int, bottom: float = bottom) -> Axes:
            x = left + position * pitch + (0.3 if position else 0)
            return figure.add_axes((x / width, bottom / total, cell / width, height / total))

        query = row.query
        _cell(
            axes(0),
            pictures[query.name],
            aspect,
            QUERY,
            f"id {query.pid}" if query.pid >= 0 else "unknown",
            _where(query),
        )
        for position, (match, distance, right) in enumerate(
            zip(row.matches, row.distances, row.right, strict=True), 1
        ):
            colour = MUTED if right is None else RIGHT if right else WRONG
            # Of whom nobody knows who it is, people ask who the others are.
            words = f"id {match.pid}" if right is None else _where(match), f"{distance:.3f}"
            _cell(axes(position), pictures[match.name], aspect, colour, *words)
        if not row.matches:
            figure.text(
                start,
                (bottom + height / 2) / total,
                "no gallery item counts for this query",
                size=9,
            )
    _save(figure, Path(path))


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
    _save(figure, Path(path))


def _where(sample: Sample) -> str:
    """The view of a gait sequence, else the camera, as far as they are known."""
    if sample.view:
        return f"view {sample.view}"
    return f"camera {sample.camid + 1}" if sample.camid >= 0 else ""


def _picture(sample: Sample) -> NDArray[np.uint8] | None:
    """The middle frame in RGB, (H, W, 3), or None where it cannot be read."""
    if not sample.frames:
        return None
    try:
        data = np.fromfile(sample.frames[len(sample.frames) // 2], dtype=np.uint8)
    except OSError:
        return None
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    return None if image is None else image[:, :, ::-1].astype(np.uint8)


def _cell(
    axes: Axes, image: NDArray[np.uint8] | None, aspect: float, colour: str, first: str, second: str
) -> None:
    axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, aspect))
    if image is None:
        axes.set_facecolor("#d9d9d9")
        axes.text(
            0.5, aspect / 2, "image\nmissing", ha="center", va="center", size=8, color="#555555"
        )
    else:
        # Inside a cell of one shape an image keeps its own: the rest stays light grey.
        axes.set_facecolor("#f2f2f2")
        own = image.shape[0] / image.shape[1]
        w, h = (1.0, own) if own <= aspect else (aspect / own, aspect)
        x, y = (1 - w) / 2, (aspect - h) / 2
        axes.imshow(image, extent=(x, x + w, y, y + h), aspect="auto", interpolation="antialiased")
        axes.set(xlim=(0, 1), ylim=(0, aspect))
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=3)
    for word, drop, weight in ((first, 5, "normal"), (second, 15, "bold")):
        axes.annotate(
            word,
            (0.5, 0),
            (0, -drop),
            "axes fraction",
            "offset points",
            ha="center",
            va="top",
            size=8,
            weight=weight,
        )


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
            label=_short(name),
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
                epochs, values, style, color=colour, lw=1.9, marker="o", ms=4, label=_short(label)
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


def _short(name: str) -> str:
    return textwrap.shorten(name, 34, placeholder="...")


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


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as file:
        FigureCanvasAgg(figure).print_png(file)


def reliability(
    path: str | Path,
    predicted: Sequence[float],
    observed: Sequence[float],
    counts: Sequence[int],
    *,
    title: str = "",
) -> None:
    """Write a PNG: what was predicted against what was so, and how many pairs a point stands for.

    predicted and observed (B,) are probabilities in [0, 1], counts (B,) positive; a perfect
    calibration lies on the diagonal. Replaced atomically.
    """
    if not len(predicted) or len({len(predicted), len(observed), len(counts)}) != 1:
        raise ValueError(
            f"{len(predicted)} predicted, {len(observed)} observed and {len(counts)} counts; "
            "expected as many of each, at least one"
        )
    figure = Figure(figsize=(5, 6), dpi=110, facecolor="white", layout="constrained")
    curve, amounts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curve.plot((0, 1), (0, 1), "--", color=MUTED, lw=1.2, label="perfect")
    curve.plot(predicted, observed, color=COLOURS[0], lw=1.9, marker="o", label="held-out pairs")
    curve.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of the same identity")
    curve.legend(frameon=False, fontsize=8, loc="upper left")
    curve.set_title(title or "Reliability", loc="left", size=11, weight="bold")
    amounts.vlines(predicted, 0.5, counts, color=COLOURS[0], lw=8)
    amounts.set(yscale="log", ylim=(0.5, None), ylabel="pairs", xlabel="predicted probability")
    for axes in (curve, amounts):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    _save(figure, Path(path))


BARS = 30  # the best of a sweep that are drawn


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
    names, title = [_literal(name) for name in names], _literal(title)
    scores = {_literal(metric): found for metric, found in scores.items()}
    numbers = {_literal(key): values for key, values in (numbers or {}).items()}
    baselines = {
        _literal(name): {_literal(metric): value for metric, value in values.items()}
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
    _save(figure, Path(path))


def _literal(text: str) -> str:
    """A text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")


STYLES = ("--", ":", "-.")


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
        told = f"{_short(label)} {100 * value:.1f}%"
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
        told = f"{_short(label)} {100 * value:.1f}%"
        axes.axvline(value, ls=dashes, color=QUERY, lw=1.4, label=told)
    axes.set_yticks(places, [_short(name) for name in names[:shown]], fontsize=9)
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
    known = ", ".join(f"{_short(name)} {100 * value:.1f}%" for name, value in baselines.items())
    axes.set_xlabel(f"{across}\n{known}" if known else across)
    axes.set_ylabel(down)
    bar = axes.figure.colorbar(image, ax=axes)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
