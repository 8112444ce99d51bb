"""Which gallery items count for a query: the right answers, and those the protocol leaves out."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from reidkit.evaluation import kernels
from reidkit.evaluation.sides import Integers, Side, as_side, one_set
from reidkit.types import UNKNOWN_CAMERA, EvalProtocol, Features

JUNK = -1


class Choice(NamedTuple):
    """Gallery positions for one query; everything in neither list is a wrong answer."""

    right: Integers  # (R,) ascending
    excluded: Integers  # (E,) neither right nor wrong


class Lists(NamedTuple):
    """A list of gallery positions for every query: order[start[q]:stop[q]], ascending."""

    order: Integers  # (G,), or empty where every list is
    start: Integers  # (Q,)
    stop: Integers  # (Q,)


class Candidates:
    """Answers for every query without ever building a (Q, G) mask.

    Left out are, by protocol: the query's own identity in its own camera (same_camera; Zheng et
    al., ICCV 2015), every item of the query's view (same_view; gait), the query's own entry
    (itself; by position where query and gallery are one set, else by equal frames), or nothing.
    Gallery items with pid -1 are junk and always left out; with gallery="without_queries" so is
    every item that is a query itself.

    Attributes:
        by_pid: the gallery items of the query's identity.
        by_group: items left out whomever they show.
        left_out: gallery positions that count for no query.

    Raises:
        ValueError: a side is empty, a query has no identity (pid -1), or cameras are unknown where
            the protocol looks at them.
    """

    def __init__(
        self, query: Features | Side, gallery: Features | Side, protocol: EvalProtocol
    ) -> None:
        same = query is gallery
        query = as_side(query)
        gallery = query if same else as_side(gallery)
        if not len(query) or not len(gallery):
            side = "gallery" if len(query) else "query"
            raise ValueError(
                f"the {side} is empty; evaluation needs at least one sample on each side"
            )
        self.exclude = protocol.exclude
        if (unknown := np.flatnonzero(query.pids == JUNK)).size:
            name = query.name(int(unknown[0]))
            raise ValueError(
                f"query {name} has pid -1 (unknown); remove queries without an identity"
            )
        self.size = len(gallery)
        self.by_pid = _lists(query.pids, gallery.pids)
        junk = gallery.pids == JUNK
        if protocol.gallery == "without_queries":
            junk |= np.isin(*_identity_of_samples(gallery, query))
        self.left_out = np.flatnonzero(junk)
        nobody = np.empty(0, np.int64)
        self.query_groups, self.groups = nobody, nobody
        if self.exclude == "same_camera":
            for name, camids in (("query", query.camids), ("gallery", gallery.camids)):
                if (camids == UNKNOWN_CAMERA).any():
                    raise ValueError(
                        f"this protocol leaves out the query's camera and needs camids, but those "
                        f"of the {name} are unknown; or use 'no_camera'"
                    )
            self.query_groups, self.groups = query.camids, gallery.camids
        elif self.exclude == "same_view":
            self.query_groups, self.groups = _views(query, gallery)
        elif self.exclude == "itself":
            self.query_groups, self.groups = _identity_of_samples(query, gallery)
        # The camera rule is about the query's identity only; a view or the query itself is left out
        # whoever it shows.
        whole = self.exclude in ("same_view", "itself")
        none = np.zeros(len(query), np.int64)
        self.by_group = (
            _lists(self.query_groups, self.groups) if whole else Lists(nobody, none, none)
        )
        if self.left_out.size and protocol.gallery == "without_queries":
            # A right answer that is a query itself must not count: it has no place in the lists.
            self.by_pid = _without(self.by_pid, junk)

    def right(self) -> tuple[Integers, Integers]:
        """Offsets (Q + 1,) and gallery positions (M,) of the right answers of all queries.

        Raises:
            ValueError: there is none at all.
        """
        offsets = np.zeros(len(self.by_pid.start) + 1, np.int64)
        lists = (*self.by_pid, self.query_groups, self.groups)
        kernels.right_answers(*lists, offsets, np.empty(0, np.int64))
        np.cumsum(offsets, out=offsets)
        if not offsets[-1]:
            raise ValueError(
                f"no query has a right answer in the gallery (left out: {self.exclude}); "
                "check that pids and camids of both sides belong together"
            )
        columns = np.empty(offsets[-1], np.int64)
        kernels.right_answers(*lists, offsets, columns)
        return offsets, columns

    def counts(self) -> Integers:
        """How many gallery items are left for each query after all exclusions. (Q,)."""
        junk = np.zeros(self.size, bool)
        junk[self.left_out] = True
        if self.by_group.order.size:
            lists = _without(self.by_group, junk)
            excluded = lists.stop - lists.start
        elif self.exclude == "same_camera":
            lists = _without(self.by_pid, junk)
            excluded = lists.stop - lists.start - np.diff(self.right()[0])
        else:
            excluded = np.zeros(len(self.by_pid.start), np.int64)
        return self.size - len(self.left_out) - excluded

    def of(self, q: int) -> Choice:
        """The right and the left-out gallery positions of query number `q`."""
        same = self.by_pid.order[self.by_pid.start[q] : self.by_pid.stop[q]]
        if self.exclude == "nothing":
            return Choice(same, self.left_out)
        out = self.groups[same] == self.query_groups[q]
        excluded = same[out]
        if self.by_group.order.size:
            excluded = self.by_group.order[self.by_group.start[q] : self.by_group.stop[q]]
        if self.left_out.size:
            excluded = np.union1d(excluded, self.left_out)
        return Choice(same[~out], excluded)


def _lists(wanted: Integers, groups: Integers) -> Lists:
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    start = np.searchsorted(ordered, wanted, side="left")
    stop = np.searchsorted(ordered, wanted, side="right")
    return Lists(order, start, stop)


def _without(lists: Lists, unwanted: np.ndarray) -> Lists:
    kept = ~unwanted[lists.order]
    before = np.concatenate([[0], np.cumsum(kept)])
    return Lists(lists.order[kept], before[lists.start], before[lists.stop])


def _views(query: Side, gallery: Side) -> tuple[Integers, Integers]:
    codes: dict[str, int] = {}
    sides = []
    for side in (query, gallery):
        names = [s.view for s in side.samples] if side.samples is not None else [""] * len(side)
        sides.append(np.array([codes.setdefault(n, len(codes)) for n in names], dtype=np.int64))
    return sides[0], sides[1]


def _identity_of_samples(query: Side, gallery: Side) -> tuple[Integers, Integers]:
    """Codes that are equal exactly where a gallery item is the query itself."""
    if one_set(query, gallery):
        positions = np.arange(len(gallery))
        return positions, positions
    codes: dict[Sequence[str], int] = {}
    # Samples without files cannot be recognised on the other side: codes -1 and -2 never meet.
    sides = []
    for side, nobody in ((query, -1), (gallery, -2)):
        frames = [s.frames for s in side.samples] if side.samples is not None else [()] * len(side)
        sides.append(
            np.array([codes.setdefault(f, len(codes)) if f else nobody for f in frames], np.int64)
        )
    return sides[0], sides[1]
