"""Many trainings of one config: a grid or a search, several seeds, one table."""

from reidkit.compose.sweep.checks import refuse_changed_data, refuse_unknown
from reidkit.compose.sweep.conduct import Sweep
from reidkit.compose.sweep.grid import (
    Point,
    make_points,
    read_assignments,
    read_seeds,
    read_variants,
    short_keys,
    split_values,
    varying,
)
from reidkit.compose.sweep.launch import Outcome, Processes, Trainer, alone_in, stopping
from reidkit.compose.sweep.ranges import corners, read_space, refuse_ranges
from reidkit.compose.sweep.results import Result, Spent, read_result
from reidkit.compose.sweep.runs import Run, configure, make_runs
from reidkit.compose.sweep.search import Search, require_optuna
from reidkit.compose.sweep.table import Row, Table, within_error
from reidkit.compose.sweep.telling import text_of

__all__ = [
    "Point",
    "split_values",
    "read_assignments",
    "read_variants",
    "read_seeds",
    "varying",
    "short_keys",
    "make_points",
    "corners",
    "read_space",
    "refuse_ranges",
    "Run",
    "configure",
    "make_runs",
    "refuse_unknown",
    "refuse_changed_data",
    "Trainer",
    "Outcome",
    "Processes",
    "alone_in",
    "stopping",
    "Result",
    "Spent",
    "read_result",
    "Row",
    "Table",
    "within_error",
    "text_of",
    "Sweep",
    "Search",
    "require_optuna",
]
