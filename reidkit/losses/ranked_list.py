"""Ranked list loss: every sample of the batch ranks the others around itself."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from reidkit.distances import squared_euclidean
from reidkit.losses.pairs import PairLoss, Pairs, accepted_by_memory, full_precision, placed
from reidkit.losses.registries import LOSSES

_NEVER = 1e30  # so far below the others in the exponent that the weight is exactly 0


@LOSSES.register("ranked_list")
@accepted_by_memory
class RankedListLoss(PairLoss):
    """Pull positives inside `alpha - margin`, push negatives beyond `alpha`, weigh the hard ones.

    Wang, Hua, Kodirov, Hu, Garnier, Robertson: Ranked List Loss for Deep Metric Learning, CVPR
    2019, arXiv:1903.03238.

    Args:
        margin: gap between the positive and the negative boundary, as a distance of unit vectors,
            >= 0.
        alpha: boundary that negatives are pushed beyond, > 0; None means `1 + margin / 2`
            (RLL-Simpler).
        temperature: 0 weights all violating negatives alike; larger weights the closest more.
        negative_weight: the paper's lambda, how much the negatives count against the positives.
        gradient: "query" moves each query with its gallery held fixed (the paper); "pair" moves
            both ends.
        query_weighting: "uniform" is the mean over queries (the paper); "mass" weights a query by
            the sum of the weights of its violating pairs, as the authors' code does, so that hard
            queries lead.
        normalize: scale embeddings to length 1 here; False when they are unit vectors already.
    """

    def __init__(
        self,
        margin: float = 0.4,
        alpha: float | None = None,
        temperature: float = 10.0,
        negative_weight: float = 1.0,
        gradient: Literal["query", "pair"] = "query",
        *,
        query_weighting: Literal["uniform", "mass"] = "uniform",
        normalize: bool = True,
    ) -> None:
        super().__init__()
        alpha = 1 + margin / 2 if alpha is None else alpha
        numbers = {"margin": margin, "temperature": temperature, "negative_weight": negative_weight}
        for name, value in numbers.items():
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a number >= 0, got {value}")
        if not (math.isfinite(alpha) and alpha > 0):
            raise ValueError(f"alpha must be a number > 0, got {alpha}")
        if gradient not in ("query", "pair"):
            raise ValueError(f"gradient must be 'query' or 'pair', got {gradient!r}")
        if query_weighting not in ("uniform", "mass"):
            raise ValueError(
                f"query_weighting must be 'uniform' or 'mass', got {query_weighting!r}"
            )
        self.margin = margin
        self.alpha = alpha
        self.temperature = temperature
        self.negative_weight = negative_weight
        self.gradient = gradient
        self.query_weighting = query_weighting
        self.normalize = normalize

    def compare(self, queries: Tensor, gallery: Tensor, pairs: Pairs) -> Tensor:
        """The mean over queries of L_P + lambda L_N; a query without violating pairs gives 0."""
        loss: Tensor = _Ranked.apply(queries, gallery, pairs, self)
        return loss

    def value_and_slope(
        self, queries: Tensor, gallery: Tensor, pairs: Pairs
    ) -> tuple[Tensor, Tensor]:
        """The loss (), and its derivative by each distance over that distance (B, M); of rows as
        `placed` gives them, and without a graph."""
        # Masks are numbers here: a product is many times faster than a choice by booleans, and
        # where an embedding is NaN it stays NaN and is seen in the loss.
        distance = squared_euclidean(queries, gallery).sqrt_()
        too_far = (distance - (self.alpha - self.margin)).clamp_min_(0).mul_(pairs.positive)
        too_near = (self.alpha - distance).clamp_min_(0).mul_(pairs.negative)
        pulled, pushed = too_far.sign(), too_near.sign()  # 1 in P* and N*, else 0
        count = pulled.sum(1, keepdim=True)
        logits = (pushed - 1).mul_(_NEVER).add_(too_near, alpha=self.temperature)
        push = logits.softmax(1).mul_(pushed)  # w / sum of w, 0 where N* is empty
        share = self._share(count[:, 0], logits)[:, None]
        pull = pulled.mul_(share / count.clamp_min(1))  # 1 / |P*|
        push.mul_(self.negative_weight * share)
        value = torch.dot(pull.view(-1), too_far.view(-1))
        value += torch.dot(push.view(-1), too_near.view(-1))
        # Two equal points have no direction to part in: their slope is 0 and the gradient stays
        # finite.
        inverse = distance.reciprocal_().nan_to_num_(nan=torch.nan, posinf=0)
        return value, pull.sub_(push).mul_(inverse)

    def _share(self, count: Tensor, logits: Tensor) -> Tensor:
        """How much each query counts, (B,)."""
        if self.query_weighting == "uniform":
            return logits.new_full((len(logits),), 1 / len(logits))
        mass = torch.logaddexp(count.log(), logits.logsumexp(1))
        return mass.softmax(0)

    def extra_repr(self) -> str:
        """The settings, for printing."""
        settings = ["margin", "alpha", "temperature", "negative_weight", "gradient"]
        settings += ["query_weighting", "normalize"]
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in settings)


class _Ranked(torch.autograd.Function):
    """The loss forward; backward the gradient of `sum_ij slope_ij / 2 * |x_i - g_j|^2`, slope held.

    The weights of the negatives are constants in the paper, so a pair's gradient is its weight
    times a unit vector, and a whole batch takes one product: row sums times x, minus slope times g.
    """

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, gallery: Tensor, pairs: Pairs, loss: RankedListLoss
    ) -> Tensor:
        within = gallery is queries
        x, g = placed(queries, gallery, normalize=loss.normalize)
        value, slope = loss.value_and_slope(x, g, pairs)
        if within and loss.gradient == "pair":
            slope = slope + slope.t()  # a pair's other end is a row of the same batch
        ctx.gallery_moves = not within and loss.gradient == "pair"
        ctx.normalize = loss.normalize
        ctx.save_for_backward(queries, gallery, x, g, slope)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # only under create_graph; without this a part would be missing
            raise RuntimeError(
                "the ranked list loss has no second derivative, as its weights are constants; "
                "call backward without create_graph"
            )
        queries, gallery, x, g, slope = ctx.saved_tensors
        at_queries = at_gallery = None
        with full_precision(x):
            slope = slope * -upstream
            if ctx.needs_input_grad[0]:
                at_queries = _apart(slope, x, g)
            if ctx.needs_input_grad[1] and ctx.gallery_moves:
                at_gallery = _apart(slope.t(), g, x)
            if ctx.normalize:
                _through_normalize(at_queries, queries)
                _through_normalize(at_gallery, gallery)
        return at_queries, at_gallery, None, None


def _apart(slope: Tensor, x: Tensor, g: Tensor) -> Tensor:
    """sum_j slope_ij (g_j - x_i). slope (B, M), x (B, D), g (M, D) -> (B, D)."""
    return (slope @ g).addcmul_(slope.sum(1, keepdim=True), x, value=-1)


def _through_normalize(gradient: Tensor | None, rows: Tensor) -> None:
    """Make the gradient by `F.normalize(rows)` that by the rows, in place; both (N, D)."""
    if gradient is not None:
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min_(1e-12)
        along = (gradient * rows).sum(1, keepdim=True) / length
        gradient.addcmul_(along / length, rows, value=-1).div_(length)
