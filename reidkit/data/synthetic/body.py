"""The articulated body and its walk: metres and radians; x forward, y left, z up."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

JOINTS = (
    "pelvis", "neck", "head", "crown",
    "left_shoulder", "left_elbow", "left_wrist", "left_hand",
    "right_shoulder", "right_elbow", "right_wrist", "right_hand",
    "left_hip", "left_knee", "left_ankle", "left_toe",
    "right_hip", "right_knee", "right_ankle", "right_toe",
)  # fmt: skip
JOINT = {name: position for position, name in enumerate(JOINTS)}

# Rigid: the distance between the two ends is the same at every moment of the walk.
BONES = (
    ("pelvis", "neck"), ("neck", "head"), ("head", "crown"),
    ("neck", "left_shoulder"), ("left_shoulder", "left_elbow"),
    ("left_elbow", "left_wrist"), ("left_wrist", "left_hand"),
    ("neck", "right_shoulder"), ("right_shoulder", "right_elbow"),
    ("right_elbow", "right_wrist"), ("right_wrist", "right_hand"),
    ("pelvis", "left_hip"), ("left_hip", "left_knee"),
    ("left_knee", "left_ankle"), ("left_ankle", "left_toe"),
    ("pelvis", "right_hip"), ("right_hip", "right_knee"),
    ("right_knee", "right_ankle"), ("right_ankle", "right_toe"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Body:
    """One person's proportions: bone lengths, half-widths, and a `girth` that scales all radii."""

    height: float
    thigh: float
    shin: float
    foot: float
    torso: float
    neck: float
    head: float
    upper_arm: float
    forearm: float
    shoulder_width: float
    hip_width: float
    chest_depth: float
    girth: float

    @classmethod
    def sample(cls, rng: np.random.Generator, *, variety: float = 1.0) -> "Body":
        """A plausible adult; mean ratios to the height follow Drillis and Contini (1966).

        `variety` scales how far the ratios stray from the mean.
        """
        height = float(np.clip(rng.normal(1.71, 0.10), 1.46, 1.98))

        def part(ratio: float, spread: float = 0.035) -> float:
            most = 0.12 * variety
            return (
                height * ratio * float(np.clip(rng.normal(1, spread * variety), 1 - most, 1 + most))
            )

        girth = float(np.clip(rng.normal(1.0, 0.14), 0.76, 1.38))
        return cls(
            height=height,
            thigh=part(0.245),
            shin=part(0.240),
            foot=part(0.125),
            torso=part(0.288),
            neck=part(0.095),
            head=part(0.066),
            upper_arm=part(0.175),
            forearm=part(0.146),
            shoulder_width=part(0.112, 0.07),
            hip_width=part(0.052, 0.07),
            chest_depth=part(0.068, 0.06),
            girth=girth,
        )


@dataclass(frozen=True, slots=True)
class Gait:
    """One person's way of walking: `cadence` in steps a minute, swings as amplitudes in radians."""

    cadence: float
    stride: float
    arm_swing: float
    elbow: float
    lean: float
    knee_lift: float
    twist: float
    sway: float
    spread: float
    asymmetry: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Gait":
        """A way of walking; the ranges cover a stroll to a hurry."""
        return cls(
            cadence=float(rng.uniform(92, 130)),
            stride=float(rng.uniform(0.26, 0.46)),
            arm_swing=float(rng.uniform(0.08, 0.60)),
            elbow=float(rng.uniform(0.10, 0.75)),
            lean=float(rng.normal(0.05, 0.04)),
            knee_lift=float(rng.uniform(0.75, 1.15)),
            twist=float(rng.uniform(0.03, 0.16)),
            sway=float(rng.uniform(0.005, 0.03)),
            spread=float(rng.uniform(0.05, 0.20)),
            asymmetry=float(rng.normal(0, 0.12)),
        )

    @property
    def period(self) -> float:
        """Seconds for one stride, that is two steps."""
        return 120.0 / self.cadence


def _bump(phase: Array, centre: float, sharpness: float) -> Array:
    """A smooth periodic hill of height 1 at `centre`."""
    return np.exp(sharpness * (np.cos(phase - centre) - 1))


def _hanging(angle: Array, outward: Array | float = 0.0) -> Array:
    """Unit vectors (..., 3) that hang down, swung forward by `angle`, then left by `outward`."""
    result = np.empty((*angle.shape, 3))
    side = np.cos(outward)
    result[..., 0] = np.sin(angle) * side
    result[..., 1] = np.sin(outward)
    result[..., 2] = -np.cos(angle) * side
    return result


def _beside(width: Array, drop: float, yaw: Array) -> Array:
    """The vectors (0, width, -drop) turned about the vertical by `yaw`. (2, T) -> (2, T, 3)"""
    result = np.empty((*yaw.shape, 3))
    result[..., 0] = -width * np.sin(yaw)
    result[..., 1] = width * np.cos(yaw)
    result[..., 2] = -drop
    return result


_SIGN = np.array([[1.0], [-1.0]])  # left, right
_LATER = np.array([[0.0], [np.pi]])  # the right leg is half a stride behind the left one
_LIMB = {
    part: [JOINT[f"left_{part}"], JOINT[f"right_{part}"]]
    for part in ("shoulder", "elbow", "wrist", "hand", "hip", "knee", "ankle", "toe")
}


def walk(body: Body, gait: Gait, t: Array) -> Array:
    """Joint positions at times `t`, the pelvis above the origin, the lower foot on the ground.

    t (T,) seconds -> (T, J, 3). Periodic in `gait.period`. The hip follows a cosine; the knee has
    its two flexions (loading after heel strike, a larger one in swing), as in Winter, Biomechanics
    of Human Movement, ch. 4.
    """
    phase = 2 * np.pi * t / gait.period
    swing = np.cos(phase)
    joints = np.empty((len(JOINTS), len(t), 3))

    pelvis = np.zeros((len(t), 3))
    pelvis[:, 1] = gait.sway * np.sin(phase)
    lean = gait.lean + 0.02 * np.cos(2 * phase)
    neck = pelvis - body.torso * _hanging(-lean, 0.4 * gait.sway * np.sin(phase))
    head = neck - body.neck * _hanging(-0.6 * lean - 0.12)
    crown = head - body.head * _hanging(-0.3 * lean)
    for name, value in (("pelvis", pelvis), ("neck", neck), ("head", head), ("crown", crown)):
        joints[JOINT[name]] = value

    own = phase + _LATER  # (2, T): everything below is left and right at once
    shoulder = neck + _beside(
        _SIGN * body.shoulder_width, 0.035 * body.height, gait.twist * swing + 0 * own
    )
    reach = gait.arm_swing * (1 + _SIGN * gait.asymmetry)
    arm = -reach * np.cos(own) - 0.05
    bend = gait.elbow + 0.25 * reach * (1 - np.cos(own))
    elbow = shoulder + body.upper_arm * _hanging(arm, gait.spread * _SIGN)
    fore = _hanging(arm + bend, 0.4 * gait.spread * _SIGN)
    wrist = elbow + body.forearm * fore
    hand = wrist + 0.055 * body.height * fore

    hip = pelvis + _beside(
        _SIGN * body.hip_width, 0.02 * body.height, -0.7 * gait.twist * swing + 0 * own
    )
    thigh = gait.stride * np.cos(own) + 0.12
    flexion = 0.08 + gait.knee_lift * (
        0.22 * _bump(own, 0.30 * np.pi, 4.0) + 0.95 * _bump(own, 1.46 * np.pi, 3.5)
    )
    knee = hip + body.thigh * _hanging(thigh, 0.02 * _SIGN)
    ankle = knee + body.shin * _hanging(thigh - flexion)
    pitch = 0.30 * _bump(own, 0.0, 6.0) - 0.85 * _bump(own, 1.25 * np.pi, 4.0) - 0.12
    # A foot is a limb that hangs forward: straight ahead at a right angle, toes a little outward.
    toe = ankle + body.foot * _hanging(np.pi / 2 + pitch, 0.12 * _SIGN)
    for name, pair in (
        ("shoulder", shoulder), ("elbow", elbow), ("wrist", wrist), ("hand", hand),
        ("hip", hip), ("knee", knee), ("ankle", ankle), ("toe", toe),
    ):  # fmt: skip
        joints[_LIMB[name]] = pair
    sole = np.minimum(ankle[..., 2] - 0.042 * body.height, toe[..., 2] - 0.012 * body.height)
    joints[..., 2] -= sole.min(0)
    return joints.transpose(1, 0, 2)
