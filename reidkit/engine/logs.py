"""Where numbers go while training: JSON lines always, TensorBoard when it is installed."""

import json
import math
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from reidkit.engine.loop import StepReport
from reidkit.engine.state import TrainState
from reidkit.files import write_atomically


class RunLog:
    """`log.jsonl` and TensorBoard's event file in a run folder; one record an interval, one an
    evaluation."""

    def __init__(self, folder: Path, *, tensorboard: bool = True, interval: int = 20) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        self.interval = interval
        self._writer: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tensorboard"))
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps = self._images = 0
        self._data = self._step = 0.0

    def rewind(self, iteration: int) -> None:
        """Forget the records after `iteration`: a resumed run writes them again."""
        if self.path.is_file():
            kept = [
                line
                for line in self.path.read_text().splitlines()
                if _iteration_of(line) <= iteration
            ]
            write_atomically(self.path, "".join(line + "\n" for line in kept).encode())

    def step(self, state: TrainState, report: StepReport) -> dict[str, Any] | None:
        """Take in a step; at the end of an interval write and return its means."""
        for name, value in report.terms.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
        self._steps += 1
        self._images += report.images
        self._data += report.data_seconds
        self._step += report.step_seconds
        if state.iteration % self.interval and state.batch < state.batches:
            return None
        terms = {name: float(total) / self._steps for name, total in self._sums.items()}
        record = {
            "kind": "train",
            "epoch": round(state.iteration / state.batches, 4),
            "iteration": state.iteration,
            "loss": terms.pop("loss"),
            "terms": terms,
            "lr": report.rate,
            "data_seconds": round(self._data / self._steps, 5),
            "step_seconds": round(self._step / self._steps, 5),
            "images_per_second": round(self._images / max(self._data + self._step, 1e-9), 1),
        }
        self._clear()
        self.write(record)
        return record

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; numbers that are not finite become null, as JSON has no word for
        them."""
        with self.path.open("a") as file:
            file.write(json.dumps(_plain({**record, "time": round(time.time(), 3)})) + "\n")
        if self._writer is not None:
            for name, value in _flat(record):
                if name not in ("epoch", "iteration"):
                    self._writer.add_scalar(f"{record['kind']}/{name}", value, record["iteration"])

    def close(self) -> None:
        """Flush what is still in memory."""
        if self._writer is not None:
            self._writer.close()


def _iteration_of(line: str) -> int:
    try:
        return int(json.loads(line)["iteration"])
    except (ValueError, KeyError):  # a line cut off by a kill
        return 2**62


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(record: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    rows: list[tuple[str, float]] = []
    for name, value in record.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            rows.append((prefix + name, float(value)))
    return rows
