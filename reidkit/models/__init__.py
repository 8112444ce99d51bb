"""Models: backbones, pooling over space and time, necks, and what is saved of them."""

from reidkit.models.backbones import BNInception, OSNet, ResNet, TimmBackbone
from reidkit.models.base import EmbeddingModel
from reidkit.models.build import COMPONENTS, MODEL_FACTS, build_model, model_faults
from reidkit.models.gait_resnet import GaitResNet
from reidkit.models.gaitset import GaitSet
from reidkit.models.levels import LevelHead, MultiLevelModel
from reidkit.models.mixing import NonLocal, TemporalConv
from reidkit.models.necks import BNNeck, IdentityNeck, LinearReduction
from reidkit.models.pooling import AveragePool, GeMPool, MaxPool, PartPool
from reidkit.models.pretrained import WeightsUnavailable
from reidkit.models.projection import Projected, Projection, fit_projection, projection_faults
from reidkit.models.registries import (
    BACKBONES,
    MIXING,
    MODELS,
    NECKS,
    REDUCTIONS,
    REGISTRIES,
    SPATIAL,
    TEMPORAL,
)
from reidkit.models.reid import ReIDModel
from reidkit.models.sync_norm import synchronise_norms
from reidkit.models.temporal import SetPooling
from reidkit.models.weights import ModelCard, WeightsMismatch, load_model, read_card, save_model

__all__ = [
    "EmbeddingModel",
    "ReIDModel",
    "MultiLevelModel",
    "LevelHead",
    "GaitSet",
    "GaitResNet",
    "ResNet",
    "OSNet",
    "BNInception",
    "TimmBackbone",
    "NonLocal",
    "TemporalConv",
    "AveragePool",
    "MaxPool",
    "GeMPool",
    "PartPool",
    "SetPooling",
    "LinearReduction",
    "BNNeck",
    "IdentityNeck",
    "synchronise_norms",
    "build_model",
    "COMPONENTS",
    "MODEL_FACTS",
    "model_faults",
    "Projected",
    "Projection",
    "fit_projection",
    "projection_faults",
    "save_model",
    "load_model",
    "read_card",
    "ModelCard",
    "WeightsUnavailable",
    "WeightsMismatch",
    "BACKBONES",
    "MIXING",
    "SPATIAL",
    "TEMPORAL",
    "REDUCTIONS",
    "NECKS",
    "MODELS",
    "REGISTRIES",
]
