"""Which samples form a batch. Each is a batch sampler: an iterable of lists of positions."""

from collections.abc import Iterator, Sequence

import numpy as np

from reidkit.data.dealing import Hand, deal_plan, shares


class EpochSampler:
    """What samplers for training share: an epoch, batches to skip, and a rank's slice of every
    batch.

    All ranks draw the same batches and take their own slice, so that they need no messages, and the
    slices in the order of ranks are the batch that a single process would see.
    """

    def __init__(self, batch_size: int, seed: int, rank: int, world: int) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank is {rank}, expected in [0, {world})")
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self._epoch = 0
        self._skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw the batches of this epoch at the next iteration."""
        self._epoch = epoch

    def skip(self, batches: int) -> None:
        """Start the next iteration, and only that one, from this batch; `len` stays."""
        if batches < 0:
            raise ValueError(f"cannot skip {batches} batches; expected 0 or more")
        self._skip = batches

    def draw(self, generator: np.random.Generator) -> list[list[int]]:
        """All batches of an epoch, for all ranks together."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[list[int]]:
        start, self._skip = self._skip, 0
        share = self.batch_size // self.world
        own = slice(self.rank * share, (self.rank + 1) * share)
        for batch in self.draw(np.random.default_rng((self.seed, self._epoch)))[start:]:
            yield batch[own]


class IdentityBatches(EpochSampler):
    """P x K batches: `identities` different identities with `instances` samples each, one identity
    after another.

    Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, arXiv:1703.07737,
    section 2. An epoch has max(N / (P K) rounded, the batches that give every identity a place)
    batches. An identity gets places in proportion to its samples and at least one, so that each
    sample comes about once; the samples of one place are different where the identity has at least
    K. Samples with label -1 never come.

    Args:
        labels: identity of each sample, -1 for unknown.
        camids: camera of each sample.
        identities: P, over all ranks; a multiple of `world`.
        instances: K.
        seed: two samplers with one seed give the same batches.
        camera_balanced: let the cameras of an identity take turns, instead of dealing from all its
            samples.
        rank, world: this process and the number of processes.

    Raises ValueError where the labels hold fewer identities than P.
    """

    def __init__(
        self,
        labels: Sequence[int],
        camids: Sequence[int],
        *,
        identities: int,
        instances: int,
        seed: int = 0,
        camera_balanced: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        super().__init__(identities * instances, seed, rank, world)
        if len(labels) != len(camids):
            raise ValueError(
                f"{len(labels)} labels but {len(camids)} camids; one of each is expected"
            )
        product = f"identities x instances = {identities} x {instances}"
        if identities < 1 or instances < 1:
            raise ValueError(f"{product}: both must be at least 1")
        if identities % world:
            raise ValueError(
                f"{product}: {identities} identities do not divide among {world} ranks"
            )
        members: dict[int, list[int]] = {}
        for position, label in enumerate(labels):
            if label >= 0:
                members.setdefault(label, []).append(position)
        if len(members) < identities:
            raise ValueError(
                f"{product} needs at least {identities} identities; found {len(members)} to train "
                "on: set data.batch.identities"
            )
        self.identities = identities
        self.instances = instances
        self._decks = [
            [(position, camids[position] if camera_balanced else 0) for position in members[label]]
            for label in sorted(members)
        ]
        samples = sum(map(len, self._decks))
        self._batches = max(round(samples / self.batch_size), -(-len(members) // identities))

    def __len__(self) -> int:
        return self._batches

    def draw(self, generator: np.random.Generator) -> list[list[int]]:
        """All batches of an epoch: who is in which, then which samples."""
        hands: dict[int, Hand] = {}
        batches: list[list[int]] = []
        for row in self.plan(generator):
            batch: list[int] = []
            for identity in row:
                if identity not in hands:
                    hands[identity] = Hand(self._decks[identity], generator)
                batch += hands[identity].deal(self.instances)
            batches.append(batch)
        return batches

    def plan(self, generator: np.random.Generator) -> list[list[int]]:
        """For each batch of an epoch P different identities, as places among the sorted labels: how
        many places for whom, then which."""
        sizes = [len(deck) / self.instances for deck in self._decks]
        places = shares(sizes, self._batches, self.identities, generator)
        return deal_plan(places, self._batches, self.identities, generator)


class FixedLength(EpochSampler):
    """Epochs of `batches` batches of another sampler: several of its epochs, or a part of one.

    For labels that change from round to round, so that an epoch stays as long as it was.
    """

    def __init__(self, sampler: EpochSampler, batches: int) -> None:
        super().__init__(sampler.batch_size, sampler.seed, sampler.rank, sampler.world)
        if batches < 1:
            raise ValueError(f"batches is {batches}, expected 1 or more an epoch")
        self.sampler = sampler
        self.batches = batches

    def __len__(self) -> int:
        return self.batches

    def draw(self, generator: np.random.Generator) -> list[list[int]]:
        """The first `batches` batches of as many epochs as that takes."""
        found: list[list[int]] = []
        while len(found) < self.batches:
            found += self.sampler.draw(generator)
        return found[: self.batches]


class RandomBatches(EpochSampler):
    """`batch_size` of `count` samples at a time in random order; each comes at most once an epoch.

    The rest that fills no batch is left out of this epoch. `batch_size` counts over all ranks.
    Raises ValueError where it does not divide among them, or exceeds `count`.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int = 0, *, rank: int = 0, world: int = 1
    ) -> None:
        super().__init__(batch_size, seed, rank, world)
        if not 1 <= batch_size <= count:
            raise ValueError(
                f"batch size {batch_size}, expected from 1 to the {count} samples there are"
            )
        if batch_size % world:
            raise ValueError(f"batch size {batch_size} does not divide among {world} ranks")
        self.count = count

    def __len__(self) -> int:
        return self.count // self.batch_size

    def draw(self, generator: np.random.Generator) -> list[list[int]]:
        """All batches of an epoch: a shuffle, cut."""
        order = generator.permutation(self.count)[: len(self) * self.batch_size]
        batches: list[list[int]] = order.reshape(-1, self.batch_size).tolist()
        return batches


class LengthBuckets:
    """All samples once, those of similar length together, so that little is padded; the longest
    first.

    The longest first, because a batch that does not fit into memory should say so at once. A batch
    holds at most `batch_size` samples, and at most `frames` frames once padded, unless one sample
    alone has more. Of several ranks, each takes every `world`-th batch, without padding: their
    numbers of batches may differ by one.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        batch_size: int,
        frames: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch size {batch_size}, expected at least 1")
        if not 0 <= rank < world:
            raise ValueError(f"rank is {rank}, expected in [0, {world})")
        order = sorted(range(len(lengths)), key=lambda position: -lengths[position])
        batches: list[list[int]] = []
        start = 0
        while start < len(order):
            longest = max(lengths[order[start]], 1)
            count = batch_size if frames is None else min(batch_size, max(frames // longest, 1))
            batches.append(order[start : start + count])
            start += count
        self._batches = batches[rank::world]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        yield from self._batches
