"""How good found labels are: against the identities where those are known, and by themselves."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from torch import Tensor

ROUNDING = 1e-12
BLOCK_NUMBERS = 2**23  # distances held at a time: 64 MB of float64
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LabelQuality:
    """Found labels against identities, over the samples whose identity is known.

    Of all pairs of samples, `precision` is the share of those with one label that have one
    identity, NaN where no two samples have one label; `recall` the share of those with one identity
    that have one label, NaN where no two have one identity; `f1` their harmonic mean, 0 where
    nothing is right, NaN without a pair of either kind. `purity` is the share of the labelled that
    have the most frequent identity of their label, NaN where nothing is labelled. `identities` is
    how many labels there are, `true_identities` how many identities, `left_out` the share of the
    samples without a label: these are no pairs, so they cost recall alone.
    """

    precision: float
    recall: float
    f1: float
    purity: float
    identities: int
    true_identities: int
    left_out: float


class MatchQuality(NamedTuple):
    """Statements that two samples are one identity: the share that is right, and of what can be
    found the share that is; see `pairs_quality`."""

    precision: float
    recall: float


def pairwise(labels: ArrayLike | Tensor, pids: ArrayLike | Tensor) -> LabelQuality:
    """How far labels (N,) agree with identities (N,); a label of -1 is none, a pid of -1 unknown.

    Counts in a table of labels and identities, so nothing is N x N. Raises ValueError for other
    shapes and types, and where no identity is known.
    """
    found, truth = _integers("labels", labels), _integers("pids", pids)
    if len(found) != len(truth):
        raise ValueError(f"{len(found)} labels for {len(truth)} pids; expected one of each")
    known = truth >= 0
    if not known.any():
        raise ValueError(
            f"none of {len(truth)} samples has an identity (pid of 0 or more); expected some: "
            "`silhouettes` judges labels without"
        )
    found, truth = found[known], truth[known]
    labelled = found >= 0
    cells, together = np.unique(
        np.stack([found[labelled], truth[labelled]]), axis=1, return_counts=True
    )
    sizes = np.unique(found[labelled], return_counts=True)[1]
    true_sizes = np.unique(truth, return_counts=True)[1]
    right, told, true = _pairs(together), _pairs(sizes), _pairs(true_sizes)
    # The cells of one label stand in one piece: np.unique sorts them.
    starts = np.flatnonzero(np.diff(cells[0], prepend=-1))
    best = np.maximum.reduceat(together, starts).sum() if len(starts) else 0
    return LabelQuality(
        precision=_share(right, told),
        recall=_share(right, true),
        f1=_share(2 * right, told + true),
        purity=_share(best, labelled.sum()),
        identities=len(sizes),
        true_identities=len(true_sizes),
        left_out=_share((~labelled).sum(), len(found)),
    )


def pairs_quality(
    matches: ArrayLike | Tensor, pids: ArrayLike | Tensor, camids: ArrayLike | Tensor
) -> MatchQuality:
    """Precision and recall of matches (M, 2), positions among samples with pids and camids (N,).

    A match counts once, whichever way round and however often it is there. Precision is the share
    of right ones among those whose two identities are known (pid of 0 or more), NaN where there are
    none. What can be found is, for each identity and each two cameras that saw it, as many matches
    one to one as the camera with fewer samples of it has: min(n_a, n_b), summed over all. Recall is
    the share of these that the right matches make, again one to one: of several matches of one
    sample into one camera one counts. Matches within a camera or of unknown ones (-1) add nothing
    to it. NaN where nothing can be found.

    Raises ValueError for other shapes and types, positions outside [0, N) and a sample that is
    matched with itself.
    """
    truth, cameras = _integers("pids", pids), _integers("camids", camids)
    pairs = np.sort(_checked_matches(matches, truth, cameras), axis=1)
    pairs = np.unique(pairs, axis=0)
    first, second = truth[pairs].T
    judged = (first >= 0) & (second >= 0)
    right = judged & (first == second)
    return MatchQuality(
        _share(right.sum(), judged.sum()),
        _share(_one_to_one(pairs[right], cameras), _findable(truth, cameras)),
    )


def _checked_matches(matches: ArrayLike | Tensor, pids: Integers, camids: Integers) -> Integers:
    pairs = _integers("matches", matches, dimensions=2)
    if pairs.shape[1] != 2 or len(pids) != len(camids):
        raise ValueError(
            f"matches of shape {pairs.shape}, {len(pids)} pids, {len(camids)} camids; expected "
            "(M, 2), and as many pids as camids"
        )
    if pairs.size and not 0 <= pairs.min() <= pairs.max() < len(pids):
        raise ValueError(
            f"matches name positions {pairs.min()} to {pairs.max()}; expected within the "
            f"{len(pids)} samples"
        )
    if (pairs[:, 0] == pairs[:, 1]).any():
        alike = int(pairs[pairs[:, 0] == pairs[:, 1]][0, 0])
        raise ValueError(f"matches name sample {alike} with itself; expected two samples")
    return pairs


def _one_to_one(right: Integers, camids: Integers) -> int:
    """How many of the right matches (M, 2) across cameras hold together, one to one."""
    seen = camids[right]
    across = (seen[:, 0] != seen[:, 1]) & (seen >= 0).all(1)
    right, seen = right[across], seen[across]
    if not len(right):
        return 0
    turned = seen[:, 0] > seen[:, 1]
    right[turned], seen[turned] = right[turned, ::-1], seen[turned, ::-1]
    # A sample stands once for every other camera: all pairs of cameras are one bipartite graph.
    left, right_side = (
        np.unique(np.stack([right[:, side], seen[:, 1 - side]]), axis=1, return_inverse=True)[1]
        for side in (0, 1)
    )
    edges = csr_matrix((np.ones(len(right)), (left.ravel(), right_side.ravel())))
    return int((maximum_bipartite_matching(edges, perm_type="column") >= 0).sum())


def _findable(pids: Integers, camids: Integers) -> int:
    """The sum of min(n_a, n_b) over identities and pairs of cameras."""
    known = (pids >= 0) & (camids >= 0)
    cells, counts = np.unique(np.stack([pids[known], camids[known]]), axis=1, return_counts=True)
    order = np.lexsort((counts, cells[0]))
    sizes = np.unique(cells[0], return_counts=True)[1]
    ends = np.repeat(np.cumsum(sizes), sizes)
    # Of an identity's cameras in ascending order each is the smaller one of all pairs with a later.
    return int((counts[order] * (ends - 1 - np.arange(len(order)))).sum())


@torch.no_grad()
def silhouettes(vectors: Tensor, labels: ArrayLike | Tensor) -> Tensor:
    """How much nearer each sample is to its own cluster than to the next, [-1, 1]. (N,) float64.

    Rousseeuw, Silhouettes, J. Comput. Appl. Math. 1987: (b - a) / max(a, b), a the mean cosine
    distance to the others of the own cluster, b the least of the mean distances to each other one;
    0 where a cluster has one sample, where there is one cluster, and for samples without a label
    (-1), which count nowhere. Mean cosine distances are products with the sums of unit vectors, so
    all is exact in N K D multiplications, blockwise.

    vectors (N, D) floating, labels (N,). Raises ValueError for other shapes and types and for
    vectors that are not finite.
    """
    names = torch.from_numpy(_integers("labels", labels)).to(vectors.device)
    if vectors.ndim != 2 or len(vectors) != len(names) or not vectors.is_floating_point():
        raise ValueError(
            f"vectors of shape {tuple(vectors.shape)} and {vectors.dtype} for {len(names)} labels; "
            "expected (N, D), floating, one for each"
        )
    if not vectors.isfinite().all():
        bad = int((~vectors.isfinite()).any(1).nonzero()[0])
        raise ValueError(f"the vector of sample {bad} is not finite")
    values = torch.zeros(len(vectors), dtype=torch.float64, device=vectors.device)
    rows = (names >= 0).nonzero()[:, 0]
    _, own, sizes = names[rows].unique(return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        return values
    units = F.normalize(vectors.detach()[rows].double(), dim=1)
    sums = units.new_zeros(len(sizes), units.shape[1]).index_add_(0, own, units)
    # Of a cluster of one sample there is nothing to be told.
    crowded = (sizes[own] > 1).nonzero()[:, 0]
    for block in crowded.split(max(1, BLOCK_NUMBERS // len(sizes))):
        values[rows[block]] = _silhouettes(units[block], own[block], sums, sizes)
    return values


def _silhouettes(units: Tensor, own: Tensor, sums: Tensor, sizes: Tensor) -> Tensor:
    """Of samples (B, D) of clusters `own` (B,), all with company; sums (K, D) and sizes (K,)."""
    total = sizes - units @ sums.T  # (B, K)
    itself = 1 - units.square().sum(1)  # 0, but for a zero vector
    rows = torch.arange(len(own), device=own.device)
    a = (total[rows, own] - itself) / (sizes[own] - 1)
    means = total / sizes
    means[rows, own] = math.inf
    # Copies are at distance 0, and what rounding leaves of it must not be compared.
    a, b = (torch.where(x > ROUNDING, x, 0) for x in (a, means.amin(1)))
    return torch.nan_to_num((b - a) / torch.maximum(a, b), nan=0.0)


def _pairs(counts: Integers) -> int:
    return int((counts * (counts - 1) // 2).sum())


def _share(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else math.nan


def _integers(name: str, values: ArrayLike | Tensor, dimensions: int = 1) -> Integers:
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if array.ndim != dimensions:
        expected = "(N,)" if dimensions == 1 else "(M, 2)"
        raise ValueError(f"{name} have shape {array.shape}, expected {expected}")
    if not np.issubdtype(array.dtype, np.integer) and array.size:
        raise ValueError(f"{name} must be integers, got {array.dtype}; convert them")
    return array.astype(np.int64)
