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
epoch. reidkit decodes by simplejpeg where that is installed, else by OpenCV.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import cv2
import numpy as np
import PIL
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import transforms as v1
from torchvision.transforms import v2

from reidkit.data import decoding
from reidkit.data.clips import Wanted
from reidkit.data.dataset import FrameDataset
from reidkit.data.frames import FrameSampling, read_image, resize, resize_into
from reidkit.data.loader import WorkerKind, host_loader
from reidkit.data.pictures.pack import pack_pictures
from reidkit.data.pictures.store import PictureStore
from reidkit.data.samplers import EpochSampler
from reidkit.data.transforms import Augment, Normalise
from reidkit.types import Batch, Sample

USUAL, SECOND = "PIL + torchvision v1", "PIL + torchvision v2"
JPEG, JPEG_FLOAT = "reidkit, JPEG, uint8", "reidkit, JPEG, float"
STORE, STORE_FLOAT = "reidkit, store, uint8", "reidkit, store, float"
OPENCV = "reidkit, JPEG by OpenCV, uint8"  # where simplejpeg is installed and reidkit takes that
BATCH = "a batch without augmentation to PIL's decoder and the same resize"
SUFFIXES = (".jpg", ".jpeg", ".JPG")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALISE = Normalise(MEAN, STD)
PAD, WORKERS = 10, 2
FLOAT = (JPEG_FLOAT, STORE_FLOAT)

Decode = Callable[[str], NDArray[np.uint8]]
Epoch = Callable[[], Iterable[Any]]  # goes over all pictures


class Kind(NamedTuple):
    """A kind of made-up pictures: (width, height) on disk, (H, W) of a batch, how many of
    --images, and how many times as fast as the usual pipeline each line has to be."""

    on_disk: tuple[int, int]
    size: tuple[int, int]
    share: float
    targets: dict[str, float]


SETS = {
    "market": Kind((64, 128), (256, 128), 1, {JPEG: 5.0, JPEG_FLOAT: 3.5, STORE: 12.0}),
    "shop": Kind((500, 400), (224, 224), 0.25, {JPEG: 2.5}),
}


class Pictures(NamedTuple):
    """What is read: files, the size (H, W) that a batch has, and what has to be reached."""

    name: str
    paths: list[str]
    size: tuple[int, int]
    targets: dict[str, float]


class Fixed(EpochSampler):
    """The same batches in every epoch."""

    def __init__(self, batches: list[list[int]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


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


class ByOpencv(FrameDataset):
    """reidkit's dataset without the faster decoder."""

    def fill(
        self, wanted: Sequence[Wanted], places: Sequence[NDArray[np.uint8]]
    ) -> Iterator[NDArray[np.uint8]]:
        """Fill a place (T, H, W, C) for each."""
        for (sample, chosen), place in zip(wanted, places, strict=True):
            for position, frame in zip(chosen, place, strict=True):
                resize_into(with_opencv(sample.frames[position]), frame)
            yield place


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


def with_opencv(path: str) -> NDArray[np.uint8]:
    with open(path, "rb", buffering=0) as file:
        data = np.frombuffer(file.read(), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)


def with_pil(path: str) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def decoders() -> dict[str, Decode]:
    """Each reads and decodes one file, (H, W, 3) RGB; simplejpeg as reidkit calls it."""
    found: dict[str, Decode] = {"PIL": with_pil, "OpenCV": with_opencv}
    if decoding.FASTER:
        found["simplejpeg"] = read_image
    return found


def datasets(pictures: Pictures, folder: Path) -> dict[str, FrameDataset | Files]:
    """Everything that makes whole batches, by the name of its line."""
    paths, size = pictures.paths, pictures.size
    samples, labels = [Sample((path,), 0) for path in paths], [0] * len(paths)
    options: dict[str, Any] = {
        "size": size,
        "frames": FrameSampling("every"),
        "augment": Augment(flip=0.5, pad=PAD, erasing=0.5),
    }
    pack_pictures(samples, folder, size=size)
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
    if decoding.FASTER:
        made[OPENCV] = ByOpencv(samples, labels, **options)
    return made


def alone(
    paths: list[str], made: dict[str, FrameDataset | Files], batches: list[list[int]]
) -> dict[str, Epoch]:
    """An epoch of each without workers, and of decoding alone, the limit of all."""
    epochs: dict[str, Epoch] = {}
    for name, source in made.items():
        change = floats if name in FLOAT else unchanged
        epochs[name] = partial(over, partial(map, source.batch, batches), change)
    for name, decode in decoders().items():
        epochs[f"decoding alone, {name}"] = partial(map, decode, paths)
    return epochs


def with_workers(
    made: dict[str, FrameDataset | Files], batches: list[list[int]]
) -> dict[str, Epoch]:
    """An epoch of each with workers; reidkit normalises where its DeviceLoader does, in the
    consumer."""
    epochs: dict[str, Epoch] = {}
    for name, source in made.items():
        change = floats if name in FLOAT else unchanged
        if isinstance(source, Files):
            loader: Any = DataLoader(
                source, batch_sampler=batches, num_workers=WORKERS, persistent_workers=True
            )
            epochs[name] = partial(iter, loader)
            continue
        for kind in get_args(WorkerKind):
            cpu = torch.device("cpu")
            loader = host_loader(source, Fixed(batches), WORKERS, 0, cpu, worker_kind=kind)
            epochs[f"{name}, {kind}"] = partial(over, partial(iter, loader), change)
    return epochs


def over(batches: Epoch, change: Callable[[Any], Any]) -> Iterable[Any]:
    return map(change, batches())


def floats(batch: Batch) -> Tensor:
    return NORMALISE(batch.frames)


def unchanged(batch: Any) -> Any:
    return batch


def take_turns(epochs: dict[str, Epoch], repeats: int) -> dict[str, float]:
    """Median seconds of an epoch of each; every turn begins with another one."""
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    names = list(epochs)
    for turn in range(-1, repeats):  # the first warms up
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            for _ in epochs[name]():
                pass
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def differences(pictures: Pictures) -> dict[str, int]:
    """The largest difference of pixels, in grey levels, over at most 500 pictures: decoders alone,
    and whole batches against PIL's decoder and the same resize."""
    paths = pictures.paths[:500]
    samples, labels = [Sample((path,), 0) for path in paths], [0] * len(paths)
    plain = FrameDataset(samples, labels, size=pictures.size, frames=FrameSampling("every"))
    ours = plain.batch(range(len(paths))).frames[:, 0].permute(0, 2, 3, 1).numpy()
    decoded = [with_pil(path) for path in paths]
    found = {BATCH: largest(ours, (resize(image, pictures.size) for image in decoded))}
    for name, decode in list(decoders().items())[1:]:
        found[f"decoding alone, {name} to PIL"] = largest(map(decode, paths), decoded)
    return found


def largest(ones: Iterable[NDArray[np.uint8]], others: Iterable[NDArray[np.uint8]]) -> int:
    pairs = zip(ones, others, strict=True)
    return max(int(np.abs(one.astype(np.int16) - other).max()) for one, other in pairs)


def measure(pictures: Pictures, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one set of pictures and print it; the same as plain values."""
    count, (height, width) = len(pictures.paths), pictures.size
    order = np.random.default_rng(0).permutation(count).tolist()
    batches = [order[first : first + args.batch] for first in range(0, count, args.batch)]
    mean = statistics.fmean(os.path.getsize(path) for path in pictures.paths)
    print(
        f"\n{pictures.name}: {count:,} JPEGs of {mean / 1000:.1f} kB to {height}x{width}, batches "
        f"of {args.batch}, medians of {args.repeats}"
    )
    made = datasets(pictures, folder)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    one_core = take_turns(alone(pictures.paths, made, batches), args.repeats)
    os.sched_setaffinity(0, cores)
    table("one core, no workers", one_core, count)
    result: dict[str, Any] = {
        "pictures": pictures.name,
        "images": count,
        "bytes": mean,
        "size": [height, width],
    }
    result["one_core"] = {name: count / seconds for name, seconds in one_core.items()}
    if not args.no_workers:
        loaders = take_turns(with_workers(made, batches), args.repeats)
        table(f"{WORKERS} workers, {len(cores)} cores", loaders, count)
        result["workers"] = {name: count / seconds for name, seconds in loaders.items()}
    result["differences"] = differences(pictures)
    for name, levels in result["differences"].items():
        print(f"largest difference, {name}: {levels} grey levels")
    ratios = {name: one_core[USUAL] / seconds for name, seconds in one_core.items()}
    result["targets"] = verdicts(pictures.targets, ratios, result["differences"][BATCH])
    return result


def table(title: str, seconds: dict[str, float], count: int) -> None:
    """One line a pipeline: images a second, and how many times as many as the usual one."""
    print(f"{title:42}{'images/s':>10}{'to usual':>10}")
    for name, found in seconds.items():
        print(f"{name:42}{count / found:>10,.0f}{seconds[USUAL] / found:>9.1f}x")


def verdicts(targets: dict[str, float], ratios: dict[str, float], levels: int) -> dict[str, bool]:
    """Print which targets are reached."""
    found = {}
    for name, target in targets.items():
        found[name] = ratios[name] >= target
        word = "pass" if found[name] else "FAIL"
        print(f"{word}: {name}: {ratios[name]:.1f}x the usual, expected at least {target:g}x")
    found["pixels"] = levels <= 1
    print(f"{'pass' if levels <= 1 else 'FAIL'}: {BATCH}: {levels} grey levels, expected at most 1")
    return found


def size_of(text: str) -> tuple[int, int]:
    """Two numbers with an x between them."""
    first, _, second = text.partition("x")
    if not (first.isdigit() and second.isdigit() and int(first) and int(second)):
        raise argparse.ArgumentTypeError(f"{text!r}, expected two numbers such as 256x128")
    return int(first), int(second)


def chosen(args: argparse.Namespace, folder: Path) -> Iterator[Pictures]:
    """The sets of pictures that the command line asks for; made-up ones are written to `folder`."""
    names = list(SETS) if args.pictures == "both" else [args.pictures]
    if args.folder:
        kind = SETS[names[0]]
        paths = sorted(str(path) for path in args.folder.iterdir() if path.suffix in SUFFIXES)
        if not paths:
            raise SystemExit(f"no JPEGs in {args.folder}, expected {' or '.join(SUFFIXES)} files")
        spread = paths[:: max(1, len(paths) // args.images)][: args.images]
        yield Pictures(args.folder.name, spread, args.size or kind.size, kind.targets)
        return
    if args.size_on_disk:
        names = ["shop"]
    for name in names:
        kind = SETS[name]
        width, height = args.size_on_disk or kind.on_disk
        paths = write_pictures(folder / name, int(args.images * kind.share), height, width)
        title = f"made-up pictures of {width}x{height}"
        yield Pictures(title, paths, args.size or kind.size, kind.targets)


def versions() -> str:
    """What is compared, in one line."""
    found = {"torch": torch, "torchvision": torchvision, "OpenCV": cv2, "Pillow": PIL}
    return ", ".join(f"{name} {module.__version__}" for name, module in found.items())


def main() -> None:
    """Measure each set of pictures in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pictures",
        choices=[*SETS, "both"],
        default="both",
        help="the size of a person's box, or of a shop's photograph (a quarter as many); with "
        "--folder whose targets count, a person's unless shop is said",
    )
    parser.add_argument("--folder", type=Path, help="real JPEGs instead of made-up ones")
    parser.add_argument(
        "--size-on-disk", type=size_of, help="WIDTHxHEIGHT of made-up photographs of a shop"
    )
    parser.add_argument("--size", type=size_of, help="HEIGHTxWIDTH of a batch")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-workers", action="store_true", help="leave out the second part")
    parser.add_argument("--json", type=Path, help="write the numbers to this file, too")
    args = parser.parse_args()
    # As in the worker of a loader, and so that one core is one core.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    decoder = "simplejpeg" if decoding.FASTER else "OpenCV"
    print(f"reidkit decodes by {decoder}; {versions()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = [
            measure(pictures, folder / f"store-{number}", args)
            for number, pictures in enumerate(chosen(args, folder))
        ]
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
