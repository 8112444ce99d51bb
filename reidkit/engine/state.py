"""Everything that changes while training, in one object; a checkpoint is this object."""

import contextlib
import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from reidkit.engine.ema import WeightAverage
from reidkit.engine.optim import rates, set_rates
from reidkit.engine.task import Task

Precision = Literal["fp32", "bf16", "fp16"]


class TrainState:
    """Task, optimisers, average and counters; knows alone of mixed precision, accumulation and
    clipping.

    Args:
        optimizers: by name. "main" follows the schedule, the others (centres, critics) keep their
            own rate.
        precision: "bf16" on CUDA and CPU, "fp16" with a gradient scaler on CUDA only.
        accumulate: batches whose gradients are averaged before one optimiser step; an epoch's last
            group may be smaller.
        clip: largest norm of the main optimiser's gradient, None for no limit.
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
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        if precision == "fp16" and self.device.type != "cuda":
            raise ValueError(
                f"precision fp16 needs CUDA, the device is {self.device}; use bf16 or fp32"
            )
        self.task = task
        self.optimizers = dict(optimizers)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        self.ema = ema
        self.precision = precision
        self.accumulate = accumulate
        self.clip = clip
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.epoch = 0
        self.batch = 0  # batches done inside the epoch
        self.epochs = 1
        self.batches = 1  # batches in an epoch
        self.stop = False  # asked to stop after this step
        self.consistent = True  # False between the start of a step and its end
        self._stepped = False

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
        iteration."""
        for name, value in terms.items():
            number = float(value.detach())
            if not math.isfinite(number):
                raise FloatingPointError(
                    f"loss term {name!r} is {number} at epoch {self.epoch + 1}, iteration "
                    f"{self.iteration + 1}: "
                    "lower optim.lr, set optim.clip, or lengthen the warm-up"
                )

    def descend(self, loss: Tensor, *names: str) -> None:
        """Backward, and at the end of an accumulation group one step of the named optimisers (all
        by default)."""
        start = self.batch - self.batch % self.accumulate
        group = min(self.accumulate, self.batches - start)
        self.scaler.scale(loss / group).backward()
        if self.batch + 1 < start + group:
            return
        chosen = [self.optimizers[name] for name in names or self.optimizers]
        scale = self.scaler.get_scale()
        for optimizer in chosen:
            self.scaler.unscale_(optimizer)
        if self.clip is not None:
            main = self.optimizers["main"]
            nn.utils.clip_grad_norm_([p for g in main.param_groups for p in g["params"]], self.clip)
        for optimizer in chosen:
            self.scaler.step(optimizer)
        self.scaler.update()
        for optimizer in chosen:
            optimizer.zero_grad(set_to_none=True)
        # A scale that shrank tells that the scaler skipped the step: no new weights, nothing to
        # average.
        self._stepped = self.scaler.get_scale() >= scale

    def advance(self) -> None:
        """Close a step: average the weights if they moved, count the batch."""
        if self._stepped and self.ema is not None:
            self.ema.update(self.task.model)
        self._stepped = False
        self.batch += 1

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, so that torch.load(weights_only=True) reads it."""
        cuda = self.device.type == "cuda"
        return {
            "task": self.task.state_dict(),
            "optimizers": {
                name: optimizer.state_dict() for name, optimizer in self.optimizers.items()
            },
            # The whole average, with its count: from the weights alone the next update would start
            # it anew.
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "batches": self.batches,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if cuda else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken; a state of another model is a ValueError."""
        if set(state["optimizers"]) != set(self.optimizers):
            raise ValueError(
                f"the checkpoint has optimisers {sorted(state['optimizers'])}, this run has "
                f"{sorted(self.optimizers)}: it was made with other losses; train into a new folder"
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
            optimizer.load_state_dict(state["optimizers"][name])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.batch, self.batches = state["epoch"], state["batch"], state["batches"]
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)


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
