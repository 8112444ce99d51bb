"""Which classes are known to be two identities, and a loss that pushes only these apart."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from reidkit.losses.pairs import PairLoss, check_shapes, full_precision, pair_loss, pairs_of, widen
from reidkit.losses.registries import LOSSES


@LOSSES.register("known_rivals")
class KnownRivals(nn.Module):
    """A loss over pairs whose negative pairs are only those known to be two identities.

    Tracklets of one camera are different people, but of two tracklets from two cameras nobody knows
    (Liu, Wang, Lu: Stepwise Metric Promotion for Unsupervised Video Person Re-identification, ICCV
    2017); pushing those apart would undo what the next round is to find. A class that is in no
    group has positive pairs only.

    Args:
        loss: a loss over pairs, a name, {name: ranked_list, margin: 0.4} or an object; None
            for the ranked list loss as it is.
        rivals: (K, G) bool, two classes that share a group are two identities; None where all are.
    """

    reads: ClassVar[tuple[str, ...]] = PairLoss.reads
    every_round: ClassVar[bool] = True
    rivals: Tensor | None  # (K, G)

    def __init__(
        self,
        loss: dict[str, Any] | str | PairLoss | None = None,
        *,
        rivals: Tensor | None = None,
    ) -> None:
        super().__init__()
        if rivals is not None:
            check_rivals(rivals, len(rivals))
        self.loss = pair_loss(loss)
        self.register_buffer("rivals", rivals)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """embeddings (B, D), labels (B,) in [0, K) -> (), in float32 or float64."""
        check_shapes("embeddings", embeddings, "labels", labels)
        labels = labels.to(embeddings.device)
        pairs = pairs_of(labels, None, None)
        if self.rivals is not None:
            check_range(labels, 0, len(self.rivals))
            pairs.negative.logical_and_(share_group(self.rivals[labels], self.rivals[labels]))
        with full_precision(embeddings):
            queries = widen(embeddings)
            return self.loss.compare(queries, queries, pairs)


def share_group(first: Tensor, second: Tensor) -> Tensor:
    """Whether two rows have a group in common. first (B, G), second (K, G) bool -> (B, K) bool."""
    return first.float() @ second.float().t() > 0


def check_rivals(rivals: Tensor, classes: int) -> None:
    """Raise ValueError unless rivals are (classes, G) bool."""
    if rivals.ndim != 2 or rivals.dtype != torch.bool or len(rivals) != classes:
        raise ValueError(
            f"rivals are {rivals.dtype} {tuple(rivals.shape)}, expected bool ({classes}, G): "
            "for each class the groups that it is in"
        )


def check_range(labels: Tensor, least: int, classes: int) -> None:
    """Raise ValueError unless labels are in [least, classes).

    On an accelerator nobody looks, as that would stop its queue; indexing fails there by itself.
    """
    if labels.device.type != "cpu":
        return
    wrong = labels[(labels < least) | (labels >= classes)]
    if len(wrong):
        raise ValueError(
            f"label {int(wrong[0])}, expected one in [{least}, {classes}): the loss was built for "
            f"{classes} classes"
        )
