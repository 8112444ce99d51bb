"""Which gallery items count for a query: the right answers, and those the protocol leaves out."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from reidkit.types import EvalProtocol, Features

Columns = NDArray[np.int64]
JUNK = -1


class Choice(NamedTuple):
    """Gallery positions for one query; everything in neither list is a wrong answer."""

    right: Columns  # (R,) ascending
    excluded: Columns  # (E,) neither right nor wrong


class Candidates:
    """Answers `of(q)` for every query without ever building a (Q, G) mask.

    Left out are, by protocol: the query's own identity in its own camera (same_camera; Zheng et
    al., ICCV 2015), every item of the query's view (same_view; gait), the query's own entry
    (itself; by position where query and gallery are one set, else by equal frames), or nothing.
    Gallery items with pid -1 are junk and always left out.

    Raises:
        ValueError: a side is empty, or a query has no identity (pid -1).
    """

    def __init__(self, query: Features, gallery: Features, protocol: EvalProtocol) -> None:
        if not len(query) or not len(gallery):
            side = "gallery" if len(query) else "query"
            raise ValueError(
                f"the {side} is empty; evaluation needs at least one sample on each side"
            )
        self.exclude = protocol.exclude
        self.query_pids, pids = query.pids.numpy(), gallery.pids.numpy()
        if (unknown := np.flatnonzero(self.query_pids == JUNK)).size:
            name = query.samples[unknown[0]].name
            raise ValueError(
                f"query {name} has pid -1 (unknown); remove queries without an identity"
            )
        self.by_pid = np.argsort(pids, kind="stable")
        self.sorted_pids = pids[self.by_pid]
        self.junk = np.flatnonzero(pids == JUNK)
        if self.exclude == "same_camera":
            self.query_groups, self.groups = query.camids.numpy(), gallery.camids.numpy()
        elif self.exclude == "same_view":
            codes: dict[str, int] = {}
            self.query_groups = _coded([s.view for s in query.samples], codes)
            self.groups = _coded([s.view for s in gallery.samples], codes)
        elif self.exclude == "itself":
            self.query_groups, self.groups = _identity_of_samples(query, gallery)
        self.members = _members(self.groups) if self.exclude in ("same_view", "itself") else {}

    def of(self, q: int) -> Choice:
        """The right and the left-out gallery positions of query number `q`."""
        pid = self.query_pids[q]
        start, stop = np.searchsorted(self.sorted_pids, [pid, pid + 1])
        same = self.by_pid[start:stop]
        if self.exclude == "nothing":
            return Choice(same, self.junk)
        out = self.groups[same] == self.query_groups[q]
        # The camera rule is about the query's identity only; a view or the query itself is left out
        # whoever it shows.
        left_out = same[out] if self.exclude == "same_camera" else self._group(self.query_groups[q])
        if self.junk.size:
            left_out = np.union1d(left_out, self.junk)
        return Choice(same[~out], left_out)

    def _group(self, code: int) -> Columns:
        return self.members.get(int(code), np.empty(0, np.int64))


def _coded(names: list[str], codes: dict[str, int]) -> Columns:
    return np.array([codes.setdefault(name, len(codes)) for name in names], dtype=np.int64)


def _members(groups: Columns) -> dict[int, Columns]:
    order = np.argsort(groups, kind="stable")
    codes, starts = np.unique(groups[order], return_index=True)
    return dict(zip(codes.tolist(), np.split(order, starts[1:]), strict=True))


def _identity_of_samples(query: Features, gallery: Features) -> tuple[Columns, Columns]:
    """Codes that are equal exactly where a gallery item is the query itself."""
    if query is gallery or (
        query.samples == gallery.samples and torch.equal(query.vectors, gallery.vectors)
    ):
        positions = np.arange(len(gallery))
        return positions, positions
    codes: dict[tuple[str, ...], int] = {}
    # Samples without files cannot be recognised on the other side: codes -1 and -2 never meet.
    sides = (
        [codes.setdefault(s.frames, len(codes)) if s.frames else nobody for s in side.samples]
        for side, nobody in ((query, -1), (gallery, -2))
    )
    left, right = (np.array(side, dtype=np.int64) for side in sides)
    return left, right
