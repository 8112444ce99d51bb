"""What a search may choose: ranges `low..high` and categories `a,b,c`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reidkit.compose.sweep.grid import VARIANT, Point
from reidkit.config import ConfigError

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(log:)?({_NUMBER})\.\.({_NUMBER})")


@dataclass(frozen=True, slots=True)
class Range:
    """All numbers from `low` to `high`, both included; of two integers the integers. `log` draws
    their logarithm evenly."""

    low: float
    high: float
    whole: bool = False
    log: bool = False

    def ends(self) -> list[str]:
        """Both ends, as an override writes them."""
        return [self.text(self.low), self.text(self.high)]

    def text(self, value: float) -> str:
        """A value as an override writes it."""
        return str(int(value)) if self.whole else repr(float(value))


Space = dict[str, Range | tuple[str, ...]]


def read_range(key: str, text: str) -> Range | None:
    """The range that `0.1..0.5`, `1..8` or `log:1e-4..1e-2` is; None where the text is none."""
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    log, low, high = match[1] is not None, float(match[2]), float(match[3])
    whole = all(word.lstrip("+-").isdigit() for word in match.group(2, 3))
    if low >= high:
        raise ConfigError(f"{key}={text}", ["a range is low..high, the lower number first"])
    if log and low <= 0:
        raise ConfigError(f"{key}={text}", ["a logarithmic range begins above 0"])
    return Range(low, high, whole, log)


def read_space(
    assignments: Mapping[str, Sequence[str]], variants: Mapping[str, Sequence[str]]
) -> tuple[Space, dict[str, str]]:
    """What is searched, and the values that are the same everywhere."""
    space: Space = {VARIANT: tuple(variants)} if variants else {}
    fixed: dict[str, str] = {}
    for key, values in assignments.items():
        span = read_range(key, values[0]) if len(values) == 1 else None
        if span is not None:
            space[key] = span
        elif len(values) > 1:
            space[key] = tuple(values)
        else:
            fixed[key] = values[0]
    if not space:
        fault = "nothing to search: give a range such as optim.lr=log:1e-4..1e-2, or several values"
        raise ConfigError("--search", [fault])
    return space, fixed


def refuse_ranges(assignments: Mapping[str, Sequence[str]]) -> None:
    """Raise ConfigError for a range in a grid."""
    faults = [
        f"{key}={text}: a range is for --search N; a grid takes values: {key}=a,b,c"
        for key, values in assignments.items()
        for text in values
        if read_range(key, text) is not None
    ]
    if faults:
        raise ConfigError("the sweep", faults)


def chosen_point(
    name: str,
    chosen: Mapping[str, str],
    fixed: Mapping[str, str],
    variants: Mapping[str, Sequence[str]],
) -> Point:
    """The point where these were chosen."""
    overrides = {**fixed, **{key: text for key, text in chosen.items() if key != VARIANT}}
    words = [f"{key}={text}" for key, text in overrides.items()]
    return Point(name, dict(chosen), (*variants.get(chosen.get(VARIANT, ""), ()), *words))


def corners(
    space: Space, fixed: Mapping[str, str], variants: Mapping[str, Sequence[str]]
) -> list[Point]:
    """Every category and both ends of every range once, the others at their first: what shows a
    fault before anything is trained."""
    options = {
        key: kind.ends() if isinstance(kind, Range) else list(kind) for key, kind in space.items()
    }
    first = {key: values[0] for key, values in options.items()}
    return [
        chosen_point(f"{key}={text}", {**first, key: text}, fixed, variants)
        for key, values in options.items()
        for text in values
    ]
