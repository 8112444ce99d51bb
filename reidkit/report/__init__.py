"""One HTML page that explains an evaluation: complete in itself, no request leaves it."""

from reidkit.report.page import render, write_report
from reidkit.report.records import (
    CameraPair,
    Change,
    Comparison,
    Curve,
    Difference,
    Doubted,
    Doubts,
    Match,
    Movement,
    RankedList,
    Report,
    ScoreLine,
)

__all__ = [
    "write_report",
    "render",
    "Report",
    "ScoreLine",
    "Curve",
    "Match",
    "RankedList",
    "CameraPair",
    "Doubted",
    "Doubts",
    "Difference",
    "Movement",
    "Change",
    "Comparison",
]
