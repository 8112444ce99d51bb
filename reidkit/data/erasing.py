"""Random erasing of uint8 batches."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reidkit.data.draws import Draws, Stream

MEAN_PIXEL = (124, 116, 104)  # of ImageNet, RGB: 255 times (0.485, 0.456, 0.406)
# As a row: repeating one pixel of three bytes takes ten times as long.
MEAN_ROW = np.tile(np.array(MEAN_PIXEL, np.uint8), (1024, 1))
TRIES = 100  # as in the paper's code: a shape that does not fit is drawn again


class RandomErasing:
    """Covers a random rectangle of each clip, at the same place in all of its frames.

    Zhong et al., Random Erasing Data Augmentation, AAAI 2020, algorithm 1.

    Args:
        p: probability that a clip is changed, [0, 1].
        scale: smallest and largest area of the rectangle, as parts of the picture, in (0, 1).
        ratio: smallest and largest height / width, above 0.
        fill: "mean" covers with the mean pixel of ImageNet, silhouettes with 0; "random" with a
            random value for each pixel and channel, the same in all frames.

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
        if not 0 < ratio[0] <= ratio[1] < float("inf"):
            raise ValueError(f"ratio is {ratio}, expected two rising values above 0")
        if fill not in ("mean", "random"):
            raise ValueError(f"fill is {fill!r}, expected mean or random")
        self.p = p
        self.scale = scale
        self.ratio = ratio
        self.fill = fill

    def __call__(self, clip: NDArray[np.uint8], seed: int = 0) -> NDArray[np.uint8]:
        """A changed copy of one clip (T, H, W, C) uint8."""
        changed = np.array(clip)
        draws = Draws.of(seed, 0, [0], [0])
        height, width = changed.shape[1:3]
        self.cover(changed, self.rectangles(height, width, draws)[0].tolist(), draws)
        return changed

    def cover(self, clip: NDArray[np.uint8], box: Sequence[int], draws: Draws) -> None:
        """Fill this box (top, left, rows, columns) of all frames of the clip, in place; `draws` of
        this one item give the noise."""
        top, left, rows, columns = box
        patch = clip[:, top : top + rows, left : left + columns]
        channels = clip.shape[3]
        if self.fill == "random":
            noise = next(draws.generators(Stream.NOISE))
            patch[:] = noise.integers(0, 256, (rows, columns, channels), np.uint8)
        elif channels == len(MEAN_PIXEL):
            patch[:] = MEAN_ROW[:columns] if columns <= len(MEAN_ROW) else MEAN_PIXEL
        else:
            patch[:] = 0

    def rectangles(self, height: int, width: int, draws: Draws) -> NDArray[np.int64]:
        """Top, left, rows and columns of each item, (B, 4) within the picture; zeros for one that
        stays."""
        boxes = np.zeros((len(draws.keys), 4), np.int64)
        waiting = np.array(draws.hits(Stream.ERASING, self.p), np.int64)
        for turn in range(TRIES):
            if not len(waiting):
                break
            chance = draws.take(waiting).uniform(Stream.RECTANGLE + turn, 4)  # (waiting, 4)
            area = height * width * between(*self.scale, chance[:, 0])
            ratio = between(*self.ratio, chance[:, 1])
            sides = np.rint(np.sqrt(np.stack([area * ratio, area / ratio], axis=1)))
            free = (height, width) - sides
            corners = np.floor(chance[:, 2:] * (free + 1))
            fits = ((sides > 0) & (free > 0)).all(axis=1)
            boxes[waiting[fits]] = np.concatenate([corners, sides], axis=1)[fits]
            waiting = waiting[~fits]
        return boxes


def between(low: float, high: float, chance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers in [0, 1) as numbers in [low, high)."""
    return low + (high - low) * chance
