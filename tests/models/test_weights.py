import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from reidkit.models import (
    ReIDModel,
    WeightsMismatch,
    build_model,
    load_model,
    read_card,
    save_model,
)
from reidkit.models.weights import store_info
from reidkit.types import Preprocessing

SPEC = {
    "name": "reid",
    "backbone": {"name": "osnet", "width": 0.25},
    "spatial": {"name": "parts", "count": 2},
    "flip_test": True,
}
PREPROCESSING = Preprocessing((64, 32), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def make(spec: dict = SPEC, num_classes: int | None = 4) -> ReIDModel:
    torch.manual_seed(0)
    return build_model(
        spec, num_classes=num_classes, size=PREPROCESSING.size, preprocessing=PREPROCESSING
    )


@pytest.fixture
def run(tmp_path):
    model = make()
    model(torch.randn(4, 1, 3, 64, 32))  # so that the batch norms' buffers are not the initial ones
    info = {"data": "market1501", "fingerprint": "abc", "licence": "research"}
    save_model(tmp_path / "run", model, SPEC, num_classes=4, info=info)
    return tmp_path / "run", model.eval()


@pytest.mark.parametrize("name", ["", "model.json", "model.safetensors"])
def test_a_saved_model_comes_back_and_answers_the_same(run, name):
    folder, model = run
    loaded = load_model(folder / name)
    x = torch.randn(2, 1, 3, 64, 32)
    assert torch.equal(loaded(x).feature, model(x).feature)
    assert not loaded.training
    assert loaded.preprocessing == PREPROCESSING
    assert loaded.flip_test


def test_the_card_says_how_to_use_it_and_what_it_was_trained_on(run):
    card = read_card(run[0])
    assert (card.embedding_size, card.parts, card.num_classes) == (256, 2, 4)
    assert card.preprocessing == PREPROCESSING
    assert card.info["licence"] == "research"
    assert json.loads((run[0] / "model.json").read_text())["format"] == 1


def test_loading_downloads_nothing(tmp_path, monkeypatch):
    small = {"name": "resnet", "depth": 18, "pretrained": False}
    model = make({"name": "reid", "backbone": small})
    asked = {"name": "reid", "backbone": small | {"pretrained": True}}
    save_model(tmp_path, model, asked, num_classes=4)

    def refuse(*_):
        raise AssertionError("asked for weights")

    monkeypatch.setattr("reidkit.models.backbones.resnet.state_from_url", refuse)
    assert load_model(tmp_path).embedding_size == 512


def test_saving_replaces_and_leaves_nothing_half_written(run):
    folder, model = run
    save_model(folder, model, SPEC, num_classes=4)
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]


def test_a_save_that_fails_keeps_the_old_files(run, monkeypatch):
    folder, model = run
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(folder, model, SPEC, num_classes=4, info={"other": 1})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_info_that_json_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="plain JSON"):
        save_model(tmp_path / "run", make(), SPEC, num_classes=4, info={"scores": {1, 2}})
    assert not (tmp_path / "run").exists()


def test_weights_of_another_model_are_told_in_one_line(run):
    folder, _ = run
    other = make(SPEC | {"backbone": {"name": "osnet", "width": 0.5}}, num_classes=5)
    state = {key: value.contiguous() for key, value in other.state_dict().items()}
    del state["backbone.conv1.0.weight"]
    save_file(state | {"extra": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(WeightsMismatch) as caught:
        load_model(folder)
    line = str(caught.value)
    assert "\n" not in line and "model.safetensors belongs to another model" in line
    assert "missing: backbone.conv1.0.weight;" in line
    assert "unexpected: extra;" in line
    assert "other shape: backbone.conv1.1.weight (32,) for (16,)" in line and "more" in line


def test_what_is_not_there_is_named(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.json"):
        load_model(tmp_path / "nowhere")
    (run[0] / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no weights .*model\.safetensors"):
        load_model(run[0])


@pytest.mark.parametrize(
    "text, words",
    [
        ("{", "is not JSON"),
        ("[]", "not a model card"),
        ("{}", "has no 'format'"),
        ('{"format": 99}', "has format 99, this reidkit reads 1"),
        ('{"format": 1}', "lacks 'preprocessing'"),
        ('{"format": 1, "preprocessing": {"size": 3}}', "value of the wrong kind"),
    ],
)
def test_a_broken_card_is_told_in_a_line(run, text, words):
    (run[0] / "model.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        load_model(run[0])


def test_a_truncated_weights_file_is_named(run):
    file = run[0] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a safetensors file"):
        load_model(run[0])


def test_a_card_whose_component_is_unknown_names_it(run):
    card = json.loads((run[0] / "model.json").read_text())
    card["spec"]["backbone"]["name"] = "osnett"
    (run[0] / "model.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"unknown backbone 'osnett'"):
        load_model(run[0])


def test_weights_are_stored_plainly(run):
    state = load_file(run[0] / "model.safetensors")
    assert set(state) == set(run[1].state_dict())


def test_an_entry_stored_later_changes_nothing_else_in_the_card(run):
    folder, _ = run
    before = json.loads((folder / "model.json").read_text())
    before["of another program"] = [1, 2]
    (folder / "model.json").write_text(json.dumps(before))
    file = store_info(folder / "model.safetensors", "threshold", {"threshold": 0.5})
    assert file == folder / "model.json"
    after = json.loads(file.read_text())
    assert after["info"].pop("threshold") == {"threshold": 0.5}
    assert after == before
    store_info(folder, "threshold", {"threshold": 0.6})
    assert read_card(folder).info["threshold"] == {"threshold": 0.6}
    assert load_model(folder).embedding_size == 256


def test_an_entry_that_cannot_be_stored_leaves_the_card_as_it_was(run, tmp_path, monkeypatch):
    folder, _ = run
    before = (folder / "model.json").read_bytes()
    with pytest.raises(ValueError, match="threshold must be plain JSON"):
        store_info(folder, "threshold", float("nan"))
    with pytest.raises(FileNotFoundError, match="expected a run folder"):
        store_info(tmp_path / "nowhere", "threshold", 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store_info(folder, "threshold", 1)
    assert (folder / "model.json").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]
