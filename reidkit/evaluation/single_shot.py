"""Galleries of one random image an identity: the expectation over all draws, without drawing."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reidkit.evaluation.candidates import Candidates
from reidkit.evaluation.scoring import Scorer
from reidkit.evaluation.sides import Floats, Integers, Side, as_side
from reidkit.types import EvalProtocol, Features, Metric

SCORES = 2**20  # held at a time: 8 MB
TOGETHER = 32  # right answers whose distributions grow side by side, while they fit in the cache


class SingleShot(NamedTuple):
    """Expected scores of each query; NaN where it has no right answer."""

    cmc: Tensor  # (Q, K) float64: the chance that the right image is among the first k
    average_precision: Tensor  # (Q,) float64: the expectation of 1/rank
    candidates: Tensor  # (Q,) int64, identities in the gallery of the query


@torch.no_grad()
def expected_single_shot(
    query: Features | Side,
    gallery: Features | Side,
    protocol: EvalProtocol,
    *,
    metric: Metric = "cosine",
    ranks: int = 50,
) -> SingleShot:
    """CMC and average precision of galleries that hold one image of each identity, in expectation.

    The classic protocol of CUHK03 (Li et al., DeepReID, CVPR 2014) draws such galleries at random
    and takes the mean over ten or more; this is what that mean tends to. Exclusions come first;
    then each identity's image is drawn uniformly from those that are left, independently of the
    others. Given the right image, another identity stands before it with the chance p = (its images
    that are closer or as close) / (its images), so that the number of those before it is
    Poisson-binomial, and its rank one more. All p's distributions are built up exactly, one
    identity after the other, and averaged over the right images. Gallery pid 0 is drawn from as one
    identity; an identity of which no image is left is not in the gallery.

    Args:
        query: vectors (Q, D).
        gallery: vectors (G, D), all images that may be drawn.
        protocol: which gallery items may be drawn for a query.
        metric: cosine or euclidean.
        ranks: K of the CMC; beyond the number of identities it stays at 1.

    Raises:
        ValueError: `ranks` below 1, or anything `find_hits` refuses.
    """
    if ranks < 1:
        raise ValueError(f"ranks = {ranks}: expected at least 1")
    same = query is gallery
    query = as_side(query)
    gallery = query if same else as_side(gallery)
    candidates = Candidates(query, gallery, protocol)
    candidates.right()  # refuses a gallery without any
    scorer = Scorer(query, gallery, metric)
    _, codes = np.unique(gallery.pids, return_inverse=True)
    cmc = np.full((len(query), ranks), np.nan)
    precision = np.full(len(query), np.nan)
    identities = np.zeros(len(query), np.int64)
    for start, scores in scorer.blocks(max(1, SCORES // len(gallery))):
        for q, row in enumerate(scores.numpy(), start):
            choice = candidates.of(q)
            chances, identities[q] = _chances(row, codes, choice.right, choice.excluded, scorer.tie)
            if len(chances):
                before = _before(chances)
                places = np.arange(1, before.size + 1)
                precision[q] = (before / places).sum()
                reached = before.cumsum()[:ranks]
                # The chances add up to 1, but for rounding.
                cmc[q] = np.minimum(np.pad(reached, (0, ranks - len(reached)), mode="edge"), 1)
    return SingleShot(
        torch.from_numpy(cmc), torch.from_numpy(precision), torch.from_numpy(identities)
    )


def _chances(
    row: Floats, codes: Integers, right: Integers, excluded: Integers, tie: float
) -> tuple[Floats, int]:
    """For each right image (R) and other identity (W) the chance that the latter's image is before.

    (R, W); and the number of identities in the gallery, the right one included.
    """
    wrong = np.ones(len(row), dtype=bool)
    wrong[right] = False
    wrong[excluded] = False
    wrong_codes, wrong_scores = codes[wrong], row[wrong]
    images = np.bincount(wrong_codes)
    there = images > 0
    chances = np.empty((len(right), int(there.sum())))
    for n, image in enumerate(right):
        closer = np.bincount(wrong_codes[wrong_scores >= row[image] - tie], minlength=len(images))
        chances[n] = closer[there] / images[there]
    return chances, chances.shape[1] + bool(len(right))


def _before(chances: Floats) -> Floats:
    """The chance that n other identities stand before the right image, its mean over the images.

    chances (R, W) -> (W + 1,), adding up to 1.
    """
    total = np.zeros(chances.shape[1] + 1)
    for start in range(0, len(chances), TOGETHER):
        total += _poisson_binomial(chances[start : start + TOGETHER]).sum(0)
    return total / len(chances)


def _poisson_binomial(chances: Floats) -> Floats:
    """How many of W independent events happen, for each row of their chances.

    (R, W) -> (R, W + 1). Each event splits the distribution so far: n stays n, or becomes n + 1.
    Only sums of non-negative numbers, so nothing cancels.
    """
    found = np.zeros((chances.shape[1] + 1, len(chances)))
    found[0] = 1
    happening = chances[:, chances.any(0)].T  # what never happens changes nothing
    for n, chance in enumerate(happening):
        grown = found[: n + 1] * chance
        found[: n + 1] *= 1 - chance
        found[1 : n + 2] += grown
    return found.T
