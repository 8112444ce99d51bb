"""What a sweep varies: `key=a,b,c` on the command line and named variants, multiplied out."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from reidkit.config import ConfigError, read_yaml

VARIANT = "variant"  # the column of named variants
LONGEST = 40  # letters of a value in a folder's name
LONGEST_NAME = 120


@dataclass(frozen=True, slots=True)
class Point:
    """One place of the grid: a folder's name, what is set here and elsewhere otherwise, and all
    overrides that make its config, in order."""

    name: str
    settings: Mapping[str, str]
    overrides: tuple[str, ...]


def split_values(text: str) -> list[str]:
    """The values of `a,b,c`: commas inside brackets, braces or quotes part nothing."""
    values, depth, quote, before = [""], 0, "", ","
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and before in ",[{:":  # elsewhere it is an apostrophe
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        if letter == "," and depth <= 0 and not quote:
            values.append("")
        else:
            values[-1] += letter
        before = before if letter.isspace() else letter
    return [value.strip() for value in values]


def read_assignments(assignments: Iterable[str]) -> dict[str, list[str]]:
    """key -> its values, from `key=a,b`; a ConfigError with every assignment that is none."""
    found: dict[str, list[str]] = {}
    faults: list[str] = []
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        values = split_values(text)
        if not separator or not key:
            faults.append(f"{assignment}: expected key=value or key=a,b,c, such as optim.lr=1e-4")
        elif key == "seed":
            faults.append(f"{assignment}: seeds are given by --seeds, such as --seeds 3,7,11")
        elif key in found:
            faults.append(f"{key} is given twice; put all its values behind one: {key}=a,b")
        elif len(values) > 1 and "" in values:
            faults.append(f"{assignment}: a value is empty; is there a comma too many?")
        elif len(set(values)) < len(values):
            faults.append(f"{assignment}: a value stands here twice")
        else:
            found[key] = values
    if faults:
        raise ConfigError("the sweep", faults)
    return found


def read_variants(path: Path) -> dict[str, tuple[str, ...]]:
    """name -> overrides, from a YAML file that maps names to lists of overrides."""
    if not path.is_file():
        raise ConfigError(str(path), ["there is no such file of variants"])
    found = read_yaml(path)
    example = "such as `rll: [losses.0.margin=0.4, optim.lr=1e-4]`"
    if not isinstance(found, dict) or not found:
        raise ConfigError(str(path), [f"expected names with lists of overrides, {example}"])
    faults = [
        f"{name}: expected a list of overrides, {example}"
        for name, overrides in found.items()
        if not isinstance(overrides, list) or not all(isinstance(o, str) for o in overrides)
    ]
    faults += [
        f"{name}: {override}: seeds are given by --seeds"
        for name, overrides in found.items()
        for override in (overrides if isinstance(overrides, list) else ())
        if str(override).startswith("seed=")
    ]
    if faults:
        raise ConfigError(str(path), faults)
    return {str(name): tuple(overrides) for name, overrides in found.items()}


def read_seeds(text: str) -> tuple[int, ...]:
    """`3` is 0, 1, 2; `3,7,11` are these; `7,` is 7 alone."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words if word) or not words[0]:
        raise ConfigError(f"--seeds {text}", ["expected how many, such as 3, or which: 3,7,11"])
    listed = [int(word) for word in words if word]
    seeds = listed if len(words) > 1 else list(range(listed[0]))
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {text}", ["expected at least one, and each once"])
    return tuple(seeds)


def varying(
    assignments: Mapping[str, Sequence[str]], variants: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """The keys with more than one value, `variant` first where there are variants."""
    named = (VARIANT,) if variants else ()
    return (*named, *(key for key, values in assignments.items() if len(values) > 1))


def make_points(
    assignments: Mapping[str, Sequence[str]],
    variants: Mapping[str, Sequence[str]],
    *,
    otherwise: str = "base",
) -> list[Point]:
    """All places of variants x values; the command line's overrides come after a variant's.

    `otherwise` names the one point of a grid where nothing varies.
    """
    keys = varying(assignments, variants)
    short = short_keys(keys)
    points = []
    for variant in variants or ("",):
        for values in product(*assignments.values()):
            chosen = dict(zip(assignments, values, strict=True))
            settings = {key: variant if key == VARIANT else chosen[key] for key in keys}
            words = [
                readable(text) if key == VARIANT else f"{short[key]}={readable(text)}"
                for key, text in settings.items()
            ]
            overrides = (*variants.get(variant, ()), *(f"{k}={v}" for k, v in chosen.items()))
            points.append(Point(_short_name(",".join(words) or otherwise), settings, overrides))
    return points


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Each dotted key with the shortest end of it that no other one has, and that says a name."""

    def tail(key: str, parts: int) -> str:
        return ".".join(key.split(".")[-parts:])

    found = {}
    for key in keys:
        parts = 1
        while parts <= key.count(".") and (
            tail(key, parts)[0].isdigit()
            or any(tail(other, parts) == tail(key, parts) for other in keys if other != key)
        ):
            parts += 1
        found[key] = tail(key, parts)
    return found


def readable(text: str) -> str:
    """A value as part of a folder's name; where letters had to go, a hash tells values apart."""
    if re.fullmatch(rf"[\w.+-]{{1,{LONGEST}}}", text, re.ASCII) and text.strip("."):
        return text
    words = re.sub(r"[^\w.+-]+", "-", text, flags=re.ASCII).strip("-.")[:LONGEST]
    return f"{words or 'value'}-{_hash(text)}"


def _short_name(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}-{_hash(name)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
