"""Fetching ImageNet weights: from cache or network, or one clear error; never random."""

import socket
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from safetensors.torch import load_file
from torch import Tensor

PATIENCE = 3.0  # seconds to find out that there is no network


class WeightsUnavailable(RuntimeError):
    """Pretrained weights were asked for and cannot be had; the message says how to go on."""


def reachable(url: str, patience: float = PATIENCE) -> bool:
    """Whether the host of `url` accepts a connection within `patience` seconds.

    Download clients retry for most of a minute without a network; this asks once. Behind a
    proxy a direct connection proves nothing, so the answer is yes and the client finds out.
    """
    parts = urlsplit(url)
    if not parts.hostname or parts.scheme in urllib.request.getproxies():
        return bool(parts.hostname)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        with socket.create_connection((parts.hostname, port), timeout=patience):
            return True
    except OSError:
        return False


def hub_file(url: str) -> Path:
    """Where torch.hub keeps the file of this address."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name


def state_from_url(url: str, what: str) -> dict[str, Tensor]:
    """The state dict behind `url`, from the torch hub cache or downloaded into it.

    Raises WeightsUnavailable without a network, or where the file cannot be read.
    """
    file = hub_file(url)
    remedy = f"set `pretrained: false`, or put the file of {url} at {file}"
    if not file.is_file() and not reachable(url):
        host = urlsplit(url).hostname
        raise WeightsUnavailable(f"no weights of {what}: {host} cannot be reached; {remedy}")
    try:
        return torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except Exception as error:  # an unpickler meets a broken file with almost any exception
        reason = (str(error).splitlines() or [""])[0]
        raise WeightsUnavailable(
            f"no weights of {what}: {file} could not be fetched or read "
            f"({type(error).__name__}: {reason}); {remedy}"
        ) from error


def state_from_file(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """The state dict of a .safetensors file, or of one that torch.save wrote.

    Where keys begin with `prefix`, it is those alone, without it. Raises WeightsUnavailable where
    the file cannot be read or holds something else; code in it is not run.
    """
    path = Path(path)
    try:
        state: Any
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler meets a broken file with almost any exception
        reason = (str(error).splitlines() or [""])[0]
        raise WeightsUnavailable(
            f"weights {path} could not be read ({type(error).__name__}: {reason}); "
            "expected a state dict as .safetensors, or saved with torch.save"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
        raise WeightsUnavailable(f"weights {path} hold no state dict, name -> tensor")
    inside = {key.removeprefix(prefix): x for key, x in state.items() if key.startswith(prefix)}
    return inside or state
