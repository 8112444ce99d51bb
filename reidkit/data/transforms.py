"""Normalising of batches on the device; the augmentation before it is in `augment.py`."""

import numpy as np
import torch
from torch import Tensor

from reidkit.data.augment import Augment
from reidkit.data.erasing import RandomErasing

__all__ = ["Augment", "Normalise", "RandomErasing"]

AT_ONCE = 1 << 17  # values of a piece of a batch: small enough for a core's cache


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
        """frames (B, T, C, H, W) uint8 on any device -> the same shape in float32, in the same
        order in memory: pixels of all channels together where they came so."""
        channels = len(self.factor)
        if frames.dtype != torch.uint8 or frames.shape[-3] != channels:
            raise ValueError(
                f"expected uint8 frames with {channels} channels, got {frames.dtype} of shape "
                f"{tuple(frames.shape)}; pixels are normalised once, by DeviceLoader"
            )
        if self.factor.device != frames.device:
            self.factor, self.offset = self.factor.to(frames.device), self.offset.to(frames.device)
        together = frames.movedim(-3, -1)
        if frames.device.type != "cpu" or not together.is_contiguous():
            return torch.addcmul(self.offset, frames, self.factor)
        return self._in_rows(together).movedim(-1, -3)

    def _in_rows(self, frames: Tensor) -> Tensor:
        """frames (..., H, W, C) contiguous -> the same in float32.

        A row of pixels is one dimension here, and each piece is finished while it is in the cache:
        four times as fast as whole tensors with a channel as their innermost dimension.
        """
        width = frames.shape[-2]
        factor, offset = (part.view(-1).repeat(width) for part in (self.factor, self.offset))
        # NumPy's memory comes in huge pages, which a system hands out many times faster.
        result = torch.from_numpy(np.empty(frames.shape, np.float32))
        source, target = frames.view(-1, len(factor)), result.view(-1, len(factor))
        rows = max(1, AT_ONCE // max(1, len(factor)))
        for pixels, place in zip(source.split(rows), target.split(rows), strict=True):
            place.copy_(pixels)
            torch.addcmul(offset, place, factor, out=place)
        return result
