"""Persons of single frames joined to tracklets, by the overlap of their boxes.

A box is expected where the last ones of its track lead to, in a straight line. Where two tracks
expect their boxes in one detection the people stand before each other: those frames are marked,
and if afterwards it is not plain who is who, both tracks end. A tracklet is better short than of
two people.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from reidkit.data.video.boxes import (
    Boxes,
    centre,
    overlapping,
    overlaps,
    shares,
    shows_all,
    stack,
    touches_border,
)
from reidkit.data.video.masks import Box, PersonMask

SIDES = 25  # boxes whose median is the size of a person: a step or two
WHOLE = 3  # boxes inside the picture from which on a track is somebody, not a foot at the border


@dataclass(frozen=True, slots=True)
class TrackRules:
    """What belongs together.

    Args:
        least_overlap: intersection over union of expected and found box.
        max_gap: frames a track may miss.
        merge_gap: the same after people stood before each other: longer, and they did not walk
            straight on, so that anybody may be who is found next.
        max_merge: frames two people may stand before each other.
        min_length: shorter tracks are noise and left out.
        touching: share of the smaller box that lies in another, from which on they overlap.
        covered: share of an expected box in one detection, from which on that shows the person.
        unclear: overlaps less apart than this do not tell who is who.
        memory: frames over which the direction is taken.
        taller, wider: than the median of its last boxes a box grows only by somebody else in it.
    """

    least_overlap: float = 0.25
    max_gap: int = 8
    merge_gap: int = 2
    max_merge: int = 30
    min_length: int = 5
    touching: float = 0.1
    covered: float = 0.6
    unclear: float = 0.15
    memory: int = 6
    taller: float = 1.25
    wider: float = 2.2


USUAL = TrackRules()


@dataclass(slots=True, eq=False)
class Track:
    """One person over time; the five lists are of one length.

    frames: positions in the video, ascending. boxes: left, top, right, bottom. masks: the body
    inside its box. border: the box touches the picture's border. shared: somebody else is in the
    box, so it is no picture of one person.
    """

    frames: list[int] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    masks: list[NDArray[np.uint8]] = field(default_factory=list)
    border: list[bool] = field(default_factory=list)
    shared: list[bool] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.frames)


class _Live:
    """A track that goes on, and what is needed to expect its next box."""

    def __init__(self, number: int, rules: TrackRules) -> None:
        self.number = number
        self.track = Track()
        self.rules = rules
        self.clean: list[tuple[int, Box]] = []  # the last boxes that showed this person alone
        self.sides: list[tuple[int, int]] = []  # width and height of its last whole boxes
        self.merged = 0  # frames since the person stood apart
        self.blob: Box | None = None  # the last box it shared
        self.partners: set[int] = set()  # numbers of the tracks it shared it with

    def expected(self, frame: int) -> Boxes:
        """The box (4,) at `frame`, of the size of the last one."""
        last, box = self.clean[-1]
        first, earlier = self.clean[0]
        found = np.array(box, float)
        if last == first:
            return found
        moved = centre(found) - centre(np.array(earlier, float))
        return found + np.tile(moved / (last - first), 2) * (frame - last)

    def grown(self, box: Box) -> bool:
        """Whether the box is larger than this person can have become."""
        if len(self.sides) < self.rules.memory:
            return False
        width, height = np.median(self.sides, axis=0)
        left, top, right, bottom = box
        wide, tall = right - left, bottom - top
        return bool(wide > self.rules.wider * width or tall > self.rules.taller * height)

    def add(self, frame: int, person: PersonMask, border: bool, shared: bool) -> None:
        track = self.track
        track.frames.append(frame)
        track.boxes.append(person.box)
        track.masks.append(person.mask)
        track.border.append(border)
        track.shared.append(shared)

    def see(self, frame: int, person: PersonMask, border: bool, shared: bool) -> None:
        self.add(frame, person, border, shared or self.grown(person.box))
        if not border:
            left, top, right, bottom = person.box
            self.sides = [*self.sides[1 - SIDES :], (right - left, bottom - top)]
        self.clean = [*self.clean[1 - self.rules.memory :], (frame, person.box)]
        self.merged = 0
        self.blob = None
        self.partners = set()

    def share(
        self, frame: int, person: PersonMask, border: bool, others: Iterable["_Live"]
    ) -> None:
        """Stand before or behind others in one box."""
        self.add(frame, person, border, True)
        self.merged += 1
        self.blob = person.box
        self.partners |= {other.number for other in others if other is not self}


class Tracker:
    """Tracks frame by frame; `update` gives the tracks that ended."""

    def __init__(self, size: tuple[int, int], rules: TrackRules = USUAL) -> None:
        self.size = size
        self.rules = rules
        self._live: list[_Live] = []
        self._frame = -1
        self._begun = 0

    def update(self, persons: Sequence[PersonMask]) -> list[Track]:
        """Take the persons of the next frame, and give the tracks that ended before it."""
        self._frame += 1
        frame, rules = self._frame, self.rules
        live = self._live
        found = stack([person.box for person in persons])
        expected = np.stack([one.expected(frame) for one in live]) if live else np.empty((0, 4))
        border = [touches_border(person.box, self.size) for person in persons]
        crowded = overlapping(found, rules.touching)
        merges = self._merges(expected, found)
        free = [place for place in range(len(persons)) if place not in merges]
        alone = [i for i in range(len(live)) if not any(i in group for group in merges.values())]
        pairs, unclear = self._match(alone, free, expected, found)
        for place, group in merges.items():
            for one in group:
                others = [live[other] for other in group]
                live[one].share(frame, persons[place], border[place], others)
        for one, place in pairs:
            live[one].see(frame, persons[place], border[place], crowded[place])
        taken = {place for _, place in pairs}
        ended = [
            one
            for i, one in enumerate(live)
            if i in unclear
            or frame - one.track.frames[-1] > (rules.merge_gap if one.merged else rules.max_gap)
        ]
        self._live = [one for one in live if one not in ended]
        for place in free:
            if place not in taken:
                new = _Live(self._begun, rules)
                self._begun += 1
                new.see(frame, persons[place], border[place], crowded[place])
                self._live.append(new)
        return self._long([one.track for one in ended])

    def finish(self) -> list[Track]:
        """The tracks that went on to the last frame."""
        tracks = [one.track for one in self._live]
        self._live = []
        return self._long(tracks)

    def _long(self, tracks: list[Track]) -> list[Track]:
        return [track for track in tracks if len(track) >= self.rules.min_length]

    def _merges(self, expected: Boxes, found: Boxes) -> dict[int, list[int]]:
        """Detections that show several tracks, with these; other detections hold none of them."""
        if len(expected) < 2 or not len(found):
            return {}
        inside = shares(expected, found)  # (tracks, detections), of the expected box
        best = overlaps(expected, found).argmax(axis=1)
        place_of = {
            i: int(best[i])
            for i, one in enumerate(self._live)
            if len(one.sides) >= WHOLE and inside[i, best[i]] >= self.rules.covered
        }
        # Whoever is in a box with others stays there until it parts, wherever it was expected.
        for i, one in enumerate(self._live):
            if one.blob is not None:
                parts = np.flatnonzero(shares(found, stack([one.blob]))[:, 0] >= 0.5)
                place_of.pop(i, None)
                if len(parts) == 1:
                    place_of[i] = int(parts[0])
        merges = {}
        for place in sorted(set(place_of.values())):
            group = [i for i, other in place_of.items() if other == place]
            if len(group) > 1 and shows_all(expected[group], found[place]):
                merges[place] = sorted(group)
        return merges

    def _match(
        self, tracks: list[int], free: list[int], expected: Boxes, found: Boxes
    ) -> tuple[list[tuple[int, int]], set[int]]:
        """Pairs of track and detection with the largest overlap in sum, and tracks that end since
        after a merge it is not plain who is who."""
        if not tracks or not free:
            return [], set()
        overlap = overlaps(expected[tracks], found[free])
        usable = np.where(overlap >= self.rules.least_overlap, overlap, 0)
        rows, columns = linear_sum_assignment(usable, maximize=True)
        pairs: list[tuple[int, int]] = []
        unclear: set[int] = set()
        for row, column in zip(rows, columns, strict=True):
            if usable[row, column] <= 0:
                continue
            one = self._live[tracks[row]]
            rivals = [
                i for i, other in enumerate(tracks) if self._live[other].number in one.partners
            ]
            margin = overlap[row, column] - overlap[rivals, column].max(initial=0)
            long = one.merged > self.rules.max_merge
            if one.partners and (long or margin < self.rules.unclear):
                unclear |= {tracks[row], *(tracks[rival] for rival in rivals)}
            else:
                pairs.append((tracks[row], free[column]))
        return [pair for pair in pairs if pair[0] not in unclear], unclear


def track(
    detections: Iterable[Sequence[PersonMask]],
    size: tuple[int, int],
    rules: TrackRules = USUAL,
) -> list[Track]:
    """The tracks of the persons of each frame, by first frame, then from left to right.

    size: height and width of the picture, for its border.
    """
    tracker = Tracker(size, rules)
    tracks = [one for persons in detections for one in tracker.update(persons)]
    return sorted(tracks + tracker.finish(), key=first_seen)


def first_seen(track: Track) -> tuple[int, Box]:
    """Frame and box at which a track begins, to sort by."""
    return track.frames[0], track.boxes[0]
