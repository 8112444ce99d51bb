"""Agglomerative clustering of a sparse graph under constraints: compiled, and nothing is N x N.

Nearest-neighbour chains (Murtagh, A Survey of Recent Advances in Hierarchical Clustering
Algorithms, The Computer Journal 26, 1983): whoever are each other's nearest can be joined at once,
in whatever order, where a joined cluster is never nearer to a third one than its parts were. That
holds for average, complete and single linkage, for ward with all pairs, for the least distance with
a weight on sizes, and for each of these where some clusters are endlessly far apart.
"""

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from reidkit.unsupervised.constraints import CannotLink

Linkage = Literal["average", "complete", "single", "ward", "buc"]
AVERAGE, COMPLETE, SINGLE, WARD, BUC = range(5)
GROUPS_AS_BITS = 1024  # the largest groups are bits of a cluster; what is beyond becomes pairs
WORD = 64
NONE = -1
TIE = 1e-12  # distances this close, as a share, are one

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Edges(NamedTuple):
    """Who is stored as whose neighbour: a linked list for each cluster, which joins in no time.

    An entry knows one member of the neighbour; who that belongs to by now is looked up when the
    list is read, and entries of one neighbour become one.
    """

    head: Ints  # (2N - 1,) first entry of a cluster, -1 for none
    tail: Ints  # (2N - 1,) last entry
    following: NDArray[np.int32]  # (E,) next entry, -1 at the end
    member: NDArray[np.int32]  # (E,)
    value: Floats  # (E,) sum, largest or least distance, as the linkage asks
    count: Floats  # (E,) stored pairs
    forbidden: Bools  # (E,) a pair that cannot be linked is among them


class Clusters(NamedTuple):
    """The clusters so far: nodes of the tree, leaves first, in the order in which they came."""

    parent: NDArray[np.int32]  # (2N - 1,) towards the root, itself for a root
    size: Ints  # (2N - 1,)
    groups: NDArray[np.uint64]  # (2N - 1, W) bits of the groups that members are in
    row: Ints  # (2N - 1,) where `centres` has the cluster; ward alone
    centres: Floats  # (N, D), or (0, 0)


def agglomerate(
    graph: csr_matrix,
    *,
    linkage: Linkage,
    absent: float,
    cannot_link: CannotLink | None = None,
    vectors: NDArray[np.floating[Any]] | None = None,
    start: Ints | None = None,
    size_weight: float = 0.0,
) -> tuple[Ints, Floats]:
    """The binary merge tree of N samples: who is joined (N - 1, 2), and at which height (N - 1,).

    Numbered as SciPy's `linkage`: samples are 0 to N - 1, merge m makes node N + m, the smaller
    number stands first; heights never fall. Without ties the tree depends on nobody's order.

    Args:
        graph: (N, N) distances, symmetric; zeros that are stored count, the diagonal does not.
        linkage: of two clusters the mean, largest or least distance of their members; "ward" as
            SciPy's, from `vectors` of neighbours in the graph; "buc" the least distance and
            `size_weight` (|A| + |B|) (Lin et al., A Bottom-Up Clustering Approach, AAAI 2019).
        absent: distance of pairs that are not stored, no less than any that is. Clusters without a
            stored pair are joined last, at this height and in the order of their first members
            (buc: the small ones first; ward: by their centres).
        cannot_link: what is never joined. What it keeps apart is joined at the very end, at
            height inf, so that there is one tree.
        vectors: (N, D), for ward.
        start: (N,) clusters to begin with, joined first and at height 0.

    Raises ValueError for arrays that do not fit, for distances that are negative, not finite or
    above `absent`, and for a start that joins what cannot be linked.
    """
    count = graph.shape[0]
    _check(graph, linkage, absent, cannot_link, vectors, start, size_weight)
    if count < 2:
        return np.empty((0, 2), np.int64), np.empty(0)
    kind = get_args(Linkage).index(linkage)
    constraints = CannotLink.nothing(count) if cannot_link is None else cannot_link
    bits, pairs = _split_groups(constraints)
    edges = _edges(graph, pairs)
    nodes = 2 * count - 1
    held = np.zeros((nodes, bits.shape[1]), np.uint64)
    held[:count] = bits
    sizes = np.ones(nodes, np.int64)
    centres = np.empty((0, 0)) if vectors is None or kind != WARD else vectors.astype(np.float64)
    rows = np.arange(nodes)
    clusters = Clusters(np.arange(nodes, dtype=np.int32), sizes, held, rows, centres)
    merges = np.empty((count - 1, 2), np.int64)
    heights = np.empty(count - 1)
    first = np.arange(count) if start is None else start.astype(np.int64)
    _merge_all(kind, absent, size_weight, first, edges, clusters, merges, heights)
    return _in_order(merges, heights)


def _check(
    graph: csr_matrix,
    linkage: str,
    absent: float,
    cannot_link: CannotLink | None,
    vectors: NDArray[Any] | None,
    start: Ints | None,
    size_weight: float,
) -> None:
    if linkage not in get_args(Linkage):
        raise ValueError(f"unknown linkage {linkage!r}; known: {', '.join(get_args(Linkage))}")
    count = graph.shape[0]
    if graph.shape != (count, count) or not count:
        raise ValueError(f"the graph has shape {graph.shape}, expected (N, N) with N > 0")
    values = graph.data
    if values.size and not (np.isfinite(values).all() and values.min() >= 0):
        raise ValueError("the graph holds distances that are negative or not finite")
    if not np.isfinite(absent) or (linkage != "ward" and values.max(initial=0) > absent):
        raise ValueError(
            f"absent is {absent}, expected a number no less than the largest distance of the "
            f"graph, {values.max(initial=0)}"
        )
    if not (np.isfinite(size_weight) and size_weight >= 0):
        raise ValueError(f"size_weight is {size_weight}, expected 0 or more")
    if linkage == "ward" and vectors is None:
        raise ValueError("ward needs the vectors (N, D) beside the graph")
    for name, given in (("cannot_link", cannot_link), ("vectors", vectors), ("start", start)):
        if given is not None and len(given) != count:
            raise ValueError(f"{name} is about {len(given)} samples, but there are {count}")
    if start is not None and len(start) and start.min() < 0:
        raise ValueError("start has labels below 0; expected a cluster for each sample")
    if start is not None and cannot_link is not None and (wrong := cannot_link.broken_by(start)):
        raise ValueError(f"start joins {wrong} pairs of samples that cannot be linked")


def _split_groups(constraints: CannotLink) -> tuple[NDArray[np.uint64], Ints]:
    """The large groups as bits (N, W), the pairs (M, 2) of the rest and of the constraints."""
    groups = constraints.groups
    order = np.argsort(groups, kind="stable")
    names, starts = np.unique(groups[order], return_index=True)
    pieces = [
        members
        for name, members in zip(names, np.split(order, starts[1:]), strict=True)
        if name >= 0 and len(members) > 1
    ]
    pieces.sort(key=len, reverse=True)
    words = -(-min(len(pieces), GROUPS_AS_BITS) // WORD)
    bits = np.zeros((len(groups), words), np.uint64)
    pairs = [constraints.pairs]
    for number, members in enumerate(pieces):
        if number < GROUPS_AS_BITS:
            bits[members, number // WORD] |= np.uint64(1) << np.uint64(number % WORD)
        else:
            one, other = np.triu_indices(len(members), 1)
            pairs.append(np.column_stack([members[one], members[other]]))
    return bits, np.concatenate(pairs)


def _edges(graph: csr_matrix, pairs: Ints) -> Edges:
    """The stored pairs and the forbidden ones, each from both ends."""
    stored = graph.tocoo()
    beside = stored.row != stored.col
    rows = np.concatenate([stored.row[beside], pairs[:, 0], pairs[:, 1]]).astype(np.int64)
    columns = np.concatenate([stored.col[beside], pairs[:, 1], pairs[:, 0]])
    forced = 2 * len(pairs)
    values = np.concatenate([stored.data[beside].astype(np.float64), np.zeros(forced)])
    forbidden = np.arange(len(rows)) >= len(rows) - forced
    order = np.argsort(rows, kind="stable")
    rows, columns, values, forbidden = (a[order] for a in (rows, columns, values, forbidden))
    count = graph.shape[0]
    ends = np.searchsorted(rows, np.arange(count), side="right")
    starts = np.concatenate([[0], ends[:-1]])
    following = np.arange(1, len(rows) + 1, dtype=np.int32)
    following[ends[ends > starts] - 1] = NONE
    head, tail = np.full(2 * count - 1, NONE), np.full(2 * count - 1, NONE)
    head[:count] = np.where(ends > starts, starts, NONE)
    tail[:count] = np.where(ends > starts, ends - 1, NONE)
    members = columns.astype(np.int32)
    return Edges(
        head, tail, following, members, values, (~forbidden).astype(np.float64), forbidden
    )


def _in_order(merges: Ints, heights: Floats) -> tuple[Ints, Floats]:
    """The merges by height, numbered in that order."""
    count = len(heights) + 1
    order = np.argsort(heights, kind="stable")
    number = np.arange(2 * count - 1)
    number[count + order] = count + np.arange(count - 1)
    return np.sort(number[merges[order]], axis=1), heights[order]


@njit(cache=True, nogil=True)
def _root(parent: NDArray[np.int32], node: int) -> int:
    top = node
    while parent[top] != top:
        top = parent[top]
    while parent[node] != top:
        parent[node], node = top, parent[node]
    return top


@njit(cache=True, nogil=True)
def _gather(
    kind: int, node: int, edges: Edges, clusters: Clusters, seen: Ints, place: Ints, stamp: int
) -> None:
    """Let the list of a cluster hold each neighbouring cluster once, by its present number."""
    before = NONE
    entry = edges.head[node]
    while entry != NONE:
        following = edges.following[entry]
        other = _root(clusters.parent, edges.member[entry])
        if other == node or seen[other] == stamp:
            if other != node:
                kept = place[other]
                if edges.count[entry] > 0:
                    if edges.count[kept] == 0:
                        edges.value[kept] = edges.value[entry]
                    elif kind == AVERAGE:
                        edges.value[kept] += edges.value[entry]
                    elif kind == COMPLETE:
                        edges.value[kept] = max(edges.value[kept], edges.value[entry])
                    else:
                        edges.value[kept] = min(edges.value[kept], edges.value[entry])
                edges.count[kept] += edges.count[entry]
                edges.forbidden[kept] |= edges.forbidden[entry]
            if before == NONE:
                edges.head[node] = following
            else:
                edges.following[before] = following
            if following == NONE:
                edges.tail[node] = before
        else:
            seen[other], place[other] = stamp, entry
            edges.member[entry] = other
            before = entry
        entry = following


@njit(cache=True, nogil=True)
def _share_group(clusters: Clusters, a: int, b: int) -> bool:
    for word in range(clusters.groups.shape[1]):
        if clusters.groups[a, word] & clusters.groups[b, word]:
            return True
    return False


@njit(cache=True, nogil=True)
def _ward(clusters: Clusters, a: int, b: int) -> float:
    first, second = clusters.centres[clusters.row[a]], clusters.centres[clusters.row[b]]
    total = 0.0
    for d in range(len(first)):
        total += (first[d] - second[d]) ** 2
    sizes = clusters.size[a] + clusters.size[b]
    return np.sqrt(2.0 * clusters.size[a] * clusters.size[b] / sizes * total)


@njit(cache=True, nogil=True)
def _distance(
    kind: int,
    absent: float,
    weight: float,
    a: int,
    b: int,
    entry: int,
    edges: Edges,
    clusters: Clusters,
) -> float:
    pairs = float(clusters.size[a]) * clusters.size[b]
    value, count = edges.value[entry], edges.count[entry]
    if kind == AVERAGE:
        return (value + absent * (pairs - count)) / pairs
    if kind == WARD:
        return _ward(clusters, a, b)
    if kind == BUC:
        return value + weight * (clusters.size[a] + clusters.size[b])
    return value


@njit(cache=True, nogil=True)
def _join(a: int, b: int, made: int, edges: Edges, clusters: Clusters) -> None:
    """Cluster `made` of the clusters a and b."""
    clusters.parent[a] = clusters.parent[b] = made
    if clusters.centres.shape[0]:
        centre, gone = clusters.centres[clusters.row[a]], clusters.centres[clusters.row[b]]
        share = clusters.size[b] / (clusters.size[a] + clusters.size[b])
        for d in range(len(centre)):
            centre[d] += share * (gone[d] - centre[d])
        clusters.row[made] = clusters.row[a]
    clusters.size[made] = clusters.size[a] + clusters.size[b]
    for word in range(clusters.groups.shape[1]):
        clusters.groups[made, word] = clusters.groups[a, word] | clusters.groups[b, word]
    if edges.head[a] == NONE:
        edges.head[made], edges.tail[made] = edges.head[b], edges.tail[b]
    else:
        edges.head[made], edges.tail[made] = edges.head[a], edges.tail[a]
        if edges.head[b] != NONE:
            edges.following[edges.tail[a]] = edges.head[b]
            edges.tail[made] = edges.tail[b]


@njit(cache=True, nogil=True)
def _merge_all(
    kind: int,
    absent: float,
    weight: float,
    first: Ints,
    edges: Edges,
    clusters: Clusters,
    merges: Ints,
    heights: Floats,
) -> None:
    count = len(first)
    nodes = 2 * count - 1
    seen, place = np.full(nodes, NONE), np.zeros(nodes, np.int64)
    height = np.zeros(nodes)
    made = count
    # Clusters that are given.
    owner = np.full(first.max() + 1, NONE)
    for leaf in range(count):
        if owner[first[leaf]] == NONE:
            owner[first[leaf]] = leaf
        else:
            _join(owner[first[leaf]], leaf, made, edges, clusters)
            merges[made - count, 0], merges[made - count, 1] = owner[first[leaf]], leaf
            heights[made - count] = 0.0
            owner[first[leaf]] = made
            made += 1
    # Chains, as long as a cluster has a stored neighbour that is allowed.
    chain, steps = np.empty(nodes, np.int64), np.empty(nodes)
    length, next_start, stamp = 0, 0, 0
    while True:
        if length == 0:
            while next_start < made and clusters.parent[next_start] != next_start:
                next_start += 1
            if next_start == made:
                break
            chain[0], steps[0], length = next_start, np.inf, 1
        tip = chain[length - 1]
        stamp += 1
        _gather(kind, tip, edges, clusters, seen, place, stamp)
        best, nearest = np.inf, NONE
        entry = edges.head[tip]
        while entry != NONE:
            other = edges.member[entry]
            stored = edges.count[entry]
            allowed = stored > 0 and not edges.forbidden[entry]
            if kind == COMPLETE:  # one pair that is not stored puts all the clusters absent apart
                allowed = allowed and stored >= float(clusters.size[tip]) * clusters.size[other]
            if allowed and not _share_group(clusters, tip, other):
                far = _distance(kind, absent, weight, tip, other, entry, edges, clusters)
                if far < best or (far == best and other < nearest):
                    best, nearest = far, other
            entry = edges.following[entry]
        if length > 1 and not best < steps[length - 1] * (1 - TIE):
            # Neither has a nearer one. Sums from both ends differ in their last bits, and a chain
            # that followed those could run in a circle.
            before = chain[length - 2]
            far = max(steps[length - 1], height[tip], height[before])
            _join(before, tip, made, edges, clusters)
            merges[made - count, 0], merges[made - count, 1] = before, tip
            heights[made - count] = height[made] = far
            made += 1
            length -= 2
        elif nearest == NONE:
            next_start += 1  # nobody will ever be joined to this one here
            length = 0
        else:
            chain[length], steps[length] = nearest, best
            length += 1
    # What is left has no stored pair that is allowed.
    left = np.empty(nodes, np.int64)
    rest = 0
    for node in range(made):
        if clusters.parent[node] == node:
            left[rest] = node
            rest += 1
    while rest > 1:
        rest, made = _sweep(
            kind, absent, weight, left, rest, made, edges, clusters, seen, place, height,
            merges, heights, stamp,
        )  # fmt: skip


@njit(cache=True, nogil=True)
def _sweep(
    kind: int,
    absent: float,
    weight: float,
    left: Ints,
    rest: int,
    made: int,
    edges: Edges,
    clusters: Clusters,
    seen: Ints,
    place: Ints,
    height: Floats,
    merges: Ints,
    heights: Floats,
    stamp: int,
) -> tuple[int, int]:
    """Join the clusters `left` (of which the first `rest` count) until one is left: each to the
    first that is allowed, and in the end, at height inf, to anyone."""
    count = len(heights) + 1
    order = np.argsort(clusters.size[left[:rest]], kind="mergesort")
    waiting = left[:rest][order] if kind == BUC else left[:rest].copy()
    kept = np.empty(rest, np.int64)
    several = 0
    for node in waiting:
        stamp += 1
        _gather(kind, node, edges, clusters, seen, place, stamp)
        best, chosen = np.inf, NONE
        for number in range(several):
            other = kept[number]
            apart = _share_group(clusters, node, other)
            apart = apart or (seen[other] == stamp and edges.forbidden[place[other]])
            if apart:
                continue
            far = _ward(clusters, node, other) if kind == WARD else absent
            if far < best:
                best, chosen = far, number
            if kind != WARD:
                break
        if chosen == NONE:
            kept[several] = node
            several += 1
            continue
        other = kept[chosen]
        far = best
        if kind == BUC:
            far += weight * (clusters.size[node] + clusters.size[other])
        _join(other, node, made, edges, clusters)
        merges[made - count, 0], merges[made - count, 1] = other, node
        heights[made - count] = height[made] = max(far, height[other], height[node])
        kept[chosen] = made
        made += 1
    for number in range(1, several):
        _join(kept[0], kept[number], made, edges, clusters)
        merges[made - count, 0], merges[made - count, 1] = kept[0], kept[number]
        heights[made - count] = height[made] = np.inf
        kept[0] = made
        made += 1
    return 1, made
