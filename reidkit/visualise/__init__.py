"""Pictures: ranked strips, the curves of a training and of a sweep, identities and their tree."""

from reidkit.visualise.contact_sheet import contact_sheet
from reidkit.visualise.curves import curves
from reidkit.visualise.dendrogram import dendrogram
from reidkit.visualise.reliability import reliability
from reidkit.visualise.strips import RankedRow, ranked_strips
from reidkit.visualise.sweep import sweep_chart

__all__ = [
    "RankedRow",
    "ranked_strips",
    "curves",
    "reliability",
    "sweep_chart",
    "dendrogram",
    "contact_sheet",
]
