"""Outlines in a camera's picture, and how textures lie in them."""

import math
from dataclasses import dataclass, field

import numpy as np

from reidkit.data.synthetic.body import Array

_ARC = np.linspace(-np.pi / 2, np.pi / 2, 8)
_START = np.stack([-np.cos(_ARC), np.sin(_ARC)], axis=-1)  # the round ends of a capsule
_END = np.stack([np.cos(_ARC), -np.sin(_ARC)], axis=-1)

Axis = tuple[float, float, float, float, float]  # x, y of the upper and of the lower end, radius


@dataclass(slots=True)
class Surfaces:
    """Outlines in camera pixels, each with its texture rows, axis, brightness and depth."""

    distance: float
    surface: list[str] = field(default_factory=list)
    span: list[tuple[float, float]] = field(default_factory=list)
    polygons: list[Array] = field(default_factory=list)
    axes: list[Axis] = field(default_factory=list)
    tone: list[float] = field(default_factory=list)
    keys: list[float] = field(default_factory=list)

    def add(
        self,
        surface: str,
        span: tuple[float, float],
        polygon: Array,
        axis: Axis,
        key: float,
        tone: float = 1.0,
    ) -> None:
        """Add an outline (n, 2) with the texture rows `span` (shares); `key` is its depth."""
        self.surface.append(surface)
        self.span.append(span)
        self.polygons.append(polygon)
        self.axes.append(axis)
        self.keys.append(key)
        self.tone.append(tone)

    @property
    def order(self) -> list[int]:
        """Positions from the farthest to the nearest."""
        return sorted(range(len(self.keys)), key=lambda part: -self.keys[part])

    def bounds(self) -> tuple[Array, Array]:
        """Lowest and highest x and y over all outlines."""
        points = np.concatenate(self.polygons)
        return points.min(0), points.max(0)

    def texture(self, part: int, zoom: Array, corner: Array, columns: int, rows: int) -> Array:
        """The (2, 3) matrix from a canvas, `(picture - corner) * zoom`, to the part's texture."""
        zx, zy = float(zoom[0]), float(zoom[1])
        ax, ay, bx, by, radius = self.axes[part]
        ax, ay = (ax - float(corner[0])) * zx, (ay - float(corner[1])) * zy
        dx, dy = (bx - float(corner[0])) * zx - ax, (by - float(corner[1])) * zy - ay
        length = math.hypot(dx, dy)
        dx, dy = (dx / length, dy / length) if length > 1 else (0.0, 1.0)
        across = columns / (2 * max(radius * 0.5 * (zx + zy), 1.0))
        along = rows / max(length, 1.0)
        return np.array(
            [
                [dy * across, -dx * across, (dx * ay - dy * ax) * across + columns / 2 - 0.5],
                [dx * along, dy * along, -(dx * ax + dy * ay) * along - 0.5],
            ]
        )


def capsules(a: Array, b: Array, radius: Array) -> Array:
    """Outlines (P, 16, 2) around the segments a-b (P, 2) with the radii (P, 2) at their ends."""
    axis = b - a
    along = axis / np.maximum(np.hypot(axis[:, 0], axis[:, 1]), 1e-6)[:, None]
    frame = np.empty((len(a), 2, 2))
    frame[:, 0] = along
    frame[:, 1, 0], frame[:, 1, 1] = along[:, 1], -along[:, 0]
    start = a[:, None] + radius[:, :1, None] * (_START @ frame)
    end = b[:, None] + radius[:, 1:, None] * (_END @ frame)
    return np.concatenate([start, end], axis=1)


def trunk(top: Array, bottom: Array, levels: Array) -> tuple[Array, Axis]:
    """The outline along top-bottom with (share of height, half-width) `levels`, and its axis."""
    axis = bottom - top
    along = axis / max(float(np.hypot(*axis)), 1e-6)
    right = np.array([along[1], -along[0]])
    v, half = levels.T
    centre = top + v[:, None] * axis
    outline = np.concatenate(
        [centre + half[:, None] * right, (centre - half[:, None] * right)[::-1]]
    )
    return outline, (*top.tolist(), *bottom.tolist(), float(half.max()))
