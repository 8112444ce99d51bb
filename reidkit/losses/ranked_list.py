"""Ranked list loss: every sample of the batch ranks the others around itself."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from reidkit.distances import squared_euclidean
from reidkit.losses.pairs import PairLoss, Pairs, accepted_by_memory, full_precision, placed
from reidkit.losses.registries import LOSSES


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
        within = gallery is queries
        queries, gallery = placed(queries, gallery, normalize=self.normalize)
        with torch.no_grad():
            value, slope = self._value_and_slope(queries, gallery, pairs)
            if within and self.gradient == "pair":
                slope = slope + slope.t()  # a pair's other end is a row of the same batch
        if within or self.gradient == "query":
            gallery = gallery.detach()
        loss: Tensor = _Moved.apply(queries, gallery, value, slope)
        return loss

    def _value_and_slope(
        self, queries: Tensor, gallery: Tensor, pairs: Pairs
    ) -> tuple[Tensor, Tensor]:
        """The loss (), and its derivative by each distance over that distance (B, M)."""
        distance = squared_euclidean(queries, gallery).sqrt()
        # Hinges rather than comparisons with d: a NaN embedding passes through a hinge and is seen
        # in the loss.
        too_far = (
            (distance - (self.alpha - self.margin)).masked_fill(~pairs.positive, 0).clamp_min(0)
        )
        too_near = (self.alpha - distance).masked_fill(~pairs.negative, 0).clamp_min(0)
        pulled, pushed = too_far > 0, too_near > 0  # P* and N*
        count = pulled.sum(1, keepdim=True)
        logits = (self.temperature * too_near).masked_fill(~pushed, -torch.inf)
        pull = pulled.to(distance) / count.clamp_min(1)  # 1 / |P*|
        push = logits.softmax(1).masked_fill(~pushed, 0)  # w / sum of w, 0 where N* is empty
        per_query = (pull * too_far).sum(1) + self.negative_weight * (push * too_near).sum(1)
        share = self._share(count[:, 0], logits)
        derivative = share[:, None] * (pull - self.negative_weight * push)
        # Two equal points have no direction to part in: their slope is 0 and the gradient stays
        # finite.
        slope = (derivative / distance).masked_fill(distance == 0, 0)
        return (share * per_query).sum(), slope

    def _share(self, count: Tensor, logits: Tensor) -> Tensor:
        """How much each query counts, (B,)."""
        if self.query_weighting == "uniform":
            return logits.new_full((len(logits),), 1 / len(logits))
        mass = torch.logaddexp(count.to(logits).log(), logits.logsumexp(1))
        return mass.softmax(0).nan_to_num(0)  # NaN only where no query has a violating pair

    def extra_repr(self) -> str:
        """The settings, for printing."""
        settings = ["margin", "alpha", "temperature", "negative_weight", "gradient"]
        settings += ["query_weighting", "normalize"]
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in settings)


class _Moved(torch.autograd.Function):
    """`value` forward; backward the gradient of `sum_ij slope_ij / 2 * |x_i - g_j|^2`, slope held.

    The weights of the negatives are constants in the paper, so a pair's gradient is its weight
    times a unit vector, and a whole batch takes one product: row sums times x, minus slope times g.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, gallery: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(queries, gallery, slope)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # only under create_graph; without this a part would be missing
            raise RuntimeError(
                "the ranked list loss has no second derivative, as its weights are constants; "
                "call backward without create_graph"
            )
        queries, gallery, slope = ctx.saved_tensors
        with full_precision(queries):
            slope = upstream * slope
            at_queries = at_gallery = None
            if ctx.needs_input_grad[0]:
                at_queries = torch.addmm(
                    slope.sum(1, keepdim=True) * queries, slope, gallery, alpha=-1
                )
            if ctx.needs_input_grad[1]:
                at_gallery = torch.addmm(
                    slope.sum(0)[:, None] * gallery, slope.t(), queries, alpha=-1
                )
        return at_queries, at_gallery, None, None
