"""What saving, feeding and micro-batches cost a training, each beside its alternative in one run.

    python tools/bench_train.py                                 # all sections, about 4 minutes
    python tools/bench_train.py --only checkpoint,throughput
    python tools/bench_train.py --only waiting --folder pictures/  # your own, any names
    python tools/bench_train.py --ema 0.999 --json

checkpoint: the pause of a training of ResNet-50 (AdamW, optionally an average) by a save, which is
    the time inside `save` and inside `wait_for_copy` before the next step, beside a plain
    torch.save; below 20 ms. The first save is told apart.
throughput: steps a second with a save every 10 s against none, in blocks that take turns; the loss
    is below 3 %.
waiting: the share of a step that OSNet x0.25 at 128x64 waits for data, two workers of either kind,
    JPEGs of Market-1501's size with the full augmentation; below 5 %.
micro: peak memory and time of a step in micro-batches and of the whole batch, each in a process of
    its own.

Pictures of a CPU's size, 64x32, stand in for large ones where only the weights matter: a save costs
the same, and a step is short, which makes the share of a save no smaller than it is.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, stdev
from typing import Any

import numpy as np
import torch

from reidkit import engine
from reidkit.compose.building import build_state, build_train_loader
from reidkit.config import RunConfig
from reidkit.types import Batch, Sample

SECTIONS = ("checkpoint", "throughput", "waiting", "micro")
CLASSES = 751
PAUSE, LOSS, WAITING = 0.020, 0.03, 0.05  # seconds, and shares
MB = 2**20

RESNET = {"name": "resnet", "depth": 50, "pretrained": False}
OSNET = {"name": "osnet", "width": 0.25, "pretrained": False}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="which sections, by comma")
    parser.add_argument("--saves", type=int, default=12, help="checkpoint: how many")
    parser.add_argument("--ema", type=float, help="checkpoint: also an average of this decay")
    parser.add_argument("--blocks", type=int, default=4, help="throughput: blocks of each kind")
    parser.add_argument("--every", type=float, default=10.0, help="throughput: seconds of a block")
    parser.add_argument("--folder", type=Path, help="waiting: JPEGs instead of made-up ones")
    parser.add_argument("--seconds", type=float, default=15.0, help="waiting: for each kind")
    parser.add_argument("--batch", type=int, default=64, help="micro: samples of a batch")
    parser.add_argument("--micro", type=int, default=8, help="micro: samples at a time")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--disk", type=Path, help="folder to save into, else a temporary one")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.side:
        print(json.dumps(micro_side(args, args.side)))
        return
    chosen = args.only.split(",")
    if unknown := sorted(set(chosen) - set(SECTIONS)):
        parser.error(f"unknown section {unknown[0]}; expected some of {', '.join(SECTIONS)}")
    say = (lambda line: print(line, file=sys.stderr)) if args.json else print
    say(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch norms live")
    results = {}
    for name in chosen:
        with tempfile.TemporaryDirectory(dir=args.disk) as folder:
            results[name] = globals()[name](args, Path(folder))
        say(f"\n{name}")
        for line in TELL[name](results[name]):
            say(f"  {line}")
    if args.json:
        print(json.dumps(results, indent=2))


def config_of(backbone: dict[str, Any], size: tuple[int, int], **batch: Any) -> RunConfig:
    """A training as users write it: AdamW, cross-entropy and the triplet loss."""
    return RunConfig.model_validate(
        {
            "data": {"train": [{"name": "market1501"}], "size": size, "batch": batch},
            "model": {"name": "reid", "backbone": backbone},
            "losses": [{"name": "cross_entropy"}, {"name": "triplet"}],
            "optim": {"name": "adamw"},
        }
    )


def drawn_batch(count: int, size: tuple[int, int]) -> Batch:
    """Random pictures, four of each class."""
    label = torch.arange(count) // 4
    mask = torch.ones(count, 1, dtype=torch.bool)
    zero = torch.zeros(count, dtype=torch.long)
    return Batch(torch.randn(count, 1, 3, *size), mask, label, zero, zero, torch.arange(count))


def resnet_training(count: int, ema: float | None = None) -> tuple[engine.TrainState, Batch]:
    """ResNet-50 after its first step, with which the optimiser gets its moments."""
    config = config_of(RESNET, (64, 32))
    optim = config.optim.model_copy(update={"ema": ema})
    config = config.model_copy(update={"optim": optim})
    state = build_state(config, CLASSES, torch.device("cpu"))
    state.task.train()
    state.batches = 10**9  # an epoch without end
    batch = drawn_batch(count, (64, 32))
    step(state, batch)
    return state, batch


def step(state: engine.TrainState, batch: Batch) -> None:
    """One step of the training, as the loop takes it."""
    engine.supervised_step(state, batch)
    state.advance()


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def checkpoint(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds of each pause, and of plain saves in between."""
    state, batch = resnet_training(8, args.ema)
    keeper = engine.Checkpointer(folder / "state.pt", minutes=0, steps=1)
    waits: list[float] = []
    state.before_update = lambda: waits.append(timed(keeper.wait_for_copy))
    keeper.reserve(state.settled())
    pauses: list[float] = []
    plain: list[float] = []
    while len(pauses) < args.saves:
        step(state, batch)
        if not keeper.due(state.iteration):
            continue
        content = state.state_dict()
        began = timed(lambda content=content: keeper.save(content, settled=state.settled()))
        step(state, batch)
        pauses.append(began + waits[-1])
        if len(pauses) % 3 == 0:
            keeper.wait()
            plain.append(
                timed(lambda: torch.save({"state": state.state_dict()}, folder / "plain.pt"))
            )
    keeper.close()
    megabytes = (folder / "state.pt").stat().st_size / MB
    return {"first": pauses[0], "pauses": pauses[1:], "plain": plain, "MB": megabytes}


def tell_checkpoint(found: dict[str, Any]) -> list[str]:
    pauses, plain = found["pauses"], found["plain"]
    return [
        f"state of {found['MB']:.0f} MB",
        f"plain torch.save   median {1e3 * median(plain):7.1f} ms   max {1e3 * max(plain):7.1f} ms",
        f"first save         {1e3 * found['first']:14.1f} ms",
        f"{len(pauses):2} saves           median {1e3 * median(pauses):7.1f} ms   max "
        f"{1e3 * max(pauses):7.1f} ms   {verdict(max(pauses) < PAUSE)} (< {1e3 * PAUSE:.0f} ms)",
    ]


def throughput(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Steps a second of blocks with one save each and of blocks without."""
    state, batch = resnet_training(8)
    keeper = engine.Checkpointer(folder / "state.pt", minutes=0)
    state.before_update = keeper.wait_for_copy
    keeper.reserve(state.settled())
    keeper.save(state.state_dict(), settled=state.settled())
    keeper.wait()
    speeds: dict[str, list[float]] = {"saving": [], "without": []}
    for pair in range(args.blocks):
        # What comes first changes, lest a machine that gets slower or faster favour one.
        for kind in ("saving", "without") if pair % 2 else ("without", "saving"):
            start, steps = time.perf_counter(), 0
            if kind == "saving":
                keeper.save(state.state_dict(), settled=state.settled())
            while time.perf_counter() - start < args.every:
                step(state, batch)
                steps += 1
            speeds[kind].append(steps / (time.perf_counter() - start))
            keeper.wait()
    keeper.close()
    return speeds


def tell_throughput(found: dict[str, Any]) -> list[str]:
    ratios = [a / b for a, b in zip(found["saving"], found["without"], strict=True)]
    loss = 1 - median(ratios)
    # Blocks of one kind differ by what else the machine does; a loss below that is not seen.
    noise = stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else math.inf
    told = verdict(loss < LOSS) if noise < LOSS else "cannot tell: the machine is busy"
    return [
        f"without     median {median(found['without']):.3f} steps/s",
        f"saving      median {median(found['saving']):.3f} steps/s",
        f"loss        median {100 * loss:.1f} % of {len(ratios)} pairs "
        f"({', '.join(f'{100 * (1 - r):.1f}' for r in ratios)})   "
        f"{told} (< {100 * LOSS:.0f} %, standard error {100 * noise:.1f})",
    ]


def waiting(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds that the training waited for data and that its steps took, by kind of worker."""
    samples = pictures(args.folder or draw_pictures(folder))
    labels = [sample.pid for sample in samples]
    found = {}
    for kind in ("threads", "processes"):
        config = config_of(OSNET, (128, 64), identities=16, instances=4)
        feeding = {"workers": 2, "worker_kind": kind}
        config = config.model_copy(update={"data": config.data.model_copy(update=feeding)})
        found[kind] = fed(config, samples, labels, args.seconds)
    return found


def fed(
    config: RunConfig, samples: list[Sample], labels: list[int], seconds: float
) -> dict[str, float]:
    """Train for so many seconds and add up where they went; the first steps only warm up."""
    device = torch.device("cpu")
    state = build_state(config, max(labels) + 1, device)
    reports: list[engine.StepReport] = []
    start = time.perf_counter()

    def note(state: engine.TrainState, report: engine.StepReport) -> None:
        reports.append(report)
        state.stop = time.perf_counter() - start > seconds

    loader = build_train_loader(config, samples, labels, device)
    try:
        schedule = engine.SCHEDULES.build("constant", {})
        engine.fit(state, loader, epochs=10_000, schedule=schedule, after_step=note)
    except engine.Interrupted:
        pass
    counted = reports[5:] or reports
    data = sum(report.data_seconds for report in counted)
    whole = data + sum(report.step_seconds for report in counted)
    images = sum(report.images for report in counted)
    return {"share": data / whole, "images_per_second": images / whole, "steps": len(counted)}


def draw_pictures(folder: Path, identities: int = 64, each: int = 16) -> Path:
    """JPEGs as large as Market-1501's, smooth enough to be as long as they are."""
    import cv2

    draw = np.random.default_rng(0)
    for identity in range(identities):
        base = draw.integers(0, 256, (16, 8, 3)).astype(np.float32)
        for number in range(each):
            coarse = np.clip(base + draw.normal(0, 12, base.shape), 0, 255).astype(np.float32)
            fine = cv2.resize(coarse, (64, 128)) + draw.normal(0, 6, (128, 64, 3))
            path = folder / f"{identity:04}_c{number % 4 + 1}_{number}.jpg"
            cv2.imwrite(str(path), np.clip(fine, 0, 255).astype(np.uint8))
    return folder


def pictures(folder: Path) -> list[Sample]:
    """The JPEGs of a folder; what stands before the first underscore is the identity."""
    files = sorted(folder.rglob("*.jpg"))
    if not files:
        sys.exit(f"no .jpg in {folder}")
    names = sorted({path.name.partition("_")[0] for path in files})
    pids = {name: number for number, name in enumerate(names)}
    return [Sample((str(path),), pids[path.name.partition("_")[0]]) for path in files]


def tell_waiting(found: dict[str, Any]) -> list[str]:
    return [
        f"{kind:<10} {100 * row['share']:5.1f} % of {row['steps']} steps waited   "
        f"{row['images_per_second']:.0f} images/s   "
        f"{verdict(row['share'] < WAITING)} (< {100 * WAITING:.0f} %)"
        for kind, row in found.items()
    ]


def micro(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both sides in turn, each in a process of its own: a peak is never given back."""
    found = {}
    for side in ("whole", "micro"):
        words = [sys.executable, __file__, "--side", side]
        for name in ("batch", "micro", "threads"):
            if (value := getattr(args, name)) is not None:
                words += [f"--{name}", str(value)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{side}: {done.stderr.strip().splitlines()[-1]}")
        found[side] = json.loads(done.stdout.splitlines()[-1])
    return found


def micro_side(args: argparse.Namespace, side: str) -> dict[str, float]:
    """Seconds of a step, and bytes by which the peak is above the training with its moments."""
    state, _ = resnet_training(4)
    state.micro = args.micro if side == "micro" else None
    batch = drawn_batch(args.batch, (128, 64))
    before = peak()
    times = [timed(lambda: step(state, batch)) for _ in range(4)]
    return {"seconds": median(times[1:]), "peak": peak() - before, "samples": args.batch}


def peak() -> int:
    """Largest resident memory so far in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def tell_micro(found: dict[str, Any]) -> list[str]:
    whole, small = found["whole"], found["micro"]
    return [
        *(
            f"{side:<6} {row['seconds']:7.2f} s a step of {row['samples']}   "
            f"{row['peak'] / MB:7.0f} MB beyond the weights and moments"
            for side, row in found.items()
        ),
        f"micro is {small['seconds'] / whole['seconds']:.2f} of the time and "
        f"{small['peak'] / whole['peak']:.2f} of the memory",
    ]


def verdict(passed: bool) -> str:
    return "pass" if passed else "FAIL"


TELL = {
    "checkpoint": tell_checkpoint,
    "throughput": tell_throughput,
    "waiting": tell_waiting,
    "micro": tell_micro,
}

if __name__ == "__main__":
    main()
