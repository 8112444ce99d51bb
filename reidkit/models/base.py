"""What every model of the MODELS registry promises to those who train, save and use it."""

from torch import nn

from reidkit.types import Preprocessing


class EmbeddingModel(nn.Module):
    """A module whose `forward(frames, mask)` returns a ModelOutput, in training and evaluation.

    embedding_size: P * D, the length of a row of features; parts: P; preprocessing: what the frames
    must have gone through.
    """

    embedding_size: int
    parts: int
    preprocessing: Preprocessing
