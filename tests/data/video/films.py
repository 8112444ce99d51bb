"""Small films for the tests: figures of an ellipse, a box and two legs before a textured wall."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

HEIGHT, WIDTH = 160, 240


def wall(seed=0, columns=WIDTH):
    rng = np.random.default_rng(seed)
    small = rng.uniform(90, 170, (HEIGHT // 8, columns // 8, 3)).astype(np.float32)
    return cv2.resize(small, (columns, HEIGHT), interpolation=cv2.INTER_CUBIC)


def figure(x, bottom, tall, step, size=(HEIGHT, WIDTH)):
    """The mask of a walker whose middle is at x; `step` opens and closes the legs."""
    mask = np.zeros(size, np.uint8)
    x, unit = round(x), tall / 8
    top = bottom - tall
    cv2.circle(mask, (x, round(top + 0.8 * unit)), round(0.8 * unit), 255, -1)
    cv2.ellipse(
        mask, (x, round(top + 3.2 * unit)), (round(unit), round(2 * unit)), 0, 0, 360, 255, -1
    )
    swing = 1.5 * unit * np.sin(step)
    for foot in (swing, -swing):
        start, end = (x, round(top + 4.6 * unit)), (round(x + foot), round(bottom - 0.3 * unit))
        cv2.line(mask, start, end, 255, max(2, round(0.8 * unit)))
    return mask


def write_film(path: Path, frames: Iterable[np.ndarray], fps=25.0) -> Path:
    writer = None
    for frame in frames:
        if writer is None:
            size = frame.shape[1], frame.shape[0]
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
            assert writer.isOpened()
        writer.write(frame)
    writer.release()
    return path


def film(walkers, *, frames=60, seed=0, noise=3.0):
    """Frames (H, W, 3) and truths (walkers, H, W) of walkers (x0, speed, bottom, tall, colour)."""
    rng = np.random.default_rng((seed, 1))
    scene = wall(seed)
    pictures, truths = [], []
    for number in range(frames):
        picture, masks = scene.copy(), []
        for x, speed, bottom, tall, colour in walkers:
            mask = figure(x + speed * number, bottom, tall, 0.4 * number)
            picture[mask > 0] = colour
            masks = [np.where(mask > 0, 0, other) for other in masks] + [mask]
        picture = picture + rng.normal(0, noise, picture.shape)
        pictures.append(np.clip(picture, 0, 255).astype(np.uint8))
        truths.append(np.array(masks))
    return pictures, truths
