"""timm's batch norm with an activation, over all processes; apart, because timm loads slowly."""

from timm.layers import BatchNormAct2d
from torch import Tensor

from reidkit.distributed import world_size
from reidkit.models.sync_norm import Synchronised

__all__ = ["BatchNormAct2d", "SynchronisedNormAct2d"]


class SynchronisedNormAct2d(Synchronised, BatchNormAct2d):
    """timm's BatchNormAct2d over the rows of all processes."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        y = super().forward(x)
        if not self.training or world_size() == 1:
            return y  # by timm's own forward, activation and all
        activated: Tensor = self.act(self.drop(y))
        return activated
