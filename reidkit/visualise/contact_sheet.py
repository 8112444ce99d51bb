"""One identity on one sheet: all its tracklets, to be looked over."""

from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from reidkit.types import Sample
from reidkit.visualise.common import QUERY, literal, save, seen, where

DPI = 100
CELL, GAP, CAPTION, HEAD, EDGE = 92, 10, 30, 46, 14  # pixels
FEWEST = 5  # columns, so that a title has room
GROUND, HOLE = 255, 217  # grey values: the sheet, and a picture that cannot be read


def contact_sheet(
    path: str | Path,
    samples: Sequence[Sample],
    *,
    show: Callable[[Sample], NDArray[np.uint8] | None] = lambda sample: None,
    title: str,
    confidences: Sequence[float] | None = None,
    captions: Sequence[str] | None = None,
    columns: int = 10,
    most: int = 100,
) -> None:
    """Write a PNG or JPEG, by the ending: a thumbnail a sample with its camera and confidence.

    Of more than `most` samples the first are shown, and the title says so. A picture that cannot be
    read is a grey box. Of a tracklet the middle frame is shown, unless `show` has a picture
    (h, w, 3) of the sample in RGB. `captions` (N,) stand in the place of camera and confidence.
    Replaced atomically.

    Raises:
        ValueError: there are no samples, another number of confidences or captions, a number of
            columns or samples to show below 1, or another ending.
    """
    path = Path(path)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"contact sheet {path}: expected a name that ends in .png, .jpg or .jpeg")
    if not samples or columns < 1 or most < 1:
        raise ValueError(
            f"a contact sheet of {len(samples)} samples in {columns} columns, at most {most}: "
            "expected at least one of each"
        )
    for name, words in (("confidences", confidences), ("captions", captions)):
        if words is not None and len(words) != len(samples):
            raise ValueError(f"{len(words)} {name} for {len(samples)} samples; give one of each")
    lines = [_caption(i, sample, confidences, captions) for i, sample in enumerate(samples[:most])]
    pictures = [seen(sample, show) for sample in samples[:most]]
    known = [image.shape[0] / image.shape[1] for image in pictures if image is not None]
    height = round(CELL * float(np.clip(np.median(known), 0.6, 2.2))) if known else 2 * CELL
    across = min(columns, len(pictures))
    width = 2 * EDGE + max(across, FEWEST) * (CELL + GAP) - GAP
    total = HEAD + ceil(len(pictures) / across) * (height + CAPTION + GAP) + EDGE - GAP
    sheet = np.full((total, width, 3), GROUND, np.uint8)
    figure = Figure(figsize=(width / DPI, total / DPI), dpi=DPI, facecolor="white")
    left_out = f"  ({most} of {len(samples):,} shown)" if len(samples) > most else ""
    figure.text(
        EDGE / width,
        1 - HEAD / 2 / total,
        literal(title + left_out),
        size=11,
        weight="bold",
        va="center",
    )
    for number, (image, words) in enumerate(zip(pictures, lines, strict=True)):
        row, column = divmod(number, across)
        x, y = EDGE + column * (CELL + GAP), HEAD + row * (height + CAPTION + GAP)
        _paste(sheet[y : y + height, x : x + CELL], image)
        figure.text(
            (x + CELL / 2) / width,
            1 - (y + height + 4) / total,
            literal(words),
            size=7.5,
            color=QUERY,
            ha="center",
            va="top",
            linespacing=1.1,
        )
    figure.figimage(sheet, 0, 0, origin="upper")
    save(figure, path)


def _caption(
    i: int,
    sample: Sample,
    confidences: Sequence[float] | None,
    captions: Sequence[str] | None,
) -> str:
    if captions is not None:
        return captions[i]
    sure = "" if confidences is None else f"{confidences[i]:.2f}"
    return "\n".join(line for line in (where(sample), sure) if line)


def _paste(cell: NDArray[np.uint8], image: NDArray[np.uint8] | None) -> None:
    """Fill the cell (h, w, 3) with the picture in its own form, in the middle."""
    height, width, _ = cell.shape
    cell[:] = HOLE if image is None else 242
    if image is None:
        return
    scale = min(height / image.shape[0], width / image.shape[1])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(np.ascontiguousarray(image), size, interpolation=method)
    x, y = (width - size[0]) // 2, (height - size[1]) // 2
    cell[y : y + size[1], x : x + size[0]] = small
