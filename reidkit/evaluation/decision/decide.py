"""From features to a decision: a threshold with a promise, and a calibrated probability."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reidkit.evaluation.decision.calibration import Calibration, calibrate
from reidkit.evaluation.decision.pairs import Pairs, PairSource
from reidkit.evaluation.decision.thresholds import (
    Independent,
    TooFewPairs,
    check_fraction,
    estimated_threshold,
    exact_threshold,
    rate_interval,
)
from reidkit.types import Features, Metric

BUDGET = 1_000_000  # pairs of a kind that are scored; 2 s for 512 numbers a feature on one core
LEAST = 50_000  # pairs of a kind for two cameras, however many cameras share the budget
ALIKE = 1e-12  # spread of all similarities, as a share of them, below which they are one
SHOWN = 6  # camera pairs named in a line of text


@dataclass(frozen=True, slots=True)
class DecisionPoint:
    """A threshold and what is known of it; rates are fractions.

    `upper_bound` bounds the false-match rate, by `independent_pairs` (not a whole number where it
    is estimated). `observed_rate` is the share of false matches among all `impostor_pairs` scored;
    `true_match_rate` that of true ones among the genuine pairs, with its Clopper-Pearson interval.
    """

    threshold: float
    upper_bound: float
    independent_pairs: float
    observed_rate: float
    impostor_pairs: int
    true_match_rate: float
    true_match_interval: tuple[float, float]
    genuine_pairs: int
    genuine_identities: int


@dataclass(frozen=True, slots=True)
class Decision:
    """When two pictures show one identity, with what is promised of the answer.

    Args:
        point: the threshold for all pairs.
        false_match_rate: what is promised, with this `confidence`.
        independent: what was taken to be independent; see `decide`.
        metric: a similarity is the cosine, or minus the Euclidean distance.
        across_cameras: whether only pairs of different cameras were looked at.
        calibration: similarity to probability.
        camera_pairs: thresholds of pairs of cameras (0-based, ascending) that had enough pairs; the
            others use `point`.
        notes: sentences about the data a reader should know.
        model: fingerprint of the weights that made the features, empty where unknown.
    """

    point: DecisionPoint
    false_match_rate: float
    confidence: float
    independent: Independent
    metric: Metric
    across_cameras: bool
    calibration: Calibration
    camera_pairs: Mapping[tuple[int, int], DecisionPoint] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    model: str = ""

    @property
    def threshold(self) -> float:
        """The lowest similarity that is called the same identity."""
        return self.point.threshold

    def threshold_between(self, cam_a: int, cam_b: int) -> float:
        """The threshold for this pair of cameras; that of all pairs where it has none of its
        own."""
        own = self.camera_pairs.get((min(cam_a, cam_b), max(cam_a, cam_b)), self.point)
        return own.threshold

    def same(self, similarity: ArrayLike) -> NDArray[np.bool_]:
        """Whether each similarity is called the same identity, in its shape."""
        return np.asarray(similarity, dtype=np.float64) >= self.threshold

    def probability(self, similarity: ArrayLike, prior: float | None = None) -> NDArray[np.float64]:
        """Probability of one identity, in the similarity's shape; another prior where given."""
        return self.calibration.probability(similarity, prior)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **_plain(self.point),
            "false_match_rate": self.false_match_rate,
            "confidence": self.confidence,
            "independent": self.independent,
            "metric": self.metric,
            "across_cameras": self.across_cameras,
            "calibration": self.calibration.to_dict(),
            "camera_pairs": [
                {"cameras": list(cameras), **_plain(point)}
                for cameras, point in self.camera_pairs.items()
            ],
            "notes": list(self.notes),
            "model": self.model,
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Decision":
        """What `to_dict` gave, also after a walk through JSON."""
        try:
            return cls(
                point=_point(plain),
                false_match_rate=float(plain["false_match_rate"]),
                confidence=float(plain["confidence"]),
                independent=plain["independent"],
                metric=plain["metric"],
                across_cameras=bool(plain["across_cameras"]),
                calibration=Calibration.from_dict(plain["calibration"]),
                camera_pairs={
                    (int(row["cameras"][0]), int(row["cameras"][1])): _point(row)
                    for row in plain["camera_pairs"]
                },
                notes=tuple(plain["notes"]),
                model=plain["model"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a decision as `Decision.to_dict` writes it: {error}") from error

    def text(self) -> str:
        """A few lines a person can read."""
        point, curve = self.point, self.calibration
        similarity = "cosine" if self.metric == "cosine" else "minus the Euclidean distance"
        counted = {
            "identities": f"{point.independent_pairs:,.0f} pairs that share no identity",
            "estimated": (
                f"{point.impostor_pairs:,} pairs, worth about {point.independent_pairs:,.0f} "
                "independent ones: an estimate, no guarantee"
            ),
            "pairs": (
                f"{point.independent_pairs:,.0f} pairs as if they were independent: too good where "
                "they share identities"
            ),
        }[self.independent]
        low, high = point.true_match_interval
        sure = f"{100 * self.confidence:g} %"
        lines = [
            f"same identity from a similarity ({similarity}) of {point.threshold:.4f}",
            f"false matches: promised {_percent(self.false_match_rate)}, at most "
            f"{_percent(point.upper_bound)} with {sure} confidence; from {counted}",
            f"  seen: {_percent(point.observed_rate)} of {point.impostor_pairs:,} impostor pairs",
            f"true matches: {_percent(point.true_match_rate)} "
            f"({sure} interval {_percent(low)} to {_percent(high)}); "
            f"{point.genuine_pairs:,} genuine pairs of {point.genuine_identities:,} identities",
            f"probability: {curve.kind}, prior {curve.prior:.3g}; " + _worth(curve),
        ]
        lines += [
            f"cameras {a + 1} and {b + 1}: from {own.threshold:.4f}, false matches at most "
            f"{_percent(own.upper_bound)}, true matches {_percent(own.true_match_rate)}"
            for (a, b), own in self.camera_pairs.items()
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def decide(
    features: Features,
    false_match_rate: float,
    *,
    confidence: float = 0.95,
    metric: Metric = "cosine",
    independent: Independent = "identities",
    across_cameras: bool | None = None,
    prior: float | None = None,
    per_camera_pair: bool = False,
    budget: int = BUDGET,
    seed: int = 0,
) -> Decision:
    """The lowest threshold that keeps the false-match rate promised, and a calibrated probability.

    Pairs that share an identity are not independent: somebody whom the model confuses with many is
    in many pairs. What counts as independent is therefore to be said:

    - "identities": impostor pairs of which no two share an identity. The bound is exact whatever
      the model, if the identities here were drawn like those to come. No method can do with fewer
      people: where a share q of all people resembles everybody, a share r = 1 - (1 - q)^2 of all
      pairs matches falsely, and M identities show none of it with probability (1 - r)^(M/2). The
      rate is that of two people drawn at random.
    - "estimated": all pairs, counted as the number of independent ones that would vary as much, by
      the jackknife over identities (Korn and Graubard, Survey Methodology 1998, for the bound).
      About right for ordinary features, wrong where the rare person was not in the data.
    - "pairs": all pairs as if independent: too good a bound wherever identities are shared.

    Args:
        features: vectors (N, D) with pids; pid -1 is left out, pid 0 is a distractor.
        false_match_rate: to be promised, in (0, 1).
        confidence: of the bound and of the intervals, in (0, 1).
        metric: cosine, or euclidean: the similarity is then minus the distance.
        independent: see above.
        across_cameras: only pairs of different cameras; None means where there is more than one.
        prior: share of genuine pairs where the model will work; None is their share here.
        per_camera_pair: a threshold for every two cameras with enough pairs, each with its own
            promise (not all of them at once).
        budget: pairs of a kind that are scored at most; of more a seeded sample is drawn. Pairs of
            cameras share another such budget.
        seed: of every draw.

    Raises:
        TooFewPairs: the rate cannot be promised; says what can, and what would be needed.
        ValueError: no genuine or no impostor pair, a value out of its range, anything that
            `PairSource` refuses.
    """
    check_fraction("false_match_rate", false_match_rate)
    check_fraction("confidence", confidence)
    if prior is not None:
        check_fraction("prior", prior)
    if independent not in get_args(Independent):
        known = ", ".join(get_args(Independent))
        raise ValueError(f"independent = {independent!r}; known: {known}")
    if budget < 1:
        raise ValueError(f"budget = {budget}: expected at least 1 pair")
    source = PairSource(features, metric=metric, across_cameras=across_cameras, seed=seed)
    if per_camera_pair and not source.several_cameras:
        raise ValueError("per_camera_pair needs features of at least two cameras; here is one")
    genuine, impostors = source.genuine(budget), source.impostors(budget)
    if not len(genuine):
        raise ValueError(
            f"no genuine pair: no identity has two pictures{_of_cameras(source)}; "
            "a threshold needs identities that are seen again"
        )
    if not len(impostors):
        raise ValueError(f"no impostor pair: no two identities{_of_cameras(source)}")
    promise = (false_match_rate, confidence, independent)
    point = _operate(source, genuine, impostors, *promise)
    total = genuine.possible + impostors.possible
    calibration = calibrate(
        np.concatenate([genuine.similarity, impostors.similarity]),
        np.repeat([True, False], [len(genuine), len(impostors)]),
        np.concatenate([genuine.identities, impostors.identities]),
        prior=genuine.possible / total if prior is None else prior,
        seed=seed,
    )
    own: dict[tuple[int, int], DecisionPoint] = {}
    notes = _notes(features, source, genuine, impostors, seed)
    if prior is None:
        notes.append("the prior is the share of genuine pairs among those of these features")
    if not point.true_match_rate:
        notes.append("no genuine pair reaches this threshold: it calls nobody the same")
    if per_camera_pair:
        own, missing = _between_cameras(source, budget, *promise)
        if missing:
            names = ", ".join(f"{a + 1} and {b + 1}" for a, b in missing[:SHOWN])
            more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            notes.append(
                "the threshold of all pairs is used where there are too few of the cameras: "
                f"{names}{more}"
            )
    return Decision(
        point=point,
        false_match_rate=false_match_rate,
        confidence=confidence,
        independent=independent,
        metric=metric,
        across_cameras=source.across_cameras,
        calibration=calibration,
        camera_pairs=own,
        notes=tuple(notes),
        model=features.model,
    )


def _operate(
    source: PairSource,
    genuine: Pairs,
    impostors: Pairs,
    rate: float,
    confidence: float,
    independent: Independent,
) -> DecisionPoint:
    if independent == "estimated":
        promise = estimated_threshold(
            impostors.similarity, impostors.identities, rate, confidence=confidence
        )
    else:
        own = impostors if independent == "pairs" else source.disjoint_impostors()
        promise = exact_threshold(
            own.similarity, rate, confidence=confidence, independent=independent
        )
    threshold = promise.threshold
    found = genuine.similarity >= threshold
    people = genuine.identities[:, 0]
    pictures = np.bincount(people)
    seen = pictures > 0
    identities = int(seen.sum())
    if independent == "pairs":
        true_rate, trials = float(found.mean()), len(genuine)
    else:
        # One identity is one trial: a mean of values in [0, 1] varies no more than right or wrong.
        true_rate = float((np.bincount(people, found)[seen] / pictures[seen]).mean())
        trials = identities
    return DecisionPoint(
        threshold=threshold,
        upper_bound=promise.upper_bound,
        independent_pairs=promise.independent_pairs,
        observed_rate=float((impostors.similarity >= threshold).mean()),
        impostor_pairs=len(impostors),
        true_match_rate=true_rate,
        true_match_interval=rate_interval(true_rate * trials, trials, confidence),
        genuine_pairs=len(genuine),
        genuine_identities=identities,
    )


def _between_cameras(
    source: PairSource, budget: int, rate: float, confidence: float, independent: Independent
) -> tuple[dict[tuple[int, int], DecisionPoint], list[tuple[int, int]]]:
    """A point for each two cameras, and those that have too few pairs for one."""
    found: dict[tuple[int, int], DecisionPoint] = {}
    missing = []
    between = list(combinations(np.unique(source.cameras).tolist(), 2))
    budget = max(budget // len(between), min(budget, LEAST))
    for a, b in between:
        try:
            own = source.within(a, b)
        except ValueError:  # the two see one identity at most
            missing.append((a, b))
            continue
        genuine, impostors = own.genuine(budget), own.impostors(budget)
        try:
            if not len(genuine) or not len(impostors):
                raise TooFewPairs
            found[a, b] = _operate(own, genuine, impostors, rate, confidence, independent)
        except TooFewPairs:
            missing.append((a, b))
    return found, missing


def _notes(
    features: Features, source: PairSource, genuine: Pairs, impostors: Pairs, seed: int
) -> list[str]:
    notes = []
    values = np.concatenate([genuine.similarity, impostors.similarity])
    if np.ptp(values) <= ALIKE * np.abs(values).max():
        notes.append("all pairs are equally similar: nothing here tells anybody apart")
    for kind, pairs in (("genuine", genuine), ("impostor", impostors)):
        if len(pairs) < pairs.possible:
            notes.append(
                f"{len(pairs):,} {kind} pairs were drawn from {pairs.possible:,} (seed {seed})"
            )
    if not source.several_cameras:
        notes.append("all features are of one camera: nothing is known of pairs across cameras")
    elif source.across_cameras:
        notes.append("only pairs of different cameras count")
    if len(source.items) < len(features):
        notes.append(f"{len(features) - len(source.items)} features with pid -1 are left out")
    if source.distractor.any():
        notes.append("pid 0 is taken for distractors: never the same identity as anybody")
    return notes


def _of_cameras(source: PairSource) -> str:
    return " of different cameras" if source.across_cameras else ""


def _worth(curve: Calibration) -> str:
    if curve.log_loss is None or curve.error is None:
        return "too few identities to hold some out, so nobody has checked it"
    losses = ", ".join(f"{kind} {loss:.4g}" for kind, loss in sorted(curve.log_loss.items()))
    return f"held-out log loss {losses}; calibration error {_percent(curve.error)}"


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"


def _plain(point: DecisionPoint) -> dict[str, Any]:
    return {**asdict(point), "true_match_interval": list(point.true_match_interval)}


def _point(plain: Mapping[str, Any]) -> DecisionPoint:
    low, high = plain["true_match_interval"]
    names = [name for name in DecisionPoint.__slots__ if name != "true_match_interval"]
    return DecisionPoint(
        **{name: plain[name] for name in names}, true_match_interval=(float(low), float(high))
    )
