"""The chosen frames of a sample as one array, whether they are pictures or packed silhouettes."""

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from reidkit.data.frames import read_image, resize_into
from reidkit.data.silhouettes.layout import FRAMES, HEADER
from reidkit.data.silhouettes.store import SilhouetteStore
from reidkit.types import Sample, StoredFrames

Clip = NDArray[np.uint8]


class Wanted(NamedTuple):
    """A sample and the positions of its frames that are to be read."""

    sample: Sample
    chosen: Sequence[int]


def read_clips(
    wanted: Sequence[Wanted], size: tuple[int, int], channels: int = 3
) -> Iterator[Clip]:
    """A clip for each, as `read_clip` gives it; packed sequences of one store are read at once."""
    packed = [one.sample.frames for one in wanted if isinstance(one.sample.frames, StoredFrames)]
    stores = {frames.store for frames in packed}
    if channels != 1 or len(stores) != 1 or len(packed) != len(wanted):
        for sample, chosen in wanted:
            yield read_clip(sample, chosen, size, channels)
        return
    places = [
        np.asarray(one.chosen, np.int64) + frames.start
        for one, frames in zip(wanted, packed, strict=True)
    ]
    pieces = open_store(stores.pop()).read_each(places)
    for (sample, _), frames in zip(wanted, pieces, strict=True):
        yield fit(frames, size, sample)[..., None]


def fill_clips(wanted: Sequence[Wanted], places: Sequence[Clip]) -> Iterator[Clip]:
    """The same, written into contiguous places (T, H, W, channels) of the size wanted: each comes
    as soon as it is filled."""
    channels = places[0].shape[3]
    if channels == 1:
        clips = read_clips(wanted, places[0].shape[1:3], channels)
        for place, clip in zip(places, clips, strict=True):
            place[...] = clip
            yield place
        return
    for (sample, chosen), place in zip(wanted, places, strict=True):
        read_pictures(sample, chosen, place)
        yield place


def read_clip(
    sample: Sample, chosen: Sequence[int], size: tuple[int, int], channels: int = 3
) -> Clip:
    """The frames at these positions, (T, H, W, channels) uint8; three channels are RGB.

    Raises ValueError for an unreadable file, for silhouettes where pictures are asked for, and for
    silhouettes that are not aligned.
    """
    if channels == 1:
        return read_silhouettes(sample, chosen, size)[..., None]
    clip = np.empty((len(chosen), *size, channels), np.uint8)
    read_pictures(sample, chosen, clip)
    return clip


def read_pictures(sample: Sample, chosen: Sequence[int], place: Clip) -> None:
    """The pictures at these positions, in the size of their place (T, H, W, 3): RGB."""
    if isinstance(sample.frames, StoredFrames):
        raise ValueError(
            f"{sample.name} is a silhouette, but the model takes RGB pictures: give it those, or a "
            "gait model (data.pixels: silhouettes) to silhouettes"
        )
    for position, frame in zip(chosen, place, strict=True):
        resize_into(read_image(sample.frames[position]), frame)


def read_silhouettes(sample: Sample, chosen: Sequence[int], size: tuple[int, int]) -> Clip:
    """Aligned silhouettes (T, H, W) of a packed store, or of a file for each frame."""
    if isinstance(sample.frames, StoredFrames):
        positions = sample.frames.start + np.asarray(chosen, np.int64)
        return fit(open_store(sample.frames.store).read(positions), size, sample)
    frames = [read_image(sample.frames[place], channels=1) for place in chosen]
    return np.stack([fit(frame[None], size, sample)[0] for frame in frames])


def fit(clip: Clip, size: tuple[int, int], sample: Sample) -> Clip:
    """Square aligned silhouettes (T, S, S) at `size` (H, W): scaled to the height, then columns cut
    off on both sides, ten of 64 for a width of 44.

    Chao et al., GaitSet, AAAI 2019: the body is centred, so the outer columns are empty.
    """
    _, rows, columns = clip.shape
    height, width = size
    if rows != columns:
        raise ValueError(
            f"{sample.name} is {rows} x {columns}, expected a square aligned silhouette: "
            "`reidkit data pack SRC OUT` aligns them, then load OUT"
        )
    if width > height:
        raise ValueError(f"size {size}: a silhouette's width is at most its height")
    if rows != height:
        method = cv2.INTER_AREA if rows > height else cv2.INTER_LINEAR
        clip = np.stack([cv2.resize(frame, (height, height), None, 0, 0, method) for frame in clip])
    left = (height - width) // 2
    return clip[:, :, left : left + width]


def energy_image(sample: Sample, size: tuple[int, int] = (64, 44)) -> NDArray[np.float32]:
    """The mean silhouette (H, W) of one sequence, in [0, 1]: its gait energy image."""
    clip = read_silhouettes(sample, range(len(sample.frames)), size)
    return clip.mean(axis=0, dtype=np.float32) / np.float32(255)


def show(sample: Sample) -> Clip | None:
    """What to show of a packed sequence, (H, W, 3): its gait energy image; None for files, which
    can be shown as they are."""
    if not isinstance(sample.frames, StoredFrames):
        return None
    grey = np.rint(energy_image(sample) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def is_store(folder: Path) -> bool:
    """Whether this folder holds packed silhouettes."""
    return (folder / HEADER).is_file()


def open_store(folder: str) -> SilhouetteStore:
    """The frames of the store, opened once in each process, and again where it was packed anew."""
    try:
        facts = os.stat(os.path.join(folder, FRAMES))
    except OSError:
        return SilhouetteStore.open(folder, sequences=False)  # which says what is missing
    return _opened(folder, facts.st_mtime_ns, facts.st_ino)


@lru_cache(maxsize=64)
def _opened(folder: str, changed: int, number: int) -> SilhouetteStore:
    return SilhouetteStore.open(folder, sequences=False)
