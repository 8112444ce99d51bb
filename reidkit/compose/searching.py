"""Who is this: a source's nearest identities in a file of features."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from reidkit import evaluation
from reidkit.compose.inference import QUIET, askable, draw_ranked, extract, run_config
from reidkit.compose.scoring import gait_distance_of
from reidkit.engine import Console
from reidkit.evaluation.gait.part_distances import Distance
from reidkit.types import EvalProtocol, Features, Metric, Sample, StoredFrames

EVERYTHING = EvalProtocol("nothing")
Ranked = tuple[tuple[int, ...], tuple[float, ...]]  # identities, and the distance of each
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
    distance = None if config is None else gait_distance_of(model, config.evaluate)
    found = nearest_identities(query, gallery, count, metric, distance)
    if picture is not None:
        draw_ranked(picture, query, gallery, EVERYTHING, len(samples), metric)
    return found


def nearest_identities(
    query: Features,
    gallery: Features,
    count: int,
    metric: Metric = "cosine",
    gait_distance: Distance | None = None,
) -> list[Found]:
    """For each query the `count` nearest identities, each at the distance of its nearest item.

    Gallery items of unknown identity (pid -1) are nobody. Distances as in `scoring.score`. Raises
    ValueError where all are nobody.
    """
    known = len({sample.pid for sample in gallery.samples if sample.pid >= 0})
    if not known:
        raise ValueError(
            "the gallery knows nobody: all its pids are -1; extract it from a benchmark's split or "
            "a manifest"
        )
    wanted = min(count, known)
    if gait_distance == "parts" and query.parts > 1:
        rows = (row for _, block in evaluation.part_distances(query, gallery) for row in block)
        ranked = [identities(gallery, order := row.argsort(), row[order], wanted) for row in rows]
    else:
        metric = metric if gait_distance is None else "euclidean"
        ranked = ranked_identities(query, gallery, wanted, metric)
    return [Found(sample, *row) for sample, row in zip(query.samples, ranked, strict=True)]


def ranked_identities(
    query: Features, gallery: Features, wanted: int, metric: Metric
) -> list[Ranked]:
    """The first `wanted` identities of each query's list, looked at as far down as it takes."""
    asked = askable(query, gallery)
    items = min(len(gallery), ITEMS * wanted)
    while True:
        places, far = evaluation.nearest(asked, gallery, EVERYTHING, items, metric=metric)
        ranked = [
            identities(gallery, *row, wanted)
            for row in zip(places.tolist(), far.tolist(), strict=True)
        ]
        # Many items of few identities may stand in front: then look further.
        if items == len(gallery) or all(len(pids) == wanted for pids, _ in ranked):
            return ranked
        items = min(len(gallery), 4 * items)


def identities(
    gallery: Features, places: Iterable[int], distances: Iterable[float], count: int
) -> Ranked:
    """The first `count` known identities in a ranked list of gallery places, with distances."""
    nearest: dict[int, float] = {}
    for place, distance in zip(places, distances, strict=True):
        pid = gallery.samples[place].pid if place >= 0 else -1
        if pid >= 0:
            nearest.setdefault(pid, float(distance))
        if len(nearest) == count:
            break
    return tuple(nearest), tuple(nearest.values())
