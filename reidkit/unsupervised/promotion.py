"""Stepwise Metric Promotion as published: frames of any features, one metric in the end.

Liu, Wang, Lu, Stepwise Metric Promotion for Unsupervised Video Person Re-identification, ICCV 2017.
Begin with a metric for each camera, which tells its tracklets apart; then match tracklets across
cameras by it, learn one metric from the cameras and the matches, and match again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reidkit.unsupervised.constraints import CannotLink
from reidkit.unsupervised.matching import TrackletMatch, join, match_tracklets
from reidkit.unsupervised.methods import NothingToLearn
from reidkit.unsupervised.xqda import Metric, Rows, Scatter, scatters, xqda

Tracklets = Sequence[Rows]
LEAST_ROUNDS = 4  # before an unchanged number of matches is believed


@dataclass(frozen=True, eq=False)
class Promotion:
    """What was learned, round by round.

    `matches[r]` are those of round r, found by the sum of `metrics[r]`: at first one metric for
    each camera of two tracklets or more, later a single one. `metrics` has one entry more than
    there were rounds that changed it. `note` is a sentence where nothing could be matched.
    """

    matches: tuple[tuple[TrackletMatch, ...], ...]
    metrics: tuple[tuple[Metric, ...], ...]
    note: str = ""

    @property
    def history(self) -> tuple[int, ...]:
        """How many matches each round had."""
        return tuple(len(found) for found in self.matches)

    def distance(
        self, query: Sequence[ArrayLike], gallery: Sequence[ArrayLike], *, stage: int = -1
    ) -> Rows:
        """(Q, G) distances of tracklets by `metrics[stage]`, the last where nothing else is said.

        Tracklets are arrays (frames, d) as those learned from. To rank by, smaller is closer;
        distances may be negative.
        """
        return tracklet_distances(self.metrics[stage], _rows(query), _rows(gallery))


def promote(
    cameras: Mapping[int, Sequence[ArrayLike]],
    *,
    k: int = 10,
    sigma: float | None = None,
    gate: bool = False,
    rounds: int = 11,
    ridge: float = 1e-4,
    tell: Callable[[int, Sequence[TrackletMatch]], None] | None = None,
) -> Promotion:
    """Learn a metric from the tracklets of several cameras, without identities.

    Tracklets of one camera must show different people. Where all have one frame, what one identity
    varies in is unknown, and the first metrics are nearly the Euclidean distance.

    Args:
        cameras: camera -> its tracklets, arrays (frames, d) of one d; reduce long features first
            (`principal`). Of any number of cameras; the paper has two.
        k, sigma, gate: see `match_tracklets`.
        rounds: at most so many; it ends when, from the fourth on, a round has as many matches as
            the one before, and where a round has none.
        ridge: see `xqda`; added in every round.
        tell: called with the number of a round, from 0, and its matches.

    Where the first round matches nothing the metrics of the cameras are the result, with a note.

    Raises:
        NothingToLearn: fewer than two cameras with tracklets, or no camera with two tracklets.
        ValueError: tracklets without frames or of different dimensions, values that are not
            finite, or anything `match_tracklets` refuses.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}, expected at least 1")
    known = _checked(cameras)
    own = {camera: _scatter(tracklets) for camera, tracklets in known.items()}
    metrics = {camera: xqda(each, ridge) for camera, each in own.items() if each is not None}
    stages, history = [tuple(metrics.values())], []
    for number in range(rounds):
        found = _matches(known, metrics, k=k, sigma=sigma, gate=gate)
        history.append(tuple(found))
        if tell is not None:
            tell(number, found)
        if not found or (number + 1 >= LEAST_ROUNDS and len(found) == len(history[-2])):
            break
        metric = xqda(_promoted(own.values(), _scatter(*_matched(known, found))), ridge)
        # Of M1 = M2 the sum is still taken: the scale, for a given sigma, stays that of the paper.
        metrics = dict.fromkeys(known, metric)
        stages.append((metric,))
    note = "" if history[0] else NO_MATCH
    return Promotion(tuple(history), tuple(stages), note)


NO_MATCH = (
    "no two tracklets of different cameras are each other's best, so the metrics are those of the "
    "single cameras; raise k, leave the gate out, or give more tracklets"
)


def tracklet_distances(metrics: Iterable[Metric], left: Tracklets, right: Tracklets) -> Rows:
    """(N, M) mean distance over all pairs of frames, by the sum of the metrics.

    The mean of (x - y)ᵀ M (x - y) over pairs is the mean of xᵀMx plus that of yᵀMy, less twice the
    product of the means: exact, at the cost of one pass over the frames.
    """
    total = np.zeros((len(left), len(right)))
    if not total.size:
        return total
    centre = np.concatenate(left).mean(0)
    for metric in metrics:
        (of_left, means_left), (of_right, means_right) = (
            _moments(metric, [frames - centre for frames in side]) for side in (left, right)
        )
        total += of_left[:, None] + of_right - 2 * means_left @ metric.kernel @ means_right.T
    return total


def principal(tracklets: Iterable[ArrayLike], dim: int = 600) -> Any:
    """scikit-learn's PCA of all frames (n, d) to `dim` dimensions, or to as many as there are.

    The published form keeps 600, of the training frames of all cameras.
    """
    # Half a second to import, and whoever brings short features never needs it.
    from sklearn.decomposition import PCA

    frames = np.concatenate([np.asarray(one) for one in tracklets])
    if dim < 1:
        raise ValueError(f"dim is {dim}, expected at least 1")
    return PCA(min(dim, len(frames) - 1, frames.shape[1]), random_state=0).fit(frames)


def _moments(metric: Metric, tracklets: Tracklets) -> tuple[Rows, Rows]:
    """Of each tracklet the mean of xᵀMx, (N,), and the mean projected frame, (N, r)."""
    lengths = np.array([len(frames) for frames in tracklets])
    starts = np.concatenate([[0], lengths[:-1].cumsum()])
    rows = np.concatenate(tracklets) @ metric.projection
    squares = np.einsum("nr,nr->n", rows @ metric.kernel, rows)
    means = np.add.reduceat(rows, starts) / lengths[:, None]
    return np.add.reduceat(squares, starts) / lengths, means


def _matches(
    cameras: Mapping[int, Tracklets], metrics: Mapping[int, Metric], **options: Any
) -> list[TrackletMatch]:
    """Matches of every two cameras by the sum of their metrics; of two that have none, of all."""
    found = []
    for a, b in combinations(sorted(cameras), 2):
        of_pair = [metrics[camera] for camera in (a, b) if camera in metrics]
        of_pair = of_pair or list(metrics.values())
        blocks = {
            (i, j): tracklet_distances(of_pair, cameras[i], cameras[j])
            for i, j in ((a, a), (a, b), (b, b))
        }
        for camera in (a, b):
            # A tracklet is as similar to itself as can be, though its frames differ.
            np.fill_diagonal(blocks[camera, camera], 0)
        found += match_tracklets(blocks, **options)
    return found


def _scatter(tracklets: Tracklets, labels: NDArray[np.int64] | None = None) -> Scatter | None:
    """The scatter of the frames under their tracklets' labels; None where there is one label."""
    names = np.arange(len(tracklets)) if labels is None else labels
    if len(np.unique(names)) < 2:
        return None
    rows = np.concatenate(tracklets)
    of_rows = np.repeat(names, [len(frames) for frames in tracklets])
    return scatters(rows, of_rows, rows, of_rows)


def _matched(
    cameras: Mapping[int, Tracklets], found: Sequence[TrackletMatch]
) -> tuple[Tracklets, NDArray[np.int64]]:
    """All matched tracklets, and the identity that each was found to be.

    Of three cameras and more, matches that would make two tracklets of one camera one identity give
    way to those with a higher score.
    """
    places = sorted({(m.cam_a, m.a) for m in found} | {(m.cam_b, m.b) for m in found})
    position = {place: number for number, place in enumerate(places)}
    pairs = np.array([(position[m.cam_a, m.a], position[m.cam_b, m.b]) for m in found])
    apart = CannotLink(np.array([camera for camera, _ in places]), np.empty((0, 2), np.int64))
    labels, _ = join(pairs, [match.score for match in found], apart)
    return [cameras[camera][number] for camera, number in places], labels


def _promoted(own: Iterable[Scatter | None], matched: Scatter | None) -> Scatter:
    """The sum over the cameras, and twice the matched set; what has one identity adds nothing."""
    parts = [(1.0, each) for each in own] + [(2.0, matched)]
    known = [(weight, each) for weight, each in parts if each is not None]
    intra = np.sum([weight * each.intra for weight, each in known], axis=0)
    return Scatter(intra, np.sum([weight * each.extra for weight, each in known], axis=0))


def _rows(tracklets: Sequence[ArrayLike]) -> list[Rows]:
    return [np.asarray(frames, np.float64) for frames in tracklets]


def _checked(cameras: Mapping[int, Sequence[ArrayLike]]) -> dict[int, list[Rows]]:
    """Float64 frames of the cameras that have tracklets, cameras ascending."""
    known = {camera: _rows(cameras[camera]) for camera in sorted(cameras) if len(cameras[camera])}
    dims = set()
    for camera, tracklets in known.items():
        for number, frames in enumerate(tracklets):
            where = f"tracklet {number} of camera {camera}"
            if frames.ndim != 2 or not frames.size:
                raise ValueError(
                    f"{where} has shape {frames.shape}, expected (frames, dimensions), not empty"
                )
            if not np.isfinite(frames).all():
                raise ValueError(f"{where} is not finite; leave it out or extract it again")
            dims.add(frames.shape[1])
    if len(dims) > 1:
        raise ValueError(f"tracklets of {sorted(dims)} dimensions; expected one kind of features")
    if len(known) < 2:
        raise NothingToLearn(
            f"tracklets of {len(known)} camera(s): matching needs two cameras or more; name the "
            "cameras, or cluster without them (BUC, Cluster-Contrast)"
        )
    if all(len(tracklets) < 2 for tracklets in known.values()):
        raise NothingToLearn(
            "every camera has a single tracklet, so there is nobody to be told apart; give two "
            "tracklets or more of at least one camera"
        )
    return known
