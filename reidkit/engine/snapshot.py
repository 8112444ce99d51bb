"""A copy of the training state, most of which is taken while the training goes on."""

import ctypes
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from reidkit.engine.plain import plain
from reidkit.engine.side_copies import Pair, SideCopies

Place = tuple[int, int]  # address and bytes of a storage

# The thread takes and gives the GIL for every storage; below this size a copy costs less than that.
SMALL = 1 << 16


class Snapshot:
    """Copies content into memory of its own, which the next copy uses again.

    `begin`, then `finish` in any thread; meanwhile `wait` holds back who wants to change what is
    settled. Fresh memory costs a page fault for every 4 KB, many times what copying costs:
    `reserve` takes them beforehand.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[int, bool], list[Tensor]] = {}  # by bytes and whether pinned
        self._sides: dict[torch.device, SideCopies] = {}
        self._sources: dict[Place, Tensor] = {}
        self._targets: dict[Place, Tensor] = {}
        self._later: list[Place] = []
        self._tree: Any = None
        self._copied = threading.Event()
        self._copied.set()

    def reserve(self, tensors: Iterable[Tensor]) -> None:
        """Take the memory for a copy of `tensors`; slow, for a thread beside the training."""
        for (_, size), tensor in {place_of(tensor): tensor for tensor in tensors}.items():
            pinned = on_cuda(tensor)
            buffer = fresh(size, pinned)
            ctypes.memset(buffer.data_ptr(), 0, size)
            self._buffers.setdefault((size, pinned), []).append(buffer)

    def begin(self, content: Mapping[str, Any], settled: Iterable[Tensor] = ()) -> None:
        """Copy all but the settled tensors, which must not change until `wait` has returned.

        A tensor is settled when it shares its storage with one of `settled`. TypeError, naming the
        entry, for what is neither tensor nor plain value.
        """
        self._sources = {}
        self._tree = plain(content, self._note)
        self._targets = self._allot()
        calm = {place_of(tensor) for tensor in settled}
        self._start_sides(calm)
        host = [place for place, source in self._sources.items() if not on_cuda(source)]
        self._later = [place for place in host if place in calm and place[1] >= SMALL]
        for place in host:
            if place not in calm or place[1] < SMALL:
                self._copy(place)
        self._copied = threading.Event()

    def wait(self) -> None:
        """Return when the settled tensors may change: the host waits for what is in its memory, the
        current stream for what is on its device."""
        self._copied.wait()
        for side in self._sides.values():
            side.release()

    def finish(self) -> Any:
        """The content as it was at `begin`, in memory that is overwritten by the next `begin`."""
        try:
            for place in self._later:
                self._copy(place)
        finally:
            self._copied.set()
        for side in self._sides.values():
            side.synchronize()
        tree = plain(self._tree, self._copy_of)
        self._tree, self._sources, self._targets = None, {}, {}
        return tree

    def _note(self, tensor: Tensor) -> Tensor:
        tensor = tensor.detach().resolve_conj().resolve_neg()
        self._sources.setdefault(place_of(tensor), tensor)
        return tensor

    def _allot(self) -> dict[Place, Tensor]:
        """A buffer for every storage; those that found no use go back to the system."""
        spare, self._buffers = self._buffers, {}
        targets: dict[Place, Tensor] = {}
        for place, source in self._sources.items():
            key = (place[1], on_cuda(source))
            buffer = spare[key].pop() if spare.get(key) else fresh(*key)
            self._buffers.setdefault(key, []).append(buffer)
            targets[place] = buffer
        return targets

    def _start_sides(self, calm: set[Place]) -> None:
        pairs: dict[torch.device, tuple[list[Pair], list[Pair]]] = {}
        for place, source in self._sources.items():
            if on_cuda(source):
                now_and_later = pairs.setdefault(source.device, ([], []))
                pair = (bytes_of(source), self._targets[place])
                now_and_later[place in calm].append(pair)
        for device, (now, later) in pairs.items():
            if device not in self._sides:
                self._sides[device] = SideCopies(device)
            self._sides[device].start(now, later)

    def _copy(self, place: Place) -> None:
        source, target = self._sources[place], self._targets[place]
        if source.device.type == "cpu":
            # One plain memcpy without the GIL: Tensor.copy_ would start OpenMP threads for this
            # thread, which compete with those of the training.
            ctypes.memmove(target.data_ptr(), *place)
        else:
            target.copy_(bytes_of(source))

    def _copy_of(self, tensor: Tensor) -> Tensor:
        storage = self._targets[place_of(tensor)].untyped_storage()
        empty = torch.empty(0, dtype=tensor.dtype)
        return empty.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())


def place_of(tensor: Tensor) -> Place:
    """Where a tensor's storage lies; equal for all its aliases."""
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()


def fresh(size: int, pinned: bool) -> Tensor:
    """Memory of `size` bytes, not touched yet."""
    return torch.empty(size, dtype=torch.uint8, pin_memory=pinned)


def bytes_of(tensor: Tensor) -> Tensor:
    """The whole storage of a tensor as uint8, not a copy."""
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def on_cuda(tensor: Tensor) -> bool:
    """Whether a tensor is copied by a stream of its device."""
    return tensor.device.type == "cuda"
