"""The trainings of a sweep: a config and a folder each, all checked before the first one starts."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reidkit.compose.building import check
from reidkit.compose.sweep.grid import Point
from reidkit.config import (
    ConfigError,
    RunConfig,
    differences,
    load_config,
    parse_config,
    read_yaml,
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
        if self.trained:
            return "finished"
        return "begun" if (self.folder / "config.yaml").is_file() else "new"

    @property
    def trained(self) -> Mapping[str, Mapping[str, float]]:
        """Scores of the trained model by test benchmark, the first one first; empty where one is
        missing.

        Of `model.json`, which only a training writes: scores.json also takes what `reidkit
        evaluate` finds.
        """
        card = self.folder / "model.json"
        if not card.is_file():
            return {}
        info = read_json(card).get("info", {})
        found = info.get("scores", {}) if isinstance(info, dict) else None
        if not isinstance(found, dict) or not all(isinstance(s, dict) for s in found.values()):
            raise damaged(card, "its scores are no numbers by name")
        return found if len(found) >= len(self.config.data.test) and all(found.values()) else {}

    @property
    def fingerprint(self) -> str | None:
        """Which samples it was trained on, None before it began."""
        facts = self.folder / "data.json"
        return read_json(facts).get("fingerprint") if facts.is_file() else None

    def faults(self) -> list[str]:
        """Why its folder cannot be used: it holds a run of another config."""
        before = self.folder / "config.yaml"
        if not before.is_file():
            return []
        old = parse_config(read_yaml(before), str(before))
        changed = differences(old.model_dump(mode="json"), self.config.model_dump(mode="json"))
        if not changed:
            return []
        return [
            f"{self.folder} holds a run of another config ({'; '.join(changed)}): give another "
            "--out, or remove it"
        ]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file of a run; ValueError names a damaged one."""
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise damaged(path, str(error)) from error
    if not isinstance(content, dict):
        raise damaged(path, "no object")
    return content


def damaged(path: Path, why: str) -> ValueError:
    """The error that names a file of a run that cannot be read, and what to do."""
    return ValueError(f"{path} is damaged ({why}): remove {path.parent} to train it anew")


def configure(config: Path, points: Iterable[Point]) -> dict[str, RunConfig]:
    """Each point's config by its name; a ConfigError with the faults of all of them, or where their
    test benchmarks are not the same."""
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
    _refuse_other_tests(str(config), found)
    return found


def _refuse_other_tests(source: str, configs: Mapping[str, RunConfig]) -> None:
    first: tuple[str, object] | None = None
    for name, config in configs.items():
        tests = [
            one.model_copy(update={"root": one.root or config.data.root})
            for one in config.data.test
        ]
        if first is None:
            first = name, tests
        elif tests != first[1]:
            fault = f"{first[0]} and {name}: data.test differs; a sweep compares scores on one test"
            raise ConfigError(source, [f"{fault} set: leave data.test the same for all"])


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
