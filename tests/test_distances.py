import math

import pytest
import torch

from reidkit.distances import cosine, euclidean, squared_euclidean


def rows(count, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=generator, dtype=torch.float64)


def by_hand(a, b, distance):
    table = [[distance(x, y) for y in b.tolist()] for x in a.tolist()]
    return torch.tensor(table, dtype=torch.float64)


def plain_squares(x, y):
    return sum((u - v) ** 2 for u, v in zip(x, y, strict=True))


def plain_cosine(x, y):
    product = sum(u * v for u, v in zip(x, y, strict=True))
    return 1 - product / math.hypot(*x) / math.hypot(*y)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 5), (7, 2, 16)])
def test_distances_equal_a_double_loop(shape):
    a, b = rows(shape[0], shape[2], 0), rows(shape[1], shape[2], 1)
    squares = by_hand(a, b, plain_squares)
    torch.testing.assert_close(squared_euclidean(a, b), squares, rtol=0, atol=1e-6)
    torch.testing.assert_close(euclidean(a, b), squares.sqrt(), rtol=0, atol=1e-6)
    torch.testing.assert_close(cosine(a, b), by_hand(a, b, plain_cosine), rtol=0, atol=1e-6)


def test_squares_are_never_negative_and_the_root_has_a_finite_slope_where_rows_coincide():
    a = rows(4, 3, 0).repeat(2, 1).requires_grad_()
    assert (squared_euclidean(a, a) >= 0).all()
    euclidean(a, a).sum().backward()
    assert a.grad.isfinite().all()
