"""What the times of tracklets tell: who cannot be the same, and which tracklets to begin with."""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reidkit.types import Sample
from reidkit.unsupervised.constraints import NO_GROUP, CannotLink

Spans = NDArray[np.float64]
MOST_PAIRS = 20_000_000  # 16 bytes each, and several times that on the way
KNOWN_BY = (
    "a manifest's column `frame`, `mars` with `args: {times: true}` where the names hold real "
    "times, and `mot` know it"
)


def cannot_link(samples: Sequence[Sample], *, within_camera: bool = False) -> CannotLink:
    """Which samples cannot be one identity, by where and when they were seen.

    Two samples of one domain and camera whose spans share a moment are two people, for nobody is
    twice in one picture; spans are closed, so that one that ends where another starts overlaps it.
    Where span or camera (-1) is unknown nothing follows. A span is believed: where frames are
    counted within each tracklet all of a camera seem to overlap.

    `within_camera` makes every two samples of one known camera two identities, whenever they were
    seen, which holds where tracklets were sampled sparsely (`sparse_tracklets`; Liu, Wang, Lu:
    Stepwise Metric Promotion, ICCV 2017, first assumption). They are groups then, and no pairs.

    Takes a sort, and memory by the number of pairs that overlap. Raises ValueError for a span that
    ends before it starts or is not finite, and, before they are made, for more than MOST_PAIRS.
    """
    cameras = by_camera(samples)
    groups = np.full(len(samples), NO_GROUP, np.int64)
    if within_camera:
        for number, places in enumerate(cameras.values()):
            groups[places] = number
        return CannotLink(groups, np.empty((0, 2), np.int64))
    swept: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for places in cameras.values():
        timed = np.array([place for place in places if samples[place].span is not None], np.int64)
        order, counts = sweep(spans_of(samples, timed))
        swept.append((timed[order], counts))
    refuse_crowds(sum(int(counts.sum()) for _, counts in swept))
    pairs = [ordered[followers(counts)] for ordered, counts in swept]
    return CannotLink(groups, np.concatenate([np.empty((0, 2), np.int64), *pairs]))


def sparse_tracklets(
    samples: Sequence[Sample], gap: float, *, simultaneous: bool = False
) -> list[int]:
    """Positions of samples of which each camera probably shows every person once, ascending.

    In each camera of a domain the tracklet that starts first is kept, and then each that starts
    more than `gap` after the end of the last one kept: none overlap, and fragments of one track and
    somebody who soon comes back are dropped (Liu, Wang, Lu, ICCV 2017, who sample tracklets "after
    a long interval"; the length of theirs is not known here).

    `simultaneous` keeps all tracklets that are alive at one of the moments t, t + gap, t + 2 gap
    ..., t being where the camera's first one starts: those of one moment overlap, so they are
    different people for certain, and `gap` should be longer than anybody stays (sparse space-time
    tracklets, Li, Zhu, Gong: TAUDL, ECCV 2018, without the distance between simultaneous boxes).

    The order of `samples` has no influence, but for samples alike in span and name. `gap` is in the
    units of the spans. Raises ValueError where a span or a camera is unknown, for a span that ends
    before it starts, and for a gap that is negative, or 0 for moments.
    """
    least = "more than 0" if simultaneous else "0 or more"
    if not math.isfinite(gap) or gap < 0 or (simultaneous and gap == 0):
        raise ValueError(f"gap is {gap}, expected {least}, in the units of the spans (frames)")
    refuse_untimed(samples)
    kept: list[int] = []
    for places in by_camera(samples).values():
        ordered = sorted(places, key=lambda place: (samples[place].span, samples[place].name))
        spans = spans_of(samples, np.array(ordered))
        chosen = alive(spans, gap) if simultaneous else spaced(spans, gap)
        kept += [ordered[place] for place in chosen]
    return sorted(kept)


def by_camera(samples: Sequence[Sample]) -> dict[tuple[str, int], list[int]]:
    """The positions of the samples of each known camera of each domain, both sorted."""
    cameras: dict[tuple[str, int], list[int]] = defaultdict(list)
    for place, sample in enumerate(samples):
        if sample.camid >= 0:
            cameras[sample.domain, sample.camid].append(place)
    return dict(sorted(cameras.items()))


def spans_of(samples: Sequence[Sample], places: NDArray[np.int64]) -> Spans:
    """The known spans (n, 2) of the samples at `places`; ValueError for one that cannot be."""
    spans = np.array([samples[place].span for place in places], np.float64).reshape(-1, 2)
    wrong = ~(np.isfinite(spans).all(1) & (spans[:, 0] <= spans[:, 1]))
    if wrong.any():
        first = samples[places[int(np.argmax(wrong))]]
        raise ValueError(
            f"the span of {first.name} is {first.span}; expected its first and its last moment"
        )
    return spans


def sweep(spans: Spans) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of `spans` (n, 2) sorted by their starts, and how many of those that follow each
    share a moment with it."""
    order = np.argsort(spans[:, 0], kind="stable")
    start, end = spans[order].T
    # Sorted by their starts, those that overlap row i after it stand in one piece: i + 1 to reach.
    reach = np.searchsorted(start, end, side="right")
    return order, reach - np.arange(len(spans)) - 1


def refuse_crowds(pairs: int) -> None:
    """Raise a ValueError for more overlapping pairs than fit into memory with ease."""
    if pairs > MOST_PAIRS:
        raise ValueError(
            f"{pairs:,} pairs of tracklets overlap in time, more than {MOST_PAIRS:,}: the frames "
            "seem to be counted within each tracklet and not by the camera's clock; leave the "
            "times out (a manifest's column frame), or use --no-cannot-link (cannot_link: false)"
        )


def followers(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """All pairs (m, 2) of a place and each of the next `counts` (n,) after it."""
    one = np.repeat(np.arange(len(counts)), counts)
    other = one + 1 + np.arange(len(one)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.column_stack([one, other])


def refuse_untimed(samples: Sequence[Sample]) -> None:
    """Raise a ValueError where a sample does not know its camera or its time."""
    for what, unknown, advice in (
        ("time (span)", [s for s in samples if s.span is None], KNOWN_BY),
        ("camera (camid)", [s for s in samples if s.camid < 0], "name it in a manifest's `camid`"),
    ):
        if unknown:
            raise ValueError(
                f"{len(unknown):,} of {len(samples):,} samples have no {what}, {unknown[0].name} "
                f"the first; sparse tracklets need it: {advice}"
            )


def spaced(spans: Spans, gap: float) -> list[int]:
    """The rows, sorted by start, that start more than `gap` after the end of the last such row."""
    kept: list[int] = []
    last = -math.inf
    for row, (start, end) in enumerate(spans.tolist()):
        if start - last > gap:
            kept.append(row)
            last = end
    return kept


def alive(spans: Spans, gap: float) -> list[int]:
    """The rows, sorted by start, that share one of the moments `gap` apart from the first start."""
    since = spans - spans[0, 0]
    # The last moment that is not after the end is not before the start either.
    return np.flatnonzero(since[:, 1] // gap * gap >= since[:, 0]).tolist()
