"""GaitSet: a silhouette sequence as a set of frames, pooled without order."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.models.base import EmbeddingModel
from reidkit.models.necks import PartLinear
from reidkit.models.pyramid import pyramid
from reidkit.models.registries import MODELS, refuse
from reidkit.models.temporal import SetPooling
from reidkit.types import SILHOUETTES, ModelOutput, Preprocessing

STRIPS = 16
PARTS = 2 * (2 * STRIPS - 1)
SLOPE = 0.01
# About thirty frames' maps stay in a processor's cache on their way through the network, forward
# and back: 1.4 times as fast as all frames at once. An accelerator takes them all.
FRAMES_AT_ONCE = 32


@MODELS.register("gaitset")
class GaitSet(EmbeddingModel):
    """Silhouettes -> 62 vectors, the same for any order of the frames; their number is free.

    Chao, He, Zhang, Feng: GaitSet: Regarding Gait as a Set for Cross-View Gait Recognition, AAAI
    2019, arXiv:1811.06186, figure 2. Convolutions of frames (set1 to set6), the maximum over the
    set at three depths, a global pipeline through these (global1 to global4), a horizontal pyramid
    of both ends, and a linear map for each of its strips. Nothing has a bias or a norm, so
    f(2x) = 2 f(x).

    Parts: 31 strips of the pooled frames, then 31 of the global pipeline, each coarse to fine (the
    whole, 2, 4, 8, 16), top to bottom.

    Args:
        channels: of the three depths; (64, 128, 256) is the network for OU-MVLP.
        dim: size of a part's vector.
        pooling: over the frames of a set: "max" as the paper settles for, "mean", "median",
            "attention", "joint_sum" or "joint_conv"; see `SetPooling`.
        preprocessing: what the frames must have gone through: silhouettes of one channel, 64 x 44
            where not said, 128 x 88 or another multiple of 64 rows and 4 columns.
    """

    unit_parts = False
    pixels = "silhouettes"
    classifies = False

    def __init__(
        self,
        channels: tuple[int, int, int] = (32, 64, 128),
        dim: int = 256,
        *,
        pooling: str = "max",
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__()
        refuse(self.problems(channels, dim, pooling))
        self.preprocessing = SILHOUETTES if preprocessing is None else preprocessing
        check_size(self.preprocessing.channels, *self.preprocessing.size)
        low, middle, high = channels
        self.set1 = nn.Conv2d(1, low, 5, padding=2, bias=False)
        self.set2 = convolution(low, low)
        self.set3 = convolution(low, middle)
        self.set4 = convolution(middle, middle)
        self.set5 = convolution(middle, high)
        self.set6 = convolution(high, high)
        self.pools = nn.ModuleList(set_pooling(pooling, size) for size in channels)
        self.global1 = convolution(low, middle)
        self.global2 = convolution(middle, middle)
        self.global3 = convolution(middle, high)
        self.global4 = convolution(high, high)
        self.maps = PartLinear(high, dim, PARTS, bias=False)
        self.parts = PARTS
        self.embedding_size = PARTS * dim
        self._start()

    @staticmethod
    def problems(channels: tuple[int, int, int], dim: int, pooling: str) -> list[str]:
        """What is wrong with values whose types are right."""
        found = [] if len(channels) == 3 else [f"channels {channels}: expected three numbers"]
        if any(size < 1 for size in channels):
            found.append(f"channels {channels}: expected at least 1 each")
        if dim < 1:
            found.append(f"dim {dim}: expected at least 1")
        try:
            set_pooling(pooling, 1)
        except ValueError as error:
            found.append(f"pooling: {error}")
        return found

    def _start(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
        # As (P, in, out) the maps start where the paper's code has them: about a tenth of what each
        # map alone would get, and the triplet's margin of 0.2 is meant for vectors so short.
        nn.init.xavier_uniform_(self.maps.weight.transpose(1, 2))
        self.to(memory_format=torch.channels_last)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> ModelOutput:
        """embedding (B, 62, dim), which is the feature too; no logits.

        frames (B, T, 1, H, W) floats in [0, 1]; mask (B, T) bool, each row with a true frame, None
        where all are true. Frames that the mask calls false are never looked at.
        """
        check_frames(frames, mask)
        flat, lengths = frames.flatten(0, 1), [frames.shape[1]] * len(frames)
        if mask is not None and not bool(mask.all()):
            flat, lengths = flat[mask.flatten()], mask.sum(1).tolist()
            if 0 in lengths:
                raise ValueError(
                    f"sequence {lengths.index(0)} of the batch has no true frame in its mask; "
                    "every row needs one"
                )
        low, middle, high = self._sets(flat, lengths)
        whole = halved(self.global2(activate(self.global1(low))))  # (B, 64, 16, 11)
        whole = activate(self.global3(whole + middle))
        whole = activate(self.global4(whole)) + high  # (B, 128, 16, 11)
        strips = torch.cat([pyramid(high, STRIPS), pyramid(whole, STRIPS)], dim=1)  # (B, 62, 128)
        embedding = self.maps(strips)  # (B, 62, dim)
        return ModelOutput(embedding, embedding, None)

    def _sets(self, flat: Tensor, lengths: list[int]) -> list[Tensor]:
        """The pooled maps at three depths, (B, 32, 32, 22), (B, 64, 16, 11) and (B, 128, 16, 11).

        flat (N, 1, H, W): the true frames, sequence after sequence, `lengths` of each.
        """
        found = []
        start = 0
        for some in together(lengths, FRAMES_AT_ONCE if flat.device.type == "cpu" else len(flat)):
            depths = self._depths(flat[start : start + sum(some)])
            found.append(
                [pooled(pool, x, some) for pool, x in zip(self.pools, depths, strict=True)]
            )
            start += sum(some)
        return [torch.cat(maps) for maps in zip(*found, strict=True)]

    def _depths(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each frame's maps at three depths. x (N, 1, 64, 44)."""
        low = halved(self.set2(activate(self.set1(x))))  # (N, 32, 32, 22)
        middle = halved(self.set4(activate(self.set3(low))))  # (N, 64, 16, 11)
        high = activate(self.set6(activate(self.set5(middle))))  # (N, 128, 16, 11)
        return low, middle, high


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU; writes into x, which must be new."""
    return F.leaky_relu(x, SLOPE, inplace=True)


def halved(x: Tensor) -> Tensor:
    """Activated and max-pooled by 2. Leaky ReLU keeps the order, so it may follow the maximum, and
    is paid for a quarter of the cells."""
    return activate(F.max_pool2d(x, 2))


def set_pooling(kind: str, channels: int) -> SetPooling:
    """A pooling over sets of vectors of so many channels."""
    return SetPooling(kind, channels)  # type: ignore[arg-type]  # it refuses unknown kinds itself


def pooled(pool: nn.Module, x: Tensor, lengths: Sequence[int]) -> Tensor:
    """Pool the maps of each sequence. x (N, C, h, w), N = sum(lengths) -> (B, C, h, w)."""
    if len(set(lengths)) > 1:
        return torch.cat([pooled(pool, one, [len(one)]) for one in x.split(list(lengths))])
    # Channels last is how the maps lie in memory, ten times as fast to reduce, and how scores of
    # vectors want them.
    sets = x.movedim(1, -1).unflatten(0, (len(lengths), lengths[0]))  # (B, T, h, w, C)
    if getattr(pool, "kind", None) == "max":
        return sets.amax(1).movedim(-1, 1)  # no frame is padding, so no mask has to be laid on
    true = torch.ones(sets.shape[:2], dtype=torch.bool, device=x.device)
    over_frames: Tensor = pool(sets, true)
    return over_frames.movedim(-1, 1)


def together(lengths: Sequence[int], frames: int) -> Iterator[list[int]]:
    """Neighbouring sequences' lengths, in groups of at most so many frames; a longer sequence is
    its own group."""
    some: list[int] = []
    for length in lengths:
        if some and sum(some) + length > frames:
            yield some
            some = []
        some.append(length)
    yield some


def check_frames(frames: Tensor, mask: Tensor | None) -> None:
    """Raise ValueError unless frames are (B, T, 1, H, W) floats and the mask fits."""
    if frames.ndim != 5 or not len(frames) or not frames.shape[1]:
        raise ValueError(
            "silhouettes need shape (B, T, 1, H, W) with a sequence and a frame at least, got "
            f"{tuple(frames.shape)}"
        )
    if not frames.is_floating_point():
        raise ValueError(f"silhouettes are {frames.dtype}: scale to [0, 1] first")
    check_size(*frames.shape[2:])
    if mask is not None and (mask.shape != frames.shape[:2] or mask.dtype != torch.bool):
        raise ValueError(
            f"mask must be bool of shape {tuple(frames.shape[:2])}, "
            f"got {mask.dtype} of shape {tuple(mask.shape)}"
        )


def check_size(channels: int, height: int, width: int) -> None:
    """Raise ValueError unless 16 equal strips come out after two halvings of a silhouette."""
    if channels != 1:
        raise ValueError(
            f"gaitset reads silhouettes of one channel, got {channels}; use reid for pictures"
        )
    if not height or not width or height % (4 * STRIPS) or width % 4:
        raise ValueError(
            f"silhouettes of {height} x {width}: gaitset needs a height that is a multiple of "
            f"{4 * STRIPS} (16 strips after / 4) and a width that is one of 4, as 64 x 44, 128 x 88"
        )
