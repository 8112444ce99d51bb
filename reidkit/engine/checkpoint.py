"""Files that are whole or not there: written beside, synced, renamed."""

import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Replace `path` by `content` in one move; on any failure the old file stays and nothing else
    is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            error.errno, f"{error.strerror} while writing {path}; what was there before is kept"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    # The rename itself must reach the disk, too.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a dict of tensors and plain values."""
    # Into memory first: torch reports a full disk as a RuntimeError without its reason.
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomically(path, buffer.getbuffer())


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote; never runs code from the file. ValueError when it is
    damaged."""
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: nothing to resume; leave out --resume to start anew")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged and cannot be resumed from; start anew in another folder"
        ) from error
    return state
