from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidkit.data import FixedLength, IdentityBatches, LengthBuckets, RandomBatches
from reidkit.data.dealing import Hand, deal_plan, shares

LABELS = [identity for identity in range(10) for _ in range(3 + 2 * identity)]
CAMIDS = [position % 3 for position in range(len(LABELS))]


def batches_of(**options):
    options = {"identities": 4, "instances": 4} | options
    return IdentityBatches(LABELS, CAMIDS, **options)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=25),
    identities=st.integers(1, 8),
    instances=st.integers(1, 5),
    balanced=st.booleans(),
    seed=st.integers(0, 3),
)
def test_every_batch_is_p_identities_with_k_samples(sizes, identities, instances, balanced, seed):
    identities = min(identities, len(sizes))
    labels = [identity for identity, size in enumerate(sizes) for _ in range(size)]
    camids = [position % 2 for position in range(len(labels))]
    sampler = IdentityBatches(
        labels,
        camids,
        identities=identities,
        instances=instances,
        seed=seed,
        camera_balanced=balanced,
    )
    batches = list(sampler)
    assert len(batches) == len(sampler)
    seen = set()
    for batch in batches:
        rows = [batch[start : start + instances] for start in range(0, len(batch), instances)]
        people = [{labels[position] for position in row} for row in rows]
        assert all(len(person) == 1 for person in people)
        people = set.union(*people)
        assert len(people) == identities
        seen |= people
        for row in rows:
            assert len(row) == instances
            assert len(set(row)) == min(instances, sizes[labels[row[0]]])
    assert seen == set(range(len(sizes)))
    expected = max(round(len(labels) / (identities * instances)), -(-len(sizes) // identities))
    assert len(sampler) == expected


def test_an_epoch_gives_each_identity_its_share_and_each_sample_about_once():
    tally = Counter()
    for epoch in range(50):
        sampler = batches_of()
        sampler.set_epoch(epoch)
        tally.update(position for batch in sampler for position in batch)
    people = Counter()
    for position, times in tally.items():
        people[LABELS[position]] += times
    for identity in range(1, 10):  # identity 0 has less than K samples: its place is larger
        assert people[identity] / 50 == pytest.approx(3 + 2 * identity, rel=0.15)
    assert set(tally) == set(range(len(LABELS)))
    big = [tally[position] / 50 for position, label in enumerate(LABELS) if label == 9]
    assert min(big) > 0.75
    assert max(big) < 1.25


def test_one_seed_gives_the_same_batches_and_epochs_differ():
    first, again, other = batches_of(seed=1), batches_of(seed=1), batches_of(seed=2)
    np.random.seed(0)
    assert list(first) == list(again) == list(first)
    assert list(first) != list(other)
    again.set_epoch(1)
    assert list(first) != list(again)


@pytest.mark.parametrize("make", [batches_of, lambda **o: RandomBatches(40, 8, **o)])
def test_ranks_take_slices_that_are_the_single_batch_together(make):
    ranks = [list(make(seed=3, rank=rank, world=2)) for rank in range(2)]
    assert [left + right for left, right in zip(*ranks, strict=True)] == list(make(seed=3))


@pytest.mark.parametrize("make", [batches_of, lambda **o: RandomBatches(40, 8, **o)])
def test_skip_starts_inside_the_same_epoch_once(make):
    whole = make(seed=3)
    whole.set_epoch(4)
    resumed = make(seed=3)
    resumed.skip(2)
    resumed.set_epoch(4)
    assert len(resumed) == len(whole)
    assert list(resumed) == list(whole)[2:]
    assert list(resumed) == list(whole)
    resumed.skip(len(whole))
    assert list(resumed) == []
    with pytest.raises(ValueError, match="cannot skip -1"):
        resumed.skip(-1)


def test_unknown_identities_never_come():
    labels = [0, 0, 1, 1, -1, -1]
    sampler = IdentityBatches(labels, [0] * 6, identities=2, instances=2)
    assert {position for batch in sampler for position in batch} == {0, 1, 2, 3}


def test_cameras_take_turns_where_asked():
    camids = [0] * 18 + [1, 2]
    options = {"identities": 1, "instances": 3}
    balanced = IdentityBatches([0] * 20, camids, camera_balanced=True, **options)
    assert all({camids[p] for p in batch} == {0, 1, 2} for batch in balanced)
    plain = IdentityBatches([0] * 20, camids, **options)
    assert not all({camids[p] for p in batch} == {0, 1, 2} for batch in plain)


def test_too_few_identities_are_named():
    words = "identities x instances = 12 x 4 needs at least 12 identities; found 10"
    with pytest.raises(ValueError, match=words):
        batches_of(identities=12)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"identities": 0}, "at least 1"),
        ({"instances": 0}, "at least 1"),
        ({"world": 3}, "4 identities do not divide among 3 ranks"),
        ({"rank": 2, "world": 2}, "rank is 2"),
    ],
)
def test_impossible_batches_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        batches_of(**options)
    with pytest.raises(ValueError, match="2 labels but 1 camids"):
        IdentityBatches([0, 1], [0], identities=1, instances=1)


def test_random_batches_are_a_shuffle_cut_in_pieces():
    batches = list(RandomBatches(23, 5, seed=1))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5]
    flat = [position for batch in batches for position in batch]
    assert len(set(flat)) == 20
    assert flat != sorted(flat)
    assert set(flat) < set(range(23))


def test_random_batches_larger_than_the_set_are_refused():
    with pytest.raises(ValueError, match="batch size 8, expected from 1 to the 5"):
        RandomBatches(5, 8)
    with pytest.raises(ValueError, match="does not divide among 2"):
        RandomBatches(9, 3, world=2)


def test_length_buckets_hold_all_once_with_like_lengths_together():
    lengths = [3, 9, 1, 9, 4, 2, 8]
    batches = list(LengthBuckets(lengths, batch_size=3))
    assert batches == [[1, 3, 6], [4, 0, 5], [2]]
    assert len(LengthBuckets(lengths, batch_size=3)) == 3


def test_images_stay_in_order_in_length_buckets_and_ranks_share_them():
    assert list(LengthBuckets([1] * 5, batch_size=2)) == [[0, 1], [2, 3], [4]]
    ranks = [list(LengthBuckets([1] * 5, batch_size=2, rank=rank, world=2)) for rank in (0, 1)]
    assert ranks == [[[0, 1], [4]], [[2, 3]]]
    assert list(LengthBuckets([], batch_size=2)) == []
    with pytest.raises(ValueError, match="batch size 0"):
        LengthBuckets([1], batch_size=0)


def test_shares_expect_the_exact_proportion():
    sizes, draws = [1.0, 2.5, 4.5], 400
    total = np.zeros(3)
    for seed in range(draws):
        places = shares(sizes, 4, 2, np.random.default_rng(seed))
        assert sum(places) == 8
        total += places
    # 4.5 is capped at the 4 batches; the other 4 places are shared as 1 : 2.5.
    assert total / draws == pytest.approx([8 / 7, 20 / 7, 4], abs=0.06)


def test_who_meets_whom_in_a_batch_is_spread_evenly():
    meetings = np.zeros((6, 6))
    for seed in range(400):
        for row in deal_plan([2] * 6, 4, 3, np.random.default_rng(seed)):
            meetings[np.ix_(row, row)] += 1
    pairs = meetings[np.triu_indices(6, 1)] / 400
    assert pairs == pytest.approx(4 * 3 / 15, rel=0.15)


def test_a_hand_deals_every_card_before_any_again():
    hand = Hand([(position, 0) for position in range(10)], np.random.default_rng(0))
    dealt = [card for _ in range(6) for card in hand.deal(5)]
    for start in (0, 10, 20):
        assert sorted(dealt[start : start + 10]) == list(range(10))


def test_a_small_hand_repeats_evenly():
    hand = Hand([(7, 0), (8, 1)], np.random.default_rng(0))
    assert sorted(Counter(hand.deal(5)).values()) == [2, 3]


def test_long_sequences_come_in_smaller_batches():
    batches = list(LengthBuckets([100, 3, 40, 40, 40, 2], batch_size=3, frames=80))
    assert batches == [[0], [2, 3], [4, 1], [5]]
    assert sorted(place for batch in batches for place in batch) == list(range(6))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max([100, 3, 40, 40, 40, 2][i] for i in batch) <= 80


@pytest.mark.parametrize("batches", [1, 3, 25, 60])
def test_a_fixed_length_is_several_epochs_or_a_part_of_one(batches):
    inner = batches_of(seed=5)
    fixed = FixedLength(batches_of(seed=5), batches)
    generator = np.random.default_rng((5, 2))
    expected = []
    while len(expected) < batches:
        expected += inner.draw(generator)
    fixed.set_epoch(2)
    assert len(fixed) == batches
    assert list(fixed) == expected[:batches]
    fixed.set_epoch(3)
    assert list(fixed) != expected[:batches]


def test_ranks_share_the_batches_of_a_fixed_length_and_a_skip_leaves_out_the_first():
    whole = list(FixedLength(batches_of(), 7))
    parts = [list(FixedLength(batches_of(rank=rank, world=2), 7)) for rank in (0, 1)]
    assert [one + other for one, other in zip(*parts, strict=True)] == whole
    sampler = FixedLength(batches_of(), 7)
    sampler.skip(4)
    assert list(sampler) == whole[4:]


def test_a_fixed_length_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"batches is 0, expected 1 or more"):
        FixedLength(batches_of(), 0)
