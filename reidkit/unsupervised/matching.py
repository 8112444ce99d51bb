"""Which tracklets of two cameras show one person: propagation both ways, then mutual best.

Liu, Wang, Lu, Stepwise Metric Promotion for Unsupervised Video Person Re-identification, ICCV 2017.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.lapack import dgetrf, dgetrs

from reidkit.unsupervised.constraints import NO_GROUP, CannotLink

Combine = Literal["product", "sum"]
Block = NDArray[np.float64]
# Numbers this close are one number: what a solve rounds must not break a tie.
ROUNDING = 1e-9
RIDGE = 1e-6
# Up to this norm of its inverse I - W is inverted as it is; beyond, it counts as singular.
ENDLESS = 1e10


class TrackletMatch(NamedTuple):
    """Tracklet `a` of camera `cam_a` and `b` of `cam_b`, positions within their cameras.

    `score` is above 0; of the product at most 1, of the sum at most 2.
    """

    cam_a: int
    a: int
    cam_b: int
    b: int
    score: float


class Estimate(NamedTuple):
    """What is found about two cameras before anybody is matched."""

    scores: Block  # P (N_b, N_a)
    to_b: Block  # Y_BA (N_b, N_a): what reaches each of b from each of a
    to_a: Block  # Y_AB (N_a, N_b)


def match_tracklets(
    distances: Mapping[tuple[int, int], ArrayLike],
    *,
    k: int = 10,
    sigma: float | None = None,
    gate: bool = False,
    combine: Combine = "product",
) -> list[TrackletMatch]:
    """Pairs of tracklets that are each other's best across every two cameras, by camera and place.

    Args:
        distances: (a, b) -> (N_a, N_b) between the tracklets of cameras a and b, the diagonal
            (a, a) included; negative ones count by their size. Of (a, b) and (b, a) one is enough.
        k: how many neighbours keep their similarity, in a camera and across. Those equally near
            as the last are kept, too.
        sigma: distance at which similarity falls to 1/e; None is the median of the two cameras'
            blocks off the diagonal. This choice is ours: the paper's suits its own features.
        gate: across cameras, only those stay neighbours that are each other's.
        combine: the two directions' product is 0 unless both agree; their sum is not.

    A tie for the best is no match, and a camera without tracklets has none. The order of tracklets
    makes no difference. Each pair of cameras costs two dense solves, O(N³) in float64: about two
    seconds on one core for 2,000 tracklets a camera.

    Raises:
        ValueError: a block that is missing, does not fit, contradicts its transpose or is not
            finite; k below 1; sigma not above 0; an unknown `combine`.
    """
    blocks = _checked(distances)
    cameras = sorted({camera for pair in blocks for camera in pair})
    found = []
    for a, b in combinations(cameras, 2):
        estimate = estimate_matches(
            blocks[a, a],
            blocks[b, b],
            blocks[a, b],
            k=k,
            sigma=sigma,
            gate=gate,
            combine=combine,
        )
        for in_a, in_b in mutual_best(estimate.scores):
            score = float(estimate.scores[in_b, in_a])
            found.append(TrackletMatch(a, int(in_a), b, int(in_b), score))
    return found


def estimate_matches(
    within_a: Block,
    within_b: Block,
    across: Block,
    *,
    k: int = 10,
    sigma: float | None = None,
    gate: bool = False,
    combine: Combine = "product",
) -> Estimate:
    """Scores of all pairs of two cameras, see `match_tracklets`.

    within_a (N_a, N_a), within_b (N_b, N_b), across (N_a, N_b) distances.
    """
    if k < 1:
        raise ValueError(f"k is {k}, expected at least 1 neighbour")
    if combine not in get_args(Combine):
        raise ValueError(f"combine is {combine!r}, expected {' or '.join(get_args(Combine))}")
    scale = typical(within_a, within_b, across) if sigma is None else sigma
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"sigma is {sigma}, expected a distance above 0, or None for the median")
    aa, bb, ab = (np.exp(-np.abs(block) / scale) for block in (within_a, within_b, across))
    near_ab, near_ba = nearest(ab, k), nearest(ab.T, k)
    if gate:
        near_ab = near_ab & near_ba.T
        near_ba = near_ab.T
    s_ab, s_ba = np.where(near_ab, ab, 0), np.where(near_ba, ab.T, 0)
    w_aa, w_ba = _columns_to_one(np.where(nearest(aa, k), aa, 0), s_ba)
    w_bb, w_ab = _columns_to_one(np.where(nearest(bb, k), bb, 0), s_ab)
    to_b, to_a = propagate(w_bb, w_ba), propagate(w_aa, w_ab)
    forth, back = _strongest(to_b, k), _strongest(to_a, k).T
    return Estimate(forth * back if combine == "product" else forth + back, to_b, to_a)


def typical(within_a: Block, within_b: Block, across: Block) -> float:
    """The median |distance| of the four blocks off the diagonal; where half of them are 0 the
    mean, where all are 0, 1."""
    beside = [np.abs(block)[~np.eye(len(block), dtype=bool)] for block in (within_a, within_b)]
    sizes = np.concatenate([*beside, *[np.abs(across).ravel()] * 2])
    if not sizes.size:
        return 1.0
    return float(np.median(sizes)) or float(sizes.mean()) or 1.0


def nearest(similarity: Block, k: int) -> NDArray[np.bool_]:
    """Which entries are among the k largest of their column, ties with the last included."""
    if k >= len(similarity):
        return np.ones(similarity.shape, bool)
    last = np.partition(similarity, -k, axis=0)[-k]
    return similarity >= last * (1 - ROUNDING)


def propagate(within: Block, entering: Block) -> Block:
    """(I - within)⁻¹ entering: what comes from the labelled camera, however many steps it took.

    within (N, N), columns that sum to 1 with what they give the other camera; entering (N, M).
    Where some tracklets never reach the other camera the matrix is singular, and 1e-6 I is added.
    """
    if not (len(within) and entering.shape[1]):
        return np.zeros(entering.shape)
    matrix = np.eye(len(within)) - within
    factors, pivots, singular = dgetrf(matrix)
    if not singular:
        # The inverse has no negative entries, so the largest sum of its columns is its norm.
        sums, _ = dgetrs(factors, pivots, np.ones(len(matrix)), trans=1)
        singular = not np.abs(sums).max() < ENDLESS
    if singular:
        factors, pivots, _ = dgetrf(matrix + RIDGE * np.eye(len(matrix)))
    reached, _ = dgetrs(factors, pivots, entering)
    return np.maximum(reached, 0)


def mutual_best(scores: Block) -> NDArray[np.int64]:
    """(M, 2) pairs (a, b), ascending, each the single best of the other; scores P (N_b, N_a)."""
    if not scores.size:
        return np.empty((0, 2), np.int64)
    a = np.arange(scores.shape[1])
    best_b, best_a = scores.argmax(0), scores.argmax(1)
    mutual = best_a[best_b] == a
    high_b, high_a = scores.max(0), scores.max(1)
    alone_b = (scores >= high_b * (1 - ROUNDING)).sum(0) == 1
    alone_a = (scores >= high_a[:, None] * (1 - ROUNDING)).sum(1) == 1
    kept = mutual & alone_b & alone_a[best_b] & (high_b > 0)
    return np.stack([a[kept], best_b[kept]], axis=1).astype(np.int64)


def _columns_to_one(within: Block, across: Block) -> tuple[Block, Block]:
    total = within.sum(0) + across.sum(0)
    total[total == 0] = 1
    return within / total, across / total


def _strongest(reached: Block, k: int) -> Block:
    kept = np.where(nearest(reached, k), reached, 0)
    total = kept.sum(0)
    return kept / np.where(total > 0, total, 1)


def _checked(distances: Mapping[tuple[int, int], ArrayLike]) -> dict[tuple[int, int], Block]:
    """Float64 blocks (a, b) with a <= b, one for every pair of cameras."""
    given = {pair: np.asarray(block, np.float64) for pair, block in distances.items()}
    cameras = sorted({camera for pair in given for camera in pair})
    sizes = {}
    for camera in cameras:
        own = given.get((camera, camera))
        if own is None:
            raise ValueError(
                f"no distances within camera {camera}; expected a block ({camera}, {camera})"
            )
        if own.ndim != 2 or own.shape[0] != own.shape[1]:
            raise ValueError(
                f"distances within camera {camera} have shape {own.shape}, expected (N, N)"
            )
        sizes[camera] = len(own)
    for (a, b), block in given.items():
        if block.shape != (sizes[a], sizes[b]):
            raise ValueError(
                f"distances ({a}, {b}) have shape {block.shape}, expected "
                f"({sizes[a]}, {sizes[b]}): cameras {a} and {b} have so many tracklets"
            )
        if not np.isfinite(block).all():
            raise ValueError(
                f"distances ({a}, {b}) hold NaN or infinity; look for features that are not finite"
            )
    return given | {pair: _pair(given, *pair) for pair in combinations(cameras, 2)}


def _pair(given: Mapping[tuple[int, int], Block], a: int, b: int) -> Block:
    there, back = given.get((a, b)), given.get((b, a))
    if there is None and back is None:
        raise ValueError(f"no distances between cameras {a} and {b}; expected a block ({a}, {b})")
    if there is None or back is None:
        return there if back is None else back.T  # type: ignore[return-value]
    largest = np.abs(there).max(initial=0)
    if not np.allclose(there, back.T, rtol=1e-5, atol=1e-5 * largest):
        raise ValueError(
            f"distances ({b}, {a}) are not the transpose of ({a}, {b}); give one of them"
        )
    return there


def join(
    pairs: NDArray[np.int64], scores: ArrayLike, cannot_link: CannotLink
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Clusters from matched pairs, the surest first, that no constraint forbids.

    pairs (M, 2) positions among N samples, scores (M,) -> labels (N,) numbered by first appearance,
    and (M,) whether a pair came to be in one cluster. A pair that would bring two samples together
    which cannot be linked is passed over; the order of equal scores is that of the positions.
    """
    members = {place: [place] for place in range(len(cannot_link))}
    root = np.arange(len(cannot_link))
    strangers: dict[int, set[int]] = {place: set() for place in members}
    for first, second in cannot_link.pairs.tolist():
        strangers[first].add(second)
        strangers[second].add(first)
    groups = [{group} - {NO_GROUP} for group in cannot_link.groups.tolist()]
    order = np.lexsort((pairs.max(1), pairs.min(1), -np.asarray(scores, np.float64)))
    for place in order:
        first, second = root[pairs[place]].tolist()
        apart = strangers[first].isdisjoint(members[second])
        if first == second or not (apart and groups[first].isdisjoint(groups[second])):
            continue
        root[members[second]] = first
        members[first] += members.pop(second)
        strangers[first] |= strangers.pop(second)
        groups[first] |= groups[second]
    return by_first_appearance(root), root[pairs[:, 0]] == root[pairs[:, 1]]


def by_first_appearance(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same classes (N,), numbered 0, 1, ... in the order in which they first appear."""
    _, firsts, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(firsts))[inverse]
