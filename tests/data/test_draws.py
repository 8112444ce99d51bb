import numpy as np
import pytest

from reidkit.data import erasing
from reidkit.data.draws import Draws, Stream, mix, occurrences, uniform

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def slow_mix(word):
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)


def slow_uniform(seed, epoch, index, repeat, stream, count):
    key = seed & WORD
    for word in (epoch, index, repeat):
        key = slow_mix((slow_mix(key) + GOLDEN * word) & WORD)
    start = slow_mix((key + GOLDEN * stream) & WORD)
    words = [slow_mix((start + GOLDEN * place) & WORD) for place in range(1, count + 1)]
    return [(word >> 11) / 2**53 for word in words]


def test_mixing_a_counter_gives_the_published_numbers_of_splitmix64():
    counter = np.uint64(1234567) + np.uint64(GOLDEN) * np.arange(1, 6, dtype=np.uint64)
    assert mix(counter).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.mark.parametrize("seed, epoch", [(0, 0), (7, 3), (-1, 120), (2**70 + 5, 10**6)])
def test_a_batch_of_numbers_equals_the_hash_one_by_one(seed, epoch):
    indices, repeats = [0, 5, 2**40, 5], [0, 0, 3, 1]
    found = uniform(seed, epoch, indices, repeats, Stream.BLUR, 3)
    for row, index, repeat in zip(found.tolist(), indices, repeats, strict=True):
        assert row == slow_uniform(seed, epoch, index, repeat, int(Stream.BLUR), 3)


def test_an_items_numbers_do_not_depend_on_its_batch_or_on_what_else_is_drawn():
    whole = uniform(1, 2, range(50), [0] * 50, 3, 4)
    np.testing.assert_array_equal(uniform(1, 2, [17], [0], 3, 4)[0], whole[17])
    np.testing.assert_array_equal(uniform(1, 2, [17], [0], 3, 2)[0], whole[17, :2])
    draws = Draws.of(1, 2, range(50), [0] * 50)
    draws.uniform(9, 100)
    next(draws.generators(4)).random(5)
    np.testing.assert_array_equal(draws.take([17, 3]).uniform(3, 4), whole[[17, 3]])


def test_every_part_of_the_key_changes_the_numbers():
    keys = [(0, 0, 0, 0, 0), (1, 0, 0, 0, 0), (0, 1, 0, 0, 0), (0, 0, 1, 0, 0), (0, 0, 0, 1, 0)]
    keys += [(0, 0, 0, 0, 1), (0, 1, 1, 0, 0), (1, 1, 0, 0, 0)]
    firsts = {uniform(a, b, [c], [d], e, 1)[0, 0] for a, b, c, d, e in keys}
    assert len(firsts) == len(keys)


def test_the_numbers_are_spread_evenly_over_the_unit_interval():
    numbers = uniform(3, 1, range(20_000), [0] * 20_000, Stream.MOVE, 5)
    assert numbers.dtype == np.float64
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for column in numbers.T:  # 100 expected in each of 200 boxes: chi-squared 199 +- 20
        counts = np.histogram(column, 200, (0, 1))[0]
        assert 120 < ((counts - 100) ** 2 / 100).sum() < 290


def test_numbers_of_neighbours_do_not_hang_together():
    several = 10_000
    nothing = [0] * several
    first = uniform(0, 0, range(several), nothing, 0, 2)
    others = [
        first[:, 1],
        np.roll(first[:, 0], 1),  # of the index before
        uniform(0, 1, range(several), nothing, 0, 1)[:, 0],
        uniform(1, 0, range(several), nothing, 0, 1)[:, 0],
        uniform(0, 0, range(several), nothing, 1, 1)[:, 0],
        uniform(0, 0, range(several), [1] * several, 0, 1)[:, 0],
    ]
    for other in others:
        assert abs(np.corrcoef(first[:, 0], other)[0, 1]) < 0.04  # four deviations
        pairs = np.histogram2d(first[:, 0], other, 10, ((0, 1), (0, 1)))[0]
        assert 45 < ((pairs - 100) ** 2 / 100).sum() < 170  # chi-squared 99 +- 14


def test_something_of_a_chance_happens_as_often_as_that_and_zero_and_one_are_sure():
    draws = Draws.of(0, 0, range(4000), [0] * 4000)
    assert 900 < len(draws.hits(Stream.BLUR, 0.25)) < 1100
    assert draws.hits(Stream.BLUR, 0.0) == []
    assert len(draws.hits(Stream.BLUR, 1.0)) == 4000


def test_an_items_generator_is_its_own_whatever_was_drawn_before():
    def numbers(indices, first=1):
        draws = Draws.of(5, 1, indices, occurrences(indices))
        found = []
        for generator in draws.generators(Stream.FRAMES):
            found.append(generator.integers(0, 1000, 3, np.uint32).tolist())
            generator.integers(0, 5, first, np.uint32)  # may leave half a word behind
        return found

    whole = numbers(range(6))
    assert numbers([4])[0] == whole[4]
    assert numbers([5, 4, 3], first=2) == [whole[5], whole[4], whole[3]]
    twice = numbers([2, 2])
    assert twice[0] == whole[2] != twice[1]


def test_generators_are_even_over_items():
    draws = Draws.of(0, 0, range(3000), [0] * 3000)
    firsts = [int(generator.integers(0, 10)) for generator in draws.generators(Stream.FRAMES)]
    assert all(240 < firsts.count(value) < 360 for value in range(10))


def test_streams_leave_room_for_the_tries_of_rectangles_and_crops():
    assert len(set(Stream)) == len(Stream.__members__)
    *_, before, rectangle, crop = sorted(Stream)
    assert (rectangle, crop) == (Stream.RECTANGLE, Stream.CROP)
    assert before < rectangle and rectangle + erasing.TRIES <= crop


def test_occurrences_count_what_came_before():
    assert occurrences([4, 2, 4, 4, 2]) == [0, 0, 1, 2, 1]
    assert occurrences([]) == []
