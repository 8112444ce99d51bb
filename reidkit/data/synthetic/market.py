"""The synthetic world in the layout of Market-1501, byte for byte the same for the same seed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from reidkit.data.synthetic.arguments import check_ranges
from reidkit.data.synthetic.camera import Camera
from reidkit.data.synthetic.render import Box, Place, render, see
from reidkit.data.synthetic.walker import Walker

TRAIN, TEST, QUERY = "bounding_box_train", "bounding_box_test", "query"
OCCLUDED = 0.12  # share of pictures with an obstacle before the person
ACCOMPANIED = 0.15  # share of pictures with somebody else in the box
PASS = 3  # pictures of one passing by; the next has another direction

_README = """Synthetic people in the layout of Market-1501, made by reidkit.

bounding_box_train  training images
bounding_box_test   gallery: pid 0000 is a distractor, pid -1 is junk
query               one image for each test identity and camera

Names are PID_cCsS_FFFFFF_BB.jpg: identity, camera, sequence, frame, box.
"""

Kind = Literal["person", "background", "partial"]


@dataclass(frozen=True, slots=True)
class Defaults:
    """The world that trains from scratch within minutes on two cores."""

    train_identities: int = 200
    test_identities: int = 100
    cameras: int = 5
    images: int = 4
    size: tuple[int, int] = (128, 64)


DEFAULTS = Defaults()


@dataclass(frozen=True, slots=True)
class Shot:
    """One file to be made: who is in it, which camera makes it, and what seeds its chances."""

    folder: str
    name: str
    walker: int
    camera: int
    passing: int
    step: int
    kind: Kind = "person"


def plan(
    *, train_identities: int, test_identities: int, cameras: int, images: int, seed: int
) -> list[Shot]:
    """Every file of the world, in the order in which it is written."""
    rng = np.random.default_rng((seed, 10))
    total = train_identities + test_identities
    pids = rng.permutation(np.arange(1, total + 1))
    train = sorted(int(pid) for pid in pids[:train_identities])
    test = sorted(int(pid) for pid in pids[train_identities:])
    shots: list[Shot] = []
    for pid in train:
        for camera in seen_by(rng, cameras):
            shots += _visits(pid, camera, images, [TRAIN] * images)
    for pid in test:
        for camera in seen_by(rng, cameras):
            shots += _visits(pid, camera, images, [QUERY] + [TEST] * (images - 1))
    gallery = sum(shot.folder == TEST for shot in shots)
    for number in range(max(2, round(0.2 * gallery))):
        camera = int(rng.integers(1, cameras + 1))
        kind: Kind = ("person", "person", "background", "partial")[number % 4]
        name = f"0000_c{camera}s1_{number + 1:06d}_01.jpg"
        shots.append(Shot(TEST, name, total + 1 + number // 2, camera, number, 0, kind))
    for number in range(max(2, round(0.1 * gallery))):
        camera = int(rng.integers(1, cameras + 1))
        name = f"-1_c{camera}s1_{number + 1:06d}_02.jpg"
        pid = int(rng.choice(test))
        shots.append(Shot(TEST, name, pid, camera, 1000 + number, 0, "partial"))
    return shots


def seen_by(rng: np.random.Generator, cameras: int) -> list[int]:
    """At least two of the cameras, most of them usually."""
    count = int(rng.integers(max(2, cameras - 2), cameras + 1))
    return sorted(int(camera) + 1 for camera in rng.choice(cameras, count, replace=False))


def _visits(pid: int, camera: int, images: int, folders: list[str]) -> Iterator[Shot]:
    for image in range(images):
        passing, step = divmod(image, PASS)
        frame = 1 + (pid * 977 + passing * 4231) % 90000 + 9 * step
        name = f"{pid:04d}_c{camera}s{passing % 6 + 1}_{frame:06d}_01.jpg"
        yield Shot(folders[image], name, pid, camera, passing, step)


@lru_cache(maxsize=64)
def camera_of(number: int, seed: int) -> Camera:
    """Camera `number` of the world `seed`."""
    return Camera.sample(number, seed, 20)


@lru_cache(maxsize=512)
def walker_of(number: int, seed: int) -> Walker:
    """The walker `number` of the world `seed`."""
    return Walker.sample(seed, 30, number)


def picture(shot: Shot, *, seed: int, size: tuple[int, int]) -> np.ndarray:
    """The pixels of a shot, (H, W, 3) RGB uint8: a function of shot, seed and size alone."""
    camera, walker = camera_of(shot.camera, seed), walker_of(shot.walker, seed)
    passing = np.random.default_rng((seed, 40, shot.walker, shot.camera, shot.passing))
    rng = np.random.default_rng((seed, 50, shot.walker, shot.camera, shot.passing, shot.step))
    back = np.pi if passing.random() < 0.5 else 0.0
    heading = camera.path + back + float(passing.normal(0, 0.25))
    distance = float(passing.uniform(camera.near + 0.8, camera.far - 0.8))
    side = float(passing.uniform(-0.14, 0.14)) * distance
    t = float(passing.uniform(0, walker.period)) + 0.36 * shot.step
    ahead = walker.speed * 0.36 * (shot.step - 1)
    place = Place(distance + ahead * np.cos(heading), side + ahead * np.sin(heading), heading, t)
    person = see(walker, camera, place)
    box = person.box
    height = box.height * float(rng.uniform(0.98, 1.16))
    width = height * size[1] / size[0] * float(rng.uniform(0.90, 1.10))
    x = box.left + box.width / 2 + float(rng.normal(0, 0.05)) * width
    y = box.top + box.height / 2 + float(rng.normal(0, 0.025)) * height
    if shot.kind == "partial":
        scale = float(rng.choice([0.4, 0.5, 1.9]))
        x += float(rng.choice([-1, 1]) * rng.uniform(0.35, 0.6)) * width
        y += float(rng.uniform(-0.3, 0.4)) * height
        width, height = width * scale, height * scale
    box = Box(x - width / 2, y - height / 2, width, height)
    people = [person]
    if rng.random() < ACCOMPANIED:
        other = walker_of(100_000 + int(rng.integers(100)), seed)
        aside, behind = (
            float(rng.choice([-1, 1]) * rng.uniform(0.35, 0.8)),
            float(rng.uniform(-0.3, 1.5)),
        )
        spot = Place(place.x + behind, place.y + aside, heading + float(rng.normal(0, 0.5)), t)
        people.append(see(other, camera, spot))
    if shot.kind == "background":
        people = []
    occluded = bool(rng.random() < OCCLUDED)
    image, _ = render(people, camera, box, rng, size, occluded=occluded)
    return image


def write_market(
    out: Path,
    *,
    train_identities: int = DEFAULTS.train_identities,
    test_identities: int = DEFAULTS.test_identities,
    cameras: int = DEFAULTS.cameras,
    images: int = DEFAULTS.images,
    seed: int = 0,
    size: tuple[int, int] = DEFAULTS.size,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Render the world into `out`, a new or empty folder.

    `images` is per identity and camera; for test identities one of them goes to the query.
    `progress(done, total)` is called after each file. Raises ValueError for impossible numbers and
    for a folder that holds something.
    """
    check_ranges(
        "synthetic",
        ("train_identities", train_identities, 1, 5000),
        ("test_identities", test_identities, 1, 4000),
        ("cameras", cameras, 2, 9),
        ("images", images, 2, 100),
        ("seed", seed, 0, 2**31),
        ("height", size[0], 16, 512),
        ("width", size[1], 8, 512),
    )
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not an empty folder; name a new one or remove what is in it")
    shots = plan(
        train_identities=train_identities,
        test_identities=test_identities,
        cameras=cameras,
        images=images,
        seed=seed,
    )
    for folder in (TRAIN, TEST, QUERY):
        (out / folder).mkdir(parents=True, exist_ok=True)
        # The real set carries these; whoever reads the layout must step over them.
        (out / folder / "Thumbs.db").write_bytes(b"")
    (out / "readme.txt").write_text(_README)
    for done, shot in enumerate(shots, start=1):
        image = picture(shot, seed=seed, size=size)
        quality = [cv2.IMWRITE_JPEG_QUALITY, camera_of(shot.camera, seed).quality]
        _, data = cv2.imencode(".jpg", image[:, :, ::-1], quality)
        (out / shot.folder / shot.name).write_bytes(data.tobytes())
        if progress is not None:
            progress(done, len(shots))
