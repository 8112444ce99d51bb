"""Doubted labels: by hand, against a double loop, and with labels exchanged on purpose."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidkit.evaluation.label_errors import doubt_labels
from reidkit.types import EvalProtocol, Features, Sample

KINDS = ["same_camera", "nothing", "itself", "same_view"]


def on_a_line(places, pids, camids=None):
    vectors = torch.tensor(places, dtype=torch.float32)[:, None]
    return Features.from_arrays(vectors, pids, camids)


def slow_doubts(query, gallery, exclude, agree, margin, copy):
    """The rule as its docstring tells it, one pair at a time, Euclidean."""
    one_set = query is gallery
    nobody = 0 if all(s.pid != 0 for s in query.samples) else -1
    sides = {"query": query, "gallery": gallery}

    def distance(side, i, j):
        gap = sides[side].vectors[i].double() - gallery.vectors[j].double()
        return float(gap.norm())

    def counts(side, i, j):
        x, g = sides[side].samples[i], gallery.samples[j]
        if g.pid == -1 or ((side == "gallery" or one_set) and i == j):
            return False
        if x.frames and x.frames == g.frames:
            return False
        return not (
            (exclude == "same_camera" and (x.pid, x.camid) == (g.pid, g.camid))
            or (exclude == "same_view" and x.view == g.view)
        )

    def near(side, i):
        valid = [j for j in range(len(gallery)) if counts(side, i, j)]
        return sorted((distance(side, i, j), j) for j in valid)

    def own(side, i):
        pid = sides[side].samples[i].pid
        if pid in (-1, nobody):
            return None
        return next((d for d, j in near(side, i) if gallery.samples[j].pid == pid), None)

    known = [d for i in range(len(query)) if (d := own("query", i)) is not None]
    if not known:
        return []
    usual = float(np.quantile(known, 0.75))

    def doubted(side, i):
        x, listed = sides[side].samples[i], near(side, i)
        pids = [gallery.samples[j].pid for _, j in listed[:agree]]
        if not listed or pids[0] in (x.pid, nobody):
            return None
        if len(pids) == agree and len(set(pids)) == 1 and listed[0][0] <= usual:
            count = agree
        elif listed[0][0] <= copy * usual:
            count = 1
        else:
            return None
        mine, reach = own(side, i), listed[count - 1][0]
        measure = usual if mine is None else mine
        if measure > reach and measure >= margin * reach:
            return side, i, pids[0], count
        return None

    found = [doubted("query", i) for i in range(len(query))]
    if not one_set:
        closest = {}
        for i, x in enumerate(query.samples):
            for d, j in near("query", i)[:agree]:
                if gallery.samples[j].pid != x.pid and d <= usual:
                    closest[j] = min(d, closest.get(j, d))
        suspects = sorted(closest, key=closest.get)[: len(query)]
        found += [doubted("gallery", j) for j in suspects]
    return sorted(doubt for doubt in found if doubt)


def told(found):
    return sorted((d.side, d.position, d.suggested, len(d.evidence)) for d in found.doubts)


def test_a_query_amid_another_identity_is_in_doubt_and_its_evidence_is_named():
    # Own identities stand 6, 1, 1, 1 and 1 away: the usual distance is 1. Query 0 says 1, but 0.1,
    # 0.2 and 0.3 away stand three of identity 2, and its own only at 6.
    query = on_a_line([0.0, 7.0, 20.0, 22.0, 5.0], [1, 1, 3, 3, 1])
    gallery = on_a_line([0.1, -0.2, 0.3, 6.0, 21.0], [2, 2, 2, 1, 3])
    found = doubt_labels(query, gallery, "no_camera", metric="euclidean")
    assert found.usual == pytest.approx(1.0)
    (doubt,) = found.doubts
    assert (doubt.side, doubt.position, doubt.pid, doubt.suggested) == ("query", 0, 1, 2)
    assert doubt.evidence == (0, 1, 2)
    assert doubt.distances == pytest.approx((0.1, 0.2, 0.3))
    assert (doubt.own, doubt.own_distance) == (3, pytest.approx(6.0))


def test_a_nearby_own_identity_takes_the_doubt_away():
    # As above, but its own stands at 0.4: less than 1.5 times as far as the third.
    query = on_a_line([0.0, 7.0, 20.0], [1, 1, 3])
    gallery = on_a_line([0.1, -0.2, 0.3, 6.0, 21.0, -0.4], [2, 2, 2, 1, 3, 1])
    found = doubt_labels(query, gallery, "no_camera", metric="euclidean")
    assert not [doubt for doubt in found.doubts if doubt.side == "query"]


def test_almost_the_same_picture_under_two_names_is_enough():
    # Own identities stand 6, 1 and 1 away: the usual distance, at 0.75 of the way, is 3.5. 0.05 is
    # within a tenth of it; one of identity 2 is all there is.
    query = on_a_line([0.0, 7.0, 20.0], [1, 1, 3])
    gallery = on_a_line([0.05, 3.0, 6.0, 21.0], [2, 4, 1, 3])
    (first, *_) = doubt_labels(query, gallery, "no_camera", metric="euclidean").doubts
    assert (first.side, first.position, first.suggested, first.evidence) == ("query", 0, 2, (0,))


def test_a_gallery_item_with_a_wrong_label_is_found_from_the_queries_it_disturbs():
    # The item at 0.1 says 2; the three around it and the query say 1.
    query = on_a_line([0.0, 30.0], [1, 2])
    gallery = on_a_line([0.1, 0.5, -0.6, 0.7, 31.0, 32.0], [2, 1, 1, 1, 2, 2])
    found = doubt_labels(query, gallery, "no_camera", metric="euclidean")
    assert [(d.side, d.position, d.pid, d.suggested) for d in found.doubts] == [
        ("gallery", 0, 2, 1)
    ]


def test_distractors_agree_on_nothing_but_may_be_somebody():
    # Three distractors beside query 0 are no identity; the one at 30.1 is amid identity 3.
    query = on_a_line([0.0, 7.0, 30.0], [1, 1, 3])
    gallery = on_a_line([0.1, 0.2, 0.3, 6.0, 30.1, 30.5, 30.6, 30.65], [0, 0, 0, 1, 0, 3, 3, 3])
    found = doubt_labels(query, gallery, "no_camera", metric="euclidean", margin=1.0)
    assert [(d.side, d.position, d.suggested, d.own) for d in found.doubts] == [
        ("gallery", 4, 3, None)
    ]


def test_pid_0_is_an_identity_where_a_query_has_it():
    query = on_a_line([0.0, 7.0, 20.0], [1, 1, 0])
    gallery = on_a_line([0.1, -0.2, 0.3, 6.0, 21.0], [0, 0, 0, 1, 0])
    (doubt, *_) = doubt_labels(query, gallery, "no_camera", metric="euclidean").doubts
    assert (doubt.side, doubt.position, doubt.suggested) == ("query", 0, 0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(KINDS),
    agree=st.integers(1, 3),
    margin=st.sampled_from([1.0, 1.5]),
    one_set=st.booleans(),
)
def test_the_doubts_are_those_of_the_double_loop(seed, kind, agree, margin, one_set):
    random = np.random.default_rng(seed)

    def side(count, name):
        pids = random.integers(-1 if name == "gallery" and not one_set else 1, 5, count)
        centres = 3 * pids[:, None] * np.array([1.0, -1.0])
        # Some stand amid another identity.
        centres[random.random(count) < 0.3] = 3 * random.integers(1, 5) * np.array([1.0, -1.0])
        vectors = centres + random.standard_normal((count, 2))
        samples = tuple(
            Sample((f"{name}{i}",) if random.random() < 0.5 else (), int(pid), i % 3, str(i % 2))
            for i, pid in enumerate(pids)
        )
        return Features(torch.from_numpy(vectors.astype(np.float32)), samples)

    gallery = side(40, "gallery")
    query = gallery if one_set else side(12, "query")
    found = doubt_labels(
        query, gallery, EvalProtocol(kind), metric="euclidean", agree=agree, margin=margin
    )
    assert told(found) == slow_doubts(query, gallery, kind, agree, margin, 0.1)


def test_an_item_with_more_excluded_neighbours_than_the_first_look_is_still_judged():
    # 50 of its own camera stand at its place, and count for nothing; behind them three of another.
    query = on_a_line([0.0, 40.0], [1, 5], [0, 0])
    gallery = on_a_line(
        [0.0] * 50 + [0.1, 0.2, 0.3, 30.0, 41.0],
        [1] * 50 + [2, 2, 2, 1, 5],
        [0] * 50 + [1, 1, 1, 1, 1],
    )
    found = doubt_labels(query, gallery, "market1501", metric="euclidean")
    (doubt,) = [d for d in found.doubts if d.side == "query"]
    assert (doubt.position, doubt.suggested, doubt.evidence) == (0, 2, (50, 51, 52))


def test_exchanged_labels_are_found_and_few_others_are_doubted(clustered):
    vectors, labels = clustered(30, 10, 32, noise=0.3)
    cameras = torch.arange(len(labels)) % 5
    clean = Features.from_arrays(vectors.float(), labels + 1, cameras)
    assert doubt_labels(clean, clean, "same_class").doubts == ()
    random = np.random.default_rng(0)
    wrong = sorted(random.choice(len(labels), 12, replace=False).tolist())
    samples = list(clean.samples)
    for place in wrong:
        samples[place] = replace(samples[place], pid=(samples[place].pid + 6) % 30 + 1)
    spoilt = replace(clean, samples=tuple(samples))
    found = doubt_labels(spoilt, spoilt, "same_class")
    places = {doubt.position for doubt in found.doubts}
    assert len(places & set(wrong)) > 8
    assert not places - set(wrong)
    assert all(d.suggested == int(labels[d.position]) + 1 for d in found.doubts)


def test_a_collapsed_model_doubts_nobody():
    side = Features.from_arrays(torch.ones(20, 3), [i % 5 for i in range(20)])
    assert doubt_labels(side, side, "same_class").doubts == ()


def test_without_any_right_answer_nothing_is_measured():
    found = doubt_labels(on_a_line([0.0], [1]), on_a_line([0.1], [2]), "no_camera")
    assert (found.doubts, found.examined) == ((), 0)
    assert np.isnan(found.usual)


@pytest.mark.parametrize("change", [{"agree": 0}, {"margin": 0.5}, {"copy": 2.0}, {"copy": -1.0}])
def test_settings_that_mean_nothing_are_refused(change):
    side = on_a_line([0.0, 1.0], [1, 1])
    with pytest.raises(ValueError, match="expected agree >= 1, margin >= 1"):
        doubt_labels(side, side, "same_class", **change)
