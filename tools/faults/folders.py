"""Run folders: whether every file can be read, and what differs between two of them."""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from safetensors.torch import load_file


def read_state(path: Path) -> Any:
    """A state by torch and zip alone: the project's own checksum is what is on trial."""
    with zipfile.ZipFile(path) as file:
        if (bad := file.testzip()) is not None:
            raise ValueError(f"the checksum of {bad} is wrong")
    return torch.load(path, map_location="cpu", weights_only=True)


def read_weights(path: Path) -> Any:
    return load_file(path)


def read_mapping(path: Path) -> Any:
    value = yaml.safe_load(path.read_text())  # JSON, too
    if not isinstance(value, dict):
        raise ValueError(f"holds {value!r}")
    return value


def read_lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    if text and not text.endswith("\n"):
        raise ValueError("ends inside a line")
    return [json.loads(line) for line in text.splitlines()]


def read_picture(path: Path) -> Any:
    with Image.open(path) as picture:
        picture.load()


READERS: Mapping[str, Callable[[Path], Any]] = {
    ".pt": read_state,
    ".safetensors": read_weights,
    ".yaml": read_mapping,
    ".json": read_mapping,
    ".jsonl": read_lines,
    ".png": read_picture,
}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unreadable(folder: Path, damaged: frozenset[str] = frozenset()) -> list[str]:
    """Files that cannot be read, with the reason; not those whose digests are `damaged`.

    Hidden files are nobody's yet: what a save leaves when it is killed.
    """
    found = []
    for path in sorted(folder.glob("[!.]*")):
        try:
            READERS[path.suffix](path)
        except FileNotFoundError:  # renamed in the meantime by a training that lives
            continue
        except Exception as error:
            if digest(path) not in damaged:
                found.append(f"{path.name}: {str(error).splitlines()[0]}")
    return found


def differences(reference: Path, folder: Path) -> list[str]:
    """What is not the same in two finished runs, down to the bit; times are no matter."""
    one, two = ({path.name for path in run.iterdir()} for run in (reference, folder))
    found = [f"{name} is missing" for name in sorted(one - two)]
    found += [f"{name} was left over" for name in sorted(two - one)]
    for name, read in {
        "model.safetensors": read_weights,
        "state.pt": lambda path: {**read_state(path), "seconds": None},
        "scores.json": read_mapping,
        "log.jsonl": losses,
    }.items():
        if name in one & two:
            pair = (read(run / name) for run in (reference, folder))
            found += [f"{name}: {path}" for path in changed(*pair)]
    return found


def losses(path: Path) -> list[Any]:
    """What every step of the training was, in their order."""
    names = ("epoch", "iteration", "loss", "terms", "lr")
    return [
        {name: record[name] for name in names}
        for record in read_lines(path)
        if record["kind"] == "train"
    ]


def changed(one: Any, two: Any, path: str = "") -> Iterator[str]:
    """Where two trees of tensors and plain values differ."""
    if type(one) is not type(two):
        yield f"{path} is a {type(two).__name__} instead of a {type(one).__name__}"
    elif isinstance(one, dict):
        for key in {**one, **two}:  # in their order
            if key in one and key in two:
                yield from changed(one[key], two[key], below(path, key))
            else:
                yield f"{below(path, key)} is in one of them only"
    elif isinstance(one, list | tuple):
        if len(one) != len(two):
            yield f"{path or 'it'} has {len(two)} entries instead of {len(one)}"
        for place, pair in enumerate(zip(one, two, strict=False)):
            yield from changed(*pair, below(path, place))
    elif isinstance(one, torch.Tensor):
        kinds = [(value.dtype, value.shape) for value in (one, two)]
        # As bytes: 0.0 is not -0.0 here, and NaN is itself.
        bits = [value.contiguous().reshape(-1).view(torch.uint8) for value in (one, two)]
        if kinds[0] != kinds[1] or not torch.equal(*bits):
            yield path
    elif repr(one) != repr(two):
        yield f"{path} is {two!r} instead of {one!r}"


def below(path: str, key: object) -> str:
    """The path of an entry."""
    return f"{path}.{key}" if path else str(key)
