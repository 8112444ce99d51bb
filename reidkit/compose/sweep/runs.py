"""The trainings of a sweep: a config and a folder each, all checked before the first one starts."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reidkit.compose.building import check
from reidkit.compose.sweep.grid import Point
from reidkit.config import (
    ConfigError,
    RunConfig,
    differences,
    load_config,
    parse_config,
    parse_yaml,
)


@dataclass(frozen=True, slots=True)
class Run:
    """One training: a point of the grid with one seed."""

    point: str
    seed: int
    config: RunConfig
    folder: Path

    @property
    def title(self) -> str:
        """How a line calls it."""
        return f"{self.point} seed {self.seed}"

    @property
    def plan(self) -> Path:
        """The resolved config that the training is started with, beside its folder."""
        return self.folder.with_name(f"{self.folder.name}.yaml")

    @property
    def console(self) -> Path:
        """What the training prints."""
        return self.folder / "console.txt"

    @property
    def state(self) -> Literal["finished", "begun", "new"]:
        """Whether its folder holds scores of the trained model, a run to resume, or none."""
        if self.trained_benchmarks() and (self.folder / "model.json").is_file():
            return "finished"
        return "begun" if (self.folder / "config.yaml").is_file() else "new"

    def trained_benchmarks(self) -> list[str]:
        """The test benchmarks, first one first, with scores of the trained model; empty where one
        is missing."""
        report = self.folder / "scores.json"
        if not report.is_file():
            return []
        found = [name for name, rows in json.loads(report.read_text()).items() if "trained" in rows]
        return found if len(found) >= len(self.config.data.test) else []

    def faults(self) -> list[str]:
        """Why its folder cannot be used: it holds a run of another config."""
        before = self.folder / "config.yaml"
        if not before.is_file():
            return []
        old = parse_config(parse_yaml(before.read_text(), str(before)), str(before))
        changed = differences(old.model_dump(mode="json"), self.config.model_dump(mode="json"))
        if not changed:
            return []
        return [
            f"{self.folder} holds a run of another config ({'; '.join(changed)}): give another "
            "--out, or remove it"
        ]


def configure(config: Path, points: Iterable[Point]) -> dict[str, RunConfig]:
    """Each point's config by its name; a ConfigError with the faults of all of them."""
    found: dict[str, RunConfig] = {}
    faults: dict[str, list[str]] = {}
    points = list(points)
    for point in points:
        try:
            ready = load_config(config, point.overrides)
            check(ready)
            if not ready.data.test:
                raise ConfigError("config", ["data.test is empty: a sweep compares scores"])
            found[point.name] = ready
        except ConfigError as error:
            told = str(error).removeprefix(f"{config}: ").removeprefix("config: ")
            for fault in error.faults if len(error.faults) > 1 else [told]:
                faults.setdefault(fault, []).append(point.name)
    if faults:
        raise ConfigError(
            str(config),
            [f"{_who(names, len(points))}{fault}" for fault, names in faults.items()],
        )
    return found


def _who(names: Sequence[str], of: int) -> str:
    if len(names) == of:
        return ""
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{others}: "


def make_runs(configs: Mapping[str, RunConfig], seeds: Sequence[int], out: Path) -> list[Run]:
    """All trainings, every point with one seed before the next seed, so that a sweep that was
    stopped has compared something.

    Raises ConfigError where two points are the same training or a folder holds another one.
    """
    faults = []
    first: dict[str, str] = {}
    for name, config in configs.items():
        twin = first.setdefault(config.to_yaml(), name)
        if twin != name:
            faults.append(f"{twin} and {name} are the same config; leave one out")
    runs = [
        Run(name, seed, config.model_copy(update={"seed": seed}), out / name / f"seed-{seed}")
        for seed in seeds
        for name, config in configs.items()
    ]
    faults += [fault for run in runs for fault in run.faults()]
    if faults:
        raise ConfigError(str(out), faults)
    return runs
