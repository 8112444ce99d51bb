"""Spatial pooling: a feature map (N, C, h, w) -> one vector for each part (N, P, C)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.models.registries import SPATIAL, refuse


@SPATIAL.register("average")
class AveragePool(nn.Module):
    """Mean over all cells; one part."""

    parts = 1

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, 1, C)."""
        return x.mean((2, 3))[:, None]


@SPATIAL.register("max")
class MaxPool(nn.Module):
    """Maximum over all cells; one part."""

    parts = 1

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, 1, C)."""
        return x.amax((2, 3))[:, None]


@SPATIAL.register("gem")
class GeMPool(nn.Module):
    """Generalised mean (mean of x^p)^(1/p): p = 1 is the average, p -> infinity the maximum.

    Radenovic et al., Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI 2019, eq. 5.

    Args:
        p: where the exponent starts; learned unless `learn` is False.
        eps: floor of the cells, whose root must have a slope.
    """

    parts = 1

    def __init__(self, p: float = 3.0, eps: float = 1e-6, learn: bool = True) -> None:
        super().__init__()
        refuse(self.problems(p, eps))
        self.p = nn.Parameter(torch.tensor(float(p)), requires_grad=learn)
        self.eps = eps

    @staticmethod
    def problems(p: float, eps: float) -> list[str]:
        """What is wrong with values whose types are right."""
        return [f"{k} {v}: expected more than 0" for k, v in (("p", p), ("eps", eps)) if v <= 0]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, 1, C); float32 inside, for x^p overflows half precision."""
        wide = torch.promote_types(x.dtype, torch.float32)
        cells, p = x.to(wide).clamp(min=self.eps), self.p.to(wide)
        return cells.pow(p).mean((2, 3)).pow(1 / p)[:, None].to(self.p.dtype)


@SPATIAL.register("parts")
class PartPool(nn.Module):
    """Pool each of `count` horizontal stripes (PCB, Sun et al., ECCV 2018, arXiv:1711.09349).

    Heights that `count` does not divide give stripes that share a row, as adaptive pooling does.

    Args:
        count: how many stripes.
        kind: how each is pooled.
        whole: put the whole body in front, as one more part.
    """

    def __init__(
        self,
        count: int = 6,
        kind: Literal["average", "max", "average+max"] = "average",
        whole: bool = False,
    ) -> None:
        super().__init__()
        refuse(self.problems(count))
        self.count = count
        self.kind = kind
        self.whole = whole
        self.parts = count + whole

    @staticmethod
    def problems(count: int) -> list[str]:
        """What is wrong with values whose types are right."""
        return [] if count >= 1 else [f"count {count}: expected at least one part"]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, P, C)."""
        if x.shape[2] < self.count:
            raise ValueError(
                f"{self.count} parts need a feature map of as many rows, got {x.shape[2]}; "
                "use fewer parts, a taller image or last_stride 1"
            )
        stripes = self._pool(x, self.count)
        return torch.cat([self._pool(x, 1), stripes], dim=1) if self.whole else stripes

    def _pool(self, x: Tensor, count: int) -> Tensor:
        grid = (count, 1)
        if self.kind == "average":
            pooled = F.adaptive_avg_pool2d(x, grid)
        elif self.kind == "max":
            pooled = F.adaptive_max_pool2d(x, grid)
        else:
            pooled = F.adaptive_avg_pool2d(x, grid) + F.adaptive_max_pool2d(x, grid)
        return pooled.flatten(2).transpose(1, 2)  # (N, C, P, 1) -> (N, P, C)
