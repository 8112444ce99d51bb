import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from reidkit.models import TEMPORAL, SetPooling

KINDS = ["max", "mean", "median", "attention"]


def pooling(kind: str, dim: int, dtype: torch.dtype = torch.float64) -> SetPooling:
    pool = SetPooling(kind, dim)
    if pool.score is not None:
        generator = torch.Generator().manual_seed(5)
        pool.score.weight.data.normal_(generator=generator)
    return pool.to(dtype)


def slow(kind: str, pool: SetPooling, frames: torch.Tensor) -> torch.Tensor:
    """Over the true frames (T, P, D) of one row, with nothing to mask."""
    if kind == "attention":
        scores = [frame @ pool.score.weight[0] for frame in frames]  # T x (P,)
        weights = torch.stack(scores).softmax(0)[..., None]
        return sum(w * frame for w, frame in zip(weights, frames, strict=True))
    return {
        "max": frames.max(0).values,
        "mean": sum(frames) / len(frames),
        "median": frames.median(0).values,
    }[kind]


def test_every_kind_is_registered():
    assert set(TEMPORAL) == set(KINDS)
    assert [TEMPORAL.build(kind, in_dim=4).kind for kind in KINDS] == KINDS


@pytest.mark.parametrize("kind", KINDS)
@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=4), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_a_row_is_pooled_over_its_true_frames_wherever_they_stand(kind, counts, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(counts), 7, 2, 3, generator=generator, dtype=torch.float64)
    mask = torch.zeros(len(counts), 7, dtype=torch.bool)
    for row, count in zip(mask, counts, strict=True):
        row[torch.randperm(7, generator=generator)[:count]] = True
    pool = pooling(kind, 3)
    got = pool(x, mask)
    for row in range(len(counts)):
        assert_close(got[row], slow(kind, pool, x[row][mask[row]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("padding", [0.0, 1e9, float("inf"), float("nan")])
@pytest.mark.parametrize("kind", KINDS)
def test_padded_frames_change_nothing_at_all(kind, padding, dtype):
    x = torch.randn(3, 4, 2, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    mask = torch.tensor([[True] * 4, [True] * 2 + [False] * 2, [True] + [False] * 3])
    pool = pooling(kind, 8, dtype)
    expected = pool(x, mask)
    longer = torch.cat([x, torch.zeros(3, 5, 2, 8, dtype=dtype)], dim=1)
    longer_mask = torch.cat([mask, torch.zeros(3, 5, dtype=torch.bool)], dim=1)
    longer = torch.where(longer_mask[..., None, None], longer, padding)
    got = pool(longer, longer_mask)
    assert got.dtype == dtype
    assert torch.equal(got, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_receives_no_gradient_and_true_frames_a_finite_one(kind):
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True, True, False], [True, True, True]])
    x = torch.where(mask[..., None], x, torch.nan).requires_grad_()
    pooling(kind, 4, torch.float32)(x, mask).square().sum().backward()
    assert (x.grad[~mask] == 0).all()
    assert x.grad.isfinite().all() and (x.grad[1] != 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_one_frame_is_its_own_pool(kind):
    x = torch.randn(3, 1, 2, 4, dtype=torch.float64)
    assert torch.equal(pooling(kind, 4)(x, torch.ones(3, 1, dtype=torch.bool)), x[:, 0])


@pytest.mark.parametrize("kind", ["max", "mean", "median"])
def test_maps_of_silhouettes_are_pooled_too(kind):
    x = torch.randn(2, 5, 3, 4, 6, dtype=torch.float64)
    mask = torch.ones(2, 5, dtype=torch.bool)
    assert SetPooling(kind)(x, mask).shape == (2, 3, 4, 6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_the_frames_does_not_matter(kind):
    x = torch.randn(2, 5, 2, 4, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]])
    order = torch.tensor([3, 0, 4, 2, 1])
    pool = pooling(kind, 4)
    assert_close(pool(x[:, order], mask[:, order]), pool(x, mask))


def test_attention_starts_as_the_mean():
    x = torch.randn(2, 5, 2, 4)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    assert_close(SetPooling("attention", 4)(x, mask), SetPooling("mean")(x, mask))


def test_the_median_of_two_frames_is_the_lower_as_in_torch():
    x = torch.tensor([[[1.0], [3.0], [9.0]]])
    assert SetPooling("median")(x, torch.tensor([[True, True, False]])).tolist() == [[1.0]]


def test_a_row_without_frames_is_refused():
    with pytest.raises(ValueError, match="no true frame"):
        SetPooling("mean")(torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool))


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="mask"):
        SetPooling("mean")(torch.zeros(1, 2, 3), torch.ones(2, 2, dtype=torch.bool))


def test_attention_needs_to_know_the_vectors_size():
    with pytest.raises(ValueError, match="in_dim"):
        SetPooling("attention")


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="known are max, mean"):
        SetPooling("sum")
