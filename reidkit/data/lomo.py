"""A descriptor of colours and textures in horizontal stripes, after LOMO: no training, no GPU."""

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = (128, 48)  # height and width it is made for
SCALES = 3
WINDOW, STEP = 10, 5
HSV_BINS = 8  # of each of hue, saturation and value
RADII = (3, 5)
TOLERANCE = 0.3
PATTERNS = 3**4
GREY = 128.0

Codes = NDArray[np.int64]


def lomo(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What colours and textures occur at which height, whatever the side it is seen from.

    image (h, w, 3) uint8 RGB, resized to 128 x 48 -> (26960,): joint HSV histograms of 8 x 8 x 8
    bins and SILTP histograms of radius 3 and 5 in windows of 10 x 10 pixels, 5 apart; of all
    windows of one height the largest value of each bin; at three scales, halved by averaging;
    log(1 + x), and both kinds scaled to unit length.

    After Liao et al., Person Re-identification by Local Maximal Occurrence Representation and
    Metric Learning, CVPR 2015, Section 3, from its description. Where LOMO evens out the light by
    multi-scale Retinex, this takes the mean colour for grey, so numbers are not comparable.

    Raises ValueError for anything but a uint8 picture with three channels.
    """
    if image.ndim != 3 or image.shape[2] != 3 or not image.size or image.dtype != np.uint8:
        raise ValueError(
            f"image of shape {image.shape} and {image.dtype}; expected (h, w, 3) uint8, RGB"
        )
    height, width = SIZE
    method = cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_LINEAR
    resized = cv2.resize(image, (width, height), interpolation=method)
    pixels = even_light(np.asarray(resized, np.uint8))
    colours, textures = [], []
    for _ in range(SCALES):
        colours.append(occurrence(hsv_codes(pixels), HSV_BINS**3))
        grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
        textures += [occurrence(siltp_codes(grey, radius), PATTERNS) for radius in RADII]
        pixels = halved(pixels)
    return np.concatenate([unit(colours), unit(textures)])


def even_light(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture (h, w, 3) with the mean of each channel brought to mid-grey."""
    means = image.astype(np.float64).mean((0, 1))
    return np.clip(image * (GREY / np.maximum(means, 1)), 0, 255).astype(np.uint8)


def hsv_codes(image: NDArray[np.uint8]) -> Codes:
    """The joint bin (h, w) in [0, 512) of every pixel's hue, saturation and value."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int64)
    hue, saturation, value = (
        hsv[..., channel] * HSV_BINS // top for channel, top in enumerate((180, 256, 256))
    )
    return (hue * HSV_BINS + saturation) * HSV_BINS + value


def siltp_codes(grey: NDArray[np.uint8], radius: int) -> Codes:
    """The pattern (h, w) in [0, 81) of every pixel: which of four neighbours are brighter (1) or
    darker (2) by more than 30 %.

    Scale Invariant Local Ternary Pattern, Liao et al., CVPR 2010: the same under any gain.
    """
    centre = grey.astype(np.float64)
    padded = np.pad(centre, radius, mode="edge")
    height, width = grey.shape
    codes = np.zeros(grey.shape, np.int64)
    for down, right in ((0, 1), (-1, 0), (0, -1), (1, 0)):
        top, left = radius * (1 + down), radius * (1 + right)
        neighbour = padded[top : top + height, left : left + width]
        brighter = neighbour > (1 + TOLERANCE) * centre
        darker = neighbour < (1 - TOLERANCE) * centre
        codes = 3 * codes + brighter + 2 * darker
    return codes


def occurrence(codes: Codes, bins: int) -> NDArray[np.float64]:
    """(rows of windows, bins): for each code the most pixels that any window of the row has."""
    windows = np.lib.stride_tricks.sliding_window_view(codes, (WINDOW, WINDOW))[::STEP, ::STEP]
    rows, columns = windows.shape[:2]
    place = np.arange(rows * columns)[:, None] * bins
    counts = np.bincount(
        (windows.reshape(rows * columns, -1) + place).ravel(), minlength=rows * columns * bins
    )
    return counts.reshape(rows, columns, bins).max(1).astype(np.float64)


def halved(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of every 2 x 2 pixels, (h // 2, w // 2, 3)."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def unit(parts: list[NDArray[np.float64]]) -> NDArray[np.float32]:
    """All parts in one row, log(1 + x), of unit length."""
    row = np.log1p(np.concatenate([part.ravel() for part in parts]))
    return (row / np.linalg.norm(row)).astype(np.float32)
