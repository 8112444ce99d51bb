"""Persons by a segmentation network, from a weights file that the user has.

- A torchvision Mask R-CNN with ResNet-50 and FPN, of the first or the second version: its
  state_dict as .pth (read with weights_only) or .safetensors. Class 1 is person, as in COCO.
- An ONNX model for semantic segmentation with one input (1, 3, h, w) float32, RGB in [0, 1] less
  the mean and by the deviation of ImageNet, h and w fixed or free. Its first output is
  (1, 1, h', w'), a probability or a logit of person, or (1, C, h', w') with C class scores. The
  class of person is 1 of 2 and 15 of 21 (Pascal VOC); for another C name it. People who touch are
  one part of such a map.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import detection

from reidkit.data.video.masks import PersonMask, persons_in
from reidkit.data.video.reading import Image

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
USUAL_PERSON = {2: 1, 21: 15}  # by the number of classes
CLASSES = "roi_heads.box_predictor.cls_score.weight"
SECOND_VERSION = "roi_heads.box_head.0.0.weight"
COUNTER = "num_batches_tracked"  # only training reads it; published weights have none


class TorchvisionSegmenter:
    """Persons by an instance segmentation model of torchvision.

    Args:
        model: gives {boxes (N, 4), labels (N,), scores (N,), masks (N, 1, H, W)} for each of a list
            of images (3, H, W) RGB in [0, 1].
        person: label of a person.
        least_score: what is less sure is no person.
        device: where the model computes; "auto" takes CUDA where there is some.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        person: int = 1,
        least_score: float = 0.7,
        device: str = "auto",
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.model = model.eval().to(self.device)
        self.person = person
        self.least_score = least_score

    @classmethod
    def open(
        cls, path: Path, *, person: int = 1, min_size: int = 800, device: str = "auto"
    ) -> "TorchvisionSegmenter":
        """The model of a weights file; pictures are scaled to a shorter side of `min_size`.

        Raises ValueError for a file that holds no Mask R-CNN.
        """
        return cls(build_mask_rcnn(path, min_size=min_size), person=person, device=device)

    def learn(self, samples: Sequence[Image]) -> None:
        """Nothing: a network knows persons already."""

    @torch.inference_mode()
    def __call__(self, frames: Sequence[Image]) -> list[list[PersonMask]]:
        """The persons in each frame, from left to right."""
        found = []
        for frame in frames:  # one by one: masks of a whole frame each take much memory
            rgb = np.ascontiguousarray(frame[..., ::-1].transpose(2, 0, 1))
            image = torch.from_numpy(rgb).to(self.device).float() / 255
            found.append(self._persons(self.model([image])[0]))
        return found

    def _persons(self, output: Mapping[str, Tensor]) -> list[PersonMask]:
        is_person = (output["labels"] == self.person) & (output["scores"] >= self.least_score)
        persons = []
        for mask, score in zip(
            output["masks"][is_person], output["scores"][is_person].tolist(), strict=True
        ):
            body = ((mask[0] > 0.5).to(torch.uint8) * 255).cpu().numpy()
            left, top, width, height = cv2.boundingRect(body)
            if width and height:
                box = (left, top, left + width, top + height)
                persons.append(
                    PersonMask(box, body[top : top + height, left : left + width].copy(), score)
                )
        return sorted(persons, key=lambda person: person.box)


def build_mask_rcnn(path: Path, *, min_size: int = 800) -> nn.Module:
    """The Mask R-CNN whose state_dict is in `path`, with as many classes as that has."""
    state = read_state(path)
    if CLASSES not in state or state[CLASSES].ndim != 2:
        raise ValueError(
            f"{path} is no torchvision Mask R-CNN: no {CLASSES!r}; expected the state_dict of "
            "maskrcnn_resnet50_fpn or maskrcnn_resnet50_fpn_v2"
        )
    build = detection.maskrcnn_resnet50_fpn
    if SECOND_VERSION in state:
        build = detection.maskrcnn_resnet50_fpn_v2
    model: nn.Module = build(
        weights=None,
        weights_backbone=None,
        num_classes=len(state[CLASSES]),
        min_size=min_size,
        max_size=max(1333, 2 * min_size),
    )
    try:
        fit = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # sizes that differ
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"{path} does not fit {build.__name__}: {reason}") from error
    absent = [name for name in fit.missing_keys if not name.endswith(COUNTER)]
    faults = [("lacks", absent), ("has besides", fit.unexpected_keys)]
    words = [f"{verb} {len(names)}, such as {names[0]}" for verb, names in faults if names]
    if words:
        raise ValueError(f"{path} does not fit {build.__name__}: {'; '.join(words)}")
    return model


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file, the latter without running what it holds."""
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise ValueError(f"{path} is no weights file: {_first_line(error)}") from error
    except Exception as error:  # pickle's own errors, which torch passes on
        raise ValueError(
            f"{path} holds more than tensors, or is damaged; expected a state_dict, as "
            f"`torch.save(model.state_dict(), FILE)` writes it ({type(error).__name__})"
        ) from error
    for name in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path} holds no state_dict: names with tensors are expected")
    return state


class OnnxSegmenter:
    """Persons by an ONNX model that gives a map of classes; see the head of this module.

    Args:
        session: an onnxruntime.InferenceSession.
        name: what to call it in messages.
        person: class of person; None takes the usual one of so many classes.
    """

    def __init__(
        self, session: Any, *, name: str = "ONNX model", person: int | None = None
    ) -> None:
        self.session = session
        self.name = name
        self.person = person
        inputs = session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3):
            raise ValueError(
                f"{name} takes {[one.shape for one in inputs]}, expected one input (1, 3, H, W)"
            )
        if inputs[0].type != "tensor(float)":
            raise ValueError(f"{name} takes {inputs[0].type}, expected tensor(float)")
        self._input = inputs[0].name
        self._sides = tuple(side if isinstance(side, int) else None for side in shape[2:])

    @classmethod
    def open(cls, path: Path, *, person: int | None = None) -> "OnnxSegmenter":
        """The model of a file.

        Raises ModuleNotFoundError without onnxruntime, ValueError for a file that is no such model.
        """
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{path} needs onnxruntime: pip install 'reidkit[export]'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=onnxruntime.get_available_providers()
            )
        except Exception as error:  # onnxruntime has its own, without a common base
            raise ValueError(f"{path} is no ONNX model: {_first_line(error)}") from error
        return cls(session, name=str(path), person=person)

    def learn(self, samples: Sequence[Image]) -> None:
        """Nothing: a network knows persons already."""

    def __call__(self, frames: Sequence[Image]) -> list[list[PersonMask]]:
        """The persons in each frame, from left to right."""
        return [persons_in(self.mask(frame)) for frame in frames]

    def mask(self, frame: Image) -> NDArray[np.uint8]:
        """Where the frame (H, W, 3) shows persons, (H, W), 0 or 255."""
        height, width = frame.shape[:2]
        rows, columns = self._sides[0] or height, self._sides[1] or width
        fewer = rows * columns < height * width
        small = cv2.resize(
            frame, (columns, rows), interpolation=cv2.INTER_AREA if fewer else cv2.INTER_LINEAR
        )
        image = (small[..., ::-1].astype(np.float32) / 255 - MEAN) / STD
        batch = np.ascontiguousarray(image.transpose(2, 0, 1))[None]
        try:
            output = self.session.run(None, {self._input: batch})[0]
        except Exception as error:  # onnxruntime has its own, without a common base
            raise ValueError(
                f"{self.name} fails on a frame of {width} x {height}: {_first_line(error)}"
            ) from error
        sure = cv2.resize(self._sureness(np.asarray(output)), (width, height))
        return np.where(sure > 0, np.uint8(255), np.uint8(0))

    def _sureness(self, output: NDArray) -> NDArray[np.float32]:
        """How far person is ahead of the rest, (h, w); above 0 it is a person."""
        if output.ndim != 4 or output.shape[0] != 1 or output.dtype.kind != "f":
            raise ValueError(
                f"{self.name} gives {output.dtype} {output.shape}, expected float (1, 1, H, W) or "
                "(1, C, H, W), a map of classes"
            )
        scores = output[0].astype(np.float32)
        if len(scores) == 1:
            probability = scores.min() >= 0 and scores.max() <= 1
            return scores[0] - 0.5 if probability else scores[0]
        person = USUAL_PERSON.get(len(scores), -1) if self.person is None else self.person
        if not 0 <= person < len(scores):
            raise ValueError(
                f"{self.name} gives {len(scores)} classes, and person is "
                f"{'not named' if self.person is None else self.person}; "
                f"expected person in [0, {len(scores)})"
            )
        others = np.delete(scores, person, axis=0).max(axis=0)
        return scores[person] - others


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
