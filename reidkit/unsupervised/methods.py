"""What a method of learning without labels is: a function from features to labels."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from reidkit.registry import Registry
from reidkit.types import Features


class NothingToLearn(ValueError):
    """Labels from which nothing can be learned, with the way out."""


@dataclass(frozen=True, eq=False)
class Labels:
    """What one round found.

    labels (N,) int64, classes in [0, K), all of them there, -1 for left out. groups (K, G) bool:
    two classes that share a group are known to be two identities, and only those push one another
    away; None where all are. matches (M, 2) int64: pairs of samples that were told to be one
    identity, for the judging of such statements; empty where the method makes none. `told` is what
    the method has to say in numbers, `done` that another round would find the same.
    """

    labels: Tensor
    groups: Tensor | None = None
    matches: Tensor = field(default_factory=lambda: torch.empty(0, 2, dtype=torch.int64))
    told: Mapping[str, float] = field(default_factory=dict)
    done: bool = False

    @property
    def classes(self) -> int:
        """K, how many classes there are."""
        return int(self.labels.max()) + 1 if len(self.labels) else 0


class Method(Protocol):
    """Finds labels among the features of all training samples, round after round."""

    def label(self, features: Features, round: int, previous: Labels | None) -> Labels:
        """The labels of round `round`, from 0; `previous` are those of the round before.

        A function of its arguments alone, so that a resumed run finds the same. Identities
        (`pid`) are not looked at. Raises NothingToLearn, with advice, where there are none.
        """
        ...


METHODS: Registry[Method] = Registry("method")
