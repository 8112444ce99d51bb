"""Parameter groups and optimisers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from reidkit.registry import Registry

OPTIMIZERS: Registry[Optimizer] = Registry("optimizer")
Groups = list[dict[str, Any]]


@OPTIMIZERS.register("adam")
def adam(
    params: Groups,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    amsgrad: bool = False,
) -> Optimizer:
    """Adam with L2 added to the gradient, as most re-ID recipes mean it."""
    return torch.optim.Adam(params, lr=lr, weight_decay=weight_decay, betas=betas, amsgrad=amsgrad)


@OPTIMIZERS.register("adamw")
def adamw(
    params: Groups,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    amsgrad: bool = False,
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019)."""
    return torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay, betas=betas, amsgrad=amsgrad)


@OPTIMIZERS.register("sgd")
def sgd(
    params: Groups, lr: float, weight_decay: float, momentum: float = 0.9, nesterov: bool = True
) -> Optimizer:
    """Stochastic gradient descent with momentum."""
    return torch.optim.SGD(
        params,
        lr=lr,
        weight_decay=weight_decay,
        momentum=momentum,
        nesterov=nesterov and momentum > 0,
    )


def parameter_groups(
    model: nn.Module,
    extra: Mapping[float, Sequence[nn.Parameter]] | None = None,
    *,
    lr: float,
    weight_decay: float,
    backbone_rate: float = 1.0,
    decay_all: bool = False,
) -> Groups:
    """Groups for an optimiser: backbone and the rest, each with and without weight decay.

    Vectors (norm scales, biases) are not decayed unless `decay_all`. `extra` are parameters of
    losses, such as class proxies, by the factor on their rate. Each group keeps its own base rate
    in `initial_lr`, which schedules multiply.
    """
    backbone = getattr(model, "backbone", None)
    slow = (
        {id(parameter) for parameter in backbone.parameters()}
        if isinstance(backbone, nn.Module)
        else set()
    )
    wanted = [(p, lr * backbone_rate if id(p) in slow else lr) for p in model.parameters()]
    for factor, parameters in (extra or {}).items():
        wanted += [(parameter, lr * factor) for parameter in parameters]
    buckets: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter, rate in wanted:
        if not parameter.requires_grad:
            continue
        decay = weight_decay if decay_all or parameter.ndim > 1 else 0.0
        buckets.setdefault((rate, decay), []).append(parameter)
    if not buckets:
        raise ValueError(
            "nothing to train: no parameter of the model or the losses requires a gradient"
        )
    return [
        {"params": parameters, "lr": rate, "initial_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in buckets.items()
    ]


def set_rates(optimizer: Optimizer, factor: float) -> None:
    """Set every group's rate to its base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def rates(optimizer: Optimizer) -> Sequence[float]:
    """The present rate of each group."""
    return [float(group["lr"]) for group in optimizer.param_groups]
