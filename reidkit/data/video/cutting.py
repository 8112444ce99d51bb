"""The pictures of a sequence and a table of its boxes -> crops of its tracklets."""

import math
import os
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from reidkit.data.benchmarks import is_image
from reidkit.data.video.reading import Image

PICTURES = "img1"
PEDESTRIAN, UNKNOWN = 1, -1
QUALITY = 95  # of a crop's JPEG
FORM = "frame,id,left,top,width,height[,confidence[,class,visibility | ,x,y,z]]"


class TrackBox(NamedTuple):
    """Where a track is in one frame; pixels, `left` and `top` from 0, may reach out of it."""

    frame: int
    track: int
    left: float
    top: float
    width: float
    height: float


class CutReport(NamedTuple):
    """How many tracklets and crops were written, and how many boxes were too small."""

    tracklets: int
    crops: int
    small: int


def cut_tracklets(
    sequence: str | Path,
    boxes: str | Path,
    out: str | Path,
    *,
    min_visibility: float = 0.5,
    min_height: int = 64,
    every: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> CutReport:
    """Cut the tracklets of a MOTChallenge sequence out of its pictures.

    Crops are `OUT/SEQUENCE/ID/FRAME.jpg`, as the benchmark `mot` reads them; the folder
    `OUT/SEQUENCE` appears when it is whole.

    Args:
        sequence: folder with `img1/000001.jpg ...`; its name becomes the crops'.
        boxes: ground truth or a tracker's result, see `read_boxes`.
        out: folder of all cut sequences.
        min_visibility: least share of a person that is to be seen, [0, 1], where the table knows.
        min_height: least height of a crop, in pixels within the picture.
        every: only one of so many frames, from the first one that has boxes.
        progress: told how many frames are done, and of how many.

    Raises FileNotFoundError for a missing folder, table or picture, and ValueError for a table that
    is none, a picture that cannot be decoded, a sequence that is there already, and where no box is
    left.
    """
    sequence, boxes = Path(sequence), Path(boxes)
    if not 0 <= min_visibility <= 1 or min_height < 1 or every < 1:
        raise ValueError(
            f"min_visibility {min_visibility}, min_height {min_height}, every {every}; expected "
            "within [0, 1], 1 or more, 1 or more"
        )
    target = Path(out) / sequence.resolve().name
    if target.exists():
        raise ValueError(f"{target} is there already; delete it or name another folder")
    frames = frames_by_number(sequence)
    wanted = read_boxes(boxes, min_visibility)
    first = min(wanted)
    wanted = {frame: wanted[frame] for frame in sorted(wanted) if (frame - first) % every == 0}
    absent = [frame for frame in wanted if frame not in frames]
    if absent:
        raise FileNotFoundError(
            f"{boxes} has boxes in frame {absent[0]}, but {sequence / PICTURES} has no picture of "
            f"it (nor of {len(absent) - 1:,} others): is it the table of this sequence?"
        )
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        report = write_crops(frames, wanted, partial, min_height, progress)
        if not report.crops:
            raise ValueError(f"{boxes}: all {report.small:,} boxes are lower than {min_height}")
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def frames_by_number(sequence: Path) -> dict[int, Path]:
    """The pictures of a sequence by their numbers; FileNotFoundError where there are none."""
    folder = sequence / PICTURES
    found = [path for path in folder.iterdir() if is_image(path)] if folder.is_dir() else []
    numbered = {int(path.stem): path for path in found if path.stem.isdecimal()}
    if not numbered:
        raise FileNotFoundError(
            f"no pictures such as {folder / '000001.jpg'}; expected a sequence of MOTChallenge, "
            "its frames in img1"
        )
    return numbered


def read_boxes(path: Path, min_visibility: float = 0.0) -> dict[int, list[TrackBox]]:
    """The boxes of pedestrians in a table of MOTChallenge, by frame, in the order of the file.

    Lines are `frame,id,left,top,width,height,confidence,class,visibility` in ground truth, and end
    in `,-1,-1,-1` or a place in the world in results. Frames and pixels count from 1. Left out are
    a confidence of 0 ("not considered"), other classes than 1, and what is less visible than asked.

    Raises FileNotFoundError for no file, ValueError for a line of another form, for detections
    without an id, for an id twice in one frame, and where nothing is left.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no table {path}; expected lines {FORM}")
    boxes: dict[int, list[TrackBox]] = defaultdict(list)
    seen: set[tuple[int, int]] = set()
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        cells = cells_of(line, where)
        frame, track = int(cells[0]), int(cells[1])
        if track < 0:
            raise ValueError(
                f"{where}: id {track}; these are detections, expected tracks: ground truth or a "
                "tracker's result"
            )
        if not is_wanted(cells, min_visibility):
            continue
        if (frame, track) in seen:
            raise ValueError(f"{where}: id {track} is in frame {frame} already; expected one box")
        seen.add((frame, track))
        left, top, width, height = cells[2:6]
        boxes[frame].append(TrackBox(frame, track, left - 1, top - 1, width, height))
    if not boxes:
        raise ValueError(f"{path} has no box of a pedestrian that is visible enough")
    return dict(boxes)


def cells_of(line: str, where: str) -> list[float]:
    """The numbers of a line; ValueError where they are too few or no numbers."""
    try:
        cells = [float(cell) for cell in line.split(",")]
    except ValueError as error:
        raise ValueError(f"{where} is {line[:80]!r}, expected numbers {FORM}") from error
    if len(cells) < 6 or not all(math.isfinite(cell) for cell in cells):
        raise ValueError(f"{where} is {line[:80]!r}, expected six or more numbers {FORM}")
    if cells[0] % 1 or cells[1] % 1:
        raise ValueError(f"{where}: frame {cells[0]} and id {cells[1]}, expected whole numbers")
    return cells


def is_wanted(cells: list[float], min_visibility: float) -> bool:
    """Whether a box is considered, a pedestrian's, and visible enough, as far as that is told."""
    if len(cells) > 6 and cells[6] == 0:
        return False
    if len(cells) != 9:
        return True
    kind, visibility = cells[7:]
    return kind in (PEDESTRIAN, UNKNOWN) and (visibility < 0 or visibility >= min_visibility)


def write_crops(
    frames: dict[int, Path],
    wanted: dict[int, list[TrackBox]],
    folder: Path,
    min_height: int,
    progress: Callable[[int, int], None] | None,
) -> CutReport:
    """Write the crops of all boxes into `folder`, one picture read after the other."""
    tracks: set[int] = set()
    crops = small = 0
    for done, (frame, boxes) in enumerate(wanted.items(), start=1):
        picture = cv2.imread(str(frames[frame]), cv2.IMREAD_COLOR)
        if picture is None:
            raise ValueError(f"{frames[frame]} cannot be decoded; unpack the sequence again")
        for box in boxes:
            crop = cut(np.asarray(picture, np.uint8), box)
            if crop.shape[0] < min_height or not crop.shape[1]:
                small += 1
                continue
            tracks.add(box.track)
            crops += 1
            _, jpeg = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
            path = folder / f"{box.track:04d}" / f"{frame:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg.tobytes())
        if progress is not None:
            progress(done, len(wanted))
    return CutReport(len(tracks), crops, small)


def cut(picture: Image, box: TrackBox) -> Image:
    """The part of a picture (H, W, 3) within a box; empty where they do not meet."""
    left, top = max(round(box.left), 0), max(round(box.top), 0)
    right, bottom = round(box.left + box.width), round(box.top + box.height)
    return picture[top : max(bottom, 0), left : max(right, 0)]
