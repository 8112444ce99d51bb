"""The synthetic world: procedural people before procedural cameras, in real layouts."""

from reidkit.data.synthetic.benchmark import load
from reidkit.data.synthetic.body import BONES, JOINTS, Body, Gait
from reidkit.data.synthetic.camera import Camera
from reidkit.data.synthetic.casia_b import write_casia_b, write_casia_b_store
from reidkit.data.synthetic.market import write_market
from reidkit.data.synthetic.mars import write_mars
from reidkit.data.synthetic.outfit import Outfit
from reidkit.data.synthetic.render import Box, Place, Seen, render, see
from reidkit.data.synthetic.video import write_video
from reidkit.data.synthetic.walker import Walker
from reidkit.data.synthetic.walking_benchmarks import load_casia_b, load_mars

__all__ = [
    "load",
    "load_casia_b",
    "load_mars",
    "write_market",
    "write_casia_b",
    "write_casia_b_store",
    "write_mars",
    "write_video",
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
