import pytest
import torch
from torch.testing import assert_close

from reidkit.models import SPATIAL, AveragePool, GeMPool, MaxPool, PartPool


def cells(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("name", list(SPATIAL))
def test_a_pool_gives_the_parts_it_declares(name):
    pool = SPATIAL.build(name)
    assert pool(cells(2, 5, 12, 4)).shape == (2, pool.parts, 5)


def test_average_and_max_are_over_all_cells():
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    assert AveragePool()(x).tolist() == [[[3.0]]]
    assert MaxPool()(x).tolist() == [[[6.0]]]


def test_gem_equals_the_formula_cell_by_cell():
    pool = GeMPool(p=2.5, eps=1e-3).double()
    x = cells(2, 3, 4, 2)
    got = pool(x)
    for n in range(2):
        for c in range(3):
            values = [max(float(v), 1e-3) ** 2.5 for v in x[n, c].flatten()]
            assert float(got[n, 0, c]) == pytest.approx((sum(values) / 8) ** (1 / 2.5))


def test_gem_with_p_one_is_the_average_and_with_large_p_nears_the_maximum():
    x = cells(2, 3, 4, 2).abs() + 0.1
    assert_close(GeMPool(1.0).double()(x), AveragePool()(x))
    assert_close(GeMPool(200.0).double()(x), MaxPool()(x), rtol=0.02, atol=0)


def test_gem_learns_p():
    pool = GeMPool().double()
    assert torch.autograd.gradcheck(lambda x, p: pool_with(pool, x, p), gradcheck_inputs())
    pool(cells(2, 3, 4, 2)).sum().backward()
    assert pool.p.grad != 0
    assert not GeMPool(learn=False).p.requires_grad


def gradcheck_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    x = (cells(2, 3, 4, 2).abs() + 0.1).requires_grad_()
    return x, torch.tensor(3.0, dtype=torch.float64, requires_grad=True)


def pool_with(pool: GeMPool, x: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    return torch.func.functional_call(pool, {"p": p}, (x,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gem_does_not_overflow_half_precision(dtype):
    x = torch.full((1, 1, 2, 2), 300.0, dtype=dtype)  # 300^3 is beyond float16
    result = GeMPool()(x)
    assert result.dtype == torch.float32
    assert_close(result, torch.full((1, 1, 1), 300.0), rtol=1e-3, atol=0)


def test_gem_of_a_half_precision_model_stays_in_half_precision():
    assert GeMPool().bfloat16()(torch.ones(1, 1, 2, 2).bfloat16()).dtype == torch.bfloat16


def test_gem_of_dead_cells_has_a_finite_gradient():
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    GeMPool()(x).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["average", "max", "average+max"])
def test_parts_equal_a_loop_over_stripes(kind):
    x = cells(2, 5, 12, 3)
    got = PartPool(4, kind)(x)
    for part in range(4):
        stripe = x[:, :, 3 * part : 3 * part + 3]
        mean, largest = stripe.mean((2, 3)), stripe.amax((2, 3))
        expected = {"average": mean, "max": largest, "average+max": mean + largest}[kind]
        assert_close(got[:, part], expected)


@pytest.mark.parametrize("kind", ["average", "max"])
def test_the_whole_body_stands_in_front_of_its_parts(kind):
    x = cells(2, 5, 12, 4)
    pool = PartPool(3, kind, whole=True)
    whole = x.mean((2, 3)) if kind == "average" else x.amax((2, 3))
    assert pool.parts == 4
    assert_close(pool(x)[:, 0], whole)
    assert torch.equal(pool(x)[:, 1:], PartPool(3, kind)(x))


def test_more_parts_than_rows_are_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"6 parts need .* rows, got 4; use fewer parts"):
        PartPool(6)(cells(1, 2, 4, 2))


def test_pools_refuse_impossible_numbers():
    with pytest.raises(ValueError, match="count 0"):
        PartPool(0)
    with pytest.raises(ValueError, match="p 0"):
        GeMPool(0.0)
