"""Pictures of several sizes and kinds, and a store of them."""

import numpy as np
import pytest

from reidkit.data.dataset import FrameDataset
from reidkit.data.frames import FrameSampling
from reidkit.data.pictures.pack import pack_pictures
from reidkit.data.pictures.store import PictureStore
from reidkit.types import Sample
from tests.data.conftest import write_picture

SIZE = (24, 12)


@pytest.fixture
def tracklets(tmp_path):
    """Four samples of 1, 3, 2 and 1 pictures: JPEGs and PNGs, smaller and larger than SIZE."""
    folder, number, made = tmp_path / "pictures", 0, []
    for pid, length in enumerate((1, 3, 2, 1)):
        frames = []
        for _ in range(length):
            size = [(32, 16), (24, 12), (64, 48), (16, 8)][number % 4]
            kind = "jpg" if number % 3 else "png"
            frames.append(str(write_picture(folder / f"{number}.{kind}", number, size)))
            number += 1
        made.append(Sample(tuple(frames), pid))
    return made


@pytest.fixture
def paths(tracklets):
    """All files of the tracklets, in order."""
    return [path for sample in tracklets for path in sample.frames]


@pytest.fixture
def packed(tracklets, tmp_path):
    """The folder of their store."""
    pack_pictures(tracklets, tmp_path / "store", size=SIZE)
    return tmp_path / "store"


@pytest.fixture
def store(packed):
    return PictureStore.open(packed)


def as_read(paths, size=SIZE):
    """The pictures (N, H, W, 3) RGB as the dataset reads them, without augmentation."""
    samples = [Sample((path,), 0) for path in paths]
    dataset = FrameDataset(samples, [0] * len(paths), size=size, frames=FrameSampling("every"))
    return np.stack([dataset[i].frames[0].permute(1, 2, 0).numpy() for i in range(len(paths))])


def read(store, rows):
    """The rows of a store in a new array."""
    out = np.empty((len(rows), *store.size, 3), np.uint8)
    store.read_into(np.asarray(rows, np.int64), out)
    return out
