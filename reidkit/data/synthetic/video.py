"""A colour video of subjects of the synthetic CASIA-B who cross before a fixed camera.

They walk as in view 090 of that world, so that its gallery can name them.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np

from reidkit.data.synthetic import gait_room
from reidkit.data.synthetic.camera import Camera
from reidkit.data.synthetic.clothes import Image
from reidkit.data.synthetic.render import Box, Place, Seen, render, see
from reidkit.data.synthetic.walker import Walker
from reidkit.files import write_atomically

EMPTY = 1.0  # seconds of the empty scene at the beginning, and between two who walk alone
BEYOND = 0.7  # metres outside the picture at which a walk begins and ends
APART = 1.8  # metres between people who are in the picture together


@dataclass(frozen=True, slots=True)
class Crossing:
    """Who walks when: seconds from outside the picture to outside it again.

    `boxes` are the tight ones (left, top, right, bottom) in the frames in which something is seen.
    """

    pid: int
    start: float
    end: float
    heading: float
    boxes: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)


def write_video(
    out: Path,
    *,
    pids: Sequence[int],
    seed: int = 0,
    seconds: float | None = None,
    fps: float = 25.0,
    size: tuple[int, int] = (240, 320),
    together: bool = False,
    both_ways: bool = False,
) -> None:
    """Write the video `out` (.mp4) of the subjects `pids`, and the truth beside it as `.json`.

    The first second shows the empty scene. Then the subjects cross one after the other in their
    order, or `together` with short gaps, the fastest in front. All go to the left, as in view 090;
    with `both_ways` every second one to the right. The truth says for each who it was, when
    (seconds and frames) and where (boxes). The same arguments give the same pictures.

    Args:
        out: a name that ends in .mp4; what was there is replaced.
        pids: subjects of `write_casia_b` with the same seed.
        seed: of the world.
        seconds: length of the video; None is as long as they need.
        fps: frames a second.
        size: height and width in pixels.
        together: several people may be in the picture at once.
        both_ways: only for those who walk alone.

    Raises ValueError for impossible arguments or too few seconds, OSError where no video can be
    written.
    """
    out = Path(out)
    _check(out, pids, fps, size, together and both_ways)
    camera = _camera(seed, size)
    walkers = {pid: _walker(pid, seed) for pid in pids}
    crossings = schedule(pids, walkers, camera, together, both_ways)
    needed = max(crossing.end for crossing in crossings) + EMPTY / 2
    if seconds is not None and seconds < needed:
        raise ValueError(
            f"seconds is {seconds:g}, but these {len(pids)} people need {needed:.1f}; give more or "
            "fewer people"
        )
    count = round((needed if seconds is None else seconds) * fps)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.stem}.tmp.mp4")
    try:
        writer = cv2.VideoWriter(
            str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), fps, (size[1], size[0])
        )
        if not writer.isOpened():
            raise OSError(f"no video can be written to {out}; does OpenCV have FFmpeg?")
        for image in film(crossings, walkers, camera, seed, count, fps):
            writer.write(np.ascontiguousarray(image[:, :, ::-1]))
        writer.release()
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    truth = {
        "fps": fps,
        "frames": count,
        "size": list(size),
        "seed": seed,
        "crossings": [_plain(crossing) for crossing in crossings],
    }
    write_atomically(out.with_suffix(".json"), json.dumps(truth, indent=1).encode())


def schedule(
    pids: Sequence[int],
    walkers: dict[int, Walker],
    camera: Camera,
    together: bool,
    both_ways: bool,
) -> list[Crossing]:
    """When each of them crosses."""
    path = 2 * _reach(camera)
    order = sorted(pids, key=lambda pid: -walkers[pid].speed) if together else list(pids)
    crossings: list[Crossing] = []
    start = EMPTY
    for place, pid in enumerate(order):
        speed = walkers[pid].speed
        heading = -np.pi / 2 if both_ways and place % 2 else np.pi / 2
        crossings.append(Crossing(pid, start, start + path / speed, heading))
        start = start + APART / speed if together else start + path / speed + EMPTY
    return crossings


def film(
    crossings: list[Crossing],
    walkers: dict[int, Walker],
    camera: Camera,
    seed: int,
    count: int,
    fps: float,
) -> Iterator[Image]:
    """The pictures (H, W, 3) RGB; the boxes of the crossings are filled on the way."""
    whole = Box(0, 0, camera.width, camera.rows)
    rng = np.random.default_rng((seed, 72))
    size = (camera.rows, camera.width)
    for number in range(count):
        now = number / fps
        people: list[Seen] = []
        for crossing in crossings:
            if crossing.start <= now < crossing.end:
                walker = walkers[crossing.pid]
                gone = walker.speed * (now - crossing.start) - _reach(camera)
                y = gone * float(np.sin(crossing.heading))
                place = Place(gait_room.DISTANCE, y, crossing.heading, now)
                people.append(see(walker, camera, place))
                if (box := _inside(people[-1].box, size)) is not None:
                    crossing.boxes[number] = box
        yield render(people, camera, whole, rng, size, exposure=0.004)[0]


def _walker(pid: int, seed: int) -> Walker:
    rng = np.random.default_rng((seed, 71, pid))
    return gait_room.on_a_walk(gait_room.subject(pid, seed), "nm", rng)


def _camera(seed: int, size: tuple[int, int]) -> Camera:
    """The camera of view 090 in the room, with a scene behind the people and a sensor."""
    rng = np.random.default_rng((seed, 70))
    return Camera(
        0,
        (seed, 70, 1),
        height=1.5,
        pitch=float(np.arctan2(1.5 - 0.88, gait_room.DISTANCE)),
        focal=gait_room.FOCAL * size[0] / gait_room.SIZE[0],
        far=gait_room.DISTANCE + 1,
        sun=float(rng.uniform(-np.pi, np.pi)),
        sun_height=float(rng.uniform(0.9, 1.2)),
        ambient=0.8,
        noise=2.0,
        width=size[1],
        rows=size[0],
    )


def _reach(camera: Camera) -> float:
    """Metres from the middle at which a walk begins and ends."""
    return camera.width / 2 / camera.focal * gait_room.DISTANCE + BEYOND


def _inside(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """The part of a box inside the picture, in whole pixels; None where there is none."""
    left, top = max(0, int(box.left)), max(0, int(box.top))
    right = min(size[1], int(np.ceil(box.left + box.width)))
    bottom = min(size[0], int(np.ceil(box.top + box.height)))
    return (left, top, right, bottom) if left < right and top < bottom else None


def _plain(crossing: Crossing) -> dict[str, object]:
    frames = sorted(crossing.boxes)
    return {
        **asdict(crossing),
        "subject": f"{crossing.pid:03d}",
        "first_frame": frames[0],
        "last_frame": frames[-1],
    }


def _check(out: Path, pids: Sequence[int], fps: float, size: tuple[int, int], both: bool) -> None:
    if out.suffix != ".mp4":
        raise ValueError(f"{out} is no name of a video; expected one that ends in .mp4")
    if not pids or min(pids) < 1 or len(set(pids)) < len(pids):
        raise ValueError(f"pids are {list(pids)}, expected different numbers from 1 on")
    if not 1 <= fps <= 120:
        raise ValueError(f"fps is {fps:g}, expected in [1, 120]")
    if not (64 <= size[0] <= 480 and 64 <= size[1] <= 480) or size[0] % 2 or size[1] % 2:
        raise ValueError(f"size is {size}, expected even height and width in [64, 480]")
    if both:
        raise ValueError("both_ways goes with people who walk alone; leave out together")
