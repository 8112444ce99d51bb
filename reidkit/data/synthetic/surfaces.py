"""From joints to what is drawn: limbs, trunk and skirts, and then what is worn on them."""

import math

import cv2
import numpy as np

from reidkit.data.synthetic.body import JOINT, Array
from reidkit.data.synthetic.camera import Camera
from reidkit.data.synthetic.outlines import Surfaces, capsules, trunk
from reidkit.data.synthetic.walker import Walker
from reidkit.data.synthetic.worn import put_bag, put_head

# (height along the trunk, half-width in shoulder widths, half-depth in chest depths)
_TORSO = (
    (0.0, 0.36, 0.55), (0.05, 0.72, 0.75), (0.10, 1.0, 0.9), (0.17, 1.08, 1.0),
    (0.38, 0.98, 1.12), (0.68, 0.84, 1.02), (1.0, 0.90, 1.10),
)  # fmt: skip
_HIPS = ((0.0, 0.84, 1.0), (0.5, 0.92, 1.1), (1.0, 0.80, 0.95))


Limb = tuple[str, tuple[float, float], str, str, float, float]


def _limbs(walker: Walker) -> list[Limb]:
    """(surface, texture rows, upper joint, lower joint, radius at each in metres) of every limb."""
    body, outfit = walker.body, walker.outfit
    unit = body.height * (0.4 + 0.6 * body.girth)
    cloth = unit if outfit.sleeve < 0.3 else 1.12 * unit
    if outfit.coat:
        cloth *= outfit.padding
    loose = unit * (outfit.looseness if outfit.bottom in ("trousers", "shorts") else 0.95)
    hem = unit if outfit.bottom == "shorts" else loose
    limbs: list[Limb] = []
    for side in ("left", "right"):
        shoulder, elbow, wrist, hand, hip, knee, ankle, toe = (
            f"{side}_{part}"
            for part in ("shoulder", "elbow", "wrist", "hand", "hip", "knee", "ankle", "toe")
        )
        limbs += [
            ("arm", (0.0, 0.55), shoulder, elbow, 0.034 * cloth, 0.027 * cloth),
            ("arm", (0.55, 1.0), elbow, wrist, 0.027 * cloth, 0.021 * cloth),
            ("skin", (0.0, 1.0), wrist, hand, 0.020 * unit, 0.018 * unit),
            ("leg", (0.0, 0.5), hip, knee, 0.054 * unit, 0.038 * loose),
            ("leg", (0.5, 1.0), knee, ankle, 0.037 * loose, 0.026 * hem),
            ("shoe", (0.0, 1.0), ankle, toe, 0.029 * body.height, 0.017 * body.height),
        ]
    return limbs


def surfaces(
    walker: Walker, camera: Camera, joints: Array, x: float, y: float, heading: float
) -> Surfaces:
    """Everything of the walker that is drawn, standing at (x, y) and looking along `heading`."""
    body, outfit = walker.body, walker.outfit
    cosine, sine = math.cos(heading), math.sin(heading)
    turn = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    here = np.array([x, y, 0.0])

    def project(points: Array) -> tuple[Array, Array]:
        return camera.project(points @ turn + here)

    pixels, depth = project(joints)
    middle = float(depth[JOINT["pelvis"]])
    scale = camera.focal / middle
    view = math.atan2(-y, -x) - heading
    result = Surfaces(middle)

    limbs = _limbs(walker)
    upper = np.array([JOINT[limb[2]] for limb in limbs])
    lower = np.array([JOINT[limb[3]] for limb in limbs])
    radius = np.array([limb[4:] for limb in limbs]) * scale
    a, b = pixels[upper], pixels[lower]
    outlines = capsules(a, b, radius)
    keys = (depth[upper] + depth[lower]) / 2
    for i, (surface, span, *_rest) in enumerate(limbs):
        far = 0.80 if keys[i] > middle + 0.06 else 1.0
        axis = (*a[i].tolist(), *b[i].tolist(), float(radius[i].max()))
        result.add(surface, span, outlines[i], axis, float(keys[i]), far)

    wide = body.shoulder_width * (1.12 * outfit.padding if outfit.coat else 1.0)
    deep = body.chest_depth * body.girth * (1.15 * outfit.padding if outfit.coat else 1.0)

    def half_widths(levels: tuple[tuple[float, float, float], ...], wide: float) -> Array:
        """(v, half-width in pixels) of elliptic levels, as wide as they look from this side."""
        across, through = scale * wide * math.cos(view), scale * deep * math.sin(view)
        return np.array([(v, math.hypot(w * across, d * through)) for v, w, d in levels])

    pelvis = joints[JOINT["pelvis"]]
    up = joints[JOINT["neck"]] - pelvis
    crotch = pelvis - np.array([0, 0, 0.085 * body.height])
    ends, _ = project(np.array([pelvis + 1.03 * up, pelvis - 0.12 * up, pelvis + 0.1 * up, crotch]))
    outline, axis = trunk(ends[0], ends[1], half_widths(_TORSO, wide))
    result.add("torso", (0.0, 1.0), outline, axis, middle - 0.03)
    outline, axis = trunk(ends[2], ends[3], half_widths(_HIPS, body.shoulder_width))
    result.add("skirt" if outfit.bottom == "skirt" else "leg", (0.0, 0.1), outline, axis, middle)
    base = ends[2]
    if outfit.coat or outfit.bottom == "skirt":
        _below(result, walker, pixels, depth, scale, outline, base)
    put_head(result, walker, joints, project, scale)
    if outfit.bag != "none":
        put_bag(result, walker, joints, project, view)
    return result


def _below(
    result: Surfaces,
    walker: Walker,
    pixels: Array,
    depth: Array,
    scale: float,
    hips: Array,
    base: Array,
) -> None:
    """A skirt, or the skirts of a coat: what hangs from the hips around both thighs."""
    outfit = walker.outfit
    reach = outfit.coat_length if outfit.coat else 0.98
    points = [hips]
    legs = [(JOINT[f"{side}_hip"], JOINT[f"{side}_knee"]) for side in ("left", "right")]
    ends = [pixels[hip] + reach * (pixels[knee] - pixels[hip]) for hip, knee in legs]
    half = 0.058 * walker.body.height * (0.4 + 0.6 * walker.body.girth) * scale
    for end in ends:
        points.append(end + np.array([[-half, 0.0], [half, 0.0]]))
    outline = cv2.convexHull(np.concatenate(points).astype(np.float32))[:, 0].astype(np.float64)
    bottom = (ends[0] + ends[1]) / 2
    radius = float(outline[:, 0].max() - outline[:, 0].min()) / 2
    axis = (*base.tolist(), *bottom.tolist(), radius)
    nearest = min(float(depth[hip] + depth[knee]) / 2 for hip, knee in legs)
    result.add("skirt", (0.0, 1.0), outline, axis, min(nearest, result.distance) - 0.02)
