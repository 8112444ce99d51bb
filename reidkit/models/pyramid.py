"""Horizontal pyramid: a feature map is cut into 1, 2, 4, 8, ... strips, and each one is pooled."""

import torch
from torch import Tensor


def pyramid(x: Tensor, strips: int = 16) -> Tensor:
    """Mean plus maximum of every strip, from the whole map to `strips` of them: (N, C, h, w) -> (N,
    2 * strips - 1, C), coarse to fine, top to bottom.

    Fu et al., Horizontal Pyramid Matching, AAAI 2019, arXiv:1804.05275; GaitSet pools its last maps
    so. strips: a power of two that divides h, else ValueError.
    """
    if strips < 1 or strips & (strips - 1):
        raise ValueError(f"strips {strips}: a pyramid halves them down to 1, so use a power of two")
    if not x.shape[2] or x.shape[2] % strips:
        raise ValueError(
            f"a map of {x.shape[2]} rows cannot be cut into {strips} equal strips; "
            f"use a height that is a multiple of {strips}"
        )
    # Channels last, as maps lie in memory where convolutions like it: much faster to reduce.
    cells = x.movedim(1, -1).unflatten(1, (strips, -1)).flatten(2, 3)  # (N, strips, cells, C)
    mean, top = cells.mean(2), cells.amax(2)
    levels = [mean + top]
    while mean.shape[1] > 1:
        # Strips are equal, so the mean of two means is the mean of both.
        mean = mean.unflatten(1, (-1, 2)).mean(2)
        top = top.unflatten(1, (-1, 2)).amax(2)
        levels.append(mean + top)
    return torch.cat(levels[::-1], dim=1)
