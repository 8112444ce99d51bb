"""The merge tree of tracklets as a picture: who was joined to whom, and at what height."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from reidkit.trees import check_labels, check_tree
from reidkit.types import Sample
from reidkit.visualise.common import (
    MUTED,
    QUERY,
    counted,
    literal,
    save,
    seen,
    short,
    where,
)

LEFT_OUT = -1
MIXED = -2  # what a branch of several identities has in the place of a label
TREE, WORDS, HEAD, FOOT = 6.5, 2.2, 0.75, 0.6  # inches
Colour = tuple[float, float, float]


def dendrogram(
    path: str | Path,
    merges: ArrayLike,
    heights: ArrayLike,
    labels: ArrayLike,
    samples: Sequence[Sample],
    *,
    show: Callable[[Sample], NDArray[np.uint8] | None] = lambda sample: None,
    most: int = 120,
) -> None:
    """Write a PNG of the tree, root left, with a thumbnail and a few words at every leaf.

    A branch of one identity has its colour, of those left out and of several identities grey. A
    dashed line stands at the cut, where the labels are a cut of the tree. Above `most` samples it
    is drawn down to the identities only, and of those the largest. Forbidden merges (height inf)
    are dashed, beyond the axis. Pictures as in `ranked_strips`; one that cannot be read is a grey
    box. Replaced atomically.

    Args:
        merges: (N - 1, 2) nodes that merge m joins to node N + m; leaves are 0 to N - 1.
        heights: (N - 1,) never falling, inf where a merge was forbidden.
        labels: (N,) identities, -1 where left out.

    Raises:
        ValueError: the four do not fit one another, or are no tree.
    """
    tree = Tree.of(merges, heights, labels, len(samples))
    if most < 1:
        raise ValueError(f"at most {most} leaves: expected 1 or more")
    leaves, whole = tree.units(most)
    pictures = [seen(samples[tree.leaves(unit)[0]], show) for unit in leaves]
    row = 0.66 if len(leaves) <= 60 else 0.5  # inches
    shapes = [image.shape[1] / image.shape[0] for image in pictures if image is not None]
    broad = 0.9 * row * float(np.clip(max(shapes, default=0.5), 0.3, 2))
    width, height = 0.35 + TREE + 0.12 + broad + 0.12 + WORDS, HEAD + len(leaves) * row + FOOT
    figure = Figure(figsize=(width, height), dpi=110, facecolor="white")
    size = TREE / width, len(leaves) * row / height
    axes = figure.add_axes((0.35 / width, FOOT / height, *size))
    _draw_tree(axes, tree, leaves)
    rest = broad + 0.12 + WORDS
    beside = figure.add_axes(((width - rest) / width, FOOT / height, rest / width, size[1]))
    beside.set(xlim=(0, rest), ylim=(len(leaves) - 0.5, -0.5))
    beside.axis("off")
    for place, (unit, image) in enumerate(zip(leaves, pictures, strict=True)):
        _draw_picture(beside, image, place, broad, row)
        _write(beside, broad + 0.12, place, tree, unit, samples)
    cut = tree.cut()
    told = "no one height gives these identities" if cut is None else f"cut at {cut:.3g}"
    told = told if len(samples) > 1 else ""
    figure.text(
        0.35 / width,
        1 - 0.22 / height,
        f"{counted(len(samples), 'tracklet')}, {counted(tree.identities, 'identity')}",
        size=12,
        weight="bold",
        va="center",
    )
    words = [
        told,
        f"{tree.left_out:,} left out" if tree.left_out else "",
        _drawn(tree, leaves, whole),
    ]
    line = " · ".join(word for word in words if word)
    figure.text(0.35 / width, 1 - 0.48 / height, line, size=9, color=MUTED, va="center")
    save(figure, Path(path))


@dataclass(frozen=True, eq=False)
class Tree:
    """The merge tree of N leaves, node by node (2N - 1): SciPy's numbering, the root last.

    `label` is what all leaves below a node have in common, MIXED where nothing; `order` (N,) the
    leaves as drawn, of which those below a node are `size` from `start` on.
    """

    merges: NDArray[np.int64]
    height: NDArray[np.float64]
    label: NDArray[np.int64]
    size: NDArray[np.int64]
    start: NDArray[np.int64]
    order: NDArray[np.int64]

    @classmethod
    def of(cls, merges: ArrayLike, heights: ArrayLike, labels: ArrayLike, count: int) -> "Tree":
        """The tree of `count` samples, or a ValueError."""
        merges = np.asarray(merges, dtype=np.int64).reshape(-1, 2)
        own = np.asarray(labels, dtype=np.int64)
        found = np.asarray(heights, dtype=np.float64)
        check_tree(merges, found, count)
        check_labels(own, count)
        inner = count - 1
        label = np.concatenate([own, np.full(inner, MIXED)])
        size = np.concatenate([np.ones(count, np.int64), np.zeros(inner, np.int64)])
        for node, (a, b) in enumerate(merges, count):
            size[node] = size[a] + size[b]
            label[node] = label[a] if label[a] == label[b] else MIXED
        start = np.zeros(count + inner, np.int64)
        for node in range(count + inner - 1, count - 1, -1):
            a, b = merges[node - count]
            start[a], start[b] = start[node], start[node] + size[a]
        height = np.concatenate([np.zeros(count), found])
        return cls(merges, height, label, size, start, np.argsort(start[:count]))

    def leaves(self, node: int) -> NDArray[np.int64]:
        """The samples below a node, in the order of the tree."""
        return self.order[self.start[node] : self.start[node] + self.size[node]]

    @property
    def identities(self) -> int:
        """How many there are, those left out not counted."""
        own = self.label[: len(self.order)]
        return len(np.unique(own[own >= 0]))

    @property
    def left_out(self) -> int:
        """How many samples belong to no identity."""
        return int((self.label[: len(self.order)] < 0).sum())

    def units(self, most: int) -> tuple[NDArray[np.int64], int]:
        """The nodes to draw as leaves, at most so many, in the tree's order; and of how many."""
        count = len(self.order)
        if count <= most:
            return self.order, count
        parent = np.full(len(self.label), -1)
        parent[self.merges.ravel()] = np.repeat(np.arange(count, len(self.label)), 2)
        # The highest nodes of one identity each: the root has no parent, and -1 finds the root.
        top = (self.label[parent] == MIXED) | (parent < 0)
        nodes = np.flatnonzero(top & (self.label != MIXED) & (self.label != LEFT_OUT))
        if not len(nodes):  # all of them left out
            nodes = np.flatnonzero(top & (self.label == LEFT_OUT))
        largest = nodes[np.argsort(-self.size[nodes], kind="stable")[:most]]
        return largest[np.argsort(self.start[largest])], len(nodes)

    def cut(self) -> float | None:
        """A height that separates the identities and holds each together, if there is one."""
        count = len(self.order)
        inner, height = self.label[count:], self.height[count:]
        low = max(height[inner >= 0], default=0.0)
        high = min(height[inner == MIXED], default=np.inf)
        if count == 1 or not np.isfinite(low) or low >= high:
            return None
        if np.isinf(high):
            return float(low * 1.02)
        return float((low + high) / 2)


def _draw_tree(axes: Axes, tree: Tree, leaves: NDArray[np.int64]) -> None:
    count = len(tree.order)
    finite = tree.height[np.isfinite(tree.height)]
    reach = float(finite.max()) or 1.0
    forbidden = np.cumsum(np.isinf(tree.height))
    label = tree.label.copy()
    # Beyond the axis forbidden merges stand one after the other, however many they are.
    across = np.where(
        np.isinf(tree.height),
        reach * (1.06 + 0.14 * forbidden / max(int(forbidden[-1]), 1)),
        tree.height,
    )
    down = np.full(len(tree.height), np.nan)  # NaN where nothing below is drawn
    down[leaves] = np.arange(len(leaves))
    lines: list[list[tuple[float, float]]] = []
    colours: list[Colour | str] = []
    wedges = [
        ((across[n], down[n]), (0, down[n] - 0.3), (0, down[n] + 0.3)) for n in leaves if n >= count
    ]
    filled = [_colour(int(tree.label[n])) for n in leaves if n >= count]
    banned: list[list[tuple[float, float]]] = []
    for node, (a, b) in enumerate(tree.merges, count):
        if not np.isnan(down[node]):  # a leaf of the picture
            continue
        drawn = [child for child in (a, b) if not np.isnan(down[child])]
        if len(drawn) == 2:
            down[node], x = (down[a] + down[b]) / 2, across[node]
            stems = [[(across[child], down[child]), (x, down[child])] for child in (a, b)]
            fork = [*stems, [(x, down[a]), (x, down[b])]]
            if np.isinf(tree.height[node]):
                banned += fork
            else:
                lines += fork
                colours += [_colour(int(label[branch])) for branch in (a, b, node)]
        elif drawn:  # nothing is joined in the picture: the branch goes on
            for of in (down, across, label):
                of[node] = of[drawn[0]]
    axes.add_collection(PolyCollection(wedges, facecolors=filled, edgecolors=filled, alpha=0.55))
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=1.6))
    axes.add_collection(LineCollection(banned, colors="#9aa0a6", linewidths=1.6, linestyles="--"))
    axes.set(xlim=(reach * (1.25 if forbidden[-1] else 1.04), 0), yticks=[])
    axes.set(ylim=(len(leaves) - 0.5, -0.5), xlabel="height at which branches were joined")
    axes.xaxis.label.set_fontsize(9)
    axes.tick_params(labelsize=8)
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= reach])
    axes.set_xlim(reach * (1.25 if forbidden[-1] else 1.04), 0)
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    if forbidden[-1]:
        axes.axvspan(reach * 1.03, reach * 1.25, color="#f4f4f2", zorder=0)
        axes.text(reach * 1.14, -0.45, "forbidden", size=8, color=MUTED, ha="center", va="top")
    cut = tree.cut()
    if cut is not None:
        axes.axvline(cut, ls="--", color=QUERY, lw=1.2)


def _colour(label: int) -> Colour | str:
    if label < 0:
        return "#8a9097" if label == MIXED else "#c4c7ca"
    # Steps of the golden section: whatever their number, neighbours lie far apart.
    red, green, blue = hsv_to_rgb(((0.6 + 0.618034 * label) % 1, 0.8, 0.72 - 0.2 * (label % 2)))
    return float(red), float(green), float(blue)


def _draw_picture(
    axes: Axes, image: NDArray[np.uint8] | None, place: int, broad: float, row: float
) -> None:
    if image is None:
        wide = min(broad, 0.45 * row)
        axes.add_patch(Rectangle(((broad - wide) / 2, place - 0.45), wide, 0.9, color="#d9d9d9"))
        return
    tall, wide = 0.9, 0.9 * row * image.shape[1] / image.shape[0]
    if wide > broad:
        tall, wide = tall * broad / wide, broad
    left = (broad - wide) / 2
    extent = (left, left + wide, place + tall / 2, place - tall / 2)
    axes.imshow(image, extent=extent, aspect="auto", interpolation="antialiased")
    axes.set(xlim=axes.get_xlim(), autoscale_on=False)


def _write(
    axes: Axes, left: float, place: int, tree: Tree, unit: int, samples: Sequence[Sample]
) -> None:
    label, leaves = int(tree.label[unit]), tree.leaves(unit)
    name = "left out" if label < 0 else f"identity {label}"
    if len(leaves) == 1:
        sample = samples[leaves[0]]
        words = " · ".join(word for word in (where(sample), _name(sample)) if word)
    else:
        cameras = sorted({samples[i].camid for i in leaves if samples[i].camid >= 0})
        named = f"camera{'s'[: len(cameras) - 1]} " + ", ".join(str(c + 1) for c in cameras)
        by = f" · {named if len(cameras) < 4 else f'{len(cameras)} cameras'}" if cameras else ""
        words = counted(len(leaves), "tracklet") + by
    colour = _colour(label) if label >= 0 else MUTED
    axes.text(left, place - 0.04, name, size=8.5, weight="bold", color=colour, va="bottom")
    axes.text(left, place + 0.04, literal(short(words)), size=7.5, color=QUERY, va="top")


def _name(sample: Sample) -> str:
    """A file's own name, else what is known of the identity."""
    if not sample.frames:
        return f"pid {sample.pid}" if sample.pid >= 0 else ""
    return PurePath(sample.frames[0].replace("\\", "/")).name


def _drawn(tree: Tree, leaves: NDArray[np.int64], whole: int) -> str:
    if len(leaves) == len(tree.order):
        return ""
    rest = f", {whole - len(leaves):,} no larger ones not" if len(leaves) < whole else ""
    return f"{counted(len(leaves), 'branch')} of one identity drawn{rest}"
