"""The registry of losses, apart from `__init__` so that every loss file can import it."""

from torch import nn

from reidkit.registry import Registry

LOSSES: Registry[nn.Module] = Registry("loss")
