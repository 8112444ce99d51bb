from dataclasses import replace

import pytest
import torch

from reidkit.compose.searching import nearest_identities
from reidkit.types import Features, Sample


def features(vectors, pids):
    return Features.from_arrays(vectors, pids)


def by_hand(query, gallery, count):
    """Every distance, sorted; the first item of each known identity."""
    answers = []
    for vector in query.vectors:
        order = sorted(
            (float((vector - other).norm()), sample.pid)
            for other, sample in zip(gallery.vectors, gallery.samples, strict=True)
        )
        nearest = {}
        for distance, pid in order:
            if pid >= 0:
                nearest.setdefault(pid, distance)
        answers.append(list(nearest.items())[:count])
    return answers


@pytest.mark.parametrize("count", [1, 3, 50])
def test_identities_are_those_of_a_full_sort(count):
    draw = torch.Generator().manual_seed(0)
    query = features(torch.randn(5, 4, generator=draw), [-1] * 5)
    pids = torch.randint(-1, 9, (200,), generator=draw)
    gallery = features(torch.randn(200, 4, generator=draw), pids)
    for found, hand in zip(
        nearest_identities(query, gallery, count, "euclidean"),
        by_hand(query, gallery, count),
        strict=True,
    ):
        assert list(found.pids) == [pid for pid, _ in hand]
        torch.testing.assert_close(
            torch.tensor(found.distances), torch.tensor([d for _, d in hand]), atol=1e-5, rtol=0
        )


def test_gait_features_are_searched_by_the_mean_over_their_parts():
    # Of two parts, (3, 3) is 3 apart in the mean and 4.24 flat, (4.5, 0) 2.25 and 4.5.
    query = replace(features(torch.zeros(1, 2), [-1]), parts=2)
    gallery = replace(features(torch.tensor([[3.0, 3.0], [4.5, 0.0]]), [1, 2]), parts=2)
    (parts,) = nearest_identities(query, gallery, 2, gait_distance="parts")
    (flat,) = nearest_identities(query, gallery, 2, gait_distance="flat")
    assert (parts.pids, parts.distances) == ((2, 1), pytest.approx((2.25, 3.0)))
    assert (flat.pids, flat.distances) == ((1, 2), pytest.approx((18**0.5, 4.5)))


def test_an_identity_behind_hundreds_of_items_of_another_is_found():
    vectors = torch.cat([torch.full((500, 1), 0.1), torch.tensor([[5.0]])])
    gallery = features(vectors, [7] * 500 + [8])
    (found,) = nearest_identities(features(torch.zeros(1, 1), [-1]), gallery, 2, "euclidean")
    assert found.pids == (7, 8)


def test_a_gallery_of_nobody_is_refused():
    with pytest.raises(ValueError, match="knows nobody"):
        nearest_identities(features(torch.ones(1, 2), [1]), features(torch.ones(1, 2), [-1]), 1)


def test_a_packed_sequence_is_named_by_its_store_and_condition():
    from reidkit.compose.searching import Found
    from reidkit.types import StoredFrames

    sample = Sample(StoredFrames("/data/walk", 3, 9), -1, condition="track-001")
    assert Found(sample, (4,), (0.5,)).text() == "walk track-001: id 4 (0.500)"
    assert Found(Sample(("a.png",), -1), (4, 5), (0.5, 1.0)).text() == (
        "a.png: id 4 (0.500), id 5 (1.000)"
    )
