"""A trained model on disk: weights in `model.safetensors`, how to use them in `model.json`."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from reidkit.files import write_atomically
from reidkit.models.base import EmbeddingModel
from reidkit.models.build import COMPONENTS, Spec, build_model
from reidkit.models.registries import MODELS
from reidkit.models.reid import whole_number
from reidkit.types import Preprocessing

FORMAT = 1
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "model.json"


class WeightsMismatch(ValueError):
    """Weights that belong to another model; the message names what did not fit."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What `model.json` says.

    info: whatever the trainer adds: training data and its fingerprint, scores, threshold, licence.
    """

    spec: Mapping[str, Any]
    num_classes: int | None
    preprocessing: Preprocessing
    embedding_size: int
    parts: int
    info: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT


def save_model(
    folder: str | Path,
    model: EmbeddingModel,
    spec: Spec,
    *,
    num_classes: int | None,
    info: Mapping[str, Any] | None = None,
) -> Path:
    """Write `model.safetensors`, then `model.json`, each replaced atomically; returns the folder.

    `spec` is what `build_model` made the model from, so that `load_model` can make it again.
    """
    folder = Path(folder)
    preprocessing = getattr(model, "preprocessing", None)
    if not isinstance(preprocessing, Preprocessing):
        raise ValueError(f"{type(model).__name__} carries no `preprocessing`; it cannot be reused")
    card = ModelCard(
        spec=dict(spec),
        num_classes=num_classes,
        preprocessing=preprocessing,
        embedding_size=whole_number(model, "embedding_size"),
        parts=whole_number(model, "parts"),
        info=dict(info or {}),
    )
    try:
        text = json.dumps(asdict(card), indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"spec and info must be plain JSON values: {error}") from error
    state = {
        key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()
    }
    write_atomically(folder / WEIGHTS_FILE, save(state, {"format": "pt"}))
    write_atomically(folder / CARD_FILE, text.encode())
    return folder


def read_card(path: str | Path) -> ModelCard:
    """The card of a run folder, or of its `model.json` or `model.safetensors`."""
    file = card_file(Path(path))
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise ValueError(f"{file} is not a model card of reidkit: it has no 'format'")
    if content["format"] != FORMAT:
        raise ValueError(
            f"{file} has format {content['format']}, this reidkit reads {FORMAT}; "
            "use the version that wrote it"
        )
    try:
        pixels = content["preprocessing"]
        preprocessing = Preprocessing(
            (int(pixels["size"][0]), int(pixels["size"][1])),
            tuple(float(value) for value in pixels["mean"]),
            tuple(float(value) for value in pixels["std"]),
            float(pixels.get("crop", 1.0)),  # cards from before have neither
            pixels.get("fit", "stretch"),
        )
        return ModelCard(
            spec=dict(content["spec"]),
            num_classes=content["num_classes"],
            preprocessing=preprocessing,
            embedding_size=int(content["embedding_size"]),
            parts=int(content["parts"]),
            info=dict(content.get("info", {})),
        )
    except KeyError as error:
        raise ValueError(f"{file} lacks {error}") from error
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{file} has a value of the wrong kind: {error}") from error


def store_info(path: str | Path, name: str, value: Any) -> Path:
    """Put one entry into `info` of an existing `model.json`, atomically; all else stays as it is.

    path: the run folder, its `model.json` or its `model.safetensors`. Returns the file. Raises
    FileNotFoundError where there is no card, ValueError for a broken one or a value that is no
    plain JSON.
    """
    file = card_file(Path(path))
    read_card(file)
    content = json.loads(file.read_text(encoding="utf-8"))
    content["info"] = {**content.get("info", {}), name: value}
    try:
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be plain JSON values: {error}") from error
    write_atomically(file, text.encode())
    return file


def load_model(path: str | Path) -> EmbeddingModel:
    """The model of a run folder, ready to use: eval mode, on the CPU, with its preprocessing.

    path: the folder, its `model.json` or its `model.safetensors`. Nothing is downloaded. Raises
    FileNotFoundError, ValueError for a broken file, WeightsMismatch for another model's weights.
    """
    card = read_card(path)
    file = card_file(Path(path)).with_name(WEIGHTS_FILE)
    if not file.is_file():
        raise FileNotFoundError(f"no weights {file} beside {CARD_FILE}")
    try:
        state = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is not a safetensors file: {error}") from error
    model = build_model(
        without_pretrained(card.spec),
        num_classes=card.num_classes,
        size=card.preprocessing.size,
        preprocessing=card.preprocessing,
    )
    load_state(model, state, str(file))
    return model.eval()


def load_state(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load all weights or none; WeightsMismatch in one line says what did not fit."""
    own = model.state_dict()
    faults = []
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(state[key].shape)} for {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    for word, keys in (("missing", missing), ("unexpected", unexpected), ("other shape", shapes)):
        if keys:
            faults.append(f"{word}: {some(keys)}")
    if faults:
        raise WeightsMismatch(f"{what} belongs to another model; {'; '.join(faults)}")
    with torch.no_grad():
        model.load_state_dict(dict(state))


def some(names: Iterable[str], count: int = 3) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def card_file(path: Path) -> Path:
    """The `model.json` that a path means, or FileNotFoundError."""
    file = path / CARD_FILE if path.is_dir() else path
    if file.suffix == ".safetensors":
        file = file.with_name(CARD_FILE)
    if not file.is_file():
        raise FileNotFoundError(
            f"no {file}; expected a run folder with {CARD_FILE} and {WEIGHTS_FILE}"
        )
    return file


def without_pretrained(spec: Spec) -> dict[str, Any]:
    """The spec with `pretrained: false` wherever a component could download weights, and no
    `weights` where it would start from a file."""
    plain = dict(spec)
    if plain.get("name") in MODELS and "pretrained" in MODELS.parameters(plain["name"]):
        plain["pretrained"] = False
    for key, (registry, _) in COMPONENTS.items():
        part = plain.get(key)
        if not isinstance(part, Mapping) or part.get("name") not in registry:
            continue  # build_model tells what is wrong with it
        takes = registry.parameters(part["name"])
        if "pretrained" in takes:
            plain[key] = {**part, "pretrained": False}
        elif "weights" in takes:
            plain[key] = {**part, "weights": None}
    return plain
