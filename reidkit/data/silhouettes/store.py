"""A packed store of silhouettes: one file of frames, mapped into memory and read by position.

`layout.py` draws its files, `writer.py` writes them.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.data.packing import check_length
from reidkit.data.silhouettes.layout import (
    AGAIN,
    FRAMES,
    SEQUENCES,
    StoredSequence,
    StoreHeader,
    read_header,
    read_sequences,
)
from reidkit.data.silhouettes.writer import StoreWriter
from reidkit.types import Sample, StoredFrames

__all__ = ["SilhouetteStore", "StoreWriter", "StoredSequence", "pids_of", "store_samples"]

NUMBERED = re.compile(r"([0-9]{1,18})(?:train)?")  # GREW writes the training half as 00001train


class SilhouetteStore:
    """Aligned silhouettes of many sequences, mapped into memory.

    It is pickled as the name of its folder and mapped again, so processes share its pages.
    """

    def __init__(
        self,
        folder: Path,
        header: StoreHeader,
        sequences: tuple[StoredSequence, ...],
        packed: NDArray[np.uint8],
    ) -> None:
        self.folder = folder
        self.size = header.size
        self.bits = header.bits
        self.origin = header.origin
        self.sequences = sequences
        self._packed = packed  # (N, H, W), or (N, H, ceil(W / 8)) with one bit a pixel

    @classmethod
    def open(cls, folder: str | Path, *, sequences: bool = True) -> "SilhouetteStore":
        """The store in `folder`, after its three files were compared with one another.

        Without `sequences` only frames can be read, and the list, which is long in a large set, is
        left alone. Raises FileNotFoundError where a file is absent, ValueError where they do not
        fit together.
        """
        folder = Path(folder)
        header = read_header(folder)
        if header.frames is None:
            raise ValueError(
                f"{folder} is a pack that was interrupted; the same `reidkit data pack` goes on"
            )
        path = folder / FRAMES
        check_length(path, header.frames, header.frame_bytes, what="frames", again=AGAIN)
        listed = read_sequences(folder / SEQUENCES, header.frames) if sequences else ()
        return cls(folder, header, listed, map_frames(path, header, header.frames))

    def __len__(self) -> int:
        return len(self._packed)

    def __reduce__(self) -> tuple[Any, ...]:
        return SilhouetteStore.open, (str(self.folder),)

    def read(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The frames at `positions` (T,), in that order and as often: (T, H, W) in [0, 255].

        With one bit a pixel the values are 0 and 255. Raises ValueError for a position outside
        [0, number of frames).
        """
        return next(self.read_each([positions]))

    def read_each(self, pieces: Sequence[NDArray[np.int64]]) -> Iterator[NDArray[np.uint8]]:
        """`read` for several, checked together; each is as small as a cache likes it."""
        pieces = [np.asarray(positions, np.int64) for positions in pieces]
        for positions in pieces:
            if positions.ndim != 1:
                raise ValueError(f"positions have shape {positions.shape}, expected (T,)")
        everything = np.concatenate(pieces)
        if len(everything):
            first, last = int(everything.min()), int(everything.max())
            if first < 0 or last >= len(self):
                raise ValueError(
                    f"frame {first if first < 0 else last} of {self.folder}, which has "
                    f"{len(self):,}: expected a position in [0, {len(self):,})"
                )
        for positions in pieces:
            frames = self._packed[positions]
            if self.bits == 1:
                frames = np.unpackbits(frames, axis=2, count=self.size[1])
                frames *= 255
            yield frames


def map_frames(path: Path, header: StoreHeader, frames: int) -> NDArray[np.uint8]:
    """The bytes of `frames.bin` as (frames, H, bytes a row), read only when touched."""
    shape = (frames, header.size[0], header.frame_bytes // header.size[0])
    if not frames:  # an empty file cannot be mapped
        return np.empty(shape, np.uint8)
    # As a plain array: indexing the subclass costs more than copying thirty frames.
    return np.asarray(np.memmap(path, np.uint8, "r", shape=shape))


def pids_of(subjects: Iterable[str]) -> dict[str, int]:
    """An identity for each subject: its number where all are different numbers, else its place in
    sorted order, from 1; -1 for nobody known, an empty subject."""
    everybody = set(subjects)
    names = sorted(everybody - {""})
    matches = [NUMBERED.fullmatch(name) for name in names]
    pids = [int(match[1]) for match in matches if match]
    # In GREW 00001train and 00001 are two persons.
    if len(set(pids)) != len(names):
        # From 1, as benchmarks use pid 0 for distractors.
        pids = list(range(1, len(names) + 1))
    known = dict(zip(names, pids, strict=True))
    return known if len(names) == len(everybody) else {"": -1} | known


def store_samples(store: SilhouetteStore, domain: str) -> tuple[Sample, ...]:
    """The usable sequences of a store, in its order, as samples of `domain`; see `pids_of`.

    Rejected sequences count when subjects are numbered, so that a verdict moves no identity.
    """
    pids = pids_of(sequence.subject for sequence in store.sequences)
    return tuple(
        Sample(
            StoredFrames(str(store.folder), sequence.start, sequence.length),
            pids[sequence.subject],
            sequence.camid,
            sequence.view,
            sequence.condition,
            domain,
        )
        for sequence in store.sequences
        if sequence.verdict != "rejected"
    )
