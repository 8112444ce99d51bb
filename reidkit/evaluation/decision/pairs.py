"""Genuine and impostor pairs of one set of features, with their similarities."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit.evaluation.sides import check_finite
from reidkit.types import Features, Metric

Integers = NDArray[np.int64]
JUNK, DISTRACTOR = -1, 0
CHUNK = 2**21  # numbers of one side of the pairs that are worked on at a time: 16 MB
TRIES = 64  # draws of an image pair before two identities count as never seen by two cameras


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Scored pairs, and how many there are at all where these are a sample."""

    similarity: NDArray[np.float64]  # (P,) larger is closer
    identities: Integers  # (P, 2) numbers of the identities of both items
    possible: int

    def __len__(self) -> int:
        return len(self.similarity)


class PairSource:
    """All pairs of a set of features, genuine ones apart from impostors.

    A pair is genuine where both items have one (domain, pid), else an impostor. Items with pid -1
    are left out; two items with pid 0 are no pair at all, since distractors have no identity: they
    make impostor pairs with everybody else.

    Args:
        features: vectors (N, D) floating, finite.
        metric: the similarity is the cosine, or minus the Euclidean distance.
        across_cameras: only pairs of different cameras; None means where there is more than one.
        seed: of every draw that is made.

    Raises:
        ValueError: fewer than two identities, a feature that is not finite (with its sample's
            name), one camera where pairs across cameras are wanted, an unknown metric.
    """

    def __init__(
        self,
        features: Features,
        *,
        metric: Metric = "cosine",
        across_cameras: bool | None = None,
        seed: int = 0,
    ) -> None:
        if metric not in ("cosine", "euclidean"):
            raise ValueError(f"unknown metric {metric!r}; known: cosine, euclidean")
        if not features.vectors.shape[1]:
            raise ValueError("features have no dimension; expected (N, D) with D of at least 1")
        check_finite(features)
        names = [(sample.domain, sample.pid) for sample in features.samples]
        known = [position for position, (_, pid) in enumerate(names) if pid != JUNK]
        numbers = {name: n for n, name in enumerate(sorted({names[i] for i in known}))}
        if len(numbers) < 2:
            raise ValueError(
                f"{len(numbers)} identities (pid -1 counts as none); pairs of the same and of "
                "different identities need at least 2. A folder of images is extracted without "
                "identities: `reidkit extract RUN manifest:query --root FOLDER` keeps them"
            )
        codes = np.array([numbers[names[i]] for i in known], dtype=np.int64)
        # Items of one identity lie together: the pairs that row i starts are then two ranges.
        order = np.argsort(codes, kind="stable")
        self.items = np.array(known, dtype=np.int64)[order]
        self.codes = codes[order]
        self.cameras = features.camids.numpy()[self.items]
        self.counts = np.bincount(self.codes)
        self.starts = np.cumsum(self.counts) - self.counts
        self.distractor = np.array([pid == DISTRACTOR for _, pid in sorted(numbers)])
        self.several_cameras = bool((self.cameras != self.cameras[0]).any())
        if across_cameras and not self.several_cameras:
            raise ValueError(
                f"all items come from camera {self.cameras[0] + 1}, pairs across cameras need two; "
                "with across_cameras=None all pairs count"
            )
        self.across_cameras = self.several_cameras if across_cameras is None else across_cameras
        self.features, self.metric, self.seed = features, metric, seed

    def genuine(self, budget: int) -> Pairs:
        """Pairs of one identity: all of them, or about `budget` drawn without replacement."""
        rows = np.arange(len(self.codes))
        stops = (self.starts + self.counts)[self.codes]
        counts = np.where(self.distractor[self.codes], 0, stops - rows - 1)
        of_identity = ~self.distractor
        possible = _pairs_among(self.counts[of_identity])
        if self.across_cameras:
            known = ~self.distractor[self.codes]
            possible -= _pairs_among(_tally(self.codes[known], self.cameras[known]))
        return self._drawn(rows + 1, counts, possible, budget)

    def impostors(self, budget: int) -> Pairs:
        """Pairs of two identities: all of them, or about `budget` drawn without replacement."""
        stops = (self.starts + self.counts)[self.codes]
        total = len(self.codes)
        possible = _pairs_among(np.array([total])) - _pairs_among(self.counts)
        if self.across_cameras:
            possible -= _pairs_among(_tally(self.cameras))
            possible += _pairs_among(_tally(self.codes, self.cameras))
        return self._drawn(stops, total - stops, possible, budget)

    def disjoint_impostors(self) -> Pairs:
        """Impostor pairs of which no two share an identity: at most half as many as identities.

        Identities are shuffled and taken two by two, then an image of each is drawn. Two that no
        pair of cameras has seen are passed over.
        """
        generator = np.random.default_rng([self.seed, 1])
        order = generator.permutation(len(self.counts))
        half = len(order) // 2
        sides = order[:half], order[half : 2 * half]
        left, right = (self._draw(side, generator) for side in sides)
        for _ in range(TRIES if self.across_cameras else 0):
            again = self.cameras[left] == self.cameras[right]
            left[again] = self._draw(sides[0][again], generator)
            right[again] = self._draw(sides[1][again], generator)
        return self._scored(left, right, half)

    def within(self, cam_a: int, cam_b: int) -> "PairSource":
        """The pairs between two cameras, as a source of their own.

        Raises ValueError where they do not see two identities.
        """
        wanted = self.items[np.isin(self.cameras, (cam_a, cam_b))]
        samples = tuple(self.features.samples[i] for i in wanted)
        vectors = self.features.vectors[torch.from_numpy(wanted)]
        return PairSource(
            Features(vectors, samples), metric=self.metric, across_cameras=True, seed=self.seed
        )

    def _draw(self, identities: Integers, generator: np.random.Generator) -> Integers:
        return self.starts[identities] + generator.integers(self.counts[identities])

    def _drawn(self, first: Integers, counts: Integers, possible: int, budget: int) -> Pairs:
        """Pairs of row i with the rows first[i], ..., first[i] + counts[i] - 1, or some of them."""
        ends = np.cumsum(counts)
        total = int(ends[-1])
        if total <= budget:
            numbers = np.arange(total)
        else:
            generator = np.random.default_rng([self.seed, 0])
            # Different ones of so many numbers are again a fair sample, though a smaller one.
            numbers = np.unique(generator.integers(total, size=budget))
        left = np.searchsorted(ends, numbers, side="right")
        right = first[left] + numbers - (ends - counts)[left]
        return self._scored(left, right, possible)

    def _scored(self, left: Integers, right: Integers, possible: int) -> Pairs:
        if self.across_cameras:
            apart = self.cameras[left] != self.cameras[right]
            left, right = left[apart], right[apart]
        values = np.empty(len(left))
        used, places = np.unique(np.concatenate([left, right]), return_inverse=True)
        rows = placed(self.features.vectors[torch.from_numpy(self.items[used])], self.metric)
        step = max(1, CHUNK // rows.shape[1])
        for start in range(0, len(left), step):
            a, b = (
                rows[torch.from_numpy(side[start : start + step])]
                for side in (places[: len(left)], places[len(left) :])
            )
            values[start : start + step] = placed_similarity(a, b, self.metric)
        return Pairs(values, np.stack([self.codes[left], self.codes[right]], 1), possible)


def placed(vectors: Tensor, metric: Metric) -> Tensor:
    """Rows in float64 as `placed_similarity` takes them: of length 1 for the cosine, a zero row
    stays zero. (N, D)."""
    rows = vectors.detach().cpu().double()
    if metric == "euclidean":
        return rows
    # The largest entry first: squares of very small or large numbers leave the range of float64.
    rows = rows / rows.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return torch.nn.functional.normalize(rows, dim=1)


def placed_similarity(a: Tensor, b: Tensor, metric: Metric) -> NDArray[np.float64]:
    """Cosine of row i of both sides, or minus their Euclidean distance. (P, D), (P, D) -> (P,)."""
    if metric == "euclidean":
        return -(a - b).norm(dim=1).numpy()
    return torch.linalg.vecdot(a, b).numpy()


def _tally(*columns: Integers) -> Integers:
    return np.unique(np.stack(columns, 1), axis=0, return_counts=True)[1]


def _pairs_among(sizes: Integers) -> int:
    return int((sizes * (sizes - 1) // 2).sum())
