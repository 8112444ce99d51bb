import pytest
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

from reidkit.models import BACKBONES, OSNet, ReIDModel, ResNet, TimmBackbone
from reidkit.models.backbones.ibn import InstanceBatchNorm
from reidkit.models.necks import BNNeck, LinearReduction
from reidkit.models.pooling import AveragePool
from reidkit.models.temporal import SetPooling

# The smallest of each kind; a backbone without a line here fails the first test.
SMALL = {
    "resnet": {"depth": 18, "width": 0.125, "pretrained": False},
    "osnet": {"width": 0.25},
    "bn_inception": {"width": 0.125},
    "timm": {"architecture": "resnet10t", "pretrained": False},
}
VARIANTS = [
    *SMALL.items(),
    ("resnet", {"depth": 10, "width": 0.125, "pretrained": False}),
    ("resnet", {"depth": 50, "width": 0.125, "ibn": "a", "pretrained": False}),
    ("resnet", {"depth": 18, "width": 0.125, "ibn": "b", "pretrained": False}),
    ("resnet", {"depth": 34, "width": 0.125, "zero_init": True, "pretrained": False}),
    ("osnet", {"width": 0.25, "variant": "ain"}),
    ("timm", {"architecture": "test_vit", "pretrained": False}),
]
SIZE = (64, 32)


def backbone(name: str, args: dict) -> nn.Module:
    torch.manual_seed(0)
    return BACKBONES.build(name, args, size=SIZE)


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def test_every_registered_backbone_is_tested_here():
    assert set(SMALL) == set(BACKBONES)


@pytest.mark.parametrize("name, args", VARIANTS)
def test_a_backbone_gives_a_map_of_the_channels_it_declares(name, args):
    features = backbone(name, args).eval()(images(2))
    assert features.ndim == 4
    assert features.shape[:2] == (2, backbone(name, args).out_channels)
    assert features.isfinite().all()


@pytest.mark.parametrize("name, args", VARIANTS)
def test_the_gradient_reaches_the_first_layer(name, args):
    body = backbone(name, args)
    body(images(4)).square().mean().backward()
    assert next(body.parameters()).grad.abs().sum() > 0


@pytest.mark.parametrize("name, args", VARIANTS)
def test_every_parameter_is_trained(name, args):
    body = backbone(name, args)
    body(images(4)).square().mean().backward()
    assert [key for key, value in body.named_parameters() if value.grad is None] == []


def model(name: str, args: dict) -> ReIDModel:
    body = backbone(name, args)
    dim = body.out_channels
    return ReIDModel(body, AveragePool(), SetPooling("mean"), BNNeck(dim, num_classes=5))


@pytest.mark.parametrize("name, args", SMALL.items())
def test_one_frame_equals_the_image_path(name, args):
    whole = model(name, args).eval()
    x = images(3)
    output = whole(x[:, None], torch.ones(3, 1, dtype=torch.bool))
    cells = whole.backbone(x.contiguous(memory_format=torch.channels_last))
    assert torch.equal(output.embedding, cells.mean((2, 3))[:, None])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name, args", SMALL.items())
def test_masked_frames_change_nothing_at_all(name, args, training):
    mask = torch.tensor([[True, True, False], [True, False, False], [True, True, False]])
    frames = images(9).unflatten(0, (3, 3))
    poisoned = torch.where(mask[:, :, None, None, None], frames, torch.nan)
    results = []
    for some_frames, some_mask in [
        (frames, mask),
        (poisoned, mask),
        (frames[:, :2], mask[:, :2]),  # the last frame is padding everywhere
    ]:
        whole = model(name, args).train(training)
        results.append((whole(some_frames, some_mask), whole.state_dict()))
    (first, state), *others = results
    for output, other_state in others:
        assert torch.equal(first.embedding, output.embedding)
        assert torch.equal(first.feature, output.feature)
        assert torch.equal(first.logits, output.logits)
        assert all(torch.equal(state[key], other_state[key]) for key in state)  # BN buffers too


@pytest.mark.parametrize("name, args", SMALL.items())
def test_training_and_evaluation_return_the_same_type(name, args):
    whole = model(name, args)
    x, mask = images(4).unflatten(0, (2, 2)), torch.ones(2, 2, dtype=torch.bool)
    trained, evaluated = whole.train()(x, mask), whole.eval()(x, mask)
    assert type(trained) is type(evaluated)
    assert [tuple(t.shape) for t in trained] == [tuple(t.shape) for t in evaluated]


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_resnet_equals_torchvisions_with_its_weights(depth):
    theirs = getattr(torchvision.models, f"resnet{depth}")().eval()
    ours = ResNet(depth, last_stride=2, pretrained=False).eval()
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    ours.load_state_dict(state)
    theirs.fc = nn.Identity()
    with torch.no_grad():
        assert_close(ours(images(1)).mean((2, 3)), theirs(images(1)))


def test_last_stride_one_keeps_twice_the_rows_and_columns():
    coarse = ResNet(18, last_stride=2, width=0.125, pretrained=False)(images(2))
    fine = ResNet(18, last_stride=1, width=0.125, pretrained=False)(images(2))
    assert coarse.shape[2:] == (2, 1)
    assert fine.shape[2:] == (4, 2)


def test_ibn_a_norms_half_of_the_channels_for_each_image_and_half_over_the_batch():
    norm = InstanceBatchNorm(8)
    x = torch.randn(4, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    y = norm(x)
    per_image = torch.stack([(z - z.mean()) / (z.var(correction=0) + 1e-5).sqrt() for z in x[:, 0]])
    rest = x[:, 7]
    assert_close(y[:, 0], per_image)
    assert_close(y[:, 7], (rest - rest.mean()) / (rest.var(correction=0) + 1e-5).sqrt())


def test_ibn_a_stands_in_the_first_norm_of_every_block_of_stages_one_to_three():
    body = ResNet(50, ibn="a", width=0.125, pretrained=False)
    found = {key for key, value in body.named_modules() if isinstance(value, InstanceBatchNorm)}
    counts = {"layer1": 3, "layer2": 4, "layer3": 6}
    assert found == {f"{layer}.{i}.bn1" for layer, count in counts.items() for i in range(count)}


def test_ibn_b_stands_in_the_stem_and_after_the_last_block_of_stages_one_and_two():
    body = ResNet(50, ibn="b", width=0.125, pretrained=False)
    found = {key for key, value in body.named_modules() if isinstance(value, nn.InstanceNorm2d)}
    assert found == {"bn1", "layer1.2.IN", "layer2.3.IN"}


def test_ibn_b_makes_the_end_of_a_stage_blind_to_an_images_contrast():
    body = ResNet(18, ibn="b", width=0.125, pretrained=False).eval()
    kept = {}
    body.layer1.register_forward_hook(lambda _m, _i, out: kept.setdefault(len(kept), out))
    x = images(1)
    body(x)
    body(3 * x)
    assert_close(kept[0], kept[1], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("width, million", [(1.0, 2.2), (0.25, 0.2)])
def test_osnet_with_its_512_layer_has_the_published_number_of_parameters(width, million):
    body = OSNet(width)
    layer = LinearReduction(body.out_channels, 512, relu=True)
    count = sum(p.numel() for part in (body, layer) for p in part.parameters())
    assert round(count / 1e6, 1) == million


def test_osnet_ain_norms_instances_in_the_stem_and_four_residuals():
    body = OSNet(0.25, "ain")
    found = {key for key, value in body.named_modules() if isinstance(value, nn.InstanceNorm2d)}
    blocks = ("conv2.0", "conv2.1", "conv3.1", "conv4.0")
    assert found == {"conv1.1", *(f"{block}.restore.1" for block in blocks)}


def test_an_omni_scale_block_sees_9x9_cells_and_no_more():
    block = OSNet(0.25).conv2[1].eval()
    # The gate looks at the whole map; with its weights at zero it gives one half everywhere.
    nn.init.zeros_(block.gate.expand.weight)
    x = torch.randn(1, 64, 21, 21, generator=torch.Generator().manual_seed(0), requires_grad=True)
    block(x)[0, :, 10, 10].sum().backward()
    seen = x.grad[0].abs().sum(0) > 0
    rows = seen.any(1).nonzero().flatten()
    assert (int(rows.min()), int(rows.max())) == (6, 14)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"depth": 19}, "depth 19: known are 10, 18, 34, 50"),
        ({"depth": 10, "pretrained": True}, "depth 10 has no ImageNet weights"),
        ({"depth": 18, "width": 0.5, "pretrained": True}, "has no ImageNet weights"),
        ({"depth": 18, "width": -1.0, "pretrained": False}, "width -1.0"),
        ({"depth": 18, "zero_init": True, "pretrained": True}, "zero_init is for training from"),
    ],
)
def test_resnet_refuses_what_it_cannot_be(arguments, words):
    with pytest.raises(ValueError, match=words):
        ResNet(**arguments)


def test_osnet_refuses_other_widths():
    with pytest.raises(ValueError, match=r"width 0.3: OSNet comes in 0.25, 0.5, 0.75, 1.0"):
        OSNet(0.3)


def test_osnet_refuses_to_pretend_it_had_imagenet_weights():
    with pytest.raises(ValueError, match="set `pretrained: false`"):
        OSNet(pretrained=True)


def test_timm_lays_the_patches_of_a_vit_out_on_their_grid():
    body = TimmBackbone("test_vit", pretrained=False, size=(64, 32)).eval()
    tokens = body.body(images(1))  # class token first, then the rows of patches
    height, width = body.body.patch_embed.grid_size
    features = body(images(1))
    assert features.shape[2:] == (height, width)
    prefix = tokens.shape[1] - height * width
    assert torch.equal(features[0, :, 2, 1], tokens[0, prefix + 2 * width + 1])


def test_timm_names_the_nearest_architectures():
    with pytest.raises(ValueError, match=r"no architecture 'resnt18'.*resnet18"):
        TimmBackbone("resnt18", pretrained=False)


def test_timm_passes_arguments_on_and_says_which_do_not_fit():
    assert TimmBackbone("resnet10t", False, args={"output_stride": 8})(images(2)).shape[2] == 8
    with pytest.raises(ValueError, match=r"cannot make 'resnet10t' with .*'colour'"):
        TimmBackbone("resnet10t", False, args={"colour": 1})


def test_timm_keeps_its_own_arguments_to_itself():
    with pytest.raises(ValueError, match="args may not set num_classes"):
        TimmBackbone("resnet10t", False, args={"num_classes": 3})


def test_timm_refuses_a_model_without_a_feature_map():
    with pytest.raises(ValueError, match=r"cannot be a backbone for 64x32.*no feature map"):
        TimmBackbone("mixer_s32_224", False, size=SIZE)


def test_timm_last_stride_one_keeps_sixteenths():
    assert TimmBackbone("resnet10t", False, last_stride=1)(images(2)).shape[2:] == (4, 2)
