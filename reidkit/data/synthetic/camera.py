"""A camera: where it hangs, how it projects, what its sensor does to light."""

import math
from dataclasses import dataclass

import numpy as np

from reidkit.data.synthetic.body import Array


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera above the origin of a flat ground, looking along +x and down by `pitch`.

    Sensor values: `cast` gains for R, G, B, `gamma`, `saturation`, `contrast` around mid-grey,
    `lift` added at the end, `blur` as sigma in sensor pixels, `noise` as standard deviation in
    levels, `quality` of its JPEG. `path` is the heading (radians; pi walks towards the camera) of
    the path it watches.
    """

    number: int
    seed: tuple[int, ...]
    height: float = 3.0
    pitch: float = 0.2
    focal: float = 620.0
    near: float = 5.0
    far: float = 12.0
    path: float = np.pi
    cast: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    saturation: float = 1.0
    contrast: float = 1.0
    lift: float = 0.0
    sun: float = 0.5
    sun_height: float = 0.8
    ambient: float = 0.55
    blur: float = 0.0
    noise: float = 2.0
    quality: int = 90
    width: int = 640
    rows: int = 480

    @classmethod
    def sample(cls, number: int, *seed: int) -> "Camera":
        """Camera `number` of the world of this seed."""
        rng = np.random.default_rng((*seed, number))
        height = float(rng.uniform(1.9, 4.6))
        warm = float(rng.normal(0, 0.07))
        green = float(rng.normal(0, 0.03))
        return cls(
            number=number,
            seed=(*seed, number),
            height=height,
            pitch=float(np.arctan2(height - 0.9, 8.5) + rng.normal(0, 0.02)),
            focal=float(rng.uniform(430, 800)),
            near=5.0,
            far=float(rng.uniform(9, 13)),
            path=float(rng.uniform(0, 2 * np.pi)),
            cast=(1 + warm, 1 + green, 1 - warm),
            gamma=float(np.exp(rng.normal(-0.05, 0.14))),
            saturation=float(rng.uniform(0.70, 1.20)),
            contrast=float(rng.uniform(0.82, 1.15)),
            lift=float(rng.uniform(-8, 16)),
            sun=float(rng.uniform(-np.pi, np.pi)),
            sun_height=float(rng.uniform(0.4, 1.2)),
            ambient=float(rng.uniform(0.58, 0.85)),
            blur=float(rng.uniform(0.0, 0.8)),
            noise=float(rng.uniform(1.5, 6.0)),
            quality=int(rng.integers(55, 93)),
        )

    def project(self, points: Array) -> tuple[Array, Array]:
        """Pixels (..., 2) as x, y, and depths (...,) in metres of world points (..., 3)."""
        sine, cosine = math.sin(self.pitch), math.cos(self.pitch)
        x, y, z = points[..., 0], points[..., 1], points[..., 2] - self.height
        depth = cosine * x - sine * z
        down = -sine * x - cosine * z
        scale = self.focal / depth
        pixels = np.empty((*depth.shape, 2))
        pixels[..., 0] = self.width / 2 - scale * y
        pixels[..., 1] = self.rows / 2 + scale * down
        return pixels, depth

    def light(self, facing: float, columns: int) -> Array:
        """Brightness (columns,) over the visible half of an upright cylinder, from left to right.

        `facing` is the direction from the cylinder to the camera, in world radians.
        """
        u = (np.arange(columns) + 0.5) / columns * 2 - 1
        toward, right = np.cos(self.sun - facing), np.sin(self.sun - facing)
        lambert = np.maximum(0, u * right + np.sqrt(1 - u * u) * toward) * np.cos(
            self.sun_height * 0.8
        )
        rim = 0.72 + 0.28 * np.sqrt(1 - u * u)
        return rim * (self.ambient + (1.3 - self.ambient) * lambert)
