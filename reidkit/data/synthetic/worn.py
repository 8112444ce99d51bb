"""Head, hair, hats and bags."""

import math
from collections.abc import Callable

import cv2
import numpy as np

from reidkit.data.synthetic.body import JOINT, Array
from reidkit.data.synthetic.outlines import Surfaces, capsules
from reidkit.data.synthetic.walker import Walker

Project = Callable[[Array], tuple[Array, Array]]
Pair = tuple[float, float]
# (surface, texture rows, upper end, lower end, radii there, where its depth is taken): offsets
# (forward, up) from the head's centre, all in body heights.
Shape = tuple[str, Pair, Pair, Pair, Pair, Pair]
_HEAD: Shape = ("head", (0.0, 1.0), (0.006, 0.020), (0.008, -0.024), (0.046, 0.037), (0.02, 0.0))
_HAIR: dict[str, Shape] = {
    "long": ("hair", (0, 1), (-0.015, 0.01), (-0.045, -0.13), (0.050, 0.040), (-0.14, -0.05)),
    "bob": ("hair", (0, 1), (-0.012, 0.01), (-0.022, -0.045), (0.052, 0.050), (-0.10, -0.02)),
    "ponytail": ("hair", (0, 1), (-0.050, 0.02), (-0.070, -0.10), (0.022, 0.014), (-0.16, -0.05)),
    "bun": ("hair", (0, 1), (-0.040, 0.045), (-0.042, 0.050), (0.026, 0.026), (-0.08, 0.04)),
    "cap": ("head", (0, 0.1), (0.040, 0.022), (0.085, 0.016), (0.022, 0.014), (0.09, 0.03)),
    "hood": ("torso", (0.3, 0.4), (-0.016, 0.02), (-0.022, -0.035), (0.053, 0.056), (-0.09, 0.0)),
}


# The neck leans with the spine, so its lower end is the joint itself: offsets only for the radii.
_NECK: Shape = ("skin", (0.0, 1.0), (0.0, 0.0), (0.0, 0.0), (0.026, 0.030), (0.0, -0.09))
_FORWARD = np.array([1.0, 0.0, 0.0])


def put_head(
    result: Surfaces, walker: Walker, joints: Array, project: Project, scale: float
) -> None:
    """Add neck, head and hair or hat."""
    unit, hair = walker.body.height, walker.outfit.hair
    shapes = [_NECK, _HEAD, _HAIR[hair]] if hair in _HAIR else [_NECK, _HEAD]
    centre = joints[JOINT["head"]]
    up = (joints[JOINT["crown"]] - centre) / walker.body.head
    offset = unit * np.array([(shape[2], shape[3], shape[5]) for shape in shapes])
    ends = centre + offset[..., :1] * _FORWARD + offset[..., 1:] * up
    ends[0, 1] = joints[JOINT["neck"]]
    pixels, depth = project(ends)
    radius = scale * unit * np.array([shape[4] for shape in shapes])
    outlines = capsules(pixels[:, 0], pixels[:, 1], radius)
    for i, shape in enumerate(shapes):
        a, b = pixels[i, 0], pixels[i, 1]
        if shape is _HEAD:  # the face reaches into the round ends
            along = (b - a) / max(math.hypot(*(b - a)), 1e-6)
            a, b = a - along * radius[i, 0], b + along * radius[i, 1]
        axis = (*a.tolist(), *b.tolist(), float(radius[i].max()))
        tone, key = (0.85, 0.0) if shape is _NECK else (1.0, -0.04)
        result.add(shape[0], shape[1], outlines[i], axis, float(depth[i, 2]) + key, tone)


_CORNERS = np.array(
    [[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)], dtype=np.float64
)


def put_bag(result: Surfaces, walker: Walker, joints: Array, project: Project, view: float) -> None:
    """Add the bag as a box on the back, at the hip or in the hand; `view`: seen from where."""
    body, outfit = walker.body, walker.outfit
    unit, side = body.height, outfit.bag_side
    pelvis, neck = joints[JOINT["pelvis"]], joints[JOINT["neck"]]
    hand = joints[JOINT["left_hand" if side > 0 else "right_hand"]]
    grow = (0.85 + 0.3 * (outfit.scale - 0.7)) * outfit.bag_size
    if outfit.bag == "backpack":
        half = np.array([0.042, 0.078, 0.115]) * unit * grow
        centre = (
            neck
            - (0, 0, 0.06 * unit + half[2])
            - (body.chest_depth * body.girth + half[0] * 0.8, 0, 0)
        )
        outward = np.array([-0.12, 0, 0])
    elif outfit.bag == "shoulder_bag":
        half = np.array([0.085, 0.026, 0.070]) * unit * grow
        centre = pelvis + np.array([-0.01 * unit, side * (body.hip_width + 0.075 * unit), 0.0])
        outward = np.array([0, side * 0.16, 0])
    else:
        half = np.array([0.080, 0.026, 0.062]) * unit * grow
        centre = hand - (0, 0, half[2] + 0.03 * unit)
        outward = np.array([0, side * 0.05, 0])
    rise = np.array([0, 0, half[2]])
    points = np.concatenate(
        [
            centre + _CORNERS * half,
            [centre + outward, centre + rise, centre - rise],
        ]
    )
    pixels, depth = project(points)
    outline = cv2.convexHull(pixels[:8].astype(np.float32))[:, 0].astype(np.float64)
    width = float(outline[:, 0].max() - outline[:, 0].min()) / 2
    axis = (*pixels[9].tolist(), *pixels[10].tolist(), width)
    key = float(depth[8])
    result.add("bag", (0, 1), outline, axis, key)
    # The pocket: on the back of a backpack, on the outer side of the others, seen only from there.
    normal = np.pi if outfit.bag == "backpack" else side * np.pi / 2
    if math.cos(view - normal) > 0.15:
        face = np.array([[-1, -1, -0.8], [-1, 1, -0.8], [-1, 1, 0.1], [-1, -1, 0.1]]) * (1, 0.7, 1)
        if outfit.bag != "backpack":
            face = face[:, [1, 0, 2]] * (1, side * -1.0, 1)
        pocket, _ = project(centre + face * half)
        result.add("bag", (0, 1), pocket, axis, key - 1e-3, 0.72)
