"""The texture that a walker's clothes are drawn with.

Every surface of the body is a cylinder: a texture's columns go once around it (front in the middle,
the walker's left a quarter to the right of it), its rows from the upper end to the lower. All
surfaces share one atlas, so one gather and one multiplication shade the whole person.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.data.synthetic.outfit import Outfit

Image = NDArray[Any]  # uint8; the stubs of OpenCV promise no more than an array

COLUMNS = 96
_SIZES = {
    "hair": 4, "head": 24, "skin": 4, "torso": 48, "arm": 32, "leg": 48, "skirt": 24, "shoe": 6,
    "bag": 4,
}  # fmt: skip


def _rows() -> dict[str, slice]:
    start, rows = 0, {}
    for name, size in _SIZES.items():
        rows[name] = slice(start, start + size)
        start += size
    return rows


ROWS = _rows()  # surface -> rows of the atlas


def paint(outfit: Outfit) -> Image:
    """The atlas of all surfaces, (rows, COLUMNS, 3) RGB uint8; `ROWS` tells them apart."""
    atlas = np.zeros((sum(_SIZES.values()), COLUMNS, 3), np.uint8)
    theta = (np.arange(COLUMNS) + 0.5) / COLUMNS * 2 * np.pi - np.pi
    for name, rows in ROWS.items():
        v = (np.arange(rows.stop - rows.start) + 0.5) / (rows.stop - rows.start)
        _PAINTERS[name](atlas[rows], outfit, v[:, None] + 0 * theta, theta + 0 * v[:, None])
    return atlas


def _hair(area: Image, outfit: Outfit, v: NDArray, theta: NDArray) -> None:
    area[:] = outfit.hair_colour


def _skin(area: Image, outfit: Outfit, v: NDArray, theta: NDArray) -> None:
    area[:] = outfit.skin


def _bag(area: Image, outfit: Outfit, v: NDArray, theta: NDArray) -> None:
    area[:] = outfit.bag_colour


def _head(area: Image, outfit: Outfit, v: NDArray, theta: NDArray) -> None:
    area[:] = outfit.skin
    dark = tuple(int(c * 0.35) for c in outfit.skin)
    for eye in (-0.42, 0.42):
        area[(np.abs(theta - eye) < 0.15) & (np.abs(v - 0.5) < 0.05)] = dark
        area[(np.abs(theta - eye) < 0.22) & (np.abs(v - 0.40) < 0.03)] = outfit.hair_colour
    lips, nose = (tuple(int(c * share) for c in outfit.skin) for share in (0.6, 0.85))
    area[(np.abs(theta) < 0.28) & (np.abs(v - 0.78) < 0.03)] = lips
    area[(np.abs(theta) < 0.10) & (np.abs(v - 0.62) < 0.07)] = nose
    back = np.abs(theta)
    if outfit.hair in ("short", "bob", "long", "ponytail", "bun"):
        edge = {"short": 1.45, "ponytail": 1.25, "bun": 1.25}.get(outfit.hair, 0.95)
        fringe = np.where(back < edge, 0.26, 0.30 + (back - edge) * 1.6)
        area[v < fringe] = outfit.hair_colour
    if outfit.hair in ("cap", "beanie", "hood"):
        if outfit.hair != "hood":
            area[(back > 1.5) & (v < 0.72)] = outfit.hair_colour
        line = {"cap": 0.32, "beanie": 0.42, "hood": 0.24}[outfit.hair]
        area[v < line] = outfit.hat_colour if outfit.hair != "hood" else outfit.top
        if outfit.hair == "hood":
            area[back > 0.85] = outfit.top


def _torso(area: Image, outfit: Outfit, v: NDArray, theta: NDArray) -> None:
    area[:] = outfit.top
    where = _pattern_mask(outfit, v, theta)
    if outfit.pattern == "gradient":
        weight = np.clip((v - 0.15) / 0.7, 0, 1)[..., None]
        area[:] = (1 - weight) * np.array(outfit.top) + weight * np.array(outfit.second)
    else:
        area[where] = outfit.second
    front = np.abs(theta)
    if outfit.pattern in ("open_jacket", "zip"):
        edge = 0.45 if outfit.pattern == "open_jacket" else 0.0
        area[np.abs(front - edge) < 0.06] = (40, 40, 42)
    area[(v < 0.10) & (front < 0.55)] = outfit.skin
    if outfit.bag == "backpack":
        area[(np.abs(front - 0.75) < 0.12) & (v < 0.62)] = outfit.bag_colour
    elif outfit.bag == "shoulder_bag":
        # The strap runs from one shoulder to the other hip, in front and behind.
        across = outfit.bag_side * np.sin(theta)
        area[np.abs(across - (1.6 * v - 0.8)) < 0.11] = outfit.bag_colour


def _pattern_mask(outfit: Outfit, v: NDArray, theta: NDArray) -> NDArray:
    scale, front, back = outfit.scale, np.abs(theta), np.pi - np.abs(theta)
    match outfit.pattern:
        case "bands":
            return (v * 5 * scale) % 1 < 0.5
        case "stripes":
            return ((theta + np.pi) * round(2.2 * scale * np.pi) / np.pi) % 1 < 0.4
        case "checks":
            columns = np.floor((theta + np.pi) * round(3 * scale) / np.pi)
            return (np.floor(v * 5 * scale) + columns) % 2 == 0
        case "halves":
            return v > 0.25 + 0.25 * scale
        case "yoke":
            return v < 0.34 * scale
        case "chest_band":
            return np.abs(v - 0.38) < 0.11 * scale
        case "logo":
            return (front / 0.55) ** 2 + ((v - 0.36) / (0.15 * scale)) ** 2 < 1
        case "back_print":
            return (back < 0.65) & (np.abs(v - 0.42) < 0.20 * scale)
        case "open_jacket":
            return (front < 0.45) & (v > 0.08)
        case "dots":
            u = (theta + np.pi) * round(2.5 * scale * np.pi) / np.pi % 1 - 0.5
            w = (v * 5 * scale) % 1 - 0.5
            return u**2 + w**2 < 0.09
        case "sides":
            return np.abs(front - np.pi / 2) < 0.45 * scale
        case "diagonal":
            return np.abs(np.sin(theta) - (1.6 * v - 0.8)) < 0.28 * scale
        case _:
            return np.zeros(v.shape, bool)


def _arm(area: Image, outfit: Outfit, v: NDArray, theta: NDArray) -> None:
    area[:] = outfit.skin
    cloth = v < outfit.sleeve
    area[cloth] = outfit.sleeve_colour
    if outfit.pattern in ("bands", "checks", "dots"):
        area[cloth & ((v * 7 * outfit.scale) % 1 < 0.45)] = outfit.second
    if outfit.pattern == "sides":
        area[cloth & (np.abs(np.abs(theta) - np.pi / 2) < 0.5)] = outfit.second
    if outfit.sleeve == 1.0 and outfit.pattern in ("zip", "yoke"):
        area[v > 0.93] = outfit.second


def _leg(area: Image, outfit: Outfit, v: NDArray, theta: NDArray) -> None:
    area[:] = outfit.leg
    match outfit.leg_pattern:
        case "side_stripe":
            area[np.abs(np.abs(theta) - np.pi / 2) < 0.4] = outfit.leg_second
        case "faded":
            pale = (np.abs(theta) < 0.9) & (np.abs(v - 0.35) < 0.22)
            area[pale] = np.minimum(np.array(outfit.leg) * 1.35 + 12, 255).astype(np.uint8)
        case "two_tone":
            area[v > 0.55] = outfit.leg_second
        case "cuffs":
            area[v > 0.88] = outfit.leg_second
        case "checks":
            area[((v * 8) % 1 < 0.3) | ((theta * 3 / np.pi) % 1 < 0.3)] = outfit.leg_second
    if outfit.bottom == "shorts":
        area[v > 0.46] = outfit.skin
    if outfit.bottom == "skirt":
        area[:] = outfit.skin if outfit.leg_pattern != "two_tone" else (44, 42, 46)
    area[v > (0.72 if outfit.boots else 0.985)] = outfit.shoe


def _skirt(area: Image, outfit: Outfit, v: NDArray, theta: NDArray) -> None:
    """The part below the hips: a skirt's, or a coat's, in which the top goes on."""
    if not outfit.coat:
        area[:] = outfit.leg
        if outfit.leg_pattern in ("two_tone", "cuffs"):
            area[v > 0.7] = outfit.leg_second
        elif outfit.leg_pattern == "checks":
            area[((v * 4) % 1 < 0.35) | ((theta * 4 / np.pi) % 1 < 0.3)] = outfit.leg_second
        elif outfit.leg_pattern == "side_stripe":
            area[((theta + np.pi) * 6 / np.pi) % 1 < 0.3] = outfit.leg_second
        return
    lower = {"halves", "gradient"}
    area[:] = outfit.second if outfit.pattern in lower else outfit.top
    if outfit.pattern in ("bands", "stripes", "checks", "sides", "dots"):
        area[_pattern_mask(outfit, v * 0.5, theta)] = outfit.second
    if outfit.pattern == "open_jacket":
        area[np.abs(theta) < 0.35] = outfit.leg
    if outfit.pattern == "zip":
        area[np.abs(theta) < 0.06] = (40, 40, 42)


def _shoe(area: Image, outfit: Outfit, v: NDArray, theta: NDArray) -> None:
    area[:] = outfit.shoe


_PAINTERS = {
    "hair": _hair, "head": _head, "skin": _skin, "torso": _torso, "arm": _arm,
    "leg": _leg, "skirt": _skirt, "shoe": _shoe, "bag": _bag,
}  # fmt: skip
