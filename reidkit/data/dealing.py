"""How P x K batches are dealt: places for each identity, their batches, and the samples."""

from collections import deque
from collections.abc import Sequence

import numpy as np


def shares(
    sizes: Sequence[float], batches: int, identities: int, generator: np.random.Generator
) -> list[int]:
    """Places for each identity, in proportion to `sizes`, from 1 to `batches` each, `batches *
    identities` together.

    Fractions are rounded at random so that each identity's expectation is its exact share
    (systematic sampling). Needs identities <= len(sizes) <= batches * identities.
    """
    size = np.asarray(sizes, dtype=np.float64)
    total = batches * identities
    low, high = 0.0, batches / size.min()
    for _ in range(100):  # the sum rises with the factor: halve the interval until it is exact
        factor = (low + high) / 2
        if np.clip(factor * size, 1, batches).sum() < total:
            low = factor
        else:
            high = factor
    exact = np.clip(high * size, 1, batches)
    whole = np.floor(exact).astype(np.int64)
    order = generator.permutation(len(size))
    steps = np.cumsum((exact - whole)[order])
    steps[-1] = total - whole.sum()  # a whole number, but for rounding errors
    marks = np.floor(steps + generator.random()).astype(np.int64)
    whole[order] += np.diff(marks, prepend=0)
    places: list[int] = whole.tolist()
    return places


def deal_plan(
    places: Sequence[int], batches: int, identities: int, generator: np.random.Generator
) -> list[list[int]]:
    """`batches` rows of `identities` different identities, in which identity i comes `places[i]`
    times.

    The identities stand in a random line, each as often as it has places, and the line is cut into
    `identities` columns; a column gives one identity to every batch. One whose places fall in two
    columns is kept out of the batches it is already in; everything else is random.
    """
    order = generator.permutation(len(places))
    line = np.repeat(order, np.asarray(places)[order])
    columns = line.reshape(identities, batches)
    plan = np.empty((batches, identities), dtype=np.int64)
    for number, column in enumerate(columns):
        rows = generator.permutation(batches)
        if number and column[0] == columns[number - 1][-1]:
            taken = plan[:, number - 1] == column[0]
            head = int((column == column[0]).sum())
            first = rows[~taken[rows]][:head]
            rows = np.concatenate([first, rows[~np.isin(rows, first)]])
        plan[rows, number] = column
    result: list[list[int]] = plan.tolist()
    return result


class Hand:
    """Deals the samples of one identity: cameras take turns, and each of them deals all its samples
    before any again.

    `cards` are (position, camera) pairs; with a single camera this is a plain shuffled deck.
    """

    def __init__(self, cards: Sequence[tuple[int, int]], generator: np.random.Generator) -> None:
        self._generator = generator
        cameras: dict[int, list[int]] = {}
        for position, camera in cards:
            cameras.setdefault(camera, []).append(position)
        self._size = len(cards)
        self._cameras = [cameras[camera] for camera in sorted(cameras)]
        self._decks: list[deque[int]] = [deque() for _ in self._cameras]

    def deal(self, instances: int) -> list[int]:
        """`instances` positions, different ones as long as there are enough."""
        dealt: list[int] = []
        while len(dealt) < instances:
            fresh: list[int] = []
            self._turn(fresh, min(instances - len(dealt), self._size))
            dealt += fresh
        return dealt

    def _turn(self, fresh: list[int], count: int) -> None:
        while len(fresh) < count:
            for camera in self._generator.permutation(len(self._cameras)).tolist():
                if len(fresh) < count:
                    self._draw(camera, fresh)

    def _draw(self, camera: int, fresh: list[int]) -> None:
        """Move a card that is not in `fresh` yet from this camera's deck, if there is one."""
        deck = self._decks[camera]
        for _ in range(len(deck)):
            if deck[0] not in fresh:
                fresh.append(deck.popleft())
                return
            deck.rotate(-1)
        waiting = set(deck)
        rest = [card for card in self._cameras[camera] if card not in waiting]
        shuffled = self._generator.permutation(rest).tolist()
        free = [card for card in shuffled if card not in fresh]
        # Cards of this round go under the new deck, so that they come last.
        deck.extend(free + [card for card in shuffled if card in fresh])
        if free:
            fresh.append(deck.popleft())
