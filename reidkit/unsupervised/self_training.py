"""The round of learning without labels: extract, label, train. One loop for all methods."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from reidkit.types import Features
from reidkit.unsupervised.methods import Labels, Method


class Round(NamedTuple):
    """What one round, numbered from 0, trains on."""

    number: int
    labels: Labels


def self_training(
    find: Callable[[int, Labels | None], Labels],
    train: Callable[[Round], None],
    *,
    rounds: int,
    under_way: Round | None = None,
) -> None:
    """Find labels and train on them, until `rounds` are over or another would find the same.

    Args:
        find: number of the round and the labels of the one before -> labels.
        train: trains on the labels of a round; where a part of it is done already, on the rest.
        under_way: the round that an interrupted training was in.
    """
    previous = None if under_way is None else under_way.labels
    if under_way is not None:
        train(under_way)
    for number in range(0 if under_way is None else under_way.number + 1, rounds):
        labels = find(number, previous)
        if labels.done:
            return
        train(Round(number, labels))
        previous = labels


def label_shuffled(
    method: Method, features: Features, number: int, previous: Labels | None, *, seed: int
) -> Labels:
    """What the method finds where it sees the samples in an order that the seed draws.

    Benchmarks list samples by identity. Wherever a method breaks a tie by position, it would find
    identities that the features do not show; a bottom-up clustering of features that are all alike
    would be perfect. Classes are numbered by their first sample here.
    """
    count = len(features)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    shown = replace(
        features,
        vectors=features.vectors[order.to(features.vectors.device)],
        samples=tuple(features.samples[place] for place in order.tolist()),
    )
    before = None if previous is None else replace(previous, labels=previous.labels[order])
    found = method.label(shown, number, before)
    labels = torch.empty_like(found.labels)
    labels[order] = found.labels
    names = _by_first_appearance(labels, found.classes)
    numbers = torch.empty_like(names)
    numbers[names] = torch.arange(len(names))
    return replace(
        found,
        labels=torch.where(labels >= 0, numbers[labels.clamp_min(0)], labels)
        if len(names)
        else labels,
        groups=None if found.groups is None else found.groups[names],
        matches=order[found.matches],
    )


def _by_first_appearance(labels: Tensor, classes: int) -> Tensor:
    """The classes (K,) in the order in which they first appear among labels (N,)."""
    first = torch.full((classes,), len(labels))
    known = (labels >= 0).nonzero()[:, 0]
    first.scatter_reduce_(0, labels[known], known, "amin")
    return first.argsort()
