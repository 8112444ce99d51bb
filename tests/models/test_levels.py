from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from reidkit.engine import extract, parameter_groups
from reidkit.losses import build_objective
from reidkit.models import (
    BACKBONES,
    LevelHead,
    MultiLevelModel,
    OSNet,
    ResNet,
    TimmBackbone,
    build_model,
    load_model,
    model_faults,
    save_model,
)
from reidkit.models.levels import names_with_levels
from reidkit.models.necks import BNNeck
from reidkit.types import ModelOutput, Preprocessing, Sample

SIZE = (64, 32)
SMALL = {
    "resnet": {"name": "resnet", "depth": 10, "width": 0.125, "pretrained": False},
    "osnet": {"name": "osnet", "width": 0.25},
    "bn_inception": {"name": "bn_inception", "width": 0.125},
}
SPEC = {"name": "multi_level", "backbone": SMALL["resnet"], "dim": 6, "hidden": [4, 10]}
MASK = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])


def make(num_classes: int | None = 5, size: tuple[int, int] = SIZE, **options) -> MultiLevelModel:
    torch.manual_seed(0)
    return build_model(
        SPEC | options, num_classes=num_classes, size=size, preprocessing=Preprocessing(size)
    )


def settled(**options) -> MultiLevelModel:
    """In evaluation, its norms with statistics and biases that are not the initial ones."""
    model = make(**options)
    with torch.no_grad():
        model(frames(6, 2))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.bias.normal_()
    return model.eval()


def frames(batch: int, count: int, size: tuple[int, int] = SIZE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, count, 3, *size, generator=generator)


def test_every_backbone_with_levels_is_tested_here():
    assert names_with_levels() == sorted(SMALL)


@pytest.mark.parametrize("size", [(64, 32), (96, 96), (51, 37)])
@pytest.mark.parametrize("name", SMALL)
def test_a_backbones_levels_have_its_channels_and_end_in_its_forward(name, size):
    spec = dict(SMALL[name])
    body = BACKBONES.build(spec.pop("name"), spec).eval()
    x = frames(2, 1, size)[:, 0]
    maps = body.levels(x)
    assert [found.shape[:2] for found in maps] == [(2, c) for c in body.level_channels]
    assert torch.equal(maps[-1], body(x))
    assert body.level_channels[-1] == body.out_channels
    assert len(body.level_channels) == body.level_count
    assert list(maps[0].shape[2:]) > list(maps[1].shape[2:]) >= list(maps[2].shape[2:])


def test_the_levels_of_a_resnet_are_its_layers_2_3_and_4():
    body = ResNet(50, pretrained=False).to("meta")
    assert body.level_channels == (512, 1024, 2048)
    kept = []
    for layer in (body.layer2, body.layer3, body.layer4):
        layer.register_forward_hook(lambda _module, _args, out: kept.append(out))
    maps = body.levels(torch.zeros(1, 3, 64, 32, device="meta"))
    assert all(found is wanted for found, wanted in zip(maps, kept, strict=True))


def test_without_arguments_it_is_the_papers_1536_numbers_from_512_a_level():
    with torch.device("meta"):
        model = build_model(
            {"name": "multi_level", "backbone": {"name": "bn_inception"}},
            num_classes=None,
            size=(227, 227),
            preprocessing=Preprocessing((227, 227)),
        )
    assert (model.parts, model.embedding_size) == (3, 1536)
    low, middle, last = model.heads
    assert (low.conv.in_channels, low.conv.out_channels) == (576, 128)
    assert (low.linear.in_features, low.linear.out_features) == (128 * 4 * 4, 1024)
    assert (middle.conv.in_channels, middle.linear.in_features) == (1056, 128 * 2 * 2)
    assert (last.embed.in_features, last.embed.out_features) == (1024, 512)
    assert all(head.embed.bias is None for head in model.heads)


@pytest.mark.parametrize("size", [(64, 32), (128, 64), (100, 75)])
@pytest.mark.parametrize("name", SMALL)
def test_each_level_gives_a_vector(name, size):
    model = make(size=size, backbone=SMALL[name]).eval()
    output = model(frames(2, 2, size))
    assert isinstance(output, ModelOutput)
    assert output.embedding.shape == (2, 3, 6)
    assert torch.equal(output.embedding, output.feature) and output.logits is None


def low_by_hand(head: LevelHead, x: torch.Tensor) -> torch.Tensor:
    """A low head of single windows: x (N, C, h, w) -> (N, dim)."""
    tall, wide = x.shape[2:]
    size = (min(5, tall), min(5, wide))
    starts = [
        range(0, max(1, side - window + 3), 3)
        for side, window in zip((tall, wide), size, strict=True)
    ]
    cells = [
        x[:, :, i : i + size[0], j : j + size[1]].mean((2, 3)) for i in starts[0] for j in starts[1]
    ]
    narrow = torch.stack(cells, dim=2)[..., None]  # (N, C, windows, 1)
    one = head.norm1
    y = torch.einsum("nchw,oc->nohw", narrow, head.conv.weight[:, :, 0, 0])
    y = F.batch_norm(y, one.running_mean, one.running_var, one.weight, one.bias).relu()
    two = head.norm2
    y = y.flatten(1) @ head.linear.weight.T
    y = F.batch_norm(y, two.running_mean, two.running_var, two.weight, two.bias).relu()
    return y @ head.embed.weight.T


@pytest.mark.parametrize("name", SMALL)
def test_it_equals_the_heads_written_out(name):
    model, x = settled(backbone=SMALL[name]), frames(3, 1)
    maps = model.backbone.levels(x[:, 0])
    expected = [
        low_by_hand(model.heads[0], maps[0]),
        low_by_hand(model.heads[1], maps[1]),
        maps[2].mean((2, 3)) @ model.heads[2].embed.weight.T,
    ]
    assert_close(model(x).embedding, torch.stack(expected, dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grid", [(14, 14), (7, 7), (16, 8), (6, 5), (4, 2), (9, 3), (1, 1)])
def test_a_low_head_averages_windows_of_five_three_apart_and_what_is_left_at_the_end(grid):
    torch.manual_seed(0)
    head = LevelHead(3, grid, 4, (2, 6)).eval()
    x = torch.randn(2, 3, *grid)
    assert_close(head(x), low_by_hand(head, x))


def test_one_level_is_the_last_and_its_numbers_are_those_beside_others():
    whole, high = settled(), settled(levels=[2])
    high.load_state_dict(
        {
            key.replace("heads.2", "heads.0"): value
            for key, value in whole.state_dict().items()
            if not key.startswith(("heads.0", "heads.1"))
        }
    )
    x = frames(2, 2)
    assert high.parts == 1
    assert torch.equal(high(x).embedding, whole(x).embedding[:, 2:])


def test_a_tracklets_vector_is_the_mean_of_its_true_frames():
    model, x = settled(), frames(3, 3)
    together = model(x, MASK).embedding
    for row, length in enumerate((3, 1, 2)):
        alone = model(x[row, :length, None]).embedding
        assert_close(together[row], alone.mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", SMALL)
def test_padding_changes_nothing_at_all(name, training):
    x = frames(3, 3)
    poisoned = torch.where(MASK[:, :, None, None, None], x, torch.nan)
    results = []
    for some in (x, poisoned):
        model = make(backbone=SMALL[name], neck={"name": "bnneck"}).train(training)
        results.append((model(some, MASK), model.state_dict()))
    (first, state), (second, other) = results
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one, two)
    assert all(torch.equal(state[key], other[key]) for key in state)


def test_the_loss_of_a_level_reaches_its_head_and_what_lies_below_and_nothing_else():
    for level, layers in enumerate(
        [("layer2",), ("layer2", "layer3"), ("layer2", "layer3", "layer4")]
    ):
        model = make().train()
        model(frames(4, 1)).embedding[:, level].square().sum().backward()
        moved = {key for key, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        parts = {".".join(key.split(".")[:2]) for key in moved}
        stem = {"backbone.conv1", "backbone.bn1", "backbone.layer1"}
        assert parts == stem | {f"backbone.{name}" for name in layers} | {f"heads.{level}"}


def test_a_ranked_list_of_weight_three_is_one_of_weight_one_a_level():
    model, labels = make().train(), torch.tensor([0, 0, 1, 1])
    objective = build_objective(
        [{"name": "ranked_list", "on": "embedding", "weight": 3, "margin": 0.4}],
        num_classes=2,
        embedding_size=model.embedding_size // model.parts,
        parts=model.parts,
    )
    alone = build_objective(
        [{"name": "ranked_list", "margin": 0.4}], num_classes=2, embedding_size=6
    )
    output = model(frames(4, 1))
    total = objective(output, labels)["loss"]
    single = [
        alone(ModelOutput(vector, vector, None), labels)["loss"]
        for vector in output.embedding.split(1, dim=1)
    ]
    assert_close(total, sum(single))
    total.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_it_learns_to_tell_identities_apart_at_every_level():
    model = make().train()
    x, labels = frames(8, 1), torch.arange(4).repeat_interleave(2)
    objective = build_objective(
        [{"name": "ranked_list", "weight": 3}], num_classes=4, embedding_size=6, parts=3
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(15):
        output = model(x)
        loss = objective(output, labels)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_extraction_joins_unit_vectors_of_the_levels():
    model, x = settled(), frames(4, 1)
    samples = [Sample((f"{number}.jpg",), number) for number in range(4)]
    batch = SimpleNamespace(
        frames=x, mask=torch.ones(4, 1, dtype=torch.bool), index=torch.arange(4)
    )
    rows = extract(model, [batch], samples).vectors  # (N, P * D)
    expected = F.normalize(model(x).feature, dim=2).flatten(1)
    assert_close(torch.as_tensor(rows), expected)
    # Joined unit vectors have length sqrt(P): their cosine is the mean of the levels' cosines.
    unit = F.normalize(model(x).feature, dim=2)
    joined = F.normalize(torch.as_tensor(rows), dim=1)
    assert_close(joined @ joined.T, torch.einsum("apd,bpd->abp", unit, unit).mean(2))


def test_the_heads_learn_at_the_full_rate_and_the_backbone_at_its_own():
    model = make()
    groups = parameter_groups(model, lr=0.1, weight_decay=0.0, backbone_rate=0.1)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert {rate[id(p)] for p in model.heads.parameters()} == {0.1}
    assert {round(rate[id(p)], 9) for p in model.backbone.parameters()} == {0.01}


def test_a_neck_stands_behind_each_level():
    model = make(neck={"name": "bnneck"}).eval()
    output = model(frames(2, 1))
    assert output.logits.shape == (2, 3, 5)
    assert torch.equal(output.feature, model.neck.norm(output.embedding))


def test_in_evaluation_the_mirrored_frames_count_as_much():
    model, x = settled(flip_test=True, neck={"name": "bnneck"}), frames(2, 2)
    plain = settled(neck={"name": "bnneck"})
    for found, one, two in zip(model(x), plain(x), plain(x.flip(-1)), strict=True):
        assert torch.equal(found, (one + two) / 2)
    assert_close(model.train()(x).embedding, plain.train()(x).embedding)


def test_the_layout_in_memory_changes_no_number():
    first, second = settled(), settled(channels_last=False)
    assert first.backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert not second.backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    second.load_state_dict(first.state_dict())
    x = frames(2, 1)
    assert_close(first(x).embedding, second(x).embedding, rtol=1e-4, atol=1e-5)


def test_the_input_and_the_backbones_norms_are_left_as_they_were():
    torch.manual_seed(0)
    body = ResNet(10, width=0.125, pretrained=False)
    before = {key: value.clone() for key, value in body.state_dict().items()}
    model = MultiLevelModel(body, preprocessing=Preprocessing(SIZE), dim=4, hidden=(2, 4))
    assert body.training  # the dry run has put its mode back
    assert all(torch.equal(value, body.state_dict()[key]) for key, value in before.items())
    x = frames(3, 3)
    kept, mask = x.clone(), MASK.clone()
    model(x, mask)
    assert torch.equal(x, kept) and torch.equal(mask, MASK)


@pytest.mark.parametrize("name", SMALL)
def test_a_saved_model_comes_back_and_answers_the_same(name, tmp_path):
    spec = SPEC | {"backbone": SMALL[name], "levels": [0, 2], "neck": {"name": "bnneck"}}
    spec |= {"temporal": {"name": "attention"}, "flip_test": True}
    model = settled(**spec)
    save_model(tmp_path, model, spec, num_classes=5)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, MultiLevelModel) and loaded.levels == (0, 2) and loaded.flip_test
    assert torch.equal(loaded(frames(3, 3), MASK).feature, model(frames(3, 3), MASK).feature)


def test_loading_downloads_nothing(tmp_path, monkeypatch):
    asked = SPEC | {"backbone": {"name": "resnet", "depth": 18, "pretrained": True}}
    model = make(backbone=asked["backbone"] | {"pretrained": False})
    save_model(tmp_path, model, asked, num_classes=5)

    def refuse(*_):
        raise AssertionError("asked for weights")

    monkeypatch.setattr("reidkit.models.backbones.resnet.state_from_url", refuse)
    assert load_model(tmp_path).parts == 3


def test_it_runs_under_bfloat16_autocast():
    model = make().train()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(frames(4, 1))
    output.embedding.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    "change, words",
    [
        ({"levels": []}, "model: levels (): expected different numbers from 0, low to high"),
        ({"levels": [1, 1, 2]}, "model: levels (1, 1, 2): expected different numbers"),
        ({"levels": [2, 0]}, "model: levels (2, 0): expected different numbers"),
        ({"levels": [-1, 2]}, "model: levels (-1, 2): expected different numbers"),
        ({"levels": [0, 1]}, "'resnet' has 3, numbered 0 to 2, and the last must be among them"),
        ({"levels": [0, 3]}, "model: levels (0, 3): 'resnet' has 3"),
        ({"levels": "low"}, "model: levels = 'low'"),
        ({"dim": 0}, "model: dim 0: expected at least 1"),
        ({"hidden": [0, 4]}, "model: hidden (0, 4): expected two numbers, at least 1 each"),
        ({"hidden": [4]}, "model: needs 'hidden.1'"),
        ({"backbone": {"name": "resnt"}}, "model.backbone: unknown backbone 'resnt'"),
        ({"backbone": "resnet"}, "model.backbone: expected {name: ..., ...}"),
        ({"backbone": {"depth": 18}}, "model.backbone: needs 'name'"),
        ({"spatial": {"name": "gem"}}, "model: unknown key 'spatial'"),
        ({"neck": {"name": "bnnek"}}, "model.neck: unknown neck 'bnnek'"),
        (
            {"backbone": {"name": "timm", "architecture": "resnet10t", "pretrained": False}},
            "model: backbone 'timm' shows no levels from its inside; multi_level takes one of: "
            "bn_inception, osnet, resnet",
        ),
    ],
)
def test_a_fault_is_told_with_its_key_path(change, words):
    faults = model_faults(SPEC | change)
    assert any(words in fault for fault in faults), faults
    assert len(faults) == 1


@pytest.mark.parametrize("levels", [[0], [0, 1], [0, 3], [3]])
def test_levels_are_the_backbones_own_with_the_last_among_them(levels):
    body = ResNet(10, width=0.125, pretrained=False)
    with pytest.raises(ValueError, match="ResNet has 3, numbered 0 to 2, and the last must be"):
        MultiLevelModel(body, levels=levels)


def test_a_backbone_without_levels_is_told_which_have_them():
    body = TimmBackbone("resnet10t", pretrained=False)
    with pytest.raises(ValueError, match=r"TimmBackbone shows no .*: bn_inception, osnet, resnet$"):
        MultiLevelModel(body)


def test_a_neck_of_another_size_is_refused():
    with pytest.raises(ValueError, match="takes 1 parts of 6, but the levels give 3 of 6"):
        MultiLevelModel(OSNet(0.25), neck=BNNeck(6), preprocessing=Preprocessing(SIZE), dim=6)


def test_images_too_small_for_the_backbone_are_told_when_it_is_built():
    with pytest.raises(ValueError, match="OSNet gives no maps of 8 x 4 images") as caught:
        make(size=(8, 4), backbone=SMALL["osnet"])
    assert "\n" not in str(caught.value)


def test_frames_of_another_size_than_its_own_are_refused():
    with pytest.raises(ValueError, match=r"made for 8 x 4 cells, got 16 x 8.*no data\.stages"):
        make()(frames(2, 1, (128, 64)))


@pytest.mark.parametrize(
    "x, mask, words",
    [
        (torch.zeros(2, 3, 64, 32), None, r"shape \(B, T, C, H, W\)"),
        (torch.zeros(2, 1, 3, 64, 32, dtype=torch.uint8), None, "uint8"),
        (torch.zeros(2, 2, 3, 64, 32), torch.ones(2, 2), "mask must be bool"),
        (torch.zeros(1, 2, 3, 64, 32), torch.zeros(1, 2, dtype=torch.bool), "no true frame"),
    ],
)
def test_bad_input_is_told_in_a_line(x, mask, words):
    model = make().eval()
    with pytest.raises(ValueError, match=words):
        model(x, mask)
