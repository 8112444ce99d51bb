"""Fewer dimensions after training: PCA, whitened or learned from identities, kept in the model."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from reidkit.models.base import EmbeddingModel
from reidkit.models.build import Spec, build_model
from reidkit.models.registries import MODELS, refuse
from reidkit.models.weights import without_pretrained
from reidkit.types import ModelOutput, Preprocessing

Whiten = Literal["none", "pca", "learned"]
# Variances below this share of the largest are the rounding of float32 features.
FLAT = 1e-12
# Of identities that a network was trained on, pairs differ less, and in other directions, than of
# those it has not seen; what their number alone asks for (Ledoit and Wolf: 0.03 to 0.07) is far too
# little. On Omniglot 0.7 to 0.9 was best with either half of the alphabets as the unseen ones.
SHRINK = 0.7


class Projection(NamedTuple):
    """x -> (x - mean) @ components; the direction of the largest variance first."""

    mean: Tensor  # (D,) float64
    components: Tensor  # (D, d) float64
    kept: float  # share of the variance in (0, 1]; for "learned" that between whitened identities


class Projected(EmbeddingModel):
    """A model whose features are brought to unit length, centred and mapped to fewer dimensions.

    Embedding and logits are the inner model's. A new one cuts to the first `dim` numbers; `fitted`
    takes what `fit_projection` found.

    Args:
        model: whose features; of several parts they are joined as extraction joins them.
        dim: d, at most the model's embedding_size D.
        whiten: how the projection was fitted; kept for those who ask.
    """

    mean: Tensor
    components: Tensor

    def __init__(self, model: EmbeddingModel, dim: int, whiten: Whiten = "pca") -> None:
        super().__init__()
        refuse(projection_faults(model, dim))
        self.model = model
        self.whiten = whiten
        self.parts = 1
        self.embedding_size = dim
        self.preprocessing = model.preprocessing
        self.register_buffer("mean", torch.zeros(model.embedding_size))
        self.register_buffer("components", torch.eye(model.embedding_size, dim))

    @classmethod
    def fitted(cls, model: EmbeddingModel, projection: Projection, whiten: Whiten) -> "Projected":
        """The model with this projection of its unit features, on the model's device."""
        found = cls(model, projection.components.shape[1], whiten)
        found.mean.copy_(projection.mean)
        found.components.copy_(projection.components)
        device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
        return found.to(device).train(model.training)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> ModelOutput:
        """frames (B, T, C, H, W), mask (B, T) -> the inner model's output, feature (B, 1, d)."""
        output = self.model(frames, mask)
        feature = output.feature.float()  # (B, P, D / P)
        if feature.shape[1] > 1:
            feature = F.normalize(feature, dim=2)
        return output._replace(feature=self.project(feature.flatten(1))[:, None])

    def project(self, vectors: Tensor) -> Tensor:
        """Features (N, D) of the inner model, of any length -> (N, d)."""
        return (F.normalize(vectors, dim=1) - self.mean) @ self.components

    def spec(self, inner: Spec) -> dict[str, Any]:
        """What `build_model` makes this model from, given the inner model's spec."""
        return {
            "name": "projected",
            "model": dict(inner),
            "dim": self.embedding_size,
            "whiten": self.whiten,
        }


@MODELS.register("projected")
def projected(
    model: dict[str, Any],
    dim: int,
    whiten: Whiten = "pca",
    num_classes: int | None = None,
    size: tuple[int, int] = (256, 128),
    preprocessing: Preprocessing | None = None,
) -> Projected:
    """The spec `model` with fewer dimensions; written by a run's `project`, not trained itself."""
    inner = build_model(
        without_pretrained(model),  # the weights come from the file, whatever training began with
        num_classes=num_classes,
        size=size,
        preprocessing=preprocessing or Preprocessing(size),
    )
    return Projected(inner, dim, whiten)


def projection_faults(model: EmbeddingModel, dim: int, samples: int | None = None) -> list[str]:
    """Why this model cannot be projected to `dim` numbers by so many samples, a sentence each."""
    if isinstance(model, Projected):
        return [
            f"the model is projected already, to {model.embedding_size} numbers; project the one "
            "it was made from"
        ]
    if not model.unit_parts:
        return [
            f"{type(model).__name__} is compared part by part, as gait networks are; a projection "
            "would mix its parts"
        ]
    found = []
    if not 0 < dim <= model.embedding_size:
        found.append(f"dim {dim}: expected 1 to {model.embedding_size}, the features' size")
    if samples is not None and dim >= samples:
        found.append(f"dim {dim} needs {dim + 1} samples to be fitted on, there are {samples}")
    return found


def fit_projection(
    vectors: Tensor,
    dim: int,
    whiten: Whiten = "pca",
    *,
    labels: Sequence[int] | Tensor | None = None,
    shrink: float | None = None,
) -> Projection:
    """The projection to `dim` numbers that suits these vectors (N, D), N > dim; in float64.

    "none" is PCA. "pca" also gives each direction variance 1 (Jégou and Chum, Negative evidences
    and co-occurences in image retrieval: the benefit of PCA and whitening, ECCV 2012). "learned"
    gives the differences of matching pairs the covariance 1, then takes the principal directions
    of the pairs that do not match (Mikolajczyk and Matas, Improving descriptors for fast tree
    matching by optimal linear projection, ICCV 2007; as Radenović, Tolias and Chum, ECCV 2016,
    section 3.3). A direction's largest number is positive, so that the same vectors give the same
    projection.

    Args:
        labels: (N,) identities >= 0, for "learned".
        shrink: for "learned", how far the covariance of matching pairs is moved to a sphere of the
            same trace, in [0, 1]; SHRINK where absent. Above 0, N < D works.

    Raises:
        ValueError: vectors, dim or labels that allow no such projection.
    """
    rows = _checked(vectors, dim, whiten, labels, shrink)
    mean = rows.mean(0)
    rows = rows - mean
    if whiten == "learned":
        numbers = torch.as_tensor(labels).cpu()
        components, values = _learned(rows, numbers, SHRINK if shrink is None else shrink)
    else:
        values, components = principal(rows.t() @ rows / (len(rows) - 1))
        if whiten == "pca":
            found = int((values > FLAT * values[0]).sum())
            if found < dim:
                raise ValueError(
                    f"the {len(rows)} vectors vary in {found} directions only; whitening to "
                    f"dim {dim} needs as many: lower dim, or whiten: none"
                )
            components = components[:, :dim] / values[:dim].sqrt()
    kept = float(values[:dim].sum() / values.sum())
    return Projection(mean, components[:, :dim].contiguous(), min(kept, 1.0))


def pair_covariances(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Means of (x - y)(x - y)' / 2 over matching pairs, and over all others; (D, D) each.

    rows (N, D) centred, labels (N,). No pair is formed: over a class of n the sum of all is n times
    the scatter about its mean, and over everything N times the total scatter.
    """
    count = len(rows)
    _, classes, counts = labels.unique(return_inverse=True, return_counts=True)
    sums = rows.new_zeros(len(counts), rows.shape[1]).index_add_(0, classes, rows)
    about_mean = rows - (sums / counts[:, None])[classes]
    weighted = about_mean * counts[classes].to(rows).sqrt()[:, None]
    matching = int((counts * (counts - 1)).sum())  # ordered pairs
    own = weighted.t() @ weighted
    everything = count * (rows.t() @ rows)
    return own / matching, (everything - own) / (count * (count - 1) - matching)


def principal(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Variances (D,), the largest first and none negative, and directions (D, D) as columns."""
    values, directions = torch.linalg.eigh(covariance)
    values, directions = values.flip(0).clamp_min(0), directions.flip(1)
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    return values, directions * largest.sign()


def _learned(rows: Tensor, labels: Tensor, shrink: float) -> tuple[Tensor, Tensor]:
    """Components (D, D) and the variances of non-matching pairs along them (D,)."""
    within, between = pair_covariances(rows, labels)
    if float(within.trace()) <= FLAT * float(between.trace()):
        raise ValueError("the vectors of each identity are all the same: nothing to learn from")
    sphere = within.diagonal().mean() * torch.eye(len(within), dtype=within.dtype)
    variances, axes = torch.linalg.eigh((1 - shrink) * within + shrink * sphere)
    if variances[0] <= FLAT * variances[-1]:
        found = int((variances > FLAT * variances[-1]).sum())
        raise ValueError(
            f"matching pairs differ in {found} of {len(within)} directions only; set shrink above "
            f"{shrink:g}, or leave it out"
        )
    root = axes / variances.sqrt() @ axes.t()
    values, directions = principal(root @ between @ root)
    return root @ directions, values


def _checked(
    vectors: Tensor,
    dim: int,
    whiten: str,
    labels: Sequence[int] | Tensor | None,
    shrink: float | None,
) -> Tensor:
    """The vectors as float64 on the CPU; ValueError with what is wrong with the arguments."""
    if vectors.ndim != 2 or not vectors.is_floating_point():
        kind = f"{vectors.dtype} of shape {tuple(vectors.shape)}"
        raise ValueError(f"vectors need shape (N, D) of floats, got {kind}")
    if whiten not in get_args(Whiten):
        raise ValueError(f"whiten {whiten!r}: expected {', '.join(get_args(Whiten))}")
    count, size = vectors.shape
    if not 0 < dim <= min(size, count - 1):
        raise ValueError(
            f"dim {dim} for {count} vectors of {size} numbers: expected at least 1, and at most "
            f"{max(min(size, count - 1), 0)}"
        )
    rows = vectors.detach().cpu().double()
    if not bool(rows.isfinite().all()):
        raise ValueError(f"{int((~rows.isfinite()).any(1).sum())} vectors are not finite")
    if float((rows - rows[0]).abs().max()) == 0:
        raise ValueError(f"all {count} vectors are the same: there is nothing to project")
    if whiten == "learned":
        _check_labels(labels, count)
        if shrink is not None and not 0 <= shrink <= 1:
            raise ValueError(f"shrink {shrink:g}: expected a number from 0 to 1")
    elif shrink is not None:
        raise ValueError(f"shrink is for whiten 'learned', not {whiten!r}: leave it out")
    return rows


def _check_labels(labels: Sequence[int] | Tensor | None, count: int) -> None:
    if labels is None:
        raise ValueError("whiten 'learned' needs the labels of the vectors; or use 'pca'")
    numbers = torch.as_tensor(labels)
    if numbers.shape != (count,) or numbers.is_floating_point():
        kind = f"{numbers.dtype} of shape {tuple(numbers.shape)}"
        raise ValueError(f"labels need shape ({count},) of integers, got {kind}")
    unknown = int((numbers < 0).sum())
    if unknown:
        raise ValueError(
            f"{unknown} of {count} vectors have no identity (-1), which 'learned' whitening needs; "
            "leave them out, or use 'pca'"
        )
    classes = len(numbers.unique())
    if not 1 < classes < count:
        raise ValueError(
            f"'learned' whitening needs pairs of one identity and of two; {count} vectors of "
            f"{classes} identities have not both: use 'pca'"
        )
