"""Identities for one's own unlabelled tracklets: found, judged, and put into a folder."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from reidkit import evaluation, models
from reidkit.compose import label_folder
from reidkit.compose.building import choose_device
from reidkit.compose.inference import (
    QUIET,
    extract_to,
    files_hash,
    find_samples,
    run_config,
    weights_hash,
)
from reidkit.compose.label_folder import FEATURES, Found
from reidkit.compose.mapping import without_names
from reidkit.compose.scoring import gait_distance_of
from reidkit.engine import Console
from reidkit.types import Features, Metric, Sample, StoredFrames
from reidkit.unsupervised import CannotLink, cannot_link
from reidkit.unsupervised.clustering import cluster
from reidkit.unsupervised.identity_tree import IdentityTree
from reidkit.unsupervised.tracklets import by_camera

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """How identities are found.

    `tree` cuts the identity tree: into `clusters`, or at `height`, or where `by` says. `dbscan` and
    `hdbscan` cluster k-reciprocal Jaccard distances of `k1` neighbours, with `eps` (DBSCAN's alone)
    and `min_samples`, and may leave samples out. `cannot_link` says who is kept apart for certain:
    tracklets of one camera that overlap in `time`, all of one `camera`, or `none`.
    """

    method: Literal["tree", "dbscan", "hdbscan"] = "tree"
    linkage: Literal["average", "complete", "single", "ward"] = "average"
    clusters: int | None = None
    height: float | None = None
    by: Literal["silhouette", "gap"] = "silhouette"
    cannot_link: Literal["time", "camera", "none"] = "time"
    eps: float = 0.6
    min_samples: int = 4
    k1: int = 30


def label_to(
    run: Path,
    source: str,
    out: Path,
    settings: Settings,
    *,
    root: Path | None = None,
    batch_size: int = 64,
    workers: int = 0,
    pictures: bool = True,
    console: Console = QUIET,
) -> Found:
    """Find who is who among the samples of `source`, as a run's model sees them, and write `out`.

    Features that an earlier call of this model and source left there are used again. Raises
    FileExistsError where `out` holds something else or labels corrected by hand, ValueError where
    there is nothing to label, an image cannot be read, or all samples are left out.
    """
    samples, notes = find_tracklets(source, root)
    links, told = constraints(samples, settings.cannot_link)
    model = models.load_model(run).to(choose_device())
    metric = metric_of(run, model)
    mark = {"model": weights_hash(model), "files": files_hash(samples)}
    label_folder.begin(out, mark)
    if (out / FEATURES).is_file():
        features = kept_features(out / FEATURES, samples)
        console.say(f"kept {len(samples):,} features of an earlier call")
    else:
        features = extract_to(
            model, samples, out / FEATURES, batch_size=batch_size, workers=workers, console=console
        )
    console.say(f"joining {len(samples):,} samples")
    tree = IdentityTree.build(features, linkage=settings.linkage, cannot_link=links, metric=metric)
    labels = find(features, tree, links, settings, metric)
    facts = {"of": mark, "run": str(run), "source": source, "settings": asdict(settings)}
    clock = label_folder.notes_of(samples)
    found = judged(features, tree, labels, facts, [*notes, *told, *clock])
    found = replace(found, notes=(*found.notes, *doubts(found, settings, metric)))
    label_folder.write(
        out, found, label_folder.rows_of(samples), pictures, console, meanwhile={"of": mark}
    )
    return found


def kept_features(path: Path, samples: tuple[Sample, ...]) -> Features:
    """The features of an earlier call; ValueError where the file is damaged."""
    try:
        return replace(Features.load(path), samples=samples)
    except ValueError as error:
        raise ValueError(f"{error}. Delete {path} to extract again") from error


def apply_to(
    folder: Path, corrected: Path, *, pictures: bool = True, console: Console = QUIET
) -> Found:
    """Put labels corrected by hand into a folder that `label_to` wrote, and all that follows.

    `corrected` is a CSV with the columns `path,label`, as the page exports it; samples it does not
    name keep their label. Raises FileNotFoundError where there are no labels, ValueError where the
    file names what is not there.
    """
    facts = label_folder.read_facts(folder)
    features, tree, before = label_folder.read(folder)
    labels = label_folder.corrected_labels(corrected, features.samples, before)
    changed = int((labels != before).sum())
    facts["corrected"] += changed
    kept = {name: facts[name] for name in ("of", "run", "source", "settings", "corrected")}
    notes = [f"{changed:,} of {len(labels):,} labels changed by {corrected.name}."]
    found = judged(features, tree, labels, kept, [*notes, *forbidden(tree, labels, kept)])
    # `corrected` stands in label.json before labels.csv has the corrections: a call that is killed
    # in between must not make them look like labels to overwrite.
    label_folder.write(
        folder, found, label_folder.rows_in(folder), pictures, console, meanwhile=facts
    )
    return found


def forbidden(tree: IdentityTree, labels: Labels, facts: dict[str, Any]) -> list[str]:
    """What to tell where labels join samples that were known to be kept apart."""
    by = facts["settings"].get("cannot_link", "time")
    if by == "none":
        return []
    broken = cannot_link(tree.samples, within_camera=by == "camera").broken_by(labels)
    if not broken:
        return []
    seen = "of one camera" if by == "camera" else "seen by one camera at one time"
    pairs = "1 pair" if broken == 1 else f"{broken:,} pairs"
    return [f"{pairs} of samples {seen}, so of two people, now have one label: look at them again."]


def find_tracklets(source: str, root: Path | None) -> tuple[tuple[Sample, ...], list[str]]:
    """The samples of a source with whole paths and numbers of their own, and what to tell of them.

    Raises ValueError where there are none, one file is in two, or a name is not UTF-8.
    """
    found, notes = find_samples(source, root), []
    name, _, split = source.rpartition(":")
    if name and split == "gallery" and not Path(source).exists():
        found, distractors = without_names(found, find_samples(f"{name}:query", root))
        if distractors:
            notes.append(f"{distractors:,} distractors (pid 0) judge nothing: nobody knows them.")
    if not found:
        raise ValueError(f"nothing to label: {source} holds no images or tracklets")
    samples = tuple(replace(sample, frames=_absolute(sample.frames)) for sample in found)
    owners: dict[str, int] = {}
    for number, sample in enumerate(samples):
        for frame in label_folder.paths_of(sample):
            if owners.setdefault(frame, number) != number:
                raise ValueError(f"{frame} is in two samples of {source}: take it out of one")
            try:
                frame.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"the name {frame!r} is not UTF-8: rename the file") from error
    return _numbered(samples), notes


def _absolute(frames: tuple[str, ...] | StoredFrames) -> tuple[str, ...] | StoredFrames:
    if isinstance(frames, StoredFrames):
        return replace(frames, store=os.path.abspath(frames.store))
    return tuple(os.path.abspath(frame) for frame in frames)


def _numbered(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """Of several domains, samples whose pids and camids differ wherever people and cameras do."""
    if len({sample.domain for sample in samples}) < 2:
        return samples
    pids = sorted({(sample.domain, sample.pid) for sample in samples if sample.pid >= 0})
    camids = sorted({(sample.domain, sample.camid) for sample in samples if sample.camid >= 0})
    pid_of = {key: number for number, key in enumerate(pids, start=1)}
    camid_of = {key: number for number, key in enumerate(camids)}
    return tuple(
        replace(
            sample,
            pid=pid_of.get((sample.domain, sample.pid), -1),
            camid=camid_of.get((sample.domain, sample.camid), -1),
        )
        for sample in samples
    )


def constraints(
    samples: Sequence[Sample], by: Literal["time", "camera", "none"]
) -> tuple[CannotLink, list[str]]:
    """Who cannot be one identity, and what to tell of it.

    Raises ValueError where all samples would be kept apart, because they are of one camera.
    """
    sizes = [len(places) for places in by_camera(samples).values()]
    notes = []
    if len(samples) == 1:
        notes.append("One sample is one identity; its confidence of 0 says that nothing is known.")
    elif max(sizes, default=0) == len(samples):
        if by == "camera":
            raise ValueError(
                f"all {len(samples):,} samples are of one camera, so --cannot-link camera would "
                "make each an identity of its own: use --cannot-link time, or name the cameras in "
                "a manifest's column camid"
            )
        notes.append("All samples are of one camera: identities across cameras are not tested.")
    if by == "none":
        return CannotLink.nothing(len(samples)), notes
    links = cannot_link(samples, within_camera=by == "camera")
    timed = [s for s in samples if s.span is not None]
    if by == "time" and not timed:
        notes.append("No times are known, so nobody is kept apart for being seen at one time.")
    elif by == "time":
        together = sum(n * (n - 1) // 2 for n in map(len, by_camera(timed).values()))
        if len(links.pairs) == together >= 3:
            notes.append(
                "All samples of each camera overlap in time, so all are kept apart: where frames "
                "are counted within each tracklet use --no-cannot-link."
            )
    return links, notes


def metric_of(run: Path, model: nn.Module) -> Metric:
    """How a run compares features; the parts of a gait model all together, by their distance."""
    config = run_config(run)
    if config is None:
        return "cosine"
    gait = gait_distance_of(model, config.evaluate)
    return config.evaluate.metric if gait is None else "euclidean"


def find(
    features: Features,
    tree: IdentityTree,
    links: CannotLink,
    settings: Settings,
    metric: Metric = "cosine",
) -> Labels:
    """Labels (N,), identities from 0 and -1 for left out.

    Raises ValueError where all are left out, and for a cut that the tree cannot make.
    """
    if len(features) == 1:
        return np.zeros(1, np.int64)
    if settings.method != "tree":
        labels = cluster(
            features,
            method=settings.method,
            eps=settings.eps,
            min_samples=settings.min_samples,
            k1=settings.k1,
            metric=metric,
            cannot_link=links,
        )
        if (labels < 0).all():
            knob = f"raise --eps (now {settings.eps:g}) or " if settings.method == "dbscan" else ""
            raise ValueError(
                f"{settings.method} left out all {len(labels):,} samples: {knob}lower "
                f"--min-samples (now {settings.min_samples}), or use --method tree"
            )
        return labels
    if settings.clusters is not None:
        return tree.cut(clusters=settings.clusters)
    if settings.height is not None:
        return tree.cut(height=settings.height)
    allowed = tree.heights[np.isfinite(tree.heights)]
    if not len(allowed):
        return np.arange(len(features))
    if len(features) == 2 or (settings.by == "gap" and _flat(features, tree, metric)):
        raise ValueError(
            f"{len(features):,} samples, first joined at height {allowed[0]:.3g} and last at "
            f"{allowed[-1]:.3g}, do not tell by {settings.by} who is who: use --clusters or "
            "--height"
        )
    return tree.cut(by=settings.by)


def _flat(features: Features, tree: IdentityTree, metric: Metric) -> bool:
    """Whether all are joined at one height, but for rounding."""
    allowed = tree.heights[np.isfinite(tree.heights)]
    least = 1e-6
    if metric != "cosine":
        least = 1e-3 * float(features.vectors.norm(dim=1).max())
    return len(allowed) > 0 and float(np.ptp(allowed)) <= least


def doubts(found: Found, settings: Settings, metric: Metric = "cosine") -> list[str]:
    """What to tell where the silhouette chose a cut, but none of them says who is who."""
    chosen = settings.method == "tree" and settings.clusters is settings.height is None
    if not chosen or settings.by != "silhouette" or len(found.labels) < 3:
        return []
    if not np.isfinite(found.tree.heights).any():
        return []
    if _flat(found.features, found.tree, metric):
        why = "All are joined at one height"
    elif found.facts["quality"]["silhouette"] <= 0:
        why = "No cut has a mean silhouette above 0"
    else:
        return []
    return [f"{why}, so the labels are arbitrary: all may be one identity, which is --clusters 1."]


def judged(
    features: Features,
    tree: IdentityTree,
    labels: Labels,
    facts: dict[str, Any],
    notes: Sequence[str],
) -> Found:
    """Labels with a confidence each, and how good they are."""
    silhouettes = evaluation.silhouettes(features.vectors, labels).cpu().numpy()
    labelled = labels >= 0
    sizes = np.unique(labels[labelled], return_counts=True)[1]
    notes = list(notes)
    if not labelled.any():
        notes.append("All samples are left out: there is nothing to train on.")
    elif len(sizes) < 2 < len(labels):
        notes.append(f"All are one identity, with a confidence of 0: {_fewer_joined(facts)}.")
    elif sizes.max() == 1 < len(labels):
        notes.append(
            "Each is an identity of its own, with a confidence of 0: nothing was joined, so ask "
            "for fewer --clusters or a larger --height."
        )
    quality: dict[str, Any] = {
        "silhouette": float(silhouettes[labelled].mean()) if labelled.any() else None,
        "identities": len(sizes),
        "left_out": int((~labelled).sum()),
        "sizes": {
            "smallest": int(sizes.min(initial=0 if not len(sizes) else sizes[0])),
            "median": float(np.median(sizes)) if len(sizes) else 0.0,
            "largest": int(sizes.max(initial=0)),
            "single": int((sizes == 1).sum()),
        },
        "by_the_source": None,
    }
    pids = features.pids
    if known := int((pids >= 0).sum()):
        plain = asdict(evaluation.pairwise(labels, pids))
        numbers = {k: None if math.isnan(value) else value for k, value in plain.items()}
        quality["by_the_source"] = {"samples": known} | numbers
    return Found(
        features,
        tree,
        labels,
        np.clip(silhouettes, 0, 1),
        {**facts, "samples": len(labels), "quality": quality},
        tuple(notes),
    )


def _fewer_joined(facts: dict[str, Any]) -> str:
    """Which knobs join less."""
    settings = facts["settings"]
    if settings.get("method") == "dbscan":
        return f"lower --k1 (now {settings['k1']}) or --eps (now {settings['eps']:g})"
    if settings.get("method") == "hdbscan":
        return f"lower --k1 (now {settings['k1']})"
    return "ask for more --clusters, or a lower --height"


def to_json(found: Found) -> dict[str, Any]:
    """Plain values about what was found."""
    plain: dict[str, Any] = json.loads(json.dumps(found.facts | {"notes": list(found.notes)}))
    return plain
