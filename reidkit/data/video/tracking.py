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

from reidkit.data.video.masks import Box, PersonMask

ALONE = 0.75  # overlap from which on one expected box explains a detection
TOGETHER = 0.3  # share of an expected box in another from which on they stand in one place
SIDES = 25  # boxes whose median is the size of a person: a step or two
Boxes = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TrackRules:
    """What belongs together.

    Args:
        least_overlap: intersection over union of expected and found box.
        max_gap: frames a track may miss.
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
    max_merge: int = 30
    min_length: int = 3
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

    def __init__(self, rules: TrackRules) -> None:
        self.track = Track()
        self.rules = rules
        self.clean: list[tuple[int, Box]] = []  # the last boxes that showed this person alone
        self.sides: list[tuple[int, int]] = []  # width and height of its last whole boxes
        self.merged = 0  # frames since the person stood apart
        self.partners: set[int] = set()  # ids of the tracks it is or was merged with

    def expected(self, frame: int) -> Boxes:
        """The box (4,) at `frame`, of the size of the last one."""
        last, box = self.clean[-1]
        first, earlier = self.clean[0]
        found = np.array(box, float)
        if last == first:
            return found
        moved = _centre(found) - _centre(np.array(earlier, float))
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
        self.partners = set()


class Tracker:
    """Tracks frame by frame; `update` gives the tracks that ended."""

    def __init__(self, size: tuple[int, int], rules: TrackRules = USUAL) -> None:
        self.size = size
        self.rules = rules
        self._live: list[_Live] = []
        self._frame = -1

    def update(self, persons: Sequence[PersonMask]) -> list[Track]:
        """Take the persons of the next frame, and give the tracks that ended before it."""
        self._frame += 1
        frame, rules = self._frame, self.rules
        live = self._live
        found = _stack([person.box for person in persons])
        expected = np.stack([one.expected(frame) for one in live]) if live else np.empty((0, 4))
        border = [touches_border(person.box, self.size) for person in persons]
        crowded = overlapping(found, rules.touching)
        merges = self._merges(expected, found)
        free = [place for place in range(len(persons)) if place not in merges]
        alone = [i for i in range(len(live)) if not any(i in group for group in merges.values())]
        pairs, unclear = self._match(alone, free, expected, found)
        for place, group in merges.items():
            for one in group:
                live[one].add(frame, persons[place], border[place], shared=True)
                live[one].merged += 1
                live[one].partners |= {id(live[other]) for other in group if other != one}
        for one, place in pairs:
            live[one].see(frame, persons[place], border[place], crowded[place])
        taken = {place for _, place in pairs}
        ended = [
            one
            for i, one in enumerate(live)
            if i in unclear
            or one.merged > rules.max_merge
            or frame - one.track.frames[-1] > rules.max_gap
        ]
        self._live = [one for one in live if one not in ended]
        for place in free:
            if place not in taken:
                new = _Live(rules)
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
        merges = {}
        for place in range(len(found)):
            group = [
                one
                for one in range(len(expected))
                if best[one] == place and inside[one, place] >= self.rules.covered
            ]
            if len(group) > 1 and _shows_all(expected[group], found[place]):
                merges[place] = group
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
        pairs, unclear = [], set()
        for row, column in zip(rows, columns, strict=True):
            if usable[row, column] <= 0:
                continue
            one = self._live[tracks[row]]
            rivals = [
                overlap[other, column]
                for other in range(len(tracks))
                if id(self._live[tracks[other]]) in one.partners
            ]
            if rivals and max(rivals) > overlap[row, column] - self.rules.unclear:
                unclear.add(tracks[row])
            else:
                pairs.append((tracks[row], free[column]))
        return pairs, unclear


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


def touches_border(box: Box, size: tuple[int, int]) -> bool:
    """Whether a box reaches the outermost pixels of a picture of this height and width."""
    height, width = size
    left, top, right, bottom = box
    return left <= 0 or top <= 0 or right >= width or bottom >= height


def overlaps(a: Boxes, b: Boxes) -> Boxes:
    """Intersection over union (A, B) of boxes (A, 4) and (B, 4)."""
    common = _common(a, b)
    union = _area(a)[:, None] + _area(b)[None] - common
    return common / np.maximum(union, 1e-9)


def shares(a: Boxes, b: Boxes) -> Boxes:
    """Share (A, B) of each box of a that lies in each of b."""
    return _common(a, b) / np.maximum(_area(a)[:, None], 1e-9)


def overlapping(boxes: Boxes, touching: float) -> list[bool]:
    """Of each box, whether it and another share more than `touching` of the smaller one."""
    common = np.maximum(shares(boxes, boxes), shares(boxes, boxes).T)
    np.fill_diagonal(common, 0)
    return [bool(row.any()) for row in common > touching]


def _shows_all(expected: Boxes, box: Boxes) -> bool:
    """Whether a detection shows all who are expected in it: none explains it alone, or they stand
    in one place. Else the others are gone."""
    alone = overlaps(expected, box[None]).max()
    together = shares(expected, expected)
    np.fill_diagonal(together, 1)
    return bool(alone < ALONE or together.min() > TOGETHER)


def _common(a: Boxes, b: Boxes) -> Boxes:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.prod(np.maximum(high - low, 0), axis=2)


def _area(boxes: Boxes) -> Boxes:
    return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)


def _centre(box: Boxes) -> Boxes:
    return (box[:2] + box[2:]) / 2


def _stack(boxes: Sequence[Box]) -> Boxes:
    return np.array(boxes, float).reshape(-1, 4)
