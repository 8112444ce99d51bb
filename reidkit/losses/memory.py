"""A memory of earlier batches for the losses over pairs."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from reidkit.losses.pairs import PairLoss, check_shapes, full_precision, pair_loss, pairs_of, widen
from reidkit.losses.registries import LOSSES

EMPTY = -1  # label of a place in the memory that nothing has come to yet


@LOSSES.register("memory")
class Memory(nn.Module):
    """A loss over pairs whose gallery is the batch and the rows of earlier batches.

    Wang, Zhang, Huang, Scott: Cross-Batch Memory for Embedding Learning, CVPR 2020,
    arXiv:1912.06798. The gallery is held fixed, the batch's own rows in it, too: only the queries
    move. Nobody is compared with himself. The newest `size` rows stay, as the model gave them; they
    are in the checkpoint, and the same on all processes. In evaluation nothing is remembered.

    Args:
        loss: a loss over pairs, a name, {name: ranked_list, margin: 0.4} or an object; None
            for the ranked list loss as it is.
        size: rows of earlier batches, M >= 1.
        embedding_size: D of the embeddings.
    """

    reads: ClassVar[tuple[str, ...]] = PairLoss.reads
    vectors: Tensor  # (M, D), the newest first
    labels: Tensor  # (M,)

    def __init__(
        self,
        loss: dict[str, Any] | str | PairLoss | None = None,
        size: int = 1024,
        *,
        embedding_size: int,
    ) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size must be 1 or more rows, got {size}")
        self.loss = pair_loss(loss)
        self.register_buffer("vectors", torch.zeros(size, embedding_size))
        self.register_buffer("labels", torch.full((size,), EMPTY))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """embeddings (B, D), labels (B,) >= 0 -> (), in float32 or float64."""
        check_shapes("embeddings", embeddings, "labels", labels)
        with full_precision(embeddings):
            queries = widen(embeddings)
            gallery = torch.cat([queries.detach(), self.vectors.to(queries)])  # (B + M, D)
            others = torch.cat([labels, self.labels.to(labels)])
            pairs = pairs_of(labels, others, None)
            pairs.positive.fill_diagonal_(False)  # a query is in the gallery, too
            pairs.negative.logical_and_(others != EMPTY)
            value = self.loss.compare(queries, gallery, pairs)
        if self.training:
            self.vectors.copy_(gallery[: len(self.vectors)])
            self.labels.copy_(others[: len(self.labels)])
        return value

    def extra_repr(self) -> str:
        """The size, for printing."""
        return f"size={len(self.vectors)}"
