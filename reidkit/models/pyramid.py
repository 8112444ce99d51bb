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
    rows = x.unflatten(2, (strips, -1)).flatten(3)  # (N, C, strips, cells)
    mean, top = rows.mean(3), rows.amax(3)
    levels = [mean + top]
    while mean.shape[2] > 1:
        # Strips are equal, so the mean of two means is the mean of both.
        mean = mean.unflatten(2, (-1, 2)).mean(3)
        top = top.unflatten(2, (-1, 2)).amax(3)
        levels.append(mean + top)
    return torch.cat(levels[::-1], dim=2).transpose(1, 2)
