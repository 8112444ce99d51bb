"""Thumbnails as data URIs: the page's pictures travel inside it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from reidkit.report.html import jpeg_uri
from reidkit.types import Sample

HEIGHT, WIDTH = 128, 96  # pixels that a thumbnail fits into
QUALITIES = (80, 65, 50, 35)  # of JPEG: the first with which all pictures fit into the budget
BUDGET = 4_400_000  # characters of all pictures together, so that the page stays below 5 MB

Show = Callable[[Sample], NDArray[np.uint8] | None]


class Album(Mapping[str, str]):
    """Pictures by sample name: `data:image/jpeg;base64,...`; a sample without one is absent.

    Of a tracklet the middle frame is shown, unless `show` has a picture (h, w, 3) of the sample in
    BGR. `samples` may repeat: each counts towards the budget,
    because the page holds it each time.
    """

    def __init__(
        self, samples: Iterable[Sample], budget: int = BUDGET, show: Show = lambda sample: None
    ) -> None:
        wanted = Counter(samples)
        own = {sample: show(sample) for sample in wanted}
        thumbnails = {
            sample.name: small
            for sample, image in own.items()
            if (small := thumbnail(sample) if image is None else shrink(image)) is not None
        }
        uses = Counter({sample.name: count for sample, count in wanted.items()})
        for quality in QUALITIES:
            self._uris = {name: jpeg_uri(image, quality) for name, image in thumbnails.items()}
            if sum(len(uri) * uses[name] for name, uri in self._uris.items()) <= budget:
                break
        ratios = [image.shape[0] / image.shape[1] for image in thumbnails.values()]
        self.aspect = float(np.median(ratios)) if ratios else 2.0  # height over width

    def __getitem__(self, name: str) -> str:
        return self._uris[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._uris)

    def __len__(self) -> int:
        return len(self._uris)


def thumbnail(sample: Sample) -> NDArray[np.uint8] | None:
    """The middle frame in BGR (h, w, 3) within HEIGHT x WIDTH, None where it cannot be read."""
    if not sample.frames:
        return None
    try:
        data = np.fromfile(sample.frames[len(sample.frames) // 2], dtype=np.uint8)
    except (OSError, ValueError):
        return None
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    return None if image is None else shrink(image)


def shrink(image: NDArray) -> NDArray[np.uint8]:
    """The picture (h, w, 3) brought within HEIGHT x WIDTH."""
    scale = min(HEIGHT / image.shape[0], WIDTH / image.shape[1], 1.0)
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
