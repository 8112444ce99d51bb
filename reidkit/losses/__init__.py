"""Losses, and the objective that adds them up."""

from reidkit.losses.center import CenterLoss
from reidkit.losses.cluster_memory import ClusterMemory
from reidkit.losses.components import catalogue
from reidkit.losses.cross_entropy import CrossEntropyLoss
from reidkit.losses.known_rivals import KnownRivals
from reidkit.losses.memory import Memory
from reidkit.losses.metric_learning import MetricLearning
from reidkit.losses.objective import (
    Objective,
    Term,
    build_objective,
    learns_classes,
    objective_faults,
    source_of,
)
from reidkit.losses.pairs import PairLoss
from reidkit.losses.part_triplet import PartTripletLoss
from reidkit.losses.ranked_list import RankedListLoss
from reidkit.losses.registries import LOSSES
from reidkit.losses.triplet import TripletLoss

__all__ = [
    "LOSSES",
    "CenterLoss",
    "ClusterMemory",
    "CrossEntropyLoss",
    "KnownRivals",
    "Memory",
    "MetricLearning",
    "Objective",
    "PairLoss",
    "PartTripletLoss",
    "RankedListLoss",
    "Term",
    "TripletLoss",
    "build_objective",
    "catalogue",
    "learns_classes",
    "objective_faults",
    "source_of",
]
