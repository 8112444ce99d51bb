import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from reidkit.models import TEMPORAL, SetPooling

KINDS = ["max", "mean", "median", "attention", "joint_sum", "joint_conv"]
LEARNED = ["attention", "joint_conv"]


def pooling(
    kind: str, dim: int, dtype: torch.dtype = torch.float64, channel_axis: int = -1
) -> SetPooling:
    pool = SetPooling(kind, dim, channel_axis=channel_axis)
    generator = torch.Generator().manual_seed(5)
    for weight in pool.parameters():
        weight.data.normal_(generator=generator)
    return pool.to(dtype)


def slow(kind: str, pool: SetPooling, frames: torch.Tensor) -> torch.Tensor:
    """Over the true frames (T, P, D) of one row, with nothing to mask."""
    if kind == "attention":
        scores = [frame @ pool.score.weight[0] for frame in frames]  # T x (P,)
        weights = torch.stack(scores).softmax(0)[..., None]
        return sum(w * frame for w, frame in zip(weights, frames, strict=True))
    top, mean, median = frames.max(0).values, sum(frames) / len(frames), frames.median(0).values
    three = torch.cat([top, mean, median], dim=-1)
    return {
        "max": top,
        "mean": mean,
        "median": median,
        "joint_sum": top + mean + median,
        "joint_conv": three if pool.joint is None else three @ pool.joint.weight.T,
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


@pytest.mark.parametrize("kind", ["max", "mean", "median", "attention"])
def test_one_frame_is_its_own_pool(kind):
    x = torch.randn(3, 1, 2, 4, dtype=torch.float64)
    assert torch.equal(pooling(kind, 4)(x, torch.ones(3, 1, dtype=torch.bool)), x[:, 0])


@pytest.mark.parametrize("kind", ["joint_sum", "joint_conv"])
def test_joint_forms_follow_their_formula_with_one_frame_too(kind):
    x = torch.randn(3, 1, 2, 4, dtype=torch.float64)
    pool = pooling(kind, 4)
    got = pool(x, torch.ones(3, 1, dtype=torch.bool))
    assert_close(got, torch.stack([slow(kind, pool, row) for row in x]))
    padded = torch.cat([x, torch.full_like(x, torch.nan)], dim=1)
    assert_close(pool(padded, torch.tensor([[True, False]] * 3)), got)


@pytest.mark.parametrize("axis", [2, -3])
@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_pooled_cell_by_cell_as_vectors_are(kind, axis):
    x = torch.randn(2, 5, 3, 4, 6, generator=torch.Generator().manual_seed(0)).double()
    mask = torch.tensor([[True] * 5, [True, False, True, True, False]])
    x = torch.where(mask[..., None, None, None], x, torch.nan)
    got = pooling(kind, 3, channel_axis=axis)(x, mask)
    assert got.shape == (2, 3, 4, 6)
    vectors = pooling(kind, 3)
    for row in range(4):
        for column in range(6):
            assert_close(got[:, :, row, column], vectors(x[..., row, column], mask))


@pytest.mark.parametrize("shape", [(2, 5, 3, 4, 6), (2, 1, 3, 4, 6)])
def test_a_joint_convolution_is_one_of_1_x_1_over_the_three_statistics(shape):
    x, mask = torch.randn(*shape).double(), torch.ones(shape[:2], dtype=torch.bool)
    pool = pooling("joint_conv", 3, channel_axis=2)
    three = torch.cat([SetPooling(kind)(x, mask) for kind in ("max", "mean", "median")], dim=1)
    expected = torch.nn.functional.conv2d(three, pool.joint.weight[..., None, None])
    assert_close(pool(x, mask), expected)


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


def test_a_joint_convolution_starts_as_a_third_of_the_joint_sum():
    x = torch.randn(2, 5, 2, 4)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    expected = SetPooling("joint_sum")(x, mask) / 3
    assert_close(SetPooling("joint_conv", 4)(x, mask), expected)


def test_the_median_of_two_frames_is_the_lower_as_in_torch():
    x = torch.tensor([[[1.0], [3.0], [9.0]]])
    assert SetPooling("median")(x, torch.tensor([[True, True, False]])).tolist() == [[1.0]]


def test_a_row_without_frames_is_refused():
    with pytest.raises(ValueError, match="no true frame"):
        SetPooling("mean")(torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool))


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="mask"):
        SetPooling("mean")(torch.zeros(1, 2, 3), torch.ones(2, 2, dtype=torch.bool))


@pytest.mark.parametrize("kind", LEARNED)
def test_what_weighs_channels_needs_to_know_their_number(kind):
    with pytest.raises(ValueError, match=f"{kind}.*in_dim"):
        SetPooling(kind)


def test_an_axis_of_tracklets_or_frames_holds_no_channels():
    with pytest.raises(ValueError, match=r"channel_axis 1: .*use 2 for maps"):
        SetPooling("attention", 4, channel_axis=1)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="known are max, mean"):
        SetPooling("sum")
