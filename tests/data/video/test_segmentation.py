import sys

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from reidkit.data.video.background import BackgroundSegmenter, foreground, learn_background
from reidkit.data.video.segmentation import make_segmenter

from .films import HEIGHT, WIDTH, film, wall

RED, WHITE = (30, 30, 210), (240, 240, 240)


def picture_of(persons):
    """The union of the masks, (H, W) bool."""
    whole = np.zeros((HEIGHT, WIDTH), bool)
    for person in persons:
        left, top, right, bottom = person.box
        assert person.mask.shape == (bottom - top, right - left)
        assert person.mask.dtype == np.uint8 and set(np.unique(person.mask)) <= {0, 255}
        whole[top:bottom, left:right] |= person.mask > 0
    return whole


def iou(a, b):
    return (a & b).sum() / max(1, (a | b).sum())


def learned(pictures):
    segmenter = make_segmenter("background")
    segmenter.learn(pictures[::3])
    return segmenter


def test_two_walkers_before_a_noisy_wall_are_found_where_they_are():
    pictures, truths = film([(30, 3, 140, 90, RED), (210, -3, 120, 80, WHITE)])
    found = learned(pictures)(pictures[5:15])
    for persons, truth in zip(found, truths[5:15], strict=True):
        assert len(persons) == 2
        for person, one in zip(persons, truth, strict=True):
            assert iou(picture_of([person]), one > 0) > 0.75


def test_the_median_of_the_video_is_the_wall_without_people():
    pictures, _ = film([(30, 3, 140, 90, RED)])
    scene = learn_background(pictures)
    assert np.abs(scene.image - np.clip(wall(), 0, 255)).mean() < 2
    assert 2 < np.median(scene.noise) < 7


def test_the_upper_median_equals_sorting():
    rng = np.random.default_rng(0)
    samples = rng.integers(100, 104, (9, 40, 8, 3)).astype(np.uint8)
    scene = learn_background(list(samples))
    assert np.abs(scene.image - np.sort(samples, axis=0)[4]).max() <= 2


def test_a_shadow_on_the_ground_is_no_part_of_the_body():
    pictures, truths = film([(30, 3, 120, 80, RED)])
    shadow = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(shadow, (95, 122), (45, 9), 0, 0, 360, 255, -1)
    scene = learn_background(pictures[::3])
    picture = pictures[10].copy()
    dark = (shadow > 0) & (truths[10][0] == 0)
    picture[dark] = (picture[dark] * 0.65).astype(np.uint8)
    mask = foreground(picture, scene) > 0
    assert (mask & dark).sum() < 0.15 * dark.sum()
    assert iou(mask, truths[10][0] > 0) > 0.7


def test_brightness_that_flickers_is_no_person():
    pictures, truths = film([(30, 3, 140, 90, RED)], noise=2)
    gains = np.random.default_rng(3).uniform(0.85, 1.1, len(pictures))
    lit = [np.clip(p * g, 0, 255).astype(np.uint8) for p, g in zip(pictures, gains, strict=True)]
    for persons, truth in zip(learned(lit)(lit[10:20]), truths[10:20], strict=True):
        assert iou(picture_of(persons), truth[0] > 0) > 0.7


def test_nobody_is_found_in_an_empty_scene():
    pictures, _ = film([])
    assert learned(pictures)(pictures) == [[]] * len(pictures)


def test_a_moving_camera_is_refused_with_the_way_out():
    wide, rng = wall(columns=3 * WIDTH), np.random.default_rng(0)
    frames = [
        np.clip(wide[:, 4 * t : 4 * t + WIDTH] + rng.normal(0, 3, (HEIGHT, WIDTH, 3)), 0, 255)
        for t in range(60)
    ]
    with pytest.raises(ValueError, match=r"camera moves.*--segmenter"):
        BackgroundSegmenter().learn([frame.astype(np.uint8) for frame in frames])


def test_the_background_needs_pictures_before_frames():
    with pytest.raises(ValueError, match="learn"):
        BackgroundSegmenter()([np.zeros((8, 8, 3), np.uint8)])
    with pytest.raises(ValueError, match="3 pictures"):
        learn_background([np.zeros((8, 8, 3), np.uint8)] * 2)


@pytest.mark.parametrize(
    "name, kind, words",
    [
        ("mog", ValueError, "expected 'background' or a file"),
        ("model.bin", ValueError, "model.bin.*safetensors"),
        ("absent.pth", FileNotFoundError, "no segmentation model absent.pth"),
        ("absent.onnx", FileNotFoundError, "no segmentation model absent.onnx"),
    ],
)
def test_a_name_that_is_no_segmenter_is_refused(name, kind, words):
    with pytest.raises(kind, match=words):
        make_segmenter(name)


class Fixed(nn.Module):
    """Says the same of every image, as torchvision's models do."""

    def __init__(self, **output):
        super().__init__()
        self.output = output
        self.seen = []

    def forward(self, images):
        self.seen += images
        return [self.output] * len(images)


def test_of_instances_those_remain_that_are_surely_persons():
    from reidkit.data.video.networks import TorchvisionSegmenter

    masks = torch.zeros(4, 1, 20, 30)
    masks[0, 0, 2:12, 20:25] = 0.9
    masks[1, 0, 3:15, 4:9] = 0.6
    masks[1, 0, 3:15, 9:12] = 0.4  # below one half: not body
    masks[2:, 0, 5:10, 5:10] = 1.0
    model = Fixed(
        boxes=torch.zeros(4, 4),
        labels=torch.tensor([1, 1, 3, 1]),
        scores=torch.tensor([0.9, 0.8, 0.99, 0.3]),
        masks=masks,
    )
    frame = np.zeros((20, 30, 3), np.uint8)
    frame[..., 2] = 255  # red, in BGR
    (persons,) = TorchvisionSegmenter(model, device="cpu")([frame])
    assert [person.box for person in persons] == [(4, 3, 9, 15), (20, 2, 25, 12)]
    assert [round(person.score, 2) for person in persons] == [0.8, 0.9]
    assert all((person.mask == 255).all() for person in persons)
    (seen,) = model.seen
    assert seen.shape == (3, 20, 30) and seen[:, 0, 0].tolist() == [1, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_mask_rcnn_comes_from_its_state_dict(tmp_path, suffix):
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    from reidkit.data.video.networks import TorchvisionSegmenter

    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
    with torch.no_grad():  # whatever it looks at is a person
        model.roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor([0.0, 9.0, 0.0]))
        model.roi_heads.mask_predictor.mask_fcn_logits.bias.fill_(9.0)
    state = model.state_dict()
    # Published weights come from frozen normalisation, which counts no batches.
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    path = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    segmenter = TorchvisionSegmenter.open(path, min_size=64, device="cpu")
    frame = np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
    (persons,) = segmenter([frame])
    assert persons
    for person in persons:
        left, top, right, bottom = person.box
        assert 0 <= left < right <= 96 and 0 <= top < bottom <= 64
        assert person.mask.shape == (bottom - top, right - left)
        assert person.score >= 0.7
    del state["roi_heads.mask_predictor.mask_fcn_logits.bias"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(ValueError, match="lacks 1, such as roi_heads"):
        make_segmenter(tmp_path / "less.pth")


class Hostile:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    "content, words",
    [
        ({"weight": torch.zeros(3)}, "no torchvision Mask R-CNN"),
        ([1, 2], "no state_dict"),
        (Hostile(), "more than tensors"),
    ],
)
def test_weights_of_something_else_are_refused_and_nothing_is_run(tmp_path, content, words, capsys):
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=words) as caught:
        make_segmenter(tmp_path / "model.pth")
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["junk.pth", "junk.safetensors", "junk.onnx"])
def test_a_damaged_model_is_refused_in_one_line(tmp_path, name):
    if name.endswith(".onnx"):
        pytest.importorskip("onnxruntime")
    (tmp_path / name).write_bytes(b"no model at all" * 9)
    with pytest.raises(ValueError, match=name) as caught:
        make_segmenter(tmp_path / name)
    assert "\n" not in str(caught.value)


def onnx_model(path, kernel, bias, sides=("h", "w"), element=1):
    """A 1 x 1 convolution as a model: kernel (C, 3), bias (C,)."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import helper, numpy_helper

    weight = np.asarray(kernel, np.float32)[:, :, None, None]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "kernel", "bias"], ["map"])],
        "segmentation",
        [helper.make_tensor_value_info("image", element, [1, 3, *sides])],
        [helper.make_tensor_value_info("map", element, [1, len(weight), *sides])],
        [
            numpy_helper.from_array(weight, "kernel"),
            numpy_helper.from_array(np.asarray(bias, np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def red_block():
    frame = np.full((60, 80, 3), (90, 90, 30), np.uint8)
    frame[10:50, 30:50] = (30, 30, 230)
    return frame


@pytest.mark.parametrize("sides", [("h", "w"), (60, 80), (30, 40)])
def test_an_onnx_model_with_one_logit_finds_the_red_block(tmp_path, sides):
    path = onnx_model(tmp_path / "model.onnx", [[1, 0, 0]], [0.0], sides)
    (persons,) = make_segmenter(path)([red_block()])
    (person,) = persons
    assert np.abs(np.array(person.box) - (30, 10, 50, 50)).max() <= 2


def test_an_onnx_model_with_classes_takes_the_usual_person_or_the_named_one(tmp_path):
    frame = red_block()
    two = onnx_model(tmp_path / "two.onnx", [[0, 0, 0], [1, 0, 0]], [0, 0])
    assert make_segmenter(two)([frame])[0][0].box == (30, 10, 50, 50)
    voc = np.zeros((21, 3))
    voc[15] = (1, 0, 0)
    many = onnx_model(tmp_path / "voc.onnx", voc, np.zeros(21))
    assert make_segmenter(many)([frame])[0][0].box == (30, 10, 50, 50)
    other = onnx_model(tmp_path / "five.onnx", voc[12:17], np.zeros(5))
    assert make_segmenter(other, person=3)([frame])[0][0].box == (30, 10, 50, 50)
    with pytest.raises(ValueError, match="5 classes, and person is not named"):
        make_segmenter(other)([frame])
    with pytest.raises(ValueError, match=r"person is 9; expected person in \[0, 5\)"):
        make_segmenter(other, person=9)([frame])


def test_an_onnx_map_of_probabilities_is_cut_at_one_half():
    from reidkit.data.video.networks import OnnxSegmenter

    class Session:
        def get_inputs(self):
            return [
                type("Input", (), {"name": "x", "shape": [1, 3, 60, 80], "type": "tensor(float)"})
            ]

        def run(self, names, feed):
            answer = np.full((1, 1, 60, 80), 0.2, np.float32)
            answer[0, 0, 10:50, 30:50] = 0.8
            return [answer]

    mask = OnnxSegmenter(Session()).mask(red_block())
    assert (mask[10:50, 30:50] == 255).all() and (mask > 0).sum() == 40 * 20


def test_an_onnx_model_of_another_kind_is_refused(tmp_path):
    two = onnx_model(tmp_path / "double.onnx", [[1, 0, 0]], [0.0], element=1)
    assert make_segmenter(two) is not None
    onnx = pytest.importorskip("onnx")
    from onnx import helper

    info = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 7])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "flat",
        [info],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 7])],
    )
    path = tmp_path / "flat.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    with pytest.raises(ValueError, match=r"takes \[\[1, 7\]\], expected one input \(1, 3, H, W\)"):
        make_segmenter(path)


def test_without_onnxruntime_the_remedy_is_named(tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'reidkit\[export\]'"):
        make_segmenter(tmp_path / "model.onnx")
