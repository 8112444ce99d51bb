"""Small stand-ins for the gait benchmarks, in the exact layouts in which they are released.

For tests and first steps where the real sets are not at hand. The walkers are drawn by a callback;
the default one is a body of ellipses that no one should train on. Each writer leaves `Thumbs.db`
files about, and with `odd` one sequence folder without frames and one sequence that is missing, as
the real sets have them.
"""

import json
import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from reidkit.data.silhouettes.align import align

Draw = Callable[[str, str, str, int], NDArray[np.uint8]]

SIZE = (96, 72)
CASIA_B_CONDITIONS = (
    *(f"nm-{walk:02d}" for walk in range(1, 7)),
    *("bg-01", "bg-02", "cl-01", "cl-02"),
)


class Shot(NamedTuple):
    """One sequence to be written: whom to draw how, and the folder and names of its frames."""

    subject: str
    condition: str
    view: str
    folder: Path
    pattern: str  # of a file's name; {} is the number of the frame, from 1


def draw_body(subject: str, condition: str, view: str, frame: int) -> NDArray[np.uint8]:
    """A silhouette (96, 72) of 0 and 255 that walks.

    The subject decides its width, `bg` adds a bag, `cl` a coat; from the side the stride is wide.
    """
    width = 5 + zlib.crc32(subject.encode()) % 9
    coat = 3 if condition.startswith("cl") else 0
    side = abs(math.sin(math.radians(float(view) if view.isdecimal() else 90.0)))
    swing = round((3 + 11 * side) * math.sin(frame * math.pi / 4))
    mask = np.zeros(SIZE, np.uint8)
    middle = SIZE[1] // 2
    for foot in (middle - swing, middle + swing):
        cv2.line(mask, (middle, 56), (foot, 88), 255, 5)
    cv2.ellipse(mask, (middle, 42), (width + coat, 20), 0, 0, 360, 255, -1)
    cv2.ellipse(mask, (middle, 16), (5, 8), 0, 0, 360, 255, -1)
    if condition.startswith("bg"):
        cv2.circle(mask, (middle + width, 46), 6, 255, -1)
    return mask


def draw_aligned(subject: str, condition: str, view: str, frame: int) -> NDArray[np.uint8]:
    """The walker of `draw_body` as GREW has it: aligned, (64, 64)."""
    aligned = align(draw_body(subject, condition, view, frame))
    assert aligned is not None, "a body is never empty"
    return aligned


def write_casia_b_stand_in(
    out: str | Path,
    *,
    subjects: Iterable[int] = (1, 2, 75, 76),
    views: Sequence[str] = ("000", "090", "180"),
    conditions: Sequence[str] = CASIA_B_CONDITIONS,
    frames: int = 4,
    draw: Draw = draw_body,
    odd: bool = True,
) -> Path:
    """CASIA-B: `001/nm-01/090/001-nm-01-090-001.png`.

    Identities up to 74 train in the split LT. Raises ValueError where `out` is no empty folder.
    """
    out = empty_folder(out)
    shots = [
        Shot(
            name, condition, view, out / name / condition / view, f"{name}-{condition}-{view}-{{}}"
        )
        for name in (f"{subject:03d}" for subject in sorted(subjects))
        for condition in conditions
        for view in views
    ]
    write_shots(shots, frames, "03d", draw, odd)
    return out


def write_ou_mvlp(
    out: str | Path,
    *,
    subjects: Iterable[int] = (1, 2, 3, 4, 10307),
    views: Sequence[str] = ("000", "090", "270"),
    frames: int = 4,
    draw: Draw = draw_body,
    odd: bool = True,
) -> Path:
    """OU-MVLP: `Silhouette_090-00/00001/0001.png`, odd identities train.

    Raises ValueError where `out` is no empty folder.
    """
    out = empty_folder(out)
    shots = [
        Shot(name, walk, view, out / f"Silhouette_{view}-{walk}" / name, "{}")
        for name in (f"{subject:05d}" for subject in sorted(subjects))
        for walk in ("00", "01")
        for view in views
    ]
    write_shots(shots, frames, "04d", draw, odd)
    return out


def write_grew(
    out: str | Path,
    *,
    train: Iterable[int] = (1, 2, 3),
    test: Iterable[int] = (1, 2),
    videos: int = 3,
    frames: int = 4,
    rearranged: bool = False,
    draw: Draw = draw_aligned,
    odd: bool = True,
) -> Path:
    """GREW: `train/00001/VIDEO/0001.png`, `test/gallery/00001/VIDEO`, `test/probe/VIDEO`, each with
    its energy image; or `rearranged` as OpenGait has it.

    `videos` of each training identity, two in the gallery and two probes of each test identity.
    Raises ValueError where `out` is no empty folder.
    """
    out = empty_folder(out)
    shots = []
    for name in (f"{subject:05d}" for subject in sorted(test)):
        for condition, video in zip(("01", "02"), sorted(video_names(name, 2)), strict=True):
            folder = f"{name}/{condition}" if rearranged else f"test/gallery/{name}"
            shots.append(Shot(name, condition, video, out / folder / video, "{}"))
        for video in video_names(f"{name} probe", 2):
            folder = "probe/03" if rearranged else "test/probe"
            shots.append(Shot(name, "03", video, out / folder / video, "{}"))
    for name in (f"{subject:05d}" for subject in sorted(train)):
        for video in video_names(f"{name} train", videos):
            folder = f"{name}train/00" if rearranged else f"train/{name}"
            shots.append(Shot(f"{name}train", "00", video, out / folder / video, "{}"))
    write_shots(shots, frames, "04d", draw, odd)
    for shot in shots:
        if shot in shots[:-2] or not odd:
            write_mask(shot.folder / f"{shot.view}_2d_gei.png", np.full((64, 64), 128, np.uint8))
    return out


def write_gait3d(
    out: str | Path,
    *,
    train: Iterable[int] = (0, 3, 5),
    test: Iterable[int] = (2, 7),
    sequences: int = 3,
    frames: int = 4,
    draw: Draw = draw_body,
    odd: bool = True,
) -> Path:
    """Gait3D: `2D_Silhouettes/0000/camid0_videoid2/seq0/human_crop_f9998.png` beside `Gait3D.json`.

    The first sequence of each test identity is its probe. Numbers of frames grow a digit on the
    way, and the names of files are from memory (unverified).

    Raises ValueError where `out` is no empty folder.
    """
    out = empty_folder(out)
    names = {
        side: [f"{number:04d}" for number in sorted(numbers)]
        for side, numbers in (("TEST_SET", test), ("TRAIN_SET", train))
    }
    shots = [
        Shot(
            name,
            f"camid{(place * 7 + number) % 39}_videoid{number % 3}",
            "seq0",
            out
            / "2D_Silhouettes"
            / name
            / f"camid{(place * 7 + number) % 39}_videoid{number % 3}"
            / "seq0",
            "human_crop_f{}",
        )
        for place, name in enumerate(name for side in names.values() for name in side)
        for number in range(sequences)
    ]
    probes = [
        f"{shot.subject}-{shot.condition}-{shot.view}"
        for shot in shots[:: max(sequences, 1)]
        if shot.subject in names["TEST_SET"]
    ]
    write_shots(shots, frames, "d", draw, odd, first=9998)
    (out / "Gait3D.json").write_text(json.dumps({**names, "PROBE_SET": probes}))
    return out


def empty_folder(out: str | Path) -> Path:
    """`out`, made if need be; a ValueError where something is in it."""
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not an empty folder; name a new one or remove what is in it")
    out.mkdir(parents=True, exist_ok=True)
    return out


def video_names(of: str, count: int) -> list[str]:
    """Names of eight characters, the same for the same owner."""
    return [f"{zlib.crc32(f'{of} {number}'.encode()):08x}" for number in range(count)]


def write_shots(
    shots: Sequence[Shot], frames: int, digits: str, draw: Draw, odd: bool, *, first: int = 1
) -> None:
    """Write all frames; with `odd` the last sequence is missing, the one before has no frames."""
    written = shots[:-2] if odd else shots
    for shot in written:
        shot.folder.mkdir(parents=True)
        for frame in range(frames):
            name = shot.pattern.format(format(first + frame, digits))
            mask = draw(shot.subject, shot.condition, shot.view, frame)
            write_mask(shot.folder / f"{name}.png", mask)
    if odd and len(shots) > 1:
        shots[-2].folder.mkdir(parents=True)
    for folder in {written[0].folder, written[-1].folder.parent} if written else ():
        (folder / "Thumbs.db").write_bytes(b"not a picture")


def write_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    """Write a mask (H, W) as PNG."""
    path.write_bytes(cv2.imencode(".png", mask)[1].tobytes())
