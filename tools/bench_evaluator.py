"""reidkit's evaluator against the bare matrix product and other evaluators, in one run.

    python tools/bench_evaluator.py                                  # Market-1501's size
    python tools/bench_evaluator.py --queries 11659 --gallery 82161 --identities 3061 \\
        --distractors 0 --sides reidkit                              # MSMT17's
    python tools/bench_evaluator.py --gallery 519732 --distractors 506617 --dim 512 \\
        --sides reidkit                                              # and 500,000 distractors
    python tools/bench_evaluator.py --queries 1000 --gallery 2000000 --dim 256 \\
        --identities 100000 --distractors 0 --memory-mapped

Each side runs in a process of its own, so that its peak memory is its own. Times are of one call,
features in and scores out, the median of the repeats; the product is repeated between reidkit's
calls. Features are drawn about one centre an identity: --noise says how hard they are.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

SIDES = ("reidkit", "numpy", "torchmetrics", "pytorch-metric-learning")
CAMERAS = 6
OPTIONS = (
    *("queries", "gallery", "dim", "identities", "distractors"),
    *("noise", "repeats", "metric", "file"),
)
MB = 2**20


def main() -> None:
    """Run every side in turn and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=3368)
    parser.add_argument("--gallery", type=int, default=15913)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--identities", type=int, default=751)
    parser.add_argument("--distractors", type=int, default=2798, help="gallery items of pid 0")
    parser.add_argument("--noise", type=float, default=3.5, help="spread about an identity")
    parser.add_argument("--repeats", type=int, default=5, help="of reidkit and the product")
    parser.add_argument("--metric", choices=["cosine", "euclidean"], default="cosine")
    parser.add_argument("--sides", default=",".join(SIDES), help="which to run, by comma")
    parser.add_argument("--memory-mapped", action="store_true", help="gallery in a file; reidkit")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args)))
        return
    print(
        f"{args.queries} x {args.gallery} x {args.dim}, {args.metric}; "
        f"{torch.get_num_threads()} threads"
    )
    with tempfile.TemporaryDirectory() as folder:
        if args.memory_mapped:
            args.sides, args.file = "reidkit", str(Path(folder) / "gallery.npy")
            write_gallery(args)
        rows = [run(args, side) for side in args.sides.split(",")]
    show(args, [row for row in rows if row])


def run(args: argparse.Namespace, side: str) -> dict[str, Any] | None:
    """What one side measured in a process of its own."""
    words = [sys.executable, __file__, "--side", side]
    for name in OPTIONS:
        if (value := getattr(args, name)) is not None:
            words += [f"--{name}", str(value)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        print(f"{side}: {done.stderr.strip().splitlines()[-1]}")
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def show(args: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """One line a side; ratios against the fastest product that was measured."""
    products = {name: value for row in rows for name, value in row.get("products", {}).items()}
    fastest = min(products, key=products.get, default=None) if products else None
    for name, seconds in products.items():
        print(f"{f'product, {name}':<34}{seconds:>9.3f} s")
    print(f"{'':<34}{'seconds':>11}{'/ product':>11}{'peak MB':>10}{'rank-1':>9}{'mAP':>9}")
    for row in rows:
        ratio = f"{row['seconds'] / products[fastest]:.2f}" if fastest else ""
        scores = [f"{row[name]:.4f}" if name in row else "" for name in ("rank-1", "mAP")]
        print(
            f"{row['side']:<34}{row['seconds']:>9.3f} s{ratio:>11}{row['peak'] / MB:>10.0f}"
            f"{scores[0]:>9}{scores[1]:>9}  {row.get('note', '')}"
        )
    if rows and fastest and rows[0]["side"] == "reidkit":
        beyond = rows[0]["seconds"] - products[fastest]
        print(
            f"reidkit beyond the product: {beyond:.3f} s, {100 * beyond / products[fastest]:.1f} %"
        )
        print(f"reidkit's repeats: {', '.join(f'{s:.3f}' for s in rows[0]['all'])}")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One side's seconds, peak memory beyond its inputs (bytes) and scores."""
    query, gallery = features(args)
    work = {
        "reidkit": reidkit_side,
        "numpy": numpy_side,
        "torchmetrics": torchmetrics_side,
        "pytorch-metric-learning": metric_learning_side,
    }[args.side]
    return {"side": args.side, **work(args, query, gallery)}


def features(args: argparse.Namespace) -> tuple[tuple, tuple]:
    """Vectors, pids and cameras of both sides; gallery pid 0 are distractors."""
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((args.identities, args.dim), dtype=np.float32)

    def side(count: int, distractors: int, seed: int, file: str | None = None) -> tuple:
        draw = np.random.default_rng(seed)
        pids = identities(args, draw, count, distractors)
        cameras = draw.integers(0, CAMERAS, count)
        if file:
            return np.load(file, mmap_mode="r"), pids, cameras
        vectors = np.empty((count, args.dim), np.float32)
        for start in range(0, count, 4096):
            part = vectors[start : start + 4096]
            draw.standard_normal(out=part, dtype=np.float32)
            part *= args.noise
            which = pids[start : start + 4096]
            part[which > 0] += centres[which[which > 0]]
        return vectors, pids, cameras

    return side(args.queries, 0, 1), side(args.gallery, args.distractors, 2, args.file)


def identities(
    args: argparse.Namespace, draw: np.random.Generator, count: int, distractors: int
) -> np.ndarray:
    """Identities (count,) in the order of a benchmark's files, distractors first."""
    pids = np.zeros(count, np.int64)
    known = max(count - distractors, 1)
    pids[count - known :] = np.sort(draw.integers(1, args.identities, known))
    return pids


def write_gallery(args: argparse.Namespace) -> None:
    """The gallery's vectors as a .npy file, written in pieces."""
    shape = (args.gallery, args.dim)
    target = np.lib.format.open_memmap(args.file, mode="w+", dtype=np.float32, shape=shape)
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((args.identities, args.dim), dtype=np.float32)
    draw = np.random.default_rng(2)
    pids = identities(args, draw, args.gallery, args.distractors)
    for start in range(0, args.gallery, 4096):
        which = pids[start : start + 4096]
        noise = draw.standard_normal((len(which), args.dim), dtype=np.float32)
        target[start : start + 4096] = args.noise * noise
        target[start : start + 4096][which > 0] += centres[which[which > 0]]
    target.flush()


def reidkit_side(args: argparse.Namespace, query: tuple, gallery: tuple) -> dict[str, Any]:
    """reidkit, and the products it is compared with, in turn."""
    from reidkit.evaluation import evaluate_arrays

    warm = [part[: 4 * CAMERAS] for part in query]
    own = [np.concatenate([part, part]) for part in warm]
    own[2] = (own[2] + 1) % CAMERAS
    evaluate_arrays(*warm, *own, metric=args.metric)  # compiles, or loads what was compiled
    start_watching()
    times: dict[str, list[float]] = {"reidkit": []}
    scores, peak = None, 0
    for _ in range(args.repeats):
        before = resident("VmRSS")
        start_watching()
        scores = timed(
            times, "reidkit", lambda: evaluate_arrays(*query, *gallery, metric=args.metric)
        )
        peak = max(peak, resident("VmHWM") - (0 if args.file else before))
        for name, product in products(np.asarray(query[0]), gallery[0]).items():
            timed(times, name, product)
    ours = times.pop("reidkit")
    assert scores is not None
    return {
        "seconds": median(ours),
        "all": ours,
        "peak": peak,
        "rank-1": scores["rank-1"],
        "mAP": scores["mAP"],
        "products": {name: median(values) for name, values in times.items()},
        "note": "peak: all resident memory" if args.file else "",
    }


def products(query: np.ndarray, gallery: np.ndarray) -> dict[str, Callable[[], None]]:
    """The bare product in the blocks that reidkit uses, on numpy's and torch's BLAS."""
    from reidkit.evaluation.hits import block_shape
    from reidkit.evaluation.space import hand_back
    from reidkit.evaluation.threads import even_parts, in_threads

    threads = torch.get_num_threads()
    rows, columns = block_shape(len(query), len(gallery), query.shape[1], threads, "512MB", 4)
    parts = even_parts(len(query), rows, threads)
    blocks = [(part, start) for start in range(0, len(gallery), columns) for part in parts]

    def pick(block: tuple[tuple[int, int], int]) -> tuple[np.ndarray, np.ndarray]:
        (first, last), start = block
        hand_back(gallery)
        return query[first:last], np.asarray(gallery[start : start + columns])

    def on_a_core_each() -> None:
        buffers = [np.empty((rows, columns), np.float32) for _ in range(threads)]

        def work(block: tuple[tuple[int, int], int]) -> None:
            left, right = pick(block)
            buffer = buffers.pop()
            np.matmul(left, right.T, out=buffer[: len(left), : len(right)])
            buffers.append(buffer)

        in_threads(blocks, work, 1e12)

    def numpy_on_all_cores() -> None:
        buffer = np.empty((rows, columns), np.float32)
        for block in blocks:
            left, right = pick(block)
            np.matmul(left, right.T, out=buffer[: len(left), : len(right)])

    def torch_on_all_cores() -> None:
        for block in blocks:
            left, right = pick(block)
            torch.from_numpy(left) @ torch.as_tensor(right).t()

    found = {"numpy, one core a block": on_a_core_each, "numpy": numpy_on_all_cores}
    return found if hasattr(gallery, "_mmap") else {**found, "torch": torch_on_all_cores}


def numpy_side(args: argparse.Namespace, query: tuple, gallery: tuple) -> dict[str, Any]:
    """The evaluator one writes first: all distances, sorted row by row."""
    times: dict[str, list[float]] = {}
    before = resident("VmRSS")
    start_watching()

    def work() -> tuple[float, float]:
        q, g = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query[0], gallery[0]))
        order = np.argsort(1 - q @ g.T, axis=1, kind="stable")
        firsts, precisions = [], []
        for row, pid, camera in zip(order, query[1], query[2], strict=True):
            kept = row[(gallery[1][row] != pid) | (gallery[2][row] != camera)]
            ranks = np.flatnonzero(gallery[1][kept] == pid) + 1
            if len(ranks):
                firsts.append(ranks[0] == 1)
                precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
        return float(np.mean(firsts)), float(np.mean(precisions))

    rank1, precision = timed(times, "numpy", work)
    seconds = times["numpy"][0]
    peak = resident("VmHWM") - before
    note = "argsort of all rows, cosine"
    return {"seconds": seconds, "peak": peak, "rank-1": rank1, "mAP": precision, "note": note}


def torchmetrics_side(args: argparse.Namespace, query: tuple, gallery: tuple) -> dict[str, Any]:
    """torchmetrics.retrieval, fed the pairs that count; mAP alone."""
    from torchmetrics.retrieval import RetrievalMAP

    times: dict[str, list[float]] = {}
    before = resident("VmRSS")
    start_watching()

    def work() -> float:
        q, g = (torch.nn.functional.normalize(torch.from_numpy(x[0])) for x in (query, gallery))
        pids, cameras = torch.from_numpy(gallery[1]), torch.from_numpy(gallery[2])
        score = RetrievalMAP(empty_target_action="skip")
        for start in range(0, len(q), 256):
            values = q[start : start + 256] @ g.t()
            own = torch.from_numpy(query[1][start : start + 256])[:, None]
            camera = torch.from_numpy(query[2][start : start + 256])[:, None]
            kept = (pids != own) | (cameras != camera)
            index = torch.arange(start, start + len(values))[:, None].expand_as(values)
            score.update(values[kept], (pids == own)[kept], indexes=index[kept])
        return float(score.compute())

    precision = timed(times, "torchmetrics", work)
    seconds, peak = times["torchmetrics"][0], resident("VmHWM") - before
    return {"seconds": seconds, "peak": peak, "mAP": precision, "note": "mAP only"}


def metric_learning_side(args: argparse.Namespace, query: tuple, gallery: tuple) -> dict[str, Any]:
    """pytorch-metric-learning's AccuracyCalculator, which knows no cameras."""
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    times: dict[str, list[float]] = {}
    before = resident("VmRSS")
    start_watching()

    def work() -> dict[str, float]:
        calculator = AccuracyCalculator(
            include=("precision_at_1", "mean_average_precision"), k=len(gallery[0])
        )
        q, g = (torch.nn.functional.normalize(torch.from_numpy(x[0])) for x in (query, gallery))
        labels = (torch.from_numpy(x[1]) for x in (query, gallery))
        found: dict[str, float] = calculator.get_accuracy(q, next(labels), g, next(labels))
        return found

    found = timed(times, "metric learning", work)
    return {
        "seconds": times["metric learning"][0],
        "peak": resident("VmHWM") - before,
        "rank-1": found["precision_at_1"],
        "mAP": found["mean_average_precision"],
        "note": "no camera filter: other scores",
    }


def timed(times: dict[str, list[float]], name: str, work: Callable[[], Any]) -> Any:
    """What `work` returns; its seconds are noted."""
    start = time.perf_counter()
    found = work()
    times.setdefault(name, []).append(time.perf_counter() - start)
    return found


def start_watching() -> None:
    """Set the high-water mark of resident memory back to what is resident now (Linux)."""
    mark = Path("/proc/self/clear_refs")
    if mark.exists():
        mark.write_text("5")


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process in bytes, from Linux's /proc."""
    for line in lines_of("/proc/self/status"):
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit("peak memory is read from /proc/self/status, which this system lacks")


def lines_of(path: str) -> Iterator[str]:
    """The lines of a text file."""
    with open(path) as file:
        yield from file


if __name__ == "__main__":
    main()
