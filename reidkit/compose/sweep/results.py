"""What a finished training scored and what it cost, from its run folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reidkit.compose.sweep.runs import Run, damaged, read_json
from reidkit.data import BASELINES

YARDSTICKS = (*BASELINES, "untrained")  # rows of scores.json that no training has changed


@dataclass(frozen=True, slots=True)
class Spent:
    """What a training took.

    `seconds` of training alone; `steps` of the optimiser; `images` that the model was shown, each
    as often as it was; `weights` that were learned, those of the losses among them. None where an
    older run does not tell.
    """

    seconds: float | None
    steps: int
    images: int
    weights: int | None


@dataclass(frozen=True, slots=True)
class Result:
    """Scores by name as fractions, of the trained model and of each yardstick; and the cost.

    A score of the first test benchmark has its own name, of another one BENCHMARK/name.
    """

    scores: Mapping[str, float]
    yardsticks: Mapping[str, Mapping[str, float]]
    spent: Spent


def read_result(run: Run) -> Result:
    """The result of a finished run; ValueError names a damaged file."""
    scores: dict[str, float] = {}
    yardsticks: dict[str, dict[str, float]] = {}
    path = run.folder / "scores.json"
    report = read_json(path) if path.is_file() else {}
    for position, (benchmark, trained) in enumerate(run.trained.items()):
        prefix = f"{benchmark}/" if position else ""
        scores.update({prefix + name: value for name, value in trained.items()})
        try:
            rows = {
                name: {prefix + metric: float(value) for metric, value in row["scores"].items()}
                for name, row in report.get(benchmark, {}).items()
                if name in YARDSTICKS
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise damaged(path, f"{benchmark} holds no scores by name") from error
        for name, named in rows.items():
            yardsticks.setdefault(name, {}).update(named)
    return Result(scores, yardsticks, _spent(run))


def _spent(run: Run) -> Spent:
    info = read_json(run.folder / "model.json")["info"]
    batches = _batches(run.folder / "log.jsonl")
    settings = run.config
    batch = settings.data.batch
    an_epoch = -(-batches // settings.optim.epochs)
    frames: float = batch.frames
    if batch.most_frames is not None:  # drawn evenly between the two
        frames = (batch.frames + batch.most_frames) / 2
    return Spent(
        seconds=info.get("seconds"),
        steps=settings.optim.epochs * -(-an_epoch // settings.optim.accumulate),
        images=round(batches * batch.identities * batch.instances * frames),
        weights=info.get("weights"),
    )


def _batches(log: Path) -> int:
    """How many batches were trained on, by the last record that tells."""
    found = 0
    for line in log.read_text(errors="replace").splitlines():
        try:
            record: dict[str, Any] = json.loads(line)
        except ValueError:  # cut off by a kill; the resumed run wrote on
            continue
        if record.get("kind") == "train":
            found = max(found, int(record["iteration"]))
    return found
