"""What the page shows, as plain records; somebody else gathers them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from reidkit.types import Sample


@dataclass(frozen=True, slots=True)
class ScoreLine:
    """A score as a fraction in [0, 1], with its 95 % interval where there is one."""

    name: str
    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of one line, x ascending; y are fractions in [0, 1]."""

    name: str
    x: Sequence[float]
    y: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"curve {self.name}: {len(self.x)} x for {len(self.y)} y")


@dataclass(frozen=True, slots=True)
class Match:
    """A gallery item as an answer: how far it is, and whether it is right."""

    sample: Sample
    distance: float
    right: bool


@dataclass(frozen=True, slots=True)
class RankedList:
    """A query with its nearest items that count, nearest first, and its first right answer.

    `first_rank` is 1-based and counts ties against the model. `first` is the nearest right answer,
    shown after the others where it is not among them.
    """

    query: Sample
    matches: Sequence[Match]
    average_precision: float
    first_rank: int
    first: Match | None
    right_answers: int
    candidates: int

    @property
    def first_is_shown(self) -> bool:
        """Whether a right answer is among the matches."""
        return any(match.right for match in self.matches)

    def samples(self) -> Iterator[Sample]:
        """Everything with a picture."""
        yield self.query
        yield from (match.sample for match in self.matches)
        if self.first is not None and not self.first_is_shown:
            yield self.first.sample


@dataclass(frozen=True, slots=True)
class CameraPair:
    """Scores of one camera's queries, or one view's, in another's gallery: fractions by name."""

    query_camera: str
    gallery_camera: str
    queries: int
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Doubted:
    """An item whose label is in doubt: `evidence` shows the suggested identity, `own` its own."""

    item: Sample
    side: Literal["query", "gallery"]
    suggested: int
    evidence: Sequence[Match]
    own: Match | None


@dataclass(frozen=True, slots=True)
class Doubts:
    """The doubts to be shown, of `total`, among `examined` items, and the rule in words."""

    shown: Sequence[Doubted]
    total: int
    examined: int
    rule: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A score in both runs, and the paired 95 % interval of `after - before`."""

    name: str
    before: float
    after: float
    interval: tuple[float, float]

    @property
    def change(self) -> float:
        """After minus before, a fraction in [-1, 1]."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class Movement:
    """How many queries are better, worse or the same in one value."""

    name: str
    better: int
    worse: int
    same: int


@dataclass(frozen=True, slots=True)
class Change:
    """One query in both runs."""

    before: RankedList
    after: RankedList

    @property
    def change(self) -> float:
        """Average precision after minus before."""
        return self.after.average_precision - self.before.average_precision


@dataclass(frozen=True, slots=True)
class Comparison:
    """What became of the same queries in another run; losses and gains with the largest first."""

    before: str
    after: str
    differences: Sequence[Difference]
    movements: Sequence[Movement]
    losses: Sequence[Change]
    gains: Sequence[Change]


@dataclass(frozen=True, slots=True)
class Report:
    """All that the page says; empty sections say why in the page, None ones are left out.

    `protocol`, `notes` and `roc_note` are sentences. `roc` has false-accept rates as x. `pairs` are
    sorted, the hardest first.
    """

    title: str
    benchmark: str
    date: str
    protocol: Sequence[str]
    notes: Sequence[str]
    queries: int
    gallery: int
    scores: Sequence[ScoreLine]
    cmc: Sequence[Curve]
    roc: Sequence[Curve]
    roc_note: str
    worst: Sequence[RankedList]
    pairs: Sequence[CameraPair] = ()
    doubts: Doubts | None = None
    comparison: Comparison | None = None

    def samples(self) -> Iterator[Sample]:
        """Everything with a picture, in the page's order, with repetitions."""
        for row in self.worst:
            yield from row.samples()
        if self.doubts is not None:
            for doubted in self.doubts.shown:
                yield doubted.item
                yield from (match.sample for match in doubted.evidence)
                if doubted.own is not None:
                    yield doubted.own.sample
        if self.comparison is not None:
            for change in (*self.comparison.losses, *self.comparison.gains):
                yield from change.before.samples()
                yield from change.after.samples()
