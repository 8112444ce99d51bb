"""Walks over a binary merge tree, none of which recurses: a tree of N leaves can be N deep.

A tree is its merges (N - 1, 2) in SciPy's numbering: leaves 0 to N - 1, merge m makes node N + m,
so that every node has a lower number than its parent and the root has the highest.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reidkit.trees import check_tree

When = Literal["before", "between", "after"]


def check(merges: NDArray[np.int64], heights: NDArray[np.float64], count: int) -> None:
    """Raise a ValueError unless these are the merges and heights of a tree of so many leaves."""
    check_tree(merges, heights, count)


def walk(merges: NDArray[np.int64], when: When, top: int | None = None) -> list[int]:
    """The nodes from `top` down (None: the root), each before, between or after its branches; the
    first branch before the second."""
    count = len(merges) + 1
    children = merges.tolist()
    order = []
    waiting = [
        2 * count - 2 if top is None else top
    ]  # ~node: its turn has come, without its branches
    while waiting:
        node = waiting.pop()
        if node < count:
            order.append(node if node >= 0 else ~node)
            continue
        first, second = children[node - count]
        if when == "before":
            waiting += [second, first, ~node]
        elif when == "between":
            waiting += [second, ~node, first]
        else:
            waiting += [~node, second, first]
    return order


def levels(merges: NDArray[np.int64]) -> list[list[int]]:
    """All nodes by their distance from the root, which is alone on the first level."""
    count = len(merges) + 1
    children = merges.tolist()
    found = []
    level = [2 * count - 2]
    while level:
        found.append(level)
        level = [child for node in level if node >= count for child in children[node - count]]
    return found


def parents(merges: NDArray[np.int64]) -> NDArray[np.int64]:
    """The parent of each node (2N - 1,), -1 of the root."""
    count = len(merges) + 1
    above = np.full(2 * count - 1, -1)
    above[merges.ravel()] = np.repeat(np.arange(count, 2 * count - 1), 2)
    return above


def path(merges: NDArray[np.int64], i: int, j: int) -> list[int]:
    """The nodes from leaf i up to the lowest one above both, and down to leaf j."""
    above = parents(merges)
    up, down = [i], [j]
    while up[-1] != down[-1]:
        lower = up if up[-1] < down[-1] else down
        lower.append(int(above[lower[-1]]))
    return up + down[-2::-1]


def newick(merges: NDArray[np.int64], heights: NDArray[np.float64], names: Sequence[str]) -> str:
    """The tree in Newick's format: all names quoted, branches as long as the heights differ.

    Leaves are at height 0. Height inf, which the format does not know, is written as the largest
    finite one.
    """
    leaves, children = len(merges) + 1, merges.tolist()
    largest = heights[np.isfinite(heights)].max(initial=0.0)
    level = np.concatenate([np.zeros(leaves), np.minimum(heights, largest)])
    length = np.zeros(len(level))
    length[merges] = level[leaves:, None] - level[merges]
    ends = [f":{value!r}" for value in length.tolist()]
    ends[-1] = ";"
    written: list[str] = []
    waiting: list[int | str] = [2 * leaves - 2]
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            written.append(node)
        elif node < leaves:
            written.append("'" + names[node].replace("'", "''") + "'" + ends[node])
        else:
            first, second = children[node - leaves]
            written.append("(")
            waiting += (")" + ends[node], second, ",", first)
    return "".join(written)
