import pytest

from reidkit.data.splits import Split, by_fold, by_fraction, by_name

NAMES = [f"{letter}" for letter in "abcdefghijk"]
PICTURES = {name: [f"{name}{number}" for number in range(7)] for name in NAMES}


def test_a_list_that_is_not_given_is_all_the_others():
    assert by_name("abcd", None, ["b"]) == (["a", "c", "d"], ["b"])
    assert by_name("abcd", ["d", "b"], None) == (["d", "b"], ["a", "c"])
    assert by_name("abcd", ["a"], ["d"]) == (["a"], ["d"])
    assert by_name("abcd", [], None) == ([], ["a", "b", "c", "d"])


@pytest.mark.parametrize(
    "train, test, words",
    [
        (["Greec"], None, r"train names no class 'Greec'; there are: 'Greek', 'Latin'\. Did you"),
        (None, ["x"], r"test names no class 'x'; there are: 'Greek', 'Latin'\.$"),
        (["Greek", "Greek"], None, "train names class 'Greek' twice"),
        (["Greek"], ["Latin", "Greek"], "'Greek' is in both train and test"),
        ([], [], "train and test are both empty"),
    ],
)
def test_names_that_do_not_go_together_are_refused(train, test, words):
    with pytest.raises(ValueError, match=words) as error:
        by_name(["Greek", "Latin"], train, test)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("fraction, count", [(0.3, 3), (0.5, 6), (0.001, 1), (0.999, 10)])
def test_a_fraction_takes_so_many_and_at_least_one_on_each_side(fraction, count, seed):
    train, test = by_fraction(NAMES, fraction, seed)
    assert len(train) == count
    assert sorted(train + test) == NAMES
    assert train == sorted(train) and test == sorted(test)


def test_without_a_seed_the_first_train_and_with_one_the_draw_repeats():
    assert by_fraction(NAMES, 0.3)[0] == ["a", "b", "c"]
    draws = [by_fraction(NAMES, 0.3, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("seed", [None, 0, 3])
@pytest.mark.parametrize("folds", [2, 3, 5, 11])
def test_each_class_is_in_exactly_one_test_fold_and_sizes_differ_by_one_at_most(folds, seed):
    dealt = [by_fold(NAMES, fold, folds, seed) for fold in range(folds)]
    assert sorted(name for _, test in dealt for name in test) == NAMES
    for train, test in dealt:
        assert sorted(train + test) == NAMES
    sizes = [len(test) for _, test in dealt]
    assert max(sizes) - min(sizes) <= 1


def test_a_split_by_class_keeps_all_pictures_of_a_class_together():
    for split in (
        Split(),
        Split(seed=4),
        Split(fold=1),
        Split(fold=1, folds=3, seed=2),
        Split(test_classes=["c", "a"]),
    ):
        train, test = split.deal(PICTURES)
        assert train.keys() | test.keys() == PICTURES.keys()
        assert not train.keys() & test.keys()
        assert {**train, **test} == PICTURES
        assert list(test) == sorted(test)
    assert list(test) == ["a", "c"]


def test_the_order_in_which_classes_are_told_does_not_matter():
    backwards = dict(reversed(PICTURES.items()))
    for split in (Split(seed=1), Split(fold=0, seed=1), Split(seed=1, by="picture")):
        assert split.deal(PICTURES) == split.deal(backwards)


@pytest.mark.parametrize("seed", [None, 5])
def test_by_picture_every_class_is_on_both_sides_and_no_picture_is(seed):
    train, test = Split(0.6, seed, by="picture").deal(PICTURES)
    assert train.keys() == test.keys() == PICTURES.keys()
    for name, pictures in PICTURES.items():
        assert sorted(train[name] + test[name]) == pictures
        assert len(train[name]) == 4


def test_by_picture_the_folds_test_each_picture_once():
    dealt = [Split(fold=fold, folds=3, seed=0, by="picture").deal(PICTURES) for fold in range(3)]
    for name, pictures in PICTURES.items():
        assert sorted(picture for _, test in dealt for picture in test[name]) == pictures


def test_by_picture_another_class_does_not_change_the_draw_of_the_first():
    alone = Split(seed=0, by="picture").deal({"a": PICTURES["a"]})
    among = Split(seed=0, by="picture").deal(PICTURES)
    assert alone[0]["a"] == among[0]["a"]


def test_by_picture_a_class_with_one_picture_trains():
    train, test = Split(by="picture").deal({"a": ["a0"], "b": ["b0", "b1"]})
    assert (train, test) == ({"a": ["a0"], "b": ["b0"]}, {"b": ["b1"]})


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"train_fraction": 0.0}, "train_fraction is 0.0, expected between 0 and 1"),
        ({"train_fraction": float("nan")}, "train_fraction is nan"),
        ({"test_classes": []}, "test_classes is empty"),
        ({"fold": 5}, "fold is 5, expected 0 to 4: folds count from 0"),
        ({"fold": -1}, "fold is -1, expected 0 to 4"),
        ({"folds": 1}, "folds is 1, expected at least 2"),
        ({"by": "people"}, "by is 'people', expected 'class' or 'picture'"),
        ({"fold": 0, "test_classes": ["a"]}, "test_classes and fold both say"),
        ({"by": "picture", "test_classes": ["a"]}, "test_classes goes with by: class"),
    ],
)
def test_values_that_cannot_be_are_refused_before_any_data(arguments, words):
    with pytest.raises(ValueError, match=words):
        Split(**arguments)


@pytest.mark.parametrize(
    "split, pictures, words",
    [
        (Split(), {"a": ["a0"]}, "1 classes to split, expected at least 2"),
        (Split(fold=0), {"a": ["a0"], "b": ["b0"]}, "folds is 5, but there are 2 classes"),
        (Split(test_classes=["z"]), PICTURES, "test_classes names no class 'z'"),
        (Split(test_classes=["a", "b"]), {"a": [1], "b": [2]}, "nothing is left to train on"),
        (Split(by="picture"), {"a": ["a0"], "b": ["b0"]}, "too few pictures to split by picture"),
        (Split(by="picture", fold=4), {"a": ["a0", "a1"]}, "too few pictures"),
    ],
)
def test_too_few_classes_or_pictures_are_refused(split, pictures, words):
    with pytest.raises(ValueError, match=words):
        split.deal(pictures)


def test_of_many_names_a_message_shows_a_few():
    names = [f"class {number}" for number in range(11_000)]
    with pytest.raises(ValueError, match=r"test_classes names no class 'x'; .*10,995 more") as told:
        Split(test_classes=["x"]).deal({name: ["a"] for name in names})
    assert len(str(told.value)) < 200
