"""Where a person is in a picture: a box and a mask inside it."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]

SMALLEST = 0.001  # share of the picture: a body of 70 x 25 pixels, half filled, in 640 x 480
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
    """The connected parts of a mask (H, W), 0 or 255, that can be persons; from left to right.

    Left out are parts below `smallest` of the picture and those much wider than tall. People who
    touch each other are one part.
    """
    count, labels, facts, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    persons = []
    for label in range(1, count):
        left, top, width, height, area = (int(fact) for fact in facts[label])
        if area < smallest * mask.size or width > WIDEST * height:
            continue
        inside = labels[top : top + height, left : left + width] == label
        body = np.where(inside, np.uint8(255), np.uint8(0))
        persons.append(PersonMask((left, top, left + width, top + height), body))
    return sorted(persons, key=lambda person: person.box)
