"""Stepwise Metric Promotion as published, on a benchmark of tracklets: LOMO-like features, XQDA.

    python tools/smp_published.py                                    # synthetic_mars, rendered
    python tools/smp_published.py --gap 4
    python tools/smp_published.py --benchmark mars --root datasets/mars --times --gap 150

Identities of the training tracklets are used for the precision and recall that are printed, for the
last line, which is the metric that labels give of the same features, and by --one-per-person, which
keeps one tracklet of each person in each camera: what the method assumes, and a weak supervision.
--gap finds such tracklets by time instead. Precision is the share of the matches that are right;
recall is the share of the pairs of cameras a person walks in, in which that person was matched.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reidkit.data import FrameSampling, default_root, load_benchmark
from reidkit.data.frames import read_image
from reidkit.data.lomo import lomo
from reidkit.evaluation import evaluate_distances
from reidkit.types import Benchmark, Sample
from reidkit.unsupervised.matching import TrackletMatch
from reidkit.unsupervised.promotion import Promotion, principal, promote, tracklet_distances
from reidkit.unsupervised.tracklets import sparse_tracklets
from reidkit.unsupervised.xqda import Metric, scatters, xqda


def main() -> None:
    """Extract, promote, and print a line a round."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--benchmark", default="synthetic_mars")
    parser.add_argument("--root", type=Path, help="its folder; REIDKIT_DATA where not given")
    parser.add_argument("--frames", type=int, default=4, help="of each tracklet, evenly")
    parser.add_argument("--dim", type=int, default=600, help="kept by PCA")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--sigma", type=float, help="the median distance where not given")
    parser.add_argument("--gate", action="store_true")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--ridge", type=float, default=1e-4)
    parser.add_argument("--times", action="store_true", help="of MARS, whose names hold frames")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--one-per-person", action="store_true", help="weak supervision, see above")
    only.add_argument("--gap", type=float, help="between tracklets of a camera, in their time")
    args = parser.parse_args()

    root, times = args.root or default_root(), {"times": True} if args.times else {}
    benchmark = load_benchmark(args.benchmark, root, check="warn", **times)
    train = chosen(args, benchmark.train)
    start = time.perf_counter()
    sides = [features(side, args.frames) for side in (train, benchmark.query, benchmark.gallery)]
    told(start, f"LOMO-like features of {sum(map(len, sides)):,} tracklets, {args.frames} frames")
    start = time.perf_counter()
    pca = principal(sides[0], args.dim)
    frames, *test = [[pca.transform(rows) for rows in side] for side in sides]
    told(start, f"PCA to {pca.n_components_} dimensions")
    places = cameras_of(train)
    tracklets = {camera: [frames[i] for i in of_camera] for camera, of_camera in places.items()}
    start = time.perf_counter()
    learned = promote(
        tracklets, k=args.k, sigma=args.sigma, gate=args.gate, rounds=args.rounds, ridge=args.ridge
    )
    told(start, f"{len(learned.matches)} rounds, {sizes(tracklets)} tracklets by camera")
    show(benchmark, train, places, learned, frames, test)


def chosen(args: argparse.Namespace, train: Sequence[Sample]) -> list[Sample]:
    """The training tracklets that are learned from."""
    if args.gap is not None:
        return [train[place] for place in sparse_tracklets(train, args.gap)]
    if args.one_per_person:
        return list({(sample.pid, sample.camid): sample for sample in reversed(train)}.values())
    return list(train)


def features(samples: Sequence[Sample], count: int) -> list[np.ndarray]:
    """The frames (T, D) of each tracklet."""
    sampling = FrameSampling("evenly", count)
    draw = np.random.default_rng(0)  # asked for, and not used by "evenly"
    return [
        np.stack([lomo(read_image(s.frames[i])) for i in sampling.choose(len(s.frames), draw)])
        for s in samples
    ]


def cameras_of(samples: Sequence[Sample]) -> dict[int, list[int]]:
    """The positions of the tracklets of each camera."""
    places = defaultdict(list)
    for place, sample in enumerate(samples):
        places[sample.camid].append(place)
    return places


def show(
    benchmark: Benchmark,
    train: Sequence[Sample],
    places: dict[int, list[int]],
    learned: Promotion,
    frames: list[np.ndarray],
    test: list[list[np.ndarray]],
) -> None:
    """A line a stage: the metric's scores, and what was matched by it; last what labels give."""
    dim = test[0][0].shape[1]
    euclid = tracklet_distances([Metric(np.eye(dim), np.eye(dim))], *test)
    print(f"{'':<22}{'matches':>9}{'precision':>11}{'recall':>9}{'rank-1':>9}{'mAP':>9}")
    print(f"{'Euclidean':<22}{'':>29}{scores(benchmark, euclid)}")
    for stage in range(len(learned.metrics)):
        name = f"promoted in round {stage}" if stage else "XQDA of each camera"
        found = learned.matches[stage] if stage < len(learned.matches) else None
        quality = f"{'':>29}" if found is None else judged(train, places, found)
        print(f"{name:<22}{quality}{scores(benchmark, learned.distance(*test, stage=stage))}")
    if learned.note:
        print(learned.note)
    pids = np.repeat([sample.pid for sample in train], [len(rows) for rows in frames])
    known = np.concatenate(frames), pids
    best = tracklet_distances([xqda(scatters(*known, *known))], *test)
    print(f"{'XQDA with identities':<22}{'':>29}{scores(benchmark, best)}")


def judged(
    train: Sequence[Sample], places: dict[int, list[int]], found: Sequence[TrackletMatch]
) -> str:
    """Number, precision and recall of the matches."""
    seen = defaultdict(set)
    for sample in train:
        seen[sample.pid].add(sample.camid)
    possible = sum(len(cameras) * (len(cameras) - 1) // 2 for cameras in seen.values())
    right = [
        (train[places[m.cam_a][m.a]].pid, m.cam_a, m.cam_b)
        for m in found
        if train[places[m.cam_a][m.a]].pid == train[places[m.cam_b][m.b]].pid
    ]
    precision, recall = len(right) / max(len(found), 1), len(set(right)) / max(possible, 1)
    return f"{len(found):>9}{100 * precision:>10.1f}%{100 * recall:>8.1f}%"


def scores(benchmark: Benchmark, distances: np.ndarray) -> str:
    """Rank-1 and mAP under the benchmark's protocol."""
    sides = [
        [[getattr(sample, key) for sample in side] for key in ("pid", "camid")]
        for side in (benchmark.query, benchmark.gallery)
    ]
    found = evaluate_distances(distances, *sides[0], *sides[1], benchmark.protocol)
    return f"{100 * found['rank-1']:>8.2f}%{100 * found['mAP']:>8.2f}%"


def sizes(tracklets: dict[int, list[np.ndarray]]) -> str:
    return " + ".join(str(len(of_camera)) for of_camera in tracklets.values())


def told(start: float, what: str) -> None:
    print(f"{time.perf_counter() - start:7.1f} s  {what}")


if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
