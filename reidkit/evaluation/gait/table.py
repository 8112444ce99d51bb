"""Gait tables: rank-1 for every condition, probe view and gallery view, as the papers print them.

Every distance is measured once: a probe's row of distances to the whole gallery answers for all
gallery views together.
"""

import csv
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit.evaluation.gait.part_distances import (
    Columns,
    Distance,
    Floats,
    PartDistances,
    compiled,
)
from reidkit.files import replacing
from reidkit.registry import UnknownName, nearest
from reidkit.types import Features, Sample

logger = logging.getLogger(__name__)

JUNK = -1
ALL_VIEWS = "all"
PROBE, GALLERY = "probe", "gallery"


@dataclass(frozen=True, slots=True)
class GaitProtocol:
    """Which conditions are asked for and which are asked.

    `probes` names groups of probe conditions, the rows of the table; all of them are compared with
    the samples of the `gallery` conditions. `pooled=False` takes one gallery view at a time;
    `pooled=True` all of them at once, without the probe's own identity in its own view. `views`
    are those the benchmark has: the table says which of them the data lack.
    """

    name: str
    gallery: tuple[str, ...]
    probes: Mapping[str, tuple[str, ...]]
    source: str = ""
    pooled: bool = False
    views: tuple[str, ...] = ()


CASIA_B_VIEWS = tuple(f"{angle:03d}" for angle in range(0, 181, 18))
OU_MVLP_VIEWS = tuple(f"{angle:03d}" for angle in [*range(0, 91, 15), *range(180, 271, 15)])

GAIT_PROTOCOLS: dict[str, GaitProtocol] = {
    record.name: record
    for record in (
        GaitProtocol(
            name="casia_b",
            gallery=("nm-01", "nm-02", "nm-03", "nm-04"),
            probes={
                "NM": ("nm-05", "nm-06"),
                "BG": ("bg-01", "bg-02"),
                "CL": ("cl-01", "cl-02"),
            },
            source="Yu et al., ICPR 2006; as in Chao et al., GaitSet, AAAI 2019",
            views=CASIA_B_VIEWS,
        ),
        GaitProtocol(
            name="casia_b_cross_view",
            gallery=("nm-02", "bg-02", "cl-02"),
            probes={"NM": ("nm-01",), "BG": ("bg-01",), "CL": ("cl-01",)},
            source=(
                "Hou et al., A Comprehensive Study on the Evaluation of Silhouette-based Gait "
                "Recognition, T-BIOM 2022, as in OpenGait; not to be mixed with casia_b"
            ),
            pooled=True,
            views=CASIA_B_VIEWS,
        ),
        GaitProtocol(
            name="ou_mvlp",
            gallery=("01",),
            probes={"00": ("00",)},
            source="Takemura et al., IPSJ Trans. CVA 2018",
            views=OU_MVLP_VIEWS,
        ),
    )
}


@dataclass(frozen=True, eq=False)
class GaitTable:
    """Rank-1 counts per condition C, probe view V and gallery view W.

    `probes` are compared with a gallery view, of these `unmatched` have no right answer in it,
    `correct` find a right answer first, `tied` lose to a wrong answer at exactly the distance of
    the right one; all (C, V, W) int64. A cell without probes or without gallery has 0 probes.
    `views` are all V views of both sides; `gallery_views` the same ones, or "all" where the
    protocol pools them (W = 1).
    """

    protocol: str
    distance: str
    conditions: tuple[str, ...]
    views: tuple[str, ...]
    gallery_views: tuple[str, ...]
    correct: Tensor
    probes: Tensor
    unmatched: Tensor
    tied: Tensor
    notes: tuple[str, ...] = ()

    @property
    def rank1(self) -> Tensor:
        """Share of probes whose nearest answer is right, (C, V, W) float64; NaN without any probe.

        A probe without a right answer counts as wrong, as in the published tables.
        """
        return self.correct.double() / self.probes

    @property
    def rank1_matched(self) -> Tensor:
        """The same share of the probes that have a right answer, (C, V, W); NaN without any."""
        return self.correct.double() / (self.probes - self.unmatched)

    def per_view(
        self,
        condition: str | None = None,
        exclude_identical: bool = True,
        matched_only: bool = False,
    ) -> Tensor:
        """Rank-1 per probe view, mean over the gallery views, (V,) float64.

        Without identical views that is the sum over the other views / (views - 1). Cells without
        probes or gallery are left out; a view with nothing left is NaN. `condition` may be left
        away where there is only one; `matched_only` leaves out probes without a right answer.

        Raises:
            ValueError: an unknown condition, or identical views asked for where the protocol has
                already left them out.
        """
        cells = (self.rank1_matched if matched_only else self.rank1)[self._row(condition)]
        return cells.masked_fill(~self._counted(exclude_identical), torch.nan).nanmean(1)

    def mean(
        self,
        condition: str | None = None,
        exclude_identical: bool = True,
        matched_only: bool = False,
    ) -> float:
        """Mean of `per_view` over the probe views that have a value; a fraction, or NaN."""
        return float(self.per_view(condition, exclude_identical, matched_only).nanmean())

    def table(self) -> str:
        """Text as the papers print it: percent per probe view and mean, identical views left
        out.

        A row with a star leaves out the probes without a right answer; what is missing is said
        below.
        """
        kind = {"parts": "mean over the parts", "flat": "of the whole vector"}[self.distance]
        lines = [
            f"{self.protocol}: rank-1 in %, identical views left out; Euclidean distance {kind}"
        ]
        rows = [(name, False) for name in self.conditions]
        if self.unmatched[:, self._counted(True)].any():
            rows += [(name, True) for name in self.conditions]
        width = max(8, *(len(name) + 1 for name in self.conditions))
        lines.append(" " * width + "".join(f"{name:>8}" for name in (*self.views, "mean")))
        for name, matched in rows:
            values = [*self.per_view(name, True, matched).tolist(), self.mean(name, True, matched)]
            cells = (f"{100 * value:8.2f}" if value == value else f"{'-':>8}" for value in values)
            lines.append(f"{name + '*' * matched:<{width}}" + "".join(cells))
        return "\n".join([*lines, *self._missing(), *self.notes])

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON; null where there is nothing to say."""
        return {
            "protocol": self.protocol,
            "distance": self.distance,
            "conditions": list(self.conditions),
            "views": list(self.views),
            "gallery_views": list(self.gallery_views),
            "rank1": _plain(self.rank1.tolist()),
            "mean": {name: _plain(self.mean(name)) for name in self.conditions},
            "mean_matched": {
                name: _plain(self.mean(name, matched_only=True)) for name in self.conditions
            },
            "correct": self.correct.tolist(),
            "probes": self.probes.tolist(),
            "unmatched": self.unmatched.tolist(),
            "tied": self.tied.tolist(),
            "notes": [*self._missing(), *self.notes],
        }

    def save_csv(self, path: str | Path) -> None:
        """Write one line a cell: condition, both views, rank-1 (empty for none) and the counts.

        Replaced atomically.
        """
        names = ("rank1", "probes", "unmatched", "correct", "tied")
        tensors = (self.rank1, self.probes, self.unmatched, self.correct, self.tied)
        with replacing(Path(path)) as binary:
            file = io.TextIOWrapper(binary, encoding="utf-8", newline="")
            writer = csv.writer(file)
            writer.writerow(["condition", "probe_view", "gallery_view", *names])
            for c, condition in enumerate(self.conditions):
                for v, view in enumerate(self.views):
                    for w, other in enumerate(self.gallery_views):
                        cells = [_plain(values[c, v, w].item()) for values in tensors]
                        writer.writerow([condition, view, other, *cells])
            file.flush()
            file.detach()

    @property
    def _pooled(self) -> bool:
        return self.gallery_views == (ALL_VIEWS,)

    def _row(self, condition: str | None) -> int:
        known = list(self.conditions)
        if condition is None and len(known) == 1:
            return 0
        if condition not in known:
            hint = nearest(condition, known) if condition else ""
            raise ValueError(
                f"condition {condition!r} is not in this table; it has: {', '.join(known)}.{hint}"
            )
        return known.index(condition)

    def _counted(self, exclude_identical: bool) -> Tensor:
        """The cells that count, (V, W) bool."""
        shape = len(self.views), len(self.gallery_views)
        if not exclude_identical:
            if self._pooled:
                raise ValueError(
                    f"{self.protocol} leaves out identical views while it ranks; "
                    "exclude_identical=False has no answer here"
                )
            return torch.ones(shape, dtype=torch.bool)
        if self._pooled:
            return torch.ones(shape, dtype=torch.bool)
        return ~torch.eye(len(self.views), dtype=torch.bool)

    def _missing(self) -> list[str]:
        """Sentences about probes without a right answer, ties and empty cells."""
        lines = []
        counted = self._counted(True)
        for c, name in enumerate(self.conditions):
            total, lost, tied = (
                int(counts[c][counted].sum()) for counts in (self.probes, self.unmatched, self.tied)
            )
            if lost:
                lines.append(
                    f"{name}: {lost} of {total} comparisons of a probe with a gallery view have no "
                    f"right answer and count as wrong; {name}* leaves them out"
                )
            if tied:
                lines.append(f"{name}: {tied} of {total} lost by a tie, counted against the model")
            empty = [v for v, n in zip(self.views, self.probes[c].sum(1), strict=True) if not n]
            if empty:
                lines.append(f"{name}: no probe of view {', '.join(empty)}; not in the mean")
        empty = [
            w for w, n in zip(self.gallery_views, self.probes.sum((0, 1)), strict=True) if not n
        ]
        if empty:
            lines.append(f"no gallery of view {', '.join(empty)}; not in the means")
        return lines


def gait_table(
    probe: Features,
    gallery: Features,
    protocol: GaitProtocol | str = "casia_b",
    *,
    distance: Distance = "parts",
) -> GaitTable:
    """Rank-1 per condition, probe view and gallery view.

    `protocol` is a record or a name: "casia_b" (gallery nm-01..04; NM, BG and CL probes),
    "casia_b_cross_view" (OpenGait's newer one, other numbers) or "ou_mvlp" (probe 00, gallery
    01). Samples of other conditions, and gallery items with pid -1, are left out and counted in
    the notes, so both sides may be one set of features.

    Ties count against the model: a wrong answer at exactly the distance of the right one comes
    first. Distances are float32 products; wherever their worst-case rounding error could decide
    between the best right and the best wrong answer, both are measured again in float64.

    Args:
        probe: vectors (N, parts * D); samples with `view` and `condition`.
        gallery: the same of the other side.
        protocol: which conditions are compared.
        distance: "parts", the mean over the parts of their Euclidean distance (OpenGait), or
            "flat", the Euclidean distance of the whole vector (GaitSet's own code).

    Raises:
        ValueError: an unknown protocol or distance, no sample of the protocol's conditions on a
            side, a sample without a view, a probe without an identity, no right answer for any
            probe, or features that `part_distances` refuses.
    """
    rules = gait_protocol(protocol) if isinstance(protocol, str) else protocol
    asked = {name for names in rules.probes.values() for name in names}
    probe, notes = _chosen(probe, asked, PROBE, rules)
    gallery, more = _chosen(gallery, set(rules.gallery), GALLERY, rules)
    sides = _sides(probe, gallery, rules.pooled)
    outcome = _compare(PartDistances(probe, gallery, distance, (PROBE, GALLERY)), sides)
    _point_out_copies(probe, gallery)
    absent = [view for view in rules.views if view not in sides.views]
    if absent:
        more = [*more, f"views of the benchmark that are not in the data: {', '.join(absent)}"]
    shape = len(rules.probes), len(sides.views), len(sides.gallery_views)
    correct, probes, unmatched, tied = (torch.zeros(shape, dtype=torch.int64) for _ in range(4))
    offered = np.bincount(sides.gallery_column, minlength=shape[2]) > 0  # (W,)
    for c, names in enumerate(rules.probes.values()):
        here = np.array([sample.condition in names for sample in probe.samples])
        for v in range(shape[1]):
            rows = here & (sides.probe_view == v)
            probes[c, v] = torch.from_numpy(rows.sum() * offered)
            unmatched[c, v] = torch.from_numpy((~outcome.matched[rows] & offered).sum(0))
            correct[c, v] = torch.from_numpy(outcome.correct[rows].sum(0))
            tied[c, v] = torch.from_numpy(outcome.tied[rows].sum(0))
    return GaitTable(
        protocol=rules.name,
        distance=distance,
        conditions=tuple(rules.probes),
        views=sides.views,
        gallery_views=sides.gallery_views,
        correct=correct,
        probes=probes,
        unmatched=unmatched,
        tied=tied,
        notes=(*notes, *more),
    )


def gait_protocol(name: str) -> GaitProtocol:
    """The gait protocol of that name; a ValueError lists the known ones and the nearest."""
    if name not in GAIT_PROTOCOLS:
        raise UnknownName.among("gait protocol", name, sorted(GAIT_PROTOCOLS))
    return GAIT_PROTOCOLS[name]


class _Sides(NamedTuple):
    """Codes of both sides; N probes, G gallery items, W columns of the table."""

    views: tuple[str, ...]
    gallery_views: tuple[str, ...]
    probe_view: Columns  # (N,) position in views
    gallery_view: Columns  # (G,)
    gallery_column: Columns  # (G,) position in gallery_views
    probe_pid: Columns  # (N,)
    gallery_pid: Columns  # (G,)
    pooled: bool


class _Outcome(NamedTuple):
    """Per probe and gallery view, all (N, W) bool."""

    matched: NDArray[np.bool_]
    correct: NDArray[np.bool_]
    tied: NDArray[np.bool_]


def _chosen(
    features: Features, conditions: set[str], side: str, rules: GaitProtocol
) -> tuple[Features, list[str]]:
    """The samples of these conditions, and what was left out, in words."""
    other: dict[str, int] = {}
    keep, junk = [], 0
    for position, sample in enumerate(features.samples):
        if sample.condition not in conditions:
            other[sample.condition] = other.get(sample.condition, 0) + 1
        elif sample.pid == JUNK and side == GALLERY:
            junk += 1
        else:
            _check_sample(sample, side)
            keep.append(position)
    if not keep:
        found = ", ".join(repr(name) for name in sorted(other)) or ("pid -1" if junk else "none")
        raise ValueError(
            f"{rules.name}: no {side} sample of condition {', '.join(sorted(conditions))}; found: "
            f"{found}. Set Sample.condition, or pass a GaitProtocol with your conditions"
        )
    notes = []
    if other:
        kinds = ", ".join(name or "''" for name in sorted(other))
        notes.append(f"{sum(other.values())} {side} samples of other conditions left out: {kinds}")
    if junk:
        notes.append(f"{junk} {side} samples with pid -1 left out")
    if len(keep) == len(features):
        return features, notes
    samples = tuple(features.samples[position] for position in keep)
    kept = replace(features, vectors=features.vectors[torch.tensor(keep)], samples=samples)
    return kept, notes


def _check_sample(sample: Sample, side: str) -> None:
    if not sample.view:
        raise ValueError(
            f"{side} {sample.name} has no view; a gait table needs Sample.view, such as '090'"
        )
    if sample.pid == JUNK:
        raise ValueError(
            f"{side} {sample.name} has pid -1 (unknown); remove probes without an identity"
        )


def _sides(probe: Features, gallery: Features, pooled: bool) -> _Sides:
    names = {sample.view for side in (probe, gallery) for sample in side.samples}
    # Angles by their number, with or without leading zeros; other names after them.
    views = tuple(sorted(names, key=lambda v: (float(v) if v.isdecimal() else np.inf, v)))
    code = {view: position for position, view in enumerate(views)}
    probe_view, gallery_view = (
        np.array([code[sample.view] for sample in side.samples], np.int64)
        for side in (probe, gallery)
    )
    return _Sides(
        views=views,
        gallery_views=(ALL_VIEWS,) if pooled else views,
        probe_view=probe_view,
        gallery_view=gallery_view,
        gallery_column=np.zeros_like(gallery_view) if pooled else gallery_view,
        probe_pid=probe.pids.numpy(),
        gallery_pid=gallery.pids.numpy(),
        pooled=pooled,
    )


def _compare(pairs: PartDistances, sides: _Sides) -> _Outcome:
    """Who comes first, for every probe in every gallery view."""
    shape = len(sides.probe_pid), len(sides.gallery_views)
    outcome = _Outcome(*(np.zeros(shape, bool) for _ in range(3)))
    members = [np.flatnonzero(sides.gallery_column == w) for w in range(shape[1])]
    for start, block, slack in pairs.blocks(with_slack=True):
        rows = slice(start, start + len(block))
        # The best right and the best wrong answer, each as near and as far as it may be.
        best = np.full((4, len(block), shape[1]), np.inf, np.float32)
        _best(
            block,
            slack,
            sides.probe_pid[rows],
            sides.gallery_pid,
            sides.probe_view[rows],
            sides.gallery_view,
            sides.gallery_column,
            sides.pooled,
            best,
        )
        right_near, right_far, wrong_near, wrong_far = best
        outcome.matched[rows] = matched = np.isfinite(right_far)
        outcome.correct[rows] = correct = matched & (right_far < wrong_near)
        for i, w in np.argwhere(matched & ~correct & (wrong_far >= right_near)):
            q, columns = start + int(i), members[w]
            same = sides.gallery_pid[columns] == sides.probe_pid[q]
            if sides.pooled:
                own = same & (sides.gallery_view[columns] == sides.probe_view[q])
                columns, same = columns[~own], same[~own]
            row, error = block[i, columns], slack[i, columns]
            standing = pairs.standing(q, row, error, columns, same, limit=1)
            outcome.correct[q, w] = not standing.closer and not standing.level
            outcome.tied[q, w] = not standing.closer and standing.level > 0
    if not outcome.matched.any():
        raise ValueError(
            "no probe has a right answer in the gallery; check that pids of both sides belong "
            "together"
        )
    return outcome


@compiled
def _best(
    block: Floats,
    slack: Floats,
    probe_pid: Columns,
    gallery_pid: Columns,
    probe_view: Columns,
    gallery_view: Columns,
    column: Columns,
    pooled: bool,
    best: Floats,
) -> None:
    """Into best (4, N, W): the least right - slack, right + slack, wrong - slack, wrong + slack."""
    for i in range(block.shape[0]):
        for j in range(block.shape[1]):
            w = column[j]
            near, far = block[i, j] - slack[i, j], block[i, j] + slack[i, j]
            kind = 2
            if gallery_pid[j] == probe_pid[i]:
                if pooled and gallery_view[j] == probe_view[i]:
                    continue
                kind = 0
            if near < best[kind, i, w]:
                best[kind, i, w] = near
            if far < best[kind + 1, i, w]:
                best[kind + 1, i, w] = far


def _point_out_copies(probe: Features, gallery: Features) -> None:
    files = {sample.frames for sample in gallery.samples if sample.frames}
    count = sum(sample.frames in files for sample in probe.samples)
    if count:
        logger.warning(
            "%d probes are in the gallery themselves: in their own view they find themselves; "
            "leave identical views out, or choose other conditions",
            count,
        )


def _plain(value: object) -> object:
    """NaN as None, at any depth."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if value != value else value
