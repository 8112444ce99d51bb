"""Small trees of real picture files."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from reidkit.types import Sample


def write_picture(path: Path, seed: int = 0, size: tuple[int, int] = (32, 16)) -> Path:
    """A picture of noise, in blocks of four pixels so that JPEG keeps it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(
        0, 256, (size[0] // 4, size[1] // 4, 3), dtype=np.uint8
    )
    image = noise.repeat(4, 0).repeat(4, 1)
    assert cv2.imwrite(str(path), image)
    return path


@pytest.fixture
def picture(tmp_path):
    """Write a picture under `tmp_path`: picture("a.jpg", seed=3) -> its path."""
    return lambda name, seed=0, size=(32, 16): write_picture(tmp_path / name, seed, size)


@pytest.fixture
def market(tmp_path):
    """A Market-1501 layout: 3 train, 2 test identities, distractor, junk, Thumbs.db, odd suffix."""
    root = tmp_path / "Market-1501-v15.09.15"
    names = {
        "bounding_box_train": [
            "0002_c1s1_000451_03.jpg",
            "0002_c2s1_000301_01.jpg",
            "0007_c3s3_077419_03.jpg.jpg",
            "0007_c6s1_000001_01.jpg",
            "0010_c1s1_000001_01.jpg",
            "0010_c5s1_000001_02.jpg",
        ],
        "query": ["0001_c1s1_001051_00.jpg", "0003_c4s1_000001_00.jpg"],
        "bounding_box_test": [
            "-1_c1s1_000401_03.jpg",
            "0000_c2s1_000501_01.jpg",
            "0001_c1s1_001051_01.jpg",
            "0001_c2s1_001051_02.jpg",
            "0003_c1s1_000001_01.jpg",
        ],
    }
    for folder, files in names.items():
        for number, name in enumerate(files):
            write_picture(root / folder / name, number)
        (root / folder / "Thumbs.db").write_bytes(b"not a picture")
    return root


@pytest.fixture
def samples(tmp_path):
    """12 images of 4 identities in 2 cameras, in two domains."""
    return [
        Sample(
            (str(write_picture(tmp_path / f"{number:02d}.png", number)),),
            pid=number // 3,
            camid=number % 2,
            domain="a" if number < 6 else "b",
        )
        for number in range(12)
    ]
