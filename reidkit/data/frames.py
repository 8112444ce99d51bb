"""Which frames of a tracklet to read, and reading them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from reidkit.data.decoding import decode, is_cut_short
from reidkit.data.draws import Draws, Stream

FrameChoice = Literal["random", "replacement", "ordered", "unfixed", "evenly", "every"]
TrainingChoice = Literal["random", "replacement", "ordered", "unfixed"]


@dataclass(frozen=True, slots=True)
class FrameSampling:
    """Chooses frames of a tracklet; of an image, always its one frame, as often as asked for.

    - "random": `count` different frames in time order; a shorter tracklet gives all of its frames
      and repeats some at random, so that T is always `count`.
    - "replacement": `count` frames, each drawn from all of them, in no order: a set, as GaitSet's
      own code trains (Chao et al., AAAI 2019).
    - "ordered": `count` frames that follow one another, from a random start; a shorter tracklet
      begins again at its first frame. For convolutions over time.
    - "unfixed": as "random", but their number is drawn from `count` to `most`.
    - "evenly": the middle frames of `count` equal stretches; all frames of a shorter tracklet.
    - "every": all frames, whatever `count` is.

    Raises ValueError for a count below 1, a `most` below the count, or an unknown choice.
    """

    choice: FrameChoice = "random"
    count: int = 1
    most: int | None = None

    def __post_init__(self) -> None:
        known = get_args(FrameChoice)
        if self.choice not in known:
            raise ValueError(f"frame choice {self.choice!r}, expected one of {', '.join(known)}")
        if self.count < 1:
            raise ValueError(f"frame count is {self.count}, expected at least 1")
        if self.most is not None and self.choice != "unfixed":
            raise ValueError(f"most = {self.most} frames is for the choice 'unfixed' alone")
        if self.choice == "unfixed" and (self.most is None or self.most < self.count):
            raise ValueError(
                f"frame choice 'unfixed' draws from count = {self.count} to most = {self.most} "
                "frames; expected count <= most"
            )

    def length(self, frames: int) -> int:
        """How many frames `choose` gives at most of a tracklet of this many frames."""
        if self.choice in ("random", "replacement", "ordered"):
            return self.count
        if self.choice == "unfixed":
            return self.most or self.count
        return frames if self.choice == "every" else min(frames, self.count)

    def is_drawn(self, frames: int) -> bool:
        """Whether chance has a say in what is chosen of this many frames."""
        if self.choice == "unfixed":
            return frames > 1 or self.count != self.most
        return frames > 1 and self.choice not in ("evenly", "every")

    def choose_each(self, lengths: Sequence[int], draws: Draws) -> list[list[int]]:
        """`choose` for each item of a batch, of so many frames; decided by its draws."""
        if not self.is_drawn(max(lengths)):
            return [self._certain(frames) for frames in lengths]
        generators = draws.generators(Stream.FRAMES)
        return [self.choose(*item) for item in zip(lengths, generators, strict=True)]

    def choose(self, frames: int, generator: np.random.Generator) -> list[int]:
        """Positions in [0, frames), ascending but for "replacement" and for "ordered" where it
        begins again; nothing is drawn from the generator unless `is_drawn`."""
        if not self.is_drawn(frames):
            return self._certain(frames)
        if self.choice == "replacement":
            return generator.integers(0, frames, self.count).tolist()
        if self.choice == "ordered":
            # Every window that fits is as likely as any other.
            start = int(generator.integers(0, max(frames - self.count, 0) + 1))
            return [(start + i) % frames for i in range(self.count)]
        count = self.count
        if self.choice == "unfixed":
            count = int(generator.integers(self.count, (self.most or self.count) + 1))
        if frames >= count:
            return sorted(generator.permutation(frames)[:count].tolist())
        repeats = generator.integers(0, frames, count - frames).tolist()
        return sorted([*range(frames), *repeats])

    def _certain(self, frames: int) -> list[int]:
        if self.choice == "every" or (self.choice == "evenly" and frames <= self.count):
            return list(range(frames))
        if self.choice == "evenly":
            return [(2 * i + 1) * frames // (2 * self.count) for i in range(self.count)]
        return [0] * self.count  # of an image


def read_image(path: str, channels: int = 3) -> NDArray[np.uint8]:
    """The picture (H, W, 3) uint8 in RGB; (H, W) grey with channels=1.

    Raises FileNotFoundError where there is no file, ValueError where it is empty, cut short or no
    picture.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no image {path}; `reidkit data check` lists all faults"
        ) from error
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if not data:
        fault = "is empty (0 bytes)"
    elif is_cut_short(data):
        fault = f"is cut short after {len(data):,} bytes"
    else:
        image = decode(data, channels)
        if image is not None:
            return image
        fault = f"is no readable image ({len(data):,} bytes)"
    raise ValueError(f"{path} {fault}; replace it; `reidkit data check` lists all faults")


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture at `size` (H, W): halved, each pixel the mean of its neighbours, while a side is
    at least twice too long, then linear."""
    place = np.empty((*size, *image.shape[2:]), np.uint8)
    resize_into(image, place)
    return place


def resize_into(image: NDArray[np.uint8], place: NDArray[np.uint8]) -> None:
    """`resize` to the size of `place` (H, W, C), a contiguous array which takes the result."""
    height, width = place.shape[:2]
    rows, columns = image.shape[:2]
    if rows == height and columns == width:
        place[...] = image
        return
    # By area at once would take as long as decoding. Linear at a half is the mean of two pixels; a
    # side that needs no halving goes to its length in the same pass.
    while rows >= 2 * height or columns >= 2 * width:
        rows = rows // 2 if rows >= 2 * height else min(rows, height)
        columns = columns // 2 if columns >= 2 * width else min(columns, width)
        if (rows, columns) == (height, width):
            break  # what is left is this pass
        image = np.asarray(cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR))
    cv2.resize(image, (width, height), place, 0, 0, cv2.INTER_LINEAR)
