"""Which rows of a batch a loss sees where several processes each hold some of them."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from reidkit import distributed
from reidkit.losses.pairs import widen
from reidkit.types import ModelOutput

Source = Literal["embedding", "feature", "logits"]


class Rows:
    """What losses read: this rank's rows, or those of all ranks; each is gathered at most once."""

    def __init__(self, output: ModelOutput, labels: Tensor) -> None:
        self._output = output
        self._labels = labels
        self._gathered_labels: Tensor | None = None
        self._gathered: dict[Source, Tensor] = {}

    def of(self, source: Source, *, own: bool) -> Tensor:
        """(B, P, D), or of all ranks (world * B, P, D), in full precision."""
        if own or distributed.world_size() == 1:
            return widen(getattr(self._output, source))
        if source not in self._gathered:
            self._gathered[source] = distributed.gather_with_grad(getattr(self._output, source))
        return widen(self._gathered[source])

    def labels(self, *, own: bool) -> Tensor:
        """(B,), or of all ranks (world * B,)."""
        if own:
            return self._labels
        if self._gathered_labels is None:
            self._gathered_labels = distributed.gather(self._labels)
        return self._gathered_labels


def means_over_ranks(local: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean over ranks as each term's value, in one message; its gradient stays the local one,
    of which DDP takes the mean."""
    world = distributed.world_size()
    if world == 1 or not local:
        return dict(local)
    means = distributed.total(torch.stack(list(local.values()))) / world
    # value - value.detach() is exactly 0: what is shown is the same number on all ranks, and where
    # one rank's term is not finite, all of them see it and stop together.
    return {
        name: mean + (value - value.detach())
        for (name, value), mean in zip(local.items(), means, strict=True)
    }


def require_equal_rows(labels: Tensor) -> None:
    """Raise ValueError, on all ranks alike, unless all hold equally many rows. labels (B,)."""
    counts = distributed.gather(torch.tensor([len(labels)])).tolist()
    if len(set(counts)) > 1:
        raise ValueError(
            f"the ranks hold {', '.join(map(str, counts))} rows of the batch, expected equally "
            "many; the batch size must divide among the processes"
        )
