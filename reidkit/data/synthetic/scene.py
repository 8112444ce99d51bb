"""What a camera sees without people: ground, wall, and things that stand in the way."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from reidkit.data.synthetic.camera import Camera
from reidkit.data.synthetic.clothes import Image

_GROUNDS = ("paving", "asphalt", "grass", "brick", "path")
_WALLS = ("windows", "brick", "hedge", "shops", "panels", "fence")


def _noise(rng: np.random.Generator, shape: tuple[int, int], cell: int) -> NDArray:
    """Smooth noise in about [-1, 1] with features of `cell` pixels."""
    small = rng.normal(size=(shape[0] // cell + 2, shape[1] // cell + 2)).astype(np.float32)
    return cv2.resize(small, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def _grey(rng: np.random.Generator, low: float, high: float, tint: float = 5) -> NDArray:
    return rng.uniform(low, high) + rng.normal(0, tint, 3)


@lru_cache(maxsize=16)
def background(camera: Camera) -> Image:
    """The empty scene, (camera.rows, camera.width, 3) RGB; the same camera always sees the same."""
    rng = np.random.default_rng((*camera.seed, 1))
    rows, columns = camera.rows, camera.width
    right = (np.arange(columns) + 0.5 - columns / 2)[None, :] / camera.focal + np.zeros((rows, 1))
    down = (np.arange(rows) + 0.5 - rows / 2)[:, None] / camera.focal + np.zeros((1, columns))
    sine, cosine = np.sin(camera.pitch), np.cos(camera.pitch)
    forward, up = cosine - sine * down, -sine - cosine * down
    distance = camera.far + rng.uniform(1.5, 6)
    ground = up * distance / forward < -camera.height
    reach = np.where(ground, -camera.height / np.minimum(up, -1e-3), distance / forward)
    x, y, z = forward * reach, -right * reach, camera.height + up * reach
    grain = _noise(rng, (rows, columns), 2) * 5 + _noise(rng, (rows, columns), 24) * 6
    floor = _ground(rng, x, y, grain)
    wall = _wall(rng, y + rng.uniform(-9, 9), z, grain)
    image = np.where(ground[..., None], floor, wall)
    shade = 1 + 0.10 * _noise(rng, (rows, columns), 120)
    band = np.abs(z) * 1.3
    contact = np.where(~ground, 0.75 + 0.25 * np.clip(band, 0, 1), 1.0)
    image = image * (shade * contact)[..., None] * rng.uniform(0.9, 1.1)
    return np.clip(image, 0, 255).astype(np.uint8)


def _ground(rng: np.random.Generator, x: NDArray, y: NDArray, grain: NDArray) -> NDArray:
    kind = _GROUNDS[int(rng.integers(len(_GROUNDS)))]
    turn = rng.uniform(0, np.pi)
    a, b = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    base = _grey(rng, 120, 170)
    if kind == "grass":
        base = np.array([118, 138, 88]) + rng.normal(0, 5, 3)
        grain = grain * 2.4
    colour = base + grain[..., None]
    if kind in ("paving", "brick"):
        long, wide = (0.9, 0.6) if kind == "paving" else (0.42, 0.2)
        row = np.floor(b / wide)
        along = a / long + 0.5 * (row % 2)
        tone = np.sin(np.floor(along) * 12.99 + row * 78.2) * 9
        joint = (along % 1 < 0.05) | ((b / wide) % 1 < 0.07)
        tint = np.array([1.0, 1.0, 1.0] if kind == "paving" else [1.04, 0.92, 0.86])
        colour = (colour + tone[..., None]) * tint
        colour = np.where(joint[..., None], colour * 0.72, colour)
    elif kind == "path":
        kerb = np.abs(b - rng.uniform(-2, 2)) - 1.9
        colour = np.where(
            (kerb > 0)[..., None], np.array([92, 112, 66]) + 2 * grain[..., None], colour
        )
        colour = np.where((np.abs(kerb) < 0.09)[..., None], 186 + grain[..., None], colour)
    elif kind == "asphalt":
        line = (np.abs(b % 5 - 2.5) < 0.07) & (a % 3 < 1.9)
        colour = np.where(line[..., None], 205 + grain[..., None], colour * 0.75)
    return colour


def _wall(rng: np.random.Generator, y: NDArray, z: NDArray, grain: NDArray) -> NDArray:
    kind = _WALLS[int(rng.integers(len(_WALLS)))]
    base = _grey(rng, 110, 185, 8)
    colour = base + grain[..., None]
    second = _grey(rng, 60, 110, 10)
    if kind == "windows":
        window = ((y % 2.4) / 2.4 < 0.55) & (np.abs(z % 3.0 - 1.75) < 0.75)
        frame = ((y % 2.4) / 2.4 < 0.62) & (np.abs(z % 3.0 - 1.75) < 0.85)
        glass = np.array([78, 96, 112]) + 26 * ((y + z) % 2.4 < 0.9)[..., None] + grain[..., None]
        colour = np.where(frame[..., None], base * 0.6 + 80, colour)
        colour = np.where(window[..., None], glass, colour)
    elif kind == "brick":
        row = np.floor(z / 0.16)
        along = y / 0.46 + 0.5 * (row % 2)
        tone = np.sin(np.floor(along) * 12.99 + row * 78.2)[..., None] * 13
        joint = (along % 1 < 0.06) | ((z / 0.16) % 1 < 0.14)
        brick = np.array([152, 92, 74]) * rng.uniform(0.8, 1.15) + tone + grain[..., None]
        colour = np.where(joint[..., None], 150 + grain[..., None], brick)
    elif kind == "hedge":
        leaf = grain * 3.4
        top = z > 2.0 + 0.15 * np.sin(y * 2.1)
        colour = np.array([78, 104, 66]) + leaf[..., None]
        colour = np.where(
            top[..., None], np.array([178, 190, 204]) + 0.6 * grain[..., None], colour
        )
    elif kind == "shops":
        bay = np.floor(y / 3.2)
        awning = np.stack([np.sin(bay * k + k) for k in (2.1, 3.7, 5.3)], axis=-1) * 55 + 125
        glass = (
            np.array([64, 72, 80]) + 34 * np.exp(-((z - 1.3) ** 2))[..., None] + grain[..., None]
        )
        colour = np.where((z < 2.5)[..., None], glass, colour)
        colour = np.where((np.abs(z - 2.7) < 0.3)[..., None], awning, colour)
        post = ((y / 3.2) % 1 < 0.07) | (z < 0.35)
        colour = np.where(post[..., None], second + grain[..., None], colour)
    elif kind == "panels":
        seam = ((y / 1.5) % 1 < 0.03) | ((z / 1.1) % 1 < 0.04)
        tone = np.sin(np.floor(y / 1.5) * 4.7)[..., None] * 8
        colour = np.where(seam[..., None], second, colour + tone)
    else:
        rail = ((y / 0.28) % 1 < 0.22) | (np.abs(z - 0.25) < 0.05) | (np.abs(z - 1.7) < 0.05)
        behind = (
            np.array([112, 134, 104]) + 2.5 * grain[..., None] + 22 * np.clip(z, 0, 4)[..., None]
        )
        colour = np.where((rail & (z < 1.85))[..., None], second * 0.8, behind)
    return colour


def occlude(
    canvas: Image, mask: Image, camera: Camera, rng: np.random.Generator, scale: float
) -> None:
    """Put one of the camera's obstacles before the person, in place; `scale`: pixels a metre."""
    own = np.random.default_rng((*camera.seed, 2, int(rng.integers(3))))
    height, width = mask.shape
    colour = np.clip(_grey(own, 55, 185, 16), 10, 245)
    kind = own.choice(["post", "box", "bush", "rail"])
    shape = np.zeros_like(mask)
    middle = float(rng.uniform(0.05, 0.95)) * width
    if kind == "post":
        half = own.uniform(0.06, 0.13) * scale
        cv2.rectangle(shape, (int(middle - half), 0), (int(middle + half), height), 255, -1)
    elif kind == "box":
        half, top = own.uniform(0.25, 0.5) * scale, height - own.uniform(0.45, 0.95) * scale
        cv2.rectangle(shape, (int(middle - half), int(top)), (int(middle + half), height), 255, -1)
    elif kind == "bush":
        top = height - own.uniform(0.35, 0.75) * scale
        for step in range(-4, 5):
            centre = (
                int(middle + step * 0.16 * scale),
                int(top + abs(step) * 0.05 * scale + 0.3 * scale),
            )
            cv2.circle(shape, centre, int(rng.uniform(0.18, 0.34) * scale), 255, -1)
        shape[
            int(top + 0.4 * scale) :, max(0, int(middle - 0.7 * scale)) : int(middle + 0.7 * scale)
        ] = 255
        colour = np.array([74, 100, 60]) * own.uniform(0.8, 1.3)
    else:
        for level in (0.15, 0.55, 0.95):
            y = int(height - level * scale)
            cv2.rectangle(shape, (0, y), (width, y + max(2, int(0.06 * scale))), 255, -1)
        x = int(middle)
        cv2.rectangle(
            shape, (x, int(height - scale)), (x + max(2, int(0.07 * scale)), height), 255, -1
        )
    shade = np.linspace(1.15, 0.8, width)[None, :, None]
    texture = own.integers(-14, 15, (height // 4 + 1, width // 4 + 1, 1)).repeat(4, 0).repeat(4, 1)
    painted = np.clip(colour * shade + texture[:height, :width], 0, 255).astype(np.uint8)
    cv2.copyTo(painted, shape, canvas)
    mask[shape > 0] = 0
