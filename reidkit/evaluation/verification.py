"""Same or not: genuine against impostor pairs of queries and gallery items, in one pass.

A pair is accepted where its score reaches the threshold. FAR is the share of impostor pairs that
are accepted, TAR that of genuine ones (Grother et al., NIST IR 8280, call them FMR and 1 - FNMR).
"""

import bisect
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from reidkit.evaluation.candidates import Candidates
from reidkit.evaluation.protocols import protocol as named_protocol
from reidkit.evaluation.scoring import Scorer
from reidkit.evaluation.sides import Floats, Integers, Side, side_of_arrays
from reidkit.types import EvalProtocol, Features, Metric

Block = NDArray[np.floating] | Tensor

FARS = (1e-1, 1e-2, 1e-3, 1e-4)
POINTS = 1800  # of a curve, before its ends
SMALL = 2**20  # so many impostor scores are always held, and all results are exact
KEPT = 2**24  # no more than the so many highest are held: 256 MB while they are gathered
BINS = 2**16  # of the histogram for those that are not held
FINEST = -300  # exponent of the narrowest bins
PIECE = 2**22  # scores or features worked on at a time


class Roc(NamedTuple):
    """Points of the curve from (0, 0) to (1, 1), at most 2,000.

    Each is the exact FAR and TAR of its threshold; only the line between two is a guess.
    """

    far: Tensor  # (N,) float64, ascending
    tar: Tensor  # (N,) float64, ascending
    threshold: Tensor  # (N,) float64, descending


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What a threshold does: `far` is at most what was asked for, and both rates are exact."""

    asked: float
    far: float
    tar: float
    threshold: float


@dataclass(frozen=True, slots=True, eq=False)
class Verification:
    """How well a score tells genuine pairs from impostors.

    `auc` is the probability that a genuine pair scores higher than an impostor, ties counted half;
    it is off by no more than `auc_error`, 0 up to a million impostors. `eer` is the rate at which
    FAR equals 1 - TAR, on the straight line between the operating points beside it.
    """

    genuine: int
    impostors: int
    points: tuple[OperatingPoint, ...]
    roc: Roc
    auc: float
    auc_error: float
    eer: float

    @property
    def tar(self) -> dict[float, float]:
        """TAR by the FAR that was asked for."""
        return {point.asked: point.tar for point in self.points}

    def table(self) -> str:
        """A few lines a person can read, in percent."""
        lines = [f"{'FAR at most':>12}  {'FAR':>10}  {'TAR':>8}  {'threshold':>10}"]
        lines += [
            f"{point.asked:>12g}  {point.far:>10.3g}  {100 * point.tar:>7.2f}%  "
            f"{point.threshold:>10.4f}"
            for point in self.points
        ]
        few = [point.asked for point in self.points if self.impostors * point.asked < 1]
        lines.append(
            f"{self.genuine} genuine pairs, {self.impostors} impostors; EER "
            f"{100 * self.eer:.2f} %, AUC {100 * self.auc:.2f} %"
        )
        if few:
            lines.append(
                f"too few impostors for a FAR of {max(few):g}: none of them may be accepted there"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON, the curve as lists."""
        names = ("asked", "far", "tar", "threshold")
        return {
            "genuine": self.genuine,
            "impostors": self.impostors,
            "points": [{n: float(getattr(point, n)) for n in names} for point in self.points],
            "roc": {n: getattr(self.roc, n).tolist() for n in names[1:]},
            "auc": self.auc,
            "auc_error": self.auc_error,
            "eer": self.eer,
        }


def verification(
    blocks: Iterable[tuple[int, Block]],
    query_pids: ArrayLike | Tensor,
    query_camids: ArrayLike | Tensor | None,
    gallery_pids: ArrayLike | Tensor,
    gallery_camids: ArrayLike | Tensor | None,
    exclude: Literal["same_camera", "itself", "nothing"] = "same_camera",
    *,
    fars: Sequence[float] = FARS,
) -> Verification:
    """TAR at chosen FARs, ROC, AUC and EER of scores from anywhere.

    All pairs of a query and a gallery item that the protocol leaves count: one identity makes a
    genuine pair, two an impostor. Gallery pid -1 is junk, 0 a distractor, an impostor to everybody.
    The threshold of a FAR is the k-th highest impostor score, k = floor(FAR x impostors), and that
    impostor is accepted; where others tie with it so that more than k would be, it is the next
    higher impostor score, and beyond the highest just above it. FARs of which k is beyond 2^24
    (`KEPT`) take the lowest edge that accepts no more than k, of a histogram with 16,384 to 65,536
    bins over the scores. Held are all genuine scores (8 bytes each) and up to 256 MB of impostors.

    Args:
        blocks: (first query, scores (rows, G)), larger is closer, all queries once, in any order;
            read only.
        query_pids, gallery_pids: (Q,) and (G,) integers.
        query_camids, gallery_camids: the same, or None where cameras do not matter.
        exclude: pairs that do not count: those of one identity in one camera, an item with itself
            (Q = G, both sides one set in one order), or none.
        fars: in (0, 1].

    Raises:
        ValueError: wrong shapes, a score that is not finite, queries missing or there twice, no
            genuine or no impostor pair, a FAR out of its range.
    """
    if exclude not in ("same_camera", "itself", "nothing"):
        raise ValueError(f"unknown exclusion {exclude!r}; known: same_camera, itself, nothing")
    if exclude == "same_camera" and (query_camids is None or gallery_camids is None):
        raise ValueError("leaving out the query's camera needs camids; or exclude='nothing'")
    query = _unseen("query", query_pids, query_camids)
    gallery = _unseen("gallery", gallery_pids, gallery_camids)
    if exclude == "itself":
        if not np.array_equal(query.pids, gallery.pids):
            raise ValueError(
                "exclude='itself' takes query and gallery to be one set in one order, but their "
                "pids differ"
            )
        gallery = query
    candidates = Candidates(query, gallery, EvalProtocol(exclude))
    return _verified(blocks, candidates, len(query), len(gallery), fars)


@torch.no_grad()
def verify(
    query: Features | Side,
    gallery: Features | Side,
    protocol: EvalProtocol | str,
    *,
    metric: Metric = "cosine",
    fars: Sequence[float] = FARS,
) -> Verification:
    """`verification` of features: scores, and so thresholds, are cosines or minus Euclidean
    distances.

    Products are made in float64. `protocol` says which pairs do not count, as in `find_hits`.

    Raises:
        ValueError: anything `find_hits` or `verification` refuses.
    """
    rules = named_protocol(protocol) if isinstance(protocol, str) else protocol
    candidates = Candidates(query, gallery, rules)
    rows = max(1, min(1024, PIECE // len(gallery)))
    blocks = _comparable(Scorer(query, gallery, metric), rows)
    return _verified(blocks, candidates, len(query), len(gallery), fars)


def _unseen(side: str, pids: ArrayLike | Tensor, camids: ArrayLike | Tensor | None) -> Side:
    """A side of which only identities and cameras are known."""
    count = len(pids) if isinstance(pids, Tensor) else len(np.atleast_1d(np.asarray(pids)))
    try:
        return side_of_arrays(np.zeros((count, 1)), pids, camids)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{side}: {error}") from error


def _comparable(scorer: Scorer, rows: int) -> Iterator[tuple[int, Block]]:
    """Blocks of cosines or minus distances: a scorer's own hold within one query only."""
    # A pair at distance 0 has the score |q|^2, from which the others' squared distance is taken.
    every = np.arange(len(scorer.space.query))
    squares = scorer.unit * scorer.space.scores(np.zeros(len(every)), every)
    for start, block in scorer.blocks(rows):
        scores = block.numpy()
        if scorer.metric == "euclidean":
            scores -= squares[start : start + len(scores), None]
            scores = np.sqrt(np.maximum(np.negative(scores, out=scores), 0, out=scores), out=scores)
            scores = np.negative(scores, out=scores)
        yield start, scores


def _verified(
    blocks: Iterable[tuple[int, Block]],
    candidates: Candidates,
    queries: int,
    columns: int,
    fars: Sequence[float],
) -> Verification:
    if bad := [far for far in fars if not 0 < far <= 1]:
        raise ValueError(f"FAR = {bad[0]}: expected a share in (0, 1]")
    genuine = int(candidates.right()[0][-1])
    impostors = int(candidates.counts().sum()) - genuine
    if not impostors:
        raise ValueError(
            f"no impostor pair is left of {queries} queries and {columns} gallery items (left out: "
            f"{candidates.exclude}); both kinds are needed"
        )
    allowed = {far: int(Fraction(str(float(far))) * impostors) for far in fars}
    tally = _Impostors(impostors, max([SMALL, *allowed.values()]))
    # The room for genuine scores is filled in the order the blocks come.
    scores, filled = np.empty(genuine), 0
    for first, block in _checked(blocks, queries, columns):
        wrong = np.ones(block.shape, dtype=bool)
        for row, values in enumerate(block):
            choice = candidates.of(first + row)
            wrong[row, choice.right] = False
            wrong[row, choice.excluded] = False
            scores[filled : filled + len(choice.right)] = values[choice.right]
            filled += len(choice.right)
        tally.add(block[wrong])
    scores.sort()
    return _Curve(scores, tally).verification(allowed)


def _checked(
    blocks: Iterable[tuple[int, Block]], queries: int, columns: int
) -> Iterator[tuple[int, NDArray[np.floating]]]:
    """The blocks in pieces of bounded size; a ValueError unless they are all queries once."""
    seen = np.zeros(queries, dtype=bool)
    for start, block in blocks:
        array = block.detach().cpu().numpy() if isinstance(block, Tensor) else np.asarray(block)
        if array.ndim != 2 or array.shape[1] != columns or array.dtype.kind != "f":
            raise ValueError(
                f"scores of the block at query {start} are {array.shape} {array.dtype}; expected "
                f"floating (rows, {columns}), a column for each gallery item"
            )
        stop = start + len(array)
        if start < 0 or stop > queries or seen[start:stop].any():
            raise ValueError(
                f"a block holds queries {start} to {stop - 1}; expected each of the {queries} "
                "queries once"
            )
        seen[start:stop] = True
        step = max(1, PIECE // columns)
        for row in range(0, len(array), step):
            piece = array[row : row + step]
            if not np.isfinite(piece).all():
                bad = int((~np.isfinite(piece)).any(1).argmax())
                raise ValueError(f"a score of query {start + row + bad} is not finite")
            yield start + row, piece
    if not seen.all():
        raise ValueError(f"no block holds query {int(seen.argmin())}; expected all {queries} once")


class _Impostors:
    """Impostor scores as they come: the highest ones, and a histogram of all.

    Bins are [n, n + 1) * 2^exponent with whole n: powers of two lose nothing, so that a score is in
    the bin above an edge exactly if it reaches the edge, and two bins make one of the next width.
    """

    def __init__(self, total: int, wanted: int) -> None:
        self.total = total
        # One more than wanted: it tells whether the last of them is tied with those left out.
        self.wanted = min(total, min(wanted, KEPT) + 1)
        self.buffer = np.empty(min(total, 2 * self.wanted))
        self.size = 0
        self.floor = -np.inf
        self.counts = np.zeros(BINS, np.int64)
        self.base = 0
        self.exponent: int | None = None

    def add(self, values: NDArray[np.floating]) -> None:
        """Take in scores (N,)."""
        if values.size:
            self._count(values)
            self._keep(values)

    def highest(self) -> Floats:
        """The `wanted` highest scores, ascending."""
        self._compact()
        return np.sort(self.buffer[: self.size])

    def bins(self) -> tuple[Floats, Integers]:
        """Lower edges of the bins that are not empty, descending, and their counts."""
        used = np.flatnonzero(self.counts)[::-1]
        return self._edges(used + self.base), self.counts[used]

    def bins_of(self, scores: Floats, edges: Floats) -> Integers:
        """How many scores lie in each of the bins with these lower edges."""
        tops = np.searchsorted(scores, edges + self.width, side="left")
        return tops - np.searchsorted(scores, edges, side="left")

    @property
    def width(self) -> float:
        """Of a bin."""
        return math.ldexp(1.0, self.exponent or 0)

    def _edges(self, keys: Integers) -> Floats:
        return np.ldexp(keys.astype(np.float64), self.exponent or 0)

    def _keep(self, values: NDArray[np.floating]) -> None:
        # Of scores equal to the floor there are enough.
        values = values[values > self.floor]
        while values.size:
            room = len(self.buffer) - self.size
            some, values = values[:room], values[room:]
            self.buffer[self.size : self.size + len(some)] = some
            self.size += len(some)
            if self.size == len(self.buffer) and self.size > self.wanted:
                self._compact()
                values = values[values > self.floor]

    def _compact(self) -> None:
        if self.size > self.wanted:
            filled = self.buffer[: self.size]
            filled.partition(self.size - self.wanted)
            filled[: self.wanted] = filled[self.size - self.wanted :].copy()
            self.size = self.wanted
            self.floor = filled[: self.wanted].min()

    def _count(self, values: NDArray[np.floating]) -> None:
        low, high = float(values.min()), float(values.max())
        if self.exponent is None:
            # Wide enough for four times this range, and never finer than the scores themselves.
            _, of_range = np.frexp((high - low) / (BINS // 4))
            _, of_size = np.frexp(max(abs(low), abs(high)))
            self.exponent = max(int(of_range) if high > low else FINEST, int(of_size) - 50, FINEST)
            self.base = self._key(low) - BINS // 2
        if self._key(low) < self.base or self._key(high) >= self.base + BINS:
            self._widen(self._key(low), self._key(high))
        scaled = np.multiply(values, 2.0**-self.exponent, dtype=np.float64)
        keys = np.floor(scaled, out=scaled).astype(np.int64) - self.base
        self.counts += np.bincount(keys, minlength=BINS)

    def _key(self, score: float) -> int:
        return math.floor(score * 2.0 ** -(self.exponent or 0))

    def _widen(self, low: int, high: int) -> None:
        """Make room for bins `low` to `high`, by moving the others and by doubling the width."""
        used = np.flatnonzero(self.counts)
        counts, keys = self.counts[used], used + self.base
        first, last = min([low, *keys[:1].tolist()]), max([high, *keys[-1:].tolist()])
        doublings = 0
        while (last >> doublings) - (first >> doublings) >= BINS:
            doublings += 1
        self.exponent = (self.exponent or 0) + doublings
        first, last = first >> doublings, last >> doublings
        self.base = first - (BINS - 1 - (last - first)) // 2
        self.counts = np.zeros(BINS, np.int64)
        np.add.at(self.counts, (keys >> doublings) - self.base, counts)


class _Curve:
    """Genuine scores against what is known of the impostors.

    `top` holds the highest impostor scores, ascending, no tie cut in two. Where not all are held,
    `edges` are the lower edges of the bins from there down; `above` counts the impostors that reach
    an edge, `before` those that reach the upper edge of its bin.
    """

    def __init__(self, genuine: Floats, tally: _Impostors) -> None:
        self.genuine, self.tally, self.total = genuine, tally, tally.total
        self.kept = tally.highest()
        self.all_kept = len(self.kept) == self.total
        self.top = self.kept if self.all_kept else self.kept[self.kept > self.kept[0]]
        edges, counts = tally.bins()
        below = np.zeros(len(edges), dtype=bool) if self.all_kept else edges <= self.kept[0]
        self.edges, self.above = edges[below], counts.cumsum()[below]
        self.before = self.above - counts[below]

    def verification(self, allowed: dict[float, int]) -> Verification:
        """All results; `allowed` says how many impostors each asked FAR may accept."""
        points = []
        for asked, most in allowed.items():
            threshold, accepted = self.strictest(most)
            far = accepted / self.total
            points.append(OperatingPoint(asked, far, float(self.tar(threshold)), threshold))
        auc, error = self.auc()
        return Verification(
            genuine=len(self.genuine),
            impostors=self.total,
            points=tuple(points),
            roc=self.roc(),
            auc=auc,
            auc_error=error,
            eer=self.eer(),
        )

    def tar(self, threshold: float | Floats) -> Floats:
        """Share of the genuine scores that reach each threshold."""
        below = np.searchsorted(self.genuine, threshold, side="left")
        return (len(self.genuine) - below) / len(self.genuine)

    def strictest(self, most: int) -> tuple[float, int]:
        """The lowest known threshold that accepts at most so many impostors, and how many."""
        if most >= len(self.kept) and not self.all_kept:
            reaches = int(np.searchsorted(self.above, most, side="right"))
            if reaches:
                return float(self.edges[reaches - 1]), int(self.above[reaches - 1])
        position = len(self.top) - min(most, len(self.top))
        # The score below is another one, else more than `most` would be accepted.
        if 0 < position < len(self.top) and self.top[position - 1] == self.top[position]:
            position = int(np.searchsorted(self.top, self.top[position], side="right"))
        if position == len(self.top):
            return float(np.nextafter(self.kept[-1], np.inf)), 0
        return float(self.top[position]), len(self.top) - position

    def auc(self) -> tuple[float, float]:
        """The share of (genuine, impostor) pairs in the right order, and how far it may be off."""
        pairs = len(self.genuine) * self.total
        lost = 0.0
        for start in range(0, len(self.kept), PIECE):
            some = self.kept[start : start + PIECE]
            lost += float(np.searchsorted(self.genuine, some, side="left").sum()) / 2
            lost += float(np.searchsorted(self.genuine, some, side="right").sum()) / 2
        if self.all_kept:
            return 1 - lost / pairs, 0.0
        edges, counts = self.tally.bins()
        rest = counts - self.tally.bins_of(self.kept, edges)
        low = np.searchsorted(self.genuine, edges, side="left")
        high = np.searchsorted(self.genuine, edges + self.tally.width, side="left")
        lost += float(rest @ (low + high)) / 2
        return 1 - lost / pairs, float(rest @ (high - low)) / 2 / pairs

    def eer(self) -> float:
        """Where FAR = 1 - TAR."""
        at = bisect.bisect_left(range(len(self.top)), 1.0, key=self._sum_at)
        if at < len(self.top):
            score = self.top[len(self.top) - 1 - at]
            before, tied = (np.searchsorted(self.top, score, side=s) for s in ("right", "left"))
            corners = [self._corner(int(before)), self._corner(int(tied))]
            # Just above the score: FAR still as before, TAR already of all that are higher.
            corners.insert(1, (corners[0][0], float(self.tar(np.nextafter(score, np.inf)))))
            return _crossing(*np.array(corners).T)
        # Upper and lower edge of each bin; the first may hold some of the top, which come before.
        far, tar = self._corner(0)
        fars = np.stack([self.before, self.above], 1).ravel() / self.total
        tars = self.tar(np.stack([self.edges + self.tally.width, self.edges], 1).ravel())
        return _crossing(np.r_[far, fars.clip(min=far)], np.r_[tar, tars.clip(min=tar)])

    def _corner(self, position: int) -> tuple[float, float]:
        """FAR and TAR at the threshold top[position]; beyond the last, where nobody is accepted."""
        if position == len(self.top):
            return 0.0, 0.0
        far = (len(self.top) - position) / self.total
        return far, float(self.tar(self.top[position]))

    def _sum_at(self, rank: int) -> float:
        score = self.top[len(self.top) - 1 - rank]
        return sum(self._corner(int(np.searchsorted(self.top, score, side="left"))))

    def roc(self) -> Roc:
        """Thresholds dense at low FARs, where the axis is logarithmic, and even above."""
        held, third = len(self.top), POINTS // 3
        ranks = np.r_[np.geomspace(1, max(held, 1), third), np.linspace(1, max(held, 1), third)]
        if held <= 2 * third:
            ranks = np.arange(1, held + 1)
        chosen = self.top[held - np.unique(ranks.astype(np.int64))] if held else self.top
        accepted = held - np.searchsorted(self.top, chosen, side="left")
        levels = np.searchsorted(self.above, np.linspace(0, self.total, third))
        levels = np.unique(levels.clip(max=max(len(self.above) - 1, 0)))[: len(self.above)]
        lowest = self.edges[-1] if len(self.edges) else self.kept[0]
        ends = [
            np.nextafter(max(self.kept[-1], self.genuine[-1]), np.inf),
            np.nextafter(self.kept[-1], np.inf),
            min(lowest, self.genuine[0]),
        ]
        thresholds = np.r_[ends, chosen, self.edges[levels]]
        far = np.r_[0, 0, self.total, accepted, self.above[levels]] / self.total
        thresholds, first = np.unique(-thresholds, return_index=True)
        columns = far[first], self.tar(-thresholds), -thresholds
        return Roc(*(torch.from_numpy(np.ascontiguousarray(column)) for column in columns))


def _crossing(far: Floats, tar: Floats) -> float:
    """FAR where far + tar = 1 on the line through these points, both ascending."""
    total = far + tar
    after = int(np.searchsorted(total, 1.0, side="left"))
    if after == 0:
        return float(far[0])
    before = after - 1
    share = (1 - total[before]) / (total[after] - total[before])
    return float(far[before] + share * (far[after] - far[before]))
