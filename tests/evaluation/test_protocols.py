"""Every protocol by name, with its source and its rules."""

import re

import pytest

from reidkit.evaluation import PROTOCOLS, protocol
from reidkit.evaluation.metrics import metric
from reidkit.evaluation.protocols import OF_FEATURES, describe
from reidkit.registry import UnknownName

PROMISED = [
    *("market1501", "market1501_matlab", "msmt17", "cuhk03_single_shot", "cuhk03_new", "mars"),
    *("mars_torchreid", "same_class", "cub200", "cars196", "sop", "in_shop", "veri776", "gait3d"),
    "no_camera",
]


def test_the_promised_names_are_all_there():
    assert sorted(PROTOCOLS) == sorted(PROMISED)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_every_reported_score_is_known(name):
    report = PROTOCOLS[name].report
    assert len(set(report)) == len(report)
    for score in set(report) - OF_FEATURES:
        assert callable(metric(score))


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_every_protocol_tells_its_source_and_its_rules(name):
    text = describe(name)
    assert text.startswith(f"{name}: ")
    assert name in ("no_camera", "mars_torchreid") or re.search(r"et al\..* 20\d\d", text)
    assert all(score in text for score in PROTOCOLS[name].report)


@pytest.mark.parametrize(
    "exclude, names",
    [
        (
            "same_camera",
            {"market1501", "market1501_matlab", "msmt17", "cuhk03_new", "cuhk03_single_shot"}
            | {"veri776", "mars", "mars_torchreid"},
        ),
        ("itself", {"same_class", "cub200", "cars196", "sop"}),
        ("nothing", {"gait3d", "in_shop", "no_camera"}),
    ],
)
def test_what_is_left_out(exclude, names):
    assert {name for name, rules in PROTOCOLS.items() if rules.exclude == exclude} == names


def test_only_the_authors_own_code_has_trapezoids():
    found = {name for name, rules in PROTOCOLS.items() if rules.precision == "trapezoid"}
    assert found == {"market1501_matlab", "mars"}
    assert "AP        trapezoids" in describe("mars")


def test_mars_has_two_galleries_and_both_say_so():
    assert protocol("mars").gallery == "all"
    assert protocol("mars_torchreid").gallery == "without_queries"
    assert "12,180" in describe("mars")
    assert "140 of the 1,980" in describe("mars_torchreid")


def test_only_the_classic_cuhk03_is_drawn():
    assert [name for name, rules in PROTOCOLS.items() if rules.single_shot] == [
        "cuhk03_single_shot"
    ]
    assert "expectation over all draws" in describe("cuhk03_single_shot")


@pytest.mark.parametrize("name", ["cub200", "cars196", "sop", "in_shop", "veri776"])
def test_what_nobody_could_check_is_called_unverified(name):
    assert "unverified" in describe(name)


def test_lines_of_a_rule_are_short_enough_for_a_terminal():
    for name in PROTOCOLS:
        assert all(len(line) <= 100 for line in describe(name).splitlines()[1:])


@pytest.mark.parametrize("function", [protocol, describe])
def test_a_misspelt_protocol_names_the_nearest(function):
    with pytest.raises(UnknownName, match=r"unknown protocol 'market1051'.*Did you mean 'market15"):
        function("market1051")
