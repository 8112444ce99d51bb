"""The synthetic world as tracklets in the layout of MARS; the same bytes for the same seed.

A tracklet is one walk before one camera. A good third of its frames are bad, for a while each time:
somebody or something is in front, or the box is beside the person. Many frames say more than one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np

from reidkit.data.synthetic.arguments import check_ranges
from reidkit.data.synthetic.clothes import Image
from reidkit.data.synthetic.gait_stand_ins import empty_folder
from reidkit.data.synthetic.market import camera_of, seen_by, walker_of
from reidkit.data.synthetic.mars_layout import Track, frame_name, write_mars_info
from reidkit.data.synthetic.render import Box, Place, Seen, render, see

STEP = 0.12  # seconds from frame to frame
BEGIN = 0.18  # chance that a good frame is followed by a bad stretch of 2 to 4 frames
EXPOSURE = 0.04  # from frame to frame; from tracklet to tracklet it is the light that changes

Fault = Literal["", "occluded", "boxed", "covered"]
Kind = Literal["person", "background", "partial"]


@dataclass(frozen=True, slots=True)
class Defaults:
    """The world of tracklets that renders within a minute on one core."""

    train_identities: int = 100
    test_identities: int = 60
    cameras: int = 4
    tracklets: int = 2
    frames: int = 12
    size: tuple[int, int] = (64, 32)


DEFAULTS = Defaults()


class Walk(NamedTuple):
    """One tracklet to be rendered; `pid` as in its names, `walker` is who is seen."""

    pid: int
    camera: int  # from 1
    number: int  # of the tracklet among those of this pid and camera, from 1
    walker: int
    kind: Kind = "person"


class Plan(NamedTuple):
    """All tracklets of the world; `query` are places in `test`."""

    train: list[Walk]
    test: list[Walk]
    query: list[int]


def plan(
    *, train_identities: int, test_identities: int, cameras: int, tracklets: int, seed: int
) -> Plan:
    """Who is seen where. The first tracklet of each test identity and camera is a query."""
    rng = np.random.default_rng((seed, 11))
    total = train_identities + test_identities
    pids = rng.permutation(np.arange(1, total + 1))
    train, people = (
        [
            Walk(int(pid), camera, number, int(pid))
            for pid in sorted(side)
            for camera in seen_by(rng, cameras)
            for number in range(1, tracklets + 1)
        ]
        for side in (pids[:train_identities], pids[train_identities:])
    )
    junk = [
        Walk(-1, int(rng.integers(cameras)) + 1, number, int(rng.choice(pids)), "partial")
        for number in range(1, 1 + max(2, len(people) // 12))
    ]
    kinds: tuple[Kind, ...] = ("person", "person", "background", "partial")
    distractors = [
        Walk(0, int(rng.integers(cameras)) + 1, number, total + number, kinds[number % 4])
        for number in range(1, 1 + max(4, len(people) // 5))
    ]
    test = [*junk, *distractors, *people]
    query = [place for place, walk in enumerate(test) if walk.pid > 0 and walk.number == 1]
    return Plan(train, test, query)


def faults(frames: int, rng: np.random.Generator) -> list[Fault]:
    """What is wrong with each frame of a tracklet, "" for nothing: in stretches."""
    found: list[Fault] = []
    kinds: tuple[Fault, ...] = ("occluded", "boxed", "covered")
    while len(found) < frames:
        if rng.random() < BEGIN:
            found += [kinds[int(rng.integers(3))]] * int(rng.integers(2, 5))
        else:
            found.append("")
    return found[:frames]


def render_walk(
    walk: Walk, frames: int, *, seed: int, size: tuple[int, int]
) -> Iterator[tuple[Image, Fault]]:
    """The pictures (H, W, 3) RGB of a tracklet, each with what is wrong with it."""
    camera, walker = camera_of(walk.camera, seed), walker_of(walk.walker, seed)
    key = (seed, 80, walk.walker, walk.camera, walk.number, walk.pid + 1)
    rng = np.random.default_rng(key)
    heading = camera.path + float(rng.choice([0, np.pi])) + float(rng.normal(0, 0.25))
    distance = float(rng.uniform(camera.near + 0.8, camera.far - 0.8))
    side = float(rng.uniform(-0.14, 0.14)) * distance
    start = float(rng.uniform(0, walker.period))
    other = walker_of(100_000 + int(rng.integers(100)), seed)
    wrong = faults(frames, rng)
    for step, fault in enumerate(wrong):
        ahead = walker.speed * STEP * (step - frames / 2)
        ahead = float(np.clip(ahead, -1.6, 1.6))  # longer tracklets go on the spot at the ends
        place = Place(
            distance + ahead * np.cos(heading),
            side + ahead * np.sin(heading),
            heading,
            start + STEP * step,
        )
        person = see(walker, camera, place)
        beside = walk.kind == "partial" or fault == "boxed"
        box = boxed(person.box, beside, size, rng)
        people: list[Seen] = [] if walk.kind == "background" else [person]
        if people and fault == "covered":
            spot = Place(
                place.x - float(rng.uniform(0.4, 0.9)),
                place.y + float(rng.uniform(-0.22, 0.22)),
                heading + float(rng.normal(0, 0.3)),
                place.t,
            )
            people.append(see(other, camera, spot))
        image, _ = render(
            people, camera, box, rng, size, occluded=fault == "occluded", exposure=EXPOSURE
        )
        yield image, fault


def boxed(box: Box, beside: bool, size: tuple[int, int], rng: np.random.Generator) -> Box:
    """A detector's box for the tight one, or one that is `beside` the person."""
    height = box.height * float(rng.uniform(0.98, 1.16))
    width = height * size[1] / size[0] * float(rng.uniform(0.90, 1.10))
    x = box.left + box.width / 2 + float(rng.normal(0, 0.05)) * width
    y = box.top + box.height / 2 + float(rng.normal(0, 0.025)) * height
    if beside:
        x += float(rng.choice([-1, 1]) * rng.uniform(0.3, 0.55)) * width
        y += float(rng.uniform(-0.3, 0.35)) * height
        scale = float(rng.choice([0.45, 0.6, 1.7]))
        width, height = width * scale, height * scale
    return Box(x - width / 2, y - height / 2, width, height)


def write_mars(
    out: Path,
    *,
    train_identities: int = DEFAULTS.train_identities,
    test_identities: int = DEFAULTS.test_identities,
    cameras: int = DEFAULTS.cameras,
    tracklets: int = DEFAULTS.tracklets,
    frames: int = DEFAULTS.frames,
    seed: int = 0,
    size: tuple[int, int] = DEFAULTS.size,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Render the world into `out`, a new or empty folder: `bbox_train`, `bbox_test` and `info`.

    `tracklets` are per identity and camera, each of `frames`; test identities have one of them as
    query. Junk and distractors come with it. `progress(done, total)` counts tracklets. Raises
    ValueError for impossible numbers and for a folder that holds something.
    """
    check_ranges(
        "synthetic_mars",
        ("train_identities", train_identities, 1, 5000),
        ("test_identities", test_identities, 1, 4000),
        ("cameras", cameras, 2, 6),
        ("tracklets", tracklets, 2, 99),
        ("frames", frames, 1, 999),
        ("seed", seed, 0, 2**31),
        ("height", size[0], 16, 512),
        ("width", size[1], 8, 512),
    )
    out = empty_folder(out)
    world = plan(
        train_identities=train_identities,
        test_identities=test_identities,
        cameras=cameras,
        tracklets=tracklets,
        seed=seed,
    )
    sides: dict[str, list[Track]] = {"bbox_train": [], "bbox_test": []}
    done, total = 0, len(world.train) + len(world.test)
    for (folder, tracks), walks in zip(sides.items(), (world.train, world.test), strict=True):
        for walk in walks:
            tracks.append(write_tracklet(out / folder, walk, frames, seed, size))
            done += 1
            if progress is not None:
                progress(done, total)
    write_mars_info(out, sides["bbox_train"], sides["bbox_test"], world.query)


def write_tracklet(
    folder: Path, walk: Walk, frames: int, seed: int, size: tuple[int, int]
) -> Track:
    """Render one tracklet into `folder`/0001, as the tables of MARS have it."""
    camid = walk.camera - 1
    quality = [cv2.IMWRITE_JPEG_QUALITY, camera_of(walk.camera, seed).quality]
    names = []
    for number, (image, _) in enumerate(render_walk(walk, frames, seed=seed, size=size), start=1):
        name = frame_name(walk.pid, camid, walk.number, number)
        (folder / name[:4]).mkdir(parents=True, exist_ok=True)
        data = cv2.imencode(".jpg", image[:, :, ::-1], quality)[1]
        (folder / name[:4] / name).write_bytes(data.tobytes())
        names.append(name)
    return Track(walk.pid, camid, tuple(names))
