"""A walker: one identity's body, gait and clothes."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reidkit.data.synthetic.body import Array, Body, Gait, walk
from reidkit.data.synthetic.clothes import Image, paint
from reidkit.data.synthetic.outfit import Outfit


@dataclass(frozen=True)
class Walker:
    """One identity. The same seed gives the same person, whoever looks at it and when."""

    body: Body
    gait: Gait
    outfit: Outfit

    @classmethod
    def sample(cls, *seed: int, variety: float = 1.0) -> "Walker":
        """The walker of a seed; several numbers (world, identity) make one seed.

        `variety` is that of the bodies.
        """
        rng = np.random.default_rng(seed)
        return cls(Body.sample(rng, variety=variety), Gait.sample(rng), Outfit.sample(rng))

    @property
    def period(self) -> float:
        """Seconds after which the pose repeats: one stride."""
        return self.gait.period

    @cached_property
    def speed(self) -> float:
        """Metres a second: two steps, each as long as the legs are apart, in one period."""
        step = 2 * (self.body.thigh + self.body.shin) * np.sin(self.gait.stride)
        return float(2 * step / self.period)

    @cached_property
    def atlas(self) -> Image:
        """The texture of all surfaces, (rows, columns, 3) RGB."""
        return paint(self.outfit)

    def pose(self, t: float) -> Array:
        """Joint positions (J, 3) in metres at second `t`, in the order of `JOINTS`.

        The pelvis stays above the origin, the lower foot on the ground.
        """
        return walk(self.body, self.gait, np.array([t]))[0]

    def poses(self, times: Array) -> Array:
        """Joint positions (T, J, 3) at the `times` (T,), as `pose` gives them one by one."""
        return walk(self.body, self.gait, np.asarray(times, dtype=np.float64))
