"""A task small enough to train in milliseconds: points that belong to four classes."""

import torch
import torch.nn.functional as F
from torch import nn

from reidkit.engine import Task, TrainState, WeightAverage, parameter_groups
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

    def __init__(self, batches=7, size=12, poison=None):
        self.batches, self.size, self.poison = batches, size, poison
        self.epoch = self.start = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def skip(self, batches):
        self.start = batches

    def __len__(self):
        return self.batches

    def __iter__(self):
        generator = torch.Generator().manual_seed(100 + self.epoch)
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
