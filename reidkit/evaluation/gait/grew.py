"""GREW: the file its server scores, and the check one can do at home.

Zhu et al., Gait Recognition in the Wild: A Benchmark, ICCV 2021. The labels of its probes are
hidden.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np
import torch
from numpy.typing import NDArray

from reidkit.evaluation.gait.part_distances import Columns, Distance, PartDistances
from reidkit.files import replacing
from reidkit.types import Features, Sample, Scores

RANKS = 20
CHECKED = (1, 5, 10, 20)
SIDES = ("probe", "gallery")


def grew_submission(
    probe: Features,
    gallery: Features,
    path: str | Path,
    *,
    distance: Distance = "parts",
    digits: int = 5,
) -> None:
    """Write `videoId,rank1,...,rank20`: per probe the identities of its 20 nearest gallery items.

    The gallery of a submission is conditions 01 and 02 of all 6,000 identities, the caller's to
    choose. A probe's video is its `view` where it has one (OpenGait rearranges GREW so), else the
    folder of its frames. Identities have `digits` digits, as the folders are named ("00017");
    `digits=1` writes plain numbers, as OpenGait does. Which of the two the server takes, or
    whether both, is unverified.

    An identity whose two sequences are both near stands in the list twice: the 20 nearest items,
    not the 20 nearest identities. So does OpenGait; what the server makes of it is unverified.
    Items at one distance come in the gallery's order. Replaced atomically.

    Raises:
        ValueError: fewer than 20 gallery items, a gallery item without an identity, two probes of
            one video, or features that `part_distances` refuses.
    """
    if len(gallery) < RANKS:
        raise ValueError(
            f"the gallery has {len(gallery)} items, a submission ranks {RANKS}; pass the features "
            "of the whole test gallery (conditions 01 and 02)"
        )
    for sample in gallery.samples:
        if sample.pid < 0:
            raise ValueError(
                f"gallery {sample.name} has pid {sample.pid}; expected its folder's number. "
                "Is it a probe?"
            )
    videos = [_video(sample) for sample in probe.samples]
    if len(set(videos)) < len(videos):
        twice = Counter(videos).most_common(1)[0][0]
        raise ValueError(
            f"several probes have the video {twice!r}; one line a video is expected: set "
            "Sample.view"
        )
    identities = [f"{sample.pid:0{digits}d}" for sample in gallery.samples]
    rows = list(_nearest(PartDistances(probe, gallery, distance, SIDES), RANKS))
    with replacing(Path(path)) as binary:
        file = io.TextIOWrapper(binary, encoding="utf-8", newline="")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["videoId", *(f"rank{k + 1}" for k in range(RANKS))])
        for video, columns in zip(videos, rows, strict=True):
            writer.writerow([video, *(identities[j] for j in columns)])
        file.flush()
        file.detach()


def grew_check(probe: Features, gallery: Features, *, distance: Distance = "parts") -> Scores:
    """Rank-1, 5, 10 and 20 where labels are known: gallery condition 01, probe condition 02.

    Both sides may be the features of the whole test gallery; other conditions are left out. Not
    comparable with the server's scores, whose probes are other sequences and whose gallery holds
    both conditions. Ties count against the model; probes without a right answer are left out of
    the means and counted in `skipped`; `tied` counts probes whose first right answer shares its
    distance with a wrong one.

    Raises:
        ValueError: no sample of the condition on a side, no right answer for any probe, or
            features that `part_distances` refuses.
    """
    probe, gallery = _of(probe, "02", "probe"), _of(gallery, "01", "gallery")
    pairs = PartDistances(probe, gallery, distance, SIDES)
    ranks, tied = _first_ranks(pairs, probe.pids.numpy(), gallery.pids.numpy())
    counted = ranks > 0
    if not counted.any():
        raise ValueError(
            "no probe (condition 02) has a right answer in the gallery (condition 01); check that "
            "pids of both sides belong together"
        )
    return Scores(
        values_by_name={f"rank-{k}": float((ranks[counted] <= k).mean()) for k in CHECKED},
        skipped=int((~counted).sum()),
        queries=int(counted.sum()),
        tied=int(tied.sum()),
        cmc=torch.tensor([float((ranks[counted] <= k + 1).mean()) for k in range(RANKS)]).double(),
    )


def _of(features: Features, condition: str, side: str) -> Features:
    keep = [i for i, sample in enumerate(features.samples) if sample.condition == condition]
    if not keep:
        raise ValueError(
            f"no {side} sample of condition {condition!r}; the local check of GREW compares probes "
            "of 02 with a gallery of 01: set Sample.condition"
        )
    samples = tuple(features.samples[i] for i in keep)
    return replace(features, vectors=features.vectors[torch.tensor(keep)], samples=samples)


def _video(sample: Sample) -> str:
    if sample.view:
        return sample.view
    if not sample.frames:
        raise ValueError(
            f"probe {sample.name} has neither view nor frames; a submission needs its video's name"
        )
    return PurePath(sample.frames[0]).parent.name or sample.frames[0]


def _nearest(pairs: PartDistances, k: int) -> Iterator[Columns]:
    """The k nearest gallery positions of each query, ascending; what rounding leaves open is
    measured again."""
    for start, block, slack in pairs.blocks(with_slack=True):
        for i, (row, error) in enumerate(zip(block, slack, strict=True)):
            kth = np.partition(row + error, k - 1)[k - 1]
            close = np.flatnonzero(row - error <= kth)
            yield close[np.argsort(pairs.exact(start + i, close), kind="stable")[:k]]


def _first_ranks(
    pairs: PartDistances, probe_pids: Columns, gallery_pids: Columns
) -> tuple[Columns, NDArray[np.bool_]]:
    """Rank of the first right answer, 0 without one, RANKS + 1 for all beyond; and ties. (N,)."""
    ranks, tied = np.zeros(len(probe_pids), np.int64), np.zeros(len(probe_pids), bool)
    everything = np.arange(len(gallery_pids))
    for start, block, slack in pairs.blocks(with_slack=True):
        for q, row, error in zip(range(start, start + len(block)), block, slack, strict=True):
            right = gallery_pids == probe_pids[q]
            if right.any():
                standing = pairs.standing(q, row, error, everything, right, limit=RANKS)
                ranks[q] = min(1 + standing.closer + standing.level, RANKS + 1)
                tied[q] = standing.level > 0
    return ranks, tied
