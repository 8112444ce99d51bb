"""The labels that Stepwise Metric Promotion gives a network, round by round."""

import math

import pytest
import torch

from reidkit.types import Features, Sample
from reidkit.unsupervised import METHODS, Labels, NothingToLearn
from reidkit.unsupervised.smp import StepwiseMetricPromotion
from reidkit.unsupervised.tracklets import cannot_link


def world(people=12, cameras=3, per_camera=1, noise=0.05, seed=0, domain=""):
    """Tracklets of all people in all cameras, shuffled; spans of one camera do not overlap."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(people, 16, generator=draw)
    samples, rows = [], []
    for camera in range(cameras):
        for pid in range(people):
            for number in range(per_camera):
                start = 10.0 * (pid * per_camera + number)
                samples.append(
                    Sample(
                        (f"{camera}/{pid}/{number}",),
                        pid,
                        camera,
                        "",
                        "",
                        domain,
                        (start, start + 5),
                    )
                )
                rows.append(centres[pid] + noise * torch.randn(16, generator=draw))
    order = torch.randperm(len(samples), generator=draw).tolist()
    return Features(torch.stack([rows[i] for i in order]), tuple(samples[i] for i in order))


def method(**args):
    return METHODS.build("smp", args)


def pids_of(features, labels):
    """The identities in each class."""
    return [
        {features.samples[int(i)].pid for i in (labels.labels == number).nonzero()}
        for number in range(labels.classes)
    ]


def test_at_first_every_tracklet_is_a_class_among_those_of_its_camera():
    features = world(people=3, cameras=2)
    labels = method().label(features, 0, None)
    assert labels.labels.tolist() == list(range(6))
    expected = [[sample.camid == 0, sample.camid == 1, False] for sample in features.samples]
    assert labels.groups.tolist() == expected
    assert labels.matches.shape == (0, 2) and not labels.done
    assert labels.told == {"matches": 0, "clusters": 0, "singles": 6, "passed_over": 0}


def test_later_the_tracklets_of_a_person_are_one_class():
    features = world()
    labels = method(k=4).label(features, 1, None)
    assert labels.classes == 12
    assert all(len(pids) == 1 for pids in pids_of(features, labels))
    assert labels.told == {"matches": 36, "clusters": 12, "singles": 0, "passed_over": 0}
    assert labels.groups.all()  # each was seen by all cameras, and is matched
    first, second = labels.matches.t()
    assert features.pids[first].equal(features.pids[second])
    assert (features.camids[first] != features.camids[second]).all()


def test_matched_clusters_push_one_another_and_single_tracklets_only_their_camera():
    features = Features(
        torch.eye(5)[[0, 1, 0, 1, 4]],
        tuple(Sample((str(i),), -1, camera) for i, camera in enumerate((0, 0, 1, 1, 1))),
    )
    labels = method(k=1).label(features, 1, None)
    assert labels.labels.tolist() == [0, 1, 0, 1, 2]
    both, right_only = [True, True, True], [False, True, False]
    assert labels.groups.tolist() == [both, both, right_only]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("noise", [0.05, 0.7])
def test_classes_are_contiguous_and_nobody_is_twice_in_a_camera(metric, gate, noise):
    features = world(people=20, cameras=4, noise=noise)
    labels = method(metric=metric, gate=gate).label(features, 1, None)
    assert labels.labels.unique().equal(torch.arange(labels.classes))
    assert cannot_link(features.samples, within_camera=True).broken_by(labels.labels.numpy()) == 0
    assert labels.groups.shape == (labels.classes, 5)
    for number in range(labels.classes):
        members = (labels.labels == number).nonzero()[:, 0]
        cameras = features.camids[members]
        assert labels.groups[number, :4].nonzero()[:, 0].equal(cameras.sort().values)
        assert bool(labels.groups[number, 4]) == (len(members) > 1)
    assert labels.told["clusters"] + labels.told["singles"] == labels.classes
    one, other = labels.matches.t()
    assert labels.labels[one].equal(labels.labels[other])


def test_the_order_of_the_samples_makes_no_difference():
    features = world(people=15, cameras=3, noise=0.6)
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(1))
    shuffled = Features(features.vectors[order], tuple(features.samples[i] for i in order.tolist()))
    labels, again = (method(k=5).label(each, 1, None) for each in (features, shuffled))
    same = labels.labels[order][:, None] == labels.labels[order]
    assert same.equal(again.labels[:, None] == again.labels)
    assert labels.told == again.told
    pairs = {frozenset(pair) for pair in labels.matches.tolist()}
    assert pairs == {frozenset(order[pair].tolist()) for pair in again.matches}


def test_the_scale_of_the_features_makes_no_difference():
    features = world(noise=0.4)
    for metric in ("cosine", "euclidean"):
        labels = method(metric=metric).label(features, 1, None)
        larger = Features(100 * features.vectors, features.samples)
        assert labels.labels.equal(method(metric=metric).label(larger, 1, None).labels)


def test_two_tracklets_of_a_camera_may_meet_through_another_where_that_is_allowed():
    # People 0 and 1 in three cameras; camera 0 has two tracklets of person 0.
    where = [
        (0, 0, 0.0),
        (0, 0, 0.2),
        (1, 0, 1.6),
        (0, 1, 0.02),
        (1, 1, 1.62),
        (0, 2, 0.18),
        (1, 2, 1.58),
    ]
    vectors = torch.tensor([[math.cos(angle), math.sin(angle)] for _, _, angle in where])

    def labelled(same_camera, second):
        spans = [(0.0, 5.0), second, *[(50.0 + 9 * i, 51.0 + 9 * i) for i in range(5)]]
        samples = tuple(
            Sample((str(i),), pid, camera, span=span)
            for i, ((pid, camera, _), span) in enumerate(zip(where, spans, strict=True))
        )
        labels = method(k=1, same_camera=same_camera).label(Features(vectors, samples), 1, None)
        return labels.labels.tolist()

    together = labelled("allow", (7.0, 9.0))
    assert together[0] == together[1] != together[2]
    for how in (("allow", (3.0, 9.0)), ("forbid", (7.0, 9.0))):
        apart = labelled(*how)
        assert apart[0] != apart[1]


def test_cameras_of_two_domains_are_different_cameras():
    one, two = world(people=4, cameras=1, domain="a"), world(people=4, cameras=1, domain="b")
    both = Features(torch.cat([one.vectors, two.vectors]), one.samples + two.samples)
    labels = method(k=2).label(both, 1, None)
    assert labels.groups.shape[1] == 3
    assert labels.told["matches"] == 4


def labels_of(matches):
    return Labels(
        torch.zeros(1, dtype=torch.int64), matches=torch.zeros(matches, 2, dtype=torch.int64)
    )


def test_it_is_done_when_after_four_rounds_the_number_of_matches_stays():
    features, smp = world(people=5, cameras=2), method()
    assert len(smp.label(features, 1, None).matches) == 5
    done = {number: smp.label(features, number, labels_of(5)).done for number in range(7)}
    assert done == {0: False, 1: False, 2: False, 3: False, 4: True, 5: True, 6: True}
    assert not smp.label(features, 4, labels_of(4)).done
    assert not smp.label(features, 4, None).done
    assert method(patience=2).label(features, 2, labels_of(5)).done


def test_the_same_arguments_give_the_same_labels():
    features = world(noise=0.5)
    first, second = (method().label(features, 2, None) for _ in range(2))
    assert first.labels.equal(second.labels) and first.matches.equal(second.matches)


def test_the_true_identities_are_not_looked_at():
    features = world(noise=0.5)
    blind = Features(
        features.vectors,
        tuple(Sample(s.frames, -1, s.camid, span=s.span) for s in features.samples),
    )
    assert method().label(features, 1, None).labels.equal(method().label(blind, 1, None).labels)


def test_features_that_are_all_the_same_match_nobody_and_advise():
    features = world()
    same = Features(torch.ones(len(features), 4), features.samples)
    with pytest.raises(NothingToLearn, match=r"no tracklets of two cameras match: raise k \(10\)"):
        method().label(same, 1, None)


NONE = Features(torch.empty(0, 4), ())


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    "features, message",
    [
        (NONE, r"0 tracklets of 0 camera\(s\)"),
        (world(people=1, cameras=1), r"1 tracklets of 1 camera\(s\).*two cameras or more"),
        (world(people=5, cameras=1), r"5 tracklets of 1 camera\(s\).*cluster_contrast or buc"),
        (world(people=1, cameras=3), r"each of the 3 cameras has a single tracklet"),
        (
            Features(torch.eye(3), tuple(Sample((f"{i}.jpg",), -1, i - 1) for i in range(3))),
            r"1 of 3 samples have no camera \(0.jpg\).*name the cameras",
        ),
    ],
)
def test_where_there_is_nothing_to_learn_a_sentence_advises(features, number, message):
    with pytest.raises(NothingToLearn, match=message):
        method().label(features, number, None)


def test_features_that_are_not_finite_are_refused_by_name():
    features = world(people=3, cameras=2)
    features.vectors[4, 2] = math.nan
    with pytest.raises(ValueError, match=rf"features of {features.samples[4].name} are not finite"):
        method().label(features, 1, None)


@pytest.mark.parametrize(
    "args, message",
    [
        ({"k": 0}, r"k is 0"),
        ({"sigma": 0.0}, r"sigma is 0.0"),
        ({"patience": 0}, r"patience is 0"),
        ({"combine": "mean"}, r"combine"),
        ({"metric": "manhattan"}, r"metric"),
        ({"same_camera": "maybe"}, r"same_camera"),
        ({"keep": ()}, r"keep is \[\], expected shares"),
        ({"keep": (0.5, 1.5)}, r"keep is \[0.5, 1.5\], expected shares in \(0, 1\]"),
        ({"begin": "end"}, r"begin"),
    ],
)
def test_arguments_that_cannot_be_are_refused(args, message):
    with pytest.raises(ValueError, match=message):
        method(**args)
    with pytest.raises(ValueError, match=message):
        StepwiseMetricPromotion(**args)


def test_a_first_round_of_matches_is_the_second_round_of_one_that_begins_with_cameras():
    features = world(noise=0.8)
    begun = method(begin="matches").label(features, 0, None)
    later = method().label(features, 1, None)
    assert begun.labels.equal(later.labels) and begun.matches.equal(later.matches)


def test_the_surest_matches_are_kept_in_the_share_of_the_round():
    features = world(noise=1.5, per_camera=1, people=20)
    whole = method(same_camera="allow").label(features, 1, None)
    keeping = method(same_camera="allow", keep=(0.25, 0.5, 1.0))
    found = [keeping.label(features, number, None) for number in (1, 2, 3, 9)]
    counts = [len(labels.matches) for labels in found]
    total = len(whole.matches)
    assert counts == [math.ceil(0.25 * total), math.ceil(0.5 * total), total, total]
    pairs = [{tuple(pair) for pair in labels.matches.tolist()} for labels in found]
    assert pairs[0] < pairs[1] < pairs[2] == pairs[3]
    right = [
        float((features.pids[m[:, 0]] == features.pids[m[:, 1]]).double().mean())
        for m in (found[0].matches, found[2].matches)
    ]
    assert right[0] > right[1]
