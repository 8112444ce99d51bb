"""Samples and labels to uint8 batches: one dataset for images, tracklets and sequences."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from reidkit.data.clips import Wanted, fill_clips
from reidkit.data.draws import Draws, occurrences
from reidkit.data.frames import FrameSampling, read_image, resize_into
from reidkit.data.framing import Window, frame_into
from reidkit.data.pictures.store import PictureStore
from reidkit.data.transforms import Augment
from reidkit.types import Batch, Fit, Preprocessing, Sample, StoredFrames


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
    the same batch): never from the number of workers or from a global random state.

    Args:
        samples: what to read, each with at least one frame.
        labels: one for each sample.
        size: height and width of the frames that come back.
        frames: which frames of a tracklet to read.
        channels: 3 for pictures, 1 for silhouettes.
        augment: random changes; None for evaluation.
        seed: of everything drawn.
        store: holds the pictures decoded; else they are read from their files.
        crop, fit: how a picture fills its frame, as in `Preprocessing`. Where `augment` crops, its
            window of the whole picture comes instead of the middle.

    Raises ValueError where samples and labels differ in number, a sample has no frames, a picture
    is not in the store, `augment` does not fit the size and the channels, or `fit` the store.
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
        store: PictureStore | None = None,
        crop: float = 1.0,
        fit: Fit = "stretch",
    ) -> None:
        if len(samples) != len(labels):
            raise ValueError(
                f"{len(samples)} samples but {len(labels)} labels; one of each is expected"
            )
        if min(size) < 1:
            raise ValueError(f"size is {size}, expected height and width of at least 1")
        if channels not in (1, 3):
            raise ValueError(f"channels is {channels}, expected 3 for pictures, 1 for silhouettes")
        for sample in samples:
            if not sample.frames:
                raise ValueError(
                    f"sample without frames: {sample.name}; each needs at least one file"
                )
        if augment is not None:
            augment.check(size, channels)
        if fit != "stretch" and store is not None:
            raise ValueError(
                f"fit {fit!r} needs the pictures as they are, but {store.folder} holds them "
                "stretched; leave the store out"
            )
        # It knows which values go together; mean and std are not for here.
        whole = Preprocessing(size, (0.0,) * channels, (1.0,) * channels, crop, fit)
        self.read_size, self.fit = whole.read_size, fit
        self.samples = tuple(samples)
        self.labels = list(labels)
        self.size = size
        self.sampling = frames
        self.channels = channels
        self.augment = augment
        self.seed = seed
        self._packed = None if store is None else PackedPictures(self.samples, store, channels)
        domains = sorted({sample.domain for sample in samples})
        numbers = {domain: number for number, domain in enumerate(domains)}
        known = [(sample.camid, numbers[sample.domain]) for sample in samples]
        facts = [(label, *pair) for label, pair in zip(labels, known, strict=True)]
        self._facts = np.array(facts, np.int64).reshape(-1, 3).T.copy()  # label, camid, domain
        # In shared memory, because workers that outlive an epoch hold a copy of everything else.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.samples)

    def set_epoch(self, epoch: int) -> None:
        """Draw as in this epoch from now on, in living workers too. Call it between epochs."""
        self._epoch[0] = epoch

    def batch(self, indices: Sequence[int]) -> Batch:
        """The samples at these places, uint8; an index that comes twice is drawn anew each time.

        `frames` (B, T, C, H, W) has all channels of a pixel side by side in memory. Shorter
        tracklets are padded with zeros, where `mask` is False. Raises IndexError for a place
        outside [0, len), ValueError or FileNotFoundError for a file that cannot be read, which it
        names.
        """
        rows = np.array(indices, np.int64)
        if not len(rows):
            raise ValueError("a batch of no samples; expected at least one index")
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"indices {indices}, expected each in [0, {len(self)})")
        draws = Draws.of(self.seed, int(self._epoch[0]), rows, occurrences(indices))
        wanted = self._choose(rows.tolist(), draws)
        lengths = np.array([len(chosen) for _, chosen in wanted])
        longest = int(lengths.max())
        new = np.empty if int(lengths.min()) == longest else np.zeros
        frames = new((len(rows), longest, *self.size, self.channels), np.uint8)
        clips = [clip[:length] for clip, length in zip(frames, lengths.tolist(), strict=True)]
        self._fill(clips, rows, wanted, draws)
        mask = np.arange(longest) < lengths[:, None]
        facts = self._facts[:, rows]  # (3, B)
        return Batch(
            torch.from_numpy(frames).permute(0, 1, 4, 2, 3),
            torch.from_numpy(mask),
            *(torch.from_numpy(fact) for fact in (*facts, rows)),
        )

    def _choose(self, indices: Sequence[int], draws: Draws) -> list[Wanted]:
        samples = [self.samples[index] for index in indices]
        chosen = self.sampling.choose_each([len(sample.frames) for sample in samples], draws)
        return [Wanted(*one) for one in zip(samples, chosen, strict=True)]

    def _fill(
        self,
        clips: Sequence[NDArray[np.uint8]],
        rows: NDArray[np.int64],
        wanted: Sequence[Wanted],
        draws: Draws,
    ) -> None:
        plan = windows = None
        if self.augment is not None:
            plan = self.augment.plan(self.size, self.channels, draws)
            windows = self.augment.windows(self.read_size, draws)
        if windows is not None or self.read_size != self.size or self.fit != "stretch":
            filled = self._frame(rows, wanted, clips, windows or [None] * len(rows))
        elif self._packed is None:
            filled = self.fill(wanted, clips)
        else:
            filled = self._packed.fill(rows, wanted, clips)
        # A clip is changed as soon as it was read, while it is still in the cache.
        for row, clip in enumerate(filled):
            if plan is not None:
                plan.change(row, clip)

    def _frame(
        self,
        rows: NDArray[np.int64],
        wanted: Sequence[Wanted],
        places: Sequence[NDArray[np.uint8]],
        windows: Sequence[Window | None],
    ) -> Iterator[NDArray[np.uint8]]:
        """`fill` with parts of the pictures."""
        for row, one, place, window in zip(rows.tolist(), wanted, places, windows, strict=True):
            pictures: Iterable[NDArray[np.uint8]]
            if self._packed is None:
                pictures = read_each(*one)
            else:
                pictures = self._packed.pictures(row, one.chosen)
            for picture, frame in zip(pictures, place, strict=True):
                frame_into(picture, frame, self.read_size, fit=self.fit, window=window)
            yield place

    def __getitem__(self, index: int) -> Item:
        """The item at `index`; an unreadable file is a ValueError that names it."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """The items of a batch, of which `collate` makes what `batch` gives."""
        frames, mask, *facts = self.batch(indices)
        rows = zip(*(fact.tolist() for fact in facts), strict=True)
        clips = zip(frames, mask.sum(1).tolist(), strict=True)
        return [Item(clip[:length], *row) for (clip, length), row in zip(clips, rows, strict=True)]

    def fill(
        self, wanted: Sequence[Wanted], places: Sequence[NDArray[np.uint8]]
    ) -> Iterator[NDArray[np.uint8]]:
        """Fill a contiguous place (T, H, W, C) for each with whole pictures, and give it at once;
        the method to override, to read from somewhere else."""
        return fill_clips(wanted, places)


def read_each(sample: Sample, chosen: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """The pictures at these positions of a sample, as they are."""
    if isinstance(sample.frames, StoredFrames):
        raise ValueError(f"{sample.name} is a silhouette; crop and fit are for RGB pictures alone")
    for position in chosen:
        yield read_image(sample.frames[position])


class PackedPictures:
    """The rows of a store that hold the frames of samples, and reading them.

    Raises ValueError for silhouettes, and as `PictureStore.rows` does.
    """

    def __init__(self, samples: Sequence[Sample], store: PictureStore, channels: int) -> None:
        if channels != 3 or any(isinstance(sample.frames, StoredFrames) for sample in samples):
            raise ValueError(
                f"{store.folder} holds RGB pictures, but these samples are silhouettes; expected "
                "no store of pictures for them"
            )
        self.store = store
        self.rows = store.rows([path for sample in samples for path in sample.frames])
        ends = np.cumsum([len(sample.frames) for sample in samples], dtype=np.int64)
        self.starts = np.concatenate([np.zeros(1, np.int64), ends])

    def fill(
        self,
        samples: NDArray[np.int64],
        wanted: Sequence[Wanted],
        places: Sequence[NDArray[np.uint8]],
    ) -> Iterator[NDArray[np.uint8]]:
        """Fill a contiguous place (T, H, W, 3) with the chosen frames of each sample."""
        for sample, (_, chosen), place in zip(samples.tolist(), wanted, places, strict=True):
            if self.store.size == place.shape[1:3]:
                self.store.read_into(self._rows(sample, chosen), place)
            else:
                for picture, frame in zip(self.pictures(sample, chosen), place, strict=True):
                    resize_into(picture, frame)
            yield place

    def pictures(self, sample: int, chosen: Sequence[int]) -> NDArray[np.uint8]:
        """The chosen frames of the sample at this position, (T, H, W, 3) in the store's size."""
        pixels = np.empty((len(chosen), *self.store.size, 3), np.uint8)
        self.store.read_into(self._rows(sample, chosen), pixels)
        return pixels

    def _rows(self, sample: int, chosen: Sequence[int]) -> NDArray[np.int64]:
        return self.rows[self.starts[sample] + np.asarray(chosen, np.int64)]
