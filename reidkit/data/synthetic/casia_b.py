"""The synthetic room in the layout of CASIA-B, or packed; the same bytes for the same seed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from reidkit.data.silhouettes.align import align
from reidkit.data.silhouettes.store import StoreWriter
from reidkit.data.synthetic.arguments import check_ranges
from reidkit.data.synthetic.gait_room import VIEWS, Condition, on_a_walk, subject, watch
from reidkit.data.synthetic.gait_stand_ins import empty_folder

RATE = 15.0  # frames a second
# CASIA-B's sequences of one subject, the condition first.
WALKS: tuple[tuple[Condition, str], ...] = (
    *(("nm", f"nm-{walk:02d}") for walk in range(1, 7)),
    *(("bg", f"bg-{walk:02d}") for walk in range(1, 3)),
    *(("cl", f"cl-{walk:02d}") for walk in range(1, 3)),
)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Defaults:
    """The room in which a small GaitSet trains within minutes on two cores."""

    train_subjects: int = 40
    test_subjects: int = 20
    frames: int = 20
    views: int = len(VIEWS)


DEFAULTS = Defaults()


class Seen(NamedTuple):
    """One sequence: whose, in which walk, from which of the `VIEWS`, with its raw masks."""

    subject: str
    walk: str
    view: str
    masks: NDArray[np.uint8]  # (T, 128, 160)


def sequences(*, subjects: int, frames: int, views: int, seed: int) -> Iterator[Seen]:
    """All sequences of the room, subject by subject; each is a function of its name and the seed.

    The `views` are spread evenly over CASIA-B's eleven.
    """
    times = np.arange(frames) / RATE
    for number in range(1, subjects + 1):
        person = subject(number, seed)
        for place, (condition, walk) in enumerate(WALKS):
            key = (seed, 60, number, place)
            walking = on_a_walk(person, condition, np.random.default_rng(key))
            for view in spread(views):
                rng = np.random.default_rng((*key, 1, int(view)))
                masks = watch(walking, float(view), times, rng)
                yield Seen(f"{number:03d}", walk, view, masks)


def spread(views: int) -> tuple[str, ...]:
    """So many of CASIA-B's views, evenly spread and with both ends."""
    places = np.linspace(0, len(VIEWS) - 1, views).round().astype(int)
    return tuple(VIEWS[place] for place in places)


def write_casia_b(
    out: Path,
    *,
    train_subjects: int = DEFAULTS.train_subjects,
    test_subjects: int = DEFAULTS.test_subjects,
    frames: int = DEFAULTS.frames,
    views: int = DEFAULTS.views,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Write CASIA-B's tree `001/nm-01/090/001-nm-01-090-001.png` into `out`, a new or empty folder.

    The first `train_subjects` are for training, as in CASIA-B. `progress(done, total)` counts
    sequences. Raises ValueError for impossible numbers and for a folder that holds something.
    """
    subjects = _subjects(train_subjects, test_subjects, frames, views, seed)
    out = empty_folder(out)
    total = subjects * len(WALKS) * views
    found = sequences(subjects=subjects, frames=frames, views=views, seed=seed)
    for done, seen in enumerate(found, start=1):
        folder = out / seen.subject / seen.walk / seen.view
        folder.mkdir(parents=True)
        name = f"{seen.subject}-{seen.walk}-{seen.view}"
        for number, mask in enumerate(seen.masks, start=1):
            data = cv2.imencode(".png", mask)[1]
            (folder / f"{name}-{number:03d}.png").write_bytes(data.tobytes())
        if progress is not None:
            progress(done, total)


def write_casia_b_store(
    out: Path,
    *,
    train_subjects: int = DEFAULTS.train_subjects,
    test_subjects: int = DEFAULTS.test_subjects,
    frames: int = DEFAULTS.frames,
    views: int = DEFAULTS.views,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Write the silhouettes of `write_casia_b`, aligned, as a packed store without any PNG.

    An interrupted one stays in `OUT.partial`. Raises ValueError as `write_casia_b` does.
    """
    subjects = _subjects(train_subjects, test_subjects, frames, views, seed)
    total = subjects * len(WALKS) * views
    with StoreWriter(out) as writer:
        found = sequences(subjects=subjects, frames=frames, views=views, seed=seed)
        for done, seen in enumerate(found, start=1):
            source = f"{seen.subject}/{seen.walk}/{seen.view}"
            if source not in writer.done:
                aligned = [body for mask in seen.masks if (body := align(mask)) is not None]
                camid = VIEWS.index(seen.view)
                frames_ = np.stack(aligned)
                writer.add(seen.subject, seen.walk, seen.view, frames_, camid=camid, source=source)
            if progress is not None:
                progress(done, total)


def _subjects(train: int, test: int, frames: int, views: int, seed: int) -> int:
    """How many subjects there are; a ValueError for impossible numbers."""
    check_ranges(
        "synthetic_casia_b",
        ("train_subjects", train, 1, 900),
        ("test_subjects", test, 1, 90),
        ("frames", frames, 1, 999),
        ("views", views, 2, len(VIEWS)),
        ("seed", seed, 0, 2**31),
    )
    return train + test
