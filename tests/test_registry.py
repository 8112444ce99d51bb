from typing import Literal

import pytest

from reidkit.registry import Registry, UnknownName


@pytest.fixture
def shapes():
    registry = Registry("shape")

    @registry.register("circle")
    class Circle:
        def __init__(self, radius: float, colour: Literal["red", "blue"] = "red", dim: int = 2):
            self.radius, self.colour, self.dim = radius, colour, dim

    @registry.register("square")
    def square(side: float = 1.0):
        return ("square", side)

    return registry


def test_build_coerces_by_the_signature_and_offers_facts(shapes):
    circle = shapes.build("circle", {"radius": "5e-1"}, dim=3, nobody_asked=1)
    assert (circle.radius, circle.colour, circle.dim) == (0.5, "red", 3)
    assert shapes.build("square") == ("square", 1.0)


def test_an_unknown_name_lists_the_known_and_the_nearest(shapes):
    with pytest.raises(
        UnknownName, match=r"unknown shape 'circel'; known: circle, square\. Did.*'circle'"
    ):
        shapes.build("circel")


@pytest.mark.parametrize(
    "args, words",
    [
        ({"radius": 1, "coluor": "red"}, "unknown key 'coluor'.*Did you mean 'colour'"),
        ({"radius": "wide"}, "radius = 'wide'"),
        ({}, "needs 'radius'"),
        ({"radius": 1, "colour": "green"}, "colour = 'green'"),
        ({"radius": 1, "dim": 4}, "dim is set by reidkit"),
    ],
)
def test_arguments_that_do_not_fit_are_told_by_key(shapes, args, words):
    with pytest.raises(ValueError, match=words):
        shapes.build("circle", args, dim=3)


def test_all_faults_are_told_together(shapes):
    assert len(shapes.faults("circle", {"coluor": 1, "colour": "green"})) == 3


def test_build_leaves_the_arguments_as_they_were(shapes):
    args = {"radius": "2"}
    shapes.build("circle", args)
    assert args == {"radius": "2"}


def test_a_name_has_one_owner(shapes):
    with pytest.raises(ValueError, match="already"):

        @shapes.register("circle")
        def other():
            return None
