"""A training without labels: what each round trains on, how good that is, and what a resumed run
needs of it."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit import data, engine, evaluation, losses, unsupervised
from reidkit.compose.building import build_objective, build_train_loader
from reidkit.compose.ranks import main_alone
from reidkit.config import ConfigError, RunConfig
from reidkit.distributed import world_size
from reidkit.engine import Console, TrainState
from reidkit.files import write_atomically
from reidkit.models import EmbeddingModel
from reidkit.types import Features, Sample
from reidkit.unsupervised import Labels, NothingToLearn, Round, label_shuffled, self_training

Train = Callable[[data.StagedLoader, int], None]
BEST = "best_round"  # what a method that compares its rounds says of the one to keep, from 1


def sparse(samples: tuple[Sample, ...], gap: float | None) -> tuple[Sample, ...]:
    """The tracklets of each camera that begin more than `gap` after the one before; all for None.

    Raises ConfigError where their times are not known.
    """
    if gap is None:
        return samples
    try:
        return tuple(samples[place] for place in unsupervised.sparse_tracklets(samples, gap))
    except ValueError as error:
        raise ConfigError("method.gap", [str(error)]) from error


class Rounds:
    """The rounds of a run; `current` is the one under way, None before the first.

    Args:
        out: where the weights after the best round wait, of a method that says which that is.
        features: of a model and samples, on all ranks together.
    """

    def __init__(
        self,
        config: RunConfig,
        state: TrainState,
        samples: Sequence[Sample],
        out: Path,
        features: Callable[[nn.Module, Sequence[Sample]], Features],
        log: engine.RunLog,
        console: Console,
    ) -> None:
        assert config.method is not None
        self.config = config
        self.state = state
        self.samples = samples
        self.best = out / f"{BEST}.safetensors"
        self.features = features
        self.log = log
        self.console = console
        self.method = unsupervised.METHODS.build(config.method.name, config.method.args)
        self.wanted = config.method
        batch = config.data.batch
        self.identities = batch.identities * (world_size() if batch.per_process else 1)
        size = self.identities * batch.instances
        self.batches = config.method.batches or max(1, round(len(samples) / size))
        self.current: Round | None = None
        self.loader: data.StagedLoader | None = None
        self.descriptions: dict[str, Features] = {}
        self.kept_earlier = False  # the model is that of an earlier round than the last

    @property
    def count(self) -> int:
        """How many rounds there are at most."""
        left = self.config.optim.epochs - self.wanted.end_of(0)
        return 1 + max(-(-left // self.wanted.epochs), 0)

    def train(self, train: Train) -> None:
        """Train round after round, from the one under way; `train(loader, until)` as far as an
        epoch."""

        def one(wanted: Round) -> None:
            assert self.loader is not None
            end = self.wanted.end_of(wanted.number)
            train(self.loader, min(end, self.config.optim.epochs))
            if wanted.labels.told.get(BEST) == wanted.number + 1:
                weights = self.state.best_model.state_dict()
                content = safetensors.torch.save(
                    {name: value.cpu().contiguous() for name, value in weights.items()}
                )
                main_alone(lambda: write_atomically(self.best, content))

        try:
            self_training(self.find, one, rounds=self.count, under_way=self.current)
        except NothingToLearn as error:
            if self.current is None:
                raise
            self.console.say(f"{error}; the rounds end here, with the model they have trained")

    def done_after(self, epoch: int) -> int:
        """How many rounds are done with this epoch; 0 where it is in the middle of one."""
        rounds, rest = divmod(epoch - self.wanted.end_of(0), self.wanted.epochs)
        return 0 if rest or rounds < 0 else rounds + 1

    def keep_best(self) -> None:
        """Give the model the weights it had after the best round, where that was not the last."""
        if self.current is None or BEST not in self.current.labels.told:
            return
        best = int(self.current.labels.told[BEST])
        if best > self.current.number:
            return
        if not self.best.is_file():
            self.console.say(f"{self.best} is gone, so the model is that of the last round")
            return
        self.console.say(f"the model is that of round {best}, whose labels were the best")
        self.state.best_model.load_state_dict(safetensors.torch.load_file(self.best))
        self.kept_earlier = True

    def find(self, number: int, previous: Labels | None) -> Labels:
        """The labels of a round, told and made ready for training."""
        features = self.features(self.state.best_model, self.samples)
        try:
            labels = main_alone(lambda: self._label(features, number, previous))
        except NothingToLearn as error:
            raise NothingToLearn(f"round {number + 1}: {error}") from error
        quality = judge(labels, features)
        self.tell(number, labels, quality)
        if not labels.done:
            self.prepare(Round(number, labels), features)
        return labels

    def _label(self, features: Features, number: int, previous: Labels | None) -> Labels:
        wanted = self.wanted
        if number == 0 and wanted.start:
            views = [self._described(name) for name in wanted.start]
        else:
            views = [features, *(self._described(name) for name in wanted.beside)]
        if wanted.centre:
            views = [unsupervised.centred_by_camera(view) for view in views]
        view = views[0] if len(views) == 1 else unsupervised.side_by_side(views)
        return label_shuffled(self.method, view, number, previous, seed=self.config.seed)

    def _described(self, name: str) -> Features:
        if name not in self.descriptions:
            self.console.say(f"describing {len(self.samples)} samples: {name}")
            described = data.describe_tracklets(name, self.samples)
            self.descriptions[name] = unsupervised.compressed(described)
        return self.descriptions[name]

    def tell(self, number: int, labels: Labels, quality: Mapping[str, float]) -> None:
        """Log what a round found, and say it."""
        self.log.write(
            {
                "kind": "labels",
                "epoch": self.state.epoch,
                "iteration": self.state.iteration,
                "round": number,
                "method": dict(labels.told),
                "quality": dict(quality),
            }
        )
        words = [f"{name} {_cell(value)}" for name, value in {**labels.told, **quality}.items()]
        ends = "; there is no more to find, so the rounds end here" if labels.done else ""
        self.console.say(f"round {number + 1} of {self.count}: {', '.join(words)}{ends}")

    def prepare(self, wanted: Round, features: Features | None = None) -> None:
        """Loader and objective for the labels of a round, whose memories begin with the classes'
        mean features; empty without features, for a state that is about to be loaded.

        Raises NothingToLearn where they are too few for a batch.
        """
        labels = wanted.labels
        needed = self.identities
        if labels.classes < needed:
            raise NothingToLearn(
                f"round {wanted.number + 1}: {labels.classes} classes, but a batch takes "
                f"{needed} identities: lower data.batch.identities, or let the method find more"
            )
        model = self.state.model
        assert isinstance(model, EmbeddingModel)
        loader = build_train_loader(
            self.config, self.samples, labels.labels.tolist(), self.state.device, self.batches
        )
        objective = build_objective(
            self.config, model, labels.classes, self.state.device, labels.groups
        )
        if features is not None:
            self._fill(objective, labels, features)
        # All at once: a state that is saved after a failure here is that of the round before.
        self.loader, self.state.task.objective, self.current = loader, objective, wanted
        self.state.task.train()

    def _fill(self, objective: losses.Objective, labels: Labels, features: Features) -> None:
        """Let each memory of classes begin with the classes' mean features."""
        parts = F.normalize(features.vectors.unflatten(1, (features.parts, -1)).float(), dim=2)
        means = class_means(parts, labels.labels)
        for memory in objective.memories():
            memory.fill(means.to(self.state.device))

    def state_dict(self) -> dict[str, Any] | None:
        """The round under way, in tensors and plain values; None before the first."""
        if self.current is None:
            return None
        number, labels = self.current
        return {
            "method": self.wanted.name,
            "number": number,
            "labels": labels.labels,
            "groups": labels.groups,
            "matches": labels.matches,
            "told": dict(labels.told),
        }

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on in the round that `state_dict` was taken in; a ValueError where it had other
        samples."""
        if state is None:
            return
        if state["method"] != self.wanted.name:
            raise ValueError(
                f"the checkpoint has labels by {state['method']}, this run finds them by "
                f"{self.wanted.name}; train into a new folder"
            )
        if len(state["labels"]) != len(self.samples):
            raise ValueError(
                f"the checkpoint has labels of {len(state['labels'])} samples, this run has "
                f"{len(self.samples)}: the data changed; train into a new folder"
            )
        fields = {key: state[key] for key in ("labels", "groups", "matches", "told")}
        self.prepare(Round(state["number"], Labels(**fields)))

    def table(self) -> str:
        """Round after round: what the method said, how good the labels were, and rank-1 (or the
        first score there is) after it, where `evaluate.every` took it."""
        rounds: dict[int, dict[str, Any]] = {}
        after: dict[int, float] = {}
        kept = "raw" if self.config.optim.ema is None else "ema"
        key = ""
        for line in self.log.path.read_text().splitlines():
            record = json.loads(line)
            if record["kind"] == "labels":
                rounds[record["round"]] = {**record["method"], **record["quality"]}
            elif record["kind"] == "evaluation" and record["weights"] == kept:
                found = record["scores"]
                key = next((name for name in found if name.endswith("rank-1")), next(iter(found)))
                after.setdefault(record["epoch"], found[key])  # of the first test
        last = self.config.optim.epochs
        ends = {number: min(self.wanted.end_of(number), last) for number in rounds}
        return rounds_table(rounds, {number: after.get(end) for number, end in ends.items()}, key)


def class_means(vectors: Tensor, labels: Tensor) -> Tensor:
    """The mean vector of each class. vectors (N, P, D), labels (N,), -1 for none -> (K, P, D)."""
    known = labels >= 0
    chosen = labels[known].to(vectors.device)
    sums = vectors.new_zeros(int(labels.max()) + 1, *vectors.shape[1:])
    sums.index_add_(0, chosen, vectors[known.to(vectors.device)])
    return sums / chosen.bincount()[:, None, None]


def judge(labels: Labels, features: Features) -> dict[str, float]:
    """How good labels are, in fractions: by themselves, and by the identities where the samples
    have them, which training never sees."""
    quality = {}
    if "silhouette" not in labels.told:
        found = evaluation.silhouettes(features.vectors, labels.labels)
        quality["silhouette"] = float(found.mean())
    pids = features.pids
    if not bool((pids >= 0).any()):
        return quality
    pairs = evaluation.pairwise(labels.labels, pids)
    quality |= {name: float(getattr(pairs, name)) for name in ("precision", "recall", "f1")}
    if len(labels.matches):
        matched = evaluation.pairs_quality(labels.matches, pids, features.camids)
        quality |= {"match_precision": matched.precision, "match_recall": matched.recall}
    return quality


def rounds_table(
    rounds: Mapping[int, Mapping[str, float]], scores: Mapping[int, float | None], score: str
) -> str:
    """A line each round: fractions and counts as they are, a dash where nothing is known; the
    `score` after each round in percent."""
    names = list(dict.fromkeys(name for row in rounds.values() for name in row))
    head = ["round", *names, f"{score} after"]
    lines = [head]
    for number, row in sorted(rounds.items()):
        cells = [_cell(row.get(name)) for name in names]
        after = scores[number]
        lines.append([str(number + 1), *cells, "-" if after is None else f"{100 * after:.2f}%"])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )


def _cell(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:g}" if float(value).is_integer() else f"{value:.3f}"
