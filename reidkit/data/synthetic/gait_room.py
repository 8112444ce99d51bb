"""A room in which people walk to and fro before cameras on all sides, as silhouettes only.

A walk is one person on one day: dressed for it, a little faster or slower than usual. Every camera
of the room sees the same walk, from its own angle and with its own faults of segmentation.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from reidkit.data.synthetic.body import Array
from reidkit.data.synthetic.camera import Camera
from reidkit.data.synthetic.outfit import Outfit
from reidkit.data.synthetic.surfaces import surfaces
from reidkit.data.synthetic.walker import Walker

Condition = Literal["nm", "bg", "cl"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
VIEWS = tuple(f"{angle:03d}" for angle in range(0, 181, 18))
SIZE = (128, 160)
DISTANCE, FOCAL = 8.0, 390.0  # from the camera to the middle of the room; metres, pixels
LENGTH = 1.6  # metres that are walked; who comes to the end begins anew
VARIETY = 2.0  # of the bodies: scaled to one height, people differ in their proportions only


@lru_cache(maxsize=512)
def subject(number: int, seed: int) -> Walker:
    """Subject `number` of the world `seed`, with neither bag nor coat."""
    walker = Walker.sample(seed, 30, number, variety=VARIETY)
    return replace(walker, outfit=replace(walker.outfit, bag="none", coat=False))


def on_a_walk(walker: Walker, condition: Condition, rng: np.random.Generator) -> Walker:
    """The walker as it goes on one walk: its pace and posture of the day, with bag or coat.

    Raises ValueError for an unknown condition.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"condition is {condition!r}, expected one of {', '.join(CONDITIONS)}")

    def about(value: float, spread: float) -> float:
        return value * float(np.clip(rng.normal(1, spread), 1 - 2 * spread, 1 + 2 * spread))

    gait, body = walker.gait, walker.body
    gait = replace(
        gait,
        cadence=about(gait.cadence, 0.04),
        stride=about(gait.stride, 0.04),
        arm_swing=about(gait.arm_swing, 0.12),
        elbow=about(gait.elbow, 0.12),
        lean=gait.lean + float(rng.normal(0, 0.012)),
        asymmetry=gait.asymmetry + float(rng.normal(0, 0.03)),
    )
    body = replace(body, girth=about(body.girth, 0.03), chest_depth=about(body.chest_depth, 0.03))
    outfit = replace(walker.outfit, looseness=about(walker.outfit.looseness, 0.04))
    if condition == "bg":
        outfit = with_bag(outfit, rng)
        if outfit.bag == "handbag":  # the arm that carries hardly swings
            gait = replace(gait, asymmetry=-outfit.bag_side * float(rng.uniform(0.4, 0.8)))
    elif condition == "cl":
        outfit = with_coat(outfit, rng)
        gait = replace(gait, spread=gait.spread + float(rng.uniform(0.0, 0.05)))
    return Walker(body, gait, outfit)


def with_bag(outfit: Outfit, rng: np.random.Generator) -> Outfit:
    """The outfit with a bag of some size on the shoulder, in a hand or on the back."""
    return replace(
        outfit,
        bag=("shoulder_bag", "handbag", "backpack")[int(rng.integers(3))],
        bag_side=int(rng.choice([-1, 1])),
        bag_size=float(rng.uniform(0.85, 1.35)),
    )


def with_coat(outfit: Outfit, rng: np.random.Generator) -> Outfit:
    """The outfit with a coat that ends about the knees and thickens trunk and arms."""
    return replace(
        outfit,
        coat=True,
        sleeve=1.0,
        coat_length=float(rng.uniform(0.75, 1.1)),
        padding=float(rng.uniform(1.0, 1.22)),
    )


def silhouettes(
    walker: Walker,
    view_degrees: float,
    times: Array,
    *,
    condition: Condition = "nm",
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Raw masks (T, 128, 160), 0 or 255, of one walk seen by one camera at the seconds `times`.

    View 0 walks towards the camera, 90 is the side view, 180 walks away. The chances of the walk
    (`on_a_walk`) and of the segmentation come from `rng`.
    """
    return watch(on_a_walk(walker, condition, rng), view_degrees, times, rng)


def watch(
    walker: Walker, view_degrees: float, times: Array, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Masks (T, 128, 160) of a walker who is dressed for the walk already; see `silhouettes`."""
    height = 1.5 + float(rng.uniform(-0.25, 0.25))
    camera = Camera(
        0,
        (0,),
        height=height,
        pitch=float(np.arctan2(height - 0.88, DISTANCE) + rng.normal(0, 0.004)),
        focal=FOCAL * float(rng.uniform(0.95, 1.05)),
        width=SIZE[1],
        rows=SIZE[0],
    )
    heading = np.pi - np.deg2rad(view_degrees) + float(rng.normal(0, 0.04))
    times = np.asarray(times, np.float64)
    phase = float(rng.uniform(0, walker.period))
    middle = float(times.mean()) if len(times) else 0.0
    along = (walker.speed * (times - middle) + LENGTH / 2) % LENGTH - LENGTH / 2
    x, y = DISTANCE + along * np.cos(heading), along * np.sin(heading)
    masks = np.zeros((len(times), *SIZE), np.uint8)
    faults = Faults(rng)
    for mask, joints, *place in zip(masks, walker.poses(times + phase), x, y, strict=True):
        shape = surfaces(walker, camera, joints, float(place[0]), float(place[1]), heading)
        points = (np.concatenate(shape.polygons) * 16).astype(np.int32)
        start = 0
        for polygon in shape.polygons:
            end = start + len(polygon)
            cv2.fillPoly(mask, [points[start:end]], 255, shift=4)
            start = end
        faults.spoil(mask)
    return masks


GRAIN = 384


@lru_cache(maxsize=1)
def _grain() -> NDArray[np.uint8]:
    """Smooth noise around 128 to cut pieces from."""
    noise = np.random.default_rng(0).normal(size=(GRAIN, GRAIN)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.2)
    return np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)


class Faults:
    """The faults of segmentation of one walk before one camera: ragged edges, holes, lost parts."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        # The threshold of the day makes everybody a little thinner or thicker.
        self.threshold = float(rng.uniform(105, 150))
        self.raggedness = float(rng.uniform(0.25, 0.6))
        self.holes = float(rng.uniform(0.0, 0.5))
        self.losses = float(rng.uniform(0.0, 0.12))

    def spoil(self, mask: NDArray[np.uint8]) -> None:
        """Put faults into a clean mask (H, W), in place."""
        left, top, wide, tall = cv2.boundingRect(mask)
        if not wide:
            return
        rows, columns = mask.shape
        top, left = max(top - 3, 0), max(left - 3, 0)
        area = mask[top : min(top + tall + 6, rows), left : min(left + wide + 6, columns)]
        height, width = area.shape
        down, across = self.rng.integers(0, (GRAIN - height, GRAIN - width))
        noise = _grain()[down : down + height, across : across + width]
        body = cv2.GaussianBlur(area, (5, 5), 1.3)
        body = cv2.addWeighted(body, 1.0, noise, self.raggedness, -128 * self.raggedness)
        chances = self.rng.random(6)
        if chances[0] < self.holes:
            place = (int(chances[1] * width), int(chances[2] * height))
            cv2.circle(body, place, 1 + int(chances[3] * 4), 0, -1)
        if chances[4] < self.losses:
            self._lose_a_leg(body, chances)
        cv2.threshold(body, self.threshold, 255, cv2.THRESH_BINARY, dst=area)

    def _lose_a_leg(self, body: NDArray, chances: Array) -> None:
        """Take away a patch between knee and sole on one side."""
        height, width = body.shape
        x = int((0.25 + 0.5 * (chances[5] < 0.5)) * width)
        y = int((0.72 + 0.2 * chances[3]) * height)
        cv2.ellipse(body, (x, y), (max(2, width // 6), height // 14), 0, 0, 360, 0, -1)
