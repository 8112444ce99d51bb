"""Whether a sequence of raw masks shows one whole person: a verdict, its reasons, what is used."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from reidkit.data.silhouettes.align import EMPTY_SUM

FOREGROUND = 128  # the brighter half of [0, 255] is body
FEWEST_FRAMES = 5  # below this GaitSet's published preparation warns
SECOND_PERSON = 0.25  # area to the largest piece: a person half as tall has a quarter of it
ORDINARY_SHARE = 0.1  # people walk in and out: so many spoilt frames are in every recording
FILLED_ROWS = 0.9  # cubic scaling thins the outermost rows of an aligned body
ASPECTS = (1.0, 44 / 64)  # width to height of aligned silhouettes, whole and cut
STACKED_GAP = 0.5  # of the body's height: pieces of a broken body are closer than this
SPECK_ROWS = 0.05  # of the body's height: what lies farther above or below spoils the scaling
PIECE_AREA = 0.02  # of the largest piece: smaller ones are specks
NEAR_BODY = 0.3  # of the body's height: farther pieces are no part of it


@dataclass(frozen=True, slots=True)
class Limits:
    """What a sequence may show and still be used.

    Args:
        fewest_frames: fewer are used with a warning; after dropping cut or doubled frames they are
            rejected.
        ordinary_share: up to this share of black, cut or speckled frames earns no warning; they
            are dropped or kept, and counted, all the same.
        second_person: area of a second piece, to the largest, beyond which it is another person.
        drop_spoilt: leave out cut, doubled and faint frames. Without it they are counted and
            warned of all the same, but used, as in GaitSet's published preparation, which leaves
            out black frames only.
    """

    fewest_frames: int = FEWEST_FRAMES
    ordinary_share: float = ORDINARY_SHARE
    second_person: float = SECOND_PERSON
    drop_spoilt: bool = True

    def __post_init__(self) -> None:
        if self.fewest_frames < 1:
            raise ValueError(f"fewest_frames is {self.fewest_frames}, expected at least 1")
        for name in ("ordinary_share", "second_person"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected in [0, 1]")


USUAL = Limits()


class FrameFacts(NamedTuple):
    """What one mask shows."""

    shape: tuple[int, int]
    blank: bool  # a sum of at most 10,000
    filled: bool  # the body fills the height of a picture of an aligned shape
    cropped: bool  # the body touches the border
    doubled: bool  # a second person
    specks: bool  # foreground far above or below the body
    binary: bool = False  # it came with values 0 and 1
    faint: bool = False  # more than blank, but nothing in the brighter half


class Judgement(NamedTuple):
    """The verdict, its reasons in one line, and which frames are used.

    `aligned` says that the masks are aligned already, as told or guessed.
    """

    verdict: str
    why: str
    used: tuple[int, ...]
    aligned: bool = False


class Piece(NamedTuple):
    """The box and the area of one connected piece of foreground."""

    x: int
    y: int
    width: int
    height: int
    area: int

    @property
    def bottom(self) -> int:
        """The first row below."""
        return self.y + self.height

    @property
    def right(self) -> int:
        """The first column beyond."""
        return self.x + self.width


def inspect(mask: NDArray[np.uint8], limits: Limits = USUAL) -> FrameFacts:
    """The facts of a mask (H, W) in [0, 255]."""
    return inspect_and_clean(mask, limits)[0]


def inspect_and_clean(
    mask: NDArray[np.uint8], limits: Limits = USUAL
) -> tuple[FrameFacts, NDArray[np.uint8]]:
    """The facts of a mask (H, W), and the mask without the specks that are no part of the body."""
    height, width = mask.shape
    if not mask.size or cv2.sumElems(mask)[0] <= EMPTY_SUM:
        return FrameFacts((height, width), True, False, False, False, False), mask
    _, rows, _, tall = cv2.boundingRect(mask)
    aspect = any(abs(width - height * ratio) < 1 for ratio in ASPECTS)
    filled = aspect and tall >= FILLED_ROWS * height
    binary = cv2.threshold(mask, FOREGROUND - 1, 255, cv2.THRESH_BINARY)[1]
    _, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8)
    order = 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")
    pieces = [Piece(*(int(value) for value in stats[label])) for label in order]
    if not pieces:  # a veil of dark grey
        return FrameFacts((height, width), False, filled, False, False, False, faint=True), mask
    doubled = any(
        piece.area > limits.second_person * pieces[0].area and is_person(piece, pieces[0])
        for piece in pieces[1:]
    )
    part = body_pieces(pieces)
    body = box_around([pieces[place] for place in part])
    cropped = min(body.x, body.y) == 0 or body.bottom == height or body.right == width
    room = SPECK_ROWS * body.height
    specks = rows < body.y - room or rows + tall > body.bottom + room
    facts = FrameFacts((height, width), False, filled, cropped, doubled, specks)
    if not specks:
        return facts, mask
    keep = np.zeros(len(stats), np.uint8)
    keep[[order[place] for place in part]] = 255
    # A pixel wider than the thresholded pieces, so that their grey edges stay.
    near = cv2.dilate(keep[labels], np.ones((3, 3), np.uint8))
    return facts, np.asarray(cv2.bitwise_and(mask, near), np.uint8)


def is_person(piece: Piece, largest: Piece) -> bool:
    """Whether a large second piece is another person rather than a part of a broken body.

    A person is at least half as tall as the largest piece and stands beside it, or far above or
    below. A torso and its legs, or strips of one body, share their columns and are close in rows.
    """
    if piece.height < largest.height / 2:
        return False
    rows = min(piece.bottom, largest.bottom) - max(piece.y, largest.y)
    columns = min(piece.right, largest.right) - max(piece.x, largest.x)
    beside = rows >= piece.height / 2 and columns < min(piece.width, largest.width) / 2
    return beside or -rows > STACKED_GAP * largest.height


def body_pieces(pieces: Sequence[Piece]) -> list[int]:
    """Positions of the pieces of the largest body: the largest, and what is large enough, shares
    columns with those found and is near to them."""
    found = [0]
    box = pieces[0]
    waiting = [i for i, p in enumerate(pieces) if i and p.area >= PIECE_AREA * pieces[0].area]
    while near := [i for i in waiting if is_near(pieces[i], box)]:
        found += near
        waiting = [i for i in waiting if i not in near]
        box = box_around([pieces[i] for i in found])
    return found


def is_near(piece: Piece, body: Piece) -> bool:
    """Whether a piece shares columns with the body and is close above, below or inside."""
    room = NEAR_BODY * body.height
    shares = piece.x < body.right and piece.right > body.x
    return shares and piece.y <= body.bottom + room and piece.bottom >= body.y - room


def box_around(pieces: Sequence[Piece]) -> Piece:
    """The box of several pieces, with the sum of their areas."""
    x, y = min(piece.x for piece in pieces), min(piece.y for piece in pieces)
    right, bottom = max(piece.right for piece in pieces), max(piece.bottom for piece in pieces)
    return Piece(x, y, right - x, bottom - y, sum(piece.area for piece in pieces))


def judge(masks: Iterable[NDArray[np.uint8]], limits: Limits = USUAL) -> Judgement:
    """The verdict over raw masks, each (H, W) in [0, 255]."""
    return settle([inspect(mask, limits) for mask in masks], limits)


def settle(
    facts: Sequence[FrameFacts],
    limits: Limits = USUAL,
    *,
    cleaned: bool = False,
    aligned: bool | None = None,
) -> Judgement:
    """The verdict over the facts of a sequence.

    "good" shows one whole person; a few black or cut frames are dropped from it, and `why` counts
    them. "warned" is used, but something is odd, or many frames were dropped. "rejected" has no
    usable frame, or fewer than `fewest_frames` after cut or doubled ones were dropped.

    `aligned` None guesses it: the body fills the height of most frames. Aligned bodies touch the
    border by construction, and who aligned them chose the person: a second piece is counted and
    warned of, but no frame is dropped for it.
    """
    total = len(facts)
    if not total:
        return Judgement("rejected", "no frames", ())
    dropping = limits.drop_spoilt
    black_places = {
        place for place, fact in enumerate(facts) if fact.blank or (fact.faint and dropping)
    }
    seen = [fact for place, fact in enumerate(facts) if place not in black_places]
    if not seen:
        return Judgement("rejected", "all black", (), bool(aligned))
    if aligned is None:
        aligned = 2 * sum(fact.filled for fact in seen) > len(seen)
    dropping = dropping and not aligned
    used = tuple(
        place
        for place, fact in enumerate(facts)
        if place not in black_places and not (dropping and (fact.doubled or fact.cropped))
    )
    black = len(black_places)
    faint = sum(fact.faint for fact in seen)
    doubled = sum(fact.doubled for fact in seen)
    cropped = 0 if aligned else sum(fact.cropped and not fact.doubled for fact in seen)
    specks = 0 if aligned else sum(facts[place].specks for place in used)
    few = limits.ordinary_share * total
    kept = "" if dropping else " (kept)"
    reasons = [  # what to say, of how many frames, and how many are ordinary
        ("black: {} of {} frames", black, few),
        ("faint: nothing in the brighter half in {} of {} frames" + kept, faint, 0),
        ("cropped: touches the border in {} of {} frames" + kept, cropped, few),
        ("two people in {} of {} frames" + kept, doubled, 0),
        (
            f"specks far from the body in {{}} of {{}} frames ({'removed' if cleaned else 'kept'})",
            specks,
            few,
        ),
        (
            "values 0 and 1 in {} of {} frames (taken as 0 and 255)",
            sum(fact.binary for fact in seen),
            0,
        ),
    ]
    why = [text.format(count, total) for text, count, _ in reasons if count]
    odd = any(count > ordinary for _, count, ordinary in reasons) or black + cropped > few
    sizes = sorted({fact.shape for fact in facts})
    if len(sizes) > 1:
        why.append(f"mixed sizes: {shown(sizes)}")
    short = len(used) < limits.fewest_frames
    if short:
        why.append(f"too short ({len(used)} {'frame' if len(used) == 1 else 'frames'})")
    if not used or (short and dropping and (cropped or doubled)):
        return Judgement("rejected", "; ".join(why), (), aligned)
    verdict = "warned" if odd or short or len(sizes) > 1 else "good"
    return Judgement(verdict, "; ".join(why), used, aligned)


def shown(sizes: Sequence[tuple[int, int]]) -> str:
    """The first few sizes as HxW."""
    names = [f"{height}x{width}" for height, width in sizes[:3]]
    return ", ".join(names) + (f" and {len(sizes) - 3} more" if len(sizes) > 3 else "")
