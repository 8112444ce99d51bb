"""Without labels: who is who among tracklets, and training on what was found."""

from reidkit.unsupervised.buc import BottomUpClustering
from reidkit.unsupervised.centring import centred_by_camera, compressed, side_by_side
from reidkit.unsupervised.cluster_contrast import ClusterContrast
from reidkit.unsupervised.clustering import cluster
from reidkit.unsupervised.constraints import CannotLink
from reidkit.unsupervised.identity_tree import IdentityTree
from reidkit.unsupervised.linkage import agglomerate
from reidkit.unsupervised.matching import TrackletMatch, match_tracklets
from reidkit.unsupervised.methods import METHODS, Labels, Method, NothingToLearn
from reidkit.unsupervised.promotion import Promotion, promote
from reidkit.unsupervised.self_training import Round, label_shuffled, self_training
from reidkit.unsupervised.smp import StepwiseMetricPromotion
from reidkit.unsupervised.tracklets import cannot_link, sparse_tracklets
from reidkit.unsupervised.xqda import scatters, xqda

__all__ = [
    # rounds
    "METHODS",
    "Method",
    "Labels",
    "NothingToLearn",
    "Round",
    "self_training",
    "label_shuffled",
    "StepwiseMetricPromotion",
    "ClusterContrast",
    "BottomUpClustering",
    # who is who
    "match_tracklets",
    "TrackletMatch",
    "promote",
    "Promotion",
    "scatters",
    "xqda",
    "cluster",
    "IdentityTree",
    "agglomerate",
    # what is known of tracklets
    "CannotLink",
    "cannot_link",
    "sparse_tracklets",
    "centred_by_camera",
    "side_by_side",
    "compressed",
]
