"""The rank of every right answer: counted, never sorted, in blocks of queries and gallery."""

import re
from collections.abc import Iterable
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit.evaluation import kernels
from reidkit.evaluation.candidates import Candidates
from reidkit.evaluation.sides import Floats, Integers, Side, as_side
from reidkit.evaluation.space import Block, Space, multiply
from reidkit.evaluation.threads import even_parts, in_threads
from reidkit.types import EvalProtocol, Features, Hits, Metric

# A block is so large that packing it for the product no longer counts, and so small that its
# scores are still in the cache when they are counted.
QUERY_ROWS, GALLERY_ROWS = 2048, 1024
NO_LIMIT = np.iinfo(np.int64).max
READY_PARTS = 8  # parts of queries a thread has ready while the gallery passes by once
UNDECIDED = 16  # a query with more than G / UNDECIDED undecided pairs is scored in float64


class Answers(NamedTuple):
    """The right answers of all queries, best first within a query."""

    offsets: Integers  # (Q + 1,)
    value: Floats  # (M,) as `Space.exact`
    tie: Floats  # (M,)
    low: NDArray[np.floating]  # (M,) a lower score is certainly further
    high: NDArray[np.floating]  # (M,) a score as high is certainly as close


class Exact(NamedTuple):
    """What measures a pair that a product cannot decide; without rows, such pairs are equal."""

    metric: int
    queries: NDArray[np.floating]
    gallery: NDArray[np.floating]
    query_norms: Floats
    gallery_norms: Floats


class Tally(NamedTuple):
    """What is counted."""

    closer: Integers  # (M,) wrong answers as close as the right one, or closer
    tied: NDArray[np.bool_]  # (Q,)
    spent: Integers  # (Q,) undecided pairs


class Ranking(NamedTuple):
    """Hits, and what was learned on the way."""

    hits: Hits
    nearest_right: Floats  # (Q,) closeness of the best right answer as `Space.exact`, else NaN
    space: Space


def find_hits(
    query: Features | Side,
    gallery: Features | Side,
    protocol: EvalProtocol,
    *,
    metric: Metric = "cosine",
    memory: str | int = "512MB",
) -> Hits:
    """Ranks of all right answers of all queries, exactly.

    A right answer ranks behind every wrong one at the same distance, whatever the order of the
    gallery. Products are float32; where their rounding could change a rank the pair is measured
    again in float64, so ranks are those of float64 distances, and copies of an item are tied.

    Args:
        query: vectors (Q, D).
        gallery: vectors (G, D); may be the query itself (leave-one-out). Items with pid -1 are junk
            and left out.
        protocol: which gallery items count for a query.
        metric: cosine (vectors are normalised here) or euclidean.
        memory: bound on what is held at a time beside the features and the ranks, bytes or "512MB".

    Raises:
        ValueError: an empty side, different dimensions or models, a feature that is not finite
            (with its sample's name), or a gallery without a right answer for any query.
    """
    return rank(query, gallery, protocol, metric=metric, memory=memory).hits


@torch.no_grad()
def rank(
    query: Features | Side,
    gallery: Features | Side,
    protocol: EvalProtocol,
    *,
    metric: Metric = "cosine",
    memory: str | int = "512MB",
) -> Ranking:
    """`find_hits`, with what was learned of the features on the way."""
    same = query is gallery
    query = as_side(query)
    gallery = query if same else as_side(gallery)
    candidates = Candidates(query, gallery, protocol)
    space = Space(query, gallery, metric, candidates.left_out)
    offsets, columns = candidates.right()
    owner = np.repeat(np.arange(len(query)), np.diff(offsets))
    value = space.exact(owner, columns)
    kernels.sort_descending(value, offsets)
    tally = _count(space, candidates, offsets, owner, value, memory)
    first = np.full(len(query), np.nan)
    asked = np.diff(offsets) > 0
    first[asked] = value[offsets[:-1][asked]]
    return Ranking(_hits(offsets, owner, tally, candidates), first, space)


def hits_of_distances(
    blocks: Iterable[NDArray | Tensor], query: Side, gallery: Side, protocol: EvalProtocol
) -> Hits:
    """As `find_hits`, from row blocks (R, G) of distances in the order of the queries.

    Distances are taken as they are: equal ones are tied, and nothing is rounded.

    Raises:
        ValueError: blocks of another shape, a distance that is NaN, or no right answer.
    """
    candidates = Candidates(query, gallery, protocol)
    offsets, columns = candidates.right()
    owner = np.repeat(np.arange(len(query)), np.diff(offsets))
    tally = _empty_tally(len(owner), len(query))
    scale = np.ones(len(gallery))
    bias = np.zeros(len(gallery))
    bias[candidates.left_out] = -np.inf
    value, tie = np.empty(len(owner)), np.zeros(len(owner))
    start = 0
    for block in blocks:
        scores = _scores_of(block, start, len(query), len(gallery))
        queries = np.arange(start, start + len(scores))
        mine = slice(offsets[start], offsets[start + len(scores)])
        value[mine] = scores[owner[mine] - start, columns[mine]]
        kernels.sort_descending(value, offsets[start : start + len(scores) + 1])
        # An equal score is neither certainly further nor certainly closer: a tie.
        answers = Answers(offsets, value, tie, value, np.nextafter(value, np.inf))
        kernels.count_closer(
            scores,
            scale,
            bias,
            queries,
            0,
            candidates.by_pid,
            candidates.by_group,
            answers,
            _nothing_exact(scores),
            NO_LIMIT,
            *tally,
        )
        start += len(scores)
    if start != len(query):
        raise ValueError(f"{start} rows of distances for {len(query)} queries")
    return _hits(offsets, owner, tally, candidates)


def _scores_of(block: NDArray | Tensor, start: int, queries: int, gallery: int) -> Floats:
    array = np.asarray(block.detach().cpu() if isinstance(block, Tensor) else block)
    if array.ndim != 2 or array.shape[1] != gallery or start + len(array) > queries:
        raise ValueError(
            f"a block of distances has shape {array.shape} at row {start}; expected rows of "
            f"{gallery} gallery items, {queries} rows in all"
        )
    scores = -array.astype(np.float64)
    if np.isnan(scores).any():
        row, column = np.argwhere(np.isnan(scores))[0]
        raise ValueError(f"the distance of query {start + row} to gallery item {column} is NaN")
    # An infinite distance is a far item; -inf is what is left out.
    return np.maximum(scores, np.finfo(np.float64).min)


def _count(
    space: Space,
    candidates: Candidates,
    offsets: Integers,
    owner: Integers,
    value: Floats,
    memory: str | int,
) -> Tally:
    """The tally over the whole gallery: in float32, then in float64 for the queries it does not
    suffice for.
    """
    tally = _empty_tally(len(owner), len(offsets) - 1)
    score, tie = space.scores(value, owner), space.tie(value)
    exact = Exact(
        space.kind,
        np.asarray(space.query.vectors),
        np.asarray(space.gallery.vectors),
        space.query_survey.norms,
        space.gallery_survey.norms,
    )
    budget = max(64, len(space.gallery) // UNDECIDED)
    asked = np.flatnonzero(np.diff(offsets))
    _run(space, candidates, (offsets, value, tie, score), exact, asked, budget, memory, tally)
    hard = np.flatnonzero(tally.spent > budget)
    if hard.size:
        void = np.isin(owner, hard)
        tally.closer[void] = 0
        tally.tied[hard] = False
        tally.spent[hard] = 0
        nothing = _nothing_exact(exact.queries)
        _run(
            space, candidates, (offsets, value, tie, score), nothing, hard, NO_LIMIT, memory, tally
        )
    return tally


def _run(
    space: Space,
    candidates: Candidates,
    right: tuple[Integers, Floats, Floats, Floats],
    exact: Exact,
    asked: Integers,
    budget: int,
    memory: str | int,
    tally: Tally,
) -> None:
    """Count for the queries `asked`, in float32 with exact pairs or else in float64."""
    offsets, value, tie, score = right
    dtype: type[np.floating] = np.float32 if len(exact.queries) else np.float64
    threads = torch.get_num_threads()
    rows, columns = block_shape(
        len(asked), len(space.gallery), space.dim, threads, memory, np.dtype(dtype).itemsize
    )
    error = np.zeros(len(offsets) - 1)

    def count(batch: Integers) -> None:
        ready, error[batch] = space.queries(batch, dtype)
        wide = np.repeat(error, np.diff(offsets))
        low, high = (score - wide).astype(dtype), (score + wide).astype(dtype)
        answers = Answers(offsets, value, tie, low, high)
        parts = even_parts(len(batch), rows, threads)
        locks = {part: Lock() for part in parts}
        buffers = _Buffers(rows * columns, dtype)

        def serve(item: tuple[Block, tuple[int, int]]) -> None:
            block, part = item
            shape = part[1] - part[0], len(block.rows)
            buffer = buffers.take()
            scores = buffer[: shape[0] * shape[1]].reshape(shape)
            multiply(ready[slice(*part)], block.rows, scores, space.query.device)
            with locks[part]:  # two blocks of the gallery may reach one query at a time
                kernels.count_closer(
                    scores,
                    block.scale,
                    block.bias,
                    batch[slice(*part)],
                    block.first,
                    candidates.by_pid,
                    candidates.by_group,
                    answers,
                    exact,
                    budget,
                    *tally,
                )
            buffers.give(buffer)

        items = ((block, part) for block in space.blocks(columns, dtype) for part in parts)
        in_threads(items, serve, float(len(batch)) * len(space.gallery) * space.dim)

    # Queries are made ready as many at a time as fit; the gallery passes by for each such batch.
    step = rows * threads * READY_PARTS
    for begin in range(0, len(asked), step):
        count(asked[begin : begin + step])


class _Buffers:
    """Score blocks that are used again: freed one by one they would leave holes in the heap."""

    def __init__(self, size: int, dtype: type[np.floating]) -> None:
        self.size, self.dtype = size, dtype
        self.idle: list[NDArray] = []

    def take(self) -> NDArray:
        try:
            return self.idle.pop()
        except IndexError:
            return np.empty(self.size, self.dtype)

    def give(self, buffer: NDArray) -> None:
        self.idle.append(buffer)


def _empty_tally(answers: int, queries: int) -> Tally:
    return Tally(np.zeros(answers, np.int64), np.zeros(queries, bool), np.zeros(queries, np.int64))


def _nothing_exact(like: NDArray) -> Exact:
    none = kernels.no_rows(like)
    return Exact(kernels.COSINE, none, none, np.empty(0), np.empty(0))


def _hits(offsets: Integers, owner: Integers, tally: Tally, candidates: Candidates) -> Hits:
    place = np.arange(len(owner)) - offsets[owner] + 1
    return Hits(
        ranks=torch.from_numpy(tally.closer + place),
        offsets=torch.from_numpy(offsets),
        candidates=torch.from_numpy(candidates.counts()),
        tied=torch.from_numpy(tally.tied),
    )


def block_shape(
    queries: int, gallery: int, dim: int, threads: int, memory: str | int, itemsize: int
) -> tuple[int, int]:
    """Rows of queries and of the gallery that a thread works on at a time.

    As large as pays, halved until the scores of all threads, two prepared blocks of the gallery and
    the prepared queries fit into `memory`.
    """
    limit = memory_bytes(memory)
    rows, columns = min(QUERY_ROWS, queries), min(GALLERY_ROWS, gallery)

    def needed() -> float:
        ready = min(queries, rows * threads * READY_PARTS) * dim
        return itemsize * (ready + threads * rows * columns + (threads + 1) * columns * dim)

    while needed() > limit and (rows > 1 or columns > 1):
        if columns >= rows:
            columns = (columns + 1) // 2
        else:
            rows = (rows + 1) // 2
    return rows, columns


def memory_bytes(memory: str | int) -> float:
    """A size as "512MB", "2GB" or a number of bytes; a ValueError where it is neither."""
    units = {"": 1, "B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?B)?\s*", str(memory), re.IGNORECASE)
    size = float(match[1]) * units[(match[2] or "").upper()] if match else 0
    if size <= 0:
        raise ValueError(f"memory = {memory!r}: expected a positive size such as '512MB', or bytes")
    return size


def block_rows(columns: int, memory: str | int, itemsize: int = 8) -> int:
    """How many rows of `columns` scores fit into `memory`; at least 1, at most 256."""
    return int(min(max(memory_bytes(memory) // (itemsize * columns), 1), 256))
