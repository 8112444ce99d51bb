"""Random numbers that follow from a key: the same for an item whatever batch, worker or process.

A batch of NumPy generators takes longer to seed than its pictures take to copy; a hash of a counter
needs no state, and is computed for a whole batch at once.
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

WORD = (1 << 64) - 1
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
INCREMENT = 0xDA3E39CB94B95BDB  # odd, as PCG64 needs it


class Stream(IntEnum):
    """What is drawn; each has numbers of its own, so that switching one off moves no other."""

    FRAMES = 0
    AUTO = 1
    MOVE = 2
    AFFINE = 3
    JITTER = 4
    GRAYSCALE = 5
    BLUR = 6
    ERASING = 7
    NOISE = 8
    RECTANGLE = 1000  # one for each try from here on
    CROP = 2000  # one for each try from here on


class Draws(NamedTuple):
    """The random numbers of the items of one batch."""

    keys: NDArray[np.uint64]  # (B,)

    @classmethod
    def of(cls, seed: int, epoch: int, indices: ArrayLike, repeats: ArrayLike) -> "Draws":
        """Those of the items `indices` (B,), where each came `repeats` (B,) times before."""
        key = np.array([seed & WORD], np.uint64)
        for word in ([epoch], indices, repeats):
            key = mix(mix(key) + GOLDEN * np.asarray(word, np.int64).view(np.uint64))
        return cls(key)

    def words(self, stream: int, count: int) -> NDArray[np.uint64]:
        """`count` numbers of each item, (B, count), uniform over all of 64 bits."""
        start = mix(self.keys + GOLDEN * np.array([stream], np.uint64))
        return mix(start[:, None] + GOLDEN * np.arange(1, count + 1, dtype=np.uint64))

    def uniform(self, stream: int, count: int) -> NDArray[np.float64]:
        """`count` numbers in [0, 1) of each item, (B, count), multiples of 2^-53."""
        return (self.words(stream, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def hits(self, stream: int, chance: float) -> list[int]:
        """The items to which something of this chance happens, decided by `stream`'s first
        number."""
        if chance <= 0:
            return []
        return np.flatnonzero(self.uniform(stream, 1)[:, 0] < chance).tolist()

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "Draws":
        """Those of the items at these places of the batch."""
        return Draws(self.keys[rows])

    def generators(self, stream: int) -> Iterator[np.random.Generator]:
        """A NumPy generator for each item in turn, to be used before the next one is taken.

        It is one object all along: PCG64, set anew to a place in its period of 2^128.
        """
        generator = np.random.Generator(np.random.PCG64(0))
        for high, low in self.words(stream, 2).tolist():
            generator.bit_generator.state = {
                "bit_generator": "PCG64",
                "state": {"state": high << 64 | low, "inc": INCREMENT},
                "has_uint32": 0,
                "uinteger": 0,
            }
            yield generator


def mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A new array of uint64, in which every bit depends on all bits of its word.

    The output function of SplitMix64: Steele, Lea and Flood, Fast Splittable Pseudorandom Number
    Generators, OOPSLA 2014, with the constants of Stafford's variant 13.
    """
    words = words ^ (words >> np.uint64(30))
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


def uniform(
    seed: int, epoch: int, indices: ArrayLike, repeats: ArrayLike, stream: int, count: int
) -> NDArray[np.float64]:
    """`count` numbers in [0, 1) for each of `indices` (B,), drawn `repeats` (B,) times before:
    (B, count), the same whatever else is drawn."""
    return Draws.of(seed, epoch, indices, repeats).uniform(stream, count)


def occurrences(indices: Sequence[int]) -> list[int]:
    """How often each index came before in the sequence."""
    seen: dict[int, int] = {}
    before = []
    for index in indices:
        before.append(seen.get(index, 0))
        seen[index] = before[-1] + 1
    return before
