"""What losses over pairs share: who is positive, who negative, and in which precision."""

from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import BaseMetricLossFunction, CrossBatchMemory
from torch import Tensor

from reidkit.losses.registries import LOSSES

Indices = tuple[Tensor, ...]
PairLossClass = TypeVar("PairLossClass", bound=type)


class Pairs(NamedTuple):
    """Which of the queries (B) and the gallery (M) are compared, and as what."""

    positive: Tensor  # (B, M) bool
    negative: Tensor  # (B, M) bool
    triplets: tuple[Tensor, Tensor, Tensor] | None  # anchor, positive, negative, if mined so
    mined: bool  # a miner or a memory chose; otherwise every pair of the batch is here


class PairLoss(BaseMetricLossFunction):
    """A loss over pairs, called as pytorch-metric-learning calls its own.

    Its wrappers accept only subclasses of its base class; nothing else of that class is used here:
    distances, reduction and precision are ours. A subclass writes `compare`.
    """

    reads: ClassVar[tuple[str, ...]] = ("embedding", "feature")

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Indices | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        """The loss (), float32 or float64, whatever autocast says.

        embeddings (B, D), labels (B,): the queries, which are their own gallery unless
        ref_emb (M, D) and ref_labels (M,) are given. indices_tuple keeps only the pairs it names:
        (anchor, positive, anchor, negative) or triplets (anchor, positive, negative), positions in
        the batch and in the gallery; a pair named twice counts once.
        """
        check_shapes("embeddings", embeddings, "labels", labels)
        if (ref_emb is None) != (ref_labels is None):
            raise ValueError("ref_emb and ref_labels belong together; give both or neither")
        with full_precision(embeddings):
            queries = widen(embeddings)
            labels = labels.to(embeddings.device)
            if ref_emb is None or ref_labels is None or ref_emb is embeddings:
                pairs = pairs_of(labels, None, indices_tuple)
                return self.compare(queries, queries, pairs)
            check_shapes("ref_emb", ref_emb, "ref_labels", ref_labels)
            if ref_emb.shape[1] != embeddings.shape[1]:
                raise ValueError(
                    f"ref_emb has {ref_emb.shape[1]} dimensions, embeddings {embeddings.shape[1]}; "
                    "they must agree"
                )
            pairs = pairs_of(labels, ref_labels.to(embeddings.device), indices_tuple)
            return self.compare(queries, ref_emb.to(queries), pairs)

    def compare(self, queries: Tensor, gallery: Tensor, pairs: Pairs) -> Tensor:
        """The loss () of queries (B, D) against gallery (M, D), the same object within a batch."""
        raise NotImplementedError


def accepted_by_memory(loss: PairLossClass) -> PairLossClass:
    """Class decorator: let pytorch-metric-learning's CrossBatchMemory take this loss.

    It admits losses by a fixed list of class names and offers no other door, so the name joins the
    list.
    """
    names = CrossBatchMemory.supported_losses()
    if loss.__name__ not in names:
        names = [*names, loss.__name__]
        CrossBatchMemory.supported_losses = staticmethod(lambda: list(names))
    return loss


def pair_loss(spec: dict[str, Any] | str | PairLoss | None) -> PairLoss:
    """The loss over pairs that a wrapper was given: a name, {name: ranked_list, margin: 0.4}, an
    object, or None for the ranked list loss as it is.

    Raises ValueError with what is wrong, and where it is no loss over pairs.
    """
    if isinstance(spec, PairLoss):
        return spec
    spec = "ranked_list" if spec is None else spec
    args = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = args.pop("name", None)
    if not isinstance(name, str) or (name in LOSSES and not _over_pairs(name)):
        fitting = ", ".join(known for known in LOSSES if _over_pairs(known))
        raise ValueError(
            f"loss needs the name of a loss over pairs, one of: {fitting}; got {name!r}"
        )
    built = LOSSES.build(name, args)
    assert isinstance(built, PairLoss)
    return built


def _over_pairs(name: str) -> bool:
    constructor = LOSSES[name]
    return isinstance(constructor, type) and issubclass(constructor, PairLoss)


def full_precision(like: Tensor) -> torch.autocast:
    """A context without autocast: half precision is too coarse for distances and exponentials."""
    return torch.autocast(like.device.type, enabled=False)


def widen(values: Tensor) -> Tensor:
    """The same values in float32, or in float64 where they are float64 already."""
    return values if values.dtype == torch.float64 else values.float()


def placed(queries: Tensor, gallery: Tensor, *, normalize: bool) -> tuple[Tensor, Tensor]:
    """Both (B, D), (M, D) scaled to length 1 if wanted, and moved so that the queries' mean is the
    origin; distances between them and their gradients do not feel the move.

    Distances come from a product whose rounding error grows with the norms. Around the mean the
    norms are the spread of the batch, so a collapsed batch measures zero instead of noise. A
    gallery that is the queries stays the same tensor as they.
    """
    within = gallery is queries
    if normalize:
        queries = F.normalize(queries, dim=1)
        gallery = queries if within else F.normalize(gallery, dim=1)
    mean = queries.detach().mean(0)
    moved = queries - mean
    return moved, moved if within else gallery - mean


def check_shapes(name: str, vectors: Tensor, labels_name: str, labels: Tensor) -> None:
    """Raise ValueError unless vectors are floating (N, D) with N > 0 and labels are (N,)."""
    shape = tuple(vectors.shape)
    if vectors.ndim != 2 or not len(vectors) or not vectors.is_floating_point():
        raise ValueError(
            f"{name} must be floating point (B, D) with B > 0, got {vectors.dtype} {shape}"
        )
    if labels.shape != vectors.shape[:1]:
        raise ValueError(
            f"{labels_name} have shape {tuple(labels.shape)}, expected ({shape[0]},): "
            f"{name} are {shape}"
        )


def pairs_of(labels: Tensor, gallery_labels: Tensor | None, indices: Indices | None) -> Pairs:
    """Pairs by label, or only those that the indices name.

    gallery_labels None means the batch itself, nobody paired with himself.
    """
    others = labels if gallery_labels is None else gallery_labels
    if indices is not None:
        return _pairs_named(indices, len(labels), len(others), labels.device)
    same = labels[:, None] == others[None, :]
    negative = ~same
    if gallery_labels is None:
        same.fill_diagonal_(False)
    return Pairs(same, negative, None, False)


def _pairs_named(indices: Indices, queries: int, gallery: int, device: torch.device) -> Pairs:
    if len(indices) not in (3, 4):
        raise ValueError(
            "indices_tuple must be (anchor, positive, negative) or "
            f"(anchor, positive, anchor, negative), got {len(indices)} tensors"
        )
    moved = [index.to(device) for index in indices]
    triplets = (moved[0], moved[1], moved[2]) if len(moved) == 3 else None
    anchor, other, second_anchor, wrong = (
        moved if triplets is None else (*moved[:2], moved[0], moved[2])
    )
    positive = torch.zeros(queries, gallery, dtype=torch.bool, device=device)
    negative = torch.zeros_like(positive)
    positive[anchor, other] = True
    negative[second_anchor, wrong] = True
    return Pairs(positive, negative, triplets, True)
