import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidkit.types import Sample
from reidkit.unsupervised.tracklets import cannot_link, sparse_tracklets


def tracklet(number, span, camid=0, domain="d", pid=-1):
    return Sample((f"{number:04d}.jpg",), pid, camid, domain=domain, span=span)


def tracklets(*spans):
    return [tracklet(number, span) for number, span in enumerate(spans)]


def overlap(one, other):
    """A slow twin: two samples of one known camera that share a moment."""
    if (one.domain, one.camid) != (other.domain, other.camid) or one.camid < 0:
        return False
    if one.span is None or other.span is None:
        return False
    return one.span[0] <= other.span[1] and other.span[0] <= one.span[1]


def pairs_of(found):
    return {frozenset(pair) for pair in found.pairs.tolist()}


def moment_spans(longest=15):
    return st.tuples(st.integers(0, 60), st.integers(0, longest)).map(
        lambda found: (float(found[0]), float(found[0] + found[1]))
    )


@st.composite
def many(draw, known=True):
    """Up to 25 samples in two domains of cameras; `known` ones know when and where they are."""
    spans = moment_spans() if known else st.none() | moment_spans()
    rows = draw(
        st.lists(
            st.tuples(spans, st.integers(0 if known else -1, 1), st.sampled_from("ab")),
            max_size=25,
        )
    )
    return [tracklet(number, *row) for number, row in enumerate(rows)]


# What cannot be linked


def test_tracklets_that_overlap_in_time_cannot_be_linked():
    found = cannot_link(tracklets((0, 10), (5, 20), (15, 30), (40, 50), (2, 3)))
    assert pairs_of(found) == {frozenset(p) for p in [(0, 1), (1, 2), (0, 4)]}
    assert (found.groups == -1).all()


def test_touching_at_an_end_is_overlapping():
    assert pairs_of(cannot_link(tracklets((0, 10), (10, 20), (21, 30)))) == {frozenset((0, 1))}
    assert pairs_of(cannot_link(tracklets((5, 5), (5, 5)))) == {frozenset((0, 1))}


def test_other_cameras_and_domains_unknown_times_and_unknown_cameras_say_nothing():
    samples = [
        tracklet(0, (0, 9)),
        tracklet(1, (0, 9), camid=1),
        tracklet(2, (0, 9), domain="e"),
        tracklet(3, None),
        tracklet(4, (0, 9), camid=-1),
        tracklet(5, (0, 9), camid=-1),
    ]
    found = cannot_link(samples)
    assert found.pairs.shape == (0, 2)
    assert (found.groups == -1).all()


@settings(deadline=None)
@given(many(known=False))
def test_the_sweep_finds_the_pairs_of_the_double_loop_each_once(samples):
    expected = {
        frozenset((i, j))
        for i in range(len(samples))
        for j in range(i)
        if overlap(samples[i], samples[j])
    }
    found = cannot_link(samples)
    assert pairs_of(found) == expected
    assert len(found.pairs) == len(expected)
    assert len(found) == len(samples)
    assert found.pairs.dtype == found.groups.dtype == np.int64


@settings(deadline=None)
@given(many(known=False), st.randoms(use_true_random=False))
def test_the_pairs_do_not_depend_on_the_order_of_the_samples(samples, random):
    order = list(range(len(samples)))
    random.shuffle(order)
    shuffled = pairs_of(cannot_link([samples[place] for place in order]))
    back = {frozenset(order[place] for place in pair) for pair in shuffled}
    assert back == pairs_of(cannot_link(samples))


def test_within_a_camera_every_two_tracklets_are_two_identities():
    samples = [
        tracklet(0, (0, 9), camid=3),
        tracklet(1, None, camid=3),
        tracklet(2, (0, 9), camid=0),
        tracklet(3, (0, 9), camid=0, domain="e"),
        tracklet(4, (0, 9), camid=-1),
    ]
    found = cannot_link(samples, within_camera=True)
    assert found.groups.tolist() == [1, 1, 0, 2, -1]
    assert found.pairs.shape == (0, 2)
    assert found.broken_by(np.array([0, 0, 1, 1, 1])) == 1


def test_a_hundred_thousand_tracklets_are_swept_without_all_their_pairs():
    samples = [tracklet(number, (10 * number, 10 * number + 10)) for number in range(100_000)]
    assert len(cannot_link(samples).pairs) == 99_999


def test_more_pairs_than_fit_are_refused_before_they_are_made_with_advice():
    # Frames counted within each tracklet: all of a camera start at 0. Neither camera is too many.
    samples = [tracklet(number, (0, 10), camid=number % 2) for number in range(10_000)]
    with pytest.raises(ValueError, match=r"24,995,000 pairs .*within each.*--no-cannot-link"):
        cannot_link(samples)
    assert len(cannot_link(samples, within_camera=True).groups) == 10_000


def test_as_many_pairs_as_may_be_are_made(monkeypatch):
    monkeypatch.setattr("reidkit.unsupervised.tracklets.MOST_PAIRS", 3)
    assert len(cannot_link(tracklets((0, 1), (0, 1), (1, 2))).pairs) == 3
    with pytest.raises(ValueError, match="6 pairs of tracklets overlap in time, more than 3"):
        cannot_link(tracklets(*[(0, 1)] * 4))


@pytest.mark.parametrize("call", [cannot_link, lambda samples: sparse_tracklets(samples, 5)])
@pytest.mark.parametrize("span", [(5, 3), (math.nan, 3), (0, math.inf)])
def test_a_span_that_cannot_be_is_refused(call, span):
    with pytest.raises(ValueError, match=r"the span of 0001\.jpg is .*expected its first and"):
        call(tracklets((0, 1), span))


def test_no_samples_have_no_constraints():
    assert len(cannot_link([])) == len(cannot_link([], within_camera=True)) == 0
    assert sparse_tracklets([], 5) == sparse_tracklets([], 5, simultaneous=True) == []


# Sparse tracklets


def test_a_tracklet_is_kept_that_starts_more_than_the_gap_after_the_last_kept():
    samples = tracklets((0, 10), (5, 12), (14, 20), (16, 30), (36, 40))
    assert sparse_tracklets(samples, 5) == [0, 3, 4]
    assert sparse_tracklets(samples, 4) == [0, 3, 4]
    assert sparse_tracklets(samples, 3) == [0, 2, 4]
    assert sparse_tracklets(samples, 0) == [0, 2, 4]


def test_without_a_gap_touching_tracklets_still_overlap():
    assert sparse_tracklets(tracklets((0, 10), (10, 20), (11, 20)), 0) == [0, 2]


def test_cameras_and_domains_have_clocks_of_their_own():
    samples = [
        tracklet(0, (0, 9)),
        tracklet(1, (0, 9), camid=1),
        tracklet(2, (0, 9), domain="e"),
        tracklet(3, (10, 12)),
    ]
    assert sparse_tracklets(samples, 5) == [0, 1, 2]


def slow_sparse(samples, gap):
    """Ask every tracklet in order of time whether it is clear of all that were kept."""
    kept = []
    for place in sorted(range(len(samples)), key=lambda p: (samples[p].span, samples[p].name)):
        sample = samples[place]
        near = [
            other
            for other in kept
            if (samples[other].domain, samples[other].camid) == (sample.domain, sample.camid)
            and sample.span[0] - samples[other].span[1] <= gap
        ]
        if not near:
            kept.append(place)
    return sorted(kept)


@settings(deadline=None)
@given(many(), st.integers(0, 30))
def test_kept_tracklets_of_a_camera_are_never_within_the_gap_and_none_could_be_added(samples, gap):
    kept = sparse_tracklets(samples, gap)
    assert kept == slow_sparse(samples, gap)
    chosen = [samples[place] for place in kept]
    for i, one in enumerate(chosen):
        for other in chosen[:i]:
            if (one.domain, one.camid) == (other.domain, other.camid):
                early, late = sorted([one.span, other.span])
                assert late[0] - early[1] > gap
    assert not len(cannot_link(chosen).pairs)


@settings(deadline=None)
@given(many(), st.integers(1, 30), st.booleans(), st.randoms(use_true_random=False))
def test_what_is_kept_does_not_depend_on_the_order_of_the_samples(
    samples, gap, simultaneous, random
):
    shuffled = list(samples)
    random.shuffle(shuffled)
    names = [
        {some[place].name for place in sparse_tracklets(some, gap, simultaneous=simultaneous)}
        for some in (samples, shuffled)
    ]
    assert names[0] == names[1]


def test_simultaneous_keeps_all_that_are_alive_at_moments_the_gap_apart():
    samples = tracklets((0, 4), (0, 12), (3, 9), (10, 11), (9, 30), (31, 39), (35, 40))
    # moments 0, 10, 20, 30, 40
    assert sparse_tracklets(samples, 10, simultaneous=True) == [0, 1, 3, 4, 6]


@settings(deadline=None)
@given(many(), st.integers(1, 30))
def test_simultaneous_equals_a_walk_over_all_moments(samples, gap):
    expected = set()
    for domain in "ab":
        for camid in (0, 1):
            places = [
                place
                for place, sample in enumerate(samples)
                if (sample.domain, sample.camid) == (domain, camid)
            ]
            if not places:
                continue
            moment = min(samples[place].span[0] for place in places)
            while moment <= max(samples[place].span[1] for place in places):
                living = [
                    place
                    for place in places
                    if samples[place].span[0] <= moment <= samples[place].span[1]
                ]
                # Those of one moment are different people for certain.
                count = len(living) * (len(living) - 1) // 2
                assert len(cannot_link([samples[place] for place in living]).pairs) == count
                expected.update(living)
                moment += gap
    assert sparse_tracklets(samples, gap, simultaneous=True) == sorted(expected)


@pytest.mark.parametrize("simultaneous", [False, True])
@pytest.mark.parametrize("gap", [-1, math.nan, math.inf])
def test_a_gap_that_cannot_be_is_refused(gap, simultaneous):
    with pytest.raises(ValueError, match=r"gap is .*, expected .* in the units of the spans"):
        sparse_tracklets(tracklets((0, 1)), gap, simultaneous=simultaneous)


def test_moments_without_a_distance_are_refused():
    with pytest.raises(ValueError, match="gap is 0, expected more than 0"):
        sparse_tracklets(tracklets((0, 1)), 0, simultaneous=True)


@pytest.mark.parametrize("simultaneous", [False, True])
def test_unknown_times_and_cameras_are_refused_with_advice(simultaneous):
    samples = tracklets((0, 1), None, None)
    with pytest.raises(ValueError, match=r"2 of 3 samples have no time.*0001\.jpg.*`frame`.*mars"):
        sparse_tracklets(samples, 5, simultaneous=simultaneous)
    lost = [tracklet(0, (0, 1)), tracklet(1, (0, 1), camid=-1)]
    with pytest.raises(ValueError, match=r"1 of 2 samples have no camera.*manifest's `camid`"):
        sparse_tracklets(lost, 5, simultaneous=simultaneous)
