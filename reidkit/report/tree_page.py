"""The merge tree as one HTML page: to browse it, to move the cut, and to correct labels by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from reidkit.report.album import Show
from reidkit.report.html import environment, file_name, part, policy
from reidkit.report.map_page import in_script, thumbnails
from reidkit.report.page import own_file
from reidkit.trees import check_labels, check_tree
from reidkit.types import Sample, path_of

LARGEST = 19_000_000  # characters of the page, pictures and all


def tree_page(
    title: str,
    merges: ArrayLike,
    heights: ArrayLike,
    samples: Sequence[Sample],
    labels: ArrayLike,
    *,
    show: Show = own_file,
    confidences: ArrayLike | None = None,
    most: int = 2000,
) -> str:
    """The page as text, complete in itself: no request leaves it, and every word is escaped.

    It opens at the identities, the largest first. Labels that are corrected in it stay in the page
    until they are exported, as `path,label,camid`; so the page holds whole paths. `show` has
    pictures (h, w, 3) in RGB of samples that are no files; one that cannot be read is a grey box.
    Where the tree alone is above LARGEST there are no pictures, and a note says so.

    Args:
        merges: (N - 1, 2) nodes that merge m joins to node N + m; leaves are 0 to N - 1.
        heights: (N - 1,) never falling, inf where a merge was forbidden.
        labels: (N,) identities, -1 where left out.
        confidences: (N,) in [0, 1], NaN where unknown.
        most: samples with a picture; of every identity some. The others are told by their names.

    Raises:
        ValueError: these do not fit one another, or are no tree.
    """
    data = _columns(merges, heights, samples, labels, confidences)
    style, script = part("page.css") + part("tree.css"), part("tree.model.js") + part("tree.js")
    chosen = _spread(np.asarray(labels), max(most, 0))
    room = LARGEST - len(in_script(data)) - len(style) - len(script)
    uris: list[str] = []
    notes: list[str] = []
    if room <= 0:
        notes.append(
            f"The tree of {len(samples):,} tracklets takes {(LARGEST - room) / 1e6:,.1f} million "
            f"characters, more than the {LARGEST / 1e6:,.1f} million a page should have: it is "
            "without pictures, and may open slowly."
        )
    elif most > 0:
        uris, notes = thumbnails([samples[i] for i in chosen], _bgr(show), room)
    pictures = {str(i): uri for i, uri in zip(chosen, uris, strict=False) if uri}
    data["pictures"] = pictures
    if pictures and len(chosen) < len(samples):
        there = f"{len(pictures):,} of {len(samples):,}"
        notes.append(f"Pictures of {there} tracklets are in this page.")
    return (
        environment()
        .from_string(part("tree.html.jinja"))
        .render(
            title=title,
            count=len(samples),
            notes=notes,
            data=Markup(in_script(data)),
            style=Markup(style),
            script=Markup(script),
            policy=policy(style, script),
        )
    )


def _columns(
    merges: ArrayLike,
    heights: ArrayLike,
    samples: Sequence[Sample],
    labels: ArrayLike,
    confidences: ArrayLike | None,
) -> dict[str, Any]:
    """What the page's script reads, column by column; null where JSON has no number."""
    joined = np.asarray(merges, dtype=np.int64).reshape(-1, 2)
    height, label = np.asarray(heights, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    sure = None if confidences is None else np.asarray(confidences, dtype=np.float64)
    count = len(samples)
    check_tree(joined, height, count)
    check_labels(label, count)
    if sure is not None and sure.shape != (count,):
        raise ValueError(f"confidences have shape {sure.shape}; expected ({count},)")
    return {
        "merges": joined.tolist(),
        "heights": _numbers(height),
        "labels": label.tolist(),
        "paths": [path_of(sample) or sample.name for sample in samples],
        "names": [file_name(sample) for sample in samples],
        "camids": [sample.camid for sample in samples],
        "confidences": None if sure is None else _numbers(sure),
    }


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _spread(labels: NDArray[np.int64], most: int) -> list[int]:
    """At most so many samples: the first of every identity, then the second of each, and so on."""
    rank = np.empty(len(labels), np.int64)
    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], labels[order])
    rank[order] = np.arange(len(labels)) - first
    return sorted(np.argsort(rank, kind="stable")[:most].tolist())


def _bgr(show: Show) -> Show:
    """The same in BGR, None where it cannot be read."""

    def shown(sample: Sample) -> NDArray[np.uint8] | None:
        try:
            image = show(sample)
        except (OSError, ValueError):
            return None
        return None if image is None else np.ascontiguousarray(image[:, :, ::-1])

    return shown
