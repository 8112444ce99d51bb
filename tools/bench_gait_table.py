"""Time a gait table: reidkit's one pass, a plain torch implementation, and the product alone.

    python tools/bench_gait_table.py
    python tools/bench_gait_table.py --probes 300 --gallery 200 --parts 8 --dim 32

Made-up CASIA-B features; all contestants in one process on the same numbers, the fastest of
`--repeats` rounds each. Compiling is not counted. Peak memory is what a contestant takes beyond the
features.
"""

import argparse
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from reidkit.evaluation.gait.table import GAIT_PROTOCOLS, GaitTable, gait_table
from reidkit.types import Features, Sample

RULES = GAIT_PROTOCOLS["casia_b"]
VIEWS = RULES.views
LATENT = 24  # what people differ in; the rest of a vector repeats it, as features of one person do


def made(count: int, conditions: list[str], parts: int, dim: int, identities: int) -> Features:
    """People walking: each in every condition and view, vectors (count, parts * dim)."""
    per_person = len(conditions) * len(VIEWS)
    samples = [
        Sample(
            (),
            i // per_person % identities,
            view=VIEWS[i % len(VIEWS)],
            condition=conditions[i // len(VIEWS) % len(conditions)],
        )
        for i in range(count)
    ]
    people = torch.randn(identities, LATENT, generator=torch.Generator().manual_seed(1))
    weights = torch.Generator().manual_seed(2)
    noise = {"nm": 0.7, "bg": 0.9, "cl": 1.2}
    random = torch.Generator().manual_seed(count)
    blur = torch.tensor([noise[sample.condition[:2]] for sample in samples])[:, None]
    latent = people[[sample.pid for sample in samples]]
    latent = latent + blur * torch.randn(count, LATENT, generator=random)
    vectors = latent @ torch.randn(LATENT, parts * dim, generator=weights)
    for rows in vectors.split(256):
        rows += 0.5 * torch.randn(rows.shape, generator=random)
    return Features(vectors, tuple(samples), parts)


def plain_table(probe: Features, gallery: Features, distance: str) -> torch.Tensor:
    """What one would write first: all distances, part by part, then each pair of views by itself.

    Returns correct answers (C, V, V).
    """
    parts = probe.parts if distance == "parts" else 1
    total = torch.zeros(len(probe), len(gallery))
    pairs = zip(probe.vectors.chunk(parts, dim=1), gallery.vectors.chunk(parts, dim=1), strict=True)
    for a, b in pairs:
        squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.t()
        total += squares.clamp_min(0).sqrt()
    total /= parts
    correct = torch.zeros(len(RULES.probes), len(VIEWS), len(VIEWS), dtype=torch.int64)
    for c, names in enumerate(RULES.probes.values()):
        for v, view in enumerate(VIEWS):
            rows = [
                i for i, s in enumerate(probe.samples) if s.condition in names and s.view == view
            ]
            for w, other in enumerate(VIEWS):
                columns = [j for j, s in enumerate(gallery.samples) if s.view == other]
                if not rows or not columns:
                    continue
                nearest = total[rows][:, columns].argmin(1)
                found = gallery.pids[columns][nearest]
                correct[c, v, w] = (found == probe.pids[rows]).sum()
    return correct


def product(probe: Features, gallery: Features, distance: str) -> Callable[[], None]:
    """The products all contestants need, by numpy's BLAS on all threads, thrown away."""
    parts = probe.parts if distance == "parts" else 1
    a, b = (
        np.ascontiguousarray(side.vectors.numpy().reshape(len(side), parts, -1).swapaxes(0, 1))
        for side in (probe, gallery)
    )
    out = np.empty((len(probe), len(gallery)), np.float32)

    def multiply() -> None:
        for part in range(parts):
            np.matmul(a[part], b[part].T, out=out)

    return multiply


@contextmanager
def peak() -> Iterator[list[float]]:
    """A list whose only number becomes the most memory taken inside, in MB."""
    page, found, done = os.sysconf("SC_PAGESIZE"), [0.0], threading.Event()

    def resident() -> float:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * page / 2**20

    before = resident()

    def watch() -> None:
        while not done.wait(0.005):
            found[0] = max(found[0], resident() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def measured(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Seconds of the fastest round, and MB of the largest."""
    seconds, memory = float("inf"), 0.0
    for _ in range(repeats):
        with peak() as found:
            start = time.perf_counter()
            work()
            seconds = min(seconds, time.perf_counter() - start)
        memory = max(memory, found[0])
    return seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--probes", type=int, default=4884)
    parser.add_argument("--gallery", type=int, default=3256)
    parser.add_argument("--parts", type=int, default=62)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--distance", choices=["parts", "flat"], default="parts")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    size = parser.parse_args()
    torch.set_num_threads(size.threads)
    conditions = [name for names in RULES.probes.values() for name in names]
    identities = max(2, -(-size.gallery // (len(RULES.gallery) * len(VIEWS))))
    probe = made(size.probes, conditions, size.parts, size.dim, identities)
    gallery = made(size.gallery, list(RULES.gallery), size.parts, size.dim, identities)
    print(
        f"{size.probes} probes x {size.gallery} gallery x {size.parts} parts x {size.dim}, "
        f"distance {size.distance}, {size.threads} threads, features "
        f"{(probe.vectors.nbytes + gallery.vectors.nbytes) / 2**20:.0f} MB"
    )
    few = [replace(s, vectors=s.vectors[:30], samples=s.samples[:30]) for s in (probe, gallery)]
    gait_table(few[0], few[1], RULES, distance=size.distance)  # compiles, or reads the compiled

    def ours() -> GaitTable:
        return gait_table(probe, gallery, RULES, distance=size.distance)

    def theirs() -> torch.Tensor:
        return plain_table(probe, gallery, size.distance)

    results = {
        "reidkit": measured(ours, size.repeats),
        "plain torch": measured(theirs, size.repeats),
        "product alone": measured(product(probe, gallery, size.distance), size.repeats),
    }
    base, slow = results["product alone"][0], results["plain torch"][0]
    print(f"{'':14}  seconds  to product  to plain torch  peak MB")
    for name, (seconds, memory) in results.items():
        print(
            f"{name:14}  {seconds:7.2f}  {seconds / base:10.2f}  {seconds / slow:14.2f}  "
            f"{memory:7.0f}"
        )
    table, plain = ours(), theirs()
    rows = [VIEWS.index(view) for view in table.views]
    difference = (table.correct - plain[:, rows][:, :, rows]).abs()
    print(table.table())
    print(
        "the tables agree"
        if not difference.any()
        else f"{int((difference > 0).sum())} of {difference.numel()} cells differ, by at most "
        f"{int(difference.max())} probes: near-ties that float32 decides by chance"
    )


if __name__ == "__main__":
    main()
