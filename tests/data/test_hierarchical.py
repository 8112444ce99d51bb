from collections import Counter
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidkit.data import labels_of, train_loader
from reidkit.data.hierarchical import HierarchicalBatches, apportion, members_of
from reidkit.types import Preprocessing, Sample

# 4 groups of 5 identities with 4 to 6 samples.
LABELS = [identity for identity in range(20) for _ in range(4 + identity % 3)]
GROUPS = [f"group {label % 4}" for label in LABELS]


def batches_of(labels=LABELS, groups_of=GROUPS, **options):
    options = {"identities": 4, "instances": 3, "groups": 2} | options
    return HierarchicalBatches(labels, [p % 2 for p in range(len(labels))], groups_of, **options)


@st.composite
def worlds(draw):
    """Samples of each identity of each group, and the batches to make of them."""
    sizes = draw(
        st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=9), min_size=1, max_size=7)
    )
    people = sum(map(len, sizes))
    identities = draw(st.integers(1, min(people, 10)))
    groups = draw(st.integers(1, min(identities, len(sizes))))
    return sizes, identities, groups


@settings(max_examples=150, deadline=None)
@given(worlds(), st.integers(1, 4), st.booleans(), st.integers(0, 3))
def test_every_identity_comes_and_batches_are_p_identities_of_few_groups(
    world, instances, balanced, seed
):
    sizes, identities, groups = world
    labels, groups_of, label = [], [], 0
    for group, people in enumerate(sizes):
        for count in people:
            labels += [label] * count
            groups_of += [str(group)] * count
            label += 1
    group_of = dict(zip(labels, groups_of, strict=True))
    options = {"identities": identities, "instances": instances, "groups": groups, "seed": seed}
    sampler = batches_of(labels, groups_of, camera_balanced=balanced, **options)
    batches = list(sampler)
    assert len(batches) == len(sampler) == len(list(sampler))
    seen = set()
    for batch in batches:
        assert len(batch) == identities * instances
        rows = [batch[start : start + instances] for start in range(0, len(batch), instances)]
        people = [{labels[position] for position in row} for row in rows]
        assert all(len(person) == 1 for person in people)
        people = set.union(*people)
        assert len(people) == identities
        for row in rows:
            assert len(set(row)) == min(instances, labels.count(labels[row[0]]))
        met = Counter(group_of[person] for person in people)
        emptied = [group for group, count in met.items() if count == len(sizes[int(group)])]
        # One more group comes only where those of the batch have no more identities.
        assert len(met) <= groups or len(emptied) >= len(met) - 1
        assert len(met) >= groups
        seen |= people
    assert seen == set(range(label))


def test_where_groups_suffice_each_gives_its_share():
    for batch in batches_of():
        met = Counter(GROUPS[position] for position in batch)
        assert sorted(met.values()) == [6, 6]
    for batch in batches_of(identities=5, groups=2):
        met = Counter(GROUPS[position] for position in batch)
        assert sorted(met.values()) == [6, 9]


def test_one_group_a_batch_is_a_batch_of_one_group():
    for batch in batches_of(groups=1):
        assert len({GROUPS[position] for position in batch}) == 1


def test_the_rest_of_a_small_group_comes_from_its_partner_before_any_other():
    labels = [0] * 4 + [label for label in range(1, 21) for _ in range(4)]
    groups_of = ["small" if label == 0 else f"large {label % 2}" for label in labels]
    seen = Counter()
    for batch in batches_of(labels, groups_of, identities=8, instances=2):
        met = Counter(groups_of[position] for position in batch)
        assert len(met) == 2
        seen[met["small"] // 2] += 1
    assert seen[1] >= 1 and set(seen) == {0, 1}


def test_groups_too_small_together_take_from_a_third():
    labels = list(range(9))
    groups_of = [str(label // 3) for label in labels]
    for batch in batches_of(labels, groups_of, identities=8, instances=1):
        assert len({groups_of[position] for position in batch}) == 3


def test_every_pair_of_groups_meets():
    meetings = Counter()
    sampler = batches_of()
    for epoch in range(60):
        sampler.set_epoch(epoch)
        for batch in sampler:
            meetings[tuple(sorted({GROUPS[position] for position in batch}))] += 1
    assert len(meetings) == 6
    assert max(meetings.values()) < 1.5 * min(meetings.values())


def test_an_epoch_gives_groups_and_identities_their_share():
    labels = [label for label in range(40) for _ in range(12 if label < 8 else 3)]
    groups_of = ["abcd"[label % 4] if label < 32 else "e" for label in labels]
    tally, batches = Counter(), 0
    sampler = batches_of(labels, groups_of, identities=4, instances=3, groups=2)
    for epoch in range(40):
        sampler.set_epoch(epoch)
        for batch in sampler:
            tally.update(labels[position] for position in batch)
            batches += 1
    assert len(sampler) == round(len(labels) / 12)
    for group in "abcde":
        members = {label for label, name in zip(labels, groups_of, strict=True) if name == group}
        samples = groups_of.count(group)
        came = sum(tally[label] for label in members) / batches / 12
        assert came == pytest.approx(samples / len(labels), rel=0.15)
        for label in members:
            expected = labels.count(label) / samples
            share = tally[label] / sum(tally[other] for other in members)
            assert share == pytest.approx(expected, rel=0.35)


def test_one_seed_gives_the_same_batches_and_epochs_differ():
    first, again, other = batches_of(seed=1), batches_of(seed=1), batches_of(seed=2)
    np.random.seed(0)
    assert list(first) == list(again) == list(first)
    assert list(first) != list(other)
    again.set_epoch(1)
    assert list(first) != list(again)
    assert len(first) == len(again)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_take_slices_that_are_the_single_batch_together(world):
    ranks = [list(batches_of(seed=3, rank=rank, world=world)) for rank in range(world)]
    whole = [list(chain(*parts)) for parts in zip(*ranks, strict=True)]
    assert whole == list(batches_of(seed=3))
    mixed = [len({GROUPS[position] for position in batch}) == 2 for batch in ranks[0]]
    assert world == 4 or any(mixed)  # a rank is no group


def test_skip_starts_inside_the_same_epoch_once():
    whole, resumed = batches_of(), batches_of()
    whole.set_epoch(4)
    resumed.skip(3)
    resumed.set_epoch(4)
    assert list(resumed) == list(whole)[3:]
    assert list(resumed) == list(whole)


def test_unknown_identities_never_come_whatever_their_group():
    labels, groups_of = [0, 0, 1, 1, -1, -1], ["a", "a", "b", "b", "a", "c"]
    sampler = batches_of(labels, groups_of, identities=2, instances=2)
    assert {position for batch in sampler for position in batch} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "options, words",
    [
        ({"groups": 0}, "groups is 0, expected from 1 to the 4 identities of a batch"),
        ({"groups": 5}, "groups is 5, expected from 1 to the 4 identities"),
        ({"identities": 10, "groups": 6}, "groups is 6, but the samples have 4; expected no more"),
        ({"identities": 21}, "needs at least 21 identities; found 20"),
        ({"world": 3}, "4 identities do not divide among 3 ranks"),
    ],
)
def test_impossible_batches_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        batches_of(**options)


def test_labels_and_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="2 labels but 1 super-classes"):
        batches_of([0, 1], ["a"], identities=1, groups=1)
    with pytest.raises(ValueError, match="label 1 has samples of the groups 'a' and 'b'"):
        batches_of([0, 1, 1], ["a", "a", "b"], identities=1, groups=1)


def test_members_are_places_among_the_sorted_labels():
    assert members_of([7, 3, -1, 5, 3], ["b", "a", "x", "a", "a"]) == [[0, 1], [2]]


@given(st.data())
def test_turns_add_up_within_their_bounds_and_in_proportion(data):
    batches = data.draw(st.integers(1, 30))
    least = data.draw(st.lists(st.integers(1, batches), min_size=1, max_size=8))
    groups = data.draw(st.integers(1, len(least)))
    least = np.array(least)
    if least.sum() > batches * groups:
        least[:] = 1
        batches = max(batches, -(-len(least) // groups))
    weights = np.array(data.draw(st.lists(st.floats(0.1, 50), min_size=len(least), max_size=8)))
    weights = np.resize(weights, len(least))
    turns = np.array(apportion(weights, least, batches, groups))
    assert turns.sum() == batches * groups
    assert (turns >= least).all() and (turns <= batches).all()
    # Nobody free to give has more than one turn above another who is free to take.
    for giver, taker in pairwise(np.random.default_rng(0).permutation(len(least)).tolist() * 2):
        if turns[giver] > least[giver] and turns[taker] < batches:
            given = weights[giver] / (turns[giver] - 0.5)
            assert given >= weights[taker] / (turns[taker] + 0.5) * (1 - 1e-12)


def test_the_loader_takes_groups_from_domains_and_conditions(picture):
    samples = [
        Sample(
            (str(picture(f"{n}.png", n)),), n // 2, condition="ab"[n % 4 // 2], domain="xy"[n // 8]
        )
        for n in range(16)
    ]
    labels, _ = labels_of(samples)
    options = {"preprocessing": Preprocessing(size=(8, 4)), "identities": 2, "instances": 2}
    loader = train_loader(samples, labels, groups=1, **options)
    for batch in loader:
        assert len({(samples[i].domain, samples[i].condition) for i in batch.index.tolist()}) == 1
    with pytest.raises(ValueError, match="groups is 5, expected from 1 to the 2"):
        train_loader(samples, labels, groups=5, **options)
    with pytest.raises(ValueError, match="groups is 1, expected None for samples at random"):
        train_loader(samples, labels, groups=1, sampling="random", **options)
