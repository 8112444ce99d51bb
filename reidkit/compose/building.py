"""A config becomes objects: every fault first, then benchmarks, loaders, and the training state."""

import hashlib
import importlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from reidkit import data, engine, losses, models, unsupervised
from reidkit.config import ConfigError, RunConfig
from reidkit.distributed import launched_here, local_rank, rank, world_size
from reidkit.engine import TrainState
from reidkit.registry import UnknownName
from reidkit.types import SILHOUETTES, Benchmark, Preprocessing, Sample, StoredFrames

RATE_FACTORS: Mapping[str, Callable[[int], float]] = {
    "none": lambda processes: 1.0,
    "linear": float,
    "sqrt": math.sqrt,
}


def check(config: RunConfig) -> None:
    """Raise a ConfigError with every fault of every component; touches no file and no device."""
    for plugin in config.plugins:
        importlib.import_module(plugin)
    faults = [*models.model_faults(config.model), *losses.objective_faults(config.losses)]
    optim = config.optim
    facts = ("params", "lr", "weight_decay")
    faults += [f"optim: {f}" for f in engine.OPTIMIZERS.faults(optim.name, optim.args, facts)]
    faults += [f"optim.schedule: {fault}" for fault in _schedule_faults(optim.schedule)]
    for kind, benchmarks in (("train", config.data.train), ("test", config.data.test)):
        for position, wanted in enumerate(benchmarks):
            found = data.BENCHMARKS.faults(wanted.name, wanted.args, ("root", "check"))
            faults += [f"data.{kind}.{position}: {fault}" for fault in found]
    faults += _method_faults(config)
    if not faults:
        faults += _misfits(config)
    if not faults:
        faults += _scaling_faults(config)
    try:
        engine.require_packages(config.track)
    except ModuleNotFoundError as error:
        faults.append(str(error))
    faults += [
        f"evaluate.baselines: unknown baseline {name!r}; known: {', '.join(data.BASELINES)}"
        for name in config.evaluate.baselines
        if name not in data.BASELINES
    ]
    if faults:
        raise ConfigError("config", faults)


def _method_faults(config: RunConfig) -> list[str]:
    """What is wrong with learning without labels, and what asks for labels beside it."""
    if config.method is None:
        return []
    found = [
        f"method: {fault}"
        for fault in unsupervised.METHODS.faults(config.method.name, config.method.args)
    ]
    if config.method.name in unsupervised.METHODS and not found:
        try:
            unsupervised.METHODS.build(config.method.name, config.method.args)
        except ValueError as error:
            found.append(f"method: {error}")
    if not losses.objective_faults(config.losses):
        found += losses.learns_classes(config.losses)
    found += [
        f"method: {UnknownName.among('baseline', name, data.BASELINES)}"
        for name in (*config.method.start, *config.method.beside)
        if name not in data.BASELINES
    ]
    found += [
        f"method: the description {name!r} is of {'silhouettes' if of else 'pictures'}, and "
        f"data.pixels is {config.data.pixels}"
        for name in (*config.method.start, *config.method.beside)
        if name in data.BASELINES
        and (of := data.BASELINES[name].of_sequences) != (config.data.pixels == "silhouettes")
    ]
    if config.data.batch.groups is not None:
        found.append(
            "data.batch.groups: clusters may mix super-classes; leave it out with a method"
        )
    if config.project is not None and config.project.whiten == "learned":
        found.append(
            "project.whiten: learned needs identities, which a method has none of; use pca"
        )
    return found


def _misfits(config: RunConfig) -> list[str]:
    """Where parts that are right by themselves do not fit one another."""
    name = str(config.model["name"])
    # A model of pictures is a function, or a class that says nothing of it.
    model = models.MODELS[name]
    takes = getattr(model, "pixels", "rgb")
    found = []
    if name == "projected":
        found.append(
            "model 'projected' is what a training gives, not what it takes: write the inner model, "
            "and project: {dim: ...} beside it"
        )
    if name == "multi_level" and config.data.stages:
        found.append(
            "data.stages: the heads of multi_level are made for one size; leave the stages out"
        )
    if config.data.pixels != takes:
        found.append(
            f"data.pixels is {config.data.pixels}, but the model {name!r} takes {takes}; set "
            f"data.pixels: {takes} and a benchmark that has them, or another model"
        )
    elif takes == "silhouettes":
        try:
            with torch.device("meta"):  # shapes alone: nothing is allocated
                models.build_model(
                    config.model,
                    num_classes=2,
                    size=config.data.size,
                    preprocessing=preprocessing_of(config),
                )
        except ValueError as error:
            found.append(f"model: {error}")
    if not getattr(model, "classifies", True):
        found += [
            f"losses.{place}: {spec['name']!r} reads logits, but the model {name!r} has no "
            "classifier; drop the term, or use gait_resnet"
            for place, spec in enumerate(config.losses)
            if losses.source_of(spec) == "logits"
        ]
    return found


def _scaling_faults(config: RunConfig) -> list[str]:
    """Settings that ask for what another one rules out."""
    found = []
    if config.optim.scale_rate != "none" and not config.data.batch.per_process:
        found.append(
            f"optim.scale_rate: {config.optim.scale_rate} is for a batch that grows with the "
            "processes; set data.batch.per_process: true, or leave it out"
        )
    if config.optim.update_bn and config.optim.ema is None:
        found.append("optim.update_bn is about averaged weights; set optim.ema, or leave it out")
    if config.evaluate.raw and config.optim.ema is None:
        found.append("evaluate.raw scores weights beside their average; set optim.ema, too")
    if config.data.store is not None and config.data.pixels != "rgb":
        found.append("data.store holds pictures; silhouettes are packed already: leave it out")
    colours = ("jitter", "grayscale", "blur", "auto")
    wrong = [key for key in colours if getattr(config.data.augment, key)]
    if config.data.pixels == "silhouettes" and wrong:
        found.append(
            f"data.augment.{wrong[0]} changes colours, which silhouettes have not; leave it out"
        )
    return found


def _schedule_faults(schedule: Mapping[str, Any]) -> list[str]:
    name, args = _named(schedule)
    faults = engine.SCHEDULES.faults(name, args)
    if not faults:
        try:
            engine.SCHEDULES.build(name, args)
        except ValueError as error:
            faults = [str(error)]
    return faults


def _named(spec: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return str(spec.get("name")), {key: value for key, value in spec.items() if key != "name"}


def build_schedule(config: RunConfig) -> engine.Schedule:
    """The learning rate's factor as a function of progress."""
    return engine.SCHEDULES.build(*_named(config.optim.schedule))


def choose_device(name: str = "auto") -> torch.device:
    """The accelerator where there is one, else the CPU; or the one that is named.

    Under torchrun each process of a machine gets the accelerator of its number.
    """
    if name == "auto":
        # Without a driver, current_accelerator() may still say "cuda": ask whether it is there.
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device = accelerator if accelerator is not None else torch.device("cpu")
    else:
        device = torch.device(name)
    if device.type == "cpu" or launched_here() == 1:
        return device
    if device.index is not None:
        raise ValueError(
            f"device {device} is one, for {launched_here()} processes on this machine; name "
            f"{device.type}, of which each gets its own"
        )
    return torch.device(device.type, local_rank())


def at_root(config: RunConfig, root: Path | None) -> RunConfig:
    """The config with its benchmarks in the folder `root`, if given; their own folders give way."""
    if root is None:
        return config
    moved = {
        side: tuple(one.model_copy(update={"root": None}) for one in getattr(config.data, side))
        for side in ("train", "test")
    }
    own_data = config.data.model_copy(update=moved | {"root": root})
    return config.model_copy(update={"data": own_data})


def load_benchmarks(config: RunConfig) -> tuple[tuple[Sample, ...], list[Benchmark]]:
    """The training samples of all `train` benchmarks, and the `test` benchmarks."""
    root = config.data.root or data.default_root()
    loaded: dict[str, Benchmark] = {}

    def load(wanted: Any) -> Benchmark:
        key = wanted.model_dump_json()
        if key not in loaded:
            loaded[key] = data.load_benchmark(
                wanted.name, wanted.root or root, wanted.check, **wanted.args
            )
        return loaded[key]

    train = tuple(sample for wanted in config.data.train for sample in load(wanted).train)
    tests: list[Benchmark] = []
    seen: Counter[str] = Counter()
    for test in map(load, config.data.test):
        seen[test.name] += 1
        # Two folders read by one adapter: each keeps its own scores.
        number = seen[test.name]
        tests.append(test if number == 1 else replace(test, name=f"{test.name}-{number}"))
    return train, tests


def fingerprint(samples: Sequence[Sample]) -> str:
    """A short hash of which files, identities and cameras these are, wherever they lie.

    Of packed sequences, which stretch of which pack.
    """
    digest = hashlib.sha256()
    headers: dict[str, str] = {}
    for sample in samples:
        frames = sample.frames
        if isinstance(frames, StoredFrames):
            if frames.store not in headers:
                headers[frames.store] = (Path(frames.store) / data.STORE_HEADER).read_text()
            walk = f"{frames.start}+{frames.length}|{sample.view}|{sample.condition}"
            names = f"{headers[frames.store]}|{walk}"
        else:
            names = ",".join(Path(frame).name for frame in frames)
        digest.update(f"{sample.domain}|{sample.pid}|{sample.camid}|{names}\n".encode())
    return digest.hexdigest()[:16]


def preprocessing_of(config: RunConfig, size: tuple[int, int] | None = None) -> Preprocessing:
    """How the run's pixels become its model's input; at another size where one is given."""
    kind = SILHOUETTES if config.data.pixels == "silhouettes" else Preprocessing()
    settings = config.data
    return replace(kind, size=size or settings.size, crop=settings.crop, fit=settings.fit)


def build_objective(
    config: RunConfig,
    model: models.EmbeddingModel,
    num_classes: int,
    device: torch.device,
    rivals: torch.Tensor | None = None,
) -> losses.Objective:
    """What a model descends where there are so many classes; `rivals` as in `losses.ClusterMemory`,
    None where each class is known to be another identity than all others."""
    return losses.build_objective(
        config.losses,
        num_classes=num_classes,
        embedding_size=model.embedding_size // model.parts,
        parts=model.parts,
        rivals=rivals,
    ).to(device)


def build_state(config: RunConfig, num_classes: int | None, device: torch.device) -> TrainState:
    """Model, objective, optimisers and average, from the config and the seed.

    The same on every rank, but for what dropout and its like draw from then on. Without
    `num_classes` the model classifies nothing, and the objective is one for a single class, which
    the first round of the method replaces.
    """
    torch.manual_seed(config.seed)
    preprocessing = preprocessing_of(config)
    model = models.build_model(
        config.model, num_classes=num_classes, size=config.data.size, preprocessing=preprocessing
    ).to(device)
    optim = config.optim
    if optim.sync_bn and world_size() > 1:
        models.synchronise_norms(model)
    objective = build_objective(config, model, num_classes or 1, device)
    lr = optim.lr * RATE_FACTORS[optim.scale_rate](world_size())
    groups = engine.parameter_groups(
        model,
        objective.main_parameters(),
        lr=lr,
        weight_decay=optim.weight_decay,
        backbone_rate=optim.backbone_rate,
        decay_all=optim.decay_all,
    )
    main = engine.OPTIMIZERS.build(
        optim.name, optim.args, params=groups, lr=lr, weight_decay=optim.weight_decay
    )
    state = TrainState(
        engine.Task(model, objective),
        {"main": main, **objective.own_optimizers()},
        ema=engine.WeightAverage(model, optim.ema).to(device) if optim.ema is not None else None,
        precision=optim.precision,
        accumulate=optim.accumulate,
        clip=optim.clip,
        micro=config.data.batch.micro,
        device=device,
    )
    state.distribute()
    if rank() > 0:
        torch.manual_seed(config.seed * world_size() + rank())
    return state


def build_train_loader(
    config: RunConfig,
    samples: Sequence[Sample],
    labels: Sequence[int],
    device: torch.device,
    batches: int | None = None,
) -> data.StagedLoader:
    """The training batches; one loader a stage where the size grows while training.

    An epoch has so many `batches`, where they are not to follow from the samples.
    """
    settings, batch = config.data, config.data.batch
    store = None if settings.store is None else data.PictureStore.open(settings.store)
    wanted = preprocessing_of(config).read_size
    if store is not None and any(
        have < want for have, want in zip(store.size, wanted, strict=True)
    ):
        of_crop = "" if wanted == settings.size else f" / data.crop {settings.crop} = {wanted}"
        fault = f"smaller than data.size {settings.size}{of_crop}; pack again"
        raise ConfigError(
            f"data.store {settings.store}", [f"holds pictures of {store.size}, {fault}"]
        )
    ends = [stage.until for stage in settings.stages]
    processes = world_size() if batch.per_process else 1
    sizes = [*(stage.size for stage in settings.stages), settings.size]
    starts = [0, *(round(end * config.optim.epochs) for end in ends)]
    return data.StagedLoader(
        [
            (
                start,
                data.train_loader(
                    samples,
                    labels,
                    preprocessing=preprocessing_of(config, size),
                    identities=batch.identities * processes,
                    instances=batch.instances,
                    frames=data.FrameSampling(batch.choice, batch.frames, batch.most_frames),
                    camera_balanced=batch.camera_balanced,
                    groups=batch.groups,
                    batches=batches,
                    # The shift is given at the final size and shrinks with the picture.
                    augment=data.Augment(
                        **{
                            **settings.augment.model_dump(),
                            "pad": round(settings.augment.pad * size[0] / settings.size[0]),
                        }
                    ),
                    store=store,
                    workers=settings.workers,
                    worker_kind=settings.worker_kind,
                    seed=config.seed,
                    device=device,
                    rank=rank(),
                    world=world_size(),
                ),
            )
            for start, size in zip(starts, sizes, strict=True)
        ]
    )
