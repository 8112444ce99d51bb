"""Ranked strips: a few queries, each with its nearest gallery items."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from reidkit.types import Sample
from reidkit.visualise.common import MUTED, QUERY, RIGHT, WRONG, picture, save, where

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
        name: picture(samples[name]) if image is None else image for name, image in own.items()
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
            where(query),
        )
        for position, (match, distance, right) in enumerate(
            zip(row.matches, row.distances, row.right, strict=True), 1
        ):
            colour = MUTED if right is None else RIGHT if right else WRONG
            # Of whom nobody knows who it is, people ask who the others are.
            words = f"id {match.pid}" if right is None else where(match), f"{distance:.3f}"
            _cell(axes(position), pictures[match.name], aspect, colour, *words)
        if not row.matches:
            figure.text(
                start,
                (bottom + height / 2) / total,
                "no gallery item counts for this query",
                size=9,
            )
    save(figure, Path(path))


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
