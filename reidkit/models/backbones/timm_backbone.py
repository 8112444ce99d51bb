"""Any backbone of timm, by its name, as a feature map."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from reidkit.models.pretrained import WeightsUnavailable, reachable
from reidkit.models.registries import BACKBONES, refuse

RESERVED = ("model_name", "pretrained", "num_classes", "global_pool", "features_only")


@BACKBONES.register("timm")
class TimmBackbone(nn.Module):
    """Feature map (N, C, h, w) of a timm model without its pooling and classifier.

    Channels-last maps (Swin) are turned, patch tokens (ViT) are laid out on their grid without
    the class and register tokens; an output that is no map is refused.

    Args:
        architecture: timm's name, with or without a weights tag: "resnet10t", "resnet10t.c3_in1k".
        pretrained: timm's weights; raises WeightsUnavailable where they cannot be had.
        last_stride: 1 asks for 1/16 maps: timm's `output_stride=16`, which dilates the last stage.
        args: passed to `timm.create_model` as they are.
        size: (H, W) of the input; models of a fixed size are built for it.
    """

    def __init__(
        self,
        architecture: str,
        pretrained: bool = True,
        last_stride: Literal[1, 2] = 2,
        args: Mapping[str, Any] | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        refuse(self.problems(architecture, args))
        import timm  # takes a second or two, so only those who use it wait

        options = dict(args or {})
        published = timm.get_pretrained_cfg(architecture)
        if last_stride == 1:
            options["output_stride"] = 16
        if size is not None and published is not None and published.fixed_input_size:
            options.setdefault("img_size", tuple(size))
        if pretrained:
            options = with_weights(architecture, published, options)
        try:
            self.body = timm.create_model(
                architecture, pretrained=pretrained, num_classes=0, global_pool="", **options
            )
        except (OSError, ImportError) as error:
            raise unavailable(architecture, first_line(error)) from error
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            given = f" with {options}" if options else ""
            reason = first_line(error)
            raise ValueError(f"timm cannot make {architecture!r}{given}: {reason}") from error
        shape = size or (published.input_size[1:] if published is not None else (224, 224))
        channels = 3 if published is None else options.get("in_chans", published.input_size[0])
        self.out_channels = self._probe(architecture, channels, shape)

    @staticmethod
    def problems(architecture: str, args: Mapping[str, Any] | None) -> list[str]:
        """What is wrong with values whose types are right."""
        import timm

        found = []
        if not timm.is_model(architecture):
            known = timm.list_models()
            close = difflib.get_close_matches(architecture.split(".")[0], known, n=3, cutoff=0.5)
            nearest = f" Nearest: {', '.join(close)}." if close else ""
            found.append(f"timm has no architecture {architecture!r}.{nearest}")
        taken = sorted(set(args or {}) & set(RESERVED))
        if taken:
            found.append(f"args may not set {', '.join(taken)}: reidkit sets these itself")
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, C, h, w)."""
        return self._as_map(self.body(x))

    def _as_map(self, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise ValueError(f"gives a {type(output).__name__}, not one tensor")
        if output.ndim == 4:
            nhwc = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")
            return output.permute(0, 3, 1, 2) if nhwc else output
        grid = getattr(getattr(self.body, "patch_embed", None), "grid_size", None)
        prefix = int(getattr(self.body, "num_prefix_tokens", 0))
        if output.ndim == 3 and grid is not None and output.shape[1] - prefix == grid[0] * grid[1]:
            return output[:, prefix:].transpose(1, 2).unflatten(2, tuple(grid))
        raise ValueError(f"gives shape {tuple(output.shape)}, no feature map (N, C, h, w)")

    def _probe(self, architecture: str, channels: int, size: tuple[int, int]) -> int:
        """The number of channels, told by one black image."""
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                features = self(torch.zeros(1, channels, *size))
        except (ValueError, RuntimeError, AssertionError) as error:
            raise ValueError(
                f"timm {architecture!r} cannot be a backbone for {size[0]}x{size[1]} images: "
                f"{first_line(error)}"
            ) from error
        self.train(training)
        return int(features.shape[1])


def with_weights(architecture: str, published: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options, with the weights' file named where the Hugging Face cache has it.

    Raises WeightsUnavailable at once where they are neither cached nor within reach.
    """
    overlay = options.get("pretrained_cfg_overlay") or {}
    if "file" in overlay:
        if not Path(overlay["file"]).is_file():
            raise unavailable(architecture, f"there is no file {overlay['file']}")
        return options
    if "pretrained_cfg" in options or "checkpoint_path" in options:
        return options
    if published is None or not (published.hf_hub_id or published.url):
        raise unavailable(architecture, "timm publishes none for this architecture")
    if not published.hf_hub_id:
        if not reachable(published.url):
            raise unavailable(architecture, f"{published.url} cannot be reached")
        return options
    from huggingface_hub import constants, try_to_load_from_cache

    names = [published.hf_hub_filename] if published.hf_hub_filename else []
    for name in [*names, "model.safetensors", "pytorch_model.bin"]:
        cached = try_to_load_from_cache(published.hf_hub_id, name)
        if isinstance(cached, str):
            # A file of the hub is a plain state dict, whatever loader the original weights need.
            return options | {"pretrained_cfg_overlay": overlay | file_overlay(cached)}
    if constants.HF_HUB_OFFLINE or not reachable(constants.ENDPOINT):
        where = f"{constants.ENDPOINT}/{published.hf_hub_id}"
        raise unavailable(architecture, f"{where} cannot be reached and is not in the cache")
    return options


def file_overlay(path: str) -> dict[str, Any]:
    """What makes timm read this state dict."""
    return {"file": path, "custom_load": False}


def unavailable(architecture: str, reason: str) -> WeightsUnavailable:
    """The error with its remedy."""
    return WeightsUnavailable(
        f"no weights of timm {architecture!r}: {reason}; set `pretrained: false`, or name a "
        "downloaded file with `args: {pretrained_cfg_overlay: {file: PATH, custom_load: false}}`"
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
