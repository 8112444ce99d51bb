import pytest
import torch
from torch import nn
from torch.testing import assert_close

from reidkit.models import (
    AveragePool,
    BNNeck,
    IdentityNeck,
    LinearReduction,
    OSNet,
    PartPool,
    ReIDModel,
    ResNet,
    SetPooling,
)
from reidkit.types import ModelOutput, Preprocessing


class Shades(nn.Module):
    """A backbone to be checked by hand: the image itself, its three colours the channels."""

    out_channels = 3

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        return x


def shades(**options) -> ReIDModel:
    return ReIDModel(Shades(), AveragePool(), SetPooling("mean"), IdentityNeck(3), **options)


def frames(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_it_is_made_by_hand_and_used_as_the_readme_says():
    model = ReIDModel(
        ResNet(18, pretrained=False),
        AveragePool(),
        SetPooling("mean"),
        BNNeck(512, num_classes=10),
    )
    output = model(frames(2, 1, 3, 64, 32), torch.ones(2, 1, dtype=torch.bool))
    assert isinstance(output, ModelOutput)
    assert output.embedding.shape == output.feature.shape == (2, 1, 512)
    assert output.logits.shape == (2, 1, 10)
    assert model.embedding_size == 512
    assert model.preprocessing == Preprocessing()


def test_frames_are_pooled_over_cells_then_over_true_frames():
    x = frames(2, 3, 3, 4, 4)
    mask = torch.tensor([[True, True, True], [True, False, True]])
    output = shades()(x, mask)
    assert_close(output.embedding[0, 0], x[0].mean((0, 2, 3)))
    assert_close(output.embedding[1, 0], x[1, [0, 2]].mean((0, 2, 3)))


def test_padding_never_enters_the_backbone():
    model = shades()
    model(frames(2, 3, 3, 4, 4), torch.tensor([[True, True, False], [True, False, False]]))
    assert model.backbone.seen == [3]


def test_no_mask_means_that_all_frames_are_true():
    x = frames(2, 3, 3, 4, 4)
    with_mask = shades()(x, torch.ones(2, 3, dtype=torch.bool))
    assert torch.equal(shades()(x).embedding, with_mask.embedding)


def test_parts_and_reduction_decide_the_embeddings_size():
    model = ReIDModel(
        OSNet(0.25),
        PartPool(2),
        SetPooling("mean"),
        BNNeck(16, parts=2, num_classes=4),
        reduction=LinearReduction(128, 16, parts=2, relu=True),
    )
    output = model(frames(3, 2, 3, 64, 32))
    assert output.embedding.shape == output.feature.shape == (3, 2, 16)
    assert output.logits.shape == (3, 2, 4)
    assert (model.parts, model.embedding_size) == (2, 32)
    assert (output.embedding >= 0).all()  # the reduction's ReLU stands before the embedding


class LeftEdge(Shades):
    """Sees only the first column, so that a mirror makes a difference."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., :1]


@pytest.mark.parametrize("training", [True, False])
def test_the_flip_test_averages_with_the_mirror_in_evaluation_only(training):
    parts = (AveragePool(), SetPooling("mean"), IdentityNeck(3, num_classes=2))
    model = ReIDModel(LeftEdge(), *parts, flip_test=True).train(training)
    x = frames(2, 1, 3, 4, 6)
    left, right = x[:, 0, :, :, 0].mean(-1), x[:, 0, :, :, -1].mean(-1)
    expected = left if training else (left + right) / 2
    output = model(x)
    assert_close(output.embedding[:, 0], expected)
    assert_close(output.feature[:, 0], expected)
    assert_close(output.logits, model.neck.classifier(expected[:, None]))


def test_the_input_is_left_as_it_was():
    x, mask = frames(2, 2, 3, 64, 32), torch.tensor([[True, True], [True, False]])
    before, mask_before = x.clone(), mask.clone()
    body = OSNet(0.25)
    ReIDModel(body, AveragePool(), SetPooling("max"), BNNeck(128), flip_test=True).eval()(x, mask)
    assert torch.equal(x, before) and torch.equal(mask, mask_before)


def test_channels_last_changes_no_number():
    results = []
    for channels_last in (True, False):
        torch.manual_seed(0)
        body = OSNet(0.25).double()
        model = ReIDModel(
            body, AveragePool(), SetPooling("mean"), IdentityNeck(128), channels_last=channels_last
        ).eval()
        results.append(model(frames(2, 1, 3, 64, 32).double()).embedding)
    assert_close(*results)


def test_it_runs_under_bfloat16_autocast():
    model = ReIDModel(OSNet(0.25), AveragePool(), SetPooling("mean"), BNNeck(128, num_classes=3))
    x, mask = frames(3, 2, 3, 64, 32), torch.tensor([[True, True], [True, False], [True, True]])
    with torch.autocast("cpu", torch.bfloat16):
        output = model(x, mask)
    output.logits.float().logsumexp(-1).sum().backward()
    grads = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize(
    "x, mask, words",
    [
        (torch.zeros(2, 3, 4, 4), None, r"shape \(B, T, C, H, W\).*images\[:, None\]"),
        (torch.zeros(2, 1, 3, 4, 4, dtype=torch.uint8), None, "normalise them first"),
        (torch.zeros(2, 1, 3, 4, 4), torch.ones(2, 2, dtype=torch.bool), "mask must be bool"),
        (torch.zeros(2, 1, 3, 4, 4), torch.ones(2, 1), "mask must be bool"),
        (torch.zeros(1, 2, 3, 4, 4), torch.zeros(1, 2, dtype=torch.bool), "no true frame"),
    ],
)
def test_bad_input_is_told_in_a_line(x, mask, words):
    with pytest.raises(ValueError, match=words):
        shades()(x, mask)


@pytest.mark.parametrize(
    "neck, reduction, words",
    [
        (BNNeck(4), None, r"in_dim 4, but the backbone's out_channels is 3"),
        (BNNeck(3), LinearReduction(3, 2), r"in_dim 3, but the reduction's dim is 2"),
        (BNNeck(3, parts=2), None, r"takes 2 parts, the spatial pooling makes 1"),
        (nn.Identity(), None, r"Identity must have an int attribute 'in_dim'"),
    ],
)
def test_components_that_do_not_fit_are_refused_at_once(neck, reduction, words):
    with pytest.raises(ValueError, match=words):
        ReIDModel(Shades(), AveragePool(), SetPooling("mean"), neck, reduction=reduction)
