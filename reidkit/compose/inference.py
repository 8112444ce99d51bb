"""A trained model at work: features, scores and pictures of a run."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from reidkit import data, engine, evaluation, visualise
from reidkit.compose.ranks import main_alone
from reidkit.config import RunConfig, load_config
from reidkit.distributed import is_main, rank, world_size
from reidkit.engine import Console
from reidkit.files import write_atomically
from reidkit.types import EvalProtocol, Features, Metric, Preprocessing, Sample, StoredFrames

QUIET = Console(quiet=True)
CHUNK = 4096  # samples whose features are kept together while a long extraction runs
PICTURE_WIDTH = 10  # nearest gallery items shown for a query


def extract(
    model: nn.Module,
    samples: Sequence[Sample] | str | Path,
    *,
    batch_size: int = 64,
    workers: int = 0,
    worker_kind: data.WorkerKind = "processes",
    device: torch.device | str | None = None,
    frames: data.FrameSampling | None = None,
    console: Console = QUIET,
) -> Features:
    """Features of samples, or of all images below a folder, as the model's preprocessing asks.

    `frames` says which frames of a tracklet are read: up to 16, spread evenly, where absent; all
    of a silhouette sequence. The model stays on its device unless another is named. The features
    know the model by the fingerprint of its weights. Under torchrun each process extracts a part
    and all get the whole. Raises ValueError where an image cannot be
    read or a feature is not finite.
    """
    if isinstance(samples, str | Path):
        samples = data.folder_samples(Path(samples))
    preprocessing = getattr(model, "preprocessing", Preprocessing())
    if device is None:
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
    model = model.to(device)
    loader = data.eval_loader(
        samples,
        preprocessing=preprocessing,
        batch_size=batch_size,
        workers=workers,
        worker_kind=worker_kind,
        device=torch.device(device),
        frames=frames,
        rank=rank(),
        world=world_size(),
    )
    with console.bar("extract", len(samples)) as update:
        found = engine.extract(
            model,
            loader,
            samples,
            progress=lambda done, total: update(done),
            sharded=world_size() > 1,
        )
    return replace(found, model=weights_hash(model))


def extract_to(
    model: nn.Module,
    samples: Sequence[Sample],
    out: Path,
    *,
    batch_size: int = 64,
    workers: int = 0,
    console: Console = QUIET,
) -> Features:
    """Extract into a feature file, .npz or .csv; an interrupted call goes on where it stopped.

    The chunks wait in `OUT.partial` until all are there; those of another model, or of files that
    are others or have changed since, are not used.
    """
    if not samples:
        raise ValueError("nothing to extract: the source holds no images")
    partial = out.with_name(out.name + ".partial")

    def open_partial() -> list[int]:
        """Which chunks an earlier call has left."""
        mark = {"files": files_hash(samples), "model": weights_hash(model), "chunk": CHUNK}
        plan = partial / "of.json"
        if plan.is_file() and json.loads(plan.read_text()) != mark:
            console.say(f"{partial} is of another model or source: starting anew")
            shutil.rmtree(partial)
        write_atomically(plan, json.dumps(mark).encode())
        return [start for start in range(0, len(samples), CHUNK) if _piece(partial, start).exists()]

    kept = main_alone(open_partial)
    for start in range(0, len(samples), CHUNK):
        part = samples[start : start + CHUNK]
        if start in kept:
            console.say(f"kept {len(part)} features of an earlier call")
            continue
        piece = extract(model, part, batch_size=batch_size, workers=workers, console=console)
        if is_main():
            piece.save(_piece(partial, start))

    def join() -> Features:
        pieces = [Features.load(_piece(partial, start)) for start in range(0, len(samples), CHUNK)]
        vectors = torch.cat([piece.vectors for piece in pieces])
        features = Features(vectors, tuple(samples), pieces[0].parts, pieces[0].model)
        if out.suffix == ".csv":
            features.save_csv(out)
        else:
            features.save(out)
        shutil.rmtree(partial)
        return features

    return main_alone(join)


def _piece(partial: Path, start: int) -> Path:
    return partial / f"{start:09d}.npz"


def files_hash(samples: Sequence[Sample]) -> str:
    """Which files these are and when they were last changed: the same names elsewhere differ."""
    digest = hashlib.sha256()
    for sample in samples:
        for name, path in files_of(sample):
            changed = path.stat().st_mtime_ns if path.is_file() else 0
            where = f"{path.resolve()}|{name}|{changed}"
            digest.update(f"{where}|{sample.pid}|{sample.camid}\n".encode())
    return digest.hexdigest()[:16]


def files_of(sample: Sample) -> list[tuple[str, Path]]:
    """What a sample reads, and the file it lies in: a packed sequence is one piece of one file."""
    frames = sample.frames
    if isinstance(frames, StoredFrames):
        return [(f"{frames.start}+{frames.length}", Path(frames.store) / data.STORED_PIXELS)]
    return [("", Path(frame)) for frame in frames]


def weights_hash(model: nn.Module) -> str:
    """The fingerprint that features carry of the model that made them."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def find_samples(source: str, root: Path | None = None) -> Sequence[Sample]:
    """The samples that a source names: a folder, a packed store, a manifest, an image, or
    `benchmark:split`."""
    path = Path(source)
    if data.is_store(path):
        return data.store_samples(data.SilhouetteStore.open(path), path.name)
    if path.is_dir():
        return data.folder_samples(path)
    if path.suffix in (".csv", ".parquet"):
        # Its splits need not suit an evaluation here: every readable line is wanted.
        own = data.load_benchmark("manifest", path, "warn")
        return list(dict.fromkeys((*own.train, *own.query, *own.gallery)))
    if path.suffix.lower() in data.VIDEOS:
        raise ValueError(
            f"{path} is a video: `reidkit data pack {path} STORE` finds who walks in it; then name "
            "STORE"
        )
    if path.is_file():
        return [Sample((str(path),), -1)]
    name, colon, split = source.partition(":")
    if not colon:
        raise FileNotFoundError(
            f"no {source}: a source is a folder of images, a packed store of silhouettes, an "
            "image, a .csv or .parquet manifest, or benchmark:split such as market1501:query"
        )
    if split not in ("train", "query", "gallery"):
        raise ValueError(f"unknown split {split!r} in {source!r}: train, query or gallery")
    benchmark = data.load_benchmark(name, root or data.default_root())
    samples: tuple[Sample, ...] = getattr(benchmark, split)
    return samples


def run_config(run: Path) -> RunConfig | None:
    """The configuration kept in a run folder, None where there is none."""
    plan = (run if run.is_dir() else run.parent) / "config.yaml"
    return load_config(plan) if plan.is_file() else None


def askable(query: Features, gallery: Features) -> Features:
    """The query with its unknown samples (pid -1) as somebody whom the gallery does not hold: their
    neighbours can be asked for, their scores not."""
    if all(sample.pid >= 0 for sample in query.samples):
        return query
    nobody = 1 + max(sample.pid for sample in gallery.samples)
    samples = tuple(
        replace(sample, pid=max(nobody, 0)) if sample.pid < 0 else sample
        for sample in query.samples
    )
    return replace(query, samples=samples)


def draw_ranked(
    path: Path,
    query: Features,
    gallery: Features,
    protocol: EvalProtocol,
    count: int,
    metric: Metric = "cosine",
) -> None:
    """Draw `count` queries, spread evenly over the list, with their nearest valid gallery items."""
    count = min(count, len(query))
    chosen = [round(i * (len(query) - 1) / max(count - 1, 1)) for i in range(count)]
    samples = tuple(query.samples[i] for i in chosen)
    some = replace(query, vectors=query.vectors[chosen], samples=samples)
    indices, distances = evaluation.nearest(
        askable(some, gallery), gallery, protocol, PICTURE_WIDTH, metric=metric
    )
    rows = []
    for sample, found, far in zip(some.samples, indices.tolist(), distances.tolist(), strict=True):
        matches = [(gallery.samples[i], d) for i, d in zip(found, far, strict=True) if i >= 0]
        rows.append(
            visualise.RankedRow(
                query=sample,
                matches=[match for match, _ in matches],
                distances=[distance for _, distance in matches],
                right=[
                    None if sample.pid < 0 else (m.domain, m.pid) == (sample.domain, sample.pid)
                    for m, _ in matches
                ],
            )
        )
    visualise.ranked_strips(path, rows, show=data.show)
