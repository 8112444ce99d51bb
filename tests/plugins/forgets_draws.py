"""A plugin that breaks a resume: where the random numbers stood is forgotten."""

from collections.abc import Mapping
from typing import Any

import torch

from reidkit.engine import TrainState

_load = TrainState.load_state_dict


def _load_and_forget(self: TrainState, state: Mapping[str, Any]) -> None:
    _load(self, state)
    torch.manual_seed(0)


TrainState.load_state_dict = _load_and_forget
