"""Data: benchmarks read from disk, checked, sampled, augmented and brought to the device."""

from reidkit.data import adapters, synthetic
from reidkit.data.baselines import BASELINES, describe_tracklets
from reidkit.data.benchmarks import (
    BENCHMARKS,
    READERS,
    Finding,
    default_root,
    folder_samples,
    load_benchmark,
)
from reidkit.data.check import Report, check_benchmark
from reidkit.data.clips import is_store, show
from reidkit.data.dataset import FrameDataset, Item, labels_of
from reidkit.data.device import DeviceLoader
from reidkit.data.frames import FrameSampling
from reidkit.data.hierarchical import HierarchicalBatches
from reidkit.data.loader import WorkerKind, collate, eval_loader, train_loader
from reidkit.data.pictures.pack import pack_pictures
from reidkit.data.pictures.store import PictureStore
from reidkit.data.samplers import FixedLength, IdentityBatches, LengthBuckets, RandomBatches
from reidkit.data.silhouettes.layout import FRAMES as STORED_PIXELS
from reidkit.data.silhouettes.layout import HEADER as STORE_HEADER
from reidkit.data.silhouettes.store import SilhouetteStore, store_samples
from reidkit.data.splits import Split
from reidkit.data.staged import StagedLoader
from reidkit.data.transforms import Augment, Normalise, RandomErasing
from reidkit.data.video.reading import SUFFIXES as VIDEOS

__all__ = [
    "adapters",
    "synthetic",
    "BENCHMARKS",
    "BASELINES",
    "describe_tracklets",
    "READERS",
    "load_benchmark",
    "default_root",
    "folder_samples",
    "check_benchmark",
    "Report",
    "Finding",
    "SilhouetteStore",
    "STORED_PIXELS",
    "STORE_HEADER",
    "is_store",
    "store_samples",
    "show",
    "VIDEOS",
    "Split",
    "FrameDataset",
    "FrameSampling",
    "Item",
    "labels_of",
    "HierarchicalBatches",
    "IdentityBatches",
    "FixedLength",
    "RandomBatches",
    "LengthBuckets",
    "Augment",
    "Normalise",
    "RandomErasing",
    "PictureStore",
    "pack_pictures",
    "WorkerKind",
    "collate",
    "train_loader",
    "eval_loader",
    "DeviceLoader",
    "StagedLoader",
]
