"""Everything that changes while training, in one object; a checkpoint is this object."""

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from reidkit import distributed
from reidkit.engine.draws import random_state, set_own_state
from reidkit.engine.ema import WeightAverage
from reidkit.engine.micro import MicroBatches
from reidkit.engine.optim import rates, set_rates
from reidkit.engine.parallel import Parallel
from reidkit.engine.task import Task
from reidkit.types import Batch

Precision = Literal["fp32", "bf16", "fp16"]


class TrainState:
    """Task, optimisers, average and counters; knows alone of mixed precision, accumulation,
    micro-batches, clipping and the other processes.

    Args:
        optimizers: by name. "main" follows the schedule, the others (centres, critics) keep their
            own rate.
        precision: "bf16" on CUDA and CPU, "fp16" with a gradient scaler on CUDA only.
        accumulate: batches whose gradients are averaged before one optimiser step; an epoch's last
            group may be smaller.
        clip: largest norm of the main optimiser's gradient, None for no limit.
        micro: largest number of samples, on each process, that go through the model at once; the
            loss sees the whole batch all the same. None for no limit.
    """

    def __init__(
        self,
        task: Task,
        optimizers: Mapping[str, Optimizer],
        *,
        ema: WeightAverage | None = None,
        precision: Precision = "fp32",
        accumulate: int = 1,
        clip: float | None = None,
        micro: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        if precision == "fp16" and self.device.type != "cuda":
            raise ValueError(
                f"precision fp16 needs CUDA, the device is {self.device}; use bf16 or fp32"
            )
        if micro is not None and micro < 1:
            raise ValueError(f"micro = {micro} samples at a time; expected at least 1, or None")
        self.task = task
        self.optimizers = dict(optimizers)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        self.ema = ema
        self.precision = precision
        self.accumulate = accumulate
        self.clip = clip
        self.micro = micro
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.epoch = 0
        self.batch = 0  # batches done inside the epoch
        self.epochs = 1
        self.batches = 1  # batches in an epoch
        self.best: dict[str, float] = {}  # the best score on the way, and its epoch
        self.stop = False  # asked to stop after this step; `fit` lets all ranks agree
        self.save = False  # asked to save after the next step; likewise
        # Called before an optimiser steps: what is in `settled` is about to change.
        self.before_update: Callable[[], None] = lambda: None
        self.consistent = True  # False between the start of a step and its end
        self._stepped = False
        self._parallel: Parallel | None = None
        self._pieces: MicroBatches | None = None  # of the batch that waits for its descent

    def distribute(self) -> None:
        """Share the work with the other processes, where there are any; once, on all ranks alike,
        and before the first step.

        Every rank takes the first one's weights. `task` stays the plain module, whose keys a
        checkpoint holds.
        """
        if distributed.world_size() > 1:
            self._parallel = Parallel(self.task, self.device)

    @property
    def model(self) -> nn.Module:
        """The model that trains."""
        return self.task.model

    @property
    def best_model(self) -> nn.Module:
        """The model to evaluate and to keep: the average where there is one."""
        return self.ema.model if self.ema is not None else self.task.model

    @property
    def iteration(self) -> int:
        """Batches done since the start of the training."""
        return self.epoch * self.batches + self.batch

    @property
    def progress(self) -> float:
        """Part of the training that is done, in [0, 1)."""
        return self.iteration / (self.epochs * self.batches)

    @property
    def rate(self) -> float:
        """The main optimiser's largest present learning rate."""
        return max(rates(self.optimizers["main"]))

    def set_rates(self, factor: float) -> None:
        """Set the main optimiser's rates to `factor` times their base."""
        set_rates(self.optimizers["main"], factor)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which the forward pass runs."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype)

    def require_finite(self, terms: Mapping[str, Tensor]) -> None:
        """Raise FloatingPointError naming the first term that is not finite, with epoch and
        iteration; on all ranks together, which have to call this at the same step."""
        numbers = {name: float(value.detach()) for name, value in terms.items()}
        bad = [name for name, number in numbers.items() if not math.isfinite(number)]
        if not distributed.any_rank([bool(bad)])[0]:
            return
        what = f"loss term {bad[0]!r} is {numbers[bad[0]]}" if bad else "a loss term is not finite"
        place = f"epoch {self.epoch + 1}, iteration {self.iteration + 1}"
        raise FloatingPointError(
            f"{what} at {place}{'' if bad else ', on another rank'}: "
            "lower optim.lr, set optim.clip, or lengthen the warm-up"
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss on this rank's rows of a batch, for `descend`."""
        self._pieces = None
        if self.micro is not None and len(batch.label) > self.micro:
            self._pieces = MicroBatches(self.task, batch, self.micro, self.autocast)
            return self._pieces.terms
        return self._pass(batch, "main", self._closes_group)

    def descend(self, loss: Tensor, *names: str) -> None:
        """Backward, and at the end of an accumulation group one step of the named optimisers (all
        by default)."""
        whole = self._pieces is None
        if self._parallel is not None:
            loss = self._parallel.complete(loss, last=whole and self._closes_group)
        self.scaler.scale(loss / self._group).backward()
        if self._pieces is not None:
            self._replay(self._pieces)
            self._pieces = None
        if not self._closes_group:
            return
        if self._parallel is not None:
            self._parallel.close()
        self._update([self.optimizers[name] for name in names or self.optimizers])

    @property
    def _group(self) -> int:
        """Batches in the present accumulation group."""
        return min(self.accumulate, self.batches - (self.batch - self.batch % self.accumulate))

    @property
    def _closes_group(self) -> bool:
        return self.batch % self.accumulate + 1 >= self._group

    def _pass(self, batch: Batch, phase: str, last: bool) -> dict[str, Tensor]:
        with self.autocast():
            if self._parallel is not None:
                return self._parallel(batch, phase, last=last)
            found: dict[str, Tensor] = self.task(batch, phase)
            return found

    def _replay(self, pieces: MicroBatches) -> None:
        """Through the model once more, driven by the loss's gradient by the outputs."""
        for number, (piece, gradients) in enumerate(pieces.replay(), 1):
            last = self._closes_group and number == len(pieces.pieces)
            outputs = self._pass(piece, "outputs", last)
            driven = [outputs[name] for name in gradients]
            if self._parallel is not None:
                driven[0] = self._parallel.complete(driven[0], last=last, read=driven)
            torch.autograd.backward(driven, list(gradients.values()))

    def _update(self, chosen: list[Optimizer]) -> None:
        scale = self.scaler.get_scale()
        for optimizer in chosen:
            self.scaler.unscale_(optimizer)
        if self.clip is not None:
            main = self.optimizers["main"]
            nn.utils.clip_grad_norm_([p for g in main.param_groups for p in g["params"]], self.clip)
        self.before_update()
        for optimizer in chosen:
            self.scaler.step(optimizer)
        self.scaler.update()
        for optimizer in chosen:
            optimizer.zero_grad(set_to_none=True)
        # A scale that shrank tells that the scaler skipped the step: no new weights, nothing to
        # average.
        self._stepped = self.scaler.get_scale() >= scale

    def advance(self) -> None:
        """Close a step: average the weights if they moved, let the losses remember the batch, count
        it."""
        if self._stepped and self.ema is not None:
            self.ema.update(self.task.model)
        self._stepped = False
        self.task.after_step()
        self.batch += 1

    def settled(self) -> list[Tensor]:
        """Tensors that change only after `before_update` was called: parameters, their average, and
        what the optimisers hold of them."""
        averages = [] if self.ema is None else list(self.ema.parameters())
        held = [
            value
            for optimizer in self.optimizers.values()
            for entry in optimizer.state.values()
            for value in entry.values()
            if isinstance(value, Tensor)
        ]
        return [*self.task.parameters(), *averages, *held]

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, so that torch.load(weights_only=True) reads it.

        The tensors are those that train, not copies. On all ranks at the same step: the first one
        gets everybody's random state, the others None.
        """
        host, cuda = random_state(self.device)
        return {
            "task": self.task.state_dict(),
            "optimizers": {
                name: optimizer.state_dict() for name, optimizer in self.optimizers.items()
            },
            "kinds": self._kinds(),
            # The whole average, with its count: from the weights alone the next update would start
            # it anew.
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "batches": self.batches,
            "best": self.best,
            "world": distributed.world_size(),
            "rng": distributed.to_main(host),
            "cuda_rng": distributed.to_main(cuda),
        }

    def _kinds(self) -> dict[str, str]:
        return {name: type(optimizer).__name__ for name, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken; a state of another model is a ValueError.

        On every rank, with what the first one saved. The number of ranks may be another one: the
        batches and the weights do not depend on it, but dropout does.
        """
        if set(state["optimizers"]) != set(self.optimizers):
            raise ValueError(
                f"the checkpoint has optimisers {sorted(state['optimizers'])}, this run has "
                f"{sorted(self.optimizers)}: it was made with other losses; train into a new folder"
            )
        if state["kinds"] != self._kinds():
            raise ValueError(
                f"the checkpoint's optimisers are {state['kinds']}, this run's {self._kinds()}, "
                "which cannot go on with what those hold; train into a new folder"
            )
        if (state["ema"] is None) != (self.ema is None):
            raise ValueError(
                "only one of checkpoint and config has optim.ema; train into a new folder"
            )
        misfit = misfits(self.task.state_dict(), state["task"])
        if misfit:
            raise ValueError(
                f"the checkpoint is of another model: {misfit}; train into a new folder"
            )
        self.task.load_state_dict(state["task"])
        for name, optimizer in self.optimizers.items():
            # Moments are the checkpoint's; rates, decay and betas this run's, which may be others.
            settings = [
                {key: value for key, value in group.items() if key != "params"}
                for group in optimizer.param_groups
            ]
            optimizer.load_state_dict(state["optimizers"][name])
            for group, own in zip(optimizer.param_groups, settings, strict=True):
                group.update(own)
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.batch, self.batches = state["epoch"], state["batch"], state["batches"]
        self.best = dict(state["best"])
        set_own_state(self.device, state["rng"], state["cuda_rng"])


def misfits(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], show: int = 3) -> str:
    """What keeps one state dict from another's module, in a few words; empty when it fits."""
    faults = [f"no {name}" for name in expected if name not in found]
    faults += [f"unknown {name}" for name in found if name not in expected]
    faults += [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if isinstance(value, Tensor) and name in found and found[name].shape != value.shape
    ]
    more = f" and {len(faults) - show} more" if len(faults) > show else ""
    return ", ".join(faults[:show]) + more
