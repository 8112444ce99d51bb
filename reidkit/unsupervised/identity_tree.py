"""The tree of identities: which samples are joined to which, from all alone to all one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from reidkit.types import UNKNOWN_CAMERA, Features, Metric, Sample, path_of
from reidkit.unsupervised import traversal, tree_file
from reidkit.unsupervised.clustering import joined
from reidkit.unsupervised.constraints import CannotLink
from reidkit.unsupervised.graphs import all_pairs, nearest_pairs
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
        size_weight: float = 0.0,
    ) -> "IdentityTree":
        """The tree of features (N, D), exact for up to 4,000 samples: SciPy's, where that has one.

        Of more samples, or with `neighbours`, each one's nearest are looked at alone (and those
        whose nearest it is). A pair of others counts as far apart as the farthest two of these:
        higher up in the tree, where clusters are large, heights are thus too low, and what is not
        connected is joined at that height. Memory then grows with N, not with N^2.

        Args:
            linkage: "average", "complete", "single", "ward", or "buc" as `agglomerate` has them;
                ward is about Euclidean distances, of unit vectors where the metric is cosine, buc
                about squared ones of unit vectors, whatever the metric.
            cannot_link: what is never joined, but at height inf.
            metric: cosine (1 - cos) or euclidean.
            neighbours: how many nearest of each; None takes all, of more than 4,000 samples 30.
            size_weight: of buc alone: what the clusters' sizes weigh against squared distances.

        Raises:
            ValueError: no sample, a feature that is not floating or not finite, another value out
                of range.
        """
        vectors = _checked(features, metric, neighbours)
        count = len(features)
        if neighbours is None and count > EXACT:
            neighbours = NEIGHBOURS
        if linkage == "buc":
            metric = "cosine"
        if neighbours is None or neighbours >= count - 1:
            vectors, graph = vectors.double(), all_pairs(vectors, metric)
        else:
            vectors, graph = vectors.float(), nearest_pairs(vectors, neighbours, metric)
        if metric == "cosine":
            vectors = F.normalize(vectors, dim=1)
        if linkage == "buc":
            graph.data *= 2  # of unit vectors the squared distance is twice 1 - cos
        return cls.from_graph(
            graph,
            linkage=linkage,
            absent=float(graph.data.max(initial=0.0)),
            cannot_link=cannot_link,
            samples=features.samples,
            vectors=vectors.numpy(),
            size_weight=size_weight,
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

    def children(self, node: int) -> tuple[int, ...]:
        """The two nodes that were joined to this one, none of a leaf."""
        self._check_node(node)
        return tuple(self.merges[node - len(self)].tolist()) if node >= len(self) else ()

    def members(self, node: int) -> list[int]:
        """The leaves below a node, those of its first branch first; of a leaf itself."""
        self._check_node(node)
        return [item for item in traversal.walk(self.merges, "before", node) if item < len(self)]

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
        of leaves being 0, and that of forbidden merges the largest finite one.
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

    def _check_node(self, node: int) -> None:
        if not 0 <= node <= self.root:
            raise ValueError(f"no node {node}; expected one of 0 to {self.root}")

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
        `views`, `conditions`, `domains`, `spans`; replaced atomically. A path is what
        `Features.save` writes."""
        tree_file.write(Path(path), self.merges, self.heights, self.samples)

    @classmethod
    def load(cls, path: str | Path) -> "IdentityTree":
        """Read what `save` wrote; the tree has no vectors.

        Raises FileNotFoundError, and ValueError for a file that is none or is damaged.
        """
        path = Path(path)
        try:
            return cls(*tree_file.read(path))
        except ValueError as error:
            raise ValueError(f"{path} is no tree file, or is damaged: {error}") from error


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


def _units(vectors: ArrayLike, count: int) -> NDArray[np.float32]:
    rows = np.asarray(vectors, np.float32)
    if rows.ndim != 2 or len(rows) != count:
        raise ValueError(f"vectors of shape {rows.shape}; expected ({count}, D), one a sample")
    return F.normalize(torch.from_numpy(rows), dim=1).numpy()
