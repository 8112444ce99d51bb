"""What stands between the pooled vector and the classifier: reduction, then neck."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.models.registries import NECKS, REDUCTIONS, refuse


class PartLinear(nn.Module):
    """A linear layer of its own for each part: (B, P, in_dim) -> (B, P, out_dim).

    Weights start normal with deviation 1 / sqrt(in_dim), which keeps the input's variance.
    """

    def __init__(self, in_dim: int, out_dim: int, parts: int = 1, bias: bool = True) -> None:
        super().__init__()
        refuse(
            f"{name} {value}: expected at least 1"
            for name, value in (("in_dim", in_dim), ("out_dim", out_dim), ("parts", parts))
            if value < 1
        )
        self.weight = nn.Parameter(torch.randn(parts, out_dim, in_dim) * in_dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(parts, out_dim)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, in_dim) -> (B, P, out_dim)."""
        out = torch.einsum("bpi,poi->bpo", x, self.weight)
        return out if self.bias is None else out + self.bias


class PartNorm(nn.Module):
    """Batch norm over the batch, separately for each part and channel: (B, P, D) -> (B, P, D)."""

    def __init__(self, dim: int, parts: int = 1, learn_bias: bool = True) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(parts * dim)
        self.norm.bias.requires_grad_(learn_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, D) -> (B, P, D)."""
        return self.norm(x.flatten(1)).unflatten(1, x.shape[1:])


@REDUCTIONS.register("linear")
class LinearReduction(nn.Module):
    """Linear layer to `dim`, batch norm, ReLU on request; of its own for each part.

    It stands before the embedding, so metric losses and retrieval see vectors of one size: OSNet's
    512-d layer is `dim=512, relu=True`, PCB's 256-d one `dim=256, relu=True`, and GaitBase's
    `dim=256, norm=False`.
    """

    def __init__(
        self, in_dim: int, dim: int, parts: int = 1, norm: bool = True, relu: bool = False
    ) -> None:
        super().__init__()
        refuse(self.problems(dim))
        self.dim = dim
        self.linear = PartLinear(in_dim, dim, parts, bias=not norm)
        self.norm: nn.Module = PartNorm(dim, parts) if norm else nn.Identity()
        self.activation: nn.Module = nn.ReLU() if relu else nn.Identity()

    @staticmethod
    def problems(dim: int) -> list[str]:
        """What is wrong with values whose types are right."""
        return [] if dim >= 1 else [f"dim {dim}: expected at least 1"]

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, in_dim) -> (B, P, dim)."""
        return self.activation(self.norm(self.linear(x)))


@NECKS.register("bnneck")
class BNNeck(nn.Module):
    """Batch norm between the embedding and a classifier without bias (Luo et al., CVPRW 2019).

    Bag of Tricks and a Strong Baseline, arXiv:1903.07071, section 3.5: metric losses see the
    embedding, the classifier and retrieval the normed feature. The norm's bias stays 0; the
    classifier starts with normal weights of deviation 0.001. Each part has its own of both.

    With `cosine` the logits are `scale` * the cosine between the feature and each class's vector,
    as OpenGait's gait networks (GaitBase, DeepGaitV2) classify, at scale 16 (its SeparateBNNecks
    and its cross-entropy's scale). The state's keys and shapes are the same with and without.

    Args:
        num_classes: None for a neck without a classifier.
        cosine: classify by direction alone; the classes' vectors then start at about unit length.
        scale: what cosines are multiplied by; only with `cosine`.
    """

    def __init__(
        self,
        in_dim: int,
        parts: int = 1,
        num_classes: int | None = None,
        cosine: bool = False,
        scale: float = 16.0,
    ) -> None:
        super().__init__()
        refuse(self.problems(scale))
        self.in_dim = in_dim
        self.parts = parts
        self.cosine = cosine
        self.scale = scale
        self.norm = PartNorm(in_dim, parts, learn_bias=False)
        self.classifier = classifier(in_dim, parts, num_classes, bias=False)
        if cosine and self.classifier is not None:
            # A step turns a short vector far, and a length of 0.016 would be lost in the first one.
            nn.init.normal_(self.classifier.weight, std=in_dim**-0.5)

    @staticmethod
    def problems(scale: float) -> list[str]:
        """What is wrong with values whose types are right."""
        fine = 0 < scale < float("inf")
        return [] if fine else [f"scale {scale}: expected a finite number above 0"]

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, P, D) -> feature (B, P, D), logits (B, P, num_classes) or None."""
        feature = self.norm(embedding)
        if self.classifier is None:
            return feature, None
        if not self.cosine:
            return feature, self.classifier(feature)
        classes = F.normalize(self.classifier.weight, dim=-1)  # (P, K, D)
        cosines = torch.einsum("bpd,pkd->bpk", F.normalize(feature, dim=-1), classes)
        return feature, self.scale * cosines


@NECKS.register("identity")
class IdentityNeck(nn.Module):
    """The embedding is the feature; with a plain linear classifier where there are classes."""

    def __init__(self, in_dim: int, parts: int = 1, num_classes: int | None = None) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.parts = parts
        self.classifier = classifier(in_dim, parts, num_classes, bias=True)

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, P, D) -> the same (B, P, D), logits (B, P, num_classes) or None."""
        return embedding, None if self.classifier is None else self.classifier(embedding)


def classifier(in_dim: int, parts: int, num_classes: int | None, bias: bool) -> PartLinear | None:
    """A linear classifier for each part, with small weights: the first logits are nearly equal."""
    if num_classes is None:
        return None
    linear = PartLinear(in_dim, num_classes, parts, bias)
    nn.init.normal_(linear.weight, std=0.001)
    return linear
