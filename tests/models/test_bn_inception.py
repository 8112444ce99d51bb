import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from reidkit.models import (
    BNInception,
    WeightsMismatch,
    WeightsUnavailable,
    build_model,
    load_model,
    model_faults,
    save_model,
)
from reidkit.types import Preprocessing

SIZE = (64, 32)
NARROW = 0.125


def narrow(seed: int = 0, **options) -> BNInception:
    """With statistics and biases that are not the initial ones, in evaluation."""
    torch.manual_seed(seed)
    body = BNInception(NARROW, **options)
    with torch.no_grad():
        body(torch.randn(4, 3, *SIZE))
        for module in body.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.normal_()
    return body.eval()


def images(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height))


@pytest.mark.parametrize("size, cells", [(224, (14, 7, 7)), (227, (14, 7, 7))])
def test_the_maps_have_the_cells_of_the_table(size, cells):
    with torch.device("meta"):
        body = BNInception()
        maps = body.levels(torch.zeros(1, 3, size, size))
    assert body.level_channels == (576, 1056, 1024)
    expected = [(1, c, n, n) for c, n in zip((576, 1056, 1024), cells, strict=True)]
    assert [tuple(x.shape) for x in maps] == expected


def test_the_blocks_have_the_channels_of_the_table():
    with torch.device("meta"):
        body = BNInception()
    stages = (body.inception3, body.inception4, body.inception5)
    channels = [[block.out_channels for block in stage] for stage in stages]
    assert channels == [[256, 320, 576], [576, 576, 608, 608, 1056], [1024, 1024]]
    pools = [[block.pool for block in stage] for stage in stages]
    assert pools == [["average"] * 2 + ["max"], ["average"] * 4 + ["max"], ["average", "max"]]


def test_it_has_the_weights_of_its_convolutions_and_norms_alone():
    # Convolutions of the published network without classifier and biases, counted by hand from the
    # table: stem 9408 + 4096 + 110592, then the rows one by one; two values a normed channel.
    def row(inputs, one, three, double, projection):
        weights = inputs * one + inputs * three[0] + 9 * three[0] * three[1]
        weights += inputs * double[0] + 9 * double[0] * double[1] + 9 * double[1] ** 2
        normed = one + sum(three) + sum(double) + double[1] + projection
        return weights + inputs * projection + 2 * normed

    rows = [
        (192, 64, (64, 64), (64, 96), 32),
        (256, 64, (64, 96), (64, 96), 64),
        (320, 0, (128, 160), (64, 96), 0),
        (576, 224, (64, 96), (96, 128), 128),
        (576, 192, (96, 128), (96, 128), 128),
        (576, 160, (128, 160), (128, 160), 128),
        (608, 96, (128, 192), (160, 192), 128),
        (608, 0, (128, 192), (192, 256), 0),
        (1056, 352, (192, 320), (160, 224), 128),
        (1024, 352, (192, 320), (192, 224), 128),
    ]
    stem = 3 * 64 * 49 + 64 * 64 + 64 * 192 * 9 + 2 * (64 + 64 + 192)
    with torch.device("meta"):
        body = BNInception()
    total = sum(weight.numel() for weight in body.parameters())
    assert total == stem + sum(row(*values) for values in rows)


def layer(x, module, stride=1):
    conv, norm, _ = module
    pad = conv.weight.shape[-1] // 2
    x = F.conv2d(x, conv.weight, None, stride, pad)
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias).relu()


def by_hand(block, x, pool, stride):
    three = layer(layer(x, block.three[0]), block.three[1], stride)
    twice = layer(layer(layer(x, block.twice[0]), block.twice[1]), block.twice[2], stride)
    if stride == 2:
        lowest = F.pad(x, (0, 1, 0, 1), value=-torch.inf)[:, :, : x.shape[2] + 1, : x.shape[3] + 1]
        rows, columns = (range(0, side, 2) for side in x.shape[2:])
        passed = [lowest[:, :, i : i + 3, j : j + 3].amax((2, 3)) for i in rows for j in columns]
        passed = torch.stack(passed, dim=2).unflatten(2, (len(rows), len(columns)))
        return torch.cat([three, twice, passed], 1)
    wide = F.pad(x, (1, 1, 1, 1), value=0.0 if pool == "average" else -torch.inf)
    windows = wide.unfold(2, 3, 1).unfold(3, 3, 1)
    pooled = windows.mean((4, 5)) if pool == "average" else windows.amax((4, 5))
    return torch.cat([layer(x, block.one), three, twice, layer(pooled, block.projection)], 1)


@pytest.mark.parametrize("size", [(64, 32), (96, 48), (71, 45)])
def test_it_equals_the_table_written_out(size):
    body, x = narrow(), images(*size)
    pools = iter([*"aas", *"aaaas", *"am"])
    expected = []
    with torch.no_grad():
        y = layer(x, body.conv1, 2)
        y = F.max_pool2d(y, 3, 2, ceil_mode=True)
        y = layer(layer(y, body.conv2[0]), body.conv2[1])
        y = F.max_pool2d(y, 3, 2, ceil_mode=True)
        for stage in (body.inception3, body.inception4, body.inception5):
            for block, kind in zip(stage, pools, strict=False):
                y = by_hand(block, y, "max" if kind == "m" else "average", 1 + (kind == "s"))
            expected.append(y)
        for found, wanted in zip(body.levels(x), expected, strict=True):
            assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 32), (256, 128), (240, 240), (97, 33), (17, 40)])
def test_every_size_fits_odd_ones_too_and_forward_is_the_last_level(size):
    body, x = narrow(), images(*size)
    with torch.no_grad():
        maps = body.levels(x)
        assert torch.equal(body(x), maps[-1])
    assert [found.shape[1] for found in maps] == list(body.level_channels)
    low, middle, last = (found.shape[2:] for found in maps)
    assert middle == last == tuple((side + 1) // 2 for side in low)


@pytest.mark.parametrize("file", ["a.safetensors", "a.pth", "whole.safetensors"])
def test_it_starts_from_a_file(tmp_path, file):
    source, path = narrow(seed=1), tmp_path / file
    state = source.state_dict()
    if file == "a.pth":
        torch.save(state, path)
    elif file == "a.safetensors":
        save_file(state, path)
    else:
        whole = {f"backbone.{key}": value for key, value in state.items()}
        save_file(whole | {"neck.weight": torch.zeros(2)}, path)
    loaded, x = BNInception(NARROW, weights=path).eval(), images(*SIZE)
    assert torch.equal(loaded(x), source(x))


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(tmp_path):
    state = narrow().state_dict()
    state["extra"] = state.pop("conv1.0.weight")
    state["conv1.1.weight"] = torch.zeros(5)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(WeightsMismatch) as caught:
        BNInception(NARROW, weights=tmp_path / "other.pth")
    line = str(caught.value)
    assert "missing: conv1.0.weight; unexpected: extra; other shape: conv1.1.weight (5,)" in line
    assert "\n" not in line


@pytest.mark.parametrize("content", [b"", b"no weights", None])
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_file_that_is_no_state_is_told_in_a_line(tmp_path, name, content):
    path = tmp_path / name
    if content is None:
        torch.save([1, 2], path)
    else:
        path.write_bytes(content)
    with pytest.raises(WeightsUnavailable, match=rf"weights .*{name}") as caught:
        BNInception(NARROW, weights=path)
    assert "\n" not in str(caught.value)


def test_code_in_a_file_of_weights_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"a": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(WeightsUnavailable, match="could not be read"):
        BNInception(NARROW, weights=tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"width": 0.0}, "model.backbone: width 0.0: expected a factor"),
        ({"weights": "nowhere.pth"}, "model.backbone: weights: there is no file nowhere.pth"),
        ({"pretrained": True}, "model.backbone: unknown key 'pretrained'; it takes: width, weigh"),
    ],
)
def test_a_fault_is_told_with_its_key_path(change, words):
    faults = model_faults({"name": "reid", "backbone": {"name": "bn_inception"} | change})
    assert any(words in fault for fault in faults), faults


def test_a_saved_model_needs_no_longer_the_file_that_it_started_from(tmp_path):
    file = tmp_path / "start.safetensors"
    save_file(narrow().state_dict(), file)
    backbone = {"name": "bn_inception", "width": NARROW, "weights": str(file)}
    spec = {"name": "reid", "backbone": backbone}
    model = build_model(spec, num_classes=3, size=SIZE, preprocessing=Preprocessing(SIZE)).eval()
    save_model(tmp_path / "run", model, spec, num_classes=3)
    file.unlink()
    x = images(*SIZE)[:, None]
    assert torch.equal(load_model(tmp_path / "run")(x).feature, model(x).feature)
