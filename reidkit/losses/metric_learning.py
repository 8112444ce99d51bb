"""Every loss and miner of pytorch-metric-learning, by its class name."""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pytorch_metric_learning.losses import CrossBatchMemory
from torch import Tensor, nn

from reidkit.losses.components import FAMILIES, component, component_faults, known_names
from reidkit.losses.pairs import check_shapes, full_precision, widen
from reidkit.losses.registries import LOSSES

# They compare the whole batch and raise at the first one when given chosen pairs.
WITHOUT_MINER = ("InstanceLoss", "P2SGradLoss", "PNPLoss", "RankedListLoss")


@LOSSES.register("metric_learning")
class MetricLearning(nn.Module):
    """A loss of pytorch-metric-learning, with a miner or a memory of earlier batches if wanted.

    Musgrave, Belongie, Lim: PyTorch Metric Learning, arXiv:2008.09164. Names and arguments are that
    library's own and are checked here, against its signatures and, as these do not tell what fits
    together, by a trial on a copy. Proxies and class weights are ordinary parameters of this
    module.

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
        _keep_state(self.loss)
        self.miner: nn.Module | None = (
            None if miner is None else component("miner", miner, miner_args or {}, {})
        )
        self.memory_size = memory_size
        if memory_size:
            self.loss = CrossBatchMemory(self.loss, embedding_size, memory_size, self.miner)
        if fault := _trial_fault(self, num_classes, embedding_size):
            raise ValueError(f"{_described(loss, miner, loss_args, memory_size)} {fault}")

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
        _let_go(self.loss)
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


def _keep_state(loss: nn.Module) -> None:
    """Make buffers of tensors that the library holds as plain attributes (a running histogram), so
    that they follow the device and what a loss has counted is in the checkpoint."""
    for module in loss.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor):
                delattr(module, name)
                module.register_buffer(name, value, persistent=value.is_floating_point())


def _let_go(loss: nn.Module) -> None:
    """Cut the buffers off this step's graph, which the next step could not go back through."""
    for module in loss.modules():
        for name, value in list(module.named_buffers(recurse=False)):
            if value.requires_grad:
                setattr(module, name, value.detach())


def _trial_fault(
    module: MetricLearning, num_classes: int | None, embedding_size: int | None
) -> str | None:
    """What goes wrong with a copy of the loss on made-up rows, or None.

    Which distance, reducer, regularizer and miner fit which loss is written nowhere in the library:
    it raises at the first batch.
    """
    room = module.memory_size or 30
    classes = min(3, num_classes or 3, room)
    instances = max(1, min(5, room // 2 // classes))
    labels = torch.tensor([0, (num_classes or 3) - 1, 1][:classes]).repeat(instances)
    source = torch.Generator().manual_seed(0)
    vectors = torch.randn(len(labels), embedding_size or 8, generator=source).requires_grad_()
    with torch.random.fork_rng(devices=[]):
        try:
            trial = copy.deepcopy(module)
            for _ in range(2):  # in the second one a memory holds more than the batch
                value = trial(vectors, labels)
            if value.requires_grad:
                torch.autograd.grad(value, vectors, allow_unused=True)
        except Exception as error:  # whatever the library raises, training could not begin
            reason = str(error).partition("\n")[0]
            return (
                f"cannot train: {type(error).__name__}: {reason} (tried on made-up rows); "
                "choose others or other arguments"
            )
    return None


def _described(
    loss: str, miner: str | None, args: Mapping[str, Any] | None, memory_size: int
) -> str:
    """The loss and what it was combined with, for a sentence."""
    parts = [
        f"{key} {value['name'] if isinstance(value, Mapping) else value}"
        for key, value in (args or {}).items()
        if key in FAMILIES
    ]
    parts += [f"miner {miner}"] if miner else []
    parts += [f"memory_size {memory_size}"] if memory_size else []
    return f"{loss} with {', '.join(parts)}" if parts else loss


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
        return [f"{loss} cannot use a memory; these can: {fitting}; and ours, by the loss 'memory'"]
    return [] if embedding_size is not None else ["memory_size needs embedding_size"]
