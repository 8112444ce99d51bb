"""A raw silhouette as gait networks take it: the body fills the height and stands in the middle."""

import cv2
import numpy as np
from numpy.typing import NDArray

# Sum of a mask in [0, 255] up to which it counts as empty: 39 white pixels are no body.
EMPTY_SUM = 10_000


def align(mask: NDArray[np.uint8], size: int = 64) -> NDArray[np.uint8] | None:
    """The silhouette (size, size) in [0, 255] of a mask (H, W); None where there is no body.

    Rows are cut to the body and scaled to the height, keeping the aspect; the first column at which
    more than half of the sum is reached becomes column size / 2. Cubic scaling leaves grey edges,
    which are kept. No body is a sum of at most 10,000, before scaling, or nothing after it.

    Chao et al., GaitSet, AAAI 2019, arXiv:1811.06186, the preparation of its published code.
    Raises ValueError for a mask of another shape or type.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(f"mask is {mask.dtype} {mask.shape}, expected uint8 (H, W)")
    if not mask.size or cv2.sumElems(mask)[0] <= EMPTY_SUM:
        return None
    _, top, _, height = cv2.boundingRect(mask)
    width = max(1, size * mask.shape[1] // height)
    body = cv2.resize(mask[top : top + height], (width, size), interpolation=cv2.INTER_CUBIC)
    columns = cv2.reduce(body, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[0]
    reached = np.cumsum(columns, dtype=np.int64)
    if not reached[-1]:  # lines thinner than the steps of the scaling
        return None
    centre = int(np.searchsorted(2 * reached, reached[-1], side="right"))
    half = size // 2
    # Beyond the picture there is nothing: zeros, as the padding of the published code.
    aligned = np.zeros((size, size), np.uint8)
    first, last = max(centre - half, 0), min(centre - half + size, width)
    place = first - (centre - half)
    aligned[:, place : place + last - first] = body[:, first:last]
    return aligned
