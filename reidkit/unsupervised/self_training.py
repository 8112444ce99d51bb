"""The round of learning without labels: extract, label, train. One loop for all methods."""

from collections.abc import Callable
from typing import NamedTuple

from reidkit.unsupervised.methods import Labels


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
