"""What reidkit offers, and what this machine has."""

import math
import os
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import torch
from threadpoolctl import threadpool_info

from reidkit import data, engine, evaluation, losses, models, unsupervised
from reidkit.compose.building import choose_device
from reidkit.registry import Registry, UnknownName


def components(kind: str | None = None) -> dict[str, dict[str, str]]:
    """Kind -> name -> arguments of everything registered; of one kind where it is named.

    Protocols and baselines have no arguments: a text says what each is.
    """
    registries = [
        data.BENCHMARKS,
        *models.REGISTRIES,
        losses.LOSSES,
        unsupervised.METHODS,
        engine.OPTIMIZERS,
        engine.SCHEDULES,
    ]
    by_kind = {registry.kind: registry for registry in registries}
    beside = losses.catalogue()
    known = [*by_kind, *beside, "baseline", "protocol"]
    if kind is not None and kind not in known:
        raise UnknownName.among("kind", kind, known)
    found = {
        title: {name: _signature(registry, name) for name in registry}
        for title, registry in by_kind.items()
        if kind in (None, title)
    }
    found |= {title: names for title, names in beside.items() if kind in (None, title)}
    if kind in (None, "baseline"):
        found["baseline"] = {name: baseline.summary for name, baseline in data.BASELINES.items()}
    if kind in (None, "protocol"):
        texts = {name: evaluation.describe(name) for name in evaluation.PROTOCOLS}
        found["protocol"] = {name: text.removeprefix(f"{name}: ") for name, text in texts.items()}
        found["protocol"] |= {
            name: f"a gait table, rank-1 a probe view; {gait.source}"
            for name, gait in evaluation.GAIT_PROTOCOLS.items()
        }
    return found


# What reidkit tells a constructor at run time: no config may set it.
FACTS: Mapping[str, frozenset[str]] = {
    data.BENCHMARKS.kind: frozenset({"root", "check"}),
    losses.LOSSES.kind: frozenset({"num_classes", "embedding_size", "parts", "rivals"}),
    engine.OPTIMIZERS.kind: frozenset({"params", "lr", "weight_decay"}),
    models.MODELS.kind: models.MODEL_FACTS,
    **{registry.kind: facts for registry, facts in models.COMPONENTS.values()},
}


def _signature(registry: Registry[Any], name: str) -> str:
    words = []
    for key, parameter in registry.parameters(name).items():
        if key not in FACTS.get(registry.kind, ()):
            default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
            words.append(key + default)
    return ", ".join(words)


PACKAGES = ("torch", "torchvision", "timm", "pytorch-metric-learning", "opencv-python-headless")
SMALL_DISK = 5 * 2**30  # bytes; a ResNet-50's run keeps about a third of it
SMALL_SHARED = 2**29  # bytes; containers often have 64 MiB, which two batches of pictures fill
CGROUP = Path("/sys/fs/cgroup")
SHARED = Path("/dev/shm")


def diagnose() -> dict[str, str]:
    """What this machine has, a line a fact; each missing piece with its remedy."""
    facts = {
        "python": platform.python_version(),
        "cores": _cores(),
        "memory": _memory(),
        "device": str(choose_device()),
        "accelerators": _accelerators(),
    }
    for package in PACKAGES:
        facts[package] = _version(package) or "missing: reinstall reidkit"
    facts["faiss"] = _faiss()
    facts["decoder"] = decoder(cv2.getBuildInformation())
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "openmp"]
    facts["openmp"] = judge_threads(
        [(_owner(pool["filepath"]), pool["prefix"], pool["num_threads"]) for pool in pools],
        cores=usable_cores(),
        policy=os.environ.get("OMP_WAIT_POLICY", ""),
    )
    facts["disk"] = _room(Path.cwd(), SMALL_DISK, "a run keeps several states: free some, or --out")
    if SHARED.is_dir():
        facts["shared memory"] = _room(
            SHARED,
            SMALL_SHARED,
            "worker processes hand batches over in it: docker run --shm-size=2g, or "
            "data.worker_kind=threads",
        )
    found = [f"{name} {version}" for name in ("wandb", "mlflow") if (version := _version(name))]
    facts["track"] = ", ".join(found) or "TensorBoard alone; more: pip install 'reidkit[track]'"
    root = data.default_root()
    facts["data"] = f"{root}" + ("" if root.is_dir() else ": no such folder; set REIDKIT_DATA")
    return facts


def usable_cores() -> int:
    """How many cores this process may keep busy: of the machine's those that affinity and the
    container's quota leave."""
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    quota, _, period = _read(CGROUP / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(cores, 1)


def decoder(build: str) -> str:
    """Which library decodes JPEGs, from OpenCV's account of how it was built."""
    line = re.search(r"^\s*JPEG:\s*(.+)$", build, re.MULTILINE)
    if line is None:
        return "none: this OpenCV reads no JPEG; pip install opencv-python-headless"
    told = re.fullmatch(r"(?:build-)?(.*?)\s*\(ver ([\w.]+).*\)", line[1].strip())
    name = f"{told[1]} {told[2]}" if told else line[1].strip()
    if "turbo" in line[1]:
        simd = re.search(r"^\s*SIMD Support:\s*NO", build, re.MULTILINE)
        return f"{name}, without SIMD: several times slower" if simd else name
    return f"{name}: not libjpeg-turbo, several times slower; pip install opencv-python-headless"


def judge_threads(runtimes: Sequence[tuple[str, str, int]], *, cores: int, policy: str) -> str:
    """Which OpenMP runtimes share this process, and what is wrong with that, if anything.

    runtimes: (package, library, threads) each; policy: of OMP_WAIT_POLICY.
    """
    if not runtimes:
        return "none: products run on one core; reinstall torch"
    told = ", ".join(f"{library} of {package}: {count}" for package, library, count in runtimes)
    told += " thread" if runtimes[-1][2] == 1 else " threads"
    most = max(count for _, _, count in runtimes)
    if most > cores:
        return f"{told}; more than the {cores} cores: set OMP_NUM_THREADS={cores}"
    if len({library for _, library, _ in runtimes}) > 1:
        return f"{told}; two kinds in one process can hang: install all packages from one place"
    if len(runtimes) > 1 and policy.upper() != "PASSIVE":
        return f"{told}; they take each other's cores while they wait: set OMP_WAIT_POLICY=PASSIVE"
    if most < cores:
        return f"{told}; {cores - most} of {cores} cores idle: unset OMP_NUM_THREADS"
    return told


def _owner(library: str) -> str:
    """The package that a library came with."""
    parts = Path(library).parts
    if "site-packages" in parts[:-1]:
        return parts[parts.index("site-packages") + 1].removesuffix(".libs")
    return str(Path(library).parent)


def _cores() -> str:
    usable, there = usable_cores(), os.cpu_count() or 1
    limited = f", {usable} of them for this process" if usable < there else ""
    return f"{there}{limited}, torch uses {torch.get_num_threads()}"


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not a POSIX system
        return "unknown"
    limit = _read(CGROUP / "memory.max")
    if limit.isdigit() and int(limit) < total:
        return f"{_size(total)}, {_size(int(limit))} of it for this container"
    free = re.search(r"MemAvailable:\s*(\d+) kB", _read(Path("/proc/meminfo")))
    return _size(total) + (f", {_size(int(free[1]) * 1024)} free" if free else "")


def _accelerators() -> str:
    kind = torch.accelerator.current_accelerator(check_available=True)
    if kind is not None:
        module = getattr(torch, kind.type, None)
        tell = getattr(module, "get_device_properties", None)
        found = []
        for number in range(torch.accelerator.device_count()):
            name = f"{kind.type}:{number}"
            if tell is not None:
                properties = tell(number)
                name += f" {properties.name} {_size(properties.total_memory)}"
            found.append(name)
        return ", ".join(found)
    if not Path("/proc/driver/nvidia/version").is_file():
        return "none: trains on the CPU"
    if torch.version.cuda is None:
        return "none for this torch, built without CUDA; an NVIDIA driver is here: reinstall torch"
    return f"none: torch is built for CUDA {torch.version.cuda}, but finds no device: nvidia-smi"


def _faiss() -> str:
    found = [name for name in ("faiss-cpu", "faiss-gpu") if _version(name)]
    if not found:
        return "missing: exact search falls back to torch; pip install 'reidkit[cpu]'"
    told = ", ".join(f"{name} {_version(name)}" for name in found)
    if len(found) > 1:
        return f"{told}: they share one folder and break each other; uninstall one"
    try:
        import faiss
    except ImportError as error:
        return f"{told}: cannot be loaded ({error}); reinstall it"
    # DD tells that it chooses among the rest when it is loaded.
    built = [w for w in faiss.get_compile_options().split() if w not in ("OPTIMIZE", "DD")]
    return f"{told}, built for {' '.join(built) or 'any processor'}"


def _room(folder: Path, enough: int, otherwise: str) -> str:
    usage = shutil.disk_usage(folder)
    told = f"{_size(usage.free)} of {_size(usage.total)} free in {folder}"
    return told if usage.free >= enough else f"{told}; {otherwise}"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
