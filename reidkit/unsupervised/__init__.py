"""Without labels: who is who among tracklets, and training on what was found."""

from reidkit.unsupervised.constraints import CannotLink
from reidkit.unsupervised.methods import METHODS, Labels, Method, NothingToLearn

__all__ = [
    "CannotLink",
    "METHODS",
    "Method",
    "Labels",
    "NothingToLearn",
]
