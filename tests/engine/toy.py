"""A task small enough to train in milliseconds: points that belong to four classes."""

import torch
import torch.nn.functional as F
from torch import nn

from reidkit.engine import Task, TrainState, WeightAverage, parameter_groups
from reidkit.losses import build_objective
from reidkit.models import AveragePool, BNNeck, ReIDModel, SetPooling
from reidkit.models.sync_norm import synchronise_norms
from reidkit.types import Batch, ModelOutput


class ToyModel(nn.Module):
    def __init__(self, dim=8, classes=4, dropout=0.3):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Linear(6, dim), nn.BatchNorm1d(dim), nn.ReLU(), nn.Dropout(dropout)
        )
        self.classifier = nn.Linear(dim, classes)

    def forward(self, frames, mask):
        embedding = self.backbone(frames.flatten(1))
        logits = self.classifier(embedding)
        return ModelOutput(embedding[:, None], embedding[:, None], logits[:, None])


class ToyObjective(nn.Module):
    def forward(self, output, labels):
        loss = F.cross_entropy(output.logits[:, 0], labels)
        return {"cross_entropy": loss, "loss": loss}


class ToyLoader:
    """Batches drawn from (seed, epoch), as the real loader does; `poison` makes one of them NaN."""

    def __init__(self, batches=7, size=12, poison=None, seed=0):
        self.batches, self.size, self.poison, self.seed = batches, size, poison, seed
        self.epoch = self.start = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def skip(self, batches):
        self.start = batches

    def __len__(self):
        return self.batches

    def __iter__(self):
        generator = torch.Generator().manual_seed(100 + self.epoch + 1000 * self.seed)
        for number in range(self.batches):
            labels = torch.randint(4, (self.size,), generator=generator)
            frames = torch.randn(self.size, 1, 3, 2, 1, generator=generator) * 0.3
            frames = frames + labels[:, None, None, None, None]
            if self.poison == (self.epoch, number):
                frames = frames * float("nan")
            if number >= self.start:
                index = torch.arange(self.size)
                yield Batch(frames, torch.ones(self.size, 1).bool(), labels, labels, labels, index)


def toy_state(ema=0.9, seed=0, dim=8, **settings):
    torch.manual_seed(seed)
    model = ToyModel(dim)
    groups = parameter_groups(model, lr=0.05, weight_decay=1e-3)
    optimizer = torch.optim.AdamW(groups)
    average = WeightAverage(model, ema) if ema is not None else None
    return TrainState(Task(model, ToyObjective()), {"main": optimizer}, ema=average, **settings)


class TinyBackbone(nn.Module):
    """Two convolutions; "frozen" batch norms use running statistics that are not those at birth."""

    out_channels = 8

    def __init__(self, norm="batch", dropout=0.0):
        super().__init__()
        kinds = {
            "batch": nn.BatchNorm2d,
            "frozen": FrozenNorm,
            "group": lambda channels: nn.GroupNorm(2, channels),
        }
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.first_norm = kinds[norm](6)
        self.second = nn.Conv2d(6, 8, 3, padding=1)
        self.second_norm = kinds[norm](8)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(self.dropout(x))))


class FrozenNorm(nn.BatchNorm2d):
    """Its statistics are given, scale and shift are learnt."""

    def __init__(self, channels):
        super().__init__(channels)
        self.running_mean.normal_(std=0.1)
        self.running_var.uniform_(0.5, 1.5)

    def train(self, mode=True):
        return super().train(False)


class LayerNeck(nn.Module):
    """A neck whose norm knows one sample at a time."""

    parts = 1

    def __init__(self, in_dim, num_classes):
        super().__init__()
        self.in_dim = in_dim
        self.norm = nn.LayerNorm(in_dim)
        self.classifier = nn.Linear(in_dim, num_classes, bias=False)

    def forward(self, embedding):
        feature = self.norm(embedding)
        return feature, self.classifier(feature)


CLASSES = 12


def reid_state(
    losses,
    *,
    norm="batch",
    neck=None,
    dropout=0.0,
    dtype=torch.float64,
    optimizer=torch.optim.SGD,
    synchronise=False,
    lr=0.05,
    **settings,
):
    """A ReIDModel of the tiny backbone with BNNeck and the objective of `losses`, from one seed."""
    torch.manual_seed(0)
    if neck is None:
        neck = BNNeck(8, num_classes=CLASSES) if norm == "batch" else LayerNeck(8, CLASSES)
    model = ReIDModel(TinyBackbone(norm, dropout), AveragePool(), SetPooling("mean"), neck)
    if synchronise:
        model = synchronise_norms(model)
    objective = build_objective(losses, num_classes=CLASSES, embedding_size=8)
    task = Task(model, objective).to(dtype)
    groups = parameter_groups(model, objective.main_parameters(), lr=lr, weight_decay=1e-3)
    arguments = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    optimizers = {"main": optimizer(groups, **arguments), **objective.own_optimizers()}
    return TrainState(task, optimizers, ema=WeightAverage(model, 0.9), **settings)


class TrackletLoader(ToyLoader):
    """P x K batches of two-frame tracklets, some of them padded; of each batch a rank's rows."""

    def __init__(self, batches=10, identities=4, instances=4, dtype=torch.float64, rank=0, world=1):
        super().__init__(batches, identities * instances)
        self.identities, self.instances, self.dtype = identities, instances, dtype
        self.rows = slice(rank * self.size // world, (rank + 1) * self.size // world)

    def __iter__(self):
        generator = torch.Generator().manual_seed(100 + self.epoch)
        for number in range(self.batches):
            pids = torch.randperm(CLASSES, generator=generator)[: self.identities]
            labels = pids.repeat_interleave(self.instances)
            shades = torch.randn(CLASSES, 3, generator=torch.Generator().manual_seed(7))
            noise = torch.randn(self.size, 2, 3, 8, 4, generator=generator)
            frames = (noise + shades[labels][:, None, :, None, None]).to(self.dtype)
            mask = torch.ones(self.size, 2).bool()
            mask[::3, 1] = False
            if number >= self.start:
                batch = Batch(frames, mask, labels, labels, labels, torch.arange(self.size))
                yield Batch(*(part[self.rows] for part in batch))
        self.start = 0
