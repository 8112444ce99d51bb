"""Every loss and miner of pytorch-metric-learning, by its class name."""

from typing import Any, ClassVar

import torch
from pytorch_metric_learning.losses import CrossBatchMemory
from torch import Tensor, nn

from reidkit.losses.components import component, component_faults, known_names
from reidkit.losses.pairs import check_shapes, full_precision, widen
from reidkit.losses.registries import LOSSES

# They compare the whole batch and raise at the first one when given chosen pairs.
WITHOUT_MINER = ("InstanceLoss", "P2SGradLoss", "PNPLoss", "RankedListLoss")


@LOSSES.register("metric_learning")
class MetricLearning(nn.Module):
    """A loss of pytorch-metric-learning, with a miner or a memory of earlier batches if wanted.

    Musgrave, Belongie, Lim: PyTorch Metric Learning, arXiv:2008.09164. Names and arguments are that
    library's own and are checked here, against its signatures. Proxies and class weights are
    ordinary parameters of this module.

    Args:
        loss: a class name, such as "MultiSimilarityLoss".
        miner: a class name, such as "MultiSimilarityMiner", or None for all pairs.
        loss_args: the loss's own arguments; `distance`, `reducer` and the regularizers by class
            name, or as {"name": ..., argument: ...} when they have arguments.
        miner_args: the miner's own arguments, written likewise.
        memory_size: embeddings of earlier batches to compare with (cross-batch memory: Wang et al.,
            CVPR 2020); 0 for none.
        num_classes: identities in training, for losses that learn something for each.
        embedding_size: D of the embeddings, for the same losses and for the memory.
    """

    reads: ClassVar[tuple[str, ...]] = ("embedding", "feature")

    def __init__(
        self,
        loss: str,
        miner: str | None = None,
        loss_args: dict[str, Any] | None = None,
        miner_args: dict[str, Any] | None = None,
        memory_size: int = 0,
        num_classes: int | None = None,
        embedding_size: int | None = None,
    ) -> None:
        super().__init__()
        facts = {
            "num_classes": num_classes,
            "embedding_size": embedding_size,
            "descriptors_dim": embedding_size,  # what P2SGradLoss calls it
        }
        faults = component_faults("loss", loss, loss_args or {}, facts)
        if miner is not None:
            faults += component_faults("miner", miner, miner_args or {}, {})
            if loss in WITHOUT_MINER:
                faults.append(f"{loss} always uses the whole batch; remove the miner")
        elif miner_args:
            faults.append("miner_args without a miner; name one or remove them")
        faults += _memory_faults(loss, memory_size, embedding_size)
        if faults:
            raise ValueError("; ".join(faults))
        self.loss: nn.Module = component("loss", loss, loss_args or {}, facts)
        self.miner: nn.Module | None = (
            None if miner is None else component("miner", miner, miner_args or {}, {})
        )
        self.memory_size = memory_size
        if memory_size:
            self.loss = CrossBatchMemory(self.loss, embedding_size, memory_size, self.miner)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """embeddings (B, D), labels (B,) in [0, num_classes) -> (), in float32 or float64."""
        check_shapes("embeddings", embeddings, "labels", labels)
        if self.memory_size and len(embeddings) > self.memory_size:
            raise ValueError(
                f"a batch of {len(embeddings)} does not fit memory_size {self.memory_size}; "
                "make it at least that"
            )
        with full_precision(embeddings):
            vectors = widen(embeddings)
            if self.memory_size or self.miner is None:
                value = self.loss(vectors, labels)
            else:
                value = self.loss(vectors, labels, self.miner(vectors, labels))
        return value.reshape(())

    def get_extra_state(self) -> Tensor:
        """Where the memory stands; the library saves its contents, not how far it is filled."""
        if not self.memory_size:
            return torch.zeros(0, dtype=torch.int64)
        memory: Any = self.loss
        return torch.tensor([memory.queue_idx, int(memory.has_been_filled)])

    def set_extra_state(self, state: Tensor) -> None:
        """Put back what `get_extra_state` gave."""
        if self.memory_size:
            memory: Any = self.loss
            memory.queue_idx, memory.has_been_filled = int(state[0]), bool(state[1])


def _memory_faults(loss: str, memory_size: int, embedding_size: int | None) -> list[str]:
    supported = CrossBatchMemory.supported_losses()
    if memory_size < 0:
        return [f"memory_size must be 0 or more, got {memory_size}"]
    if not memory_size or loss not in known_names("loss"):
        return []
    if loss not in supported or loss in WITHOUT_MINER:
        fitting = ", ".join(
            name for name in supported if name in known_names("loss") and name not in WITHOUT_MINER
        )
        return [f"{loss} cannot use a memory; these can: {fitting}"]
    return [] if embedding_size is not None else ["memory_size needs embedding_size"]
