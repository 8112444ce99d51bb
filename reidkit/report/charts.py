"""Curves as inline SVG: no library, no script, colours from the page's style."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from reidkit.report.records import Curve

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 60, 22, 14, 46  # margins of the plot in the same units
MOST_POINTS = 400  # of a line; more could not be told apart


@dataclass(frozen=True, slots=True)
class Axis:
    """A range with its ticks (value, label); `log` is base 10."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value stands, 0 at the low end and 1 at the high one; beyond them at the end."""
        low, high = self.low, self.high
        value = min(max(value, low), high)
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return (value - low) / (high - low)


def cmc_chart(curves: Sequence[Curve]) -> Markup:
    """Share of queries with a right answer among the first k, over k: steps with marks at 1, 5, 10,
    20."""
    longest = max((curve.x[-1] for curve in curves if len(curve.x)), default=1)
    last = max(2, int(longest))
    ticks = [(k, str(k)) for k in (1, 5, 10, 20, 30, 40, 50, 100) if k <= last]
    x = Axis("rank k", 1, last, ticks if last > 5 else [(k, str(k)) for k in range(1, last + 1)])
    lowest = min((min(curve.y) for curve in curves if len(curve.y)), default=0.0)
    y = _percent_axis("queries found in the first k", lowest)
    return _chart("Cumulative matching characteristic", curves, x, y, marks=(1, 5, 10, 20))


def roc_chart(curves: Sequence[Curve]) -> Markup:
    """Share of genuine pairs accepted over that of impostors accepted, the latter on a log axis."""
    positive = [value for curve in curves for value in curve.x if value > 0]
    decades = min(6, max(1, math.floor(1e-9 - math.log10(min(positive, default=1e-3)))))
    labels = {0: "100%", -1: "10%", -2: "1%", -3: "0.1%", -4: "0.01%", -5: "0.001%", -6: "0.0001%"}
    ticks = [(10.0**power, labels[power]) for power in range(-decades, 1)]
    x = Axis("impostor pairs accepted (FAR, log)", 10.0**-decades, 1, ticks, log=True)
    y = _percent_axis("genuine pairs accepted (TAR)", 0.0)
    # What is left of the axis would pile up on it.
    shown = [
        Curve(curve.name, *zip(*points, strict=True)) if points else Curve(curve.name, (), ())
        for curve in curves
        for points in [[(u, v) for u, v in zip(curve.x, curve.y, strict=True) if u >= x.low]]
    ]
    return _chart("Receiver operating characteristic", shown, x, y, marks=(1e-4, 1e-3, 1e-2))


def interval_bar(value: float, interval: tuple[float, float] | None) -> Markup:
    """A score on the line from 0 to 1: a bar to the value, a darker whisker over its interval."""
    width, height = 200, 14
    parts = [f'<rect class="track" x="0" y="5" width="{width}" height="4" rx="2"/>']
    parts.append(f'<rect class="bar" x="0" y="5" width="{_n(width * value)}" height="4" rx="2"/>')
    if interval is not None:
        low, high = (width * min(max(end, 0.0), 1.0) for end in interval)
        parts.append(_whisker(low, high))
    parts.append(f'<circle class="point" cx="{_n(width * value)}" cy="7" r="3"/>')
    return _svg(width, height, "bar-chart", "", parts)


def difference_bar(change: float, interval: tuple[float, float], reach: float) -> Markup:
    """A difference around a zero line, with its interval; `reach` is the largest shown."""
    width, height = 200, 14

    def place(value: float) -> float:
        return width / 2 * (1 + min(max(value / reach, -1.0), 1.0) * 0.96)

    low, high = place(interval[0]), place(interval[1])
    kind = "better" if interval[0] > 0 else "worse" if interval[1] < 0 else "unsure"
    parts = [
        f'<rect class="track" x="0" y="6" width="{width}" height="2" rx="1"/>',
        f'<path class="zero" d="M{width // 2} 0V{height}"/>',
        _whisker(low, high, kind),
        f'<circle class="point {kind}" cx="{_n(place(change))}" cy="7" r="3.5"/>',
    ]
    return _svg(width, height, "bar-chart", "", parts)


def share_bar(value: float) -> Markup:
    """A plain bar from 0 to 1."""
    width, height = 80, 8
    bar = f'<rect class="bar" x="0" y="1" width="{_n(width * value)}" height="6" rx="2"/>'
    track = f'<rect class="track" x="0" y="1" width="{width}" height="6" rx="2"/>'
    return _svg(width, height, "share", "", [track, bar])


def movement_bar(better: int, worse: int, same: int) -> Markup:
    """Worse, same and better as parts of one bar."""
    width, height, start, parts = 300, 14, 0.0, []
    for kind, count in (("worse", worse), ("same", same), ("better", better)):
        length = width * count / max(better + worse + same, 1)
        shape = f'x="{_n(start)}" y="1" width="{_n(length)}" height="12"'
        parts.append(f'<rect class="fill {kind}" {shape}/>')
        start += length
    return _svg(width, height, "movement", "", parts)


def _whisker(low: float, high: float, kind: str = "") -> str:
    line = f"M{_n(low)} 2V12M{_n(low)} 7H{_n(high)}M{_n(high)} 2V12"
    return f'<path class="whisker {kind}" d="{line}"/>'


def _percent_axis(label: str, lowest: float) -> Axis:
    low = max(0.0, min(0.9, math.floor(10 * lowest - 0.25) / 10))
    step = 0.2 if low < 0.4 else 0.1 if low < 0.7 else 0.05
    count = round((1 - low) / step)
    values = [1 - step * i for i in range(count, -1, -1) if 1 - step * i >= low - 1e-9]
    return Axis(label, low, 1.0, [(value, f"{100 * value:.0f}%") for value in values])


def _chart(
    title: str, curves: Sequence[Curve], x: Axis, y: Axis, *, marks: Sequence[float]
) -> Markup:
    def at(u: float, v: float) -> tuple[float, float]:
        across = LEFT + x.place(u) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - y.place(v) * (HEIGHT - TOP - BOTTOM)

    def words(value: float) -> str:
        return f"{100 * value:.1f}%"

    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value, label in y.ticks:
        level = at(x.low, value)[1]
        parts.append(f'<path class="grid" d="M{LEFT} {_n(level)}H{right}"/>')
        parts.append(_text(LEFT - 7, level + 4, label, "end"))
    for value, label in x.ticks:
        place = at(value, y.low)[0]
        parts.append(f'<path class="grid" d="M{_n(place)} {TOP}V{bottom}"/>')
        parts.append(_text(place, bottom + 17, label, "middle"))
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    parts.append(_text((LEFT + right) / 2, HEIGHT - 8, x.label, "middle", "label"))
    turned = f'transform="rotate(-90 12 {(TOP + bottom) / 2})"'
    parts.append(_text(12, (TOP + bottom) / 2, y.label, "middle", "label", turned))
    for number, curve in enumerate(curves):
        points = _thinned(list(zip(curve.x, curve.y, strict=True)))
        if not points:
            continue
        line = "L".join(f"{_n(u)} {_n(v)}" for u, v in (at(*point) for point in points))
        parts.append(f'<path class="line line-{number % 2}" d="M{line}"/>')
        for mark in marks:
            if number or not max(x.low, curve.x[0]) <= mark <= curve.x[-1]:
                continue
            value = _value_at(curve, mark)
            u, v = at(mark, value)
            parts.append(f'<circle class="point" cx="{_n(u)}" cy="{_n(v)}" r="3.5"/>')
            # The lines rise: above them to the left there is room, but not beside the axis.
            if u - LEFT > 40:
                parts.append(_text(u - 6, v - 7, words(value), "end", "value"))
            else:
                parts.append(_text(u + 7, v + 17, words(value), "start", "value"))
    return _svg(WIDTH, HEIGHT, "chart", title, parts)


def _value_at(curve: Curve, x: float) -> float:
    """The highest y at or before `x`, 0 where the curve starts later."""
    return max((v for u, v in zip(curve.x, curve.y, strict=True) if u <= x), default=0.0)


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(points) <= MOST_POINTS:
        return points
    step = (len(points) - 1) / (MOST_POINTS - 1)
    return [points[round(i * step)] for i in range(MOST_POINTS)]


def _text(x: float, y: float, words: str, anchor: str, kind: str = "tick", extra: str = "") -> str:
    place = f'x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place} {extra}>{escape(words)}</text>'


def _svg(width: int, height: int, kind: str, title: str, parts: Sequence[str]) -> Markup:
    # A chart that only repeats the number beside it is not read aloud.
    role = f'role="img" aria-label="{escape(title)}"' if title else 'aria-hidden="true"'
    box = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return Markup(f'<svg class="{kind}" {box} {role}>{"".join(parts)}</svg>')


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
