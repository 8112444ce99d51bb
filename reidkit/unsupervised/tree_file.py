"""The file of a merge tree: an `.npz` of plain arrays, written whole or not at all."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.files import replacing
from reidkit.types import Sample, frames_at, integer_array, path_of

TEXTS = ("paths", "views", "conditions", "domains")
NUMBERS = ("pids", "camids")
STORED = {"merges", "heights", "spans", *TEXTS, *NUMBERS}
UNKNOWN = (np.nan, np.nan)
EXPECTED = "expected what IdentityTree.save writes"
# What numpy and zipfile raise of bytes that are not theirs.
UNREADABLE = (
    *(ValueError, OSError, EOFError, KeyError, AttributeError, TypeError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError, OverflowError),
)


def write(
    path: Path,
    merges: NDArray[np.int64],
    heights: NDArray[np.float64],
    samples: Sequence[Sample],
) -> None:
    """Write merges (N - 1, 2), heights (N - 1,) and what `read` gives of N samples."""
    texts = {
        "paths": [path_of(sample) for sample in samples],
        "views": [sample.view for sample in samples],
        "conditions": [sample.condition for sample in samples],
        "domains": [sample.domain for sample in samples],
    }
    columns: dict[str, Any] = {name: np.array(values, np.str_) for name, values in texts.items()}
    with replacing(path) as file:
        np.savez(
            file,
            merges=merges,
            heights=heights,
            pids=np.array([sample.pid for sample in samples], np.int64),
            camids=np.array([sample.camid for sample in samples], np.int64),
            spans=np.array([sample.span or UNKNOWN for sample in samples], np.float64),
            **columns,
        )


def read(path: Path) -> tuple[NDArray[Any], NDArray[Any], tuple[Sample, ...]]:
    """Merges, heights and samples, whose only frame is the first or a packed sequence.

    Whether they make a tree is for `IdentityTree` to say. Raises FileNotFoundError, and ValueError
    for a file that is damaged or something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no tree file {path}; `IdentityTree.save` writes one")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except UNREADABLE as error:
        raise ValueError(f"{EXPECTED}: {error}") from error
    if missing := STORED - arrays.keys():
        raise ValueError(f"it has no {', '.join(sorted(missing))}; {EXPECTED}")
    merges, heights = arrays["merges"], arrays["heights"]
    if merges.dtype.kind != "i" or heights.dtype.kind != "f":
        raise ValueError(f"merges are {merges.dtype} and heights {heights.dtype}; {EXPECTED}")
    return merges, heights, _samples(arrays)


def _samples(arrays: dict[str, NDArray[Any]]) -> tuple[Sample, ...]:
    count = arrays["pids"].size
    columns = [integer_array(name, arrays[name], count).tolist() for name in NUMBERS]
    for name in TEXTS:
        if arrays[name].shape != (count,) or arrays[name].dtype.kind != "U":
            raise ValueError(f"{name} are {arrays[name].dtype} of shape {arrays[name].shape}")
        columns.append(arrays[name].tolist())
    spans = arrays["spans"]
    if spans.shape != (count, 2) or spans.dtype != np.float64:
        raise ValueError(f"spans are {spans.dtype} of shape {spans.shape}")
    known = ~np.isnan(spans).any(1)
    columns.append([(a, b) if known[i] else None for i, (a, b) in enumerate(spans.tolist())])
    return tuple(
        Sample(frames_at(frame), pid, camid, view, condition, domain, span)
        for pid, camid, frame, view, condition, domain, span in zip(*columns, strict=True)
    )
