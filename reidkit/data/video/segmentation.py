"""Where persons are in the frames of a video: what a segmenter is, and the one that is asked for.

`background` needs no model and a fixed camera; a weights file brings its own network. Nothing is
downloaded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from reidkit.data.video.background import BackgroundSegmenter
from reidkit.data.video.masks import PersonMask
from reidkit.data.video.reading import Image

BACKGROUND = "background"
TORCHVISION = (".pth", ".pt", ".safetensors")
ONNX = ".onnx"


class Segmenter(Protocol):
    """Finds the persons of frames."""

    def learn(self, samples: Sequence[Image]) -> None:
        """See pictures of the whole video before its frames; a network has nothing to learn."""

    def __call__(self, frames: Sequence[Image]) -> list[list[PersonMask]]:
        """The persons in each of the frames, (H, W, 3) uint8 BGR."""


def make_segmenter(name: str | Path, *, person: int | None = None) -> Segmenter:
    """The segmenter of a name.

    name: "background", or the file of a torchvision Mask R-CNN (.pth, .pt, .safetensors) or of an
    ONNX model that segments persons (.onnx); see `networks.py` for what is expected of them.
    person: index of the class person, where it is not the usual one of that kind of model.

    Raises FileNotFoundError for no such file, ValueError for one that is no such model, and
    ModuleNotFoundError for an ONNX model without onnxruntime.
    """
    if str(name) == BACKGROUND:
        return BackgroundSegmenter()
    path = Path(name)
    kinds = f"{', '.join(TORCHVISION)} (torchvision Mask R-CNN) or {ONNX}"
    if path.suffix.lower() not in (*TORCHVISION, ONNX):
        raise ValueError(
            f"segmenter is {str(name)!r}, expected {BACKGROUND!r} or a file that ends in {kinds}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no segmentation model {path}, expected a file: {kinds}")
    from reidkit.data.video import networks  # torchvision takes a second to import

    if path.suffix.lower() == ONNX:
        return networks.OnnxSegmenter.open(path, person=person)
    return networks.TorchvisionSegmenter.open(path, person=1 if person is None else person)
