"""The published loop: its distances, its metrics, when it ends, and what it cannot learn from."""

import numpy as np
import pytest

from reidkit.unsupervised import NothingToLearn
from reidkit.unsupervised.matching import match_tracklets
from reidkit.unsupervised.promotion import principal, promote, tracklet_distances
from reidkit.unsupervised.xqda import Metric, scatters, xqda

DIM = 12


def world(*counts, frames=6, noise=0.6, shift=1.0, seed=0):
    """Cameras {0: ..., 1: ...} that see the same people in the same order, and change colours.

    Half of the dimensions tell people apart, half are the scene, in which frames differ widely.
    Another seed is other people before the same cameras.
    """
    scenes, draw = np.random.default_rng(100), np.random.default_rng(seed)
    people = 2 * draw.standard_normal((max(counts), DIM // 2))
    cameras = {}
    for camera, count in enumerate(counts):
        scene, colours = (
            3 * scenes.standard_normal(DIM // 2),
            shift * scenes.standard_normal(DIM // 2),
        )
        seen = [
            people[pid] + colours + noise * draw.standard_normal((frames, DIM // 2))
            for pid in range(count)
        ]
        around = [scene + 4 * draw.standard_normal((frames, DIM // 2)) for _ in range(count)]
        cameras[camera] = [np.hstack(both) for both in zip(seen, around, strict=True)]
    return cameras


def ragged(count, seed=0):
    draw = np.random.default_rng(seed)
    return [5 + draw.standard_normal((int(draw.integers(1, 6)), DIM)) for _ in range(count)]


def a_metric(seed):
    draw = np.random.default_rng(seed)
    kernel = draw.standard_normal((4, 4))
    return Metric(
        draw.standard_normal((DIM, 4)), kernel + kernel.T
    )  # not positive: may be negative


def rank1(distances):
    return float((distances.argmin(1) == np.arange(len(distances))).mean())


def test_the_distance_of_tracklets_equals_the_double_loop_over_frames():
    metrics, left, right = [a_metric(0), a_metric(1)], ragged(4), ragged(5, seed=1)
    expected = np.zeros((4, 5))
    for i, p in enumerate(left):
        for j, q in enumerate(right):
            pairs = [(x - y) @ m.matrix @ (x - y) for m in metrics for x in p for y in q]
            expected[i, j] = sum(pairs) / (len(p) * len(q))
    found = tracklet_distances(metrics, left, right)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    assert (found < 0).any()


def test_the_promoted_metric_is_that_of_both_cameras_and_twice_the_matches():
    cameras = world(6, 6)
    learned = promote(cameras, k=3, rounds=1)

    def of(tracklets, labels):
        rows = np.concatenate(tracklets)
        labels = np.repeat(labels, [len(frames) for frames in tracklets])
        return scatters(rows, labels, rows, labels)

    own = [of(cameras[camera], np.arange(6)) for camera in (0, 1)]
    first = {camera: xqda(each) for camera, each in enumerate(own)}
    blocks = {}
    for pair in ((0, 0), (0, 1), (1, 1)):
        blocks[pair] = tracklet_distances(first.values(), *(cameras[camera] for camera in pair))
        if pair[0] == pair[1]:
            np.fill_diagonal(blocks[pair], 0)
    matches = match_tracklets(blocks, k=3)
    assert list(learned.matches[0]) == matches and len(matches) > 1
    both = [cameras[0][m.a] for m in matches] + [cameras[1][m.b] for m in matches]
    matched = of(both, np.tile(np.arange(len(matches)), 2))
    total = [
        own[0].intra + 2 * matched.intra + own[1].intra,
        own[0].extra + 2 * matched.extra + own[1].extra,
    ]
    expected = xqda(type(own[0])(*total))
    (metric,) = learned.metrics[1]
    np.testing.assert_allclose(metric.matrix, expected.matrix, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("counts", [(20, 20), (20, 14, 17)])
def test_matches_are_right_and_ranking_improves(counts):
    cameras = world(*counts)
    test = world(20, 20, seed=7)
    learned = promote(cameras)
    plain = tracklet_distances([Metric(np.eye(DIM), np.eye(DIM))], test[0], test[1])
    right = [match.a == match.b for match in learned.matches[-1]]
    assert len(right) > 0.7 * min(counts) and np.mean(right) > 0.9
    assert rank1(learned.distance(test[0], test[1])) > rank1(plain) + 0.2


def test_permuting_a_camera_permutes_the_matches_of_every_round():
    cameras = world(10, 12)
    order = np.random.default_rng(3).permutation(12)
    permuted = {0: cameras[0], 1: [cameras[1][place] for place in order]}
    found, again = promote(cameras, k=4, gate=True), promote(permuted, k=4, gate=True)
    assert found.history == again.history
    for ours, theirs in zip(found.matches, again.matches, strict=True):
        assert {(m.a, m.b) for m in ours} == {(m.a, int(order[m.b])) for m in theirs}


def test_swapping_the_cameras_transposes_the_matches_of_every_round():
    cameras = world(10, 12)
    found, swapped = promote(cameras), promote({0: cameras[1], 1: cameras[0]})
    for ours, theirs in zip(found.matches, swapped.matches, strict=True):
        assert {(m.a, m.b) for m in ours} == {(m.b, m.a) for m in theirs}


def test_it_ends_when_from_the_fourth_round_on_the_number_of_matches_stays():
    told = []
    learned = promote(world(12, 12), tell=lambda number, found: told.append((number, len(found))))
    assert told == list(enumerate(learned.history))
    history = learned.history
    assert len(history) >= 4 and history[-1] == history[-2]
    assert all(history[r] != history[r - 1] for r in range(3, len(history) - 1))
    assert len(learned.metrics) == len(history)
    assert [len(stage) for stage in learned.metrics] == [2] + [1] * (len(history) - 1)


def test_it_ends_after_the_rounds_that_were_asked_for():
    learned = promote(world(12, 12), rounds=2)
    assert len(learned.matches) == 2 and len(learned.metrics) == 3


def test_two_runs_give_the_same_numbers():
    test = world(5, 5, seed=1)
    first, second = (promote(world(8, 8)).distance(test[0], test[1]) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_camera_of_one_tracklet_and_one_of_none_take_part_as_they_can():
    cameras = world(8, 1, 8)
    learned = promote({**cameras, 3: []}, k=3)
    assert len(learned.metrics[0]) == 2
    assert {(m.cam_a, m.cam_b) for found in learned.matches for m in found} >= {(0, 2)}


def test_tracklets_of_one_frame_are_enough():
    cameras = world(10, 10, frames=1, noise=0.1, shift=0)
    learned = promote({c: [rows[:, : DIM // 2] for rows in each] for c, each in cameras.items()})
    assert learned.history[-1] >= 5
    assert all(match.a == match.b for match in learned.matches[-1])


def test_one_match_adds_nothing_to_the_cameras_metrics_but_is_no_failure():
    cameras = world(3, 1)
    learned = promote(cameras, rounds=1)
    own = scatters(
        np.concatenate(cameras[0]),
        np.repeat(np.arange(3), 6),
        np.concatenate(cameras[0]),
        np.repeat(np.arange(3), 6),
    )
    assert len(learned.matches[0]) == 1
    np.testing.assert_allclose(learned.metrics[1][0].matrix, xqda(own).matrix, rtol=1e-6, atol=1e-9)


def test_where_nothing_matches_the_first_metrics_are_the_result_and_a_sentence_says_so():
    draw = np.random.default_rng(0)
    frames = [draw.standard_normal((4, DIM)), 9 + draw.standard_normal((4, DIM))]
    far = {0: frames, 1: [rows + 1e4 * np.eye(DIM)[0] for rows in frames]}
    learned = promote(far, sigma=1e-3)
    assert learned.history == (0,) and len(learned.metrics) == 1
    assert "raise k" in learned.note
    assert learned.distance(frames, frames).shape == (2, 2)


@pytest.mark.parametrize(
    "cameras, message",
    [
        ({}, r"0 camera\(s\).*two cameras or more"),
        ({0: ragged(5)}, r"1 camera\(s\).*name the cameras"),
        ({0: ragged(5), 1: []}, r"1 camera\(s\)"),
        ({0: ragged(1), 1: ragged(1)}, r"a single tracklet.*give two tracklets or more"),
    ],
)
def test_where_there_is_nothing_to_learn_a_sentence_advises(cameras, message):
    with pytest.raises(NothingToLearn, match=message):
        promote(cameras)


@pytest.mark.parametrize(
    "tracklet, message",
    [
        (np.zeros((0, DIM)), r"tracklet 3 of camera 1 has shape \(0, 12\)"),
        (np.zeros(DIM), r"tracklet 3 of camera 1 has shape \(12,\)"),
        (np.zeros((2, 5)), r"tracklets of \[5, 12\] dimensions"),
        (np.full((2, DIM), np.nan), r"tracklet 3 of camera 1 is not finite"),
    ],
)
def test_tracklets_that_are_none_are_refused(tracklet, message):
    with pytest.raises(ValueError, match=message):
        promote({0: ragged(4), 1: [*ragged(3), tracklet]})


def test_rounds_and_dimensions_below_one_are_refused():
    with pytest.raises(ValueError, match=r"rounds is 0, expected at least 1"):
        promote(world(4, 4), rounds=0)
    with pytest.raises(ValueError, match=r"dim is 0, expected at least 1"):
        principal(ragged(4), 0)


def test_principal_axes_are_as_many_as_there_can_be():
    tracklets = ragged(8)
    assert principal(tracklets).n_components_ == DIM
    assert principal(tracklets, 3).transform(tracklets[0]).shape == (len(tracklets[0]), 3)
    assert principal(ragged(2)[:1] + ragged(2)[:1], 600).n_components_ == 2 * len(ragged(2)[0]) - 1
