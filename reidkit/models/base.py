"""What every model of the MODELS registry promises to those who train, save and use it."""

from typing import ClassVar, Literal

from torch import nn

from reidkit.types import Preprocessing


class EmbeddingModel(nn.Module):
    """A module whose `forward(frames, mask)` returns a ModelOutput, in training and evaluation.

    embedding_size: P * D, the length of a row of features; parts: P; preprocessing: what the frames
    must have gone through. unit_parts: several parts are each brought to unit length before they
    are joined, so that all weigh the same under cosine; gait networks are compared as they are.
    pixels: what it takes, "rgb" or "silhouettes"; classifies: whether it gives logits in training.
    """

    embedding_size: int
    parts: int
    unit_parts: bool = True
    pixels: ClassVar[Literal["rgb", "silhouettes"]] = "rgb"
    classifies: ClassVar[bool] = True
    preprocessing: Preprocessing
