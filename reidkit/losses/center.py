"""Centre loss: every identity has a learnt centre, and its images stay near."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from reidkit.losses.pairs import check_shapes, full_precision, widen
from reidkit.losses.registries import LOSSES


@LOSSES.register("center")
class CenterLoss(nn.Module):
    """Mean squared distance of embeddings to the centre of their identity.

    Wen, Zhang, Li, Qiao: A Discriminative Feature Learning Approach for Deep Face Recognition, ECCV
    2016, eq. 2, without its factor 1/2 and averaged over the batch, as re-identification uses it
    (Luo et al., Bag of Tricks, CVPRW 2019, which gives the term a weight of 5e-4).

    The centres have an optimiser of their own, plain SGD, and `Objective` keeps the term's weight
    away from them: a small weight protects the network from the centres, it is not meant to make
    the centres slow.

    Args:
        num_classes: identities in training.
        embedding_size: D of the embeddings.
        lr: learning rate of the centres.
    """

    reads: ClassVar[tuple[str, ...]] = ("embedding", "feature")
    per_sample: ClassVar[bool] = True

    def __init__(self, num_classes: int, embedding_size: int, lr: float = 0.5) -> None:
        super().__init__()
        if num_classes < 1 or embedding_size < 1:
            raise ValueError(
                "num_classes and embedding_size must be positive, "
                f"got {num_classes} and {embedding_size}"
            )
        if not (math.isfinite(lr) and lr > 0):
            raise ValueError(f"lr must be a number > 0, got {lr}")
        self.centres = nn.Parameter(torch.randn(num_classes, embedding_size))
        self.lr = lr

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """embeddings (B, D), labels (B,) in [0, num_classes) -> ()."""
        check_shapes("embeddings", embeddings, "labels", labels)
        if embeddings.shape[1] != self.centres.shape[1]:
            raise ValueError(
                f"centres have {self.centres.shape[1]} dimensions, "
                f"embeddings {embeddings.shape[1]}; embedding_size must be the embeddings' D"
            )
        with full_precision(embeddings):
            return (widen(embeddings) - self.centres[labels]).square().sum(1).mean()

    def own_optimizer(self) -> torch.optim.Optimizer:
        """A new SGD over the centres."""
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def extra_repr(self) -> str:
        """The settings, for printing."""
        classes, size = self.centres.shape
        return f"num_classes={classes}, embedding_size={size}, lr={self.lr}"
