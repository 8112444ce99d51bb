"""A run's configuration: one complete file, frozen, every fault reported at once."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reidkit.registry import nearest
from reidkit.types import CheckLevel, Fit, Metric


class ConfigError(ValueError):
    """Everything wrong with a configuration, a line each."""

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        head = f"{source}: {len(self.faults)} faults" if len(self.faults) > 1 else f"{source}"
        super().__init__(
            head + ": " + "\n  ".join(["", *self.faults] if len(faults) > 1 else faults)
        )


class Part(BaseModel):
    """Frozen, and refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Size = tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]


class BenchmarkConfig(Part):
    """A benchmark by name, with its own folder and options; a bare name is enough."""

    name: str
    root: Path | None = None
    check: CheckLevel = "strict"
    args: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class BatchConfig(Part):
    """identities x instances samples of `frames` frames, over all processes together; with
    `per_process` in each of them.

    `micro` computes embeddings for so many samples at a time, and the loss on the whole batch, with
    the whole batch's gradients: a large batch on a small device.

    `groups` takes the identities of a batch from so few groups, which are the benchmark's
    super-classes (`Sample.condition`): hard negatives.

    `choice` is how frames are drawn: random (different ones), replacement (a set, as GaitSet's own
    code), ordered (they follow one another), unfixed (from `frames` to `most_frames`).
    """

    identities: int = Field(default=16, gt=0)
    instances: int = Field(default=4, gt=0)
    groups: Annotated[int, Field(gt=0)] | None = None
    frames: int = Field(default=1, gt=0)
    choice: Literal["random", "replacement", "ordered", "unfixed"] = "random"
    most_frames: Annotated[int, Field(gt=0)] | None = None
    camera_balanced: bool = False
    micro: Annotated[int, Field(gt=0)] | None = None
    per_process: bool = False

    @model_validator(mode="after")
    def _most_frames(self) -> "BatchConfig":
        if (self.choice == "unfixed") != (self.most_frames is not None):
            raise ValueError("most_frames belongs to choice: unfixed, and is needed there")
        if self.most_frames is not None and self.most_frames < self.frames:
            raise ValueError(f"most_frames {self.most_frames} is below frames {self.frames}")
        if self.groups is not None and self.groups > self.identities:
            raise ValueError(f"groups {self.groups} is above identities {self.identities}")
        return self


class AugmentConfig(Part):
    """Mirror with probability `flip`, shift by up to `pad` pixels, erase with chance `erasing`; the
    same for all frames of a tracklet.

    For pictures also colour changes of strength `jitter`, and chances of `grayscale`, `blur` and
    torchvision's AutoAugment (`auto`); for silhouettes the chance of a small `affine` change.

    `crop` trains on a random window of each picture, resized to `data.size`: from the first to the
    second part of its area, its width / height changed by a factor from `aspect[0]` to `aspect[1]`.
    """

    flip: Fraction = 0.5
    pad: int = Field(default=10, ge=0)
    erasing: Fraction = 0.5
    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    grayscale: Fraction = 0.0
    blur: Fraction = 0.0
    auto: Fraction = 0.0
    affine: Fraction = 0.0
    crop: tuple[Share, Share] | None = None
    aspect: tuple[Positive, Positive] = (3 / 4, 4 / 3)

    @model_validator(mode="after")
    def _rising(self) -> "AugmentConfig":
        for name in ("crop", "aspect"):
            pair = getattr(self, name)
            if pair is not None and pair[0] > pair[1]:
                raise ValueError(f"{name} is {list(pair)}, expected the smaller value first")
        return self


class StageConfig(Part):
    """Train at `size` until this fraction of the epochs is done."""

    until: Annotated[float, Field(gt=0, lt=1)]
    size: Size


class DataConfig(Part):
    """Which benchmarks, at which size, in which batches.

    `root` is the folder that holds the benchmarks: REIDKIT_DATA, or `datasets`, where it is absent.
    `stages` train at smaller sizes first; after the last one, and in evaluation, `size` holds.
    `pixels` are pictures, or silhouettes of one channel, aligned and packed. `store` is a packed
    store of the training pictures (`reidkit data pack`). `workers` prepare batches while the model
    computes; as `threads`, or as `processes`, which suit transforms written in Python.

    `crop` resizes pictures to `size / crop` and takes the middle; in training `augment.crop` takes
    random windows instead. `fit` says how: stretch, or white_square, which cuts white background
    away and fills up a square with white.
    """

    train: tuple[BenchmarkConfig, ...] = Field(min_length=1)
    test: tuple[BenchmarkConfig, ...] = ()
    root: Path | None = None
    pixels: Literal["rgb", "silhouettes"] = "rgb"
    size: Size = (256, 128)
    crop: Share = 1.0
    fit: Fit = "stretch"
    stages: tuple[StageConfig, ...] = ()
    batch: BatchConfig = BatchConfig()
    augment: AugmentConfig = AugmentConfig()
    store: Path | None = None
    workers: int = Field(default=0, ge=0)
    worker_kind: Literal["threads", "processes"] = "processes"

    @model_validator(mode="after")
    def _stages_in_order(self) -> "DataConfig":
        ends = [stage.until for stage in self.stages]
        if ends != sorted(set(ends)):
            raise ValueError(f"stages end at {ends}; each must end later than the one before")
        return self

    @model_validator(mode="after")
    def _pictures_can_be_framed(self) -> "DataConfig":
        keys = {"crop": self.crop != 1, "fit": self.fit != "stretch"}
        keys["augment.crop"] = self.augment.crop is not None
        for key in (key for key, is_set in keys.items() if is_set):
            if self.pixels == "silhouettes":
                raise ValueError(f"{key} is for pictures; silhouettes are aligned: leave it out")
        if self.fit == "white_square":
            for size in (self.size, *(stage.size for stage in self.stages)):
                if size[0] != size[1]:
                    raise ValueError(f"fit: white_square needs square sizes, not {list(size)}")
            if self.store is not None:
                raise ValueError(
                    "fit: white_square needs the pictures as they are, and a store holds them "
                    "stretched; leave store out"
                )
        return self


class OptimConfig(Part):
    """The optimiser by name with its own `args`, the schedule, and how long.

    `scale_rate` multiplies the rate by the number of processes, or its root, where the batch grows
    with them (`batch.per_process`). `sync_bn` lets batch norms see the batches of all processes.
    `update_bn` takes the statistics of batch norms anew for the final averaged weights, in one
    epoch over the training data.
    """

    name: str = "adam"
    lr: float = Field(default=3.5e-4, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    args: dict[str, Any] = {}
    schedule: dict[str, Any] = {"name": "warmup_cosine"}
    epochs: int = Field(default=120, gt=0)
    backbone_rate: float = Field(default=1.0, ge=0)
    decay_all: bool = False
    ema: Annotated[float, Field(ge=0, lt=1)] | None = None
    clip: Annotated[float, Field(gt=0)] | None = None
    accumulate: int = Field(default=1, gt=0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    scale_rate: Literal["none", "linear", "sqrt"] = "none"
    sync_bn: bool = False
    update_bn: bool = False


class CheckpointConfig(Part):
    """Save every so many minutes, and every so many steps, where not 0; always after an epoch and
    when asked to stop. The last `keep` states stay."""

    minutes: float = Field(default=10.0, ge=0)
    steps: int = Field(default=0, ge=0)
    keep: int = Field(default=2, gt=0)


class EvaluateConfig(Part):
    """`every` how many epochs, or with a method rounds, to score (0: only at the end), and what to
    print beside the model.

    `raw` also scores the weights beside their average. `single_frame` also scores the trained model
    on one frame of each tracklet. `gait_distance` is
    that of the gait table: the mean over the parts (OpenGait), or of the whole vector (GaitSet's
    own code).
    """

    every: int = Field(default=0, ge=0)
    batch_size: int = Field(default=128, gt=0)
    metric: Metric = "cosine"
    untrained: bool = False
    baselines: tuple[str, ...] = ()
    pictures: int = Field(default=8, ge=0)
    single_frame: bool = False
    raw: bool = False
    gait_distance: Literal["parts", "flat"] = "parts"


class ProjectConfig(Part):
    """Features of `dim` numbers, fitted on the training samples after training and saved with the
    model; see `reidkit.models.fit_projection`."""

    dim: int = Field(gt=0)
    whiten: Literal["none", "pca", "learned"] = "pca"
    shrink: Fraction | None = None

    @model_validator(mode="after")
    def _shrink_of_learned(self) -> "ProjectConfig":
        if self.shrink is not None and self.whiten != "learned":
            raise ValueError("shrink belongs to whiten: learned")
        return self


class MethodConfig(Part):
    """How to learn without labels: a method by name, with its own arguments beside it.

    A round finds labels and trains `epochs` epochs on them, the first round `first` (by default as
    many), of `batches` batches each (by default as many as show each sample about once);
    `optim.epochs` is the sum over all rounds. `gap` trains
    only on tracklets that begin more than so long after the one before them in the same camera has
    ended, by the clock of the set: then nearly every tracklet of a camera is somebody else.

    `start` names descriptions without learning (`reidkit list baseline`) from which the first
    round's labels are found; by default they come from the network as it is, which is fine where
    it begins with pretrained weights. `beside` names those that later rounds have beside the
    network's features. `centre` takes each camera's mean away from the features of its samples
    before labels are found: what a camera does to all pictures tells nobody apart.
    """

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    name: str
    epochs: int = Field(default=1, gt=0)
    first: Annotated[int, Field(gt=0)] | None = None
    batches: Annotated[int, Field(gt=0)] | None = None
    gap: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    start: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    centre: bool = False

    def end_of(self, number: int) -> int:
        """How many epochs are over when the round of this number, from 0, is."""
        return (self.first or self.epochs) + number * self.epochs

    @property
    def args(self) -> dict[str, Any]:
        """The method's own arguments."""
        return dict(self.model_extra or {})


class RunConfig(Part):
    """All that decides a run; with a `method` identities are not looked at in training."""

    data: DataConfig
    model: dict[str, Any]
    losses: tuple[dict[str, Any], ...] = Field(min_length=1)
    method: MethodConfig | None = None
    optim: OptimConfig = OptimConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    project: ProjectConfig | None = None
    checkpoint: CheckpointConfig = CheckpointConfig()
    seed: int = 0
    device: str = "auto"
    log_interval: int = Field(default=20, gt=0)
    tensorboard: bool = True
    track: tuple[Literal["wandb", "mlflow"], ...] = ()
    plugins: tuple[str, ...] = ()

    def to_yaml(self) -> str:
        """The whole configuration as YAML that reads back to the same."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=100)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's words: `on` is a key, not True; 5e-4 is a number; a key must not come twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a word, not a list or a mapping", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands here twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in rules if not tag.endswith((":bool", ":float"))]
    for letter, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|false|False)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\d+\.\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.inf|\.nan)$"
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML text; a ConfigError with the line where it is not YAML."""
    try:
        return yaml.load(text, Loader=_Loader)  # derived from SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{source}, line {mark.line + 1}" if mark else source
        raise ConfigError(place, [f"not readable as YAML: {error.problem}"]) from error
    except yaml.YAMLError as error:  # a character that no YAML may hold
        reason = " ".join(str(error).split())
        raise ConfigError(source, [f"not readable as YAML: {reason}"]) from error


def read_yaml(path: Path) -> Any:
    """The value of a YAML file; a ConfigError where it is none."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [f"is no text in UTF-8: {error.reason}"]) from error


def override(tree: dict[str, Any], assignment: str) -> None:
    """Set one dotted key of a tree of dicts and lists: `optim.lr=1e-4`, `losses.0.margin=0.2`."""
    path, separator, text = assignment.partition("=")
    if not separator or not path:
        raise ConfigError(assignment, ["an override is key=value, such as optim.lr=1e-4"])
    *parents, last = path.split(".")
    place: Any = tree
    for part in parents:
        place = _descend(place, part, path)
    if isinstance(place, list):
        place[_position(place, last, path)] = parse_yaml(text, assignment)
    elif isinstance(place, dict):
        place[last] = parse_yaml(text, assignment)
    else:
        raise ConfigError(assignment, [f"{'.'.join(parents)} is a value, not a group of keys"])


def _descend(place: Any, part: str, path: str) -> Any:
    if isinstance(place, list):
        return place[_position(place, part, path)]
    if not isinstance(place, dict):
        raise ConfigError(path, [f"nothing lies below {part!r}: what holds it is a value"])
    return place.setdefault(part, {})


def _position(place: list[Any], part: str, path: str) -> int:
    if not part.isdigit() or int(part) >= len(place):
        raise ConfigError(
            path, [f"{part!r} is not a position in a list of {len(place)}: 0 is the first"]
        )
    return int(part)


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Read, override and validate a file; a ConfigError holds all faults of form together."""
    path = Path(path)
    if not path.is_file():
        near = nearest(path.name, [p.name for p in path.parent.glob("*.yaml")])
        raise ConfigError(str(path), [f"there is no such config file.{near}"])
    tree = read_yaml(path)
    if not isinstance(tree, dict):
        raise ConfigError(str(path), ["a config is a mapping: data, model, losses, optim, ..."])
    for assignment in overrides:
        override(tree, assignment)
    return parse_config(tree, str(path))


def parse_config(tree: Mapping[str, Any], source: str = "config") -> RunConfig:
    """Validate a tree of plain values."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(source, [_sentence(fault) for fault in error.errors()]) from error


def _sentence(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _known_keys(fault["loc"][:-1])
        near = nearest(str(fault["loc"][-1]), known)
        return f"unknown key {where!r}; known here: {', '.join(known)}.{near}"
    if fault["type"] == "missing":
        return f"{where!r} is missing"
    given = "" if isinstance(fault["input"], dict) else f" = {fault['input']!r}"
    return f"{where}{given}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


def _known_keys(path: Sequence[Any]) -> list[str]:
    """The keys of the part that a fault's path leads to."""
    part: Any = RunConfig
    for step in path:
        if isinstance(step, str):
            part = part.model_fields[step].annotation
        # A tuple of parts, or a part or None: the part is what we look for.
        for inner in getattr(part, "__args__", ()):
            if isinstance(inner, type) and issubclass(inner, Part):
                part = inner
    return list(part.model_fields)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two trees of plain values differ, as `key: old -> new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in sorted({*old, *new})
            for line in differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]
