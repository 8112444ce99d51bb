"""What the pictures share: colours, what a sample looks like, short words, and the saving."""

import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from reidkit.files import replacing
from reidkit.types import Sample

RIGHT, WRONG, QUERY, MUTED = "#1a9850", "#d73027", "#333333", "#777777"
# A name in a script the font lacks is drawn as boxes; nobody who labels can do anything about it.
SCRIPTS = r"Glyph .* missing from|Matplotlib currently does not support .* natively"
COLOURS = ("#1f77b4", "#ff7f0e", "#9467bd", "#8c564b", "#17becf", "#e377c2", "#7f7f7f", "#bcbd22")


def where(sample: Sample) -> str:
    """The view of a gait sequence, else the camera, as far as they are known."""
    if sample.view:
        return f"view {sample.view}"
    return f"camera {sample.camid + 1}" if sample.camid >= 0 else ""


def picture(sample: Sample) -> NDArray[np.uint8] | None:
    """The middle frame in RGB, (H, W, 3), or None where it cannot be read."""
    if not sample.frames:
        return None
    try:
        data = np.fromfile(sample.frames[len(sample.frames) // 2], dtype=np.uint8)
    except OSError:
        return None
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    return None if image is None else image[:, :, ::-1].astype(np.uint8)


def short(name: str) -> str:
    """A name in at most 34 characters, on one line."""
    return textwrap.shorten(name, 34, placeholder="...")


def literal(text: str) -> str:
    """A text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")


def counted(number: int, what: str) -> str:
    """So many of what, in its plural where there are not one."""
    many = {"identity": "identities", "branch": "branches"}.get(what, f"{what}s")
    return f"{number:,} {what if number == 1 else many}"


def seen(
    sample: Sample, show: Callable[[Sample], NDArray[np.uint8] | None]
) -> NDArray[np.uint8] | None:
    """What `show` has of the sample, else its middle frame, RGB (H, W, 3); None where neither can
    be read."""
    try:
        image = show(sample)
    except (OSError, ValueError):
        return None
    return picture(sample) if image is None else image


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG, or as a JPEG where the name ends so; replaced atomically."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings(), replacing(path) as file:
        warnings.filterwarnings("ignore", SCRIPTS)
        if path.suffix.lower() in (".jpg", ".jpeg"):
            canvas.print_jpg(file)
        else:
            canvas.print_png(file)
