"""Time ways of making training batches from pictures, side by side in one run.

    python tools/bench_loader.py                              # Market-sized and shop-sized pictures
    python tools/bench_loader.py --pictures market --repeats 9
    python tools/bench_loader.py --folder Market-1501-v15.09.15/bounding_box_train
    python tools/bench_loader.py --size-on-disk 500x400 --size 224x224

Made-up JPEGs in a temporary folder, or real ones with --folder. Every pipeline does the published
training augmentation: resize, flip, pad by 10 pixels and crop, erasing; the usual two also scale
and normalise each picture, as torchreid and its like do. The first part is pinned to one core,
without workers; the second has two workers over all cores, so theirs is the time of a whole loader.
The pipelines take turns, and medians are shown. All files were read once before, as after a first
epoch. simplejpeg is measured where it is installed.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import transforms as v1
from torchvision.transforms import v2

from reidkit.data.clips import Wanted
from reidkit.data.dataset import FrameDataset
from reidkit.data.frames import FrameSampling, read_rgb, resize, resize_into
from reidkit.data.loader import host_loader
from reidkit.data.pictures.pack import pack_pictures
from reidkit.data.pictures.store import PictureStore
from reidkit.data.transforms import Augment, Normalise
from reidkit.types import Preprocessing, Sample

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

USUAL, SECOND = "PIL + torchvision v1", "PIL + torchvision v2"
JPEG, JPEG_FLOAT = "reidkit, JPEG, uint8", "reidkit, JPEG, float"
STORE, STORE_FLOAT = "reidkit, store, uint8", "reidkit, store, float"
OTHER = "reidkit, simplejpeg, uint8"
TARGETS = {"market": {JPEG: 5.0, JPEG_FLOAT: 3.5, STORE: 12.0}, "shop": {JPEG: 2.5}}
MEAN, STD = Preprocessing.mean, Preprocessing.std
PAD, WORKERS = 10, 2

Make = Callable[[list[int]], Any]


class Pictures(NamedTuple):
    """What is read: files, the size that a batch has, and which targets count."""

    name: str
    paths: list[str]
    size: tuple[int, int]
    kind: str


class Files(Dataset[Any]):
    """A picture at a time through PIL and torchvision, as the usual toolboxes read."""

    def __init__(self, paths: Sequence[str], transform: Callable[[Any], Tensor]) -> None:
        self.paths = paths
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), index, 0

    def batch(self, indices: Sequence[int]) -> Any:
        """What a DataLoader makes of these."""
        return default_collate([self[index] for index in indices])


class Simplejpeg(FrameDataset):
    """reidkit's dataset with another decoder."""

    def read(self, wanted: Sequence[Wanted], places: Sequence[NDArray[np.uint8]]) -> None:
        """Fill a place (T, H, W, C) for each."""
        for (sample, chosen), place in zip(wanted, places, strict=True):
            for position, frame in zip(chosen, place, strict=True):
                data = Path(sample.frames[position]).read_bytes()
                resize_into(simplejpeg.decode_jpeg(data, "RGB"), frame)


def usual(size: tuple[int, int]) -> Callable[[Any], Tensor]:
    """The recipe with torchvision's first transforms: floats, picture by picture."""
    return v1.Compose(
        [
            v1.Resize(size),
            v1.RandomHorizontalFlip(),
            v1.Pad(PAD),
            v1.RandomCrop(size),
            v1.ToTensor(),
            v1.Normalize(MEAN, STD),
            v1.RandomErasing(0.5, (0.02, 0.4), (0.3, 3.3)),
        ]
    )


def second(size: tuple[int, int]) -> Callable[[Any], Tensor]:
    """The recipe with its second ones, in the order its documentation advises: uint8 tensors."""
    steps: list[nn.Module] = [
        v2.ToImage(),
        v2.Resize(size, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.Pad(PAD),
        v2.RandomCrop(size),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(MEAN), list(STD)),
        v2.RandomErasing(0.5, (0.02, 0.4), (0.3, 3.3)),
    ]
    return v2.Compose(steps)


def picture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Smooth colours and a texture; as JPEG of quality 90 about 0.4 bytes a pixel, as photographs
    have."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3)).astype(np.float32)
    grain = random.normal(0, 12, (height // 2 + 1, width // 2 + 1, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + cv2.resize(grain, (width, height)), 0, 255).astype(np.uint8)


def write_pictures(folder: Path, count: int, height: int, width: int) -> list[str]:
    """Made-up JPEGs of this size."""
    folder.mkdir()
    paths = [str(folder / f"{number:05d}.jpg") for number in range(count)]
    for number, path in enumerate(paths):
        cv2.imwrite(path, picture(height, width, number), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return paths


def with_pil(path: str) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def datasets(pictures: Pictures, folder: Path) -> dict[str, FrameDataset | Files]:
    """Everything that makes whole batches."""
    paths, size = pictures.paths, pictures.size
    samples = [Sample((path,), 0) for path in paths]
    pack_pictures(samples, folder, size=size)
    options: dict[str, Any] = {
        "size": size,
        "frames": FrameSampling("every"),
        "augment": Augment(flip=0.5, pad=PAD, erasing=0.5),
    }
    labels = [0] * len(paths)
    jpeg = FrameDataset(samples, labels, **options)
    store = FrameDataset(samples, labels, **options, store=PictureStore.open(folder))
    made: dict[str, FrameDataset | Files] = {
        USUAL: Files(paths, usual(size)),
        SECOND: Files(paths, second(size)),
        JPEG: jpeg,
        JPEG_FLOAT: jpeg,
        STORE: store,
        STORE_FLOAT: store,
    }
    if simplejpeg:
        made[OTHER] = Simplejpeg(samples, labels, **options)
    return made


def normalised(make: Make, indices: list[int]) -> Tensor:
    return Normalise(MEAN, STD)(make(indices).frames)


def in_one_process(paths: list[str], made: dict[str, FrameDataset | Files]) -> dict[str, Make]:
    """How each makes a batch without workers, and decoding alone as the limit of all."""
    makes: dict[str, Make] = {
        name: partial(normalised, source.batch) if name.endswith("float") else source.batch
        for name, source in made.items()
    }
    decoders: dict[str, Callable[[str], Any]] = {"OpenCV": read_rgb, "PIL": with_pil}
    if simplejpeg:
        decoders["simplejpeg"] = lambda path: simplejpeg.decode_jpeg(
            Path(path).read_bytes(), "RGB"
        )
    for name, decode in decoders.items():
        makes[f"decoding alone, {name}"] = partial(
            lambda decode, indices: [decode(paths[index]) for index in indices], decode
        )
    return makes


def with_workers(
    made: dict[str, FrameDataset | Files], batches: list[list[int]]
) -> dict[str, Callable[[], Iterable[Any]]]:
    """An epoch of each with two workers; reidkit normalises where its DeviceLoader does, in the
    consumer."""
    epochs: dict[str, Callable[[], Iterable[Any]]] = {}
    cpu = torch.device("cpu")
    for name, source in made.items():
        if isinstance(source, Files):
            loader: Any = DataLoader(
                source, batch_sampler=batches, num_workers=WORKERS, persistent_workers=True
            )
            epochs[name] = partial(iter, loader)
            continue
        for kind in ("processes", "threads"):
            loader = host_loader(source, batches, WORKERS, 0, cpu, worker_kind=kind)  # type: ignore[arg-type]
            change = Normalise(MEAN, STD) if name.endswith("float") else None
            epochs[f"{name}, {kind}"] = partial(each, loader, change)
    return epochs


def each(loader: Iterable[Any], change: Callable[[Tensor], Tensor] | None) -> Iterable[Any]:
    for batch in loader:
        yield batch if change is None else change(batch.frames)


def consume(batches: Iterable[Any]) -> None:
    for _ in batches:
        pass


def take_turns(work: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median seconds of each; every turn begins with another one."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    names = list(work)
    for turn in range(-1, repeats):  # turn -1 warms up
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            work[name]()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def differences(pictures: Pictures) -> dict[str, int]:
    """The largest difference of pixels, in grey levels, over all pictures: decoders alone, and a
    whole batch against PIL's decoder and the same resize."""
    paths = pictures.paths[:500]
    dataset = FrameDataset(
        [Sample((path,), 0) for path in paths],
        [0] * len(paths),
        size=pictures.size,
        frames=FrameSampling("every"),
    )
    ours = dataset.batch(range(len(paths))).frames[:, 0].permute(0, 2, 3, 1).numpy()
    decoded = [with_pil(path) for path in paths]
    found = {
        "batch, to PIL and the same resize": largest(
            ours, (resize(image, pictures.size) for image in decoded)
        ),
        "decoder, to PIL": largest((read_rgb(path) for path in paths), decoded),
    }
    if simplejpeg:
        others = (simplejpeg.decode_jpeg(Path(path).read_bytes(), "RGB") for path in paths)
        found["decoder, simplejpeg to PIL"] = largest(others, decoded)
    return found


def largest(ones: Iterable[NDArray[np.uint8]], others: Iterable[NDArray[np.uint8]]) -> int:
    pairs = zip(ones, others, strict=True)
    return max(int(np.abs(one.astype(np.int16) - other).max()) for one, other in pairs)


def measure(pictures: Pictures, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Rates of one set of pictures, printed and as plain values."""
    count = len(pictures.paths)
    order = np.random.default_rng(0).permutation(count).tolist()
    batches = [order[first : first + args.batch] for first in range(0, count, args.batch)]
    mean = statistics.fmean(os.path.getsize(path) for path in pictures.paths)
    height, width = pictures.size
    print(
        f"\n{pictures.name}: {count} JPEGs of {mean / 1000:.1f} kB to {height}x{width}, batches of "
        f"{args.batch}, median of {args.repeats}"
    )
    made = datasets(pictures, folder)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    single = {
        name: partial(consume, map(make, batches) if False else _Again(make, batches))
        for name, make in in_one_process(pictures.paths, made).items()
    }
    one_core = take_turns(single, args.repeats)
    os.sched_setaffinity(0, cores)
    table("one core, no workers", one_core, count)
    result = {"pictures": pictures.name, "images": count, "bytes": mean, "size": pictures.size}
    result["one_core"] = {name: count / seconds for name, seconds in one_core.items()}
    if args.workers:
        epochs = with_workers(made, batches)
        work = {name: partial(_run, epoch) for name, epoch in epochs.items()}
        loaders = take_turns(work, args.repeats)
        table(f"{WORKERS} workers over {len(cores)} cores", loaders, count)
        result["workers"] = {name: count / seconds for name, seconds in loaders.items()}
    result["differences"] = differences(pictures)
    for name, levels in result["differences"].items():
        print(f"largest difference, {name}: {levels} grey levels")
    result["targets"] = verdicts(pictures.kind, one_core, result["differences"])
    return result
