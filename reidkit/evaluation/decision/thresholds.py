"""Thresholds that keep a promised false-match rate: exact bounds, and how much data they need."""

import math
from bisect import bisect_right
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

Independent = Literal["identities", "estimated", "pairs"]


class TooFewPairs(ValueError):
    """Too little data for the promised rate; the message says what would be enough."""


class Promise(NamedTuple):
    """A threshold, the bound on its false-match rate, and how many independent pairs stand for
    it."""

    threshold: float
    upper_bound: float
    independent_pairs: float


def exact_threshold(
    impostors: ArrayLike,
    rate: float,
    *,
    confidence: float = 0.95,
    independent: Independent = "pairs",
) -> Promise:
    """The lowest threshold whose false-match rate is at most `rate`, with this confidence.

    The threshold lies just above the k-th largest impostor similarity. For independent pairs the
    true rate beyond it is that of the k-th smallest of n uniform numbers, Beta(k, n - k + 1), so k
    is the largest with P(Beta > rate) <= 1 - confidence. That is the Clopper-Pearson bound for
    k - 1 false matches in n pairs; since n, rate and confidence fix k before a similarity is looked
    at, choosing and judging on the same pairs costs nothing. Tied similarities fall together below
    the threshold, which can only lower the rate.

    Args:
        impostors: (n,) similarities of independent impostor pairs.
        rate: to be promised, in (0, 1).
        confidence: in (0, 1).
        independent: how the pairs came to be independent: what a message asks for.

    Raises:
        TooFewPairs: n is below log(1 - confidence) / log(1 - rate).
        ValueError: similarities that are not finite or not (n,), a rate or confidence outside
            (0, 1).
    """
    check_fraction("false_match_rate", rate)
    check_fraction("confidence", confidence)
    values = np.asarray(impostors, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"expected finite impostor similarities (n,), got shape {values.shape}")
    allowed = matches_allowed(len(values), rate, confidence)
    if allowed < 0:
        raise TooFewPairs(_too_few(independent, len(values), rate, confidence))
    bound = upper_bound(allowed, len(values), confidence)
    return Promise(_above(np.sort(values)[::-1], allowed), bound, float(len(values)))


def estimated_threshold(
    impostors: ArrayLike, identities: ArrayLike, rate: float, *, confidence: float = 0.95
) -> Promise:
    """The lowest threshold that seems to keep the rate where pairs share identities.

    The pairs count as the number of independent ones whose share of false matches would vary as
    much: Korn and Graubard, Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data, Survey Methodology 1998. An approximation: blind to
    a kind of person that the data do not hold.

    Args:
        impostors: (n,) similarities.
        identities: (n, 2) integers, whom the two items show.
        rate: in (0, 1).
        confidence: in (0, 1).

    Raises:
        TooFewPairs: even without a false match they are worth too little.
    """
    check_fraction("false_match_rate", rate)
    check_fraction("confidence", confidence)
    values, people = np.asarray(impostors, dtype=np.float64), np.asarray(identities)
    order = np.argsort(-values, kind="stable")
    total = len(order)
    worth = _worth(people[order])

    def bound(matches: int) -> float:
        pairs = worth(matches)
        return upper_bound(matches / total * pairs, pairs, confidence)

    allowed = bisect_right(range(total), rate, key=bound) - 1
    if allowed < 0:
        raise TooFewPairs(_too_few("estimated", worth(0), rate, confidence))
    return Promise(_above(values[order], allowed), bound(allowed), worth(allowed))


def upper_bound(matches: float, pairs: float, confidence: float = 0.95) -> float:
    """One-sided Clopper-Pearson bound on a rate of which `matches` in `pairs` were seen.

    Clopper and Pearson, Biometrika 1934. 1 without pairs.
    """
    if matches >= pairs:
        return 1.0
    return float(betaincinv(matches + 1, pairs - matches, confidence))


def rate_interval(matches: float, pairs: float, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided Clopper-Pearson interval of a rate; each side is missed with half of the rest."""
    side = (1 + confidence) / 2
    return 1 - upper_bound(pairs - matches, pairs, side), upper_bound(matches, pairs, side)


def matches_allowed(pairs: int, rate: float, confidence: float = 0.95) -> int:
    """The most false matches among independent pairs that still prove the rate; -1 where even none
    would not."""
    return bisect_right(range(pairs), rate, key=lambda n: upper_bound(n, pairs, confidence)) - 1


def pairs_needed(rate: float, confidence: float = 0.95) -> int:
    """The fewest independent impostor pairs that can prove the rate: then none may match."""
    return math.ceil(math.log1p(-confidence) / math.log1p(-rate))


def lowest_rate(pairs: float, confidence: float = 0.95) -> float:
    """The lowest rate that so many independent pairs can prove; 1 without any."""
    return -math.expm1(math.log1p(-confidence) / pairs) if pairs else 1.0


def check_fraction(name: str, value: float) -> None:
    """Raise a ValueError unless the value lies strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} = {value}: expected a fraction between 0 and 1")


def _worth(people: NDArray[np.int64]) -> Callable[[int], float]:
    """A function: the independent pairs that vary as much as these (n, 2) in their share of false
    matches, where so many of the first are false.

    The jackknife leaves out one identity at a time; its variance errs to the safe side (Efron and
    Stein, Annals of Statistics 1981). Never fewer than pairs that share nobody.
    """
    total = len(people)
    pairs_of = np.bincount(people.ravel())
    there = pairs_of > 0
    identities = int(there.sum())
    left = np.maximum(total - pairs_of[there], 1)

    def worth(matches: int) -> float:
        # Without any false match there is no variance to see: counted as with one.
        matches = max(matches, 1)
        matches_of = np.bincount(people[:matches].ravel(), minlength=len(pairs_of))[there]
        without = (matches - matches_of) / left
        variance = (identities - 1) * float(without.var())
        share = matches / total
        pairs = share * (1 - share) / variance if variance > 0 else 0.0
        return float(min(max(pairs, identities // 2), total))

    return worth


def _above(descending: NDArray[np.float64], allowed: int) -> float:
    """The lowest threshold that at most `allowed` of these reach, ties or not."""
    return float(np.nextafter(descending[allowed], np.inf))


def _too_few(independent: Independent, pairs: float, rate: float, confidence: float) -> str:
    needed = pairs_needed(rate, confidence)
    words = {
        "identities": (
            f"{needed:,} impostor pairs that share no identity, so {2 * needed:,} identities; "
            f"here are {pairs:,.0f} such pairs"
        ),
        "estimated": f"{needed:,} independent impostor pairs; these are worth {pairs:,.0f}",
        "pairs": f"{needed:,} impostor pairs; here are {pairs:,.0f}",
    }[independent]
    lowest = lowest_rate(pairs, confidence)
    # Rounded up, so that what is said can be asked for.
    digits = 10.0 ** (2 - math.floor(math.log10(lowest)))
    possible = math.ceil(lowest * digits) / digits
    message = (
        f"a false-match rate of {rate:g} with {100 * confidence:g} % confidence needs {words}; "
        + (f"{possible:g} is possible" if possible < 1 else "no rate is possible")
    )
    if independent == "identities":
        message += "; independent 'estimated' gets by with fewer, without a guarantee"
    return message
