"""Frames of a video file, one after the other, through OpenCV's FFmpeg."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

# Text files that FFmpeg follows to other files or to the network: no video of the user's.
PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD", b"[playlist]", b"v=0")
FFMPEG_LOG = "OPENCV_FFMPEG_LOGLEVEL"
REPAIR = "copy it again, or repair it with `ffmpeg -i IN -c copy OUT`"
LOST = 0.05  # share of the promised frames by which a container's count may be wrong

# Files that are taken for videos by their names.
SUFFIXES = frozenset({".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm"})


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What the file promises: `frames` (0 where it does not say), a second, height and width."""

    frames: int
    fps: float
    size: tuple[int, int]


def video_facts(path: str | Path) -> VideoFacts:
    """What a video says of itself; its first frame is decoded, the others are not.

    Raises as `frames_of` does.
    """
    with _opened(Path(path)) as (capture, first):
        return _facts(capture, first)


def frames_of(path: str | Path) -> Iterator[Image]:
    """The frames of a video, (H, W, 3) uint8 BGR, upright as the file says.

    Raises FileNotFoundError for no file, and ValueError for a file that is no video or empty, for
    a codec that OpenCV has not, and, after the last frame, where the file promised more of them.
    """
    path = Path(path)
    with _opened(path) as (capture, first):
        promised = _facts(capture, first).frames
        count = 0
        frame: Image | None = first
        while frame is not None:
            if frame.shape != first.shape:
                raise ValueError(
                    f"{path}: frame {count} is {_size(frame)}, the first is {_size(first)}; "
                    "a video of one size is expected"
                )
            count += 1
            yield frame
            frame = _next(capture)
        if count < promised * (1 - LOST) - 2:
            raise ValueError(
                f"{path} is cut off or damaged: {count:,} of {promised:,} frames can be read; "
                f"{REPAIR}"
            )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[cv2.VideoCapture, Image]]:
    """The capture and its first frame."""
    _check(path)
    with _quiet():
        # FFmpeg alone: other backends take a picture, or a name with %d, for a video.
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise ValueError(
                f"{path} is no video that OpenCV can open, or is cut off, or its codec is missing; "
                f"expected MP4, AVI, MKV or the like: {REPAIR}"
            )
        first = _next(capture)
        if first is None:
            raise ValueError(
                f"{path}: not one frame can be decoded; it holds no pictures, is cut off, or its "
                "codec is missing: convert it with `ffmpeg -i IN -c:v libx264 OUT.mp4`"
            )
        yield capture, first
    finally:
        capture.release()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines that OpenCV and FFmpeg print about what the exception says.

    FFmpeg takes its level with the first video of a process, so it listens only then.
    """
    level = cv2.utils.logging.getLogLevel()
    wish = os.environ.get(FFMPEG_LOG)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ.setdefault(FFMPEG_LOG, "-8")
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
        if wish is None:
            del os.environ[FFMPEG_LOG]


def _check(path: Path) -> None:
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "absent"
        raise FileNotFoundError(f"{path} is {kind}, expected a video file")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    if not head:
        raise ValueError(f"{path} is empty (0 bytes), expected a video")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(PLAYLISTS):
        raise ValueError(f"{path} is a playlist or another text, expected a video file")


def _next(capture: cv2.VideoCapture) -> Image | None:
    found, frame = capture.read()
    return np.asarray(frame, np.uint8) if found and frame is not None else None


def _facts(capture: cv2.VideoCapture, first: Image) -> VideoFacts:
    frames, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    # Streams without a count give a large negative number or nothing.
    known = np.isfinite(frames) and 0 < frames < 1e9
    height, width = first.shape[:2]
    rate = float(fps) if np.isfinite(fps) and 0 < fps < 1e4 else 0.0
    return VideoFacts(int(frames) if known else 0, rate, (height, width))


def _size(frame: Image) -> str:
    return f"{frame.shape[1]} x {frame.shape[0]}"
