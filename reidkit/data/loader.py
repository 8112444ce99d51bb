"""From samples to batches: collate, and loaders for training and evaluation."""

import signal
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from reidkit.data.dataset import FrameDataset, Item
from reidkit.data.device import DeviceLoader
from reidkit.data.frames import FrameChoice, FrameSampling
from reidkit.data.hierarchical import HierarchicalBatches
from reidkit.data.pictures.store import PictureStore
from reidkit.data.samplers import (
    EpochSampler,
    FixedLength,
    IdentityBatches,
    LengthBuckets,
    RandomBatches,
)
from reidkit.data.threads import ThreadedBatches
from reidkit.data.transforms import Augment
from reidkit.types import Batch, Preprocessing, Sample

WorkerKind = Literal["processes", "threads"]
FRAMES_AT_ONCE = 1024  # in a batch of evaluation: long sequences come in smaller batches
AHEAD = 2  # batches a worker: one to fetch, one to read; containers often have 64 MB for them
EVALUATION_FRAMES = 16  # of a tracklet, where a call names only how to choose them


def collate(items: Sequence[Item]) -> Batch:
    """Items as one batch, equal to `FrameDataset.batch`: for a DataLoader of your own.

    Shorter tracklets are padded with zeros, where `mask` is False.
    """
    lengths = torch.tensor([len(item.frames) for item in items])
    longest = int(lengths.max())
    # By numpy: torch would start its threads for each of these small copies.
    new = np.empty if int(lengths.min()) == longest else np.zeros
    _, channels, *size = items[0].frames.shape
    frames = new((len(items), longest, *size, channels), np.uint8)
    for place, item in zip(frames, items, strict=True):
        place[: len(item.frames)] = item.frames.permute(0, 2, 3, 1).numpy()
    return Batch(
        torch.from_numpy(frames).permute(0, 1, 4, 2, 3),
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
        """The batch of these positions, or why there is none."""
        try:
            return self.dataset.batch(indices)
        except (ValueError, OSError) as error:
            return error

    def __getitem__(self, index: int) -> Batch | Exception:
        return self.__getitems__([index])


def prepare_process(_: int) -> None:
    """One thread for OpenCV, as workers share the cores already (torch sets its own number); no end
    by Ctrl-C, nor by the first SIGTERM.

    A terminal sends Ctrl-C, and torchrun and systemd send SIGTERM, to the workers too, while the
    main process still needs their batches to finish its step and save. They end with it. The second
    SIGTERM ends them, as it is then torch that gave up waiting.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_next_time)


def end_next_time(signal_number: int, _: Any) -> None:
    """A signal handler that gives way to the default one."""
    signal.signal(signal_number, signal.SIG_DFL)


def unchanged(batch: Any) -> Any:
    """What arrives: the dataset collates by itself, where it can catch errors."""
    return batch


def host_loader(
    dataset: FrameDataset,
    batch_sampler: EpochSampler | LengthBuckets,
    workers: int,
    seed: int,
    device: torch.device,
    *,
    worker_kind: WorkerKind = "processes",
    persistent: bool = True,
) -> DataLoader[Any] | ThreadedBatches:
    """uint8 batches on the host, pinned where the device is CUDA; those of both kinds are equal.

    Processes decode and augment without waiting for each other or for the consumer, but take time
    to start and memory of their own; `persistent` ones outlive an epoch. Threads do neither, and
    hand over without a copy, but share Python's lock. Without workers the consumer reads.
    """
    if worker_kind not in get_args(WorkerKind):
        kinds = " or ".join(get_args(WorkerKind))
        raise ValueError(f"worker_kind is {worker_kind!r}, expected {kinds}")
    cuda = device.type == "cuda"
    if worker_kind == "threads" and workers > 0:
        pin_for = device if cuda else None
        return ThreadedBatches(dataset, batch_sampler, workers, AHEAD, pin_for=pin_for)
    return DataLoader(
        CarriesErrors(dataset),
        batch_sampler=batch_sampler,
        num_workers=workers,
        collate_fn=unchanged,
        pin_memory=cuda,
        persistent_workers=persistent and workers > 0,
        prefetch_factor=AHEAD if workers > 0 else None,
        worker_init_fn=prepare_process,
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
    store: PictureStore | None = None,
    sampling: Literal["identities", "random"] = "identities",
    camera_balanced: bool = False,
    groups: int | None = None,
    batches: int | None = None,
    workers: int = 0,
    worker_kind: WorkerKind = "processes",
    seed: int = 0,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world: int = 1,
) -> DeviceLoader:
    """Batches for training: `identities` x `instances`, or as many samples at random with
    sampling="random".

    `frames` as a number means that many at random of each tracklet. `store` holds the pictures
    decoded. `identities` counts over all ranks, of which each gets its slice of every batch;
    `groups` lets those of a batch come from so few groups, which are the samples' domains and
    conditions. `batches` is the length of an epoch, where it is not to follow from the samples.
    Raises ValueError for `groups` with samples at random.
    """
    if groups is not None and sampling != "identities":
        raise ValueError(f"groups is {groups}, expected None for samples at random")
    if isinstance(frames, int):
        frames = FrameSampling("random", frames)
    dataset = FrameDataset(
        samples,
        labels,
        size=preprocessing.size,
        frames=frames,
        channels=preprocessing.channels,
        crop=preprocessing.crop,
        fit=preprocessing.fit,
        augment=augment,
        seed=seed,
        store=store,
    )
    sampler: EpochSampler
    camids = [sample.camid for sample in samples]
    if sampling == "identities":
        deal: Callable[..., EpochSampler] = IdentityBatches
        if groups is not None:
            super_classes = [f"{sample.domain}: {sample.condition}" for sample in samples]
            deal = partial(HierarchicalBatches, super_classes=super_classes, groups=groups)
        sampler = deal(
            labels,
            camids,
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
    if batches is not None:
        sampler = FixedLength(sampler, batches)
    device = torch.device(device)
    loader = host_loader(dataset, sampler, workers, seed, device, worker_kind=worker_kind)
    return DeviceLoader(loader, device, preprocessing)


def eval_loader(
    samples: Sequence[Sample],
    *,
    preprocessing: Preprocessing,
    batch_size: int = 64,
    workers: int = 0,
    worker_kind: WorkerKind = "processes",
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
        crop=preprocessing.crop,
        fit=preprocessing.fit,
    )
    lengths = [frames.length(len(sample.frames)) for sample in samples]
    sampler = LengthBuckets(
        lengths, batch_size=batch_size, frames=FRAMES_AT_ONCE, rank=rank, world=world
    )
    device = torch.device(device)
    # Evaluation is one pass: idle processes would only keep memory until the loader goes.
    loader = host_loader(
        dataset, sampler, workers, 0, device, worker_kind=worker_kind, persistent=False
    )
    return DeviceLoader(loader, device, preprocessing)
