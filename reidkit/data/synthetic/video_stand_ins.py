"""Small stand-ins for the video benchmarks, in the exact layouts in which they are released.

For tests and first steps where the real sets are not at hand. The people are drawn by a callback;
the default one makes stripes that no one should train on. With `odd` each writer leaves `Thumbs.db`
files about, as some of the real sets have them.
"""

import json
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from reidkit.data.synthetic.gait_stand_ins import empty_folder
from reidkit.data.synthetic.mars_layout import Track, frame_name, write_mars_info

Draw = Callable[[int, int, int, int], NDArray[np.uint8]]

SPLITS = 10


def draw_stripes(pid: int, camid: int, tracklet: int, frame: int) -> NDArray[np.uint8]:
    """An RGB picture (64, 32, 3): stripes in the colours of the identity, darker from camera to
    camera, which move from frame to frame."""
    colours = np.random.default_rng(zlib.crc32(f"{pid}".encode())).integers(60, 256, (4, 3))
    rows = np.arange(64) // 4 + frame + tracklet
    shade = 1 - 0.1 * (camid % 6)
    return np.tile((shade * colours[rows % 4])[:, None], (1, 32, 1)).astype(np.uint8)


def write_mars_stand_in(
    out: str | Path,
    *,
    train: Iterable[int] = (1, 3, 7),
    test: Iterable[int] = (2, 4, 6),
    cameras: int = 2,
    tracklets: int = 2,
    frames: int = 3,
    junk: int = 2,
    distractors: int = 2,
    draw: Draw = draw_stripes,
    odd: bool = True,
) -> Path:
    """MARS: `bbox_train/0001/0001C1T0001F001.jpg` and the files of `info`.

    Every identity has `tracklets` in each camera, but the last of `test` has one, so that its
    queries have no answer once queries leave the gallery. The queries are the first tracklet of
    each test identity in each camera. Tracklets grow by a frame from one to the next.

    Raises ValueError where `out` is no empty folder.
    """
    out = empty_folder(out)
    people = sorted(test)
    sides: dict[str, list[Track]] = {"train": [], "test": []}
    for pid, number in ((-1, junk), (0, distractors)):
        sides["test"] += [
            _track(pid, place % cameras, place + 1, frames + place) for place in range(number)
        ]
    query = []
    for side, pids in (("train", sorted(train)), ("test", people)):
        for pid in pids:
            each = 1 if side == "test" and pid == people[-1] else tracklets
            for place in range(cameras * each):
                camid, again = divmod(place, each)
                if side == "test" and not again:
                    query.append(len(sides[side]))
                sides[side].append(_track(pid, camid, place + 1, frames + place))
    write_mars_info(out, sides["train"], sides["test"], query)
    for side, tracks in sides.items():
        folder = out / f"bbox_{side}"
        folder.mkdir()
        for track in tracks:
            tracklet = int(track.names[0][7:11])
            for frame, name in enumerate(track.names):
                picture = draw(track.pid, track.camid, tracklet, frame)
                write_picture(folder / name[:4] / name, picture)
        if odd:
            (folder / "Thumbs.db").write_bytes(b"not a picture")
    return out


def write_ilids_vid(
    out: str | Path,
    *,
    people: int = 8,
    frames: int = 3,
    seed: int = 0,
    draw: Draw = draw_stripes,
    odd: bool = True,
) -> Path:
    """iLIDS-VID: `i-LIDS-VID/sequences/cam1/person001/cam1_person001_00317.png`, and beside it
    `train-test people splits/train_test_splits_ilidsvid.mat`.

    Numbers of people have gaps, so that their places in the sorted list are others. Raises
    ValueError where `out` is no empty folder.
    """
    out = empty_folder(out)
    numbers = [place + 1 + place // 3 for place in range(people)]
    for pid in numbers:
        for camid in (0, 1):
            camera, name = f"cam{camid + 1}", f"person{pid:03d}"
            folder = out / "i-LIDS-VID" / "sequences" / camera / name
            for frame in range(frames):
                path = folder / f"{camera}_{name}_{97 + 5 * pid + frame:05d}.png"
                write_picture(path, draw(pid, camid, 0, frame))
            if odd:
                (folder / "Thumbs.db").write_bytes(b"not a picture")
    splits = out / "train-test people splits"
    splits.mkdir()
    table = shuffled(people, seed).astype(np.uint16)
    savemat(splits / "train_test_splits_ilidsvid.mat", {"ls_set": table})
    return out


def write_prid2011(
    out: str | Path,
    *,
    people: int = 8,
    frames: int = 3,
    seed: int = 0,
    splits: Literal["json", "mat"] = "json",
    draw: Draw = draw_stripes,
    odd: bool = True,
) -> Path:
    """PRID 2011: `prid_2011/multi_shot/cam_a/person_0001/0001.png`, and beside it
    `splits_prid2011.json` or, with `ls_set` and `select_idx`, `splits_prid2011.mat`.

    Both name the same people. Each camera also has somebody who is in no split, and one further
    person in both is too short to be in one. Raises ValueError where `out` is no empty folder.
    """
    out = empty_folder(out)
    numbers = [place + 1 + place // 3 for place in range(people)]
    short = 4
    seen = {
        0: {*numbers, short, 301},
        1: {*numbers, short, 302},
    }
    for camid, camera in enumerate(("cam_a", "cam_b")):
        folder = out / "prid_2011" / "multi_shot" / camera
        for pid in sorted(seen[camid]):
            for frame in range(1 if pid == short else frames):
                path = folder / f"person_{pid:04d}" / f"{frame + 1:04d}.png"
                write_picture(path, draw(pid, camid, 0, frame))
        if odd:
            (folder / "Thumbs.db").write_bytes(b"not a picture")
    table = shuffled(people, seed)
    if splits == "mat":
        arrays = {"ls_set": table, "select_idx": np.array([numbers])}
        narrow = {key: value.astype(np.uint8) for key, value in arrays.items()}
        savemat(out / "splits_prid2011.mat", narrow)
        return out
    half = people // 2
    names = np.array([f"person_{pid:04d}" for pid in numbers])
    named = [
        {
            "test": sorted(names[row[:half] - 1].tolist()),
            "train": sorted(names[row[half:] - 1].tolist()),
        }
        for row in table
    ]
    (out / "splits_prid2011.json").write_text(json.dumps(named, indent=4))
    return out


def shuffled(people: int, seed: int) -> NDArray[np.int64]:
    """Ten rows (10, people) of the numbers 1 to `people`, each in another order."""
    generator = np.random.default_rng(seed)
    return np.stack([generator.permutation(people) + 1 for _ in range(SPLITS)])


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write an RGB picture (H, W, 3) in the format of the file's ending, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, picture[..., ::-1])[1].tobytes())


def _track(pid: int, camid: int, tracklet: int, frames: int) -> Track:
    names = (frame_name(pid, camid, tracklet, frame + 1) for frame in range(frames))
    return Track(pid, camid, tuple(names))
