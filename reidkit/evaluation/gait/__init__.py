"""Gait's own tables: rank-1 by condition, probe view and gallery view; GREW's submission."""

from reidkit.evaluation.gait.grew import grew_check, grew_submission
from reidkit.evaluation.gait.part_distances import Distance, part_distances
from reidkit.evaluation.gait.table import (
    GAIT_PROTOCOLS,
    GaitProtocol,
    GaitTable,
    gait_protocol,
    gait_table,
)

__all__ = [
    "gait_table",
    "GaitTable",
    "GaitProtocol",
    "GAIT_PROTOCOLS",
    "gait_protocol",
    "part_distances",
    "Distance",
    "grew_submission",
    "grew_check",
]
