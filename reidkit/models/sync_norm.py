"""Batch norms whose statistics come from the rows of all processes."""

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from reidkit.distributed import total_with_grad, world_size
from reidkit.models.registries import refuse


def synchronise_norms(module: nn.Module) -> nn.Module:
    """The module, whose batch norms from now on use mean and variance over all processes.

    Changed in place; weights, buffers and the names in the state dict stay as they are. On CUDA
    these are torch's SyncBatchNorm. Torch's refuses CPUs; there the sums are exact whatever each
    rank's number of rows, and alone a norm is what it was. Evaluation never synchronises. In
    training every rank must run every norm, and go backward through it, equally often. Raises
    ValueError for a kind of batch norm that is not known here.
    """
    kinds = _kinds()
    norms = {
        name: norm
        for name, norm in module.named_modules()
        if isinstance(norm, _BatchNorm) and not isinstance(norm, nn.SyncBatchNorm | Synchronised)
    }
    refuse(
        f"batch norm {name or 'itself'} is a {type(norm).__name__}, which cannot be synchronised; "
        f"known are {', '.join(kind.__name__ for kind in kinds)}"
        for name, norm in norms.items()
        if type(norm) not in kinds
    )
    if any(parameter.is_cuda for parameter in module.parameters()):
        convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
        if "timm.layers" in sys.modules:
            # This one knows of timm's norms with an activation, which torch's would drop.
            from timm.layers import convert_sync_batchnorm as convert
        converted: nn.Module = convert(module)
        return converted
    for norm in norms.values():
        # It stays the same object, so that parameters, buffers, hooks, mode and whoever holds it
        # need no copying.
        norm.__class__ = kinds[type(norm)]
    return module


class Synchronised(_BatchNorm):
    """What the classes below share; stands before the plain batch norm that it is."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape and memory format."""
        if not self.training or world_size() == 1:
            plain: Tensor = super().forward(x)
            return plain
        self._check_input_dim(x)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        centred, variance = self._centred(wide)
        scale = (variance + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        y = centred * _beside(scale, x)
        if self.bias is not None:
            y = y + _beside(self.bias, x)
        return y.to(x.dtype)

    def _centred(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x minus the mean of all ranks' rows, and their variance (C,), taken around that mean:
        squares of x itself would lose the digits of a small variance."""
        over = [0, *range(2, x.ndim)]
        # Sums travel in float64, where counts are exact and ranks add up without a loss.
        count = x.new_tensor([x.numel() // x.shape[1]], dtype=torch.float64)
        totals = total_with_grad(torch.cat([x.sum(over).double(), count]))
        sums, rows = totals[:-1], float(totals[-1].detach())
        if rows <= 1:
            raise ValueError(
                f"a batch norm in training needs more than 1 value per channel over all ranks, "
                f"got {rows:.0f} from input of shape {tuple(x.shape)}"
            )
        mean = (sums / rows).to(x.dtype)
        centred = x - _beside(mean, x)
        variance = total_with_grad(centred.square().sum(over).double()) / rows
        self._remember(mean.detach(), variance.detach() * rows / (rows - 1))
        return centred, variance.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        part = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), part)
        self.running_var.lerp_(variance.to(self.running_var.dtype), part)


class SynchronisedNorm1d(Synchronised, nn.BatchNorm1d):
    """nn.BatchNorm1d over the rows of all processes."""


class SynchronisedNorm2d(Synchronised, nn.BatchNorm2d):
    """nn.BatchNorm2d over the rows of all processes."""


class SynchronisedNorm3d(Synchronised, nn.BatchNorm3d):
    """nn.BatchNorm3d over the rows of all processes."""


def _kinds() -> dict[type[Any], type[Synchronised]]:
    known: dict[type[Any], type[Synchronised]] = {
        nn.BatchNorm1d: SynchronisedNorm1d,
        nn.BatchNorm2d: SynchronisedNorm2d,
        nn.BatchNorm3d: SynchronisedNorm3d,
    }
    if "timm.layers" in sys.modules:  # else none of its norms can be here, and timm loads slowly
        from reidkit.models.sync_norm_timm import BatchNormAct2d, SynchronisedNormAct2d

        known[BatchNormAct2d] = SynchronisedNormAct2d
    return known


def _beside(values: Tensor, x: Tensor) -> Tensor:
    """(C,) in the shape that goes with x (B, C, ...)."""
    return values.view(1, -1, *[1] * (x.ndim - 2))
