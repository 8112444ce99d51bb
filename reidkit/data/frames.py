"""Which frames of a tracklet to read, and reading them."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

FrameChoice = Literal["random", "evenly", "every"]


@dataclass(frozen=True, slots=True)
class FrameSampling:
    """Chooses frames of a tracklet; of an image, always its one frame.

    - "random": `count` different frames in time order; a shorter tracklet gives all of its frames
      and repeats some at random, so that T is always `count`.
    - "evenly": the middle frames of `count` equal stretches; all frames of a shorter tracklet.
    - "every": all frames, whatever `count` is.

    Raises ValueError for a count below 1 or an unknown choice.
    """

    choice: FrameChoice = "random"
    count: int = 1

    def __post_init__(self) -> None:
        if self.choice not in ("random", "evenly", "every"):
            raise ValueError(f"frame choice {self.choice!r}, expected random, evenly or every")
        if self.count < 1:
            raise ValueError(f"frame count is {self.count}, expected at least 1")

    def length(self, frames: int) -> int:
        """How many frames `choose` gives of a tracklet of this many frames."""
        if self.choice == "random":
            return self.count
        return frames if self.choice == "every" else min(frames, self.count)

    def choose(self, frames: int, generator: np.random.Generator) -> list[int]:
        """Positions in [0, frames), ascending; only "random" draws from the generator."""
        if self.choice == "every" or (self.choice == "evenly" and frames <= self.count):
            return list(range(frames))
        if self.choice == "evenly":
            return [(2 * i + 1) * frames // (2 * self.count) for i in range(self.count)]
        if frames == self.count == 1:
            return [0]
        if frames >= self.count:
            return sorted(generator.permutation(frames)[: self.count].tolist())
        repeats = generator.integers(0, frames, self.count - frames).tolist()
        return sorted([*range(frames), *repeats])


def read_image(path: str) -> NDArray[np.uint8]:
    """The picture (H, W, 3) uint8 in OpenCV's order, BGR.

    Raises FileNotFoundError where there is no file, ValueError where it is empty, cut short or no
    picture.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no image {path}; `reidkit data check` lists all faults"
        ) from error
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    fault = ""
    if not data:
        fault = "is empty (0 bytes)"
    elif data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") == -1:
        # The decoder only warns of a missing end mark, and fills the rest of the picture with grey.
        fault = f"is cut short after {len(data):,} bytes"
    else:
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:  # sizes beyond what OpenCV accepts
            image = None
        if image is not None:
            return np.asarray(image, np.uint8)
        fault = f"is no readable image ({len(data):,} bytes)"
    raise ValueError(f"{path} {fault}; replace it; `reidkit data check` lists all faults")


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture at `size` (H, W): by area when shrinking more than twice, else linear."""
    height, width = size
    shrinks = image.shape[0] > 2 * height or image.shape[1] > 2 * width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)
