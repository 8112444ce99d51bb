"""Samples and labels to uint8 frames: one dataset for images, tracklets and sequences."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from reidkit.data.clips import Wanted, read_clips
from reidkit.data.frames import FrameSampling
from reidkit.data.transforms import Augment
from reidkit.types import Sample


class Item(NamedTuple):
    """One sample with its pixels, as `collate` takes it."""

    frames: Tensor  # (T, C, H, W) uint8: RGB, or one channel of silhouettes
    label: int
    camid: int
    domain: int
    index: int  # type: ignore[assignment]  # the word of `Batch`, although tuples have an `index`


def labels_of(samples: Sequence[Sample]) -> tuple[list[int], int]:
    """A label for each sample and the number of classes: (domain, pid) pairs numbered in sorted
    order.

    A sample of unknown identity (pid -1) gets label -1 and is no class.
    """
    known = sorted({(sample.domain, sample.pid) for sample in samples if sample.pid >= 0})
    number = {key: label for label, key in enumerate(known)}
    return [number.get((sample.domain, sample.pid), -1) for sample in samples], len(known)


class FrameDataset(Dataset[Item]):
    """Reads, resizes and augments the frames of samples; the same for images (T = 1) and tracklets.

    What is drawn for an item follows from (seed, epoch, index, how often the index came before in
    the same call of `__getitems__`): never from the number of workers or from a global random
    state.

    Args:
        samples: what to read, each with at least one frame.
        labels: one for each sample.
        size: height and width of the frames that come back.
        frames: which frames of a tracklet to read.
        channels: 3 for pictures, 1 for silhouettes.
        augment: random changes; None for evaluation.
        seed: of everything drawn.

    Raises ValueError where samples and labels differ in number, a sample has no frames, or the
    shift of `augment` could push everything out of the picture.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        labels: Sequence[int],
        *,
        size: tuple[int, int],
        frames: FrameSampling,
        channels: int = 3,
        augment: Augment | None = None,
        seed: int = 0,
    ) -> None:
        if len(samples) != len(labels):
            raise ValueError(
                f"{len(samples)} samples but {len(labels)} labels; one of each is expected"
            )
        if min(size) < 1:
            raise ValueError(f"size is {size}, expected height and width of at least 1")
        for sample in samples:
            if not sample.frames:
                raise ValueError(
                    f"sample without frames: {sample.name}; each needs at least one file"
                )
        if augment is not None and augment.pad >= min(size):
            raise ValueError(f"pad is {augment.pad}, expected less than the size {size}")
        self.samples = tuple(samples)
        self.labels = list(labels)
        self.size = size
        self.sampling = frames
        self.channels = channels
        self.augment = augment
        self.seed = seed
        domains = sorted({sample.domain for sample in samples})
        self._domains = {domain: number for number, domain in enumerate(domains)}
        # In shared memory, because workers that outlive an epoch hold a copy of everything else.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.samples)

    def set_epoch(self, epoch: int) -> None:
        """Draw as in this epoch from now on, in living workers too. Call it between epochs."""
        self._epoch[0] = epoch

    def __getitem__(self, index: int) -> Item:
        """The item at `index`; an unreadable file is a ValueError that names it."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """The items of a batch; an index that comes twice is drawn anew each time."""
        seen: Counter[int] = Counter()
        drawn = []
        for index in indices:
            generator = np.random.default_rng((self.seed, int(self._epoch[0]), index, seen[index]))
            sample = self.samples[index]
            chosen = self.sampling.choose(len(sample.frames), generator)
            drawn.append((index, Wanted(sample, chosen), generator))
            seen[index] += 1
        clips = self.read([wanted for _, wanted, _ in drawn])
        return [
            self._item(index, wanted.sample, clip, generator)
            for (index, wanted, generator), clip in zip(drawn, clips, strict=True)
        ]

    def read(self, wanted: Sequence[Wanted]) -> Iterable[NDArray[np.uint8]]:
        """A clip (T, H, W, channels) for each; the place to read from somewhere else."""
        return read_clips(wanted, self.size, self.channels)

    def _item(
        self, index: int, sample: Sample, clip: NDArray[np.uint8], generator: np.random.Generator
    ) -> Item:
        if self.augment is not None:
            clip = self.augment(clip, generator)
        frames = clip.transpose(0, 3, 1, 2)  # `collate` copies it, whatever its strides
        if self.channels == 3:
            frames = np.ascontiguousarray(frames[:, ::-1])  # BGR to RGB
        label, domain = self.labels[index], self._domains[sample.domain]
        return Item(torch.from_numpy(frames), label, sample.camid, domain, index)
