"""The training loop and what it holds; knows neither data sets nor networks nor losses."""

from reidkit.engine.checkpoint import Checkpointer, load_state, save_state, saved_states
from reidkit.engine.console import Console, Update
from reidkit.engine.ema import WeightAverage, update_batch_norm
from reidkit.engine.extract import extract
from reidkit.engine.interrupt import interrupted_by_signal, stop_on_signal
from reidkit.engine.logs import RunLog, advice
from reidkit.engine.loop import EpochLoader, Interrupted, StepReport, fit, supervised_step
from reidkit.engine.micro import live_batch_norm
from reidkit.engine.optim import OPTIMIZERS, parameter_groups
from reidkit.engine.schedules import SCHEDULES, Schedule
from reidkit.engine.state import TrainState
from reidkit.engine.task import Task
from reidkit.engine.tracking import Tracker, open_trackers, require_packages

__all__ = [
    "fit",
    "supervised_step",
    "Interrupted",
    "EpochLoader",
    "StepReport",
    "Task",
    "TrainState",
    "WeightAverage",
    "update_batch_norm",
    "OPTIMIZERS",
    "parameter_groups",
    "SCHEDULES",
    "Schedule",
    "extract",
    "Checkpointer",
    "save_state",
    "load_state",
    "saved_states",
    "Console",
    "Update",
    "RunLog",
    "advice",
    "Tracker",
    "open_trackers",
    "require_packages",
    "live_batch_norm",
    "stop_on_signal",
    "interrupted_by_signal",
]
