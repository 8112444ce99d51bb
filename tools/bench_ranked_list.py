"""The ranked list loss against pytorch-metric-learning's, forward and backward, in one run.

    OMP_NUM_THREADS=2 python tools/bench_ranked_list.py
    python tools/bench_ranked_list.py --rows 256 --dims 512 --seconds 10 --json

Margin 0.4, alpha 1.2, temperature 10, both parts alike: `imbalance` 0.5 there, half the loss here.
The rows are unit vectors of identities with four images, and about half of the negatives violate.
Calls take turns, so that a disturbance hits all sides; medians are compared, and beside them stands
the ratio of the fastest calls. Passes where the median of the ratios over the sizes is at least 2
and each is at least 1.6. `pair` is what it costs here to move both ends of a pair, as the other
library does.
"""

import argparse
import json
import time
import warnings
from statistics import median

import pytorch_metric_learning.losses as pml
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.losses import RankedListLoss

MARGIN, ALPHA, TEMPERATURE = 0.4, 1.2, 10.0
IMAGES = 4  # of an identity
MEDIAN, EACH = 2.0, 1.6  # least ratios
SIDES = ("theirs", "query", "pair")


def rows(count: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """Unit vectors (N, D) and labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) // IMAGES
    common = torch.randn(1, dim, generator=generator)
    identities = torch.randn(int(labels[-1]) + 1, dim, generator=generator)
    spread = torch.randn(count, dim, generator=generator)
    # Variances of what all, one identity and one image have: cosines of negatives are 0.28, whose
    # distance is alpha; of positives 0.6.
    vectors = 0.28**0.5 * common + 0.32**0.5 * identities[labels] + 0.4**0.5 * spread
    return F.normalize(vectors, dim=1), labels


def sides() -> dict[str, nn.Module]:
    """The losses to compare."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs warns of temperatures above 5
        theirs = pml.RankedListLoss(margin=MARGIN, Tn=TEMPERATURE, alpha=ALPHA, imbalance=0.5)
    query = RankedListLoss(MARGIN, ALPHA, TEMPERATURE)
    pair = RankedListLoss(MARGIN, ALPHA, TEMPERATURE, gradient="pair")
    return dict(zip(SIDES, (theirs, query, pair), strict=True))


def compare(count: int, dim: int, seconds: float, seed: int) -> dict[str, float]:
    """Milliseconds of each side at one size, and how many times faster than theirs ours are.

    SystemExit where the losses do not agree.
    """
    vectors, labels = rows(count, dim, seed)
    vectors.requires_grad_()
    times: dict[str, list[float]] = {name: [] for name in SIDES}
    losses = sides()
    values = {name: step(loss, vectors, labels)[0] for name, loss in losses.items()}
    for name in SIDES[1:]:
        # Theirs adds 1e-5 for every row of the batch to the sums of weights.
        if abs(values[name] / 2 - values["theirs"]) > 1e-5 * count * values["theirs"] + 1e-6:
            raise SystemExit(f"{count} x {dim}: the losses differ: {values}")
    end = time.perf_counter() + seconds
    turn = 0
    while time.perf_counter() < end or turn < 5:
        for place in range(len(SIDES)):  # whoever follows theirs finds the caches full of it
            name = SIDES[(turn + place) % len(SIDES)]
            times[name].append(step(losses[name], vectors, labels)[1])
        turn += 1
    found: dict[str, float] = {"rows": count, "dim": dim, "calls": turn}
    found |= {name: 1e3 * median(times[name]) for name in SIDES}
    found |= {f"{name}_ratio": found["theirs"] / found[name] for name in SIDES[1:]}
    return found | {"fastest_ratio": min(times["theirs"]) / min(times["query"])}


def step(loss: nn.Module, vectors: Tensor, labels: Tensor) -> tuple[float, float]:
    """The value and the seconds of one forward and backward."""
    clock = time.perf_counter()
    value = loss(vectors, labels)
    value.backward()
    taken = time.perf_counter() - clock
    vectors.grad = None
    return float(value.detach()), taken


def main() -> None:
    """Measure every size, print a line each, and pass or fail."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[60, 128, 256, 512])
    parser.add_argument("--dims", type=int, nargs="+", default=[512, 1536])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each size")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    args = parser.parse_args()
    if min(*args.rows, *args.dims, args.threads) < 1 or min(args.rows) <= IMAGES:
        parser.error(f"dims and threads are at least 1, rows more than {IMAGES}")
    torch.set_num_threads(args.threads)
    sizes = [(count, dim) for count in args.rows for dim in args.dims]
    compare(*sizes[0], 0.2, args.seed)  # to warm up
    found = [compare(*size, args.seconds, args.seed) for size in sizes]
    ratios = [size["query_ratio"] for size in found]
    passed = median(ratios) >= MEDIAN and min(ratios) >= EACH
    if args.json:
        told = {"threads": args.threads, "sizes": found, "median_ratio": median(ratios)}
        print(json.dumps({**told, "least_ratio": min(ratios), "passed": passed}))
    else:
        show(found, args.threads)
        verdict = "pass" if passed else "fail"
        print(f"ratio: median {median(ratios):.2f} of {MEDIAN}, least {min(ratios):.2f} of {EACH}")
        print(verdict)
    raise SystemExit(not passed)


def show(found: list[dict[str, float]], threads: int) -> None:
    """A line for each size, milliseconds of one forward and backward."""
    print(f"forward and backward, ms, median, {threads} threads; ratio to the other library's")
    print(
        f"{'N x D':>12}{'calls':>7}{'theirs':>9}{'ours':>9}{'ratio':>7}{'fastest':>9}"
        f"{'pair':>9}{'ratio':>7}"
    )
    for size in found:
        print(
            f"{size['rows']:>5} x {size['dim']:<4}{size['calls']:>7}{size['theirs']:>9.3f}"
            f"{size['query']:>9.3f}{size['query_ratio']:>7.2f}{size['fastest_ratio']:>9.2f}"
            f"{size['pair']:>9.3f}{size['pair_ratio']:>7.2f}"
        )


if __name__ == "__main__":
    main()
