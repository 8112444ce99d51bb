"""A map of embeddings: which samples it shows, and its page."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from reidkit import data, models
from reidkit.compose.building import choose_device
from reidkit.compose.inference import QUIET, extract, run_config, weights_hash
from reidkit.compose.layout import Layout, Method, first_neighbours, lay_out, unit
from reidkit.compose.reporting import find_tests, short_names
from reidkit.compose.scoring import gait_distance_of
from reidkit.engine import Console
from reidkit.report.map_page import MapPage, write_map
from reidkit.report.map_picture import draw_map
from reidkit.types import Features, Metric, Sample

Split = Literal["query", "gallery", "train"]
FEWEST = 3  # samples that a map can be made of


@dataclass(frozen=True, eq=False)
class Chosen:
    """The features that a map shows, and what they were chosen from."""

    title: str
    features: Features
    metric: Metric
    total: int  # samples that could have been shown
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class EmbeddingMap:
    """What was drawn: the page's facts and the numbers for JSON."""

    page: MapPage
    layout: Layout
    identities: int
    seed: int
    notes: tuple[str, ...]

    def text(self) -> str:
        """A few lines a person can read."""
        lines = [f"{self.page.title}: {self.page.lead}"]
        if self.page.shares is not None:
            full, flat = (f"{100 * share:.1f} %" for share in self.page.shares)
            lines.append(
                f"first neighbour of the same identity: {full} in the full space, {flat} in the map"
            )
        return "\n".join((*lines, *self.notes))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; shares are fractions."""
        full, flat = self.page.shares or (None, None)
        return {
            "samples": len(self.page.samples),
            "identities": self.identities,
            "method": self.layout.method,
            "made_by": self.layout.made_by,
            "perplexity": self.layout.perplexity,
            "seed": self.seed,
            "variance": self.layout.variance,
            "first_neighbour": {"full": full, "map": flat, "samples": self.page.counted},
            "notes": list(self.notes),
        }


def choose_of_run(
    run: Path,
    *,
    benchmark: str | None = None,
    root: Path | None = None,
    split: Split = "gallery",
    features: Path | None = None,
    limit: int = 3000,
    seed: int = 0,
    console: Console = QUIET,
) -> Chosen:
    """Features of a run's first test benchmark, of which only what is shown is extracted.

    `features` are taken instead where they are given: a file that this run's model extracted.
    Raises ValueError where another model did, and what `choose` and `find_tests` raise.
    """
    model = models.load_model(run)
    config = run_config(run)
    metric: Metric = config.evaluate.metric if config is not None else "cosine"
    gait = None if config is None else gait_distance_of(model, config.evaluate)
    notes = [] if gait is None else ["Distances are Euclidean, over all parts together."]
    metric = metric if gait is None else "euclidean"
    title = short_names(run, None)[0]
    if features is not None:
        found = Features.load(features)
        if found.model and found.model != weights_hash(model):
            raise ValueError(
                f"{features} holds features of another model than {run}: extract them anew, or map "
                "the file by itself"
            )
        return _chosen(f"{title}, {features.stem}", found, metric, limit, seed, notes)
    test = find_tests(run, benchmark, root)[0]
    samples: tuple[Sample, ...] = getattr(test, split)
    if split == "gallery":
        samples, distractors = without_names(samples, test.query)
        if distractors:
            notes.append(f"{distractors:,} distractors (pid 0) have no identity: drawn in grey.")
    places = choose(samples, limit, seed)
    shown = [samples[place] for place in places]
    extracted = extract(model.to(choose_device()), shown, console=console)
    notes += _left_out(samples, shown)
    return Chosen(f"{title}, {test.name} {split}", extracted, metric, len(samples), tuple(notes))


def choose_of_file(
    path: Path, *, metric: Metric = "cosine", limit: int = 3000, seed: int = 0
) -> Chosen:
    """Features of a file, compared by `metric`."""
    return _chosen(path.stem, Features.load(path), metric, limit, seed, [])


def _chosen(
    title: str, features: Features, metric: Metric, limit: int, seed: int, notes: list[str]
) -> Chosen:
    places = choose(features.samples, limit, seed)
    samples = tuple(features.samples[place] for place in places)
    some = replace(features, vectors=features.vectors[places], samples=samples)
    notes = [*notes, *_left_out(features.samples, samples)]
    return Chosen(title, some, metric, len(features), tuple(notes))


def without_names(
    gallery: Sequence[Sample], query: Sequence[Sample]
) -> tuple[tuple[Sample, ...], int]:
    """The gallery with its distractors as samples of nobody (pid -1), and how many these are.

    Pid 0, where no query asks for it, stands for distractors: many people under one number.
    """
    asked = any(sample.pid == 0 for sample in query)
    distractor = [sample.pid == 0 and not asked for sample in gallery]
    samples = tuple(
        replace(sample, pid=-1) if is_one else sample
        for sample, is_one in zip(gallery, distractor, strict=True)
    )
    return samples, sum(distractor)


def choose(samples: Sequence[Sample], limit: int, seed: int) -> list[int]:
    """Places of at most `limit` samples, ascending: all samples of identities drawn at random, each
    that still fits.

    A sample of nobody (pid -1) is an identity of its own. Raises ValueError where fewer than three
    are there or fit.
    """
    if len(samples) < FEWEST:
        raise ValueError(f"a map needs at least {FEWEST} samples; there are {len(samples)}")
    members: list[list[int]] = [[] for _ in samples]
    for place, number in enumerate(identities_of(samples).tolist()):
        members[number].append(place)
    members = [places for places in members if places]
    chosen: list[int] = []
    for number in np.random.default_rng(seed).permutation(len(members)):
        if len(chosen) + len(members[number]) <= limit:
            chosen += members[number]
    if len(chosen) < FEWEST:
        raise ValueError(
            f"a limit of {limit} leaves {len(chosen)} samples, because identities are shown whole "
            f"and the smallest has {min(map(len, members))}; a map needs at least {FEWEST}: raise "
            "--limit"
        )
    return sorted(chosen)


def identities_of(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """(N,) numbers from 0, equal exactly for samples of one identity; nobody is one's own."""
    numbers: dict[tuple[str, int, int], int] = {}
    keys = [(s.domain, s.pid, -1 if s.pid >= 0 else place) for place, s in enumerate(samples)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _known(samples: Sequence[Sample]) -> int:
    return len({(sample.domain, sample.pid) for sample in samples if sample.pid >= 0})


def _left_out(samples: Sequence[Sample], shown: Sequence[Sample]) -> list[str]:
    if len(shown) == len(samples):
        return []
    return [
        f"{len(shown):,} of {len(samples):,} samples are shown: all those of {_known(shown):,} out "
        f"of {_known(samples):,} identities, drawn at random."
    ]


def make_map(
    chosen: Chosen,
    out: Path,
    *,
    method: Method = "tsne",
    perplexity: float = 30.0,
    seed: int = 0,
    thumbnails: bool = True,
    png: Path | None = None,
) -> EmbeddingMap:
    """Write the page, and a PNG where one is asked for; each replaced atomically.

    Raises ValueError where a feature is not finite or all are the same.
    """
    samples = chosen.features.samples
    vectors = unit(chosen.features, chosen.metric)
    layout = lay_out(vectors, method, perplexity=perplexity, seed=seed)
    identities = identities_of(samples)
    full = first_neighbours(chosen.features.vectors, identities, chosen.metric)
    flat = first_neighbours(torch.from_numpy(layout.coordinates), identities, "euclidean")
    known = _known(samples)
    page = MapPage(
        title=chosen.title,
        lead=(
            f"{len(samples):,} samples of {known:,} {'identity' if known == 1 else 'identities'} · "
            f"{'t-SNE' if method == 'tsne' else 'PCA'}"
        ),
        samples=samples,
        coordinates=layout.coordinates,
        method=in_words(layout, chosen.metric, vectors.shape[1], seed),
        shares=None if full is None or flat is None else (full[0], flat[0]),
        counted=0 if full is None else full[1],
        notes=(*chosen.notes, *layout.notes),
    )
    remarks = write_map(out, page, show=data.show, pictures=thumbnails)
    if png is not None:
        draw_map(png, page)
    return EmbeddingMap(page, layout, known, seed, (*page.notes, *remarks))


def in_words(layout: Layout, metric: Metric, dim: int, seed: int) -> list[str]:
    """What was drawn how, in sentences."""
    compared = {
        "cosine": f"Vectors of {dim:,} numbers, brought to unit length: cosine distances.",
        "euclidean": f"Vectors of {dim:,} numbers, compared by their Euclidean distance.",
    }[metric]
    if layout.variance is not None:
        one, two = (100 * share for share in layout.variance)
        return [
            compared,
            f"PCA: the two axes hold {one:.1f} % and {two:.1f} % of the "
            f"variance. The other {max(0.0, 100 - one - two):.1f} % cannot be seen: what lies "
            "together here may be far apart.",
        ]
    return [
        compared,
        f"t-SNE, by {layout.made_by}: perplexity {layout.perplexity:g}, seed {seed}, "
        "starting from a PCA.",
        "t-SNE shows who is near whom. The size of a group, the gap between two of them, and the "
        "directions mean nothing.",
    ]
