"""Packing the pictures of samples: decode and resize once, read often."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidkit.data.dataset import FrameDataset
from reidkit.data.frames import FrameSampling
from reidkit.data.pictures.layout import HEADER
from reidkit.data.pictures.store import PictureStore, changed
from reidkit.data.pictures.writer import PictureWriter
from reidkit.types import Sample, StoredFrames

TOGETHER = 32  # pictures decoded, written and noted at once
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class PicturesReport:
    """What a pack of pictures did; `packed` counts those decoded now, not in an earlier attempt."""

    folder: str
    size: tuple[int, int]
    pictures: int
    packed: int
    bytes: int
    seconds: float

    def text(self) -> str:
        """One line a person can read."""
        height, width = self.size
        what = f"{self.pictures:,} pictures of {height}x{width}, {self.bytes / 1e6:,.1f} MB"
        if not self.packed:
            return f"{self.folder} is complete and up to date: {what}"
        earlier = self.pictures - self.packed
        note = f", {earlier:,} of them from an interrupted pack" if earlier else ""
        return f"{self.folder}: {what}{note}; {self.packed:,} packed in {self.seconds:.1f} s"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "size": list(self.size)}


class Decoded(NamedTuple):
    """Pictures (N, H, W, 3) RGB, and what was true of their files before they were read."""

    facts: list[os.stat_result]
    pictures: NDArray[np.uint8]


def pack_pictures(
    samples: Sequence[Sample],
    out: str | Path,
    *,
    size: tuple[int, int],
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PicturesReport:
    """Pack every picture of the samples into the store `out`, as `FrameDataset` reads them at
    `size` (H, W) without augmentation.

    A file that several samples name is packed once. Killed at any time, the same call goes on;
    `out` appears when it is complete. Where it is there already and nothing changed, nothing is
    done.

    Args:
        samples: whose pictures; the rows follow their order.
        out: a new folder; `pictures/layout.py` draws what it holds.
        size: height and width of the pictures in the store.
        workers: threads that decode; with 1 the caller's own.
        overwrite: replace a store of other pictures or another size.
        progress: told how many pictures are done, and of how many.

    Raises ValueError for an unreadable picture, for silhouettes, and for an `out` that holds
    something else; FileNotFoundError for a missing picture; OSError for a disk that is full or
    would be.
    """
    if min(size) < 1:
        raise ValueError(f"size is {size}, expected height and width of at least 1")
    if workers < 1:
        raise ValueError(f"workers is {workers}, expected 1 or more threads")
    start = time.monotonic()
    out = Path(out)
    paths = paths_of(samples)
    if (out / HEADER).is_file() and up_to_date(out, paths, size, overwrite):
        return report(PictureStore.open(out), 0, start)
    with PictureWriter(out, paths, size, overwrite=overwrite) as writer:
        packed = len(paths) - writer.done
        for facts, pictures in decode_all(paths[writer.done :], size, workers):
            writer.add(facts, pictures)
            if progress is not None:
                progress(writer.done, len(paths))
    return report(PictureStore.open(out), packed, start)


def report(store: PictureStore, packed: int, start: float) -> PicturesReport:
    """What to say of a store of which `packed` pictures were decoded since `start`."""
    height, width = store.size
    size, seconds = len(store) * height * width * 3, time.monotonic() - start
    return PicturesReport(str(store.folder), store.size, len(store), packed, size, seconds)


def paths_of(samples: Sequence[Sample]) -> list[str]:
    """The files of all samples as absolute paths, each once; a ValueError where there is none, and
    for packed silhouettes."""
    for sample in samples:
        if isinstance(sample.frames, StoredFrames):
            raise ValueError(
                f"{sample.name} is a packed silhouette, expected pictures: silhouettes are packed "
                "already, use their store as it is"
            )
    paths = dict.fromkeys(os.path.abspath(path) for sample in samples for path in sample.frames)
    if not paths:
        raise ValueError(f"no pictures in {len(samples)} samples, expected at least one")
    return list(paths)


def up_to_date(out: Path, paths: Sequence[str], size: tuple[int, int], overwrite: bool) -> bool:
    """Whether the complete store `out` holds just these pictures at this size, as they are now.

    False with `overwrite`, a ValueError without, where it does not.
    """
    try:
        store = PictureStore.open(out)
        if store.size != size:
            raise ValueError(f"{out} is a complete store of size {store.size}, not {size}")
        rows = store.index.rows
        if rows.keys() != set(paths):
            raise ValueError(f"{out} is a complete store of {len(rows):,} other pictures")
        different = [p for p in paths if changed(p, *store.index.facts[rows[p], :2].tolist())]
        if different:
            raise ValueError(
                f"{len(different):,} of {len(rows):,} pictures changed since {out} was packed, "
                f"{different[0]} first"
            )
        store.verify()
    except (ValueError, FileNotFoundError) as error:
        if overwrite:
            return False
        told = str(error).rstrip(".")
        raise ValueError(f"{told}; name a new folder, remove it or overwrite") from error
    return True


def decode_all(paths: Sequence[str], size: tuple[int, int], workers: int) -> Iterator[Decoded]:
    """All pictures in order, some at a time; a few are made ahead by threads."""
    dataset = FrameDataset(
        [Sample((path,), 0) for path in paths],
        [0] * len(paths),
        size=size,
        frames=FrameSampling("every"),
    )
    parts = [
        range(first, min(first + TOGETHER, len(paths))) for first in range(0, len(paths), TOGETHER)
    ]
    if workers == 1:
        for part in parts:
            yield decode(dataset, part)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Decoded]] = deque()
        try:
            for part in parts:
                waiting.append(pool.submit(decode, dataset, part))
                if len(waiting) > 2 * workers:  # so many are held in memory, not all
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def decode(dataset: FrameDataset, part: range) -> Decoded:
    """These pictures of a dataset of single pictures."""
    facts = []
    for place in part:
        path = dataset.samples[place].name
        try:
            facts.append(os.stat(path))  # before reading: a file that changes meanwhile is noticed
        except OSError:
            dataset[place]  # which says what is wrong with it
            raise
    frames = dataset.batch(part).frames[:, 0]  # (N, 3, H, W)
    return Decoded(facts, frames.permute(0, 2, 3, 1).contiguous().numpy())
