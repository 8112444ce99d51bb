import torch

from reidkit.unsupervised import Labels, Round, self_training


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
