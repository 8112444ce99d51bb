import pytest
import torch

from reidkit.models import REGISTRIES, GeMPool, IdentityNeck, build_model, model_faults
from reidkit.types import Preprocessing

PREPROCESSING = Preprocessing(size=(64, 32))
SMALL = {"name": "osnet", "width": 0.25}


def build(spec: dict, num_classes: int | None = 4):
    return build_model(
        spec, num_classes=num_classes, size=PREPROCESSING.size, preprocessing=PREPROCESSING
    )


def test_a_backbone_is_enough_and_the_rest_has_defaults():
    model = build({"name": "reid", "backbone": SMALL})
    kinds = [type(part).__name__ for part in (model.spatial, model.temporal, model.neck)]
    assert kinds == ["AveragePool", "SetPooling", "BNNeck"]
    assert model.temporal.kind == "mean"
    assert model.preprocessing == PREPROCESSING
    assert model(torch.zeros(2, 1, 3, 64, 32)).logits.shape == (2, 1, 4)


def test_every_component_is_built_as_said():
    model = build(
        {
            "name": "reid",
            "backbone": SMALL,
            "spatial": {"name": "gem", "p": 4},
            "temporal": {"name": "attention"},
            "reduction": {"name": "linear", "dim": 32, "relu": True},
            "neck": {"name": "identity"},
            "flip_test": True,
            "channels_last": False,
        },
        num_classes=None,
    )
    assert isinstance(model.spatial, GeMPool) and model.spatial.p.item() == 4
    assert model.temporal.score.in_features == 128
    assert isinstance(model.neck, IdentityNeck) and model.neck.classifier is None
    assert (model.flip_test, model.channels_last, model.embedding_size) == (True, False, 32)


def test_a_vit_is_built_for_the_configs_image_size():
    spec = {"name": "timm", "architecture": "test_vit", "pretrained": False}
    model = build({"name": "reid", "backbone": spec})
    assert model.backbone.body.patch_embed.img_size == (64, 32)


def test_a_right_spec_has_no_faults_and_is_left_as_it_was():
    spec = {"name": "reid", "backbone": dict(SMALL), "neck": {"name": "bnneck"}}
    assert model_faults(spec) == []
    build(spec)
    assert spec == {"name": "reid", "backbone": SMALL, "neck": {"name": "bnneck"}}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"backbone": {"name": "resnet", "dept": 18}}, "model.backbone: unknown key 'dept'"),
        ({"backbone": {"name": "resnet", "dept": 18}}, "Did you mean 'depth'?"),
        ({"backbone": {"name": "resnt"}}, "Did you mean 'resnet'?"),
        ({"backbone": {"name": "resnet", "depth": 19}}, "model.backbone: depth = 19"),
        ({"backbone": {"name": "resnet", "width": 0.5}}, "model.backbone: width 0.5 has no Imag"),
        ({"backbone": {"name": "osnet", "width": 0.3}}, "model.backbone: width 0.3: OSNet comes"),
        ({"backbone": {"name": "timm"}}, "model.backbone: needs 'architecture'"),
        ({"backbone": {"name": "timm", "architecture": "resnet18e"}}, "Nearest: resnet18"),
        ({"backbone": "resnet"}, "model.backbone: expected {name: ..., ...}, got 'resnet'"),
        ({"backbone": {"depth": 18}}, "model.backbone: needs 'name', one of: bn_inception, osnet"),
        ({"backbone": None}, "model: backbone = None"),
        ({"spatial": {"name": "parts", "count": 0}}, "model.spatial: count 0"),
        ({"spatial": {"name": "gem", "p": "three"}}, "model.spatial: p = 'three'"),
        ({"neck": {"name": "bnneck", "num_classes": 3}}, "num_classes is set by reidkit"),
        ({"reduction": {"name": "linear"}}, "model.reduction: needs 'dim'"),
        ({"flip_tset": True}, "model: unknown key 'flip_tset'"),
        ({"flip_test": "maybe"}, "model: flip_test = 'maybe'"),
        (
            {"name": "read"},
            "model: unknown model 'read'; known: gait_resnet, gaitset, multi_level,",
        ),
        ({"name": "read"}, "Did you mean 'reid'?"),
    ],
)
def test_a_fault_is_told_with_its_key_path(change, words):
    faults = model_faults({"name": "reid", "backbone": SMALL} | change)
    assert any(words in fault for fault in faults), faults


def test_all_faults_are_told_together():
    spec = {
        "name": "reid",
        "backbone": {"name": "resnt"},
        "neck": {"name": "bnnek"},
        "temporal": "mean",
        "flip": 1,
    }
    assert len(model_faults(spec)) == 4
    with pytest.raises(ValueError, match=r"'resnt'.*'bnnek'"):
        build(spec)


@pytest.mark.parametrize("spec", [{}, None, "reid", {"name": 3}, {"name": "reid"}])
def test_what_is_no_spec_at_all_is_a_fault_and_no_crash(spec):
    assert len(model_faults(spec)) == 1


def test_every_registered_component_tells_its_arguments():
    for registry in REGISTRIES:
        assert all(isinstance(registry.parameters(name), dict) for name in registry)
