"""A memory of one vector a class, which follows the features and is learnt by no optimiser."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.losses.known_rivals import check_range, check_rivals, share_group
from reidkit.losses.pairs import full_precision, widen
from reidkit.losses.registries import LOSSES

LEFT_OUT = -1  # label of a sample that is in no class


@LOSSES.register("cluster_memory")
class ClusterMemory(nn.Module):
    """Cross-entropy of the cosines to a remembered vector of each class, over a temperature.

    Dai, Wang, Yuan, Zhu, Tan: Cluster Contrast for Unsupervised Person Re-Identification, ACCV
    2022, arXiv:2103.11568. With temperature 0.1, momentum 0.5 and a memory that begins at zero it
    is the lookup table of Lin et al., A Bottom-Up Clustering Approach to Unsupervised Person
    Re-Identification, AAAI 2019.

    The vectors change in `after_step`, never while a graph needs them, and only in training. Of
    several processes all see the rows of all, so their memories stay the same. Body parts have
    vectors of their own.

    Args:
        temperature: > 0; smaller makes the nearest classes count more.
        momentum: the weight of the old vector, [0, 1]; that of the sample is the rest.
        update: "every" sample of the batch moves its class's vector, in the order of the batch, or
            of each class only the "hardest", the one least similar to it over all parts.
        num_classes: K.
        embedding_size: D of one part.
        parts: P.
        rivals: (K, G) bool, two classes that share a group are two identities, and only those are
            compared; None where all are. A class in no group has nobody to be told from: loss 0.
    """

    reads: ClassVar[tuple[str, ...]] = ("feature", "embedding")
    takes_parts: ClassVar[bool] = True
    every_round: ClassVar[bool] = True
    vectors: Tensor  # (K, P, D), of length 1, or 0 before anything was remembered
    rivals: Tensor | None  # (K, G)

    def __init__(
        self,
        temperature: float = 0.05,
        momentum: float = 0.1,
        update: Literal["every", "hardest"] = "every",
        *,
        num_classes: int,
        embedding_size: int,
        parts: int = 1,
        rivals: Tensor | None = None,
    ) -> None:
        super().__init__()
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature must be a number > 0, got {temperature}")
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], got {momentum}")
        if update not in ("every", "hardest"):
            raise ValueError(f"update must be 'every' or 'hardest', got {update!r}")
        sizes = {"num_classes": num_classes, "embedding_size": embedding_size, "parts": parts}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be 1 or more, got {size}")
        if rivals is not None:
            check_rivals(rivals, num_classes)
        self.temperature = temperature
        self.momentum = momentum
        self.update = update
        self.register_buffer("vectors", torch.zeros(num_classes, parts, embedding_size))
        self.register_buffer("rivals", rivals)
        self._seen: tuple[Tensor, Tensor] | None = None  # rows and labels for `after_step`

    def forward(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Mean over samples and parts, (), in float32 or float64.

        vectors (B, P, D), normalised here; labels (B,) in [0, K), -1 for samples that are left out
        (of which alone the loss is 0).
        """
        self._check(vectors, labels)
        labels = labels.to(vectors.device)
        with full_precision(vectors):
            rows = F.normalize(widen(vectors), dim=2)  # (B, P, D)
            logits = torch.einsum("bpd,kpd->bpk", rows, self.vectors.to(rows)) / self.temperature
            if self.rivals is not None:
                logits = logits.masked_fill(~self._compared(labels)[:, None], -torch.inf)
            total = F.cross_entropy(
                logits.flatten(0, 1),  # (B * P, K)
                labels.repeat_interleave(rows.shape[1]),
                ignore_index=LEFT_OUT,
                reduction="sum",
            )
            count = (labels != LEFT_OUT).sum() * rows.shape[1]
            value = total / count.clamp_min(1)
        if self.training:
            self._seen = rows.detach(), labels
        return value

    @torch.no_grad()
    def after_step(self) -> None:
        """Remember the rows of the last forward in training, once."""
        if self._seen is None:
            return
        rows, labels = self._seen
        self._seen = None
        known = labels != LEFT_OUT
        rows, labels = rows[known].to(self.vectors), labels[known]
        for places in self._turns(rows, labels):
            chosen = labels[places]
            mixed = self.momentum * self.vectors[chosen] + (1 - self.momentum) * rows[places]
            self.vectors[chosen] = F.normalize(mixed, dim=2)

    @torch.no_grad()
    def fill(self, centroids: Tensor) -> None:
        """Begin with these vectors, (K, P, D), normalised here; a ValueError where they have
        another shape or are not finite."""
        if centroids.shape != self.vectors.shape:
            raise ValueError(
                f"centroids have shape {tuple(centroids.shape)}, "
                f"expected (K, P, D) = {tuple(self.vectors.shape)}"
            )
        if not centroids.isfinite().all():
            wrong = int((~centroids.isfinite()).flatten(1).any(1).nonzero()[0])
            raise ValueError(f"the centroid of class {wrong} is not finite; look at the features")
        self.vectors.copy_(F.normalize(centroids.to(self.vectors), dim=2))

    def _check(self, vectors: Tensor, labels: Tensor) -> None:
        shape, held = tuple(vectors.shape), tuple(self.vectors.shape[1:])
        if len(shape) != 3 or not shape[0] or not vectors.is_floating_point():
            raise ValueError(
                f"vectors must be floating point (B, P, D) with B > 0, got {vectors.dtype} {shape}"
            )
        if shape[1:] != held:
            raise ValueError(
                f"vectors are {shape}, expected (B, {held[0]}, {held[1]}): the memory was built "
                f"with parts={held[0]} and embedding_size={held[1]}"
            )
        if labels.shape != vectors.shape[:1]:
            raise ValueError(
                f"labels have shape {tuple(labels.shape)}, expected ({shape[0]},): "
                f"vectors are {shape}"
            )
        check_range(labels, LEFT_OUT, len(self.vectors))

    def _compared(self, labels: Tensor) -> Tensor:
        """Which classes each sample is compared with, its own always among them, (B, K)."""
        assert self.rivals is not None
        own = labels.clamp_min(0)  # whoever is left out needs some row
        return share_group(self.rivals[own], self.rivals).scatter_(1, own[:, None], True)

    def _turns(self, rows: Tensor, labels: Tensor) -> Sequence[Tensor]:
        """Positions in the batch, turn after turn; within a turn no class comes twice, so that it
        is done at once. rows (B, P, D), labels (B,)."""
        same = labels[:, None] == labels[None, :]  # (B, B)
        before = torch.ones_like(same).tril(-1)  # the second stands before the first
        if self.update == "every":
            turn = (same & before).sum(1)
            return turn.argsort(stable=True).split(turn.bincount().tolist())
        similarity = (rows * self.vectors[labels]).sum((1, 2))
        harder = similarity[None, :] < similarity[:, None]
        tied = (similarity[None, :] == similarity[:, None]) & before
        return [(~(same & (harder | tied)).any(1)).nonzero()[:, 0]]

    def extra_repr(self) -> str:
        """The settings, for printing."""
        classes, parts, size = self.vectors.shape
        return (
            f"temperature={self.temperature}, momentum={self.momentum}, update={self.update!r}, "
            f"num_classes={classes}, embedding_size={size}, parts={parts}"
        )
