"""Slow twins: every formula as its paper writes it, in plain loops over Python floats.

Gradients come from autograd where the formula is smooth; where a paper holds something constant the
loops do so too.
"""

import math

import torch
from torch import Tensor


def distance(a: list[float], b: list[float]) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def unit(rows: Tensor) -> list[list[float]]:
    scaled = []
    for row in rows.tolist():
        norm = math.sqrt(sum(x * x for x in row))
        scaled.append([x / norm for x in row])
    return scaled


def ranked_list(
    points: list[list[float]],
    labels: list[int],
    margin: float,
    alpha: float,
    temperature: float,
    negative_weight: float = 1.0,
    gradient: str = "query",
    query_weighting: str = "uniform",
) -> tuple[float, list[list[float]]]:
    """The loss of unit points and its gradient by them (N, D), weights of negatives held."""
    number, dim = len(points), len(points[0])
    losses, masses = [0.0] * number, [0.0] * number
    by_distance = [[0.0] * number for _ in range(number)]  # derivative of a query's loss by d_ij
    for i in range(number):
        pulled, pushed = [], []
        for j in range(number):
            d = distance(points[i], points[j])
            if j != i and labels[j] == labels[i] and d > alpha - margin:
                pulled.append((j, d))
            if labels[j] != labels[i] and d < alpha:
                pushed.append((j, d, math.exp(temperature * (alpha - d))))
        total = sum(w for _, _, w in pushed)
        for j, d in pulled:
            losses[i] += (d - (alpha - margin)) / len(pulled)
            by_distance[i][j] = 1 / len(pulled)
        for j, d, w in pushed:
            losses[i] += negative_weight * w / total * (alpha - d)
            by_distance[i][j] = -negative_weight * w / total
        masses[i] = len(pulled) + total
    if query_weighting == "uniform":
        shares = [1 / number] * number
    else:
        shares = [mass / sum(masses) if mass else 0.0 for mass in masses]
    by_point = [[0.0] * dim for _ in range(number)]
    for i in range(number):
        for j in range(number):
            d = distance(points[i], points[j])
            if by_distance[i][j] == 0 or d == 0:
                continue
            for k in range(dim):
                step = shares[i] * by_distance[i][j] * (points[i][k] - points[j][k]) / d
                by_point[i][k] += step
                if gradient == "pair":
                    by_point[j][k] -= step
    return sum(s * loss for s, loss in zip(shares, losses, strict=True)), by_point


def gap_loss(gap: Tensor, margin: float | None) -> Tensor:
    return torch.log1p(gap.exp()) if margin is None else torch.relu(gap + margin)


def triplet_hard(rows: Tensor, labels: list[int], margin: float | None, squared: bool) -> Tensor:
    """Mean over anchors; rows (N, D). Every class has two or more rows."""
    terms = []
    for i in range(len(rows)):
        furthest, closest = torch.tensor(-1.0), torch.tensor(math.inf)
        for j in range(len(rows)):
            if j == i:
                continue
            d = (rows[i] - rows[j]).square().sum()
            d = d if squared else d.sqrt()
            if labels[j] == labels[i] and d > furthest:
                furthest = d
            if labels[j] != labels[i] and d < closest:
                closest = d
        terms.append(gap_loss(furthest - closest, margin))
    return torch.stack(terms).mean()


def triplet_all(rows: Tensor, labels: list[int], margin: float | None, squared: bool) -> Tensor:
    """Mean over the triplets with a loss above zero; rows (N, D)."""
    terms = []
    for i in range(len(rows)):
        for j in range(len(rows)):
            for k in range(len(rows)):
                if j == i or labels[j] != labels[i] or labels[k] == labels[i]:
                    continue
                near = (rows[i] - rows[j]).square().sum()
                far = (rows[i] - rows[k]).square().sum()
                gap = near - far if squared else near.sqrt() - far.sqrt()
                term = gap_loss(gap, margin)
                if term > 0:
                    terms.append(term)
    return torch.stack(terms).mean()


def cross_entropy(logits: list[list[float]], labels: list[int], smoothing: float) -> float:
    """Mean over rows of - sum_k q_k log p_k, q smoothed over all classes."""
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        log_sum = math.log(sum(math.exp(x) for x in row))
        for k, x in enumerate(row):
            target = smoothing / len(row) + (1 - smoothing if k == label else 0.0)
            total -= target * (x - log_sum)
    return total / len(logits)


def center(rows: list[list[float]], labels: list[int], centres: list[list[float]]) -> float:
    """Mean over rows of the squared distance to the centre of their class."""
    squares = [distance(row, centres[y]) ** 2 for row, y in zip(rows, labels, strict=True)]
    return sum(squares) / len(rows)
