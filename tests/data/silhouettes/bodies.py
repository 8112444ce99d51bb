"""Small raw masks of one walking body, and trees of them."""

import cv2
import numpy as np


def body(x=60, y=20, *, tall=100, wide=36, size=(140, 180), step=0):
    """A mask of `size` with a head, a torso and two legs; the top left corner is at (x, y)."""
    mask = np.zeros(size, np.uint8)
    head, hip = tall // 6, tall // 2
    middle = x + wide // 2
    spread = 3 + step % 5
    for (x0, y0), (x1, y1) in (
        ((middle - head // 2, y), (middle + head // 2, y + head)),
        ((x, y + head), (x + wide - 1, y + hip)),
        ((middle - 6 - spread, y + hip), (middle - spread, y + tall - 1)),
        ((middle + spread, y + hip), (middle + 6 + spread, y + tall - 1)),
    ):
        cv2.rectangle(mask, (x0, y0), (x1, y1), 255, -1)
    return mask


def walk(frames=8, **changes):
    """Masks of a body that walks to the right."""
    return [body(x=40 + 3 * step, step=step, **changes) for step in range(frames)]


def write_walk(folder, masks):
    """The masks as 001.png, 002.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, mask in enumerate(masks, 1):
        assert cv2.imwrite(str(folder / f"{number:03d}.png"), mask)
    return folder
