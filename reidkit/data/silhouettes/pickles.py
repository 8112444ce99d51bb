"""Reading a pickled array without running the pickle: what it calls is recorded, never called."""

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_OPCODES = 1000  # an array takes about forty
DTYPE = re.compile(r"[biuf][1248]")
EXPECTED = "expected one numpy array of numbers, as pickle.dump(array, file) writes it"
# What numpy writes of an array, in protocols 0 to 5. Nothing here can import, call or grow.
OPCODES = {
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "GLOBAL", "STACK_GLOBAL", "REDUCE"),
    *("BUILD", "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG"),
    *("LONG1", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE", "STRING", "BINSTRING"),
    *("SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
}
CONTAINERS = {
    *("LIST", "EMPTY_LIST", "APPEND", "APPENDS", "DICT", "EMPTY_DICT", "SETITEM", "SETITEMS"),
    *("EMPTY_SET", "ADDITEMS", "FROZENSET", "FLOAT", "BINFLOAT"),
}


class HostilePickleError(ValueError):
    """The pickle asks for something that no array needs."""


class _DType:
    """What the pickle says about the type of the elements."""

    def __init__(self, name: object) -> None:
        self.name, self.order = name, "|"

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, itemsize, alignment, flags, ...)
        if any(part is not None for part in state[2:5]):
            raise ValueError("its elements are records")
        self.order = state[1]

    def resolve(self) -> np.dtype[Any]:
        if not isinstance(self.name, str) or not DTYPE.fullmatch(self.name):
            raise ValueError(f"its elements are {self.name!r}")
        dtype = np.dtype(self.name)
        return dtype.newbyteorder(">") if self.order == ">" else dtype


class _Array:
    """What the pickle says about the array: shape, type, order and bytes."""

    def __init__(self) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self.state = tuple(state)

    def resolve(self) -> NDArray[Any]:
        _, shape, dtype, fortran, raw = self.state
        if isinstance(raw, str):  # Python 2 wrote bytes as text
            raw = raw.encode("latin1")
        if not isinstance(dtype, _DType) or not isinstance(raw, bytes | bytearray):
            raise ValueError("its elements are no numbers")
        if len(shape) > 32 or not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError(f"its shape is {str(shape)[:60]}")
        kind = dtype.resolve()
        promised = math.prod(shape) * kind.itemsize
        if promised != len(raw):
            raise HostilePickleError(
                f"it declares shape {shape}, {promised:,} bytes, and holds {len(raw):,}"
            )
        array = np.frombuffer(raw, kind).reshape(shape, order="F" if fortran else "C")
        return np.array(array, kind.newbyteorder("="), order="C")


def _reconstruct(kind: object, shape: object, code: object) -> _Array:
    return _Array()


def _frombuffer(raw: object, dtype: object, shape: object, order: object) -> _Array:
    array = _Array()
    array.state = (1, shape, dtype, order == "F", raw)
    return array


def _dtype(name: object, align: object = False, copy: object = True) -> _DType:
    return _DType(name)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise HostilePickleError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


STAND_INS: dict[tuple[str, str], Callable[..., object] | str] = {
    ("numpy", "ndarray"): "numpy.ndarray",
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
}
for _core in ("numpy.core", "numpy._core"):
    STAND_INS[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    STAND_INS[f"{_core}.numeric", "_frombuffer"] = _frombuffer


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that knows only the stand-ins above."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a global; anything else is hostile."""
        if (module, name) not in STAND_INS:
            raise HostilePickleError(f"it asks for {module}.{name}")
        return STAND_INS[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Nothing lives outside the file."""
        raise HostilePickleError("it asks for an object outside the file")


def check_opcodes(data: bytes) -> None:
    """Raise unless the pickle is made of what an array is made of.

    Memory places are bounded too: an unpickler makes room for the highest number it is told.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name in CONTAINERS:
            raise ValueError("it holds Python objects (a list, a dictionary, an object array)")
        if opcode.name not in OPCODES:
            raise HostilePickleError(f"it uses the instruction {opcode.name}")
        place = int(argument or 0) if "PUT" in opcode.name else 0
        if max(count, place) >= MOST_OPCODES:
            raise HostilePickleError("it is longer than any array's")


def load_array_pickle(path: str | Path) -> NDArray[Any]:
    """The one array of numbers or booleans in a pickle file; nothing in the file is executed.

    Raises FileNotFoundError where there is no file, HostilePickleError (a ValueError) where it asks
    for anything but an array or lies about its size, ValueError where it is cut short or holds
    something else.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no pickle {path}") from error
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    try:
        check_opcodes(data)
        found = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
        if not isinstance(found, _Array):
            raise ValueError("it holds something else")
        return found.resolve()
    except HostilePickleError as error:
        raise HostilePickleError(
            f"hostile pickle: {path}: {_one_line(error)}; {EXPECTED}"
        ) from error
    except Exception as error:  # a broken pickle may fail in any way
        raise ValueError(f"{path} is no pickled array: {_one_line(error)}; {EXPECTED}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
