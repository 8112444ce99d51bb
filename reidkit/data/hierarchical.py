"""P x K batches whose identities come from a few super-classes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reidkit.data.dealing import deal_plan, shares
from reidkit.data.samplers import IdentityBatches


class HierarchicalBatches(IdentityBatches):
    """P x K batches whose identities come from only `groups` super-classes, so that the negatives
    are alike: bicycles among bicycles and chairs.

    After the batches of Cakir et al., Deep Metric Learning to Rank, CVPR 2019. Each of the groups
    of a batch gives P / `groups` of its identities, or all where it has fewer; what is missing then
    comes from the other groups of the batch, and from one more only where these have no more. An
    epoch has as many batches as those of `IdentityBatches`, or as many as give every identity a
    place. A group comes in proportion to its samples, as far as it can be once in a batch, and so
    does an identity within its group.

    Args:
        labels: identity of each sample, -1 for unknown.
        camids: camera of each sample.
        super_classes: group of each sample, one for all samples of an identity.
        identities, instances, seed, camera_balanced, rank, world: as of `IdentityBatches`.
        groups: how many super-classes meet in a batch, [1, identities].

    Raises ValueError as `IdentityBatches` does, where an identity has samples of two groups, and
    where there are fewer groups than `groups`.
    """

    def __init__(
        self,
        labels: Sequence[int],
        camids: Sequence[int],
        super_classes: Sequence[str],
        *,
        identities: int,
        instances: int,
        groups: int,
        seed: int = 0,
        camera_balanced: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        super().__init__(
            labels,
            camids,
            identities=identities,
            instances=instances,
            seed=seed,
            camera_balanced=camera_balanced,
            rank=rank,
            world=world,
        )
        if len(super_classes) != len(labels):
            raise ValueError(
                f"{len(labels)} labels but {len(super_classes)} super-classes; one of each is "
                "expected"
            )
        if not 1 <= groups <= identities:
            raise ValueError(
                f"data.batch.groups is {groups}, expected from 1 to the {identities} identities "
                "of a batch"
            )
        self.groups = groups
        self._members = members_of(labels, super_classes)  # of each group, as places in the decks
        if len(self._members) < groups:
            raise ValueError(
                f"data.batch.groups is {groups}, but the samples have {len(self._members)}; "
                "expected no more than they have: a group is what `condition` says of a sample"
            )
        lengths = np.array([len(members) for members in self._members])
        self._chunks = np.minimum(lengths, identities // groups)  # identities a group gives a batch
        least = -(-lengths // self._chunks)  # batches in which all of its identities have a place
        self._batches = max(
            round(sum(map(len, self._decks)) / self.batch_size),
            int(least.max()),
            -(-int(least.sum()) // groups),
        )
        samples = [sum(len(self._decks[one]) for one in members) for members in self._members]
        self._turns = apportion(samples / self._chunks, least, self._batches, groups)

    def plan(self, generator: np.random.Generator) -> list[list[int]]:
        """Which groups meet, who comes for each of them, and who fills what is left."""
        meetings = deal_plan(self._turns, self._batches, self.groups, generator)
        chunks = [
            iter(self._deal(group, turns, generator)) for group, turns in enumerate(self._turns)
        ]
        rows = []
        for meeting in meetings:
            row = [identity for group in meeting for identity in next(chunks[group])]
            row += self._rest(row, meeting, generator)
            # Each rank takes a slice, and is to see all groups.
            rows.append(generator.permutation(row).tolist())
        return rows

    def _deal(self, group: int, turns: int, generator: np.random.Generator) -> list[list[int]]:
        """Different identities of the group for each of its turns; every one comes."""
        members, chunk = self._members[group], int(self._chunks[group])
        sizes = [len(self._decks[identity]) / self.instances for identity in members]
        plan = deal_plan(shares(sizes, turns, chunk, generator), turns, chunk, generator)
        return [[members[place] for place in row] for row in plan]

    def _rest(
        self, row: Sequence[int], meeting: Sequence[int], generator: np.random.Generator
    ) -> list[int]:
        """Who fills a batch: others of its own groups, then of the next ones."""
        rest: list[int] = []
        if len(row) == self.identities:
            return rest
        taken = set(row)
        others = [group for group in range(len(self._members)) if group not in set(meeting)]
        for group in [*generator.permutation(meeting), *generator.permutation(others)]:
            free = [identity for identity in self._members[int(group)] if identity not in taken]
            missing = self.identities - len(row) - len(rest)
            rest += generator.permutation(free)[:missing].tolist()
        return rest


def members_of(labels: Sequence[int], super_classes: Sequence[str]) -> list[list[int]]:
    """The identities of each group, sorted by its name, as places among the sorted labels from 0
    on; a ValueError where samples of one label differ in their group."""
    group_of: dict[int, str] = {}
    for label, group in zip(labels, super_classes, strict=True):
        if label >= 0 and group_of.setdefault(label, group) != group:
            raise ValueError(
                f"label {label} has samples of the groups {group_of[label]!r} and {group!r}; "
                "expected one group for all samples of an identity"
            )
    members: dict[str, list[int]] = {group: [] for group in sorted(set(group_of.values()))}
    for place, label in enumerate(sorted(group_of)):
        members[group_of[label]].append(place)
    return list(members.values())


def apportion(
    weights: NDArray[np.float64], least: NDArray[np.int64], batches: int, groups: int
) -> list[int]:
    """Batches in which each group comes, in proportion to `weights`, from `least` to `batches`
    each, `batches * groups` together.

    One after the other goes to the group that has the fewest for its weight (Webster's and
    Sainte-Lague's method). Needs sum(least) <= batches * groups <= batches * len(weights).
    """
    turns = least.copy()
    for _ in range(batches * groups - int(least.sum())):
        wants = np.where(turns < batches, weights / (turns + 0.5), -1.0)
        turns[wants.argmax()] += 1
    result: list[int] = turns.tolist()
    return result
