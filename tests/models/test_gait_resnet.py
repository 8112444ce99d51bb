import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from reidkit.models import GaitResNet, build_model, load_model, model_faults, save_model
from reidkit.models.gait_resnet import Block
from reidkit.models.reid import TrueFrames
from reidkit.types import SILHOUETTES, ModelOutput, Preprocessing

BLOCKS = ["2d", "p3d", "3d"]
DEEP = (1, 4, 4, 1)
SMALL = {"channels": (4, 6, 8, 10), "dim": 5, "parts": 4}
SIZE = (16, 12)
MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4])


def small(blocks: str = "2d", **options) -> GaitResNet:
    """In float64 and evaluation, its norms with statistics that are not the initial ones."""
    torch.manual_seed(0)
    arguments = {"size": SIZE, "num_classes": 3} | SMALL | options
    model = GaitResNet(blocks, **arguments).double()
    with torch.no_grad():
        model(silhouettes(6, 3))
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.bias.normal_()
    return model.eval()


def silhouettes(batch: int, frames: int, size: tuple[int, int] = SIZE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.rand(batch, frames, 1, *size, generator=generator, dtype=torch.float64)


def test_without_arguments_it_is_gaitbase():
    model = GaitResNet(num_classes=74).eval()
    assert (model.parts, model.embedding_size) == (16, 16 * 256)
    assert model.preprocessing == SILHOUETTES and not model.unit_parts
    cells = []
    model.horizontal.register_forward_hook(lambda _, args, __: cells.append(args[0].shape))
    output = model(torch.rand(2, 3, 1, 64, 44))
    assert isinstance(output, ModelOutput)
    assert cells == [(2, 512, 16, 11)]
    assert output.embedding.shape == output.feature.shape == (2, 16, 256)
    assert output.logits.shape == (2, 16, 74)


def test_its_vectors_start_short_enough_for_a_margin_of_a_fifth():
    torch.manual_seed(0)
    model = GaitResNet(size=(64, 44)).train()
    with torch.no_grad():
        parts = model(silhouettes(4, 2, (64, 44)).float()).embedding.transpose(0, 1)  # (P, B, D)
    assert 0.2 < torch.cdist(parts, parts).amax((1, 2)).mean() < 4


@pytest.mark.parametrize("blocks, count", [("2d", 9325248), ("p3d", 11098816), ("3d", 27462336)])
def test_deepgaitv2_has_ten_blocks_and_so_many_weights_before_its_parts(blocks, count):
    with torch.device("meta"):
        model = GaitResNet(blocks, DEEP)
    body = [*model.stem.parameters(), *model.blocks.parameters()]
    assert len(model.blocks) == 10
    assert sum(weight.numel() for weight in body) == count


def test_gaitbase_equals_a_loop_over_frames():
    model, x = small(), silhouettes(2, 4)
    for row in range(2):
        maps = []
        for frame in x[row]:
            y = model.stem(frame[None])
            for block in model.blocks:
                z = block.norm2(block.conv2(block.norm1(block.conv1(y)).relu()))
                y = (z + block.shortcut(y)).relu()
            maps.append(y[0])
        top = torch.stack(maps).amax(0)  # (C, 4, 3)
        for part in range(4):
            strip = top[:, part]  # one row of cells a part
            vector = strip.mean(1) + strip.amax(1)
            linear = model.reduction.linear
            expected = linear.weight[part] @ vector + linear.bias[part]
            assert_close(model(x).embedding[row, part], expected)


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("layers", [(1, 1, 1, 1), (1, 2, 2, 1)])
@pytest.mark.parametrize("padding", [0.0, 1.0, float("nan")])
def test_a_padded_sequence_answers_as_it_does_alone(blocks, layers, padding):
    model = small(blocks, layers=layers)
    x = silhouettes(3, 5).masked_fill(~MASK[..., None, None, None], padding)
    together = model(x, MASK)
    for row, length in enumerate((5, 3, 1)):
        alone = model(x[row : row + 1, :length])
        assert_close(together.feature[row], alone.feature[0], rtol=0, atol=1e-10)
        assert_close(together.logits[row], alone.logits[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("blocks", BLOCKS)
def test_in_training_padding_is_seen_by_no_norm(blocks):
    x, longer = silhouettes(3, 4), torch.full((3, 6, 1, *SIZE), torch.nan, dtype=torch.float64)
    longer[:, :4] = x
    mask = torch.tensor([[True] * 4 + [False] * 2] * 3)
    padded, plain = small(blocks).train(), small(blocks).train()
    first, second = padded(longer, mask), plain(x)
    assert_close(first.logits, second.logits)
    for one, other in zip(padded.buffers(), plain.buffers(), strict=True):
        assert_close(one, other)
    for output in (first, second):
        output.logits.square().sum().backward()
    for one, other in zip(padded.parameters(), plain.parameters(), strict=True):
        if one.requires_grad:
            assert_close(one.grad, other.grad)


@pytest.mark.parametrize("blocks", BLOCKS)
def test_only_blocks_with_time_inside_see_the_order_of_the_frames(blocks):
    model, x = small(blocks), silhouettes(2, 5)
    first, second = model(x).embedding, model(x[:, [3, 0, 4, 2, 1]]).embedding
    assert torch.allclose(first, second) == (blocks == "2d")


@pytest.mark.parametrize("kind", ["p3d", "3d"])
def test_a_block_equals_dense_convolutions_over_zeroed_frames(kind):
    torch.manual_seed(0)
    block = Block(3, 4, 2, kind).double().eval()
    x = torch.randn(2, 5, 3, 6, 4, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    true = mask[..., None, None, None]

    def each(layer, y):
        return layer(y.flatten(0, 1)).unflatten(0, (2, 5)) * true

    def cube(layer, y, stride):
        time_second = (y * true).transpose(1, 2)
        return F.conv3d(time_second, layer, None, (1, stride, stride), 1).transpose(1, 2)

    if kind == "3d":
        y = each(block.norm1, cube(block.conv1.conv.weight, x, 2)).relu()
        y = each(block.norm2, cube(block.conv2.conv.weight, y, 1))
    else:
        s = each(block.norm1, each(block.conv1, x)).relu()
        weight = block.over_frames.conv.weight[..., None]
        t = F.conv3d(s.transpose(1, 2), weight, padding=(1, 0, 0)).transpose(1, 2)
        y = each(block.norm2, each(block.conv2, (s + each(block.norm_frames, t)).relu()))
    expected = (y + each(block.shortcut, x)).relu() * true
    places = TrueFrames(mask)
    assert_close(places.unpack(block(places.pack(x), places)), expected)


def test_the_first_stage_has_no_time_inside():
    model = small("3d", layers=DEEP)
    deep = [isinstance(block.conv1, nn.Conv2d) for block in model.blocks]
    assert deep == [True] + [False] * 9


def test_retrieval_compares_what_it_is_told_to():
    x = silhouettes(2, 3)
    before, behind = small()(x), small(feature="normed")(x)
    assert torch.equal(before.feature, before.embedding)
    assert torch.equal(behind.embedding, before.embedding)
    assert torch.equal(behind.feature, small().neck.norm(before.embedding))


def test_logits_are_sixteen_cosines():
    model, x = small(), silhouettes(2, 3)
    output = model(x)
    normed = model.neck.norm(output.embedding)
    classes = model.neck.classifier.weight
    expected = 16 * F.cosine_similarity(normed[:, :, None], classes[None], dim=-1)
    assert_close(output.logits, expected)


def test_without_classes_there_are_no_logits():
    assert small(num_classes=None)(silhouettes(1, 2)).logits is None


@pytest.mark.parametrize("blocks", BLOCKS)
def test_it_learns_to_tell_two_sequences_apart(blocks):
    model = small(blocks, num_classes=2).train()
    x, labels = silhouettes(4, 3), torch.tensor([0, 0, 1, 1])
    x[2:, :, :, :8] *= 0.2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(12):
        logits = model(x).logits  # (B, P, 2)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("blocks", BLOCKS)
def test_a_saved_model_comes_back_and_answers_the_same(blocks, tmp_path):
    spec = {"name": "gait_resnet", "blocks": blocks, "parts": 4, "dim": 5}
    spec |= {"channels": [4, 6, 8, 10], "layers": [1, 2, 1, 1]}
    frame = Preprocessing(SIZE, (0.0,), (1.0,))
    model = build_model(spec, num_classes=3, size=SIZE, preprocessing=frame)
    x = silhouettes(3, 5).float()
    model(x, MASK)
    save_model(tmp_path, model, spec, num_classes=3)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, GaitResNet) and loaded.preprocessing == frame
    assert torch.equal(loaded(x, MASK).feature, model.eval()(x, MASK).feature)


def test_it_runs_under_bfloat16_autocast():
    for blocks in BLOCKS:
        model = small(blocks).float().train()
        with torch.autocast("cpu", torch.bfloat16):
            output = model(silhouettes(3, 5).float(), MASK)
        output.logits.float().logsumexp(-1).sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_the_input_is_left_as_it_was():
    x, mask = silhouettes(3, 5), MASK.clone()
    before = x.clone()
    small("p3d")(x, mask)
    assert torch.equal(x, before) and torch.equal(mask, MASK)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"blocks": "4d"}, "model: blocks = '4d'"),
        ({"layers": [1, 4, 4]}, "model: needs 'layers.3'"),
        ({"layers": [1, 0, 4, 1]}, "model: layers (1, 0, 4, 1): expected four numbers, at least 1"),
        ({"channels": [0, 1, 1, 1]}, "model: channels (0, 1, 1, 1): expected four numbers"),
        ({"parts": 0}, "model: parts 0: expected at least 1"),
        ({"dim": -1}, "model: dim -1: expected at least 1"),
        ({"feature": "logits"}, "model: feature = 'logits'"),
        ({"scale": 0}, "model: scale 0.0: expected a finite number above 0"),
        ({"backbone": {"name": "resnet"}}, "model: unknown key 'backbone'"),
        ({"num_classes": 4}, "num_classes is set by reidkit"),
    ],
)
def test_a_fault_is_told_with_its_key_path(change, words):
    faults = model_faults({"name": "gait_resnet"} | change)
    assert any(words in fault for fault in faults), faults


def test_faults_by_hand_are_told_together():
    with pytest.raises(ValueError, match="blocks '4d': known are 2d, p3d, 3d; dim 0"):
        GaitResNet("4d", dim=0)


@pytest.mark.parametrize("size", [(60, 44), (0, 44), (64, 0)])
def test_a_size_without_equal_stripes_is_refused_before_anything_is_built(size):
    with pytest.raises(ValueError, match=r"multiple of 64 .*, as 64 x 44"):
        GaitResNet(size=size)


def test_a_size_beside_the_preprocessing_must_be_its_own():
    with pytest.raises(ValueError, match=r"\(128, 88\) is not the preprocessing's \(64, 44\)"):
        GaitResNet(size=(128, 88), preprocessing=SILHOUETTES)
    assert GaitResNet(**SMALL, size=(128, 88)).preprocessing.size == (128, 88)


@pytest.mark.parametrize(
    "x, mask, words",
    [
        (torch.zeros(2, 1, 16, 12), None, r"shape \(B, T, C, H, W\)"),
        (torch.zeros(2, 1, 1, 16, 12, dtype=torch.uint8), None, "uint8"),
        (torch.zeros(2, 1, 3, 16, 12), None, r"1 channel\(s\), got 3"),
        (torch.zeros(2, 1, 1, 24, 12), None, "silhouettes of 24 x 12"),
        (torch.zeros(2, 2, 1, 16, 12), torch.ones(2, 2), "mask must be bool"),
        (torch.zeros(1, 2, 1, 16, 12), torch.zeros(1, 2, dtype=torch.bool), "no true frame"),
    ],
)
def test_bad_input_is_told_in_a_line(x, mask, words):
    with pytest.raises(ValueError, match=words):
        small().float()(x, mask)
