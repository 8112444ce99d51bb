"""Persons as what differs from an empty scene, for a camera that does not move.

The scene is the median of pictures from the whole video: a person who crosses is in the minority
at every pixel. Who stands still for more than half of the video becomes part of the scene.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from reidkit.data.video.masks import PersonMask, persons_in
from reidkit.data.video.reading import Image

Array = NDArray[np.float32]

FLOOR = 2.5  # levels of noise that compression makes at least
SURE, LIKELY = 9.0, 4.5  # differences, in noises, at which a body begins and to which it extends
DARKEST, LIGHTEST = 0.35, 0.98  # of the light is left in a shadow
COLOUR = 1.0  # noises by which the colour of a shadow is off
FLAT = 0.04  # how much the light in a full shadow varies from pixel to pixel
HALF = 9  # pixels around a full shadow and its half shadow, together
FEET = 0.12  # share of a body, at its lower end, that may be a shadow
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
RESTLESS = 10.0  # levels of noise above which a pixel changes
MOVING = 0.3  # share of changing pixels from which on the camera moves
CROWDED = 0.5  # share of the picture that differs in most samples: the same


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """The empty scene: image (H, W, 3) in levels, and its noise (H, W), a standard deviation."""

    image: Array
    noise: Array


def learn_background(samples: Sequence[Image]) -> Background:
    """The scene without its people, from pictures (H, W, 3) over the whole video.

    Brightness that goes up and down as a whole is evened out. Raises ValueError for fewer than
    three pictures, and where most pixels change: the camera moves.
    """
    if len(samples) < 3:
        raise ValueError(
            f"a background needs 3 pictures, this video has {len(samples)}; give a longer video or "
            "a segmentation model"
        )
    image = _median(samples).astype(np.float32)
    even = np.stack([_as_bright(sample, image) for sample in samples])
    image = _median(even).astype(np.float32)
    off = np.stack([cv2.absdiff(sample, image.astype(np.uint8)).max(axis=2) for sample in even])
    noise = _median(off).astype(np.float32) * 1.4826  # of a normal distribution
    noise = np.maximum(cv2.blur(noise, (5, 5)), FLOOR)
    scene = Background(image, noise)
    _check_fixed(scene, samples)
    return scene


def _check_fixed(scene: Background, samples: Sequence[Image]) -> None:
    changing = float(np.mean(scene.noise > RESTLESS))
    covered = float(np.median([np.mean(foreground(sample, scene) > 0) for sample in samples]))
    if changing > MOVING or covered > CROWDED:
        raise ValueError(
            f"the camera moves or the light changes ({max(changing, covered):.0%} of the pixels "
            "do); background subtraction needs a fixed camera: give a segmentation model "
            "(--segmenter FILE)"
        )


def _median(pictures: Sequence[Image] | Image) -> Image:
    """The median of each pixel, the upper one of two; by rows, to keep the copies small."""
    middle = len(pictures) // 2
    result = np.empty_like(pictures[0])
    for row in range(0, len(result), 32):
        band = np.stack([picture[row : row + 32] for picture in pictures], axis=-1)
        result[row : row + 32] = np.partition(band, middle, axis=-1)[..., middle]
    return result


def _gain(frame: NDArray, image: Array) -> Array:
    """Brightness of the frame by that of the scene, (3,): the median, which people do not move."""
    few, scene = frame[4::8, 4::8].reshape(-1, 3), image[4::8, 4::8].reshape(-1, 3)
    return np.median((few + 4.0) / (scene + 4.0), axis=0).astype(np.float32)


def _as_bright(frame: Image, image: Array) -> Image:
    return np.clip(frame / _gain(frame, image), 0, 255).round().astype(np.uint8)


def foreground(frame: Image, scene: Background) -> NDArray[np.uint8]:
    """What is not scene and not shadow on it, (H, W), 0 or 255."""
    smooth = cv2.GaussianBlur(frame, (3, 3), 0).astype(np.float32)
    image = cv2.GaussianBlur(scene.image, (3, 3), 0) * _gain(frame, scene.image)
    difference = smooth - image
    far = np.sqrt(_total(difference * difference)) / scene.noise
    differs = _mask(far > LIKELY)
    lit = cv2.bitwise_and(differs, cv2.bitwise_not(_mask(_shadow(smooth, image, scene.noise))))
    lit = _with_core(_joined(cv2.morphologyEx(lit, cv2.MORPH_OPEN, CROSS)), far > SURE)
    return _filled(_above_ground(lit, differs))


def _total(picture: Array) -> Array:
    """Sum (H, W) over the channels of (H, W, 3)."""
    return np.asarray(cv2.transform(picture, np.ones((1, 3), np.float32)), np.float32)


def _mask(truth: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return truth.view(np.uint8) * np.uint8(255)


def _above_ground(lit: NDArray[np.uint8], differs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give a body back what was taken for shadow above its feet: grey clothes before a grey wall.

    A shadow lies on the ground, so it begins at the feet and goes to the side.
    """
    result = lit.copy()
    _, _, facts, _ = cv2.connectedComponentsWithStats(lit, connectivity=8)
    for left, top, width, height, _ in facts[1:]:
        body = slice(top, top + int((1 - FEET) * height)), slice(left, left + width)
        result[body] |= differs[body]
    return np.asarray(cv2.morphologyEx(result, cv2.MORPH_OPEN, CROSS), np.uint8)


def _shadow(frame: Array, image: Array, noise: Array) -> NDArray[np.bool_]:
    """Pixels that are the scene in less light: darker, of its colour, and with its texture.

    Horprasert et al., A Statistical Approach for Real-time Robust Background Subtraction and Shadow
    Detection, ICCV Frame-Rate Workshop 1999: brightness and chromaticity distortion. Texture as in
    Jacques et al., Background Subtraction and Shadow Detection in Grayscale Video Sequences,
    SIBGRAPI 2005: in a shadow the brightness distortion is the same all around.
    """
    power = np.maximum(_total(image * image), 1.0)
    light = _total(frame * image) / power
    colour: Array = (frame - light[..., None] * image).astype(np.float32, copy=False)
    off = np.sqrt(_total(colour * colour))
    dark = (light > DARKEST) & (light < LIGHTEST)
    same = off < np.maximum(COLOUR * noise, 0.03 * np.sqrt(power) * light)
    mean = cv2.blur(light, (3, 3))
    spread = np.sqrt(np.maximum(cv2.blur(light * light, (3, 3)) - mean * mean, 0))
    core = dark & same & (spread < FLAT + 0.5 * noise / np.sqrt(power))
    core = cv2.morphologyEx(core.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    # Around it lies the half shadow, whose light changes fast.
    around = cv2.dilate(core, np.ones((HALF, HALF), np.uint8)) > 0
    return around & dark & same


def _joined(mask: NDArray) -> NDArray:
    """Parts of one body made one: what is cut by a belt of the wall's colour grows together."""
    tall = max(3, len(mask) // 60)
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((tall, 3), np.uint8))


def _filled(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Small holes closed; the room between two legs is no small hole."""
    holes = cv2.bitwise_not(mask)
    _, labels, facts, _ = cv2.connectedComponentsWithStats(holes, connectivity=4)
    small = facts[:, cv2.CC_STAT_AREA] < 0.0006 * mask.size
    return np.where(small[labels], np.uint8(255), mask)


def _with_core(mask: NDArray[np.uint8], sure: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Parts of the mask of which at least a tenth is sure."""
    count, labels = cv2.connectedComponents(mask, connectivity=8)
    areas = np.bincount(labels.ravel(), minlength=count)
    cores = np.bincount(labels[sure], minlength=count)
    kept = cores >= 0.1 * areas
    kept[0] = False
    return np.where(kept[labels], np.uint8(255), np.uint8(0))


class BackgroundSegmenter:
    """Persons before a fixed scene, which `learn` takes from samples of the whole video."""

    def __init__(self) -> None:
        self.scene: Background | None = None

    def learn(self, samples: Sequence[Image]) -> None:
        """Take the scene from pictures of the whole video; raises as `learn_background`."""
        self.scene = learn_background(samples)

    def __call__(self, frames: Sequence[Image]) -> list[list[PersonMask]]:
        """The persons in each frame."""
        if self.scene is None:
            raise ValueError("the background is not known yet: call `learn` with samples first")
        return [persons_in(foreground(frame, self.scene)) for frame in frames]
