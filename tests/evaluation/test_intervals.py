"""Bootstrap intervals over queries: width, coverage, and what is left out."""

import numpy as np
import pytest
import torch

from reidkit.evaluation import intervals
from reidkit.evaluation.intervals import bootstrap


def drawn(queries, scores=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(queries, scores, generator=generator, dtype=torch.float64)


def splitmix64(state):
    """The generator as its paper has it, in whole numbers."""
    whole = 2**64
    while True:
        state = (state + 0x9E3779B97F4A7C15) % whole
        z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % whole
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % whole
        yield z ^ (z >> 31)


def test_the_interval_equals_the_loop_over_repeats():
    values, repeats = drawn(30, 2), 200
    numbers = splitmix64(int(np.random.default_rng(7).integers(2**63)))
    means = []
    for _ in range(repeats):
        chosen = [(next(numbers) >> 32) * 30 >> 32 for _ in range(30)]
        means.append([np.mean([values[q, s] for q in chosen]) for s in range(2)])
    expected = np.quantile(means, [0.05, 0.95], axis=0).T
    found = bootstrap(values, repeats=repeats, level=0.9, seed=7)
    assert (found.shape, found.dtype) == ((2, 2), torch.float64)
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_nineteen_of_twenty_intervals_cover_the_truth():
    # 400 repeats of 100 coin tosses at 0.8: the percentile interval covers a little less than its
    # level; sampling error of the share is about 0.011.
    random = np.random.default_rng(0)
    covered = 0
    for seed in range(400):
        tosses = torch.from_numpy((random.random((100, 1)) < 0.8).astype(float))
        low, high = bootstrap(tosses, repeats=300, seed=seed)[0].tolist()
        covered += low <= 0.8 <= high
    assert 0.91 <= covered / 400 <= 0.98


def test_the_width_is_that_of_the_normal_approximation():
    # 2,000 tosses at one half: 1.96 * sqrt(0.25 / 2000) = 0.0219 to each side.
    tosses = (torch.arange(2000) % 2).double()[:, None]
    low, high = bootstrap(tosses, repeats=2000)[0].tolist()
    assert 0.5 - low == pytest.approx(0.0219, rel=0.1)
    assert high - 0.5 == pytest.approx(0.0219, rel=0.1)


@pytest.mark.parametrize("queries", [2, 5, 50])
def test_the_interval_holds_the_mean(queries):
    values = drawn(queries, 3, seed=queries)
    found, mean = bootstrap(values), values.mean(0)
    assert (found[:, 0] <= mean).all() and (mean <= found[:, 1]).all()


def test_a_higher_level_is_wider():
    values = drawn(40)
    narrow, wide = bootstrap(values, level=0.5)[0], bootstrap(values, level=0.99)[0]
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_one_query_and_equal_values_have_no_width():
    assert bootstrap(torch.tensor([[0.3, 1.0]])).tolist() == [
        [pytest.approx(0.3)] * 2,
        [1.0, 1.0],
    ]
    same = bootstrap(torch.full((7, 1), 0.1, dtype=torch.float64))[0]
    assert same[0] == same[1]


def test_queries_without_a_right_answer_are_left_out():
    values = drawn(20, 2)
    holes = torch.full((5, 2), torch.nan, dtype=torch.float64)
    mixed = torch.cat([holes[:2], values, holes[2:]])
    assert bootstrap(mixed).equal(bootstrap(values))


def test_the_seed_decides_and_the_memory_does_not(monkeypatch):
    values = drawn(50, 2)
    whole = bootstrap(values, repeats=100, seed=3)
    assert whole.equal(bootstrap(values, repeats=100, seed=3))
    assert not whole.equal(bootstrap(values, repeats=100, seed=4))
    monkeypatch.setattr(intervals, "DRAWN", 7 * 50)
    torch.testing.assert_close(bootstrap(values, repeats=100, seed=3), whole, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "values, words",
    [
        (torch.empty(0, 1), "no query has a value"),
        (torch.full((3, 1), torch.nan), "no query has a value"),
        (torch.tensor([[0.5], [torch.inf]]), "must be finite"),
        (torch.ones(3), r"expected floating values \(Q, S\)"),
        (torch.ones(3, 1, dtype=torch.int64), "expected floating values"),
    ],
)
def test_values_that_are_none_are_refused(values, words):
    with pytest.raises(ValueError, match=words):
        bootstrap(values)


@pytest.mark.parametrize("change", [{"repeats": 0}, {"level": 0.0}, {"level": 1.0}, {"level": 95}])
def test_arguments_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match="repeats = "):
        bootstrap(drawn(3), **change)
