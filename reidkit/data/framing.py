"""How a picture fills its frame: fitted to the size it is read at, then a window of that."""

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from reidkit.data.draws import Draws, Stream
from reidkit.data.erasing import between
from reidkit.data.frames import resize, resize_into
from reidkit.types import Fit

TRIES = 10  # a window that does not fit is drawn again; then it is a central one
WHITE = 250  # grey values from here on are background
MARGIN = 15  # pixels of the picture kept around what is not background

Picture = NDArray[np.uint8]  # (H, W, C)


class Window(NamedTuple):
    """A rectangle, in pixels of a picture at the size it is read at."""

    top: int
    left: int
    height: int
    width: int


def frame_into(
    picture: Picture,
    place: Picture,
    read: tuple[int, int],
    *,
    fit: Fit = "stretch",
    window: Window | None = None,
) -> None:
    """Fit a picture to `read` (H, W) and bring its window to the size of `place` (h, w, C), a
    contiguous array which takes the result; without a window, the middle as it is.

    A window of a stretched picture is the nearest rectangle of the picture itself, resized once.
    """
    if fit == "white_square":
        picture = white_square(picture, read[0])
    if window is not None:
        resize_into(part_of(picture, window, read), place)
        return
    if fit == "stretch":
        picture = resize(picture, read)
    height, width = place.shape[:2]
    top, left = (read[0] - height) // 2, (read[1] - width) // 2
    place[...] = picture[top : top + height, left : left + width]


def part_of(picture: Picture, window: Window, read: tuple[int, int]) -> Picture:
    """A view of what lies in the window where the picture is stretched to `read` (H, W)."""
    rows, columns = picture.shape[:2]
    upright = _ends(window.top, window.height, read[0], rows)
    across = _ends(window.left, window.width, read[1], columns)
    return picture[upright, across]


def _ends(start: int, length: int, total: int, pixels: int) -> slice:
    first = min(round(start * pixels / total), pixels - 1)
    return slice(first, max(round((start + length) * pixels / total), first + 1))


def white_square(picture: Picture, side: int) -> Picture:
    """What is not white background, and `MARGIN` pixels around it, (side, side, 3): its longer side
    is `side` long, and white fills the rest on both sides.

    As the authors of Wang et al., Ranked List Loss, CVPR 2019, prepare the pictures of shops. A
    picture that is all white stays whole.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    left, top, width, height = cv2.boundingRect((grey < WHITE).astype(np.uint8))
    if width:
        picture = picture[
            max(top - MARGIN, 0) : top + height + MARGIN,
            max(left - MARGIN, 0) : left + width + MARGIN,
        ]
    longest = max(picture.shape[:2])
    rows, columns = (max(round(side * length / longest), 1) for length in picture.shape[:2])
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - rows) // 2, (side - columns) // 2
    square[top : top + rows, left : left + columns] = resize(picture, (rows, columns))
    return square


def random_windows(
    size: tuple[int, int],
    share: tuple[float, float],
    aspect: tuple[float, float],
    draws: Draws,
) -> list[Window]:
    """A window of each item in a picture of `size` (H, W), with a part of its area in `share` and
    its aspect ratio (width / height) times a factor in `aspect`, of uniform logarithm.

    Szegedy et al., Going Deeper with Convolutions, CVPR 2015, section 6, by the rule of
    torchvision's RandomResizedCrop. That one draws the aspect ratio itself, which is the same for a
    square; upright pictures of people keep their form here.
    """
    height, width = size
    found = np.tile(np.array(central_window(size, aspect), np.int64), (len(draws.keys), 1))
    waiting = np.arange(len(draws.keys))
    for turn in range(TRIES):
        if not len(waiting):
            break
        chance = draws.take(waiting).uniform(Stream.CROP + turn, 4)  # (waiting, 4)
        area = between(*share, chance[:, 0])
        factor = np.exp(between(math.log(aspect[0]), math.log(aspect[1]), chance[:, 1]))
        sides = np.rint(np.sqrt(np.stack([area / factor, area * factor], axis=1)) * size)
        free = (height, width) - sides
        corners = np.floor(chance[:, 2:] * (free + 1))
        fits = ((sides > 0) & (free >= 0)).all(axis=1)
        found[waiting[fits]] = np.concatenate([corners, sides], axis=1)[fits]
        waiting = waiting[~fits]
    return [Window(*window) for window in found.tolist()]


def central_window(size: tuple[int, int], aspect: tuple[float, float]) -> Window:
    """The largest window in the middle of a picture of `size` (H, W) whose aspect ratio is the
    picture's times a factor in `aspect`."""
    height, width = size
    rows = max(round(height / max(aspect[0], 1)), 1)
    columns = max(round(width * min(aspect[1], 1)), 1)
    return Window((height - rows) // 2, (width - columns) // 2, rows, columns)
