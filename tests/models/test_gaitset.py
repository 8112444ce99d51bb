"""GaitSet: a set and not a list, homogeneous, its counts, its pyramid, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from reidkit.models import MODELS, GaitSet, build_model, load_model, model_faults, save_model
from reidkit.models.gaitset import FRAMES_AT_ONCE, together
from reidkit.models.pyramid import pyramid
from reidkit.types import SILHOUETTES, Preprocessing


@pytest.fixture
def small():
    """A narrow network in float64."""
    torch.manual_seed(0)
    return GaitSet((3, 4, 5), 6).double()


def silhouettes(batch, frames, height=64, width=44, seed=0):
    source = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch * frames, 1, 8, 6, generator=source, dtype=torch.float64)
    smooth = F.interpolate(coarse, (height, width), mode="bilinear")
    return ((smooth - 0.4) * 5).clamp(0, 1).unflatten(0, (batch, frames))


def embed(model, frames, mask=None):
    with torch.no_grad():
        return model(frames, mask).embedding


def literal(model, frames):
    """The figure line by line, a sequence at a time, strips and maps in loops. -> (B, 62, dim)."""

    def conv(layer, x):
        x = F.conv2d(x, layer.weight, padding=layer.kernel_size[0] // 2)
        return torch.where(x > 0, x, 0.01 * x)

    rows = []
    for sequence in frames:
        low = F.max_pool2d(conv(model.set2, conv(model.set1, sequence)), 2)
        middle = F.max_pool2d(conv(model.set4, conv(model.set3, low)), 2)
        high = conv(model.set6, conv(model.set5, middle)).max(0, keepdim=True).values
        low, middle = (x.max(0, keepdim=True).values for x in (low, middle))
        whole = F.max_pool2d(conv(model.global2, conv(model.global1, low)), 2)
        whole = conv(model.global4, conv(model.global3, whole + middle)) + high
        strips = []
        for end in (high[0], whole[0]):
            for count in (1, 2, 4, 8, 16):
                for strip in end.chunk(count, dim=1):
                    strips.append(strip.mean((1, 2)) + strip.amax((1, 2)))
        maps = model.maps.weight
        rows.append(torch.stack([m @ strip for m, strip in zip(maps, strips, strict=True)]))
    return torch.stack(rows)


@pytest.mark.parametrize("channels, count", [((32, 64, 128), 2_594_592), ((64, 128, 256), None)])
def test_it_has_the_papers_parameters_and_shapes(channels, count):
    model = GaitSet(channels)
    assert sum(p.numel() for p in model.parameters()) == (count or 6_313_536)
    assert (model.parts, model.embedding_size, model.unit_parts) == (62, 15_872, False)
    assert model.preprocessing == SILHOUETTES
    output = model(silhouettes(2, 3).float())
    assert output.embedding.shape == (2, 62, 256)
    assert output.feature is output.embedding and output.logits is None


def test_maps_at_three_depths_have_the_papers_sizes():
    low, middle, high = GaitSet()._depths(silhouettes(2, 7).float().flatten(0, 1))
    assert (low.shape, middle.shape) == ((14, 32, 32, 22), (14, 64, 16, 11))
    assert high.shape == (14, 128, 16, 11)


def test_it_equals_the_literal_network_in_value_and_gradient(small):
    frames = silhouettes(3, 4)
    fast, slow = small(frames).embedding, literal(small, frames)
    assert_close(fast, slow)
    weights = list(small.parameters())
    weight = torch.randn(fast.shape, generator=torch.Generator().manual_seed(1)).double()
    expected = torch.autograd.grad((slow * weight).sum(), weights)
    assert_close(torch.autograd.grad((fast * weight).sum(), weights), expected)


def test_the_order_of_frames_and_their_duplicates_change_exactly_nothing(small):
    frames = silhouettes(2, 7)
    found = embed(small, frames)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(3))
    assert torch.equal(embed(small, frames[:, order]), found)
    assert torch.equal(embed(small, frames[:, [0, 1, 2, 3, 4, 5, 6, 2, 2, 5]]), found)


def test_a_set_of_duplicates_has_the_gradient_of_the_set_without(small):
    frames = silhouettes(2, 3)
    weights = list(small.parameters())
    single = torch.autograd.grad(small(frames).embedding.square().sum(), weights)
    double = torch.autograd.grad(
        small(frames.repeat(1, 2, 1, 1, 1)).embedding.square().sum(), weights
    )
    assert_close(double, single)


@pytest.mark.parametrize(
    "pooling", ["max", "mean", "median", "attention", "joint_sum", "joint_conv"]
)
def test_padding_changes_nothing_and_is_never_looked_at(pooling):
    torch.manual_seed(0)
    model = GaitSet((3, 4, 5), 6, pooling=pooling).double()
    lengths = [2, 5, 1]
    frames = torch.full((3, 6, 1, 64, 44), torch.nan, dtype=torch.float64)
    mask = torch.zeros(3, 6, dtype=torch.bool)
    alone = []
    for row, length in enumerate(lengths):
        places = torch.randperm(6, generator=torch.Generator().manual_seed(row))[:length].sort()[0]
        sequence = silhouettes(1, length, seed=row)
        frames[row, places], mask[row, places] = sequence[0], True
        alone.append(model(sequence).embedding)
    output = model(frames, mask).embedding
    assert_close(output, torch.cat(alone), rtol=0, atol=1e-12)
    output.sum().backward()
    scores = [p for name, p in model.named_parameters() if name.startswith("pools")]
    assert len(scores) == 3 * (pooling in ("attention", "joint_conv"))
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_an_all_true_mask_is_no_mask(small):
    frames = silhouettes(2, 3)
    mask = torch.ones(2, 3, dtype=torch.bool)
    assert torch.equal(embed(small, frames, mask), embed(small, frames))


def test_a_black_frame_is_a_frame(small):
    frames = silhouettes(1, 3)
    longer = torch.cat([frames, torch.zeros_like(frames[:, :1])], dim=1)
    assert not torch.equal(embed(small, longer), embed(small, frames))


def test_it_is_homogeneous(small):
    frames = silhouettes(2, 3)
    assert torch.equal(embed(small, 2 * frames), 2 * embed(small, frames))
    assert torch.equal(embed(small, 0 * frames), torch.zeros(2, 62, 6).double())


def test_sequences_in_one_batch_do_not_touch_one_another(small):
    frames = silhouettes(5, FRAMES_AT_ONCE // 2 + 1)
    found = embed(small, frames)
    for row in range(5):
        assert_close(found[row], embed(small, frames[row : row + 1])[0], rtol=0, atol=1e-12)


def test_sequences_go_together_up_to_a_number_of_frames():
    assert list(together([3, 3, 4, 1], 6)) == [[3, 3], [4, 1]]
    assert list(together([9, 1, 9], 6)) == [[9], [1], [9]]


def test_frames_that_are_larger_are_fine_and_the_gradient_reaches_the_first_layer(small):
    output = small(silhouettes(1, 2, 128, 88)).embedding
    assert output.shape == (1, 62, 6)
    output.square().sum().backward()
    assert small.set1.weight.grad.abs().sum() > 0


def test_half_precision_runs_and_stays_near():
    torch.manual_seed(0)
    model, frames = GaitSet((8, 8, 8), 8), silhouettes(2, 3).float()
    with torch.autocast("cpu", torch.bfloat16):
        half = embed(model, frames)
    assert_close(half.float(), embed(model, frames), rtol=0.1, atol=5e-3)


@pytest.mark.parametrize(
    "shape", [(1, 2, 1, 60, 44), (1, 2, 1, 32, 44), (1, 2, 1, 64, 42), (1, 2, 1, 0, 44)]
)
def test_sizes_that_do_not_give_sixteen_strips_are_refused(small, shape):
    with pytest.raises(ValueError, match="multiple of 64") as caught:
        small(torch.zeros(shape).double())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(2, 0, 1, 64, 44), (0, 2, 1, 64, 44), (2, 1, 64, 44)])
def test_frames_must_be_there(small, shape):
    with pytest.raises(ValueError, match="shape"):
        small(torch.zeros(shape).double())


def test_bad_frames_and_masks_are_refused(small):
    frames = silhouettes(2, 3)
    with pytest.raises(ValueError, match="one channel, got 3"):
        small(frames.expand(-1, -1, 3, -1, -1))
    with pytest.raises(ValueError, match="uint8"):
        small(frames.byte())
    with pytest.raises(ValueError, match="mask must be bool"):
        small(frames, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        small(frames, torch.ones(2, 4, dtype=torch.bool))
    mask = torch.tensor([[True, False, True], [False] * 3])
    with pytest.raises(ValueError, match=r"sequence 1 .* no true frame"):
        small(frames, mask)


def test_a_single_frame_without_a_true_mask_is_refused(small):
    with pytest.raises(ValueError, match="no true frame"):
        small(silhouettes(1, 1), torch.zeros(1, 1, dtype=torch.bool))


def test_a_config_builds_it_and_faults_are_named():
    spec = {"name": "gaitset", "channels": [4, 4, 4], "dim": 8, "pooling": "median"}
    facts = {"num_classes": 5, "size": (64, 44), "preprocessing": SILHOUETTES}
    model = build_model(spec, **facts)
    assert isinstance(model, GaitSet) and model.embedding_size == 62 * 8
    assert "gaitset" in MODELS
    (fault,) = model_faults({**spec, "channels": [4, 0, 4]})
    assert "channels" in fault and "at least 1" in fault
    (fault,) = model_faults({**spec, "dim": 0})
    assert "dim 0" in fault
    (fault,) = model_faults({**spec, "pooling": "sum"})
    assert "'sum'" in fault and "median" in fault
    (fault,) = model_faults({**spec, "preprocessing": {}})
    assert "preprocessing" in fault
    with pytest.raises(ValueError, match="one channel, got 3"):
        build_model(spec, **{**facts, "preprocessing": Preprocessing()})
    with pytest.raises(ValueError, match="multiple of 64"):
        build_model(spec, **{**facts, "preprocessing": Preprocessing((60, 44), (0.0,), (1.0,))})


def test_it_survives_the_disk(tmp_path):
    spec = {"name": "gaitset", "channels": [3, 4, 5], "dim": 6}
    model = build_model(spec, num_classes=5, size=(64, 44), preprocessing=SILHOUETTES).eval()
    again = load_model(save_model(tmp_path / "m", model, spec, num_classes=5))
    again = again[0] if isinstance(again, tuple) else again
    frames = silhouettes(2, 3).float()
    assert torch.equal(embed(again, frames), embed(model, frames))
    assert again.preprocessing == SILHOUETTES


@pytest.mark.parametrize("strips", [1, 2, 4, 16])
def test_the_pyramid_equals_the_loop_over_strips(strips):
    x = torch.randn(2, 3, 16, 5, generator=torch.Generator().manual_seed(0)).double()
    expected = []
    count = 1
    while count <= strips:
        expected += [p.mean((2, 3)) + p.amax((2, 3)) for p in x.chunk(count, dim=2)]
        count *= 2
    assert_close(pyramid(x, strips), torch.stack(expected, dim=1))


def test_every_strip_of_a_constant_map_is_twice_the_constant():
    assert_close(pyramid(torch.full((1, 2, 32, 22), 0.7)), torch.full((1, 31, 2), 1.4))


def test_a_pyramid_refuses_what_it_cannot_halve():
    with pytest.raises(ValueError, match="power of two"):
        pyramid(torch.zeros(1, 1, 12, 2), 12)
    with pytest.raises(ValueError, match="12 rows"):
        pyramid(torch.zeros(1, 1, 12, 2), 8)
