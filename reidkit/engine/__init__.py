"""The training loop and what it holds; knows neither data sets nor networks nor losses."""

from reidkit.engine.checkpoint import load_state, save_state
from reidkit.engine.console import Console, Update
from reidkit.engine.ema import WeightAverage
from reidkit.engine.extract import extract
from reidkit.engine.interrupt import stop_on_signal
from reidkit.engine.logs import RunLog
from reidkit.engine.loop import EpochLoader, Interrupted, StepReport, fit, supervised_step
from reidkit.engine.optim import OPTIMIZERS, parameter_groups
from reidkit.engine.schedules import SCHEDULES, Schedule
from reidkit.engine.state import TrainState
from reidkit.engine.task import Task

__all__ = [
    "fit",
    "supervised_step",
    "Interrupted",
    "EpochLoader",
    "StepReport",
    "Task",
    "TrainState",
    "WeightAverage",
    "OPTIMIZERS",
    "parameter_groups",
    "SCHEDULES",
    "Schedule",
    "extract",
    "save_state",
    "load_state",
    "Console",
    "Update",
    "RunLog",
    "stop_on_signal",
]
