"""Losses, and the objective that adds them up."""

from reidkit.losses.center import CenterLoss
from reidkit.losses.components import catalogue
from reidkit.losses.cross_entropy import CrossEntropyLoss
from reidkit.losses.memory import Memory
from reidkit.losses.metric_learning import MetricLearning
from reidkit.losses.objective import Objective, Term, build_objective, objective_faults, source_of
from reidkit.losses.pairs import PairLoss
from reidkit.losses.part_triplet import PartTripletLoss
from reidkit.losses.ranked_list import RankedListLoss
from reidkit.losses.registries import LOSSES
from reidkit.losses.triplet import TripletLoss

__all__ = [
    "LOSSES",
    "CenterLoss",
    "CrossEntropyLoss",
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
    "objective_faults",
    "source_of",
]
