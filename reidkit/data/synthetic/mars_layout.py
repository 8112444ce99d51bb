"""MARS' `info` folder: lists of names, and tables that count from 1."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat


class Track(NamedTuple):
    """One tracklet: `pid` as MARS writes it (-1 junk, 0 distractors), `camid` from 0, and the names
    of its frames in time order (see `frame_name`)."""

    pid: int
    camid: int
    names: tuple[str, ...]


def frame_name(pid: int, camid: int, tracklet: int, frame: int) -> str:
    """`0001C1T0001F001.jpg`; `camid` counts from 0, `tracklet` and `frame` from 1.

    The first four characters, `00-1` for junk, are also the folder of the file.
    """
    identity = "00-1" if pid == -1 else f"{pid:04d}"
    return f"{identity}C{camid + 1}T{tracklet:04d}F{frame:03d}.jpg"


def write_mars_info(
    out: Path, train: Sequence[Track], test: Sequence[Track], query: Sequence[int]
) -> None:
    """Write `info/train_name.txt`, `test_name.txt`, `tracks_train_info.mat`, `tracks_test_info.mat`
    and `query_IDX.mat` below `out`.

    Here everything counts from 0: `query` are positions in `test`. The files count from 1, rows are
    (start, end inclusive, pid, camera) in int32, the queries uint16 (1, Q).

    Raises:
        ValueError: a tracklet without frames, or a query outside `test` or beyond uint16.
    """
    astray = [position for position in query if not 0 <= position < len(test)]
    if astray:
        raise ValueError(f"queries {astray[:5]} are no positions in the {len(test)} test tracklets")
    info = out / "info"
    info.mkdir(parents=True, exist_ok=True)
    for split, tracks in (("train", train), ("test", test)):
        names = "".join(f"{name}\n" for track in tracks for name in track.names)
        (info / f"{split}_name.txt").write_bytes(names.encode())
        savemat(info / f"tracks_{split}_info.mat", {f"track_{split}_info": table(tracks)})
    savemat(info / "query_IDX.mat", {"query_IDX": numbers(query)})


def numbers(positions: Sequence[int]) -> NDArray[np.uint16]:
    """Positions from 0 as a row (1, N) that counts from 1, as MATLAB code stores sets.

    Raises ValueError where a position does not fit into 16 bits.
    """
    if max(positions, default=0) >= np.iinfo(np.uint16).max:
        raise ValueError(
            f"position {max(positions)} does not fit into 16 bits; use fewer tracklets"
        )
    return (np.array(positions, np.int64).reshape(1, -1) + 1).astype(np.uint16)


def table(tracks: Sequence[Track]) -> NDArray[np.int32]:
    """Rows (start, end, pid, camera) of MARS' tables, (N, 4) int32, counted from 1.

    Raises ValueError for a tracklet without frames.
    """
    lengths = np.array([len(track.names) for track in tracks], np.int64)
    if not lengths.all():
        raise ValueError(f"tracklet {int(np.argmin(lengths))} has no frames; it needs at least one")
    end = np.cumsum(lengths)
    owners = np.array([(track.pid, track.camid + 1) for track in tracks]).reshape(-1, 2)
    return np.column_stack([end - lengths + 1, end, owners]).astype(np.int32)
