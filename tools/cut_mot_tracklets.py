"""Cut the crops of tracklets out of MOTChallenge sequences, for the benchmark `mot`.

    python tools/cut_mot_tracklets.py MOT17/train/MOT17-02-FRCNN MOT17/train/MOT17-04-FRCNN \\
        --out datasets/mot
    python tools/cut_mot_tracklets.py MOT17/test/MOT17-01-FRCNN --boxes tracker/MOT17-01.txt \\
        --out datasets/mot --every 5

A sequence is a folder with img1/000001.jpg ...; the boxes are its ground truth, or what a tracker
wrote in the same form (--boxes, below the sequence, or as it is). A sequence that is in --out
already is left as it is. Of MOT17 each video is there three times, with different detections: take
one of the three.
"""

import argparse
import sys
from pathlib import Path

from reidkit.data.video.cutting import cut_tracklets
from reidkit.engine.console import Console


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sequences", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--boxes", type=Path, help="SEQ/gt/gt.txt where not given")
    parser.add_argument("--min-visibility", type=float, default=0.5, help="[0, 1], where known")
    parser.add_argument("--min-height", type=int, default=64, help="of a crop, in pixels")
    parser.add_argument("--every", type=int, default=1, help="take one of so many frames")
    args = parser.parse_args()
    if not 0 <= args.min_visibility <= 1:
        parser.error(f"--min-visibility {args.min_visibility}: expected within [0, 1]")
    for name, given in (("min-height", args.min_height), ("every", args.every)):
        if given < 1:
            parser.error(f"--{name} {given}: expected 1 or more")
    console = Console()
    for sequence in args.sequences:
        target = args.out / sequence.resolve().name
        if target.is_dir():
            console.say(f"{sequence.name}: {target} is there already, left as it is")
            continue
        boxes = sequence / (args.boxes or "gt/gt.txt")
        if args.boxes and not boxes.is_file():
            boxes = args.boxes
        try:
            with console.bar(sequence.name) as update:
                report = cut_tracklets(
                    sequence,
                    boxes,
                    args.out,
                    min_visibility=args.min_visibility,
                    min_height=args.min_height,
                    every=args.every,
                    progress=lambda done, total, update=update: update(done, total=total),
                )
        except (OSError, ValueError) as error:
            print(f"cut_mot_tracklets: {error}", file=sys.stderr)
            return 1
        console.say(
            f"{sequence.name}: {report.tracklets:,} tracklets, {report.crops:,} crops, "
            f"{report.small:,} boxes too small"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
