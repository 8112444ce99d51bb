"""Re-ranking: reidkit against plain numpy on N x N matrices, each in a process of its own.

    python tools/bench_rerank.py --queries 3368 --gallery 15913 --dim 512
    python tools/bench_rerank.py --features query.npz gallery.npz

Prints the seconds of the fastest repeat, from features to all final distances; the growth of the
process' peak memory meanwhile; the mAP of the distances, with the query's identity in the query's
camera left out. Compiling is not counted: a process before does it and the disk keeps it.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from reidkit.types import Features

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]
K1, K2, LAMBDA = 20, 6, 0.3
# Of the made-up gallery: images of one identity, and others' that lie as near as those on average.
CAMERAS, IMAGES, STRANGERS = 6, 20, 60


def plain_rerank(query: Floats, gallery: Floats) -> Floats:
    """Final distances (Q, G), as a reader of the paper would write them with numpy.

    Zhong et al., CVPR 2017, arXiv:1701.08398. query (Q, D), gallery (G, D), unit rows.
    """
    items = np.concatenate([query, gallery])
    count, queries = len(items), len(query)
    lengths = (items**2).sum(1)
    squares = lengths[:, None] + lengths[None, :] - 2 * items @ items.T
    np.fill_diagonal(squares, 0)
    original = np.transpose(squares / squares.max(axis=0))
    del squares
    order = np.argsort(original, axis=1)
    weights = np.zeros((count, count), np.float32)
    for i in range(count):
        known = reciprocal(order, i, K1)
        members = known
        for candidate in known:
            theirs = reciprocal(order, candidate, round(K1 / 2))
            if len(np.intersect1d(theirs, known)) > 2 / 3 * len(theirs):
                members = np.append(members, theirs)
        members = np.unique(members)
        share = np.exp(-original[i, members])
        weights[i, members] = share / share.sum()
    original = original[:queries].copy()
    expanded = np.zeros_like(weights)
    for i in range(count):
        expanded[i] = weights[order[i, :K2]].mean(axis=0)
    weights = expanded
    del order, expanded
    owners = [np.flatnonzero(weights[:, j]) for j in range(count)]
    jaccard = np.zeros_like(original)
    for i in range(queries):
        shared = np.zeros(count, np.float32)
        for j in np.flatnonzero(weights[i]):
            shared[owners[j]] += np.minimum(weights[i, j], weights[owners[j], j])
        jaccard[i] = 1 - shared / (2 - shared)
    return ((1 - LAMBDA) * jaccard + LAMBDA * original)[:, queries:]


def reciprocal(order: Integers, i: int, k: int) -> Integers:
    """Which of the first k + 1 items of i's list have i among theirs."""
    forward = order[i, : k + 1]
    return forward[(order[forward, : k + 1] == i).any(axis=1)]


def mean_average_precision(
    blocks: Iterable[Floats],
    query: tuple[Integers, Integers],
    gallery: tuple[Integers, Integers],
) -> float:
    """mAP of final distances by Market-1501's rule; both sides as (pids, camids)."""
    values: list[float] = []
    first = 0
    for block in blocks:
        for row, pid, camid in zip(block, query[0][first:], query[1][first:], strict=False):
            right = gallery[0] == pid
            counted = (gallery[0] != -1) & ~(right & (gallery[1] == camid))
            answers = right[counted]
            # At one distance the right answers come last.
            answers = answers[np.lexsort((answers, row[counted]))]
            ranks = np.flatnonzero(answers) + 1
            if len(ranks):
                values.append(float(np.mean(np.arange(1, len(ranks) + 1) / ranks)))
        first += len(block)
    return float(np.mean(values))


def made_up(queries: int, gallery: int, dim: int, seed: int) -> dict[str, Features]:
    """Identities as noisy directions, so noisy that the mAP after re-ranking is about one half."""
    generator = np.random.default_rng(seed)
    identities = max(2, gallery // IMAGES)
    directions = generator.normal(size=(identities, dim)).astype(np.float32)
    # Cosines of strangers have a deviation of 1 / sqrt(D); of one identity they are 1 / (1 + n^2)
    # on average, and that shall be so high that `STRANGERS` of the gallery reach it.
    reach = NormalDist().inv_cdf(1 - min(0.4, STRANGERS / gallery)) / np.sqrt(dim)
    noise = np.float32(np.sqrt(max(1 / reach - 1, 0.1)))
    sides = {}
    for name, count in (("query", queries), ("gallery", gallery)):
        pids = generator.integers(identities, size=count)
        spread = generator.normal(size=(count, dim)).astype(np.float32)
        camids = generator.integers(CAMERAS, size=count)
        sides[name] = Features.from_arrays(directions[pids] + noise * spread, pids, camids)
    return sides


def measured(side: str, folder: Path, repeats: int) -> dict[str, float]:
    """Run in a process of its own: seconds, megabytes and mAP of one side."""
    query, gallery = (Features.load(folder / f"{name}.npz") for name in ("query", "gallery"))
    run: Callable[[Features, Features], Iterable[Floats]]
    if side == "plain":

        def run(query: Features, gallery: Features) -> Iterable[Floats]:
            units = [
                (x / np.linalg.norm(x, axis=1, keepdims=True))
                for x in (query.vectors.numpy(), gallery.vectors.numpy())
            ]
            return [plain_rerank(*units)]
    else:
        from reidkit.evaluation.reranking.k_reciprocal import rerank

        def run(query: Features, gallery: Features) -> Iterable[Floats]:
            blocks = rerank(query, gallery, k1=K1, k2=K2, lambda_value=LAMBDA)
            for _ in blocks:
                pass
            return blocks

    small = made_up(60, 600, 32, seed=0)  # more items than a tile has: every loop is entered
    run(small["query"], small["gallery"])
    if side == "warm":
        return {}
    before = peak()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        blocks = run(query, gallery)
        seconds.append(time.perf_counter() - start)
    megabytes = peak() - before
    both = [(side.pids.numpy(), side.camids.numpy()) for side in (query, gallery)]
    score = mean_average_precision(blocks, *both)
    return {"seconds": min(seconds), "MB": megabytes, "mAP": score}


def peak() -> float:
    """The most memory this process has had, in megabytes."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def apart(side: str, folder: Path, repeats: int) -> dict[str, float]:
    """`measured` in a new process."""
    command = [sys.executable, __file__, "--side", side, str(folder), "--repeats", str(repeats)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def compare(query: Features, gallery: Features, repeats: int) -> None:
    """Print both sides and their ratios."""
    shape = f"{len(query):,} x {len(gallery):,} x {query.vectors.shape[1]}"
    print(f"re-ranking {shape}, k1 {K1}, k2 {K2}, lambda {LAMBDA}, best of {repeats}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        query.save(folder / "query.npz")
        gallery.save(folder / "gallery.npz")
        apart("warm", folder, 1)
        found = {}
        for side in ("plain", "reidkit"):
            found[side] = apart(side, folder, repeats)
            values = found[side]
            print(
                f"{side:>8}  {values['seconds']:9.3f} s  {values['MB']:9.1f} MB  "
                f"mAP {values['mAP']:.6f}"
            )
    plain, ours = found["plain"], found["reidkit"]
    print(
        f"  faster  {plain['seconds'] / ours['seconds']:9.1f} x  leaner "
        f"{max(plain['MB'], 0.1) / max(ours['MB'], 0.1):.1f} x  mAP differs by "
        f"{abs(plain['mAP'] - ours['mAP']):.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=3368)
    parser.add_argument("--gallery", type=int, default=15913)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--features", nargs=2, metavar=("QUERY", "GALLERY"), help="feature files")
    parser.add_argument("--side", nargs=2, metavar=("SIDE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if min(arguments.queries, arguments.gallery, arguments.dim, arguments.repeats) < 1:
        parser.error("queries, gallery, dim and repeats are at least 1")
    if arguments.side:
        side, folder = arguments.side
        print(json.dumps(measured(side, Path(folder), arguments.repeats)))
        return
    if arguments.features:
        query, gallery = (Features.load(path) for path in arguments.features)
    else:
        sides = made_up(arguments.queries, arguments.gallery, arguments.dim, arguments.seed)
        query, gallery = sides["query"], sides["gallery"]
    compare(query, gallery, arguments.repeats)


if __name__ == "__main__":
    main()
