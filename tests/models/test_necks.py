import pytest
import torch
from torch import nn
from torch.testing import assert_close

from reidkit.models import NECKS, BNNeck, IdentityNeck, LinearReduction
from reidkit.models.necks import PartLinear, PartNorm


def vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 3 + 1


@pytest.mark.parametrize("name", list(NECKS))
@pytest.mark.parametrize("parts", [1, 3])
def test_a_neck_keeps_the_shape_and_classifies_each_part(name, parts):
    neck = NECKS.build(name, in_dim=4, parts=parts, num_classes=7)
    feature, logits = neck(vectors(5, parts, 4))
    assert feature.shape == (5, parts, 4)
    assert logits.shape == (5, parts, 7)


@pytest.mark.parametrize("name", list(NECKS))
def test_without_classes_there_are_no_logits(name):
    neck = NECKS.build(name, in_dim=4, parts=1, num_classes=None)
    assert neck(vectors(5, 1, 4))[1] is None
    assert not any(key.startswith("classifier") for key in neck.state_dict())


def test_bnneck_is_the_papers():
    neck = BNNeck(64, num_classes=100)
    assert (neck.norm.norm.weight == 1).all() and neck.norm.norm.weight.requires_grad
    assert (neck.norm.norm.bias == 0).all() and not neck.norm.norm.bias.requires_grad
    assert neck.classifier.bias is None
    assert neck.classifier.weight.std().item() == pytest.approx(0.001, rel=0.1)


def test_the_frozen_bias_stays_zero_when_everything_else_is_trained():
    neck = BNNeck(4, num_classes=3)
    optimizer = torch.optim.SGD([p for p in neck.parameters() if p.requires_grad], lr=1.0)
    neck(vectors(8, 1, 4))[1].square().sum().backward()
    optimizer.step()
    assert (neck.norm.norm.bias == 0).all()


def test_each_part_has_a_norm_and_a_classifier_of_its_own():
    neck = BNNeck(4, parts=3, num_classes=5)
    x = vectors(6, 3, 4)
    feature, logits = neck(x)
    for part in range(3):
        alone = nn.BatchNorm1d(4)(x[:, part])
        assert_close(feature[:, part], alone)
        assert_close(logits[:, part], alone @ neck.classifier.weight[part].T)
    moved = x.clone()
    moved[:, 2] += vectors(6, 4).square()
    assert torch.equal(neck(moved)[1][:, :2], logits[:, :2])


@pytest.mark.parametrize("parts", [1, 3])
def test_cosine_logits_are_the_scale_times_a_cosine_for_each_part(parts):
    neck = BNNeck(4, parts, num_classes=5, cosine=True, scale=8.0)
    feature, logits = neck(vectors(6, parts, 4))
    for b in range(6):
        for part in range(parts):
            for label in range(5):
                a, w = feature[b, part], neck.classifier.weight[part, label]
                assert_close(logits[b, part, label], 8 * (a @ w) / (a.norm() * w.norm()))


def test_cosine_classifies_by_direction_alone():
    neck = BNNeck(4, 2, num_classes=5, cosine=True).eval()
    x = vectors(6, 2, 4)
    feature, logits = neck(x)
    assert logits.abs().max() <= 16 * (1 + 1e-6)
    assert_close(neck(3 * x)[1], logits)
    neck.classifier.weight.data *= 7
    assert_close(neck(x)[1], logits)
    assert neck(torch.zeros(1, 2, 4))[1].isfinite().all()
    assert torch.equal(feature, neck.norm(x))


def test_cosine_changes_neither_the_states_keys_nor_the_default():
    plain, cosine = BNNeck(64, 2, 100), BNNeck(64, 2, 100, cosine=True)
    shapes = [{k: v.shape for k, v in neck.state_dict().items()} for neck in (plain, cosine)]
    assert shapes[0] == shapes[1] and not plain.cosine
    assert cosine.classifier.weight.norm(dim=-1).mean().item() == pytest.approx(1, rel=0.05)
    plain.load_state_dict(cosine.state_dict())
    assert BNNeck(64, 2, None, cosine=True)(vectors(3, 2, 64))[1] is None


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(ValueError, match=r"scale .*: expected a finite number above 0"):
        BNNeck(4, num_classes=3, cosine=True, scale=scale)


def test_synchronised_batch_norm_can_take_the_norms_place():
    neck = nn.SyncBatchNorm.convert_sync_batchnorm(BNNeck(4, parts=3, num_classes=5)).eval()
    assert isinstance(neck.norm.norm, nn.SyncBatchNorm)
    assert neck(vectors(6, 3, 4))[0].shape == (6, 3, 4)


def test_the_identity_neck_is_one():
    x = vectors(5, 1, 4)
    assert torch.equal(IdentityNeck(4, num_classes=3)(x)[0], x)


def test_a_part_linear_equals_a_loop_of_linear_layers():
    layer = PartLinear(4, 6, parts=3)
    layer.bias.data.normal_()
    x = vectors(5, 3, 4)
    got = layer(x)
    for part in range(3):
        expected = nn.functional.linear(x[:, part], layer.weight[part], layer.bias[part])
        assert_close(got[:, part], expected)


def test_a_reduction_is_linear_norm_and_relu():
    layer = LinearReduction(8, 3, parts=2, relu=True)
    x = vectors(6, 2, 8)
    got = layer(x)
    expected = PartNorm(3, 2)(torch.einsum("bpi,poi->bpo", x, layer.linear.weight)).relu()
    assert got.shape == (6, 2, 3)
    assert_close(got, expected)


def test_a_reduction_without_norm_keeps_the_scale_of_its_input():
    torch.manual_seed(0)
    layer = LinearReduction(512, 256, norm=False)
    got = layer(torch.randn(64, 1, 512))
    assert got.std().item() == pytest.approx(1, rel=0.05)


def test_a_reduction_to_nothing_is_refused():
    with pytest.raises(ValueError, match="dim 0"):
        LinearReduction(8, 0)
