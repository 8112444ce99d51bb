"""The synthetic world: procedural people before procedural cameras, in real layouts."""

from reidkit.data.synthetic.benchmark import load
from reidkit.data.synthetic.body import BONES, JOINTS, Body, Gait
from reidkit.data.synthetic.camera import Camera
from reidkit.data.synthetic.market import write_market
from reidkit.data.synthetic.outfit import Outfit
from reidkit.data.synthetic.render import Box, Place, Seen, render, see
from reidkit.data.synthetic.walker import Walker

__all__ = [
    "load",
    "write_market",
    "Walker",
    "Body",
    "Gait",
    "Outfit",
    "JOINTS",
    "BONES",
    "Camera",
    "Place",
    "Box",
    "Seen",
    "see",
    "render",
]
