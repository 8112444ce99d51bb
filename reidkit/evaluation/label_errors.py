"""Labels that the features doubt: pictures whose neighbours agree on another identity."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from reidkit.evaluation.protocols import protocol as named_protocol
from reidkit.evaluation.sides import as_side, one_set
from reidkit.neighbours import knn
from reidkit.types import EvalProtocol, Features, Metric

JUNK, DISTRACTOR = -1, 0
USUAL = 0.75  # of the queries have an item of their own identity within the usual distance
FIRST_LOOK = 8  # neighbours fetched at first; few items have more that the protocol leaves out

Side = Literal["query", "gallery"]
Columns = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Doubt:
    """An item whose label is in doubt, with the evidence.

    `position` is the item's place on its `side`; `evidence` and `own` are places in the gallery.
    `own` is the nearest item of the identity that the label names, None where none counts.
    """

    side: Side
    position: int
    pid: int
    suggested: int
    evidence: tuple[int, ...]  # the neighbours that agree, nearest first
    distances: tuple[float, ...]  # theirs
    own: int | None
    own_distance: float  # inf where there is no own


class LabelDoubts(NamedTuple):
    """All doubts, the strongest first, and what they were measured against."""

    doubts: tuple[Doubt, ...]
    usual: float  # three of four queries have an item of their own identity within; NaN: none has
    examined: int  # queries and gallery items that were looked at


class Near(NamedTuple):
    """Gallery items near some items, nearest first: (N, K) each; -1 and inf where fewer count."""

    positions: Columns
    distances: NDArray[np.float64]


@torch.no_grad()
def doubt_labels(
    query: Features,
    gallery: Features,
    protocol: EvalProtocol | str,
    *,
    metric: Metric = "cosine",
    agree: int = 3,
    margin: float = 1.5,
    copy: float = 0.1,
) -> LabelDoubts:
    """Queries and gallery items whose nearest neighbours agree on another identity.

    A label is in doubt where the `agree` nearest items that count all show one other identity, the
    nearest within the usual distance, in which three of four queries find their own identity, and
    the item's own identity is at least `margin` times as far as the farthest of them. One neighbour
    is enough where it is almost the same picture: at most `copy` times the usual distance. An item
    whose own identity has nothing that counts is judged as if it had something at the usual
    distance.

    What counts is the protocol's choice, and an item is never its own neighbour. Distractors (pid
    0, where no query has it) agree on nothing, and are judged as items without an own identity.
    Gallery items are looked at where they stand as wrong answers among the `agree` nearest of a
    query, within the usual distance, at most as many as there are queries: others cost no score,
    and the search stays below two of queries against the gallery. The rule is this project's own.

    Raises:
        ValueError: agree < 1, margin < 1, copy outside [0, 1], or anything `knn` refuses.
    """
    rules = named_protocol(protocol) if isinstance(protocol, str) else protocol
    if agree < 1 or margin < 1 or not 0 <= copy <= 1:
        raise ValueError(
            f"agree = {agree}, margin = {margin}, copy = {copy}: expected agree >= 1, margin >= 1 "
            "and copy in [0, 1]"
        )
    world = _World(query, gallery, rules, metric)
    every = np.arange(len(query))
    near, own = world.nearest("query", every, agree), world.own("query", every)
    known = own.distances[np.isfinite(own.distances)]
    if not known.size:
        return LabelDoubts((), float("nan"), 0)
    usual = float(np.quantile(known, USUAL))

    def judge(side: Side, items: Columns, near: Near, own: Near) -> Iterator[Doubt]:
        for row, item in enumerate(items.tolist()):
            pid, found, far = world.pids[side][item], near.positions[row], near.distances[row]
            shown = world.pids["gallery"][found]
            if found[0] < 0 or shown[0] in (pid, world.nobody):
                continue
            if found[-1] >= 0 and (shown == shown[0]).all() and far[0] <= usual:
                count = agree
            elif far[0] <= copy * usual:
                count = 1
            else:
                continue
            mine, mine_far = int(own.positions[row, 0]), float(own.distances[row, 0])
            reach = far[count - 1]
            measure = mine_far if mine >= 0 else usual
            if measure > reach and measure >= margin * reach:
                yield Doubt(
                    side=side,
                    position=item,
                    pid=int(pid),
                    suggested=int(shown[0]),
                    evidence=tuple(found[:count].tolist()),
                    distances=tuple(far[:count].tolist()),
                    own=mine if mine >= 0 else None,
                    own_distance=mine_far,
                )

    doubts = list(judge("query", every, near, own))
    examined = len(query)
    if not world.one_set:
        suspects = world.wrong_answers(near, usual)[: len(query)]
        near, own = world.nearest("gallery", suspects, agree), world.own("gallery", suspects)
        doubts += judge("gallery", suspects, near, own)
        examined += len(suspects)

    def weakness(doubt: Doubt) -> float:
        return doubt.distances[-1] / (usual if doubt.own is None else doubt.own_distance)

    doubts.sort(key=lambda doubt: (weakness(doubt), doubt.side, doubt.position))
    return LabelDoubts(tuple(doubts), usual, examined)


class _World:
    """Both sides as columns of numbers, and who may be whose neighbour."""

    def __init__(
        self, query: Features, gallery: Features, protocol: EvalProtocol, metric: Metric
    ) -> None:
        self.features: Mapping[Side, Features] = {"query": query, "gallery": gallery}
        self.pids = {side: features.pids.numpy() for side, features in self.features.items()}
        self.one_set = one_set(as_side(query), as_side(gallery))
        self.pictures = self._pictures()
        self.exclude, self.metric = protocol.exclude, metric
        names = [s.view for f in self.features.values() for s in f.samples]
        codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
        self.groups = {
            side: np.array([codes[s.view] for s in features.samples], np.int64)
            if self.exclude == "same_view"
            else features.camids.numpy()
            for side, features in self.features.items()
        }
        has_distractors = DISTRACTOR not in self.pids["query"]
        self.nobody = DISTRACTOR if has_distractors else JUNK
        self.members = _places(self.pids["gallery"])

    def nearest(self, side: Side, items: Columns, count: int) -> Near:
        """The `count` nearest gallery items that may be neighbours of `items` (N,)."""
        gallery, total = self.features["gallery"], len(self.features["gallery"])
        near = Near(np.full((len(items), count), -1), np.full((len(items), count), np.inf))
        waiting, look = np.arange(len(items)), min(max(FIRST_LOOK, count), total)
        while waiting.size:
            vectors = self.features[side].vectors[items[waiting]]
            far, found = knn(vectors, gallery.vectors, look, metric=self.metric)
            kept = self._kept(side, items[waiting], Near(found.cpu().numpy(), far.cpu().numpy()))
            # Where too much of what was fetched does not count, more is fetched.
            done = (kept.positions[:, : min(count, look)] >= 0).all(1) | (look == total)
            for whole, part in zip(near, kept, strict=True):
                whole[waiting[done], : min(count, look)] = part[done, :count]
            waiting, look = waiting[~done], min(8 * look, total)
        return near

    def own(self, side: Side, items: Columns) -> Near:
        """The nearest gallery item of each item's own identity, as `nearest` gives it, K = 1."""
        near = Near(np.full((len(items), 1), -1), np.full((len(items), 1), np.inf))
        for pid, rows in _places(self.pids[side][items]).items():
            if pid in (JUNK, self.nobody) or pid not in self.members:
                continue
            members = self.members[pid]
            far, places = knn(
                self.features[side].vectors[items[rows]],
                self.features["gallery"].vectors[members],
                len(members),
                metric=self.metric,
                backend="torch",
            )
            reached = Near(members[places.cpu().numpy()], far.cpu().numpy())
            kept = self._kept(side, items[rows], reached)
            for whole, part in zip(near, kept, strict=True):
                whole[rows] = part[:, :1]
        return near

    def wrong_answers(self, near: Near, usual: float) -> Columns:
        """Gallery items that stand wrongly among a query's neighbours, closest first."""
        wrong = self.pids["gallery"][near.positions] != self.pids["query"][:, None]
        wrong &= (near.positions >= 0) & (near.distances <= usual)
        order = np.argsort(near.distances[wrong], kind="stable")
        return np.array(list(dict.fromkeys(near.positions[wrong][order].tolist())), np.int64)

    def _kept(self, side: Side, items: Columns, near: Near) -> Near:
        """What counts of `near` moved to the front, the rest -1 and inf."""
        pids, groups = self.pids["gallery"][near.positions], self.groups["gallery"][near.positions]
        same = pids == self.pids[side][items, None]
        together = groups == self.groups[side][items, None]
        out = (pids == JUNK) | (
            self.pictures["gallery"][near.positions] == self.pictures[side][items, None]
        )
        if self.exclude == "same_camera":
            out |= same & together
        elif self.exclude == "same_view":
            out |= together
        order = np.argsort(out, axis=1, kind="stable")
        positions, far, out = (
            np.take_along_axis(array, order, 1) for array in (near.positions, near.distances, out)
        )
        return Near(np.where(out, -1, positions), np.where(out, np.inf, far))

    def _pictures(self) -> Mapping[Side, Columns]:
        """Codes that are equal where two items are one picture."""
        codes: dict[object, int] = {}
        return {
            side: np.array(
                [
                    codes.setdefault(s.frames or (self.one_set or side, place), len(codes))
                    for place, s in enumerate(features.samples)
                ],
                np.int64,
            )
            for side, features in self.features.items()
        }


def _places(values: Columns) -> Mapping[int, Columns]:
    """Where each value stands, ascending."""
    order = np.argsort(values, kind="stable")
    found, starts = np.unique(values[order], return_index=True)
    ends = np.append(starts, len(values))[1:]
    return {
        value: order[start:end]
        for value, start, end in zip(found.tolist(), starts, ends, strict=True)
    }
