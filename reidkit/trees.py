"""What makes a merge tree: asked wherever one is handed on, as a file, a picture or a page."""

import numpy as np
from numpy.typing import NDArray


def check_tree(merges: NDArray[np.int64], heights: NDArray[np.float64], count: int) -> None:
    """Raise a ValueError unless these are the merges and heights of a tree of so many leaves.

    Args:
        merges: (N - 1, 2) nodes that merge m joins to node N + m; leaves are 0 to N - 1.
        heights: (N - 1,) never falling, inf where a merge was forbidden.
        count: N.
    """
    inner = max(count - 1, 0)
    if count < 1 or len(merges) != inner or heights.shape != (inner,):
        raise ValueError(
            f"{len(merges)} merges and heights of shape {heights.shape} for {count} samples; "
            "expected N - 1 of both, with N at least 1"
        )
    later = merges >= count + np.arange(inner)[:, None]
    if later.any() or not np.array_equal(np.sort(merges.ravel()), np.arange(2 * inner)):
        raise ValueError(
            "the merges are no tree: each node but the root is joined once, in a later node"
        )
    if np.isnan(heights).any() or (heights[1:] < heights[:-1]).any():
        raise ValueError("the heights fall or are not numbers; expected them to rise with merges")


def check_labels(labels: NDArray[np.int64], count: int) -> None:
    """Raise a ValueError unless these are labels (N,) of so many leaves, -1 where left out."""
    if labels.shape != (count,):
        raise ValueError(f"labels {labels.shape} for {count} samples; expected one a sample")
    if count and labels.min() < -1:
        raise ValueError(f"label {labels.min()}: expected identities from 0, or -1 for left out")
