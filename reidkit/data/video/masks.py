"""Where a person is in a picture: a box and a mask inside it."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]

SMALLEST = 0.001  # share of the picture: a body of 70 x 25 pixels, half filled, in 640 x 480
PIECE = 0.05  # of the smallest person: smaller pieces are specks
GAP = 0.12  # of the height of a body, between its pieces
WIDEST = 1.25  # width of a body by its height; wider are cars, shadows, groups


@dataclass(frozen=True, slots=True, eq=False)
class PersonMask:
    """One person in one picture.

    box: left, top, right, bottom in whole pixels, right and bottom not included. mask: the body
    inside the box, (bottom - top, right - left) uint8, 0 or 255. score: how sure, in [0, 1].
    """

    box: Box
    mask: NDArray[np.uint8]
    score: float = 1.0


def persons_in(mask: NDArray[np.uint8], *, smallest: float = SMALLEST) -> list[PersonMask]:
    """The parts of a mask (H, W), 0 or 255, that can be persons; from left to right.

    A part is what is connected, or stands close above or below in the same columns, as a body that
    its belt cuts in two. Left out are parts below `smallest` of the picture and those much wider
    than tall. People who touch each other are one part.
    """
    count, labels, facts, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    least = smallest * mask.size
    order = sorted(range(1, count), key=lambda label: -int(facts[label, cv2.CC_STAT_AREA]))
    groups: list[tuple[Box, int, list[int]]] = []  # box, area, labels
    for label in order:
        left, top, width, height, area = (int(fact) for fact in facts[label])
        if area < PIECE * least:
            break
        box = (left, top, left + width, top + height)
        for place, (other, total, members) in enumerate(groups):
            if _is_near(box, other):
                groups[place] = (_around(box, other), total + area, [*members, label])
                break
        else:
            groups.append((box, area, [label]))
    persons = []
    for box, area, members in groups:
        left, top, right, bottom = box
        if area < least or right - left > WIDEST * (bottom - top):
            continue
        inside = np.isin(labels[top:bottom, left:right], members)
        persons.append(PersonMask(box, inside.astype(np.uint8) * np.uint8(255)))
    return sorted(persons, key=lambda person: person.box)


def _is_near(piece: Box, body: Box) -> bool:
    """Whether a piece belongs to a body: most of its columns, and a small gap above or below."""
    common = min(piece[2], body[2]) - max(piece[0], body[0])
    gap = max(piece[1], body[1]) - min(piece[3], body[3])
    return 2 * common >= piece[2] - piece[0] and gap <= GAP * (body[3] - body[1])


def _around(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
