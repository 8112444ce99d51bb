"""Who is this: a source's nearest identities in a file of features."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from reidkit import evaluation
from reidkit.compose.inference import QUIET, askable, draw_ranked, extract, run_config
from reidkit.engine import Console
from reidkit.types import EvalProtocol, Features, Metric, Sample, StoredFrames

EVERYTHING = EvalProtocol("nothing")
ITEMS = 16  # gallery items looked at for each identity that is asked for, at first


@dataclass(frozen=True, slots=True)
class Found:
    """One sample that was asked for, and the nearest identities, each by its nearest item."""

    query: Sample
    pids: tuple[int, ...]
    distances: tuple[float, ...]

    @property
    def name(self) -> str:
        """What to call the sample: a packed sequence by its condition and view."""
        frames = self.query.frames
        if isinstance(frames, StoredFrames):
            words = (self.query.condition, self.query.view)
            return " ".join((Path(frames.store).name, *filter(None, words)))
        return self.query.name

    def text(self) -> str:
        """One line: the name and the identities with their distances, the nearest first."""
        pairs = zip(self.pids, self.distances, strict=True)
        return f"{self.name}: " + ", ".join(f"id {pid} ({d:.3f})" for pid, d in pairs)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        matches = [
            {"pid": pid, "distance": d} for pid, d in zip(self.pids, self.distances, strict=True)
        ]
        return {"query": self.name, "frames": len(self.query.frames), "matches": matches}


def search(
    model: nn.Module,
    samples: Sequence[Sample],
    gallery: Features,
    *,
    run: Path,
    count: int = 5,
    picture: Path | None = None,
    console: Console = QUIET,
) -> list[Found]:
    """The `count` nearest identities of each sample, by the metric that the run trained for.

    `picture` gets the nearest gallery items. Raises ValueError where the gallery holds features of
    another model or nobody known.
    """
    query = extract(model, samples, console=console)
    config = run_config(run)
    metric: Metric = config.evaluate.metric if config is not None else "cosine"
    found = nearest_identities(query, gallery, count, metric)
    if picture is not None:
        draw_ranked(picture, query, gallery, EVERYTHING, len(samples), metric)
    return found


def nearest_identities(
    query: Features, gallery: Features, count: int, metric: Metric = "cosine"
) -> list[Found]:
    """For each query the `count` nearest identities, each at the distance of its nearest item.

    Gallery items of unknown identity (pid -1) are nobody. Raises ValueError where all are.
    """
    if not any(sample.pid >= 0 for sample in gallery.samples):
        raise ValueError(
            "the gallery knows nobody: all its pids are -1; extract it from a benchmark's split or "
            "a manifest"
        )
    known = len({sample.pid for sample in gallery.samples if sample.pid >= 0})
    wanted = min(count, known)
    items = min(len(gallery), ITEMS * wanted)
    asked = askable(query, gallery)
    while True:
        places, far = evaluation.nearest(asked, gallery, EVERYTHING, items, metric=metric)
        found = [
            Found(sample, *identities(gallery, row, distances, wanted))
            for sample, row, distances in zip(
                query.samples, places.tolist(), far.tolist(), strict=True
            )
        ]
        # Many items of few identities may stand in front: then look further down the list.
        if items == len(gallery) or all(len(one.pids) == wanted for one in found):
            break
        items = min(len(gallery), 4 * items)
    return found


def identities(
    gallery: Features, places: Sequence[int], distances: Sequence[float], count: int
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The first `count` known identities in a ranked list of gallery places, with distances."""
    nearest: dict[int, float] = {}
    for place, distance in zip(places, distances, strict=True):
        pid = gallery.samples[place].pid if place >= 0 else -1
        if pid >= 0 and len(nearest) < count:
            nearest.setdefault(pid, distance)
    return tuple(nearest), tuple(nearest.values())
