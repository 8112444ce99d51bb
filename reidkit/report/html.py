"""What the pages share: their templates, what may run in them, and how things are written."""

import base64
import hashlib
import math
from importlib.resources import files
from pathlib import PurePath

import cv2
import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray

from reidkit.types import Sample


def part(name: str) -> str:
    """A file of this folder: a template, a style or a script."""
    return (files("reidkit.report") / name).read_text(encoding="utf-8")


def environment() -> Environment:
    """Where templates are rendered: every word that comes in is escaped."""
    made = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters.update(percent=percent, number=number)
    return made


def policy(style: str, script: str) -> str:
    """A content security policy: nothing may be asked for, and the one script and the one style are
    known by their hashes, so that none that came in by a file's name could run."""
    return (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    )


def file_name(sample: Sample) -> str:
    """A file's own name, or what the sample is called."""
    if not sample.frames:
        return sample.name
    return PurePath(sample.frames[len(sample.frames) // 2].replace("\\", "/")).name


def percent(value: float, digits: int = 1) -> str:
    """A fraction in percent, a dash where it is not a number."""
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f}%"


def number(value: int) -> str:
    """A count with its thousands apart."""
    return f"{value:,}"


def jpeg_uri(image: NDArray[np.uint8], quality: int) -> str:
    """A picture (h, w, 3) in BGR as a data URI."""
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "OpenCV encodes what it decoded"
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
