"""From a similarity to the probability that both pictures show one identity, and how true it is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

Reals = NDArray[np.float64]
Kind = Literal["isotonic", "platt"]
BINS = 10


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Pairs of about one predicted probability: what was said, and what was so.

    `predicted` and `observed` are means in [0, 1], `count` the pairs, `share` their part of all
    pairs where the prior holds; the shares of a table sum to 1.
    """

    predicted: float
    observed: float
    count: int
    share: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """A non-decreasing curve from similarity to log likelihood ratio, in plain numbers.

    The ratio says how much likelier a similarity is among genuine pairs than among impostors; it
    knows no prior, so the curve serves any. Brümmer and du Preez, Application-independent
    evaluation of speaker detection, Computer Speech and Language 2006.

    Args:
        kind: isotonic (`knots`, interpolated) or platt (`slope` and `intercept`).
        prior: share of genuine pairs where the model will work, in (0, 1).
        knots: (similarity, natural log likelihood ratio), ascending in both.
        log_loss: held-out mean log loss at the prior of each kind in nats; empty where too few
            identities were there to hold some out.
        reliability: what the held-out probabilities were worth, by bin.
    """

    kind: Kind
    prior: float
    knots: tuple[tuple[float, float], ...] = ()
    slope: float = 0.0
    intercept: float = 0.0
    log_loss: Mapping[str, float] | None = None
    reliability: tuple[ReliabilityBin, ...] = ()

    def log_ratio(self, similarity: ArrayLike) -> Reals:
        """Natural log likelihood ratio of genuine to impostor, in the similarity's shape."""
        values = np.asarray(similarity, dtype=np.float64)
        if self.kind == "platt":
            return self.slope * values + self.intercept
        places, ratios = np.array(self.knots).T
        return np.interp(values, places, ratios)

    def probability(self, similarity: ArrayLike, prior: float | None = None) -> Reals:
        """Probability of one identity at this prior (else the stored one), in the similarity's
        shape."""
        return expit(self.log_ratio(similarity) + logit(self.prior if prior is None else prior))

    @property
    def error(self) -> float | None:
        """Expected calibration error of the held-out pairs; None where none were held out."""
        return expected_calibration_error(self.reliability) if self.reliability else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Calibration":
        """What `to_dict` gave."""
        bins = tuple(ReliabilityBin(**row) for row in plain["reliability"])
        knots = tuple((float(place), float(ratio)) for place, ratio in plain["knots"])
        return cls(**{**plain, "knots": knots, "reliability": bins})


def calibrate(
    similarity: ArrayLike,
    same: ArrayLike,
    identities: ArrayLike,
    *,
    prior: float | None = None,
    seed: int = 0,
) -> Calibration:
    """The calibration, isotonic or Platt, that has the lower log loss on identities held out.

    Identities are dealt into two halves; each kind is fitted on the pairs inside one half and
    judged on those inside the other, both ways. The better one is then fitted on all pairs.

    Args:
        similarity: (P,), larger is closer.
        same: (P,) bool, whether a pair is genuine.
        identities: (P, 2) integers, whom the two items show.
        prior: share of genuine pairs where the model will work, in (0, 1); None is the share here.
        seed: of the halves.

    Raises:
        ValueError: no genuine pair or no impostor, values that are not finite, other shapes, a
            prior outside (0, 1).
    """
    values, genuine = _checked(similarity, same)
    people = np.asarray(identities)
    if people.shape != (len(values), 2):
        raise ValueError(f"identities have shape {people.shape}, expected ({len(values)}, 2)")
    if prior is None:
        prior = float(genuine.mean())
    if not 0 < prior < 1:
        raise ValueError(f"prior = {prior}: expected a share of genuine pairs between 0 and 1")
    numbers, places = np.unique(people, return_inverse=True)
    half = np.random.default_rng(seed).permutation(len(numbers)) % 2
    sides = half[places.reshape(people.shape)]
    folds = [(sides == side).all(1) for side in (0, 1)]
    both_kinds_of_pair = [{*genuine[fold].tolist()} == {True, False} for fold in folds]
    if not all(both_kinds_of_pair):
        return fit("platt", values, genuine, prior)
    judged = np.concatenate([np.flatnonzero(fold) for fold in reversed(folds)])
    truth = genuine[judged]
    weights = _weights(truth, prior)
    losses: dict[str, float] = {}
    said: dict[str, Reals] = {}
    kinds: tuple[Kind, Kind] = ("isotonic", "platt")
    for kind in kinds:
        curves = [fit(kind, values[fold], genuine[fold], prior) for fold in folds]
        others = [values[fold] for fold in reversed(folds)]
        ratio = np.concatenate([c.log_ratio(x) for c, x in zip(curves, others, strict=True)])
        odds = ratio + logit(prior)
        said[kind] = expit(odds)
        losses[kind] = float((weights * np.logaddexp(0, np.where(truth, -odds, odds))).sum())
    better = min(kinds, key=losses.__getitem__)
    chosen = fit(better, values, genuine, prior)
    return Calibration(
        kind=better,
        prior=prior,
        knots=chosen.knots,
        slope=chosen.slope,
        intercept=chosen.intercept,
        log_loss=losses,
        reliability=reliability_table(said[better], truth, weights=weights),
    )


def fit(kind: Kind, similarity: ArrayLike, same: ArrayLike, prior: float) -> Calibration:
    """One kind of calibration on pairs (P,), both sides weighing alike.

    isotonic: pool adjacent violators with a genuine pair added at the lowest similarity and an
    impostor at the highest, so that no finite sample claims certainty (Zadrozny and Elkan, KDD
    2002; the two pairs are Laplace's rule). platt: logistic regression on the similarity (Platt
    1999), with the same two pairs. A model that is worse than chance gets a flat curve.
    """
    values, genuine = _checked(similarity, same)
    values = np.append(values, [values.min(), values.max()])
    genuine = np.append(genuine, [True, False])
    weights = _weights(genuine, 0.5) * len(values)
    if kind == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        curve = IsotonicRegression().fit(values, genuine, sample_weight=weights)
        ratios = logit(curve.y_thresholds_)
        # Pooling in floating point may leave a step of the last bit downwards.
        ratios = np.maximum.accumulate(ratios)
        knots = zip(curve.X_thresholds_.tolist(), ratios.tolist(), strict=True)
        return Calibration("isotonic", prior, knots=tuple(knots))
    from sklearn.linear_model import LogisticRegression

    centre, spread = float(values.mean()), float(values.std())
    if not spread:
        return Calibration("platt", prior)
    scaled = ((values - centre) / spread)[:, None]
    # Two numbers to find: Newton's steps are few, and no step size is to be searched.
    model = LogisticRegression(C=np.inf, solver="newton-cholesky")
    model.fit(scaled, genuine, sample_weight=weights)
    slope = max(float(model.coef_[0, 0]) / spread, 0.0)
    intercept = float(model.intercept_[0]) - slope * centre if slope else 0.0
    return Calibration("platt", prior, slope=slope, intercept=intercept)


def reliability_table(
    probability: ArrayLike, same: ArrayLike, *, bins: int = BINS, weights: ArrayLike | None = None
) -> tuple[ReliabilityBin, ...]:
    """What was predicted beside what was so, in bins of equal width; empty bins are left out.

    probability (P,) in [0, 1], same (P,) bool, weights (P,) positive or None for equal ones.
    """
    said, genuine = _checked(probability, same, both=False)
    if bins < 1 or said.min() < 0 or said.max() > 1:
        raise ValueError(
            f"expected at least 1 bin and probabilities in [0, 1]; got {bins} bins, "
            f"[{said.min():g}, {said.max():g}]"
        )
    heavy = np.ones(len(said)) if weights is None else np.asarray(weights, dtype=np.float64)
    if heavy.shape != said.shape or not (heavy > 0).all():
        raise ValueError(f"weights: expected {len(said)} positive numbers, one a pair")
    place = np.minimum((said * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    mass, predicted, observed = (
        np.bincount(place, x, minlength=bins) for x in (heavy, heavy * said, heavy * genuine)
    )
    return tuple(
        ReliabilityBin(
            predicted=float(predicted[b] / mass[b]),
            observed=float(observed[b] / mass[b]),
            count=int(count[b]),
            share=float(mass[b] / mass.sum()),
        )
        for b in np.flatnonzero(count)
    )


def expected_calibration_error(table: tuple[ReliabilityBin, ...]) -> float:
    """Mean distance between predicted and observed over the pairs, in [0, 1].

    Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015.
    """
    if not table:
        raise ValueError("an empty reliability table has no calibration error")
    return sum(row.share * abs(row.observed - row.predicted) for row in table)


def _weights(same: NDArray[np.bool_], prior: float) -> Reals:
    """Weights (P,) that sum to `prior` over the genuine pairs and to 1 - prior over impostors."""
    return np.where(same, prior / same.sum(), (1 - prior) / (~same).sum())


def _checked(
    values: ArrayLike, same: ArrayLike, *, both: bool = True
) -> tuple[Reals, NDArray[np.bool_]]:
    numbers, genuine = np.asarray(values, dtype=np.float64), np.asarray(same)
    if numbers.ndim != 1 or numbers.shape != genuine.shape or genuine.dtype != np.bool_:
        raise ValueError(
            f"expected (P,) values and (P,) booleans, got {numbers.shape} and {genuine.shape} of "
            f"{genuine.dtype}"
        )
    if not np.isfinite(numbers).all():
        raise ValueError(f"value {int((~np.isfinite(numbers)).argmax())} is not finite")
    if both and (genuine.all() or not genuine.any()):
        side = "impostor" if genuine.any() else "genuine"
        raise ValueError(f"no {side} pair among {len(genuine)}; a calibration needs both")
    if not len(numbers):
        raise ValueError("no pairs")
    return numbers, genuine
