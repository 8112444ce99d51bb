"""AutoAugment for clips: the policies learned on ImageNet, with draws from outside.

torchvision's own AutoAugment draws from the global random state, which the threads of a loader
share with the model's dropout; so the policy is drawn here, and torchvision changes the pixels.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor


class Operation(NamedTuple):
    """A change that happens with this probability; `magnitude` is one of ten levels."""

    name: str
    probability: float
    magnitude: int = 0


def _policies(text: str) -> tuple[tuple[Operation, Operation], ...]:
    def operation(words: str) -> Operation:
        name, probability, *magnitude = words.split()
        return Operation(name, float(probability), *map(int, magnitude))

    lines = (line.split("+") for line in text.strip().splitlines())
    return tuple((operation(first), operation(second)) for first, second in lines)


# Cubuk et al., AutoAugment: Learning Augmentation Strategies from Data, CVPR 2019, the table of
# policies for ImageNet: operation, probability, level.
POLICIES = _policies("""
    posterize .4 8    + rotate .6 9
    solarize .6 5     + autocontrast .6
    equalize .8       + equalize .6
    posterize .6 7    + posterize .6 6
    equalize .4       + solarize .2 4
    equalize .4       + rotate .8 8
    solarize .6 3     + equalize .6
    posterize .8 5    + equalize 1.
    rotate .2 3       + solarize .6 8
    equalize .6       + posterize .4 6
    rotate .8 8       + color .4 0
    rotate .4 9       + equalize .6
    equalize .0       + equalize .8
    invert .6         + equalize 1.
    color .6 4        + contrast 1. 8
    rotate .8 8       + color 1. 2
    color .8 8        + solarize .8 7
    sharpness .4 7    + invert .6
    shear .6 5        + equalize 1.
    color .4 0        + equalize .6
    equalize .4       + solarize .2 4
    solarize .6 5     + autocontrast .6
    invert .6         + equalize 1.
    color .6 4        + contrast 1. 8
    equalize .8       + equalize .6
""")
LEVELS = 9  # 0 to 9


def auto_augment(clip: Tensor, chances: Sequence[float]) -> Tensor:
    """The clip (T, 3, H, W) uint8 after one policy, the same for all frames.

    `chances` are five numbers in [0, 1): which policy, then for each of its two operations whether
    it happens and in which direction.
    """
    operations = POLICIES[int(chances[0] * len(POLICIES))]
    for operation, (happens, sign) in zip(operations, (chances[1:3], chances[3:5]), strict=True):
        if happens < operation.probability:
            strength = operation.magnitude / LEVELS
            clip = _changes()[operation.name](clip, strength, -1 if sign < 0.5 else 1)
    return clip


def _changes() -> dict[str, Callable[[Tensor, float, int], Tensor]]:
    """What each operation does, given its strength in [0, 1] and its direction."""
    # Here, because torchvision takes more than a second to import.
    from torchvision.transforms.v2 import functional

    def shear(clip: Tensor, strength: float, sign: int) -> Tensor:
        angle = math.degrees(math.atan(sign * 0.3 * strength))
        options: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0}
        return functional.affine(clip, shear=[angle, 0.0], center=[0.0, 0.0], **options)

    return {
        "shear": shear,
        "rotate": lambda clip, strength, sign: functional.rotate(clip, sign * 30 * strength),
        "color": lambda clip, strength, sign: functional.adjust_saturation(
            clip, 1 + sign * 0.9 * strength
        ),
        "contrast": lambda clip, strength, sign: functional.adjust_contrast(
            clip, 1 + sign * 0.9 * strength
        ),
        "sharpness": lambda clip, strength, sign: functional.adjust_sharpness(
            clip, 1 + sign * 0.9 * strength
        ),
        "posterize": lambda clip, strength, _: functional.posterize(clip, 8 - round(4 * strength)),
        "solarize": lambda clip, strength, _: functional.solarize(clip, 255 * (1 - strength)),
        "autocontrast": lambda clip, *_: functional.autocontrast(clip),
        "equalize": lambda clip, *_: functional.equalize(clip),
        "invert": lambda clip, *_: functional.invert(clip),
    }
