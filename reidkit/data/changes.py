"""Changes of one uint8 clip (T, H, W, C) in place, the same for all of its frames."""

import cv2
import numpy as np
from numpy.typing import NDArray

Clip = NDArray[np.uint8]


def flip(clip: Clip) -> None:
    """Mirror left and right."""
    # All frames as one tall picture. Not clip[:, :, ::-1]: NumPy copies that pixel by pixel.
    rows = tall(clip)
    cv2.flip(rows, 1, rows)


def shift(clip: Clip, down: int, right: int, spare: Clip, *, mirror: bool = False) -> None:
    """Move the content, mirrored first if asked for, by so many pixels (negative: up, left); black
    enters.

    `spare` is room for a copy of the clip.
    """
    if mirror:
        cv2.flip(tall(clip), 1, tall(spare))
    else:
        spare[:] = clip
    # In one piece, over the ends of rows and frames: what crosses them is blackened.
    _, _, width, channels = clip.shape
    source, target = spare.reshape(-1), clip.reshape(-1)
    step = (down * width + right) * channels
    if step >= 0:
        target[step:] = source[: max(len(source) - step, 0)]
    else:
        target[:step] = source[-step:]
    if down:
        clip[:, slice(down) if down > 0 else slice(down, None)] = 0
    if right:
        clip[:, :, slice(right) if right > 0 else slice(right, None)] = 0


def warp(clip: Clip, degrees: float, scale: float, down: float, right: float) -> None:
    """Rotate (counter-clockwise) and scale about the middle, then move by so many pixels; black
    enters."""
    _, height, width, _ = clip.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale)
    matrix[:, 2] += np.array([right, down])
    for frame in clip:
        warped = cv2.warpAffine(frame, matrix, (width, height), flags=cv2.INTER_LINEAR)
        frame[:] = warped.reshape(frame.shape)


def recolour(clip: Clip, table: NDArray[np.uint8]) -> None:
    """Replace every value by that of its channel in the table (256, C)."""
    rows = tall(clip)
    cv2.LUT(rows, table[None], rows)


def colour_tables(contrast: NDArray[np.float64], gains: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Tables (B, 256, C) of new values: contrast (B,) about mid-grey, then the gain (B, C) of each
    channel."""
    values = (np.arange(256.0) - 127.5) * contrast[:, None] + 127.5  # (B, 256)
    return np.clip(np.rint(values[:, :, None] * gains[:, None]), 0, 255).astype(np.uint8)


def grayscale(clip: Clip) -> None:
    """Red, green and blue all become the luma of ITU-R BT.601."""
    rows = tall(clip)
    cv2.cvtColor(cv2.cvtColor(rows, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB, rows)


def blur(clip: Clip, sigma: float) -> None:
    """Gaussian blur of each frame, `sigma` in pixels."""
    for frame in clip:
        frame[:] = cv2.GaussianBlur(frame, (0, 0), sigma).reshape(frame.shape)


def tall(clip: Clip) -> Clip:
    """The frames of a contiguous clip one below the other, (T * H, W, C): a view."""
    return clip.reshape(-1, *clip.shape[2:])
