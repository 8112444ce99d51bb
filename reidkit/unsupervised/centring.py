"""What a camera does to all pictures tells nobody apart."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from reidkit.types import Features


def centred_by_camera(features: Features) -> Features:
    """The features at unit length, less the mean of their camera (of a domain), each part by
    itself.

    A colour cast, a height or a crowd in the background moves all features of a camera alike. The
    mean is over all its samples, so it is no use where the cameras show few people. Samples of
    unknown camera (-1) count as one camera.
    """
    parts = F.normalize(features.vectors.float().unflatten(1, (features.parts, -1)), dim=2)
    names = [f"{sample.domain}|{sample.camid}" for sample in features.samples]
    _, cameras = np.unique(names, return_inverse=True)
    which = torch.from_numpy(cameras).to(parts.device)
    sums = parts.new_zeros(int(which.max()) + 1 if len(which) else 0, *parts.shape[1:])
    means = sums.index_add_(0, which, parts) / which.bincount()[:, None, None]
    return replace(features, vectors=(parts - means[which]).flatten(1))


def side_by_side(views: Sequence[Features]) -> Features:
    """Several descriptions of the same samples as one, each at unit length: squared distances are
    their sum, so all count alike."""
    vectors = [F.normalize(view.vectors.float(), dim=1) for view in views]
    return Features(torch.cat(vectors, dim=1), views[0].samples)


def compressed(features: Features, dim: int = 512) -> Features:
    """The features in `dim` numbers, or as many as there are samples: those that keep most of their
    inner products (a truncated singular value decomposition, without a mean).

    Descriptions of tens of thousands of numbers are slow to compare, and all that tells N samples
    apart fits into N. As it is where it has no more numbers than that.
    """
    rank = min(dim, len(features))
    if features.vectors.shape[1] <= rank:
        return features
    from sklearn.utils.extmath import randomized_svd  # half a second to import

    rows = features.vectors.cpu().float().numpy()
    left, values, _ = randomized_svd(rows, rank, n_iter=4, random_state=0)
    return replace(features, vectors=torch.from_numpy(left * values), parts=1)
