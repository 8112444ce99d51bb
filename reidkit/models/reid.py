"""ReIDModel: backbone -> (mixing) -> spatial pooling -> temporal pooling -> reduction -> neck."""

from typing import Any

import torch
from torch import Tensor, nn

from reidkit.models.base import EmbeddingModel
from reidkit.types import ModelOutput, Preprocessing


class FlipTested(EmbeddingModel):
    """A model whose `flip_test` averages, in evaluation, with the output of the mirrored frames."""

    flip_test: bool

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> ModelOutput:
        """The same type in training and in evaluation.

        frames (B, T, C, H, W) normalised floats; mask (B, T) bool, each row with a true frame,
        None where all are true.
        """
        mask = checked(frames, mask)
        output = self.once(frames, mask)
        if self.flip_test and not self.training:
            output = average(output, self.once(frames.flip(-1), mask))
        return output

    def once(self, frames: Tensor, mask: Tensor) -> ModelOutput:
        """The output of these frames alone."""
        raise NotImplementedError


class ReIDModel(FlipTested):
    """Tracklets of one or many frames -> embedding, feature and logits.

    Args:
        backbone: (N, C, H, W) -> (N, D, h, w), with `out_channels` = D.
        spatial: (N, D, h, w) -> (N, P, D), with `parts` = P.
        temporal: x (B, T, P, D), mask (B, T) -> (B, P, D).
        neck: embedding (B, P, D) -> (feature (B, P, D), logits (B, P, K) or None), with `in_dim`.
        mixing: x (B, T, D, h, w), mask (B, T) -> the same shape; lets a tracklet's frames tell one
            another what they saw, before the cells are pooled.
        reduction: (B, P, D) -> (B, P, dim), with `dim`; stands before the embedding.
        preprocessing: what the frames must have gone through; carried for those who use the model.
        channels_last: lay the backbone out for convolutions over the last axis, faster on CPUs and
            tensor cores.
        flip_test: in evaluation, average the output with that of the mirrored frames.
    """

    def __init__(
        self,
        backbone: nn.Module,
        spatial: nn.Module,
        temporal: nn.Module,
        neck: nn.Module,
        preprocessing: Preprocessing | None = None,
        *,
        mixing: nn.Module | None = None,
        reduction: nn.Module | None = None,
        channels_last: bool = True,
        flip_test: bool = False,
    ) -> None:
        super().__init__()
        self.parts = whole_number(spatial, "parts")
        dim = whole_number(backbone, "out_channels")
        if reduction is not None:
            dim = whole_number(reduction, "dim")
        if whole_number(neck, "in_dim") != dim:
            source = "backbone's out_channels" if reduction is None else "reduction's dim"
            raise ValueError(
                f"the neck takes in_dim {neck.in_dim}, but the {source} is {dim}; make them equal"
            )
        if whole_number(neck, "parts") != self.parts:
            raise ValueError(
                f"the neck takes {neck.parts} parts, the spatial pooling makes {self.parts}"
            )
        memory = torch.channels_last if channels_last else torch.contiguous_format
        self.backbone = backbone.to(memory_format=memory)
        self.mixing = mixing
        self.spatial = spatial
        self.temporal = temporal
        self.reduction = reduction
        self.neck = neck
        self.preprocessing = Preprocessing() if preprocessing is None else preprocessing
        self.channels_last = channels_last
        self.flip_test = flip_test
        self.embedding_size = self.parts * dim

    def once(self, frames: Tensor, mask: Tensor) -> ModelOutput:
        """The output of these frames alone."""
        vectors = self._frame_vectors(frames, mask)  # (B, T, P, D)
        embedding = self.temporal(vectors, mask)  # (B, P, D)
        if self.reduction is not None:
            embedding = self.reduction(embedding)
        feature, logits = self.neck(embedding)
        return ModelOutput(embedding, feature, logits)

    def _frame_vectors(self, frames: Tensor, mask: Tensor) -> Tensor:
        """(B, T, P, D), zero where the mask is False.

        Padding stays out of the backbone: it costs no time, and batch norms do not see it.
        """
        places = TrueFrames(mask)
        flat = places.pack(frames)  # (N, C, H, W)
        if self.channels_last:
            flat = flat.contiguous(memory_format=torch.channels_last)
        maps = self.backbone(flat)  # (N, D, h, w)
        if self.mixing is not None:
            maps = places.pack(self.mixing(places.unpack(maps), mask))
        return places.unpack(self.spatial(maps))  # (N, P, D) -> (B, T, P, D)


class TrueFrames:
    """Where a batch's true frames stand, so that layers can run on these alone.

    Padding then costs no time, and batch norms do not see it. A tracklet of one frame has no
    padding, whatever its mask says.

    Attributes:
        index: (N,) positions of the true frames in the flattened batch; None where all are true.
    """

    def __init__(self, mask: Tensor) -> None:
        """mask (B, T) bool."""
        self.shape = mask.shape
        padded = mask.shape[1] > 1 and not bool(mask.all())
        self.index = mask.flatten().nonzero().squeeze(1) if padded else None

    def pack(self, x: Tensor) -> Tensor:
        """(B, T, ...) -> (N, ...), the true frames row after row."""
        flat = x.flatten(0, 1)
        return flat if self.index is None else flat[self.index]

    def unpack(self, flat: Tensor) -> Tensor:
        """(N, ...) -> (B, T, ...), zero where the mask is False."""
        if self.index is not None:
            empty = flat.new_zeros(self.shape.numel(), *flat.shape[1:])
            flat = empty.index_copy(0, self.index, flat)
        return flat.unflatten(0, self.shape)


def checked(frames: Tensor, mask: Tensor | None) -> Tensor:
    """The mask (B, T), all true where there is none; ValueError unless both are as they must be."""
    if frames.ndim != 5:
        raise ValueError(
            f"frames need shape (B, T, C, H, W), got {tuple(frames.shape)}; "
            "an image is a tracklet of one frame: images[:, None]"
        )
    if not frames.is_floating_point():
        raise ValueError(f"frames are {frames.dtype}: scale to [0, 1] and normalise them first")
    if mask is None:
        return torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
    if mask.shape != frames.shape[:2] or mask.dtype != torch.bool:
        raise ValueError(
            f"mask must be bool of shape {tuple(frames.shape[:2])}, "
            f"got {mask.dtype} of shape {tuple(mask.shape)}"
        )
    return mask


def average(first: ModelOutput, second: ModelOutput) -> ModelOutput:
    """The mean of two outputs of one model."""
    logits = None
    if first.logits is not None and second.logits is not None:
        logits = (first.logits + second.logits) / 2
    return ModelOutput(
        (first.embedding + second.embedding) / 2, (first.feature + second.feature) / 2, logits
    )


def whole_number(module: nn.Module, name: str) -> int:
    """The attribute that a component must declare."""
    value: Any = getattr(module, name, None)
    if not isinstance(value, int):
        raise ValueError(f"{type(module).__name__} must have an int attribute {name!r}")
    return value
