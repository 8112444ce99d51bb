"""Cut tracklets from Market-1501's boxes drawn by hand (gt_bbox), into the layout of MARS.

    python tools/cut_market_tracklets.py Market-1501-v15.09.15 datasets/market-tracklets
    python tools/cut_market_tracklets.py Market-1501-v15.09.15 OUT --gap 75 --least 5 --link

A tracklet is one identity in one camera and sequence, neighbours at most --gap frames of the video
apart, with --least boxes or more. Identities of bounding_box_train train, the others are tested;
the first tracklet of each in each camera asks. F in a name is sequence * 1,000,000 + frame, a clock
of the camera: load OUT as `mars` with `check: off` and `args: {times: true}`. Identities stand in
the names because that layout has them; learning without labels does not read them.
"""

import argparse
import os
import re
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from reidkit.data.adapters.market1501 import find_root
from reidkit.data.benchmarks import is_image
from reidkit.data.synthetic.mars_layout import Track, frame_name, write_mars_info
from reidkit.engine.console import Console

BOXES, TRAIN = "gt_bbox", "bounding_box_train"
NAME = re.compile(r"(\d{4})_c([1-6])s(\d+)_(\d{6})_(\d\d)\.")  # some end in .jpg.jpg
SEQUENCE = 1_000_000  # frames between the starts of two sequences, more than any has
OURS = frozenset({"bbox_train", "bbox_test", "info"})


class Box(NamedTuple):
    """A picture of gt_bbox; in sorted order a person's path through a camera."""

    pid: int
    camid: int
    moment: int
    number: int
    path: Path


class Cut(NamedTuple):
    """Tracklets in sorted order, and what was left out: boxes in too short ones, and further boxes
    of one person at one moment."""

    tracklets: list[list[Box]]
    short: int
    twice: int


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("market", type=Path, help="folder of Market-1501")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--gap", type=int, default=150, help="most frames between two boxes")
    parser.add_argument("--least", type=int, default=3, help="fewest boxes of a tracklet")
    parser.add_argument("--link", action="store_true", help="hard links instead of copies")
    args = parser.parse_args(words)
    if args.gap < 1 or args.least < 1:
        return fail(f"--gap {args.gap} --least {args.least}, expected 1 or more of each", 2)
    if args.out.exists() and not (args.out.is_dir() and not any(args.out.iterdir())):
        return fail(f"{args.out} is there already; name a new folder", 2)
    try:
        build(args.market, args.out, args.gap, args.least, args.link, Console())
    except (OSError, ValueError) as error:
        return fail(str(error), 1)
    return 0


def fail(what: str, code: int) -> int:
    print(f"cut_market_tracklets: {what}", file=sys.stderr)
    return code


def build(market: Path, out: Path, gap: int, least: int, link: bool, console: Console) -> None:
    """Write OUT, whole or not at all, and say what is in it."""
    root = find_root(market)
    boxes = read_boxes(root / BOXES)
    trained = {box.pid for box in read_boxes(root / TRAIN)}
    cut = cut_tracklets(boxes, gap, least)
    train = [tracklet for tracklet in cut.tracklets if tracklet[0].pid in trained]
    test = [tracklet for tracklet in cut.tracklets if tracklet[0].pid not in trained]
    if not train or not test:
        raise ValueError(
            f"{len(train)} tracklets to train and {len(test)} to test; expected some of each: "
            "lower --least or raise --gap"
        )
    partial = out.with_name(f"{out.name}.partial")
    clear(partial)
    with console.bar("frames", sum(map(len, cut.tracklets))) as update:
        place = link_file if link else copy_file
        tracks = [
            write_side(partial / f"bbox_{side}", tracklets, place, update, start)
            for side, tracklets, start in (
                ("train", train, 0),
                ("test", test, sum(map(len, train))),
            )
        ]
    write_mars_info(partial, tracks[0], tracks[1], first_of_each(test))
    if out.exists():
        out.rmdir()  # empty, as was seen
    os.replace(partial, out)
    tell(console, out, {"train": train, "test": test}, cut)


def read_boxes(folder: Path) -> list[Box]:
    """The boxes of a folder of Market-1501, sorted; junk, distractors and other files are none."""
    found: list[Box] = []
    if folder.is_dir():
        for path in folder.iterdir():
            match = NAME.match(path.name) if is_image(path) else None
            if match is not None and int(match[1]) > 0:
                pid, camera, sequence, frame, number = map(int, match.groups())
                found.append(Box(pid, camera - 1, sequence * SEQUENCE + frame, number, path))
    if not found:
        raise FileNotFoundError(
            f"no boxes in {folder}, expected pictures such as 0001_c1s1_001051_00.jpg: the whole "
            f"archive Market-1501-v15.09.15 with {BOXES} (25,259 pictures) and {TRAIN}"
        )
    return sorted(found)


def cut_tracklets(boxes: Iterable[Box], gap: int, least: int) -> Cut:
    """Boxes, sorted, in tracklets; two boxes of one person at one moment are one."""
    runs: list[list[Box]] = []
    twice = 0
    for box in boxes:
        last = runs[-1][-1] if runs else None
        if last is None or box[:2] != last[:2] or box.moment - last.moment > gap:
            runs.append([box])
        elif box.moment == last.moment:
            twice += 1
        else:
            runs[-1].append(box)
    kept = [run for run in runs if len(run) >= least]
    return Cut(kept, sum(len(run) for run in runs if len(run) < least), twice)


def clear(partial: Path) -> None:
    """Remove what a killed run left; ValueError where it is something else."""
    if partial.exists():
        if not partial.is_dir() or {path.name for path in partial.iterdir()} - OURS:
            raise ValueError(f"{partial} is not this tool's; move it away")
        shutil.rmtree(partial)


def write_side(
    folder: Path,
    tracklets: list[list[Box]],
    place: Callable[[Path, Path], None],
    update: Callable[[int], None],
    done: int,
) -> list[Track]:
    """Put the frames of tracklets where MARS has them."""
    tracks: list[Track] = []
    number: Counter[tuple[int, int]] = Counter()
    for tracklet in tracklets:
        pid, camid = tracklet[0][:2]
        number[pid, camid] += 1
        names = [frame_name(pid, camid, number[pid, camid], box.moment) for box in tracklet]
        home = folder / names[0][:4]
        home.mkdir(parents=True, exist_ok=True)
        for name, box in zip(names, tracklet, strict=True):
            place(box.path, home / name)
        tracks.append(Track(pid, camid, tuple(names)))
        done += len(names)
        update(done)
    return tracks


def copy_file(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def link_file(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        raise OSError(
            f"{source} cannot be linked to {target} ({error.strerror}); leave out --link to copy"
        ) from error


def first_of_each(tracklets: list[list[Box]]) -> list[int]:
    """The place of the first tracklet of each identity in each camera."""
    first: dict[tuple[int, int], int] = {}
    for place, tracklet in enumerate(tracklets):
        first.setdefault((tracklet[0].pid, tracklet[0].camid), place)
    return list(first.values())


def tell(console: Console, out: Path, sides: dict[str, list[list[Box]]], cut: Cut) -> None:
    """Say what was written."""
    for side, tracklets in sides.items():
        pids = {tracklet[0].pid for tracklet in tracklets}
        cameras = {tracklet[0].camid for tracklet in tracklets}
        console.say(
            f"{side}: {len(tracklets):,} tracklets of {len(pids):,} identities in {len(cameras)} "
            f"cameras, {sum(map(len, tracklets)):,} frames"
        )
        owners: dict[tuple[int, int], int] = defaultdict(int)
        for tracklet in tracklets:
            owners[tracklet[0].pid, tracklet[0].camid] += 1
        counts = sorted(Counter(owners.values()).items())
        told = ", ".join(f"{number} in {times:,} cases" for number, times in counts)
        console.say(f"  tracklets of an identity in a camera: {told}")
    console.say(
        f"left out: {cut.short:,} boxes in tracklets that are too short, {cut.twice:,} second "
        f"boxes of a person at one moment. {out} is whole."
    )


if __name__ == "__main__":
    sys.exit(main())
