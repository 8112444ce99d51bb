"""Queries and galleries moved towards their nearest neighbours: AQE, alpha QE and DBA."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from reidkit.evaluation.reranking.k_reciprocal import checked_sides
from reidkit.evaluation.space import survey
from reidkit.neighbours import knn
from reidkit.types import Features


@torch.no_grad()
def expand_query(query: Features, gallery: Features, *, k: int = 5, alpha: float = 0.0) -> Features:
    """Each query as the weighted sum of itself (weight 1) and its k nearest gallery items.

    Vectors are normalised before and after; a neighbour weighs max(cosine, 0)**alpha. alpha = 0
    is average query expansion, all weights 1 (Chum et al., Total Recall, ICCV 2007, without its
    spatial verification); alpha of about 3 is that of Radenovic et al., Fine-tuning CNN Image
    Retrieval with No Human Annotation, TPAMI 2019, arXiv:1711.02512. Neighbours are the nearest by
    cosine; of several at one distance any may be taken.

    Returns features of the query's samples with unit vectors (Q, D), of its type and on its device.

    Raises:
        ValueError: k outside 1..G, a negative alpha, an empty side, different dimensions, a feature
            that is not floating or not finite (with its sample's name).
    """
    _check(query, gallery, k, alpha, most=len(gallery))
    distances, positions = knn(query.vectors, gallery.vectors, k)
    return _moved(query, gallery, distances, positions, alpha)


@torch.no_grad()
def augment_database(gallery: Features, *, k: int = 5, alpha: float = 0.0) -> Features:
    """Each gallery item as the weighted sum of itself (weight 1) and its k nearest others.

    Database-side augmentation: Arandjelovic and Zisserman, Three things everyone should know to
    improve object retrieval, CVPR 2012. Weights, result and errors as in `expand_query`, but k is
    at most G - 1. All sums are of the vectors as they were given.
    """
    _check(gallery, gallery, k, alpha, most=len(gallery) - 1)
    distances, positions = knn(gallery.vectors, gallery.vectors, k + 1)
    itself = positions == torch.arange(len(gallery), device=positions.device)[:, None]
    # More than k copies of an item may push it out of its own list: then the last one leaves.
    itself[:, -1] |= ~itself.any(1)
    distances, positions = distances[~itself].view(-1, k), positions[~itself].view(-1, k)
    return _moved(gallery, gallery, distances, positions, alpha)


def _moved(
    features: Features, gallery: Features, distances: Tensor, positions: Tensor, alpha: float
) -> Features:
    units = F.normalize(gallery.vectors.detach().to(features.vectors.device).float(), dim=1)
    sums = F.normalize(features.vectors.detach().float(), dim=1)  # (N, D), the item itself
    weights = (1 - distances).clamp_min(0) ** alpha  # (N, K); 0 ** 0 is 1
    for weight, position in zip(weights.t(), positions.t(), strict=True):
        sums += weight[:, None] * units[position]
    return replace(features, vectors=F.normalize(sums, dim=1).to(features.vectors.dtype))


def _check(features: Features, gallery: Features, k: int, alpha: float, most: int) -> None:
    query_side, gallery_side = checked_sides(features, gallery, "cosine")
    survey("query", query_side)
    survey("gallery", gallery_side)
    if not 1 <= k <= most:
        raise ValueError(
            f"k = {k}: expected at least 1 and at most {most} neighbours in this gallery"
        )
    if not 0 <= alpha < float("inf"):
        raise ValueError(f"alpha = {alpha}: expected 0 (all neighbours alike) or more, such as 3")
