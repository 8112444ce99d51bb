import pytest
import torch
from torch import nn
from torch.testing import assert_close

from reidkit.models import (
    MIXING,
    AveragePool,
    IdentityNeck,
    NonLocal,
    ReIDModel,
    SetPooling,
    TemporalConv,
    build_model,
    load_model,
    model_faults,
    save_model,
)
from reidkit.models.mixing import OverFrames
from reidkit.models.reid import TrueFrames
from reidkit.types import Preprocessing

PREPROCESSING = Preprocessing(size=(32, 16))
CHOICES = [
    {"name": "non_local"},
    {"name": "non_local", "kind": "dot", "bottleneck": 1},
    {"name": "temporal_conv"},
    {"name": "temporal_conv", "frames": 5, "cells": 3, "bottleneck": 2},
]
MASK = torch.tensor([[True] * 4, [True, True, True, False], [True, False, False, False]])


def mixing(choice: dict, in_dim: int = 6, awake: bool = True) -> nn.Module:
    """With every weight and statistic of its norms drawn, unless it shall start as it does."""
    torch.manual_seed(0)
    arguments = {key: value for key, value in choice.items() if key != "name"}
    module = MIXING.build(choice["name"], arguments, in_dim=in_dim).double().eval()
    if awake:
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                for tensor in (norm.weight.data, norm.running_var):
                    tensor.uniform_(0.5, 1.5)
                norm.bias.data.normal_()
                norm.running_mean.normal_()
    return module


def maps(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def spec(mixing: dict | None) -> dict:
    said = {} if mixing is None else {"mixing": mixing}
    return {"name": "reid", "backbone": {"name": "osnet", "width": 0.25}} | said


def model(mixing: dict | None) -> ReIDModel:
    torch.manual_seed(0)
    return build_model(
        spec(mixing), num_classes=3, size=PREPROCESSING.size, preprocessing=PREPROCESSING
    )


def test_every_mixing_of_the_registry_is_tested_here():
    assert {choice["name"] for choice in CHOICES} == set(MIXING)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("choice", CHOICES)
def test_it_starts_as_the_identity(choice, training):
    x = maps(3, 4, 6, 3, 2)
    module = mixing(choice, awake=False).train(training)
    assert torch.equal(module(x, torch.ones(3, 4, dtype=torch.bool)), x)
    assert torch.equal(module(x, MASK), x * MASK[..., None, None, None])


@pytest.mark.parametrize("padding", [0.0, 1e6, float("nan")])
@pytest.mark.parametrize("choice", CHOICES)
def test_padding_changes_no_true_frame_and_comes_out_as_zero(choice, padding):
    x, module = maps(3, 4, 6, 3, 2), mixing(choice)
    x = x.masked_fill(~MASK[..., None, None, None], padding)
    got = module(x, MASK)
    assert (got[~MASK] == 0).all()
    for row, length in enumerate((4, 3, 1)):
        alone = module(x[row : row + 1, :length], torch.ones(1, length, dtype=torch.bool))
        assert_close(got[row, :length], alone[0], rtol=0, atol=1e-10)
        assert (alone != x[row, :length]).any()


@pytest.mark.parametrize("choice", CHOICES)
def test_in_training_too_norms_see_true_frames_only(choice):
    x, longer = maps(2, 3, 6, 3, 2), torch.full((2, 5, 6, 3, 2), torch.nan, dtype=torch.float64)
    longer[:, :3] = x
    mask = torch.tensor([[True] * 3 + [False] * 2] * 2)
    modules = mixing(choice).train(), mixing(choice).train()
    assert_close(modules[0](longer, mask)[:, :3], modules[1](x, mask[:, :3]))
    for padded, plain in zip(modules[0].buffers(), modules[1].buffers(), strict=True):
        assert_close(padded, plain)


@pytest.mark.parametrize("choice", CHOICES)
def test_padding_gets_no_gradient_and_true_frames_a_finite_one(choice):
    x = maps(3, 4, 6, 3, 2).masked_fill(~MASK[..., None, None, None], torch.nan).requires_grad_()
    mixing(choice).train()(x, MASK).square().sum().backward()
    assert (x.grad[~MASK] == 0).all()
    assert x.grad.isfinite().all() and (x.grad[MASK] != 0).any()


@pytest.mark.parametrize("choice", CHOICES)
def test_after_one_step_the_gradient_reaches_its_first_layer(choice):
    module = mixing(choice, awake=False).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        module(maps(3, 4, 6, 3, 2), MASK).pow(3).sum().backward()
        optimizer.step()
    assert all(weight.grad is not None for weight in module.parameters())
    assert next(module.parameters()).grad.abs().sum() > 0


def test_non_local_is_the_papers_sum_over_all_cells():
    x = maps(1, 2, 4, 2, 1)
    for kind in ("gaussian", "dot"):
        module = mixing({"name": "non_local", "kind": kind}, in_dim=4)
        cells = x[0].permute(0, 2, 3, 1).reshape(4, 4)  # (T h w, C)
        theta, phi, g = (
            cells @ layer.weight[:, :, 0, 0].T + layer.bias
            for layer in (module.theta, module.phi, module.g)
        )
        y = []
        for i in range(4):
            products = torch.stack([theta[i] @ phi[j] for j in range(4)])
            weights = products.softmax(0) if kind == "gaussian" else products / 4
            y.append(sum(weights[j] * g[j] for j in range(4)) @ module.w.weight[:, :, 0, 0].T)
        z = cells + module.norm(torch.stack(y)[..., None, None])[..., 0, 0]
        expected = z.reshape(2, 2, 1, 4).permute(0, 3, 1, 2)[None]
        assert_close(module(x, torch.ones(1, 2, dtype=torch.bool)), expected)


def test_non_local_does_not_care_for_the_order_of_the_frames():
    x, mask, order = maps(1, 4, 6, 3, 2), torch.ones(1, 4, dtype=torch.bool), [2, 0, 3, 1]
    module = mixing({"name": "non_local"})
    assert_close(module(x[:, order], mask), module(x, mask)[:, order])


def test_a_convolution_over_frames_equals_a_loop_and_conv3d():
    layer, x = OverFrames(4, 3).double(), maps(2, 5, 4, 3, 2)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]])
    places = TrueFrames(mask)
    got = places.unpack(layer(places.pack(x), places))
    zeroed = x * mask[..., None, None, None]
    weight = layer.conv.weight[..., None]  # (O, I, 3, 1, 1)
    dense = nn.functional.conv3d(zeroed.transpose(1, 2), weight, padding=(1, 0, 0)).transpose(1, 2)
    assert_close(got, dense * mask[..., None, None, None])
    for row, t in mask.nonzero().tolist():
        expected = sum(
            torch.einsum("oi,ihw->ohw", layer.conv.weight[:, :, tap, 0], zeroed[row, t + tap - 1])
            for tap in range(3)
            if 0 <= t + tap - 1 < 5
        )
        assert_close(got[row, t], expected)


def test_a_temporal_convolution_reaches_its_neighbours_and_no_further():
    x, mask = maps(1, 7, 6, 3, 2), torch.ones(1, 7, dtype=torch.bool)
    for frames, cells, reached in ((3, 1, {2, 3, 4}), (5, 1, {1, 2, 3, 4, 5}), (1, 3, {3})):
        sizes = {"frames": frames, "cells": cells, "bottleneck": 1}
        module = mixing({"name": "temporal_conv"} | sizes)
        moved = x.clone()
        moved[:, 3] += 1
        change = (module(moved, mask) != module(x, mask)).flatten(2).any(2)[0]
        assert set(change.nonzero().flatten().tolist()) == reached


@pytest.mark.parametrize("choice", CHOICES)
def test_a_model_starts_equal_to_the_one_without_mixing(choice):
    mixed, plain = model(choice).eval(), model(None).eval()
    missing = mixed.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing and all(key.startswith("mixing.") for key in missing)
    frames = torch.rand(3, 4, 3, 32, 16)
    for mask in (None, MASK):
        assert_close(mixed(frames, mask).feature, plain(frames, mask).feature, rtol=0, atol=1e-6)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_models_masked_frame_changes_nothing(choice):
    mixed = model(choice).eval()
    for norm in mixed.mixing.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)
    frames = torch.rand(3, 4, 3, 32, 16)
    other = torch.where(MASK[..., None, None, None], frames, torch.nan)
    longer = torch.cat([other, torch.rand(3, 2, 3, 32, 16)], dim=1)
    wider = torch.cat([MASK, torch.zeros(3, 2, dtype=torch.bool)], dim=1)
    expected = mixed(frames, MASK).feature
    for got in (mixed(other, MASK).feature, mixed(longer, wider).feature):
        assert_close(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("choice", CHOICES)
def test_images_are_tracklets_of_one_frame(choice):
    output = model(choice).train()(torch.rand(4, 1, 3, 32, 16))
    assert output.feature.shape == (4, 1, 128) and output.logits.isfinite().all()


@pytest.mark.parametrize("choice", CHOICES)
def test_a_saved_model_comes_back_with_its_mixing(choice, tmp_path):
    mixed, frames = model(choice), torch.rand(3, 4, 3, 32, 16)
    optimizer = torch.optim.SGD([p for p in mixed.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # so that mixing is awake
        optimizer.zero_grad()
        mixed(frames, MASK).logits.square().sum().backward()
        optimizer.step()
    save_model(tmp_path, mixed, spec(choice), num_classes=3)
    loaded = load_model(tmp_path)
    assert type(loaded.mixing) is type(mixed.mixing)
    assert torch.equal(loaded(frames, MASK).feature, mixed.eval()(frames, MASK).feature)


@pytest.mark.parametrize("choice", CHOICES)
def test_it_runs_under_bfloat16_autocast(choice):
    mixed = model(choice)
    with torch.autocast("cpu", torch.bfloat16):
        output = mixed(torch.rand(3, 4, 3, 32, 16), MASK)
    output.logits.float().logsumexp(-1).sum().backward()
    grads = [p.grad for p in mixed.mixing.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)


def test_without_mixing_nothing_is_added_to_the_state():
    plain = model(None)
    assert plain.mixing is None
    assert not any("mixing" in key for key in plain.state_dict())


def test_it_is_made_by_hand_too():
    class Shades(nn.Identity):
        out_channels = 3

    by_hand = ReIDModel(
        Shades(),
        AveragePool(),
        SetPooling("mean"),
        IdentityNeck(3),
        mixing=TemporalConv(3, bottleneck=1),
    )
    assert by_hand(torch.rand(2, 4, 3, 4, 4)).feature.shape == (2, 1, 3)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"name": "non_locl"}, "Did you mean 'non_local'?"),
        ({"name": "non_local", "kind": "cosine"}, "model.mixing: kind = 'cosine'"),
        ({"name": "non_local", "bottleneck": 0}, "model.mixing: bottleneck 0: expected at least 1"),
        ({"name": "temporal_conv", "frames": 4}, "model.mixing: frames 4: expected an odd number"),
        ({"name": "temporal_conv", "cells": -1}, "model.mixing: cells -1: expected an odd number"),
        ({"name": "temporal_conv", "in_dim": 8}, "in_dim is set by reidkit"),
        ("non_local", "model.mixing: expected {name: ..., ...}, got 'non_local'"),
    ],
)
def test_a_fault_is_told_with_its_key_path(change, words):
    faults = model_faults(spec(change))
    assert any(words in fault for fault in faults), faults


@pytest.mark.parametrize(
    "x, mask, words",
    [
        (torch.zeros(2, 3, 6, 4), torch.ones(2, 3, dtype=torch.bool), "maps"),
        (torch.zeros(2, 3, 6, 4, 4), torch.ones(2, 3), "mask must be bool"),
        (torch.zeros(2, 3, 6, 4, 4), torch.ones(2, 2, dtype=torch.bool), "mask must be bool"),
        (torch.zeros(2, 3, 6, 4, 4), torch.zeros(2, 3, dtype=torch.bool), "no true frame"),
    ],
)
def test_bad_input_is_told_in_a_line(x, mask, words):
    for module in (NonLocal(6), TemporalConv(6)):
        with pytest.raises(ValueError, match=words):
            module(x, mask)


def test_a_bad_kind_by_hand_is_refused():
    with pytest.raises(ValueError, match="known are gaussian, dot"):
        NonLocal(6, "softmax")
