"""The records and tuples that walk through the house; every room speaks in these."""

import csv
import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from reidkit.files import replacing

CheckLevel = Literal["strict", "warn", "off"]
Metric = Literal["cosine", "euclidean"]
Fit = Literal["stretch", "white_square"]
UNKNOWN_CAMERA = -1
Exclusion = Literal["same_camera", "same_view", "itself", "nothing"]


@dataclass(frozen=True, slots=True)
class StoredFrames(Sequence[str]):
    """Frames `start` to `start + length` of a packed store, named as files are: "STORE#position".

    A sequence costs three values, however long it is; readers take its frames in one piece.
    """

    store: str
    start: int
    length: int

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[str, ...]: ...

    def __getitem__(self, place: int | slice) -> str | tuple[str, ...]:
        positions = range(self.start, self.start + self.length)[place]
        if isinstance(positions, range):
            return tuple(f"{self.store}#{position}" for position in positions)
        return f"{self.store}#{positions}"

    def __str__(self) -> str:
        return f"{self.store}#{self.start}+{self.length}"

    @classmethod
    def parse(cls, text: str) -> "StoredFrames | None":
        """What `str` gave, None where the text is no such thing."""
        match = re.fullmatch(r"(.+)#(\d+)\+(\d+)", text, re.DOTALL)
        return None if match is None else cls(match[1], int(match[2]), int(match[3]))


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, tracklet or silhouette sequence, before any pixel is read.

    `frames` are files in time order or a stretch of a packed store, `pid` the identity as the
    benchmark writes it (-1 where unknown), `camid` is 0-based (-1 where unknown). `(domain, pid)`
    is unique over all benchmarks.
    Junk never leaves the adapter. `span` is when the first and the last frame were taken, by a
    clock that the samples of one domain and camera share, None where nobody knows.
    """

    frames: tuple[str, ...] | StoredFrames
    pid: int
    camid: int = 0
    view: str = ""
    condition: str = ""
    domain: str = ""
    span: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """What to call this sample in a message: its first file, or its identity and camera."""
        if self.frames:
            return self.frames[0]
        return f"pid {self.pid}" + ("" if self.camid < 0 else f", camera {self.camid}")


@dataclass(frozen=True, slots=True)
class EvalProtocol:
    """What counts as an answer: decided by the benchmark, obeyed by evaluation.

    `exclude` says what is neither right nor wrong for a query, `report` which scores are printed,
    `groups` names sets of conditions (gait). `precision` is the form of the average precision:
    rectangles as the Python toolboxes have it, or the trapezoids of Market's and MARS' MATLAB code.
    `gallery="without_queries"` leaves out every gallery item that is some query itself.
    `single_shot` asks for the expectation over galleries of one random image an identity.
    """

    exclude: Exclusion
    report: tuple[str, ...] = ("mAP", "mINP", "rank-1", "rank-5", "rank-10")
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    precision: Literal["rectangle", "trapezoid"] = "rectangle"
    gallery: Literal["all", "without_queries"] = "all"
    single_shot: bool = False


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Train, query, gallery and protocol together."""

    name: str
    train: tuple[Sample, ...]
    query: tuple[Sample, ...]
    gallery: tuple[Sample, ...]
    protocol: EvalProtocol


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How pixels become a model's input: resized to `size` (H, W), scaled to [0, 1], normalised per
    channel.

    Three channels are RGB. One channel is a silhouette, aligned already: it is scaled to the height
    and loses columns on both sides, as gait networks have it.

    `crop`, (0, 1], is the side of a crop in the middle over that of the resized picture: at 227 /
    256 a picture is resized to 256 and its middle taken at a size of 227. `fit` says how it is
    resized: "stretch" whatever its form, or "white_square", in which what is not white background
    keeps its form and white fills up a square.

    Raises ValueError for other values, for these two with silhouettes, and for a "white_square"
    whose size is none.
    """

    size: tuple[int, int] = (256, 128)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop: float = 1.0
    fit: Fit = "stretch"

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop is {self.crop}, expected in (0, 1]: 1 takes the whole picture")
        if self.fit not in get_args(Fit):
            raise ValueError(f"fit is {self.fit!r}, expected {' or '.join(get_args(Fit))}")
        if self.channels == 1 and (self.crop != 1 or self.fit != "stretch"):
            raise ValueError(
                f"crop {self.crop} and fit {self.fit!r}, expected 1.0 and 'stretch' for "
                "silhouettes, which are aligned already"
            )
        if self.fit == "white_square" and self.size[0] != self.size[1]:
            raise ValueError(f"fit 'white_square' needs a square size, got {self.size}")

    @property
    def read_size(self) -> tuple[int, int]:
        """Height and width of the whole picture, of which `size` is the middle."""
        height, width = self.size
        return round(height / self.crop), round(width / self.crop)

    @property
    def channels(self) -> int:
        """3 for pictures, 1 for silhouettes."""
        return len(self.mean)


SILHOUETTES = Preprocessing(size=(64, 44), mean=(0.0,), std=(1.0,))


class Batch(NamedTuple):
    """What the loader hands to the loop: uint8 on the host, normalised float on the device."""

    frames: Tensor  # (B, T, C, H, W)
    mask: Tensor  # (B, T) bool; False is padding
    label: Tensor  # (B,) int64 in [0, num_classes), -1 where there is none
    camid: Tensor  # (B,) int64
    domain: Tensor  # (B,) int64
    # The name of tuple.index is given up on purpose: nobody searches a batch.
    index: Tensor  # type: ignore[assignment]  # (B,) int64 position in the list of samples


class ModelOutput(NamedTuple):
    """What every model returns, in training and in evaluation."""

    embedding: Tensor  # (B, P, D) before the neck: what metric losses see; P = 1 for a whole body
    feature: Tensor  # (B, P, D) after the neck: what retrieval compares
    logits: Tensor | None  # (B, P, num_classes) where the model has a classifier


@dataclass(frozen=True, slots=True)
class Features:
    """Vectors with the samples they belong to, in the same order.

    vectors (N, parts * D) float; `pids` and `camids` are read from the samples. `model` is a
    fingerprint of the weights that made them, empty where unknown: features of different models are
    never compared.
    """

    vectors: Tensor
    samples: tuple[Sample, ...]
    parts: int = 1
    model: str = ""

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2:
            shape = tuple(self.vectors.shape)
            raise ValueError(f"features need shape (N, D), one row a sample; got {shape}")
        if len(self.vectors) != len(self.samples):
            raise ValueError(
                f"{len(self.vectors)} feature vectors but {len(self.samples)} samples; one of "
                "each is expected"
            )

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def pids(self) -> Tensor:
        """(N,) int64 identities as the benchmark writes them."""
        return torch.tensor([sample.pid for sample in self.samples], dtype=torch.int64)

    @property
    def camids(self) -> Tensor:
        """(N,) int64 cameras, 0-based."""
        return torch.tensor([sample.camid for sample in self.samples], dtype=torch.int64)

    @classmethod
    def from_arrays(
        cls,
        vectors: ArrayLike | Tensor,
        pids: ArrayLike | Tensor,
        camids: ArrayLike | Tensor | None = None,
    ) -> "Features":
        """Features from any toolkit's arrays: vectors (N, D) floating, pids (N,) and camids (N,)
        integers; without camids every camera is unknown (-1)."""
        matrix = torch.as_tensor(vectors)
        check_vectors(tuple(matrix.shape), matrix.is_floating_point(), matrix.dtype)
        identities = integer_array("pids", pids, len(matrix)).tolist()
        cameras = [UNKNOWN_CAMERA] * len(matrix)
        if camids is not None:
            cameras = integer_array("camids", camids, len(matrix)).tolist()
        samples = tuple(Sample((), pid, cam) for pid, cam in zip(identities, cameras, strict=True))
        return cls(matrix, samples)

    def save(self, path: str | Path) -> None:
        """Write an `.npz`: `vectors`, `pids`, `camids`, `paths`, `parts`, `model`; of gait also
        `views` and `conditions`.

        A path is the first frame's, or STORE#start+length of a packed sequence.
        Replaced atomically.
        """
        gait: dict[str, Any] = {
            name: np.array([getattr(sample, key) for sample in self.samples], np.str_)
            for name, key in (("views", "view"), ("conditions", "condition"))
            if any(getattr(sample, key) for sample in self.samples)
        }
        with replacing(Path(path)) as file:
            np.savez(
                file,
                vectors=self.vectors.detach().cpu().float().numpy(),
                pids=self.pids.numpy(),
                camids=self.camids.numpy(),
                paths=np.array([path_of(sample) for sample in self.samples], np.str_),
                parts=np.int64(self.parts),
                model=np.str_(self.model),
                **gait,
            )

    def save_csv(self, path: str | Path) -> None:
        """Write `path,pid,camid,v0,v1,...` for spreadsheets and other languages; atomically."""
        with replacing(Path(path)) as binary:
            file = io.TextIOWrapper(binary, encoding="utf-8", newline="")
            writer = csv.writer(file)
            names = [f"v{i}" for i in range(self.vectors.shape[1])]
            writer.writerow(["path", "pid", "camid", *names])
            for sample, vector in zip(self.samples, self.vectors.tolist(), strict=True):
                writer.writerow([path_of(sample), sample.pid, sample.camid, *vector])
            file.flush()
            file.detach()

    @classmethod
    def load(cls, path: str | Path) -> "Features":
        """Read what `save` wrote; `paths` and `camids` may be absent. Pickled objects are
        refused."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"no feature file {path}; `reidkit extract RUN SOURCE --out {path}` writes one"
            )
        if not zipfile.is_zipfile(path):
            raise ValueError(
                f"{path} is not a feature file: expected an .npz of plain arrays, as `reidkit "
                "extract` and numpy.savez write"
            )
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path} is not a feature file (.npz of plain arrays): {error}"
            ) from error
        missing = {"vectors", "pids"} - arrays.keys()
        if missing:
            raise ValueError(
                f"{path} has no {sorted(missing)}; a feature file holds vectors, pids, camids, "
                "paths"
            )
        try:
            plain = cls.from_arrays(arrays["vectors"], arrays["pids"], arrays.get("camids"))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
        parts = int(arrays.get("parts", np.int64(1)))
        model = str(arrays.get("model", ""))
        texts = {}
        for name in ("paths", "views", "conditions"):
            texts[name] = arrays.get(name, np.full(len(plain), ""))
            if len(texts[name]) != len(plain):
                raise ValueError(f"{path}: {len(texts[name])} {name} for {len(plain)} vectors")
        samples = tuple(
            Sample(frames_at(str(name)), sample.pid, sample.camid, str(view), str(condition))
            for name, view, condition, sample in zip(*texts.values(), plain.samples, strict=True)
        )
        return cls(plain.vectors, samples, parts, model)


def path_of(sample: Sample) -> str:
    """How a feature file names a sample: its first file, or its stretch of a packed store."""
    frames = sample.frames
    if isinstance(frames, StoredFrames):
        return str(frames)
    return frames[0] if frames else ""


def frames_at(path: str) -> tuple[str, ...] | StoredFrames:
    """The frames that `path_of` named."""
    return StoredFrames.parse(path) or ((path,) if path else ())


def check_vectors(shape: tuple[int, ...], floating: bool, kind: object) -> None:
    """Raise a ValueError unless these are the shape and the kind of features."""
    if not floating:
        raise ValueError(f"features must be floating point, got {kind}; convert them on purpose")
    if len(shape) != 2:
        raise ValueError(f"features need shape (N, D), one row a sample; got {shape}")


def integer_array(name: str, values: ArrayLike | Tensor, length: int) -> NDArray[np.int64]:
    """The values as (length,) int64, or a ValueError that names them."""
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if array.shape != (length,):
        raise ValueError(
            f"{name} has shape {array.shape}, expected ({length},): one for each vector"
        )
    if not np.issubdtype(array.dtype, np.integer):
        remedy = "map names to numbers first" if array.dtype.kind in "US" else "convert them"
        raise ValueError(f"{name} must be integers, got {array.dtype}; {remedy}")
    if array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} go up to {array.max()}; expected at most 2^63 - 1: number them")
    return array.astype(np.int64)


class Hits(NamedTuple):
    """The ranks of all right answers; every retrieval metric is a function of these."""

    # (M,) int64, 1-based, ascending within a query: 1 + valid items closer (ties count against)
    ranks: Tensor
    offsets: Tensor  # (Q + 1,) int64; ranks[offsets[q]:offsets[q + 1]] belong to query q
    candidates: Tensor  # (Q,) int64, gallery items left after the protocol's exclusions
    tied: Tensor  # (Q,) bool, a wrong answer stands at exactly the distance of the first right one


@dataclass(frozen=True, eq=False)
class Scores(Mapping[str, float]):
    """Named scores as fractions in [0, 1]; percent appears only when printing.

    `queries` are those that count; `skipped` have no right answer; in `tied` a tie decided. `cmc`
    (K,) is the curve; `interval` gives, by name, the ends of a 95 % bootstrap interval over
    queries; `warnings` are sentences about what makes these numbers doubtful. `details` is text to
    print below, such as a gait table, and `plain_details` the same for JSON.
    """

    values_by_name: Mapping[str, float]
    skipped: int = 0
    queries: int = 0
    tied: int = 0
    cmc: Tensor | None = None
    interval: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    details: str = ""
    plain_details: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        return self.values_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)

    def table(self, title: str = "") -> str:
        """A few lines a person can read, in percent."""
        names: Sequence[str] = list(self.values_by_name)
        head = "  ".join(f"{name:>8}" for name in names)
        row = "  ".join(f"{100 * self.values_by_name[name]:>7.2f}%" for name in names)
        lines = (title, head, row, *self._ends(), self.note(), self.details)
        return "\n".join(line for line in lines if line)

    def _ends(self) -> list[str]:
        if not self.interval:
            return []
        pairs = [self.interval.get(name) for name in self.values_by_name]
        rows = [
            "  ".join(" " * 8 if pair is None else f"{100 * pair[end]:>7.2f}%" for pair in pairs)
            for end in (0, 1)
        ]
        return [f"{rows[0]}  from", f"{rows[1]}  to: 95 % of draws of as many queries"]

    def note(self) -> str:
        """How many queries count, and how many were left out or decided by a tie."""
        note = f"{self.queries} {'query' if self.queries == 1 else 'queries'}"
        if self.skipped:
            note += f", {self.skipped} without a right answer in the gallery: not counted"
        if self.tied:
            note += f", {self.tied} decided by a tie, counted against the model"
        return note

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "scores": {name: float(value) for name, value in self.values_by_name.items()},
            "queries": self.queries,
            "skipped": self.skipped,
            "tied": self.tied,
            "interval": {name: list(pair) for name, pair in self.interval.items()},
            "warnings": list(self.warnings),
            **({"details": dict(self.plain_details)} if self.plain_details else {}),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Scores":
        """What `to_dict` gave, without the CMC."""
        interval = {name: (low, high) for name, (low, high) in plain["interval"].items()}
        counts = {name: plain[name] for name in ("skipped", "queries", "tied")}
        return cls(
            plain["scores"], **counts, interval=interval, warnings=tuple(plain.get("warnings", ()))
        )
