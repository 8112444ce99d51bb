"""The training state on disk: replaced atomically, read without running code."""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from reidkit.files import write_atomically


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
