"""Agglomerative clustering of a sparse graph under constraints: compiled, and nothing is N x N.

Nearest-neighbour chains (Murtagh, A Survey of Recent Advances in Hierarchical Clustering
Algorithms, The Computer Journal 26, 1983): two clusters that are each other's nearest can be joined
at once, whatever the others do, where a joined cluster is never nearer to a third one than the
nearer of its parts was. That holds for average, complete and single linkage, for ward with all
pairs, for the least distance with a weight on sizes, and for each of these where some clusters are
endlessly far apart. Sorted by height, the merges are those of the greedy search.
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
ROUNDING = 1e-5  # of float32 distances that were measured from both ends, over the largest one

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Edges(NamedTuple):
    """Who is stored as whose neighbour: a linked list for each cluster, so that joining two is one
    link.

    An entry knows a former number of the neighbour; which cluster that belongs to by now is looked
    up when the list is read, and entries of one neighbour become one.
    """

    head: Ints  # (2N - 1,) first entry of a cluster, -1 for none
    tail: Ints  # (2N - 1,) last entry
    following: NDArray[np.int32]  # (E,) next entry, -1 at the end
    member: NDArray[np.int32]  # (E,)
    value: Floats  # (E,) sum, largest or least distance; of ward the distance, NaN until asked for
    pairs: Floats  # (E,) stored pairs of members, -inf where one pair cannot be linked


class Clusters(NamedTuple):
    """The clusters so far: nodes of the tree, leaves first, in the order in which they came."""

    parent: NDArray[np.int32]  # (2N - 1,) towards the root, itself for a root
    size: Ints  # (2N - 1,)
    height: Floats  # (2N - 1,)
    groups: NDArray[np.uint64]  # (2N - 1, W) bits of the groups that members are in
    row: Ints  # (2N - 1,) where `centres` has the cluster
    centres: Floats  # (N, D); (0, 0) but for ward
    merges: Ints  # (N - 1, 2)


class Line(NamedTuple):
    """All roots, of buc by size and then by number, else by number alone."""

    head: NDArray[np.int32]  # (K,) first root of a key, -1 for none
    tail: NDArray[np.int32]  # (K,)
    after: NDArray[np.int32]  # (2N - 1,)
    before: NDArray[np.int32]  # (2N - 1,)
    lowest: Ints  # (1,) no root has a lower key


def agglomerate(
    graph: csr_matrix,
    *,
    linkage: Linkage,
    absent: float,
    cannot_link: CannotLink | None = None,
    vectors: NDArray[Any] | None = None,
    start: NDArray[np.int64] | None = None,
    size_weight: float = 0.0,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The binary merge tree of N samples: who is joined (N - 1, 2), and at which height (N - 1,).

    The two nearest clusters that may be joined are, again and again. Numbered as SciPy's `linkage`:
    samples are 0 to N - 1, merge m makes node N + m, the smaller number stands first; heights never
    fall. Ties are decided by numbers, the same way each time; without ties the order of the samples
    changes nothing. Memory grows with the stored pairs, time at worst with N^2.

    Args:
        graph: (N, N) distances, symmetric; zeros that are stored count, the diagonal does not.
        linkage: of two clusters the mean, largest or least distance of their members; "ward" as
            SciPy's, from `vectors`; "buc" the least distance and `size_weight` (|A| + |B|) (Lin et
            al., A Bottom-Up Clustering Approach, AAAI 2019).
        absent: distance of pairs that are not stored, no less than any that is. Ward does not look
            at distances: clusters without a stored pair wait until no others are left, so that its
            tree is SciPy's where all pairs are stored and close to it else.
        cannot_link: what is never joined. What it keeps apart is joined at the very end, at height
            inf, so that there is one tree.
        vectors: (N, D), for ward alone.
        start: (N,) clusters to begin with, joined first and at height 0.

    Raises ValueError for arrays that do not fit, for distances that are not symmetric, negative,
    not finite or above `absent`, and for a start that joins what cannot be linked.
    """
    graph = _checked(graph, linkage, absent, size_weight)
    count = graph.shape[0]
    _check_sides(count, linkage, cannot_link, vectors, start)
    if count == 1:
        return np.empty((0, 2), np.int64), np.empty(0)
    kind = get_args(Linkage).index(linkage)
    weight = float(size_weight) if kind == BUC else 0.0
    if kind == BUC and not weight:
        kind = SINGLE
    bits, pairs = _split_groups(CannotLink.nothing(count) if cannot_link is None else cannot_link)
    edges = _edges(csr_matrix(graph.shape) if kind == SINGLE else graph, pairs, float(absent))
    if kind == WARD:
        edges.value[:] = np.nan
    clusters = _leaves(bits, vectors if kind == WARD else None)
    made = count
    if start is not None:
        made = _join_given(np.unique(start, return_inverse=True)[1], edges, clusters)
    if kind == SINGLE:
        made = _join_by_length(_by_length(graph, float(absent)), made, edges, clusters)
    # Only a weight on sizes can put pairs that are not stored before stored ones.
    for everywhere in (True,) if kind in (SINGLE, BUC) else (False, True):
        made = _grow(kind, float(absent), weight, everywhere, made, edges, clusters)
    _join_forbidden(made, edges, clusters)
    return _in_order(clusters.merges, clusters.height[count:])


def _checked(graph: csr_matrix, linkage: str, absent: float, size_weight: float) -> csr_matrix:
    """The graph with sorted rows, if it and the numbers are possible."""
    if linkage not in get_args(Linkage):
        raise ValueError(f"unknown linkage {linkage!r}; known: {', '.join(get_args(Linkage))}")
    count = graph.shape[0]
    if graph.shape != (count, count) or not count:
        raise ValueError(f"the graph has shape {graph.shape}, expected (N, N) with N of 1 or more")
    if not graph.has_canonical_format:
        graph = graph.copy()
        graph.sum_duplicates()
    values = graph.data
    if values.size and not (np.isfinite(values).all() and values.min() >= 0):
        raise ValueError("the graph holds distances that are negative or not finite")
    largest = float(values.max(initial=0))
    one_sided = _one_sided(graph.indptr, graph.indices, values, ROUNDING * largest)
    if one_sided != NONE:
        raise ValueError(
            f"the graph is not symmetric in row {one_sided}; expected each pair twice, at one "
            "distance: graph.maximum(graph.T) stores pairs that one end has"
        )
    if not np.isfinite(absent) or (linkage != "ward" and largest > absent * (1 + ROUNDING)):
        raise ValueError(
            f"absent is {absent}, expected a number no less than the largest distance of the "
            f"graph, {largest}"
        )
    if not (np.isfinite(size_weight) and size_weight >= 0):
        raise ValueError(f"size_weight is {size_weight}, expected a number of 0 or more")
    return graph


def _check_sides(
    count: int,
    linkage: str,
    cannot_link: CannotLink | None,
    vectors: NDArray[Any] | None,
    start: NDArray[np.int64] | None,
) -> None:
    if linkage == "ward" and vectors is None:
        raise ValueError("ward needs the vectors (N, D) beside the graph")
    for name, given in (("cannot_link", cannot_link), ("vectors", vectors), ("start", start)):
        if given is not None and len(given) != count:
            raise ValueError(f"{name} is about {len(given)} samples, but the graph has {count}")
    if vectors is not None and not (vectors.ndim == 2 and np.isfinite(vectors).all()):
        raise ValueError("the vectors are not finite, or not of shape (N, D)")
    if start is None:
        return
    if start.ndim != 1 or start.min() < 0:
        raise ValueError(
            f"start of shape {start.shape}, lowest label {start.min()}; expected a cluster of 0 or "
            "more for each sample"
        )
    if cannot_link is not None and (wrong := cannot_link.broken_by(start)):
        raise ValueError(f"start joins {wrong} pairs of samples that cannot be linked")


def _split_groups(constraints: CannotLink) -> tuple[NDArray[np.uint64], Ints]:
    """The large groups as bits (N, W); the pairs (M, 2) of the others and of the constraints."""
    _, inverse, sizes = np.unique(constraints.groups, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(sizes)[:-1])
    groups = [own for own in members if len(own) > 1 and constraints.groups[own[0]] >= 0]
    groups.sort(key=len, reverse=True)
    words = -(-min(len(groups), GROUPS_AS_BITS) // WORD)
    bits = np.zeros((len(constraints), words), np.uint64)
    for number, own in enumerate(groups[:GROUPS_AS_BITS]):
        bits[own, number // WORD] |= np.uint64(1 << number % WORD)
    pairs = [constraints.pairs]
    for own in groups[GROUPS_AS_BITS:]:
        one, other = np.triu_indices(len(own), 1)
        pairs.append(np.column_stack([own[one], own[other]]))
    return bits, np.concatenate(pairs)


def _edges(graph: csr_matrix, pairs: Ints, absent: float) -> Edges:
    """The stored pairs, and behind them the forbidden ones, each from both ends."""
    count, stored = graph.shape[0], graph.nnz
    rows, columns = np.concatenate([pairs, pairs[:, ::-1]]).T
    order = np.argsort(rows, kind="stable")
    head, tail, following = _lists(np.diff(graph.indptr), 0)
    heads, tails, more = _lists(np.bincount(rows, minlength=count), stored)
    following = np.concatenate([following, more])
    both = (head != NONE) & (heads != NONE)
    following[tail[both]] = heads[both]
    head, tail = np.where(head == NONE, heads, head), np.where(tails == NONE, tail, tails)
    nobody = np.full(count - 1, NONE)
    values = np.zeros(stored + len(rows))
    np.minimum(graph.data, absent, out=values[:stored])
    counts = np.ones(len(values))
    counts[stored:] = -np.inf
    return Edges(
        np.concatenate([head, nobody]),
        np.concatenate([tail, nobody]),
        following,
        np.concatenate([graph.indices, columns[order]], dtype=np.int32, casting="same_kind"),
        values,
        counts,
    )


def _by_length(graph: csr_matrix, absent: float) -> tuple[Ints, Ints, Floats]:
    """The ends and distances of all stored pairs, each once, the shortest first."""
    rows = np.repeat(np.arange(graph.shape[0], dtype=np.int32), np.diff(graph.indptr))
    once = np.flatnonzero(rows < graph.indices)
    once = once[np.argsort(graph.data[once], kind="stable")]
    return rows[once], graph.indices[once], np.minimum(graph.data[once], absent, dtype=np.float64)


def _lists(sizes: Ints, offset: int) -> tuple[Ints, Ints, NDArray[np.int32]]:
    """Heads and tails (N,) of lists of such sizes, whose entries follow one another."""
    ends = offset + np.cumsum(sizes)
    some = sizes > 0
    following = np.arange(offset + 1, ends[-1] + 1, dtype=np.int32)
    following[ends[some] - offset - 1] = NONE
    return np.where(some, ends - sizes, NONE), np.where(some, ends - 1, NONE), following


def _leaves(bits: NDArray[np.uint64], vectors: NDArray[Any] | None) -> Clusters:
    count = len(bits)
    nodes = 2 * count - 1
    groups = np.zeros((nodes, bits.shape[1]), np.uint64)
    groups[:count] = bits
    return Clusters(
        parent=np.arange(nodes, dtype=np.int32),
        size=np.ones(nodes, np.int64),
        height=np.zeros(nodes),
        groups=groups,
        row=np.arange(nodes),
        centres=np.empty((0, 0)) if vectors is None else np.array(vectors, np.float64, order="C"),
        merges=np.empty((count - 1, 2), np.int64),
    )


def _in_order(merges: Ints, heights: Floats) -> tuple[Ints, Floats]:
    """The merges by height, numbered in that order."""
    count = len(heights) + 1
    order = np.argsort(heights, kind="stable")
    number = np.arange(2 * count - 1)
    number[count + order] = count + np.arange(count - 1)
    return np.sort(number[merges[order]], axis=1), heights[order]


@njit(cache=True, nogil=True)
def _one_sided(indptr: Any, indices: Any, data: Any, tolerance: float) -> int:
    """A row with a pair that the other end does not have at this distance, -1 for none."""
    for row in range(len(indptr) - 1):
        for entry in range(indptr[row], indptr[row + 1]):
            other = indices[entry]
            low, high = indptr[other], indptr[other + 1]
            while low < high:
                middle = (low + high) // 2
                if indices[middle] < row:
                    low = middle + 1
                else:
                    high = middle
            if low == indptr[other + 1] or indices[low] != row:
                return row
            if abs(data[low] - data[entry]) > tolerance:
                return row
    return NONE


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
    kind: int, node: int, moved: bool, edges: Edges, parent: Any, seen: Any, place: Any, stamp: int
) -> None:
    """Let the list of a cluster hold each neighbouring cluster once, by its present number.

    `seen` is `stamp` for neighbours, `place` where they are. `moved`: the cluster is new itself.
    """
    before = NONE
    entry = edges.head[node]
    while entry != NONE:
        following = edges.following[entry]
        other = _root(parent, edges.member[entry])
        if other == node or seen[other] == stamp:
            if other != node:
                kept = place[other]
                edges.pairs[kept] += edges.pairs[entry]
                if kind == AVERAGE:
                    edges.value[kept] += edges.value[entry]
                elif kind == COMPLETE:
                    edges.value[kept] = max(edges.value[kept], edges.value[entry])
                else:
                    edges.value[kept] = min(edges.value[kept], edges.value[entry])
            if before == NONE:
                edges.head[node] = following
            else:
                edges.following[before] = following
        else:
            seen[other], place[other] = stamp, entry
            if kind == WARD and (moved or edges.member[entry] != other):
                edges.value[entry] = np.nan
            edges.member[entry] = other
            before = entry
        entry = following
    edges.tail[node] = before


@njit(cache=True, nogil=True)
def _share_group(groups: NDArray[np.uint64], a: int, b: int) -> bool:
    shared = np.uint64(0)
    for word in range(groups.shape[1]):
        shared |= groups[a, word] & groups[b, word]
    return shared != 0


# Sums may be taken in any order, which lets them be taken four at a time.
@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _ward(clusters: Clusters, a: int, b: int) -> float:
    first, second = clusters.centres[clusters.row[a]], clusters.centres[clusters.row[b]]
    total = 0.0
    for d in range(len(first)):
        difference = first[d] - second[d]
        total += difference * difference
    product = 2.0 * clusters.size[a] * clusters.size[b]
    return np.sqrt(product / (clusters.size[a] + clusters.size[b]) * total)


@njit(cache=True, nogil=True)
def _distance(
    kind: int, absent: float, weight: float, a: int, entry: int, edges: Edges, clusters: Clusters
) -> float:
    """Between a cluster and the one of an entry of its list."""
    value, b = edges.value[entry], edges.member[entry]
    if kind == AVERAGE:
        pairs = float(clusters.size[a]) * clusters.size[b]
        return (value + absent * (pairs - edges.pairs[entry])) / pairs
    if kind == COMPLETE:
        whole = edges.pairs[entry] >= float(clusters.size[a]) * clusters.size[b]
        return value if whole else absent
    if kind == BUC:
        return value + weight * (clusters.size[a] + clusters.size[b])
    if kind == WARD and np.isnan(value):
        edges.value[entry] = _ward(clusters, a, b)
        return edges.value[entry]
    return value


@njit(cache=True, nogil=True)
def _nearest_stored(
    kind: int, absent: float, weight: float, tip: int, edges: Edges, clusters: Clusters
) -> tuple[float, int]:
    best, nearest = np.inf, NONE
    entry = edges.head[tip]
    while entry != NONE:
        other = edges.member[entry]
        if edges.pairs[entry] > 0 and not _share_group(clusters.groups, tip, other):
            far = _distance(kind, absent, weight, tip, entry, edges, clusters)
            if far < best or (far == best and other < nearest):
                best, nearest = far, other
        entry = edges.following[entry]
    return best, nearest


@njit(cache=True, nogil=True)
def _nearest_absent(
    kind: int,
    absent: float,
    weight: float,
    tip: int,
    line: Line,
    clusters: Clusters,
    seen: Any,
    stamp: int,
) -> tuple[float, int]:
    """Of the roots that are not stored as neighbours; but for ward, the first that is allowed."""
    best, nearest = np.inf, NONE
    while line.head[line.lowest[0]] == NONE:
        line.lowest[0] += 1
    for key in range(line.lowest[0], len(line.head)):
        node = line.head[key]
        while node != NONE:
            allowed = node != tip and seen[node] != stamp
            if allowed and not _share_group(clusters.groups, tip, node):
                if kind != WARD:
                    return absent + weight * (clusters.size[tip] + clusters.size[node]), node
                far = _ward(clusters, tip, node)
                if far < best:
                    best, nearest = far, node
            node = line.after[node]
    return best, nearest


@njit(cache=True, nogil=True)
def _enter(line: Line, key: int, node: int) -> None:
    line.before[node], line.after[node] = line.tail[key], NONE
    if line.tail[key] == NONE:
        line.head[key] = node
    else:
        line.after[line.tail[key]] = node
    line.tail[key] = node


@njit(cache=True, nogil=True)
def _leave(line: Line, key: int, node: int) -> None:
    before, after = line.before[node], line.after[node]
    if before == NONE:
        line.head[key] = after
    else:
        line.after[before] = after
    if after == NONE:
        line.tail[key] = before
    else:
        line.before[after] = before


@njit(cache=True, nogil=True)
def _join(a: int, b: int, made: int, far: float, edges: Edges, clusters: Clusters) -> None:
    """Cluster `made` of the clusters a and b, at no less than their heights."""
    clusters.merges[made - len(clusters.merges) - 1] = a, b
    clusters.height[made] = max(far, clusters.height[a], clusters.height[b])
    clusters.parent[a] = clusters.parent[b] = made
    clusters.size[made] = clusters.size[a] + clusters.size[b]
    for word in range(clusters.groups.shape[1]):
        clusters.groups[made, word] = clusters.groups[a, word] | clusters.groups[b, word]
    if len(clusters.centres):
        centre, gone = clusters.centres[clusters.row[a]], clusters.centres[clusters.row[b]]
        share = clusters.size[b] / clusters.size[made]
        for d in range(len(centre)):
            centre[d] += share * (gone[d] - centre[d])
        clusters.row[made] = clusters.row[a]
    if edges.head[a] == NONE:
        edges.head[made], edges.tail[made] = edges.head[b], edges.tail[b]
    else:
        edges.head[made], edges.tail[made] = edges.head[a], edges.tail[a]
        if edges.head[b] != NONE:
            edges.following[edges.tail[a]] = edges.head[b]
            edges.tail[made] = edges.tail[b]


@njit(cache=True, nogil=True)
def _join_given(start: Ints, edges: Edges, clusters: Clusters) -> int:
    """Join the clusters to begin with; the number of the next node."""
    owner = np.full(len(start), NONE)
    made = len(start)
    for leaf, name in enumerate(start):
        if owner[name] == NONE:
            owner[name] = leaf
        else:
            _join(owner[name], leaf, made, 0.0, edges, clusters)
            owner[name] = made
            made += 1
    return made


@njit(cache=True, nogil=True)
def _join_by_length(
    stored: tuple[Ints, Ints, Floats], made: int, edges: Edges, clusters: Clusters
) -> int:
    """Join what stored pairs connect, the shortest first; the number of the next node.

    Single linkage, faster than by chains: a large cluster is not searched for each one that joins.
    """
    seen = np.full(len(clusters.parent), NONE, np.int32)
    place = np.empty(len(clusters.parent), np.int32)
    stamp = 0
    ones, others, far = stored
    for pair in range(len(far)):
        a, b = _root(clusters.parent, ones[pair]), _root(clusters.parent, others[pair])
        if a == b or _share_group(clusters.groups, a, b):
            continue
        if clusters.size[a] > clusters.size[b]:
            a, b = b, a
        # Whom the smaller one cannot be linked with.
        stamp += 1
        _gather(SINGLE, a, False, edges, clusters.parent, seen, place, stamp)
        if seen[b] != stamp:
            _join(min(a, b), max(a, b), made, far[pair], edges, clusters)
            made += 1
    return made


@njit(cache=True, nogil=True)
def _grow(
    kind: int,
    absent: float,
    weight: float,
    everywhere: bool,
    made: int,
    edges: Edges,
    clusters: Clusters,
) -> int:
    """Join whatever may be, of stored pairs or `everywhere`; the number of the next node."""
    nodes = len(clusters.parent)
    seen, place = np.full(nodes, NONE, np.int32), np.empty(nodes, np.int32)
    moved = np.ones(nodes, np.bool_)
    keys = len(clusters.merges) + 2 if kind == BUC else 1
    line = Line(
        np.full(keys, NONE, np.int32),
        np.full(keys, NONE, np.int32),
        np.full(nodes, NONE, np.int32),
        np.full(nodes, NONE, np.int32),
        np.zeros(1, np.int64),
    )
    for node in range(made):
        if clusters.parent[node] == node:
            _enter(line, clusters.size[node] if kind == BUC else 0, node)
    chain, steps, spot = np.empty(nodes, np.int32), np.empty(nodes), np.full(nodes, NONE, np.int32)
    length, start, stamp = 0, 0, 0
    while True:
        if length == 0:
            while start < made and clusters.parent[start] != start:
                start += 1
            if start == made:
                return made
            chain[0], steps[0], spot[start], length = start, np.inf, 0, 1
        tip = chain[length - 1]
        stamp += 1
        _gather(kind, tip, moved[tip], edges, clusters.parent, seen, place, stamp)
        moved[tip] = False
        best, nearest = _nearest_stored(kind, absent, weight, tip, edges, clusters)
        # No root that is not stored can be nearer than this; of equally near ones, stored go first.
        least = 0.0
        if kind != WARD:
            least = absent + weight * clusters.size[tip]
        if everywhere and least < best:
            far, other = _nearest_absent(
                kind, absent, weight, tip, line, clusters, seen, stamp
            )  # fmt: skip
            if far < best:
                best, nearest = far, other
        onto = NONE if nearest == NONE else spot[nearest]
        mutual = length > 1 and (onto == length - 2 or not best < steps[length - 1])
        if mutual or (onto != NONE and kind != WARD):
            # Neither has a nearer one. Sums may differ by rounding from the other end: a cluster
            # further down that seems nearer is as near.
            before = chain[length - 2]
            for node in (before, tip):
                spot[node] = NONE
                _leave(line, clusters.size[node] if kind == BUC else 0, node)
            _join(before, tip, made, steps[length - 1], edges, clusters)
            _enter(line, clusters.size[made] if kind == BUC else 0, made)
            made += 1
            length -= 2
        elif nearest == NONE:
            # Whatever joins what, this one may be joined to nobody, and need not be looked at.
            spot[tip] = NONE
            _leave(line, clusters.size[tip] if kind == BUC else 0, tip)
            start += 1
            length = 0
        elif onto != NONE:
            # Ward of some pairs: what was made meanwhile can be nearer to one further down.
            for number in range(onto + 1, length):
                spot[chain[number]] = NONE
            length = onto + 1
        else:
            chain[length], steps[length], spot[nearest] = nearest, best, length
            length += 1


@njit(cache=True, nogil=True)
def _join_forbidden(made: int, edges: Edges, clusters: Clusters) -> None:
    """Join all that is left at height inf: the two lowest numbers, again and again."""
    node, waiting = 0, NONE
    while node < made:
        if clusters.parent[node] == node:
            if waiting == NONE:
                waiting = node
            else:
                _join(waiting, node, made, np.inf, edges, clusters)
                made += 1
                waiting = NONE
        node += 1
