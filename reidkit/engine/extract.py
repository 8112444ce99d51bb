"""Samples -> Features."""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit import distributed
from reidkit.types import Batch, Features, Sample

PIECE = 16_384  # rows that processes exchange at once


def extract(
    model: nn.Module,
    loader: Iterable[Batch],
    samples: Sequence[Sample],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    sharded: bool = False,
) -> Features:
    """Features of all samples, stored by the batches' `index`, whatever the loader's order.

    Several parts are each normalised before they are joined, so that all weigh the same under
    cosine; not those of a model whose `unit_parts` is False. The model's mode is put back
    afterwards. Raises ValueError when a sample is missing or a feature is not finite.

    With `sharded` each process's loader gives its part of the samples, of any size, and every
    process gets the features of all. `progress` then tells what the whole has probably reached.
    What fails on one process fails on all, there as distributed.FailedElsewhere.
    """
    world = distributed.world_size() if sharded else 1
    table = _Table(len(samples))
    try:
        _fill(
            table, model, loader, lambda rows: progress(min(world * rows, len(table)), len(table))
        )
    except Exception as error:
        if world > 1:
            distributed.fail_together(error)
        raise
    if world > 1:
        distributed.fail_together(None)
        table.join()
        progress(len(table), len(table))
    return Features(table.complete(samples), tuple(samples), table.parts)


def _fill(
    table: "_Table", model: nn.Module, loader: Iterable[Batch], tell: Callable[[int], None]
) -> None:
    was_training = model.training
    model.eval()
    try:
        for batch in loader:
            with torch.inference_mode():
                feature = model(batch.frames, batch.mask).feature.float()  # (B, P, D)
                parts = feature.shape[1]
                if parts > 1 and getattr(model, "unit_parts", True):
                    feature = F.normalize(feature, dim=2)
                table.put(batch.index.cpu(), feature.flatten(1).cpu(), parts)
            tell(int(table.seen.count_nonzero()))
    finally:
        model.train(was_training)


class _Table:
    """A row for each sample, to be filled in any order, here or by several processes."""

    def __init__(self, count: int) -> None:
        self.vectors = torch.zeros(count, 0)
        self.seen = torch.zeros(count, dtype=torch.int64)  # how often each row came
        self.parts = 1

    def __len__(self) -> int:
        return len(self.seen)

    def put(self, index: Tensor, rows: Tensor, parts: int) -> None:
        """Set the rows (B, D) at `index` (B,)."""
        self._widen(rows.shape[1])
        self.vectors[index] = rows
        self.seen.index_add_(0, index, torch.ones_like(index))
        self.parts = parts

    def join(self) -> None:
        """Give all processes the rows of all; a process may have none."""
        own = torch.tensor([[self.vectors.shape[1], self.parts]])
        width, self.parts = distributed.gather(own).amax(0).tolist()
        self._widen(width)
        self.seen = distributed.total(self.seen)
        # A row is zero on all processes but one. Added up as integers, its bits arrive as they are,
        # a negative zero among them; and pieces keep the memory near that of the features.
        for piece in self.vectors.view(torch.int32).split(PIECE) if width else ():
            piece.copy_(distributed.total(piece))

    def complete(self, samples: Sequence[Sample]) -> Tensor:
        """All rows (N, D); ValueError where one is missing, came twice or is not finite."""
        if not self.vectors.shape[1]:
            raise ValueError("nothing to extract: there are no samples")
        if bool((self.seen != 1).any()):
            first = int((self.seen != 1).nonzero()[0, 0])
            raise ValueError(
                f"sample {samples[first].name} came {int(self.seen[first])} times from the loader, "
                "expected once"
            )
        bad = (~self.vectors.isfinite()).any(dim=1)
        if bool(bad.any()):
            name = samples[int(bad.nonzero()[0, 0])].name
            raise ValueError(
                f"the feature of {name} is not finite: the model's weights are damaged or it "
                "diverged"
            )
        return self.vectors

    def _widen(self, width: int) -> None:
        if not self.vectors.shape[1]:
            # Not of the inference mode, whose tensors could not be trained on later.
            with torch.inference_mode(False):
                self.vectors = torch.zeros(len(self), width)
