"""Content that is made of tensors and plain values only, so that reading it back runs no code."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def plain(value: Any, keep: Callable[[Tensor], Tensor], entry: str = "") -> Any:
    """The same dicts, lists, tuples and plain values anew, with `keep(tensor)` for every tensor.

    Numbers of NumPy become Python's. TypeError, naming the entry, for anything else, as
    `torch.load(weights_only=True)` would refuse it when it is needed.
    """
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_meta:
            raise TypeError(f"the state's {entry} is a tensor without dense storage: densify it")
        return keep(value)
    if isinstance(value, Mapping):
        return _mapping(value, keep, entry)
    if isinstance(value, list | tuple):
        items = [plain(item, keep, f"{entry}[{n}]") for n, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    return _scalar(value, entry)


def _mapping(value: Mapping[Any, Any], keep: Callable[[Tensor], Tensor], entry: str) -> Any:
    items = (
        (_scalar(key, f"{entry} key"), plain(item, keep, f"{entry}[{key!r}]"))
        for key, item in value.items()
    )
    if not isinstance(value, OrderedDict):
        return dict(items)
    ordered = OrderedDict(items)
    # The versions of its modules, which a state dict carries beside its items.
    if (versions := getattr(value, "_metadata", None)) is not None:
        ordered._metadata = plain(versions, keep, entry)  # type: ignore[attr-defined]
    return ordered


def _scalar(value: Any, entry: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    # A subclass, an enum for example, would be pickled by its name, which is not plain.
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if value is None:
        return None
    raise TypeError(
        f"the state's {entry} is a {type(value).__name__}; expected tensors, numbers, strings, "
        "None, and dicts, lists and tuples of them: convert it in state_dict()"
    )
