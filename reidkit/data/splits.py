"""Who trains and who is tested, where the data does not say: by name, by fraction, by fold."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from reidkit.data.benchmarks import examples
from reidkit.registry import nearest

T = TypeVar("T")
By = Literal["class", "picture"]


def by_name(
    names: Sequence[str],
    train: Sequence[str] | None,
    test: Sequence[str] | None,
    *,
    kind: str = "class",
    keys: tuple[str, str] = ("train", "test"),
) -> tuple[list[str], list[str]]:
    """Names to train on and names to test on, as listed; a list that is None is all the others.

    `kind` and `keys` are what messages call the names and the two lists.

    Raises ValueError for a name that is not there, is listed twice or is on both lists, and where
    nothing is left to train on and to test on.
    """
    for side, listed in zip(keys, (train, test), strict=True):
        for place, name in enumerate(listed or ()):
            if name not in names:
                known = ", ".join(examples(map(repr, sorted(names)))) or "none"
                raise ValueError(
                    f"{side} names no {kind} {name!r}; there are: "
                    f"{known}.{nearest(name, sorted(names))}"
                )
            if name in (listed or ())[:place]:
                raise ValueError(f"{side} names {kind} {name!r} twice; once is expected")
    both = [name for name in train or () if name in (test or ())]
    if both:
        raise ValueError(
            f"{kind} {both[0]!r} is in both train and test; name it in one of them: scores on "
            "what was seen in training mean nothing"
        )
    chosen = set(train or ()) | set(test or ())
    others = [name for name in names if name not in chosen]
    sides = list(others if train is None else train), list(others if test is None else test)
    if not sides[0] and not sides[1]:
        raise ValueError(f"train and test are both empty; name a {kind} in one of them")
    return sides


def by_fraction(
    items: Sequence[T], fraction: float, seed: int | str | None = None
) -> tuple[list[T], list[T]]:
    """The first `fraction` of the items and the others, at least one each, in their old order.

    `seed` shuffles before the cut. Raises ValueError for a fraction outside (0, 1) or fewer than
    two items.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"train_fraction is {fraction}, expected between 0 and 1")
    if len(items) < 2:
        raise ValueError(f"{len(items)} to split, expected at least 2")
    order = shuffled(len(items), seed)
    cut = min(max(round(fraction * len(items)), 1), len(items) - 1)
    first, second = sorted(order[:cut]), sorted(order[cut:])
    return [items[place] for place in first], [items[place] for place in second]


def by_fold(
    items: Sequence[T], fold: int, folds: int, seed: int | str | None = None
) -> tuple[list[T], list[T]]:
    """The items outside fold number `fold` (from 0) and those inside it, in their old order.

    Over all folds each item is inside exactly once, and sizes differ by at most one. `seed`
    shuffles before the items are dealt out in turn.
    """
    order = shuffled(len(items), seed)
    inside = set(order[fold::folds])
    rest = [item for place, item in enumerate(items) if place not in inside]
    return rest, [items[place] for place in sorted(inside)]


def shuffled(count: int, seed: int | str | None) -> list[int]:
    """The places 0 to `count` - 1, shuffled by `seed` where there is one."""
    order = list(range(count))
    if seed is not None:
        random.Random(seed).shuffle(order)
    return order


@dataclass(frozen=True, slots=True)
class Split:
    """How classes without a split are dealt to training and test.

    By class, nothing seen in training is tested: `test_classes` names those to test, `fold` of
    `folds` takes turns, and else `train_fraction` of the classes train. By picture, each class
    gives `train_fraction` of its pictures to training (all but its `fold`): a closed set, for a
    check of the code and not for a score. Classes are sorted by name, and shuffled by `seed`.

    Raises ValueError, in one line, for values out of range or that exclude one another.
    """

    train_fraction: float = 0.5
    seed: int | None = None
    test_classes: Sequence[str] | None = None
    fold: int | None = None
    folds: int = 5
    by: By = "class"

    def __post_init__(self) -> None:
        if not 0 < self.train_fraction < 1:
            raise ValueError(f"train_fraction is {self.train_fraction}, expected between 0 and 1")
        if self.folds < 2:
            raise ValueError(f"folds is {self.folds}, expected at least 2")
        if self.fold is not None and not 0 <= self.fold < self.folds:
            raise ValueError(
                f"fold is {self.fold}, expected 0 to {self.folds - 1}: folds count from 0, and "
                f"folds is {self.folds}"
            )
        if self.by not in ("class", "picture"):
            raise ValueError(f"by is {self.by!r}, expected 'class' or 'picture'")
        if self.test_classes is not None and not self.test_classes:
            raise ValueError("test_classes is empty; name at least one class, or leave it out")
        if self.test_classes is not None and self.fold is not None:
            raise ValueError("test_classes and fold both say who is tested; give one of them")
        if self.test_classes is not None and self.by == "picture":
            raise ValueError("test_classes goes with by: class; by: picture tests every class")

    @property
    def wanted(self) -> bool:
        """Whether anything but a fraction of the classes is asked for."""
        return self.test_classes is not None or self.fold is not None or self.by != "class"

    def deal(
        self, pictures: Mapping[str, Sequence[T]]
    ) -> tuple[dict[str, list[T]], dict[str, list[T]]]:
        """The pictures of each class that train, and those that test.

        Raises ValueError where there are too few classes or pictures, or a class is unknown.
        """
        if self.by == "picture":
            return self._deal_pictures(pictures)
        train, test = self._deal_classes(sorted(pictures))
        return (
            {name: list(pictures[name]) for name in sorted(train)},
            {name: list(pictures[name]) for name in sorted(test)},
        )

    def _deal_classes(self, names: list[str]) -> tuple[list[str], list[str]]:
        if len(names) < 2:
            raise ValueError(
                f"{len(names)} classes to split, expected at least 2: one to train, one to test"
            )
        if self.test_classes is not None:
            train, test = by_name(names, None, self.test_classes, keys=("train", "test_classes"))
            if not train:
                raise ValueError("test_classes names every class: nothing is left to train on")
            return train, test
        if self.fold is None:
            return by_fraction(names, self.train_fraction, self.seed)
        if len(names) < self.folds:
            raise ValueError(
                f"folds is {self.folds}, but there are {len(names)} classes: ask for as many "
                "folds at most"
            )
        return by_fold(names, self.fold, self.folds, self.seed)

    def _deal_pictures(
        self, pictures: Mapping[str, Sequence[T]]
    ) -> tuple[dict[str, list[T]], dict[str, list[T]]]:
        train: dict[str, list[T]] = {}
        test: dict[str, list[T]] = {}
        for name in sorted(pictures):
            # Of its own, so that classes of one size are not all cut at the same places.
            seed = None if self.seed is None else f"{self.seed} {name}"
            if self.fold is not None:
                train[name], test[name] = by_fold(pictures[name], self.fold, self.folds, seed)
            elif len(pictures[name]) < 2:
                train[name], test[name] = list(pictures[name]), []
            else:
                train[name], test[name] = by_fraction(pictures[name], self.train_fraction, seed)
        if not any(train.values()) or not any(test.values()):
            raise ValueError(
                "too few pictures to split by picture: at least one class needs two or more, and "
                "one a fold"
            )
        return (
            {name: found for name, found in train.items() if found},
            {name: found for name, found in test.items() if found},
        )
