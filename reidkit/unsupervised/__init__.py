"""Without labels: who is who among tracklets, and training on what was found."""

from reidkit.unsupervised.centring import centred_by_camera
from reidkit.unsupervised.constraints import CannotLink
from reidkit.unsupervised.matching import TrackletMatch, match_tracklets
from reidkit.unsupervised.methods import METHODS, Labels, Method, NothingToLearn
from reidkit.unsupervised.self_training import Round, self_training
from reidkit.unsupervised.smp import StepwiseMetricPromotion
from reidkit.unsupervised.tracklets import cannot_link, sparse_tracklets

__all__ = [
    "METHODS",
    "Method",
    "Labels",
    "NothingToLearn",
    "Round",
    "self_training",
    "centred_by_camera",
    "StepwiseMetricPromotion",
    "match_tracklets",
    "TrackletMatch",
    "CannotLink",
    "cannot_link",
    "sparse_tracklets",
]
