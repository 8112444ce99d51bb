"""Augmentation of uint8 clips on the CPU; normalising and erasing of batches on the device."""

import math
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Augment:
    """Random flip, shift and colour of a clip, the same for all of its frames.

    Args:
        flip: probability of a horizontal flip, [0, 1].
        pad: pixels added on every side in black before a crop of the old size: a shift of up to
            `pad` each way.
        jitter: strength of colour changes, [0, 1): contrast and each channel's gain in [1 - jitter,
            1 + jitter].

    Raises ValueError for values outside these ranges.
    """

    def __init__(self, flip: float = 0.5, pad: int = 10, jitter: float = 0.0) -> None:
        if not 0 <= flip <= 1:
            raise ValueError(f"flip is {flip}, expected a probability in [0, 1]")
        if pad < 0:
            raise ValueError(f"pad is {pad}, expected 0 or more pixels")
        if not 0 <= jitter < 1:
            raise ValueError(f"jitter is {jitter}, expected in [0, 1)")
        self.flip = flip
        self.pad = pad
        self.jitter = jitter

    def __call__(
        self, clip: NDArray[np.uint8], generator: np.random.Generator
    ) -> NDArray[np.uint8]:
        """A changed copy of clip (T, H, W, C) uint8, decided by the generator's state.

        `jitter` is for three channels.
        """
        flipped = generator.random() < self.flip
        down = int(generator.integers(-self.pad, self.pad + 1))
        right = int(generator.integers(-self.pad, self.pad + 1))
        if flipped:
            # Not clip[:, :, ::-1]: copying that is many times slower, pixel by pixel.
            clip = np.stack([cv2.flip(frame, 1) for frame in clip]).reshape(clip.shape)
        clip = shift(clip, down, right)
        if self.jitter:
            table = self.colours(generator)
            clip = np.stack([cv2.LUT(frame, table) for frame in clip])
        return clip

    def colours(self, generator: np.random.Generator) -> NDArray[np.uint8]:
        """Table (1, 256, 3) uint8 of new values: contrast about mid-grey, then channel gains."""
        contrast, *gains = generator.uniform(1 - self.jitter, 1 + self.jitter, 4).tolist()
        values = (np.arange(256.0) - 127.5) * contrast + 127.5
        table = values[:, None] * np.array(gains)
        return np.clip(np.rint(table), 0, 255).astype(np.uint8)[None]


def shift(clip: NDArray[np.uint8], down: int, right: int) -> NDArray[np.uint8]:
    """Copy of clip (T, H, W, C) moved so many pixels (negative: up, left); black enters."""
    _, height, width, _ = clip.shape
    moved = np.zeros_like(clip)
    top, left = max(down, 0), max(right, 0)
    rows, columns = max(height - abs(down), 0), max(width - abs(right), 0)
    above, before = max(-down, 0), max(-right, 0)
    moved[:, top : top + rows, left : left + columns] = clip[
        :, above : above + rows, before : before + columns
    ]
    return moved


class Normalise:
    """uint8 pixels to floats: scaled to [0, 1], then per channel minus `mean`, divided by `std`.

    Raises ValueError where the two differ in length or a deviation is not positive.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise ValueError(f"mean {mean} and std {std} need one value a channel, std above 0")
        self.factor = torch.tensor([1 / (255 * s) for s in std]).view(-1, 1, 1)
        self.offset = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(-1, 1, 1)

    def __call__(self, frames: Tensor) -> Tensor:
        """frames (B, T, C, H, W) uint8 on any device -> the same shape in float32."""
        channels = len(self.factor)
        if frames.dtype != torch.uint8 or frames.shape[-3] != channels:
            raise ValueError(
                f"expected uint8 frames with {channels} channels, got {frames.dtype} of shape "
                f"{tuple(frames.shape)}; pixels are normalised once, by DeviceLoader"
            )
        if self.factor.device != frames.device:
            self.factor, self.offset = self.factor.to(frames.device), self.offset.to(frames.device)
        return frames.to(torch.float32).mul_(self.factor).add_(self.offset)


class RandomErasing:
    """Covers a random rectangle of each clip, at the same place in all of its frames.

    Zhong et al., Random Erasing Data Augmentation, AAAI 2020, algorithm 1.

    Args:
        p: probability that a clip is changed.
        scale: smallest and largest area of the rectangle, as parts of the picture.
        ratio: smallest and largest height / width.
        fill: "mean" covers with 0, the mean of normalised pixels; "random" with normal noise, the
            same in all frames.

    Raises ValueError for values outside these ranges.
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.4),
        ratio: tuple[float, float] = (0.3, 3.3),
        fill: Literal["mean", "random"] = "mean",
    ) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p is {p}, expected a probability in [0, 1]")
        if not 0 < scale[0] <= scale[1] < 1:
            raise ValueError(f"scale is {scale}, expected two rising parts of the area in (0, 1)")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"ratio is {ratio}, expected two rising values above 0")
        if fill not in ("mean", "random"):
            raise ValueError(f"fill is {fill!r}, expected mean or random")
        self.p = p
        self.scale = scale
        self.ratio = ratio
        self.fill = fill

    def __call__(self, frames: Tensor, generator: np.random.Generator) -> Tensor:
        """A changed copy of normalised frames (B, T, C, H, W), decided by the generator's state."""
        return self.erase_(frames.clone(), generator)

    def erase_(self, frames: Tensor, generator: np.random.Generator) -> Tensor:
        """The same in place, for the one who made `frames`."""
        _, _, channels, height, width = frames.shape
        for clip in frames:
            box = self.rectangle(height, width, generator)
            if box is None:
                continue
            top, left, rows, columns = box
            patch = clip[:, :, top : top + rows, left : left + columns]
            if self.fill == "mean":
                patch.zero_()
            else:
                noise = generator.standard_normal((channels, rows, columns), dtype=np.float32)
                patch.copy_(torch.from_numpy(noise))
        return frames

    def rectangle(
        self, height: int, width: int, generator: np.random.Generator
    ) -> tuple[int, int, int, int] | None:
        """Top, left, rows and columns within the picture, or None for a clip that stays."""
        if generator.random() >= self.p:
            return None
        for _ in range(100):  # as in the paper's code: a shape that does not fit is drawn again
            area = height * width * generator.uniform(*self.scale)
            ratio = generator.uniform(*self.ratio)
            rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < rows < height and 0 < columns < width:
                top = int(generator.integers(0, height - rows + 1))
                left = int(generator.integers(0, width - columns + 1))
                return top, left, rows, columns
        return None
