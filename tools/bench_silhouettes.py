"""Time a batch of silhouettes: reidkit's store, a PNG for each frame, a pickle for each sequence.

    python tools/bench_silhouettes.py
    python tools/bench_silhouettes.py --sequences 256 --frames 120 --repeats 30

Made-up aligned silhouettes in a temporary folder, read by all contestants in one process: the same
sequences and the same frames, drawn with replacement, to a uint8 batch (B, T, 1, 64, 44). Medians
over three turns of `--repeats` batches. "dataset" is the same behind reidkit's dataset and collate,
which also draw the frames. Everything was read once before, as after a first epoch:
files are in the system's cache, and the store's pages are mapped.
"""

import argparse
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from reidkit.data.clips import Wanted, read_clips
from reidkit.data.dataset import FrameDataset
from reidkit.data.frames import FrameSampling
from reidkit.data.silhouettes.align import align
from reidkit.data.silhouettes.store import SilhouetteStore, StoreWriter, store_samples
from reidkit.types import SILHOUETTES, Sample

CUT = 10  # columns on each side
TURNS = 3


class Draw(NamedTuple):
    """The frames of a round: which sequences (B,), and which frames of each (B, T)."""

    sequences: NDArray[np.int64]
    frames: NDArray[np.int64]


def walker(seed: int, step: int) -> NDArray[np.uint8]:
    """An aligned silhouette with the grey edges of cubic scaling."""
    random = np.random.default_rng(seed)
    wide, swing = int(random.integers(30, 50)), 18 * np.sin(step / 3 + seed)
    mask = np.zeros((160, 160), np.uint8)
    cv2.circle(mask, (80, 25), 12, 255, -1)
    cv2.ellipse(mask, (80, 70), (wide // 2, 38), 0, 0, 360, 255, -1)
    for side in (-1, 1):
        cv2.line(mask, (80, 90), (int(80 + side * swing), 148), 255, 13)
    aligned = align(mask)
    assert aligned is not None
    return aligned


def write(folder: Path, sequences: int, frames: int) -> None:
    """The same silhouettes as a store, as PNGs, and as pickles."""
    with StoreWriter(folder / "store") as writer:
        for number in range(sequences):
            clip = np.stack([walker(number, step) for step in range(frames)])
            writer.add(f"{number // 4:03d}", f"nm-{number % 4}", "090", clip)
            (folder / f"{number:04d}").mkdir()
            for step, frame in enumerate(clip):
                cv2.imwrite(str(folder / f"{number:04d}/{step:03d}.png"), frame)
            with (folder / f"{number:04d}.pkl").open("wb") as file:
                pickle.dump(clip, file)


def from_store(samples: Sequence[Sample], draw: Draw) -> torch.Tensor:
    """What reidkit's dataset and collate do for a batch whose frames are drawn already."""
    wanted = [
        Wanted(samples[sequence], frames)
        for sequence, frames in zip(draw.sequences, draw.frames, strict=True)
    ]
    height, width = SILHOUETTES.size
    batch = np.empty((*draw.frames.shape, 1, height, width), np.uint8)
    for row, clip in zip(batch, read_clips(wanted, SILHOUETTES.size, channels=1), strict=True):
        row[:] = clip.transpose(0, 3, 1, 2)
    return torch.from_numpy(batch)


def from_dataset(dataset: FrameDataset, draw: Draw) -> torch.Tensor:
    """A batch of a dataset of reidkit, which draws its frames itself."""
    return dataset.batch(draw.sequences.tolist()).frames


class Pickled(FrameDataset):
    """reidkit's dataset over a pickle a sequence."""

    def fill(
        self, wanted: Sequence[Wanted], places: Sequence[NDArray[np.uint8]]
    ) -> Iterator[NDArray[np.uint8]]:
        """The chosen frames of each pickle."""
        for (sample, chosen), place in zip(wanted, places, strict=True):
            with open(sample.frames[0], "rb") as file:
                place[:] = pickle.load(file)[chosen][:, :, CUT:-CUT, None]
            yield place


def from_pictures(names: list[list[str]], draw: Draw) -> torch.Tensor:
    """One file read and decoded for each frame."""
    clips = [
        np.stack([cv2.imread(names[s][f], cv2.IMREAD_GRAYSCALE)[None, :, CUT:-CUT] for f in frames])
        for s, frames in zip(draw.sequences, draw.frames, strict=True)
    ]
    return torch.from_numpy(np.stack(clips))


def from_pickles(names: list[str], draw: Draw) -> torch.Tensor:
    """One file unpickled for each sequence, then its frames chosen."""
    clips = []
    for sequence, frames in zip(draw.sequences, draw.frames, strict=True):
        with open(names[sequence], "rb") as file:
            clips.append(pickle.load(file)[frames][:, None, :, CUT:-CUT])
    return torch.from_numpy(np.stack(clips))


def rounds(
    contestants: dict[str, Callable[[Draw], torch.Tensor]], draws: list[Draw]
) -> dict[str, float]:
    """Median seconds of a batch for each contestant; they take turns, each with all draws.

    A training run reads in one way, so nobody starts in the cache another left behind.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(TURNS):
        for name, read in contestants.items():
            for draw in draws:
                start = time.perf_counter()
                read(draw)
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=128)
    parser.add_argument("--frames", type=int, default=80, help="of each sequence")
    parser.add_argument("--batch", type=int, default=32, help="sequences of a batch")
    parser.add_argument("--chosen", type=int, default=30, help="frames of each, with replacement")
    parser.add_argument("--repeats", type=int, default=15)
    size = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)  # as in the worker of a loader
    random = np.random.default_rng(0)
    draws = [
        Draw(
            random.integers(0, size.sequences, size.batch),
            random.integers(0, size.frames, (size.batch, size.chosen)),
        )
        for _ in range(size.repeats + 1)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, size.sequences, size.frames)
        store = SilhouetteStore.open(folder / "store")
        samples = store_samples(store, "bench")
        numbers, steps = range(size.sequences), range(size.frames)
        pictures = [[str(folder / f"{n:04d}/{step:03d}.png") for step in steps] for n in numbers]
        pickles = [str(folder / f"{n:04d}.pkl") for n in numbers]

        def dataset(kind: type[FrameDataset], files: Sequence[Sequence[str]]) -> FrameDataset:
            return kind(
                [Sample(names, 0) for names in files],
                [0] * len(files),
                size=SILHOUETTES.size,
                channels=1,
                frames=FrameSampling("replacement", size.chosen),
            )

        walks = [sample.frames for sample in samples]
        whole = {
            "store": dataset(FrameDataset, walks),
            "pickles": dataset(Pickled, [[name] * size.frames for name in pickles]),
            "PNGs": dataset(FrameDataset, pictures),
        }
        contestants: dict[str, Callable[[Draw], torch.Tensor]] = {
            "store": lambda draw: from_store(samples, draw),
            "pickles": lambda draw: from_pickles(pickles, draw),
            "PNGs": lambda draw: from_pictures(pictures, draw),
            "dataset, store": lambda draw: from_dataset(whole["store"], draw),
            "dataset, pickles": lambda draw: from_dataset(whole["pickles"], draw),
            "dataset, PNGs": lambda draw: from_dataset(whole["PNGs"], draw),
        }
        store.read(np.arange(len(store)))
        first = [read(draws[0]) for read in contestants.values()]
        assert len({tuple(batch.shape) for batch in first}) == 1
        assert torch.equal(first[0], first[1]) and torch.equal(first[0], first[2])
        found = rounds(contestants, draws[1:])
    total = size.batch * size.chosen
    print(
        f"batches of {size.batch} x {size.chosen} frames from {size.sequences} sequences of "
        f"{size.frames}, uint8 {tuple(first[0].shape)}, median of {TURNS} x {size.repeats}"
    )
    print(f"{'':18}  ms a batch   frames/s  to PNGs  to pickles")
    for name, seconds in found.items():
        own = "dataset, " if name.startswith("dataset") else ""  # likes are compared with likes
        print(
            f"{name:18}  {1000 * seconds:10.2f}  {total / seconds:9,.0f}  "
            f"{found[own + 'PNGs'] / seconds:6.1f}x  {found[own + 'pickles'] / seconds:9.1f}x"
        )


if __name__ == "__main__":
    main()
