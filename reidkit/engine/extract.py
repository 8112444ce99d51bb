"""Samples -> Features."""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.types import Batch, Features, Sample


@torch.inference_mode()
def extract(
    model: nn.Module,
    loader: Iterable[Batch],
    samples: Sequence[Sample],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Features:
    """Features of all samples, stored by the batches' `index`, whatever the loader's order.

    Several parts are each normalised before they are joined, so that all weigh the same under
    cosine; not those of a model whose `unit_parts` is False. The model's mode is put back
    afterwards. Raises ValueError when a sample is missing or a feature is not finite.
    """
    was_training = model.training
    model.eval()
    vectors: Tensor | None = None
    parts = 1
    seen = torch.zeros(len(samples), dtype=torch.int64)
    try:
        for batch in loader:
            feature = model(batch.frames, batch.mask).feature.float()  # (B, P, D)
            parts = feature.shape[1]
            if parts > 1 and getattr(model, "unit_parts", True):
                feature = F.normalize(feature, dim=2)
            rows, index = feature.flatten(1).cpu(), batch.index.cpu()
            if vectors is None:
                vectors = rows.new_empty(len(samples), rows.shape[1])
            vectors[index] = rows
            seen.index_add_(0, index, torch.ones_like(index))
            progress(int(seen.count_nonzero()), len(samples))
    finally:
        model.train(was_training)
    if vectors is None:
        raise ValueError("nothing to extract: there are no samples")
    if bool((seen != 1).any()):
        first = int((seen != 1).nonzero()[0, 0])
        raise ValueError(
            f"sample {samples[first].name} came {int(seen[first])} times from the loader, "
            "expected once"
        )
    bad = (~vectors.isfinite()).any(dim=1)
    if bool(bad.any()):
        name = samples[int(bad.nonzero()[0, 0])].name
        raise ValueError(
            f"the feature of {name} is not finite: the model's weights are damaged or it diverged"
        )
    return Features(vectors.clone(), tuple(samples), parts)
