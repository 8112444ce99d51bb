"""From samples to batches: collate, and loaders for training and evaluation."""

import signal
from collections.abc import Sequence
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from reidkit.data.dataset import FrameDataset, Item
from reidkit.data.device import DeviceLoader
from reidkit.data.frames import FrameChoice, FrameSampling
from reidkit.data.samplers import EpochSampler, IdentityBatches, LengthBuckets, RandomBatches
from reidkit.data.transforms import Augment, RandomErasing
from reidkit.types import Batch, Preprocessing, Sample

FRAMES_AT_ONCE = 1024  # in a batch of evaluation: long sequences come in smaller batches
EVALUATION_FRAMES = 16  # of a tracklet, where a call names only how to choose them


def collate(items: Sequence[Item]) -> Batch:
    """Items as one batch; shorter tracklets are padded with zeros, where `mask` is False."""
    lengths = torch.tensor([len(item.frames) for item in items])
    longest = int(lengths.max())
    # By numpy: torch would start its threads for each of these small copies.
    new = np.empty if int(lengths.min()) == longest else np.zeros
    frames = new((len(items), longest, *items[0].frames.shape[1:]), np.uint8)
    for place, item in zip(frames, items, strict=True):
        place[: len(item.frames)] = item.frames.numpy()
    return Batch(
        torch.from_numpy(frames),
        torch.arange(longest) < lengths[:, None],
        torch.tensor([item.label for item in items], dtype=torch.int64),
        torch.tensor([item.camid for item in items], dtype=torch.int64),
        torch.tensor([item.domain for item in items], dtype=torch.int64),
        torch.tensor([item.index for item in items], dtype=torch.int64),
    )


class CarriesErrors(Dataset[Any]):
    """Gives a batch, or the error that reading it raised, as a value.

    A DataLoader would wrap an error of a worker into the text of its traceback; as a value it
    arrives as it was.
    """

    def __init__(self, dataset: FrameDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: Sequence[int]) -> Batch | Exception:
        """The collated batch of these positions, or why there is none."""
        try:
            return collate(self.dataset.__getitems__(indices))
        except (ValueError, OSError) as error:
            return error

    def __getitem__(self, index: int) -> Batch | Exception:
        return self.__getitems__([index])


def prepare_worker(_: int) -> None:
    """One thread for OpenCV, as workers share the cores already, and no end by Ctrl-C.

    A terminal sends Ctrl-C to workers too; the main process finishes its step first, and they end
    with it.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def unchanged(batch: Any) -> Any:
    """What arrives: the dataset collates by itself, where it can catch errors."""
    return batch


def host_loader(
    dataset: FrameDataset,
    batch_sampler: EpochSampler | LengthBuckets,
    workers: int,
    seed: int,
    device: torch.device,
) -> DataLoader[Any]:
    """A DataLoader of uint8 batches on the host, pinned where the device is CUDA."""
    return DataLoader(
        CarriesErrors(dataset),
        batch_sampler=batch_sampler,
        num_workers=workers,
        collate_fn=unchanged,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        worker_init_fn=prepare_worker,
        # Its own generator: each epoch draws a base seed, and from the global state that would
        # change dropout.
        generator=torch.Generator().manual_seed(seed),
    )


def train_loader(
    samples: Sequence[Sample],
    labels: Sequence[int],
    *,
    preprocessing: Preprocessing,
    identities: int,
    instances: int,
    frames: int | FrameSampling = 1,
    augment: Augment | None = None,
    erasing: float | RandomErasing | None = None,
    sampling: Literal["identities", "random"] = "identities",
    camera_balanced: bool = False,
    workers: int = 0,
    seed: int = 0,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world: int = 1,
) -> DeviceLoader:
    """Batches for training: `identities` x `instances`, or as many samples at random with
    sampling="random".

    `frames` as a number means that many at random of each tracklet; `erasing` as a number its
    probability.
    """
    if isinstance(frames, int):
        frames = FrameSampling("random", frames)
    if isinstance(erasing, int | float):
        erasing = RandomErasing(erasing) if erasing else None
    dataset = FrameDataset(
        samples,
        labels,
        size=preprocessing.size,
        frames=frames,
        channels=preprocessing.channels,
        augment=augment,
        seed=seed,
    )
    sampler: EpochSampler
    if sampling == "identities":
        sampler = IdentityBatches(
            labels,
            [sample.camid for sample in samples],
            identities=identities,
            instances=instances,
            seed=seed,
            camera_balanced=camera_balanced,
            rank=rank,
            world=world,
        )
    else:
        size = identities * instances
        sampler = RandomBatches(len(samples), size, seed, rank=rank, world=world)
    device = torch.device(device)
    loader = host_loader(dataset, sampler, workers, seed, device)
    return DeviceLoader(loader, device, preprocessing, erasing, seed=seed * world + rank)


def eval_loader(
    samples: Sequence[Sample],
    *,
    preprocessing: Preprocessing,
    batch_size: int = 64,
    workers: int = 0,
    device: torch.device | str = "cpu",
    frames: FrameChoice | FrameSampling | None = None,
    rank: int = 0,
    world: int = 1,
) -> DeviceLoader:
    """Every sample once, unchanged, labels -1; `Batch.index` says which is which, as they come
    ordered by length.

    `frames` as a word chooses up to 16 frames of each tracklet; by default they are spread evenly,
    and silhouettes all come. Of several ranks each takes a part.
    """
    if frames is None:
        frames = "every" if preprocessing.channels == 1 else "evenly"
    if isinstance(frames, str):
        frames = FrameSampling(frames, EVALUATION_FRAMES)
    dataset = FrameDataset(
        samples,
        [-1] * len(samples),
        size=preprocessing.size,
        frames=frames,
        channels=preprocessing.channels,
    )
    lengths = [frames.length(len(sample.frames)) for sample in samples]
    sampler = LengthBuckets(
        lengths, batch_size=batch_size, frames=FRAMES_AT_ONCE, rank=rank, world=world
    )
    device = torch.device(device)
    return DeviceLoader(host_loader(dataset, sampler, workers, 0, device), device, preprocessing)
