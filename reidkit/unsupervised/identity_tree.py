"""The tree of identities: which samples are joined to which, from all alone to all one."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from scipy.spatial.distance import pdist, squareform

from reidkit.files import replacing
from reidkit.neighbours import knn
from reidkit.types import (
    UNKNOWN_CAMERA,
    Features,
    Metric,
    Sample,
    frames_at,
    integer_array,
    path_of,
)
from reidkit.unsupervised import traversal
from reidkit.unsupervised.clustering import joined
from reidkit.unsupervised.constraints import CannotLink
from reidkit.unsupervised.linkage import Linkage, agglomerate

Criterion = Literal["gap", "silhouette"]
EXACT = 4000  # samples up to which all pairs are looked at
NEIGHBOURS = 30
COARSE, FINE = 34, 16  # numbers of clusters that are tried for the best silhouette
JUDGED = 2000  # samples whose silhouettes are taken, evenly spaced, where there are more
BLOCK_NUMBERS = 2**24  # similarities held at a time: 64 MB of float32
ROUNDING = 1e-6


class IdentityTree:
    """A binary merge tree of N samples: N leaves, N - 1 merges.

    Numbered as SciPy's linkage: leaves 0 to N - 1, merge m joins two lower nodes to node N + m at a
    height that never falls. At height inf stand merges of what cannot be linked, which are there
    for there to be one tree; no cut makes them.
    """

    def __init__(
        self,
        merges: ArrayLike,
        heights: ArrayLike,
        samples: Sequence[Sample],
        vectors: ArrayLike | None = None,
    ) -> None:
        """A tree of merges (N - 1, 2) and heights (N - 1,) over N samples.

        vectors (N, D): kept for cuts by silhouette alone, at unit length, and not saved. Raises
        ValueError for what is no such tree.
        """
        self.merges: NDArray[np.int64] = np.asarray(merges, np.int64).reshape(-1, 2)
        self.heights: NDArray[np.float64] = np.asarray(heights, np.float64)
        self.samples = tuple(samples)
        traversal.check(self.merges, self.heights, len(self.samples))
        self._units = None if vectors is None else _units(vectors, len(self.samples))

    @classmethod
    def build(
        cls,
        features: Features,
        *,
        linkage: Linkage = "average",
        cannot_link: CannotLink | None = None,
        metric: Metric = "cosine",
        neighbours: int | None = None,
    ) -> "IdentityTree":
        """The tree of features (N, D), exact for up to 4,000 samples: SciPy's, where that has one.

        Of more samples, or with `neighbours`, each one's nearest are looked at alone (and those
        whose nearest it is). A pair of others counts as far apart as the farthest two of these:
        higher up in the tree, where clusters are large, heights are thus too low, and what is not
        connected is joined at that height. Memory then grows with N, not with N^2.

        Args:
            linkage: "average", "complete", "single", "ward", or "buc" as `agglomerate` has them;
                ward is about Euclidean distances, of unit vectors where the metric is cosine.
            cannot_link: what is never joined, but at height inf.
            metric: cosine (1 - cos) or euclidean.
            neighbours: how many nearest of each; None takes all, of more than 4,000 samples 30.

        Raises:
            ValueError: no sample, a feature that is not floating or not finite, another value out
                of range.
        """
        vectors = _checked(features, metric, neighbours)
        count = len(features)
        if neighbours is None and count > EXACT:
            neighbours = NEIGHBOURS
        if neighbours is None or neighbours >= count - 1:
            vectors = _rows(vectors.double(), metric)
            graph = _all_pairs(vectors, metric)
        else:
            vectors = _rows(vectors.float(), metric)
            graph = neighbour_graph(vectors, neighbours, metric)
        return cls.from_graph(
            graph,
            linkage=linkage,
            absent=float(graph.data.max(initial=0.0)),
            cannot_link=cannot_link,
            samples=features.samples,
            vectors=vectors.numpy(),
        )

    @classmethod
    def from_graph(
        cls,
        graph: csr_matrix,
        *,
        linkage: Linkage,
        absent: float,
        cannot_link: CannotLink | None = None,
        samples: Sequence[Sample] = (),
        vectors: NDArray[Any] | None = None,
        start: NDArray[np.int64] | None = None,
        size_weight: float = 0.0,
    ) -> "IdentityTree":
        """The tree of a graph of distances (N, N); see `agglomerate` for all but the samples.

        `vectors` are for ward and for cuts by silhouette. Without samples they have no names.
        """
        merges, heights = agglomerate(
            graph,
            linkage=linkage,
            absent=absent,
            cannot_link=cannot_link,
            vectors=vectors,
            start=start,
            size_weight=size_weight,
        )
        nameless = [Sample((), -1, UNKNOWN_CAMERA)] * (len(merges) + 1)
        return cls(merges, heights, samples or nameless, vectors)

    def __len__(self) -> int:
        """N, the number of leaves."""
        return len(self.samples)

    def __repr__(self) -> str:
        return f"IdentityTree({len(self)} samples, {self.forbidden} forbidden merges)"

    @property
    def root(self) -> int:
        """The node that all leaves are below."""
        return 2 * len(self) - 2

    @property
    def forbidden(self) -> int:
        """How many merges, the last ones, join what cannot be linked."""
        return int(np.isinf(self.heights).sum())

    def preorder(self) -> list[int]:
        """All nodes (2N - 1), each before its branches."""
        return traversal.walk(self.merges, "before")

    def inorder(self) -> list[int]:
        """All nodes (2N - 1), each between its branches."""
        return traversal.walk(self.merges, "between")

    def postorder(self) -> list[int]:
        """All nodes (2N - 1), each after its branches."""
        return traversal.walk(self.merges, "after")

    def levels(self) -> list[list[int]]:
        """All nodes by their distance from the root, which is alone on the first level."""
        return traversal.levels(self.merges)

    def path(self, i: int, j: int) -> list[int]:
        """The nodes from leaf i up to the lowest one above both, and down to leaf j."""
        for leaf in (i, j):
            if not 0 <= leaf < len(self):
                raise ValueError(f"no leaf {leaf}; expected one of 0 to {len(self) - 1}")
        return traversal.path(self.merges, i, j)

    def to_newick(self) -> str:
        """The tree as text that other programs read: a leaf is named by its first file, or number.

        Names are quoted. A branch is as long as the height of the node above it less its own, that
        of leaves being 0; a branch to a forbidden merge has no length.
        """
        names = [path_of(sample) or str(number) for number, sample in enumerate(self.samples)]
        return traversal.newick(self.merges, self.heights, names)

    def cut(
        self,
        *,
        clusters: int | None = None,
        height: float | None = None,
        by: Criterion | None = None,
    ) -> NDArray[np.int64]:
        """Labels (N,) of the branches below a cut, numbered by first appearance.

        Args:
            clusters: how many branches; exactly as many come back, whatever ties there are.
            height: merges at this height and below are made.
            by: "gap": the cut where two consecutive heights are farthest apart, the lowest of
                several such places; without a gap every allowed merge is made. "silhouette": of
                some 50 numbers of clusters, 2 and more, the one whose mean silhouette is highest
                (Rousseeuw 1987, cosine; of 2,000 samples where there are more), the lowest of equal
                ones. No identity is looked at.

        Raises:
            ValueError: none or several of the three, a number of clusters that there cannot be, by
                silhouette without vectors.
        """
        if sum(choice is not None for choice in (clusters, height, by)) != 1:
            raise ValueError("a cut is told by one of clusters=, height= and by=; expected one")
        if clusters is not None:
            made = self._merges_for(clusters)
        elif height is not None:
            if np.isnan(height):
                raise ValueError("height is nan; expected a number")
            made = int(np.searchsorted(self._finite, height, side="right"))
        elif by == "gap":
            made = self._below_gap()
        elif by == "silhouette":
            made = len(self) - self._best_number()
        else:
            raise ValueError(f"unknown criterion {by!r}; known: {', '.join(get_args(Criterion))}")
        return joined(self.merges, len(self), made)

    @property
    def _finite(self) -> NDArray[np.float64]:
        return self.heights[: len(self.heights) - self.forbidden]

    def _merges_for(self, clusters: int) -> int:
        least = 1 + self.forbidden
        if not least <= clusters <= len(self):
            reason = ": fewer would join what cannot be linked" if 0 < clusters < least else ""
            raise ValueError(
                f"no cut gives {clusters} clusters; expected {least} to {len(self)}{reason}"
            )
        return len(self) - clusters

    def _below_gap(self) -> int:
        gaps = np.diff(self._finite)
        return int(gaps.argmax()) + 1 if gaps.any() else len(self._finite)

    def _best_number(self) -> int:
        """The number of clusters with the highest mean silhouette: coarsely, then around it."""
        units = self._units
        if units is None:
            raise ValueError(
                "the tree has no vectors to cut it by silhouette (a saved tree keeps none): build "
                "it anew from features, or cut by='gap', clusters= or height="
            )
        most = len(self)
        fewest = min(max(2, 1 + self.forbidden), most)
        rows = np.unique(np.linspace(0, most - 1, JUDGED).round().astype(np.int64))
        found: dict[int, float] = {}

        def best(numbers: NDArray[np.floating]) -> int:
            for number in np.unique(numbers.round().astype(int)).tolist():
                if number not in found:
                    labels = joined(self.merges, most, most - number)
                    found[number] = mean_silhouette(units, labels, rows)
            return min(found, key=lambda number: (-found[number], number))

        first = best(np.geomspace(fewest, most, COARSE))
        tried = sorted(found)
        place = tried.index(first)
        around = tried[max(place - 1, 0)], tried[min(place + 1, len(tried) - 1)]
        return best(np.linspace(*around, FINE))

    def plot(self, path: str | Path, labels: NDArray[np.int64] | None = None) -> None:
        """Write the tree as a picture with thumbnails, PNG; `labels` (N,) else those of the gap."""
        from reidkit.data import show
        from reidkit.visualise import dendrogram

        labels = self.cut(by="gap") if labels is None else labels
        dendrogram(path, self.merges, self.heights, labels, self.samples, show=show)

    def save(self, path: str | Path) -> None:
        """Write an `.npz`: `merges`, `heights`, and of the samples `pids`, `camids`, `paths`,
        `views`, `conditions`; replaced atomically. A path is what `Features.save` writes."""
        texts = {
            "paths": [path_of(sample) for sample in self.samples],
            "views": [sample.view for sample in self.samples],
            "conditions": [sample.condition for sample in self.samples],
        }
        arrays: dict[str, Any] = {name: np.array(values, np.str_) for name, values in texts.items()}
        with replacing(Path(path)) as file:
            np.savez(
                file,
                merges=self.merges,
                heights=self.heights,
                pids=np.array([sample.pid for sample in self.samples], np.int64),
                camids=np.array([sample.camid for sample in self.samples], np.int64),
                **arrays,
            )

    @classmethod
    def load(cls, path: str | Path) -> "IdentityTree":
        """Read what `save` wrote; the tree has no vectors.

        Raises FileNotFoundError, and ValueError for a file that is none or is damaged.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no tree file {path}; `IdentityTree.save` writes one")
        try:
            with np.load(path, allow_pickle=False) as archive:
                return cls._of_arrays({name: archive[name] for name in archive.files})
        except DAMAGE as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else error
            raise ValueError(
                f"{path} is not a tree file, or is damaged; expected what `IdentityTree.save` "
                f"writes: {reason}"
            ) from error

    @classmethod
    def _of_arrays(cls, arrays: dict[str, NDArray[Any]]) -> "IdentityTree":
        merges, heights = arrays["merges"], arrays["heights"]
        if merges.dtype.kind != "i" or heights.dtype.kind != "f":
            raise ValueError(f"merges are {merges.dtype} and heights {heights.dtype}")
        count = len(merges) + 1
        numbers = (integer_array(name, arrays[name], count) for name in ("pids", "camids"))
        texts = (arrays[name] for name in ("paths", "views", "conditions"))
        samples = [
            Sample(frames_at(str(name)), int(pid), int(camid), str(view), str(condition))
            for pid, camid, name, view, condition in zip(*numbers, *texts, strict=True)
        ]
        return cls(merges, heights, samples)


# What numpy and zipfile raise for files that are something else, cut short or changed.
DAMAGE = (
    ValueError,
    KeyError,
    OSError,
    EOFError,
    AttributeError,
    TypeError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def neighbour_graph(vectors: torch.Tensor, neighbours: int, metric: Metric) -> csr_matrix:
    """Distances (N, N) float64 of each sample and its nearest, symmetric, for `agglomerate`.

    A pair is there where one of the two is among the other's `neighbours`, below N; samples
    themselves are not. vectors (N, D).
    """
    count = len(vectors)
    nearest = knn(vectors, vectors, neighbours + 1, metric=metric)
    distances, found = (values.cpu().numpy() for values in nearest)
    rows, columns = np.repeat(np.arange(count), neighbours + 1), found.ravel()
    low, high = np.minimum(rows, columns), np.maximum(rows, columns)
    pairs, first = np.unique(low * count + high, return_index=True)
    low, high, values = pairs // count, pairs % count, distances.ravel()[first].astype(np.float64)
    low, high, values = (array[low != high] for array in (low, high, values))
    ends = np.concatenate([low, high]), np.concatenate([high, low])
    return csr_matrix((np.concatenate([values, values]), ends), shape=(count, count))


def mean_silhouette(
    units: NDArray[np.float32], labels: NDArray[np.int64], rows: NDArray[np.int64]
) -> float:
    """Mean silhouette of the samples `rows`, among all; `reidkit.evaluation.silhouettes` for those.

    units (N, D) of length 1 (or 0), labels (N,) of 0 and more.
    """
    sizes = np.bincount(labels)
    if len(sizes) < 2:
        return 0.0
    count = len(labels)
    own = csr_matrix((np.ones(count, np.float32), (labels, np.arange(count))))
    sums, sizes = own @ units, sizes.astype(np.float32)  # (K, D), (K,)
    total = 0.0
    several = rows[sizes[labels[rows]] > 1]  # one sample alone has a silhouette of 0
    step = max(1, BLOCK_NUMBERS // len(sizes))
    for block in (several[i : i + step] for i in range(0, len(several), step)):
        near, label = units[block], labels[block]
        means = 1 - near @ sums.T / sizes  # (B, K)
        each = np.arange(len(block))
        itself = 1 - np.square(near).sum(1)
        a = (means[each, label] * sizes[label] - itself) / (sizes[label] - 1)
        means[each, label] = np.inf
        a, b = (np.where(x > ROUNDING, x, 0) for x in (a, means.min(1)))
        total += float(((b - a) / np.maximum(np.maximum(a, b), ROUNDING)).sum())
    return total / len(rows)


def _checked(features: Features, metric: str, neighbours: int | None) -> torch.Tensor:
    """The vectors (N, D), or a ValueError."""
    if metric not in get_args(Metric):
        raise ValueError(f"unknown metric {metric!r}; known: {', '.join(get_args(Metric))}")
    if neighbours is not None and neighbours < 1:
        raise ValueError(f"neighbours = {neighbours}: expected at least 1, or None for all")
    if not len(features):
        raise ValueError("no samples, so no tree; expected at least one: look at the source")
    vectors = features.vectors.detach().cpu()
    if not vectors.is_floating_point():
        raise ValueError(f"features must be floating point, got {vectors.dtype}; convert them")
    finite = vectors.isfinite().all(1)
    if not finite.all():
        bad = features.samples[int((~finite).nonzero()[0])]
        raise ValueError(f"the feature of {bad.name} is not finite; extract it anew")
    return vectors


def _rows(vectors: torch.Tensor, metric: Metric) -> torch.Tensor:
    return F.normalize(vectors, dim=1) if metric == "cosine" else vectors


def _all_pairs(vectors: torch.Tensor, metric: Metric) -> csr_matrix:
    """All distances (N, N), of unit vectors where the metric is cosine."""
    count = len(vectors)
    rows = vectors.numpy()
    distances = pdist(rows)
    if metric == "cosine":
        # From differences, which do not cancel as products do.
        np.square(distances, out=distances)
        distances /= 2
    pairs = squareform(distances, checks=False) if count > 1 else np.zeros((1, 1))
    if metric == "cosine" and not (full := rows.any(1)).all():
        pairs[~full] = pairs[:, ~full] = 1.0  # by definition, as `knn` has it
    ends = np.tile(np.arange(count, dtype=np.int32), count)
    starts = np.arange(0, count * count + 1, count, dtype=np.int32)
    return csr_matrix((pairs.ravel(), ends, starts), shape=(count, count))


def _units(vectors: ArrayLike, count: int) -> NDArray[np.float32]:
    rows = np.asarray(vectors, np.float32)
    if rows.ndim != 2 or len(rows) != count:
        raise ValueError(f"vectors of shape {rows.shape}; expected ({count}, D), one a sample")
    return F.normalize(torch.from_numpy(rows), dim=1).numpy()
