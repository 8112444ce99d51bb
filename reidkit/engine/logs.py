"""What a training tells of itself: a line of JSON an interval, trackers, and which knob to turn."""

import json
import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from reidkit.distributed import is_main, world_size
from reidkit.engine.loop import StepReport
from reidkit.engine.state import TrainState
from reidkit.engine.tracking import Tracker, brief
from reidkit.files import write_atomically

logger = logging.getLogger(__name__)

WORTH_TELLING = 0.2  # share of a step spent waiting above which there is something to mend


class RunLog:
    """`log.jsonl` in a run folder, and the trackers; one record an interval, one an evaluation.

    Of several processes only the first one's does anything. A tracker that fails is told once and
    left alone from then on; records that the disk does not take wait for the next one.

    Args:
        folder: the run's.
        trackers: who hears of each record, too; closed with the log.
        interval: steps whose means are one record; the end of an epoch ends one, too.
    """

    def __init__(
        self, folder: Path, trackers: Sequence[Tracker] = (), *, interval: int = 20
    ) -> None:
        self.path = folder / "log.jsonl"
        self.interval = interval
        self.trackers = list(trackers)
        self._silent = not is_main()
        self._unwritten = b""
        if not self._silent:
            folder.mkdir(parents=True, exist_ok=True)
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps = self._images = 0
        self._data = self._step = 0.0

    def rewind(self, iteration: int, epochs: float | None = None) -> None:
        """Forget the records after `iteration`: a resumed run writes them again.

        `epochs` is the same place counted in epochs; it decides where the number of batches in an
        epoch changed on the way, so that earlier iterations are numbered otherwise.
        """
        if self._silent:
            return
        if self.path.is_file():
            kept = [
                line
                for line in self.path.read_text(errors="replace").splitlines()
                if _is_before(line, iteration, epochs)
            ]
            write_atomically(self.path, "".join(line + "\n" for line in kept).encode())
        self._tell("rewind", iteration)

    def step(self, state: TrainState, report: StepReport) -> dict[str, Any] | None:
        """Take in a step; at the end of an interval write and return its means.

        Of the seconds, `waiting` is the share of data / (data + step), in [0, 1]; on an
        accelerator, which works on while the next batch is waited for, at most so much.
        """
        if self._silent:
            return None
        for name, value in report.terms.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
        self._steps += 1
        self._images += report.images * world_size()
        self._data += report.data_seconds
        self._step += report.step_seconds
        if state.iteration % self.interval and state.batch < state.batches:
            return None
        asked = time.perf_counter()
        terms = {name: float(total) / self._steps for name, total in self._sums.items()}
        # An accelerator only now comes to the end of what the steps have queued.
        self._step += time.perf_counter() - asked
        seconds = max(self._data + self._step, 1e-9)
        record = {
            "kind": "train",
            "epoch": round(state.iteration / state.batches, 4),
            "iteration": state.iteration,
            "loss": terms.pop("loss"),
            "terms": terms,
            "lr": report.rate,
            "data_seconds": round(self._data / self._steps, 5),
            "step_seconds": round(self._step / self._steps, 5),
            "waiting": round(self._data / seconds, 4),
            "images_per_second": round(self._images / seconds, 1),
        }
        self._clear()
        self.write(record)
        return record

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; numbers that are not finite become null, as JSON has no word for
        them."""
        if self._silent:
            return
        line = json.dumps(_plain({**record, "time": round(time.time(), 3)})) + "\n"
        self._append(line.encode())
        values = {
            f"{record['kind']}/{name}": value
            for name, value in _flat(record)
            if name not in ("epoch", "iteration")
        }
        if values:
            self._tell("scalars", values, record["iteration"])

    def _append(self, line: bytes) -> None:
        told = self._unwritten != b""
        self._unwritten += line
        try:
            with self.path.open("ab", buffering=0) as file:
                start = file.tell()
                if file.write(self._unwritten) < len(self._unwritten):
                    os.ftruncate(file.fileno(), start)  # a full disk takes half a line
                    raise OSError("the disk is full")
            self._unwritten = b""
        except OSError as error:
            if not told:
                logger.warning(
                    "%s cannot be written (%s); its records wait in memory for a disk that can",
                    self.path,
                    error.strerror or error,
                )

    def _tell(self, what: Literal["scalars", "rewind", "close"], *words: Any) -> None:
        for tracker in list(self.trackers):
            try:
                getattr(tracker, what)(*words)
            except Exception as error:
                # Whatever a service does must not cost a training.
                self.trackers.remove(tracker)
                name = type(tracker).__name__
                logger.warning("%s failed, the run goes on without it: %s", name, brief(error))

    def close(self) -> None:
        """Close the trackers."""
        self._tell("close")
        self.trackers.clear()


def advice(
    waiting: float,
    *,
    workers: int,
    cores: int,
    kind: Literal["threads", "processes"],
    packed: bool,
) -> str | None:
    """Which knob to turn when more than a fifth of a step is spent waiting for data; else None.

    One line, `what was measured; what to do`: the part behind the semicolon depends on the
    settings alone, so that it can be said once.

    Args:
        waiting: data / (data + step) seconds, in [0, 1].
        workers: what prepares batches beside the training, 0 for nothing.
        cores: this process's share of the machine's.
        packed: pictures come from a packed store, so that nothing is decoded.
    """
    if not 0 <= waiting <= 1:
        raise ValueError(f"waiting is {waiting}, a share of the step's time: expected in [0, 1]")
    if waiting <= WORTH_TELLING:
        return None
    if workers == 0:
        knob = f"set data.workers={min(cores, 4)}, which prepare batches while the model computes"
    elif workers < cores:
        more = min(2 * workers, cores)
        knob = f"set data.workers={more}: there are {cores} cores for {workers} of them"
    elif not packed:
        knob = (
            "decode the pictures once: `reidkit data pack` writes a store, data.store=FOLDER "
            "reads it"
        )
    elif kind == "threads":
        knob = (
            "set data.worker_kind=processes: transforms written in Python make threads wait for "
            "one another"
        )
    else:
        knob = (
            "leave out what costs most in data.augment (auto, blur, jitter), or give it more cores"
        )
    return f"waiting for data takes {100 * waiting:.0f} % of a step; {knob}"


def _is_before(line: str, iteration: int, epochs: float | None) -> bool:
    try:
        record = json.loads(line)
        if epochs is None:
            return int(record["iteration"]) <= iteration
        place, here = float(record["epoch"]), round(epochs, 4)
        # Between two epochs there is no doubt; within one, places are rounded.
        return place < here or (
            place == here and (here.is_integer() or int(record["iteration"]) <= iteration)
        )
    except (ValueError, KeyError, TypeError):  # a line cut off by a kill
        return False


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
