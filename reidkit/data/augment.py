"""Augmentation of uint8 clips, in place."""

import numpy as np
import torch
from numpy.typing import NDArray

from reidkit.data import changes
from reidkit.data.auto import auto_augment
from reidkit.data.draws import Draws, Stream
from reidkit.data.erasing import RandomErasing, between
from reidkit.data.framing import Window, frame_into, random_windows

DEGREES = 10.0
GROWTH = 0.05
MOVES = 0.05  # of height and width
SIGMAS = (0.1, 2.0)  # pixels
COLOURS = ("jitter", "grayscale", "blur", "auto")


class Augment:
    """Random changes of uint8 clips in place, drawn once for all frames of a clip, in this order:
    crop, auto, affine, flip and pad, jitter, grayscale, blur, erasing.

    Args:
        flip: probability of a horizontal flip, [0, 1].
        pad: pixels added on every side in black before a crop of the old size: a shift of up to
            `pad` each way, 0 or more.
        jitter: strength of colour changes, [0, 1): contrast and each channel's gain in [1 - jitter,
            1 + jitter].
        grayscale: probability that colours become grey, [0, 1].
        blur: probability of a Gaussian blur, [0, 1], of sigma 0.1 to 2 pixels, as in Chen et al.,
            SimCLR, ICML 2020.
        auto: probability of a policy of AutoAugment for ImageNet, [0, 1]: Cubuk et al., CVPR 2019.
        affine: probability of a small change of pose, [0, 1]: rotated by up to 10 degrees either
            way, scaled by 0.95 to 1.05, moved by up to 5 % of height and width; black enters. For
            silhouettes, which are aligned.
        erasing: a `RandomErasing`, or the probability of the published one, [0, 1].
        crop: smallest and largest part of the picture's area, in (0, 1], that a random window of it
            has; it is resized to the picture's size. None takes the whole.
        aspect: smallest and largest width / height of that window, as a factor of the picture's
            own, above 0.

    Raises ValueError for values outside these ranges.
    """

    def __init__(
        self,
        flip: float = 0.5,
        pad: int = 10,
        jitter: float = 0.0,
        grayscale: float = 0.0,
        blur: float = 0.0,
        auto: float = 0.0,
        affine: float = 0.0,
        erasing: float | RandomErasing = 0.0,
        crop: tuple[float, float] | None = None,
        aspect: tuple[float, float] = (3 / 4, 4 / 3),
    ) -> None:
        chances = {"flip": flip, "grayscale": grayscale, "blur": blur, "auto": auto}
        chances |= {"affine": affine}
        if not isinstance(erasing, RandomErasing):
            chances["erasing"] = erasing
        for name, chance in chances.items():
            if not 0 <= chance <= 1:
                raise ValueError(f"{name} is {chance}, expected a probability in [0, 1]")
        if pad < 0:
            raise ValueError(f"pad is {pad}, expected 0 or more pixels")
        if not 0 <= jitter < 1:
            raise ValueError(f"jitter is {jitter}, expected in [0, 1)")
        if crop is not None and not 0 < crop[0] <= crop[1] <= 1:
            raise ValueError(f"crop is {crop}, expected two rising parts of the area in (0, 1]")
        if not 0 < aspect[0] <= aspect[1] < float("inf"):
            raise ValueError(f"aspect is {aspect}, expected two rising values above 0")
        self.flip = flip
        self.pad = pad
        self.jitter = jitter
        self.grayscale = grayscale
        self.blur = blur
        self.auto = auto
        self.affine = affine
        self.erasing = erasing if isinstance(erasing, RandomErasing) else RandomErasing(erasing)
        self.crop = crop
        self.aspect = aspect

    def check(self, size: tuple[int, int], channels: int) -> None:
        """Raise ValueError where the shift could push everything out of a picture of this size (H,
        W), where colours are to change and there are none, or silhouettes are to be cropped."""
        if self.pad >= min(size):
            raise ValueError(f"pad is {self.pad}, expected less than the size {size}")
        for name in COLOURS if channels == 1 else ():
            if getattr(self, name):
                raise ValueError(
                    f"{name} is {getattr(self, name)}, expected 0 for silhouettes, which have no "
                    "colours; flip, pad, affine and erasing suit them"
                )
        if channels == 1 and self.crop is not None:
            raise ValueError(
                f"crop is {self.crop}, expected None for silhouettes, which are aligned; flip, "
                "pad, affine and erasing suit them"
            )

    def __call__(self, clip: NDArray[np.uint8], seed: int = 0) -> NDArray[np.uint8]:
        """A changed copy of one clip (T, H, W, C) uint8."""
        changed = np.array(clip, order="C")
        self.apply_(changed[None], Draws.of(seed, 0, [0], [0]))
        return changed

    def apply_(self, frames: NDArray[np.uint8], draws: Draws) -> None:
        """Change frames (B, T, H, W, C) uint8, contiguous, in place."""
        if frames.ndim != 5 or frames.dtype != np.uint8 or not frames.flags.c_contiguous:
            pieces = "" if frames.flags.c_contiguous else " in pieces"
            raise ValueError(
                f"frames are {frames.dtype} {frames.shape}{pieces}, expected uint8 (B, T, H, W, C) "
                "in one piece"
            )
        height, width, channels = frames.shape[2:]
        self.check((height, width), channels)
        plan = self.plan((height, width), channels, draws)
        windows = self.windows((height, width), draws)
        for row, clip in enumerate(frames):
            if windows is not None:
                _crop(clip, windows[row])
            plan.change(row, clip)

    def windows(self, size: tuple[int, int], draws: Draws) -> list[Window] | None:
        """The window of each clip of a batch in pictures of this size (H, W), None where they stay
        whole: who reads the pictures takes it out of what was read."""
        if self.crop is None:
            return None
        return random_windows(size, self.crop, self.aspect, draws)

    def plan(self, size: tuple[int, int], channels: int, draws: Draws) -> "Plan":
        """What happens to each clip of a batch, of this size (H, W), once it was cropped."""
        return Plan(self, size, channels, draws)


class Plan:
    """The changes that an `Augment` drew for the clips of a batch.

    Drawn for all at once, made one clip after the other: what was just read is still in the cache.
    """

    def __init__(
        self, augment: Augment, size: tuple[int, int], channels: int, draws: Draws
    ) -> None:
        self.erasing = augment.erasing
        self._draws = draws
        self._spare = np.empty((0, *size, channels), np.uint8)
        self.autos = _some(draws, Stream.AUTO, augment.auto, 5)
        self.warps = _some(draws, Stream.AFFINE, augment.affine, 4)
        chances = draws.uniform(Stream.MOVE, 3)
        self.mirrors: list[bool] = (chances[:, 0] < augment.flip).tolist()
        moves = np.floor(chances[:, 1:] * (2 * augment.pad + 1)) - augment.pad
        self.moves: list[list[int]] = moves.astype(np.int64).tolist()
        self.tables = None
        if augment.jitter:
            low, high = 1 - augment.jitter, 1 + augment.jitter
            factors = between(low, high, draws.uniform(Stream.JITTER, 4))
            self.tables = changes.colour_tables(factors[:, 0], factors[:, 1:])
        self.grays = set(draws.hits(Stream.GRAYSCALE, augment.grayscale))
        self.blurs = _some(draws, Stream.BLUR, augment.blur, 1)
        self.boxes: list[list[int]] = []
        if augment.erasing.p:
            self.boxes = augment.erasing.rectangles(*size, draws).tolist()

    def change(self, row: int, clip: NDArray[np.uint8]) -> None:
        """Change the clip (T, H, W, C), contiguous, of this place in the batch."""
        if row in self.autos:  # first, while there is no black in the picture
            _redraw(clip, self.autos[row])
        if row in self.warps:
            _warp(clip, self.warps[row])
        self._move(row, clip)
        if self.tables is not None:
            changes.recolour(clip, self.tables[row])
        if row in self.grays:
            changes.grayscale(clip)
        if row in self.blurs:
            changes.blur(clip, SIGMAS[0] + (SIGMAS[1] - SIGMAS[0]) * self.blurs[row][0])
        if self.boxes and self.boxes[row][2]:
            self.erasing.cover(clip, self.boxes[row], self._draws.take([row]))

    def _move(self, row: int, clip: NDArray[np.uint8]) -> None:
        down, right = self.moves[row]
        if down or right:
            if len(self._spare) < len(clip):
                self._spare = np.empty_like(clip)
            spare = self._spare[: len(clip)]
            changes.shift(clip, down, right, spare, mirror=self.mirrors[row])
        elif self.mirrors[row]:
            changes.flip(clip)


def _some(draws: Draws, stream: Stream, chance: float, count: int) -> dict[int, list[float]]:
    """`count` numbers for each item to which something of this chance happens."""
    rows = draws.hits(stream, chance)
    if not rows:
        return {}
    numbers = draws.take(rows).uniform(stream, 1 + count)[:, 1:]  # the first decided that it does
    return dict(zip(rows, numbers.tolist(), strict=True))


def _crop(clip: NDArray[np.uint8], window: Window) -> None:
    for frame in clip:
        frame_into(frame.copy(), frame, clip.shape[1:3], window=window)


def _redraw(clip: NDArray[np.uint8], chances: list[float]) -> None:
    pixels = torch.from_numpy(clip).permute(0, 3, 1, 2).contiguous()
    clip[:] = auto_augment(pixels, chances).permute(0, 2, 3, 1).numpy()


def _warp(clip: NDArray[np.uint8], chances: list[float]) -> None:
    turn, down, right, growth = (2 * chance - 1 for chance in chances)
    height, width = clip.shape[1:3]
    changes.warp(
        clip, DEGREES * turn, 1 + GROWTH * growth, MOVES * height * down, MOVES * width * right
    )
