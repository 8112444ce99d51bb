"""How many images a second loader and model manage, alone and together, and which one waits."""

import math
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from reidkit import data, engine
from reidkit.compose.building import (
    build_state,
    build_train_loader,
    check,
    choose_device,
    load_benchmarks,
)
from reidkit.compose.inference import QUIET
from reidkit.compose.inspection import usable_cores
from reidkit.config import RunConfig, parse_config
from reidkit.engine import Console, EpochLoader, Interrupted, StepReport, TrainState
from reidkit.engine.logs import WORTH_TELLING
from reidkit.types import Batch, Sample

WORKERS = 2  # measured where a config names none
PICTURES = {"train_identities": 32, "test_identities": 1, "cameras": 2, "images": 4}
REPEATS = 32  # of these pictures in an epoch, so that the start of an epoch does not weigh
ENDLESS = 10**9  # epochs, batches: more than any check lasts
BETTER = 1.1  # times as fast as configured is worth a changed config


@dataclass(frozen=True, slots=True)
class Feeding:
    """A way to prepare batches; with no worker the training's own thread does it."""

    workers: int
    kind: data.WorkerKind

    def __str__(self) -> str:
        if self.workers == 0:
            return "no workers"
        if self.workers == 1:
            return "1 thread" if self.kind == "threads" else "1 process"
        return f"{self.workers} {self.kind}"

    def applied(self, config: RunConfig) -> RunConfig:
        """The config with these workers, at its final size."""
        words = {"workers": self.workers, "worker_kind": self.kind, "stages": ()}
        return config.model_copy(update={"data": config.data.model_copy(update=words)})


@dataclass(frozen=True)
class Throughput:
    """Images a second of the parts and the whole, and what follows.

    Attributes:
        setting: what was measured, in words.
        loaders: by the words of each way to feed.
        model: training steps on a batch that is there already.
        feeding: the way in which both ran together.
        together: the training as a whole.
        waiting: share of that time in which the model waited for data, in [0, 1].
        verdict: the bottleneck, with the numbers, and what to do.
    """

    setting: str
    loaders: dict[str, float]
    model: float
    feeding: str
    together: float
    waiting: float
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def text(self) -> str:
        """A table, and the verdict below it."""
        rows = {f"loader, {name}": speed for name, speed in self.loaders.items()}
        rows |= {"model alone": self.model, f"both, {self.feeding}": self.together}
        width = max(map(len, rows))
        lines = [f"  {name:<{width}}  {speed:9,.0f} images/s" for name, speed in rows.items()]
        share = f"  waiting for data: {100 * self.waiting:.1f} % of the time"
        return "\n".join([self.setting, *lines, share, self.verdict])


def measure(
    config: RunConfig | None = None, *, seconds: float = 10.0, console: Console = QUIET
) -> Throughput:
    """Time loader, model, and both, for about `seconds` in all after their starts.

    Without a config the pictures are synthetic JPEGs of Market-1501's size and the model is OSNet
    x0.25 at 128 x 64, with the feeding that proves fastest; else all as the config has it. The
    model takes at least two steps alone and two fed, however long they are. Pictures that are read
    again come from memory rather than from the disk.

    Raises ConfigError for faults in the config, and what reading its data raises.
    """
    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds is {seconds:g}, expected a number above 0")
    if config is None:
        with tempfile.TemporaryDirectory(prefix="reidkit-") as folder:
            config = _synthetic(Path(folder))
            samples, _ = load_benchmarks(config)
            told = "synthetic JPEGs of 128 x 64, OSNet x0.25"
            return _measure(config, samples * REPEATS, None, seconds, told, console)
    check(config)
    samples, _ = load_benchmarks(config)
    own = Feeding(config.data.workers, config.data.worker_kind)
    height, width = config.data.size
    told = f"{len(samples)} samples at {height} x {width}, model {config.model['name']}"
    return _measure(config, samples, own, seconds, told, console)


def _synthetic(folder: Path) -> RunConfig:
    """OSNet x0.25 on rendered people in `folder`, trained as usual."""
    people = {"name": "synthetic", "root": folder, "check": "off", "args": PICTURES}
    return parse_config(
        {
            "data": {"train": [people], "size": [128, 64]},
            "model": {
                "name": "reid",
                "backbone": {"name": "osnet", "width": 0.25},
                "neck": {"name": "bnneck"},
            },
            "losses": [{"name": "cross_entropy"}, {"name": "triplet", "margin": 0.3}],
        }
    )


def _measure(
    config: RunConfig,
    samples: Sequence[Sample],
    own: Feeding | None,
    seconds: float,
    told: str,
    console: Console,
) -> Throughput:
    labels, num_classes = data.labels_of(samples)
    if -1 in labels:
        raise ValueError(
            f"{samples[labels.index(-1)].name} has no identity (pid -1): remove such samples from "
            "the training data, or give them one"
        )
    device = choose_device(config.device)

    def loader_of(feeding: Feeding) -> data.StagedLoader:
        return build_train_loader(feeding.applied(config), samples, labels, device)

    ways = ways_to_feed(config)
    share = seconds / (len(ways) + 2)
    speeds: dict[Feeding, float] = {}
    with console.bar("doctor", len(ways) + 2) as update:
        for way in ways:
            update(len(speeds), f"the loader with {way}")
            speeds[way] = time_loader(loader_of(way), share, ahead=way.workers)
        update(len(ways), "the model")
        state = build_state(config, num_classes, device)
        with closing(endless(loader_of(ways[0]))) as batches:
            batch = next(batches)
        model, _ = time_training(state, AlwaysThis(batch), share)
        chosen = own or max(speeds, key=lambda way: speeds[way])
        update(len(ways) + 1, f"both with {chosen}")
        together, waiting = time_training(state, loader_of(chosen), share)
        update(len(ways) + 2)
    packed = config.data.store is not None or config.data.pixels == "silhouettes"
    shape = batch.frames.shape
    return Throughput(
        setting=f"{told}, batches of {shape[0] * shape[1]} on {device}",
        loaders={str(way): round(speed, 1) for way, speed in speeds.items()},
        model=round(model, 1),
        feeding=str(chosen),
        together=round(together, 1),
        waiting=round(waiting, 4),
        verdict=judge(
            speeds, model, chosen, together, waiting, cores=usable_cores(), packed=packed
        ),
    )


def ways_to_feed(config: RunConfig) -> list[Feeding]:
    """No workers, and as many as the config names, or two, of both kinds."""
    workers = config.data.workers or WORKERS
    none = Feeding(0, config.data.worker_kind)
    # Processes first: they are forked, and threads that still finish a batch could hold a lock.
    return [none, Feeding(workers, "processes"), Feeding(workers, "threads")]


def judge(
    loaders: Mapping[Feeding, float],
    model: float,
    chosen: Feeding,
    together: float,
    waiting: float,
    *,
    cores: int,
    packed: bool,
) -> str:
    """Which part holds the other up, with the images a second of each; and what helps the loader.

    Args:
        loaders: images a second of each way to feed, among them `chosen`, the one in use.
        model: of the model alone.
        together: of the model fed by `chosen`.
        waiting: share of the time that the model waited for data then, in [0, 1].
        packed: pictures come from a packed store.
    """
    alone = loaders[chosen]
    feeder = str(chosen) if chosen.workers else "the training's own thread"
    waits = f"{together:,.0f} together, waiting for data {100 * waiting:.0f} % of the time"
    told = f"it takes {model:,.0f} images/s, {feeder} can prepare {alone:,.0f}; {waits}"
    if waiting <= WORTH_TELLING:
        return f"bottleneck: the model; {told}"
    best = max(loaders, key=lambda way: loaders[way])
    if loaders[best] >= BETTER * alone:
        kind = f" data.worker_kind={best.kind}" if best.kind != chosen.kind else ""
        knob = f"set data.workers={best.workers}{kind}, which can prepare {loaders[best]:,.0f}"
    else:
        line = engine.advice(
            waiting, workers=chosen.workers, cores=cores, kind=chosen.kind, packed=packed
        )
        knob = (line or "").partition("; ")[2]
    told = told.replace("it takes", "the model takes", 1)
    return f"bottleneck: the loader; {knob}: {told}"


def time_loader(loader: EpochLoader, seconds: float, *, ahead: int) -> float:
    """Images a second that a loader gives when nobody keeps it waiting.

    The first batch, and the `ahead` that its workers prepare while they start, are not counted.
    """
    images = 0
    start = deadline = math.inf
    with closing(endless(loader)) as batches:
        for number, batch in enumerate(batches):
            _settle(batch.frames.device)
            now = time.perf_counter()
            if number > ahead:
                images += batch.frames.shape[0] * batch.frames.shape[1]
            elif number == ahead:
                start, deadline = now, now + seconds
            if now >= deadline and images:
                break
    return images / max(now - start, 1e-9)


def time_training(state: TrainState, loader: EpochLoader, seconds: float) -> tuple[float, float]:
    """Images a second of the training itself, its first step left out, and the share of the time
    in which it waited for data.

    The weights keep still: the rate is 0, which costs as much as any other.
    """
    ends: list[float] = []
    images: list[int] = []
    waited: list[float] = []

    def note(state: TrainState, report: StepReport) -> None:
        _settle(state.device)
        ends.append(time.perf_counter())
        images.append(report.images)
        waited.append(report.data_seconds)
        state.stop = len(ends) > 1 and ends[-1] >= ends[0] + seconds

    state.epoch = state.batch = 0
    state.stop = False
    with suppress(Interrupted):
        engine.fit(state, loader, epochs=ENDLESS, schedule=Still(), after_step=note)
    spent = max(ends[-1] - ends[0], 1e-9)
    return sum(images[1:]) / spent, min(sum(waited[1:]) / spent, 1.0)


class Still(engine.Schedule):
    """A rate of 0, so that no number of steps on one batch makes a loss run away."""

    def main(self, progress: float) -> float:
        """0."""
        return 0.0


class AlwaysThis:
    """A loader that has its only batch ready at any time, without end."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.batch

    def __len__(self) -> int:
        return ENDLESS

    def set_epoch(self, epoch: int) -> None:
        """Every epoch is the same."""

    def skip(self, batches: int) -> None:
        """Every batch is the same."""


def endless(loader: EpochLoader) -> Generator[Batch, None, None]:
    """The batches of one epoch after the other; ValueError where an epoch has none."""
    if len(loader) == 0:
        raise ValueError("the loader gives no batch: an epoch needs at least one")
    epoch = 0
    while True:
        loader.set_epoch(epoch)
        yield from loader
        epoch += 1


def _settle(device: torch.device) -> None:
    """Wait until an accelerator has done what it was asked: only then has the time passed."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
