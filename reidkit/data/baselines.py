"""Features without learning: what a trained model has to beat."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from reidkit.data.clips import energy_image
from reidkit.data.frames import FrameSampling
from reidkit.data.lomo import lomo
from reidkit.types import Features, Metric, Sample


def raw_pixels(samples: Sequence[Sample], size: tuple[int, int] = (32, 16)) -> Features:
    """The pictures themselves, small: L2-normalised vectors (N, 3 * H * W) of the first frames.

    Each channel loses its mean and takes unit spread first, which undoes a camera's brightness and
    colour cast.
    """

    def describe(image: NDArray) -> NDArray:
        small = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
        pixels = small.astype(np.float32)
        pixels -= pixels.mean(axis=(0, 1))
        pixels /= pixels.std(axis=(0, 1)) + 1.0
        return pixels.ravel()

    return _features(samples, describe)


def colour_histogram(samples: Sequence[Sample], stripes: int = 6, bins: int = 8) -> Features:
    """Lab histograms of horizontal stripes, (N, stripes * (bins² + bins)): a and b jointly, then L.

    Stripes as in Gray and Tao, ECCV 2008. To be a fair opponent it undoes the camera's colour cast
    and contrast first, counts pixels near the vertical middle most, because the person is there,
    and takes roots of the counts, so that the inner product is the Bhattacharyya coefficient.
    """
    tall, wide = 12 * stripes, 32
    weight = np.exp(-0.5 * ((np.arange(wide) + 0.5 - wide / 2) / (wide / 10)) ** 2)
    weights = np.tile(weight, tall // stripes)

    def describe(image: NDArray) -> NDArray:
        small = cv2.resize(image, (wide, tall), interpolation=cv2.INTER_AREA).astype(np.float32)
        small = (small - small.mean(axis=(0, 1))) / (small.std(axis=(0, 1)) + 1) * 0.19 + 0.46
        lightness, a, b = cv2.split(cv2.cvtColor(np.clip(small, 0, 1), cv2.COLOR_RGB2LAB))
        colour = _bin(a / 160 + 0.5, bins) * bins + _bin(b / 160 + 0.5, bins)
        light = _bin(lightness / 100, bins)
        counts = [
            np.bincount(part.ravel(), weights, size)
            for cells, size in ((colour, bins * bins), (light, bins))
            for part in np.split(cells, stripes)
        ]
        return np.sqrt(np.concatenate(counts))

    return _features(samples, describe)


def local_maximal_occurrence(samples: Sequence[Sample]) -> Features:
    """Colour and texture of horizontal bands, wherever in the band they are, (N, 26960); see
    `reidkit.data.lomo`."""
    return _features(samples, lomo)


def gait_energy_image(samples: Sequence[Sample], size: tuple[int, int] = (64, 44)) -> Features:
    """The mean of a sequence's aligned silhouettes, (N, H * W) in [0, 1].

    Han and Bhanu, Individual Recognition Using Gait Energy Image, PAMI 2006; with the nearest
    neighbour by Euclidean distance this is the classic baseline of gait.
    """
    if not samples:
        raise ValueError("no samples to describe; a baseline needs at least one")
    rows = [energy_image(sample, size).ravel() for sample in samples]
    return Features(torch.from_numpy(np.stack(rows)), tuple(samples))


def _bin(values: NDArray, bins: int) -> NDArray[np.intp]:
    """Bin numbers of values in [0, 1]."""
    return np.clip(values * bins, 0, bins - 1).astype(np.intp)


def _features(samples: Sequence[Sample], describe: Callable[[NDArray], NDArray]) -> Features:
    """`describe` of each sample's first frame in RGB, at unit length.

    Raises ValueError for an unreadable file and for no samples.
    """
    rows = []
    for sample in samples:
        image = cv2.imread(sample.frames[0], cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"{sample.name} is missing or no readable image; remove or replace it")
        row = describe(image[:, :, ::-1])
        rows.append(row / (np.linalg.norm(row) + 1e-12))
    if not rows:
        raise ValueError("no samples to describe; a baseline needs at least one")
    return Features(torch.from_numpy(np.stack(rows).astype(np.float32)), tuple(samples))


@dataclass(frozen=True, slots=True)
class Baseline:
    """How a baseline describes samples, the metric its vectors are compared by, and whether it
    reads whole sequences instead of first frames."""

    describe: Callable[[Sequence[Sample]], Features]
    metric: Metric = "cosine"
    of_sequences: bool = False

    @property
    def summary(self) -> str:
        """What it is, in a sentence."""
        return (self.describe.__doc__ or "").partition(":")[0].partition(",")[0].strip()

    def __call__(self, samples: Sequence[Sample]) -> Features:
        """The features of these samples."""
        return self.describe(samples)


BASELINES: Mapping[str, Baseline] = MappingProxyType(
    {
        "pixels": Baseline(raw_pixels),
        "colour_histogram": Baseline(colour_histogram),
        "lomo": Baseline(local_maximal_occurrence),
        "gait_energy_image": Baseline(gait_energy_image, "euclidean", of_sequences=True),
    }
)


def describe_tracklets(name: str, samples: Sequence[Sample], frames: int = 16) -> Features:
    """What a baseline says of tracklets: the mean over up to `frames` frames, spread evenly, at
    unit length. (N, D)

    A baseline of whole sequences (`gait_energy_image`) is taken as it is.
    """
    baseline = BASELINES[name]
    if baseline.of_sequences:
        return baseline(samples)
    rows = [_mean_over_frames(baseline, sample, frames) for sample in samples]
    return Features(F.normalize(torch.stack(rows), dim=1), tuple(samples))


def _mean_over_frames(baseline: Baseline, sample: Sample, frames: int) -> Tensor:
    nothing_drawn = np.random.default_rng(0)
    chosen = FrameSampling("evenly", frames).choose(len(sample.frames), nothing_drawn)
    single = [replace(sample, frames=(sample.frames[place],)) for place in chosen]
    return baseline(single).vectors.mean(0)
