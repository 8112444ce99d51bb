"""An embedding map as one HTML page: points to look at, and what to believe of them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from reidkit.files import write_atomically
from reidkit.report.album import Show, thumbnail
from reidkit.report.html import environment, file_name, jpeg_uri, part, policy
from reidkit.report.page import own_file
from reidkit.types import Sample

# Heights in pixels and qualities of JPEG: the first with which all pictures fit into the budget.
SIZES = ((96, 75), (96, 55), (64, 60), (48, 55), (32, 50))
BUDGET = 12_000_000  # characters of all pictures together


@dataclass(frozen=True, eq=False)
class MapPage:
    """All that a map's page is made of.

    coordinates (N, 2) belong to `samples`; `lead`, `method` and `notes` are sentences; `shares` are
    those of first neighbours with the same identity in the full space and in the map, in [0, 1],
    over `counted` samples, None where no identity has two.
    """

    title: str
    lead: str
    samples: Sequence[Sample]
    coordinates: NDArray[np.floating]
    method: Sequence[str]
    shares: tuple[float, float] | None
    counted: int = 0
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.coordinates.shape != (len(self.samples), 2):
            raise ValueError(
                f"coordinates of shape {self.coordinates.shape} for {len(self.samples)} samples; "
                "expected (N, 2), one row a sample"
            )


@dataclass(frozen=True, slots=True)
class Grouping:
    """What points can be coloured by: the group's label and number of every sample, -1 where it is
    unknown."""

    name: str
    labels: tuple[str, ...]
    of: tuple[int, ...]


def write_map(
    path: str | Path, page: MapPage, *, show: Show = own_file, pictures: bool = True
) -> list[str]:
    """Write the page, replaced atomically, and return what it says of its pictures.

    `show` as in `write_report`. No request leaves the page.
    """
    text, remarks = render_map(page, show=show, pictures=pictures)
    write_atomically(Path(path), text.encode(errors="replace"))
    return remarks


def render_map(
    page: MapPage, *, show: Show = own_file, pictures: bool = True
) -> tuple[str, list[str]]:
    """The page as text, equal for equal records and files, and its remarks on its pictures."""
    shown, remarks = thumbnails(page.samples, show) if pictures else ([], [])
    style, script = part("page.css") + part("map.css"), part("map.js")
    text = (
        environment()
        .from_string(part("map.html.jinja"))
        .render(
            page=page,
            notes=[*page.notes, *remarks],
            style=Markup(style),
            script=Markup(script),
            points=Markup(in_script(points_of(page, shown))),
            policy=policy(style, script),
        )
    )
    return text, remarks


def points_of(page: MapPage, pictures: Sequence[str]) -> dict[str, Any]:
    """What the page's script reads, column by column; coordinates within [-0.5, 0.5]."""
    low, high = page.coordinates.min(0), page.coordinates.max(0)
    span = max(float((high - low).max()), np.finfo(float).tiny)
    placed = (page.coordinates - (low + high) / 2) / span
    return {
        "x": [round(float(x), 5) for x in placed[:, 0]],
        "y": [round(float(y), 5) for y in placed[:, 1]],
        "names": [file_name(sample) for sample in page.samples],
        "pictures": list(pictures),
        "groupings": [
            {"name": one.name, "labels": one.labels, "of": one.of}
            for one in groupings(page.samples)
        ],
    }


def in_script(value: Any) -> str:
    """JSON that no text within can end the script element of: its <, > and & are escapes."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def groupings(samples: Sequence[Sample]) -> list[Grouping]:
    """Identity and camera, then those of domain, condition and view that differ among samples."""
    several = len({sample.domain for sample in samples}) > 1
    found = [
        _grouping(
            "identity",
            [(s.domain, s.pid) if s.pid >= 0 else None for s in samples],
            lambda key: f"{key[1]} ({key[0]})" if several and key[0] else str(key[1]),
        ),
        _grouping(
            "camera",
            [s.camid if s.camid >= 0 else None for s in samples],
            lambda key: str(key + 1),
        ),
    ]
    for name in ("domain", "condition", "view"):
        values = [getattr(sample, name) or None for sample in samples]
        if len(set(values)) > 1:
            found.append(_grouping(name, values, str))
    return found


def _grouping(name: str, values: Sequence[Any], label: Any) -> Grouping:
    keys = sorted({value for value in values if value is not None})
    number = {key: place for place, key in enumerate(keys)}
    of = tuple(-1 if value is None else number[value] for value in values)
    return Grouping(name, tuple(label(key) for key in keys), of)


def thumbnails(
    samples: Sequence[Sample], show: Show = own_file, budget: int = BUDGET
) -> tuple[list[str], list[str]]:
    """A data URI for every sample, "" where there is no picture, and sentences about what is
    missing; an empty list where none is left."""
    images = [_small(sample, show) for sample in samples]
    missing = sum(image is None for image in images)
    if missing == len(images):
        return [], ["No picture could be read: the page is without pictures."]
    remarks = []
    if missing:
        remarks.append(f"{missing:,} of {len(images):,} pictures could not be read.")
    for height, quality in SIZES:
        uris = list(_within(images, height, quality, budget))
        if len(uris) == len(images):
            return uris, remarks
    return [], [f"{len(images):,} pictures are too many for one page: it is without pictures."]


def _within(
    images: Sequence[NDArray[np.uint8] | None], height: int, quality: int, budget: int
) -> Iterator[str]:
    """Data URIs up to the first that would not fit."""
    for image in images:
        uri = "" if image is None else jpeg_uri(_lower(image, height), quality)
        budget -= len(uri)
        if budget < 0:
            return
        yield uri


def _small(sample: Sample, show: Show) -> NDArray[np.uint8] | None:
    image = show(sample)
    image = thumbnail(sample) if image is None else image
    return None if image is None else _lower(image, SIZES[0][0])


def _lower(image: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    """The picture (h, w, 3) brought to at most this height, and twice it in width."""
    scale = min(height / image.shape[0], 2 * height / image.shape[1], 1.0)
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
