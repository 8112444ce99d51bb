import torch

from reidkit.evaluation import pairwise
from reidkit.types import Features, Sample
from reidkit.unsupervised import Labels, Round, label_shuffled, self_training


def labels(*values, **more):
    return Labels(torch.tensor(values), **more)


def record(findings):
    """A `find` that gives these one after another, a `train`, and what both were called with."""
    calls = []

    def find(number, previous):
        calls.append(("find", number, previous))
        return findings[number]

    def train(wanted):
        calls.append(("train", wanted.number, wanted.labels))

    return find, train, calls


def test_each_round_finds_labels_and_then_trains_on_them():
    a, b = labels(0, 1), labels(0, 0)
    find, train, calls = record([a, b])
    self_training(find, train, rounds=2)
    assert calls == [("find", 0, None), ("train", 0, a), ("find", 1, a), ("train", 1, b)]


def test_labels_that_are_done_end_the_rounds_before_they_are_trained_on():
    a, b = labels(0, 1), labels(0, 1, done=True)
    find, train, calls = record([a, b])
    self_training(find, train, rounds=9)
    assert calls == [("find", 0, None), ("train", 0, a), ("find", 1, a)]


def test_a_round_under_way_is_trained_to_its_end_and_not_labelled_again():
    a, b, c = labels(0, 1), labels(0, 0), labels(1, 0)
    find, train, calls = record([a, b, c])
    self_training(find, train, rounds=3, under_way=Round(1, b))
    assert calls == [("train", 1, b), ("find", 2, b), ("train", 2, c)]


def test_after_the_last_round_nothing_is_labelled():
    a = labels(0, 1)
    find, train, calls = record([])
    self_training(find, train, rounds=1, under_way=Round(0, a))
    assert calls == [("train", 0, a)]


def test_classes_are_counted_from_the_labels():
    assert labels(0, 2, -1, 1).classes == 3
    assert labels(-1, -1).classes == 0
    assert Labels(torch.empty(0, dtype=torch.int64)).classes == 0


class ByPosition:
    """Two neighbours in the list are one: what breaking ties by position amounts to."""

    def label(self, features, round, previous):
        count = len(features)
        groups = torch.arange(count).reshape(-1, 1) // 2 % 3 == torch.arange(3)
        return Labels(
            torch.arange(count) // 2,
            groups[::2],
            torch.arange(count).reshape(-1, 2),
            told={"first": features.pids[0].item()},
        )


def pairs_of_people(count):
    samples = tuple(Sample((), number // 2, 0) for number in range(count))
    return Features(torch.zeros(count, 2), samples)


def test_a_tie_by_position_finds_no_identities_in_a_list_sorted_by_them():
    features = pairs_of_people(200)
    plain = ByPosition().label(features, 0, None)
    assert pairwise(plain.labels, features.pids).precision == 1
    found = label_shuffled(ByPosition(), features, 0, None, seed=0)
    assert pairwise(found.labels, features.pids).precision < 0.1
    assert found.labels.bincount().eq(2).all()


def test_what_was_found_in_another_order_is_told_in_this_one():
    features = pairs_of_people(12)
    found = label_shuffled(ByPosition(), features, 0, None, seed=1)
    firsts = [found.labels.tolist().index(number) for number in range(6)]
    assert firsts == sorted(firsts), "numbered by first appearance"
    one, other = found.matches.t()
    assert found.labels[one].equal(found.labels[other])
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    for place, position in enumerate(order.tolist()):
        assert found.groups[found.labels[position], place // 2 % 3]
    again = label_shuffled(ByPosition(), features, 0, None, seed=1)
    assert again.labels.equal(found.labels)


def test_left_out_samples_stay_left_out_and_the_round_before_is_shown_in_the_same_order():
    features = pairs_of_people(6)

    class Repeats:
        def label(self, features, round, previous):
            assert previous.labels.equal(torch.tensor([-1, 0, 0, 1, 1, -1])[order])
            return Labels(previous.labels)

    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    before = labels(-1, 0, 0, 1, 1, -1)
    found = label_shuffled(Repeats(), features, 1, before, seed=3)
    assert found.labels.tolist() == [-1, 0, 0, 1, 1, -1]
    nobody = labels(-1, -1, -1, -1, -1, -1)
    empty = label_shuffled(ByNobody(), features, 1, nobody, seed=3)
    assert empty.labels.tolist() == [-1] * 6


class ByNobody:
    def label(self, features, round, previous):
        return Labels(torch.full((len(features),), -1))
