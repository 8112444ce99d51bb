"""Draw walkers as a camera sees them: textured, shaded limbs from far to near, then the sensor."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import cv2
import numpy as np

from reidkit.data.synthetic.body import Array
from reidkit.data.synthetic.camera import Camera
from reidkit.data.synthetic.clothes import COLUMNS, ROWS, Image
from reidkit.data.synthetic.outlines import Surfaces
from reidkit.data.synthetic.scene import background, occlude
from reidkit.data.synthetic.surfaces import surfaces
from reidkit.data.synthetic.walker import Walker

VISIBLE = 40  # texture columns over the visible half of a limb
SUPERSAMPLE = 2  # canvas pixels an output pixel, each way


@dataclass(frozen=True, slots=True)
class Place:
    """Where a walker is and when: metres on the ground, world heading and seconds."""

    x: float
    y: float
    heading: float
    t: float = 0.0


@dataclass(frozen=True, slots=True)
class Box:
    """A part of the camera's picture, in its pixels."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Seen:
    """A walker projected into a camera: its surfaces in camera pixels, and where from."""

    walker: Walker
    place: Place
    shape: Surfaces
    facing: float  # world direction from the walker to the camera

    @property
    def box(self) -> Box:
        """The tight bounding box."""
        low, high = self.shape.bounds()
        return Box(low[0], low[1], high[0] - low[0], high[1] - low[1])


def see(walker: Walker, camera: Camera, place: Place) -> Seen:
    """Project the walker at its place and time."""
    facing = float(np.arctan2(-place.y, -place.x))
    shape = surfaces(walker, camera, walker.pose(place.t), place.x, place.y, place.heading)
    return Seen(walker, place, shape, facing)


def render(
    people: list[Seen],
    camera: Camera,
    box: Box,
    rng: np.random.Generator,
    size: tuple[int, int] = (128, 64),
    occluded: bool = False,
    exposure: float = 0.08,
) -> tuple[Image, Image]:
    """The box as the camera delivers it, (H, W, 3) RGB, and the first one's silhouette (H, W).

    The silhouette is what can be seen of `people[0]`, 0..255, grey at its edges. The others are
    drawn too, each in its order of depth; nobody gives the empty scene and an empty silhouette.
    `exposure` is the spread of the sensor's gain from picture to picture.
    """
    height, width = size
    # The sensor's own resolution: a small box has few pixels, and enlarging it brings none back.
    sampled = int(np.clip(box.height, 40, height)) if height > 40 else height
    sampled_columns = max(16, round(sampled * width / height))
    rows, columns = SUPERSAMPLE * sampled, SUPERSAMPLE * sampled_columns
    zoom = np.array([columns / box.width, rows / box.height])
    corner = np.array([box.left, box.top])
    canvas = _crop(camera, box, (columns, rows))
    mask = np.zeros((rows, columns), np.uint8)
    for person in sorted(people, key=lambda p: -p.shape.distance):
        _shadow(canvas, camera, person.place, corner, zoom)
        _draw(canvas, mask, camera, person, corner, zoom, 255 if person is people[0] else 0)
    if occluded and people:
        metre = camera.focal / people[0].shape.distance * zoom[1]
        occlude(canvas, mask, camera, rng, scale=float(metre))
    small = cv2.resize(canvas, (sampled_columns, sampled), interpolation=cv2.INTER_AREA)
    image = _sensor(small, camera, rng, exposure)
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height))
    return image, cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)


_MARGIN = 200  # pixels by which the scene goes on outside the picture, mirrored


@lru_cache(maxsize=16)
def _scenery(camera: Camera) -> Image:
    return cv2.copyMakeBorder(
        background(camera), _MARGIN, _MARGIN, _MARGIN, _MARGIN, cv2.BORDER_REFLECT_101
    )


def _crop(camera: Camera, box: Box, size: tuple[int, int]) -> Image:
    """The empty scene in the box, enlarged to `size` (columns, rows)."""
    scenery = _scenery(camera)
    rows, columns = scenery.shape[:2]
    top = int(np.clip(box.top + _MARGIN, 0, rows - 2))
    left = int(np.clip(box.left + _MARGIN, 0, columns - 2))
    piece = scenery[top : top + max(2, round(box.height)), left : left + max(2, round(box.width))]
    return cv2.resize(piece, size)


_TURN = np.linspace(0, 2 * np.pi, 16)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=-1)


def _shadow(canvas: Image, camera: Camera, place: Place, corner: Array, zoom: Array) -> None:
    """Darken the ground under the feet and on, away from the sun."""
    away = np.array([-np.cos(camera.sun), -np.sin(camera.sun)])
    long = 0.25 + 0.55 / np.tan(0.35 + camera.sun_height)
    spots = (
        _CIRCLE[:, :1] * long * away
        + _CIRCLE[:, 1:] * 0.24 * away[::-1] * (-1, 1)
        + 0.7 * long * away
    )
    points = np.zeros((len(spots), 3))
    points[:, :2] = spots + np.array([place.x, place.y])
    pixels = (camera.project(points)[0] - corner) * zoom
    left, top, wide, tall = cv2.boundingRect(pixels.astype(np.int32))
    left, top, right, bottom = left - 6, top - 6, left + wide + 6, top + tall + 6
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(right, canvas.shape[1]), min(bottom, canvas.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    dark = np.full((y1 - y0, x1 - x0), 255, np.uint8)
    cv2.fillPoly(
        dark, [(pixels - (x0, y0)).astype(np.int32)], int(255 * (0.45 + 0.4 * camera.ambient))
    )
    dark = cv2.blur(dark, (9, 7))
    region = canvas[y0:y1, x0:x1]
    cv2.multiply(region, cv2.cvtColor(dark, cv2.COLOR_GRAY2RGB), dst=region, scale=1 / 255)


def _draw(
    canvas: Image, mask: Image, camera: Camera, person: Seen, corner: Array, zoom: Array, value: int
) -> None:
    """Paint the surfaces from far to near; `value` goes into the mask where they are."""
    shape = person.shape
    view = person.facing - person.place.heading
    u = (np.arange(VISIBLE) + 0.5) / VISIBLE * 2 - 1
    columns = (
        np.floor((view + np.arcsin(u) + np.pi) / (2 * np.pi) * COLUMNS).astype(np.intp) % COLUMNS
    )
    visible = np.ascontiguousarray(person.walker.atlas[:, columns])
    light = np.clip(camera.light(person.facing, VISIBLE) * 128, 0, 255).astype(np.uint8)
    lit = cv2.multiply(
        visible, np.broadcast_to(light[:, None], visible.shape).copy(), scale=1 / 128
    )
    rows, width = mask.shape
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP  # the supersampling smooths it
    # OpenCV takes whole numbers: sixteenths of a pixel.
    points = (np.concatenate(shape.polygons) - corner) * (zoom * 16)
    points = points.astype(np.int32)
    ends = list(accumulate((len(polygon) for polygon in shape.polygons), initial=0))
    for part in shape.order:
        outline = points[ends[part] : ends[part + 1]]
        left, top, wide, tall = cv2.boundingRect(outline)
        x0, y0 = max(left // 16 - 1, 0), max(top // 16 - 1, 0)
        x1, y1 = min((left + wide) // 16 + 2, width), min((top + tall) // 16 + 2, rows)
        if x0 >= x1 or y0 >= y1:
            continue
        stencil = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(stencil, [outline - np.array([16 * x0, 16 * y0], np.int32)], 255, shift=4)
        area = ROWS[shape.surface[part]]
        first, last = shape.span[part]
        size = area.stop - area.start
        begin = area.start + int(first * size)
        patch = lit[begin : max(area.start + int(last * size), begin + 1)]
        matrix = shape.texture(part, zoom, corner + (x0, y0) / zoom, VISIBLE, len(patch))
        painted = cv2.warpAffine(
            patch, matrix, (x1 - x0, y1 - y0), flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        if shape.tone[part] != 1.0:
            painted = cv2.convertScaleAbs(painted, alpha=shape.tone[part])
        cv2.copyTo(painted, stencil, canvas[y0:y1, x0:x1])
        cv2.fillPoly(mask, [outline], value, shift=4)


@lru_cache(maxsize=16)
def _grain(camera: Camera) -> np.ndarray:
    """Noise to cut pieces from: drawing it for each picture would cost more than the picture."""
    rng = np.random.default_rng((*camera.seed, 3))
    shared = rng.normal(0, camera.noise, (512, 512, 1)) * 0.8
    return (shared + rng.normal(0, camera.noise * 0.6, (512, 512, 3))).astype(np.int16)


def _sensor(image: Image, camera: Camera, rng: np.random.Generator, exposure: float) -> Image:
    """What the sensor makes of the light: blur, exposure, colours, noise."""
    rows, columns = image.shape[:2]
    if camera.blur > 0.25:
        image = cv2.GaussianBlur(image, (5, 5), camera.blur)
    gain = float(np.exp(rng.normal(0, exposure)))
    level = np.arange(256)[:, None] / 255
    curve = np.clip(level * np.array(camera.cast) * gain, 0, 1) ** camera.gamma
    curve = (0.5 + (curve - 0.5) * camera.contrast) * 255 + camera.lift
    grey = (1 - camera.saturation) * np.array([0.299, 0.587, 0.114])
    image = cv2.transform(image, np.eye(3) * camera.saturation + grey)
    image = cv2.LUT(image, np.clip(curve, 0, 255).astype(np.uint8)[:, None])
    grain = _grain(camera)
    down = int(rng.integers(grain.shape[0] - rows + 1))
    across = int(rng.integers(grain.shape[1] - columns + 1))
    noisy = image + grain[down : down + rows, across : across + columns]
    return np.clip(noisy, 0, 255).astype(np.uint8)
