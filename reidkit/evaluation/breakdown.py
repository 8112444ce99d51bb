"""Where a model fails: scores for each pair of a query's and a gallery's camera, or view."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from reidkit.evaluation.candidates import Candidates
from reidkit.evaluation.hits import find_hits
from reidkit.evaluation.metrics import average_precision, recall_at
from reidkit.evaluation.protocols import protocol as named_protocol
from reidkit.evaluation.sides import Integers, Side, as_side
from reidkit.types import EvalProtocol, Features, Metric, Sample

Group = int | str


@dataclass(frozen=True, slots=True)
class Cell:
    """Scores of the queries of one group when the gallery is one group: fractions in [0, 1].

    `queries` counts those with a right answer in it; the means are over them.
    """

    query: Group
    gallery: Group
    queries: int
    mean_average_precision: float
    rank_1: float


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Cells of all pairs in which some query has a right answer, by query, then by gallery."""

    kind: Literal["camera", "view"]
    cells: tuple[Cell, ...]

    def table(self, score: Literal["mAP", "rank-1"] = "mAP") -> str:
        """Lines a person can read, in percent: queries down, galleries across, '-' without any."""
        values = {
            (cell.query, cell.gallery): (
                cell.mean_average_precision if score == "mAP" else cell.rank_1
            )
            for cell in self.cells
        }
        rows, columns = (list(dict.fromkeys(sorted(names))) for names in zip(*values, strict=True))
        width = max(7, *(len(str(name)) for name in rows + columns))
        title = f"{score}: query {self.kind} down, gallery {self.kind} across"
        lines = [title, "  ".join(f"{name!s:>{width}}" for name in ["", *columns])]
        for row in rows:
            found = [values.get((row, column)) for column in columns]
            texts = ["-" if value is None else f"{100 * value:.2f}%" for value in found]
            lines.append("  ".join(f"{text!s:>{width}}" for text in [row, *texts]))
        return "\n".join(lines)

    def hardest(self, count: int = 5, *, at_least: int = 10) -> tuple[Cell, ...]:
        """The cells of lowest mAP with so many queries, the worst first."""
        enough = [cell for cell in self.cells if cell.queries >= at_least]
        return tuple(sorted(enough, key=lambda cell: cell.mean_average_precision)[:count])


def by_camera_pair(
    query: Features | Side,
    gallery: Features | Side,
    protocol: EvalProtocol | str,
    *,
    metric: Metric = "cosine",
) -> Breakdown:
    """Scores for each camera of the query and each of the gallery, which then holds no other.

    Groups are camids, 0-based. What a protocol leaves out stays out: under `same_camera` a camera
    paired with itself has no right answer, and no cell. Each cell is exact, as if the rest of the
    gallery did not exist. Together they take no more products than one evaluation, and a copy of
    one camera's vectors at a time.

    Raises:
        ValueError: a single-shot protocol, or anything `find_hits` refuses.
    """
    left, right = _sides(query, gallery)
    groups = left.camids.tolist(), right.camids.tolist()
    return Breakdown("camera", _cells(left, right, groups, protocol, metric))


def by_view(
    query: Features | Side,
    gallery: Features | Side,
    protocol: EvalProtocol | str,
    *,
    metric: Metric = "cosine",
) -> Breakdown:
    """As `by_camera_pair`, for each view of the query and each of the gallery.

    Raises:
        ValueError: samples without a view, a single-shot protocol, or anything `find_hits` refuses.
    """
    left, right = _sides(query, gallery)
    groups = _views("query", left), _views("gallery", right)
    return Breakdown("view", _cells(left, right, groups, protocol, metric))


def _sides(query: Features | Side, gallery: Features | Side) -> tuple[Side, Side]:
    left = as_side(query)
    return left, left if query is gallery else as_side(gallery)


def _views(name: str, side: Side) -> list[str]:
    views = [sample.view for sample in side.samples or ()]
    if not views or "" in views:
        position = views.index("") if views else 0
        raise ValueError(f"{name} {position} ({side.name(position)}) has no view to break down by")
    return views


def _cells(
    query: Side,
    gallery: Side,
    groups: tuple[Sequence[Group], Sequence[Group]],
    protocol: EvalProtocol | str,
    metric: Metric,
) -> tuple[Cell, ...]:
    rules = named_protocol(protocol) if isinstance(protocol, str) else protocol
    if rules.single_shot:
        raise ValueError("a single-shot protocol draws its gallery: it has no breakdown")
    candidates = Candidates(query, gallery, rules)
    offsets, columns = candidates.right()
    owner = np.repeat(np.arange(len(query)), np.diff(offsets))
    numbers = {name: n for n, name in enumerate(sorted(set(groups[1])))}
    codes = np.array([numbers[name] for name in groups[1]])
    kept = np.ones(len(gallery), dtype=bool)
    kept[candidates.left_out] = False
    if rules.exclude == "itself":
        # Positions tell who is who in the whole sets only; parts need names.
        query = _named(query, candidates.query_groups)
        gallery = _named(gallery, candidates.groups)
    rules = replace(rules, gallery="all")  # `left_out` has seen to it
    cells = []
    for name, code in numbers.items():
        # A query without a right answer here would only cost its products.
        asked = np.unique(owner[codes[columns] == code])
        if not asked.size:
            continue
        part = _part(gallery, np.flatnonzero(kept & (codes == code)))
        hits = find_hits(_part(query, asked), part, rules, metric=metric)
        precision, first = average_precision(hits, rules.precision), recall_at(hits, 1)
        asking = [groups[0][q] for q in asked]
        for group in set(asking):
            mine = [i for i, other in enumerate(asking) if other == group]
            means = float(precision[mine].mean()), float(first[mine].mean())
            cells.append(Cell(group, name, len(mine), *means))
    return tuple(sorted(cells, key=lambda cell: (cell.query, cell.gallery)))


def _named(side: Side, codes: Integers) -> Side:
    """The side with samples whose files are equal exactly where the codes are."""
    samples = side.samples
    if samples is None:
        pairs = zip(side.pids.tolist(), side.camids.tolist(), strict=True)
        samples = [Sample((), pid, camid) for pid, camid in pairs]
    named = [
        replace(sample, frames=(str(code),) if code >= 0 else ())
        for sample, code in zip(samples, codes.tolist(), strict=True)
    ]
    return replace(side, samples=named)


def _part(side: Side, positions: Integers) -> Side:
    samples = None if side.samples is None else [side.samples[i] for i in positions]
    return replace(
        side,
        vectors=np.asarray(side.vectors)[positions],
        pids=side.pids[positions],
        camids=side.camids[positions],
        samples=samples,
    )
