"""Open-set identification: who is it, and is it anybody we know?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from reidkit.evaluation.decision.pairs import JUNK, placed, placed_similarity
from reidkit.evaluation.evaluate import nearest
from reidkit.evaluation.hits import find_hits
from reidkit.evaluation.metrics import first_ranks
from reidkit.evaluation.protocols import protocol as named_protocol
from reidkit.neighbours import knn
from reidkit.types import EvalProtocol, Features, Metric


@dataclass(frozen=True, slots=True)
class OpenSetPoint:
    """One threshold: `detection` is the DIR, `false_alarm` the FAR that was seen, fractions."""

    rate: float
    threshold: float
    detection: float
    false_alarm: float


@dataclass(frozen=True, slots=True)
class OpenSet:
    """Detection and identification at the asked false-alarm rates, in their order.

    `mated` queries have a right answer in the gallery, `nonmated` ones have none.
    """

    points: tuple[OpenSetPoint, ...]
    mated: int
    nonmated: int
    metric: Metric

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def table(self) -> str:
        """A few lines a person can read, in percent."""
        lines = [f"{'FAR':>8}  {'seen':>8}  {'DIR':>8}  {'threshold':>9}"]
        lines += [
            f"{100 * p.rate:>7.3g}%  {100 * p.false_alarm:>7.3g}%  {100 * p.detection:>7.2f}%  "
            f"{p.threshold:>9.4f}"
            for p in self.points
        ]
        return "\n".join([*lines, f"{self.mated} queries are in the gallery, {self.nonmated} not"])


class Answer(NamedTuple):
    """The nearest gallery item, and its identity: None where it is not near enough."""

    pid: int | None
    similarity: float  # the cosine, or minus the Euclidean distance
    item: int  # position in the gallery


def open_set(
    query: Features,
    gallery: Features,
    protocol: EvalProtocol | str,
    rates: Sequence[float],
    *,
    metric: Metric = "cosine",
) -> OpenSet:
    """Detection and identification rate (DIR, rank 1) at each false-alarm rate (FAR).

    A query alarms where its nearest valid item reaches the threshold. FAR is the share of
    non-mated queries that alarm; DIR the share of mated ones whose nearest item is right and
    reaches it. The threshold is the lowest with a FAR of at most `rate` on these queries, without
    a bound for others. Phillips, Grother and Micheals, Evaluation Methods in Face Recognition
    (Handbook of Face Recognition, 2005), open-set identification. A tie with a wrong item counts
    as wrong.

    Args:
        query: vectors (Q, D), with identities that are in the gallery and such that are not.
        gallery: vectors (G, D).
        protocol: a record or a name; what it leaves out answers nothing.
        rates: FARs in (0, 1).
        metric: cosine or euclidean.

    Raises:
        ValueError: a rate outside (0, 1) or below what one non-mated query weighs, no mated or no
            non-mated query, or anything `find_hits` refuses.
    """
    rules = named_protocol(protocol) if isinstance(protocol, str) else protocol
    for rate in rates:
        if not 0 < rate < 1:
            raise ValueError(f"false-alarm rate {rate}: expected a fraction between 0 and 1")
    if not rates:
        raise ValueError("no false-alarm rate; give at least one, such as 0.01")
    first = first_ranks(find_hits(query, gallery, rules, metric=metric)).numpy()
    _, distances = nearest(query, gallery, rules, 1, metric=metric)
    far = distances[:, 0].numpy()
    # A query for which nothing is left to compare never alarms.
    top = np.where(np.isnan(far), -np.inf, 1 - far if metric == "cosine" else -far)
    nonmated = np.isnan(first)
    strangers = np.sort(top[nonmated])[::-1]
    if not strangers.size:
        raise ValueError(
            "every query has a right answer in the gallery; open-set needs some that have none"
        )
    # The floor must not lose 1 of 10 to rounding.
    allowed = [int(rate * strangers.size * (1 + 1e-12)) for rate in rates]
    if min(allowed) < 1:
        raise ValueError(
            f"a false-alarm rate of {min(rates):g} needs {int(np.ceil(1 / min(rates))):,} queries "
            f"that are not in the gallery; here are {strangers.size:,}, enough for "
            f"{np.ceil(1e6 / strangers.size) / 1e6:g}"
        )
    right = top[first == 1]
    mated = int((~nonmated).sum())
    points = []
    for rate, count in zip(rates, allowed, strict=True):
        threshold = float(np.nextafter(strangers[min(count, strangers.size - 1)], np.inf))
        points.append(
            OpenSetPoint(
                rate=float(rate),
                threshold=threshold,
                detection=float((right >= threshold).sum()) / mated,
                false_alarm=float((strangers >= threshold).mean()),
            )
        )
    return OpenSet(tuple(points), mated, int(strangers.size), metric)


def identify(
    query: Features, gallery: Features, threshold: float, *, metric: Metric = "cosine"
) -> list[Answer]:
    """The identity of each query's nearest gallery item, or None: nobody the gallery knows.

    The threshold is a similarity: an `OpenSetPoint`'s, since one for pairs (`decide`) gives more
    false alarms the larger the gallery. Pids of queries are not looked at; gallery items with pid
    -1 are left out. Of items equally near any one answers.

    Raises:
        ValueError: a gallery without identities, features of two models, a threshold that is NaN,
            anything `knn` refuses.
    """
    if query.model and gallery.model and query.model != gallery.model:
        raise ValueError(
            f"query features are of model {query.model}, gallery features of {gallery.model}: "
            "extract both with one"
        )
    if np.isnan(threshold):
        raise ValueError("the threshold is NaN; expected a similarity")
    known = [i for i, sample in enumerate(gallery.samples) if sample.pid != JUNK]
    if not known:
        raise ValueError("the gallery holds no identity (pid -1 counts as none)")
    vectors = gallery.vectors[known]
    _, found = knn(query.vectors, vectors, 1, metric=metric)
    chosen = vectors[found[:, 0].to(vectors.device)]
    near = placed_similarity(placed(query.vectors, metric), placed(chosen, metric), metric)
    answers = []
    for place, similarity in zip(found[:, 0].tolist(), near.tolist(), strict=True):
        item = known[place]
        pid = gallery.samples[item].pid if similarity >= threshold else None
        answers.append(Answer(pid, similarity, item))
    return answers
