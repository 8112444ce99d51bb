"""Boxes (left, top, right, bottom), right and bottom not included: how much they share."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reidkit.data.video.masks import Box

Boxes = NDArray[np.float64]
ALONE = 0.75  # overlap from which on one expected box explains a detection
TOGETHER = 0.3  # share of an expected box in another from which on they stand in one place


def touches_border(box: Box, size: tuple[int, int]) -> bool:
    """Whether a box reaches the outermost pixels of a picture of this height and width."""
    height, width = size
    left, top, right, bottom = box
    return left <= 0 or top <= 0 or right >= width or bottom >= height


def overlaps(a: Boxes, b: Boxes) -> Boxes:
    """Intersection over union (A, B) of boxes (A, 4) and (B, 4)."""
    both = common(a, b)
    union = area(a)[:, None] + area(b)[None] - both
    return both / np.maximum(union, 1e-9)


def shares(a: Boxes, b: Boxes) -> Boxes:
    """Share (A, B) of each box of a that lies in each of b."""
    return common(a, b) / np.maximum(area(a)[:, None], 1e-9)


def overlapping(boxes: Boxes, touching: float) -> list[bool]:
    """Of each box, whether it and another share more than `touching` of the smaller one."""
    both = np.maximum(shares(boxes, boxes), shares(boxes, boxes).T)
    np.fill_diagonal(both, 0)
    return [bool(row.any()) for row in both > touching]


def shows_all(expected: Boxes, box: Boxes) -> bool:
    """Whether a detection shows all who are expected in it: none explains it alone, or they stand
    in one place. Else the others are gone."""
    alone = overlaps(expected, box[None]).max()
    together = shares(expected, expected)
    np.fill_diagonal(together, 1)
    return bool(alone < ALONE or together.min() > TOGETHER)


def common(a: Boxes, b: Boxes) -> Boxes:
    """Area (A, B) that boxes (A, 4) and (B, 4) have in common."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.prod(np.maximum(high - low, 0), axis=2)


def area(boxes: Boxes) -> Boxes:
    """Area (A,) of boxes (A, 4)."""
    return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)


def centre(box: Boxes) -> Boxes:
    """The middle (2,) of a box (4,)."""
    return (box[:2] + box[2:]) / 2


def stack(boxes: Sequence[Box]) -> Boxes:
    """Boxes as one array (N, 4)."""
    return np.array(boxes, float).reshape(-1, 4)
