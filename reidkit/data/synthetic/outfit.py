"""What a walker wears: of few colours, so that who somebody is lies in their arrangement."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Colour = tuple[int, int, int]  # RGB

CLOTH: tuple[Colour, ...] = (
    (34, 35, 40), (208, 206, 200), (128, 130, 134), (44, 58, 104), (156, 40, 44),
    (62, 96, 66), (176, 152, 112), (196, 146, 44), (96, 136, 176), (110, 70, 108),
)  # fmt: skip
TROUSERS: tuple[Colour, ...] = (
    (34, 35, 40), (52, 66, 104), (104, 106, 110), (150, 134, 104), (84, 108, 142), (74, 64, 54),
)  # fmt: skip
SHOES: tuple[Colour, ...] = (
    (30, 30, 32),
    (206, 204, 200),
    (110, 74, 48),
    (150, 44, 44),
    (60, 76, 116),
)
HAIR: tuple[Colour, ...] = (
    (28, 24, 24),
    (62, 42, 30),
    (104, 72, 44),
    (168, 134, 82),
    (140, 138, 136),
)
SKIN: tuple[Colour, ...] = ((226, 184, 158), (204, 156, 124), (168, 118, 86), (112, 76, 56))

Pattern = Literal[
    "plain", "bands", "stripes", "checks", "halves", "yoke", "chest_band", "logo", "back_print",
    "gradient", "open_jacket", "zip", "dots", "sides", "diagonal",
]  # fmt: skip
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)
Hair = Literal["bald", "short", "bob", "long", "ponytail", "bun", "cap", "beanie", "hood"]
HAIRS: tuple[Hair, ...] = get_args(Hair)
Bottom = Literal["trousers", "shorts", "skirt", "leggings"]
LegPattern = Literal["plain", "side_stripe", "faded", "two_tone", "cuffs", "checks"]
LEG_PATTERNS: tuple[LegPattern, ...] = get_args(LegPattern)
Bag = Literal["none", "backpack", "shoulder_bag", "handbag"]


@dataclass(frozen=True, slots=True)
class Outfit:
    """Clothes, hair, skin and bag of one walker; colours are RGB.

    A coat hangs down the thigh by the share `coat_length`, 1 at the knee, and is `padding` times as
    wide around trunk and arms as a thin one. `bag_size` multiplies the sides of the bag.
    """

    pattern: Pattern
    top: Colour
    second: Colour
    scale: float
    sleeve: float
    sleeve_colour: Colour
    coat: bool
    bottom: Bottom
    leg_pattern: LegPattern
    leg: Colour
    leg_second: Colour
    looseness: float
    shoe: Colour
    boots: bool
    skin: Colour
    hair: Hair
    hair_colour: Colour
    hat_colour: Colour
    bag: Bag
    bag_colour: Colour
    bag_side: int
    coat_length: float = 0.62
    padding: float = 1.0
    bag_size: float = 1.0

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Outfit":
        """Clothes drawn from the shared palette."""

        def colour(palette: tuple[Colour, ...]) -> Colour:
            return palette[int(rng.integers(len(palette)))]

        top, second = (CLOTH[int(i)] for i in rng.choice(len(CLOTH), 2, replace=False))
        leg, leg_second = (TROUSERS[int(i)] for i in rng.choice(len(TROUSERS), 2, replace=False))
        return cls(
            pattern=PATTERNS[int(rng.integers(len(PATTERNS)))],
            top=top,
            second=second,
            scale=float(rng.uniform(0.7, 1.4)),
            sleeve=float(rng.choice([0.0, 0.38, 0.5, 1.0, 1.0, 1.0])),
            sleeve_colour=second if rng.random() < 0.25 else top,
            coat=bool(rng.random() < 0.18),
            bottom=("trousers", "trousers", "trousers", "shorts", "skirt", "leggings")[
                int(rng.integers(6))
            ],
            leg_pattern=LEG_PATTERNS[int(rng.integers(len(LEG_PATTERNS)))],
            leg=leg,
            leg_second=leg_second,
            looseness=float(rng.uniform(0.95, 1.35)),
            shoe=colour(SHOES),
            boots=bool(rng.random() < 0.2),
            skin=colour(SKIN),
            hair=HAIRS[int(rng.integers(len(HAIRS)))],
            hair_colour=colour(HAIR),
            hat_colour=colour(CLOTH),
            bag=("none", "none", "backpack", "backpack", "shoulder_bag", "handbag")[
                int(rng.integers(6))
            ],
            bag_colour=colour(CLOTH),
            bag_side=int(rng.choice([-1, 1])),
        )
