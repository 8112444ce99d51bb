import copy
import ctypes
import enum
import threading
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from reidkit.engine import snapshot
from reidkit.engine.plain import plain
from reidkit.engine.side_copies import SideCopies
from reidkit.engine.snapshot import SMALL, Snapshot

LARGE = SMALL  # float32 values, four times the size from which the thread copies


class Gate:
    """Holds back every copy of a large tensor until it is opened."""

    def __init__(self, monkeypatch):
        self.open = threading.Event()
        real = ctypes.memmove

        def memmove(target, source, size):
            if size >= SMALL:
                assert self.open.wait(20)
            real(target, source, size)

        monkeypatch.setattr(snapshot.ctypes, "memmove", memmove)


def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def equal(one, two):
    """Whether two nested contents are the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        same = one.dtype == two.dtype and one.shape == two.shape
        return same and (one.numel() == 0 or torch.equal(as_bytes(one), as_bytes(two)))
    if isinstance(one, dict):
        return list(one) == list(two) and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(equal, one, two))
    return type(one) is type(two) and one == two


def as_bytes(tensor):
    return tensor.resolve_conj().contiguous().flatten().view(torch.uint8)


def taken(content, settled=()):
    copy = Snapshot()
    copy.begin(content, settled)
    return copy.finish()


def zoo():
    base = torch.randn(6, 8)
    return {
        "base": base,
        "column": base[:, 3],
        "transposed": base.T,
        "expanded": torch.randn(3, 1).expand(3, 4),
        "half": torch.randn(5).bfloat16(),
        "nan": torch.tensor([float("nan"), -0.0]),
        "bool": torch.tensor([True, False]),
        "complex": torch.randn(3, dtype=torch.complex64).conj(),
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 4),
        "large": torch.randn(LARGE),
        "plain": [1, 2.5, None, True, "ü", (1, (2,), []), {3: {"x": -1}, None: 2**80}],
    }


def test_a_copy_equals_a_deep_copy_whatever_it_holds():
    content = zoo()
    assert equal(taken(content), copy.deepcopy(content))
    assert equal(taken(content, [content["large"], content["base"]]), copy.deepcopy(content))


def test_what_is_not_settled_may_change_as_soon_as_the_copy_has_begun():
    statistics, memory, settings = torch.zeros(4), torch.zeros(LARGE), {"lr": 0.1, "steps": [1]}
    copy = Snapshot()
    copy.begin({"statistics": statistics, "memory": memory, "settings": settings})
    statistics.add_(1)
    memory.add_(1)
    settings["lr"] = 9.0
    settings["steps"].append(2)
    found = copy.finish()
    assert found["settings"] == {"lr": 0.1, "steps": [1]}
    assert not found["statistics"].any() and not found["memory"].any()


def test_settled_tensors_may_change_once_wait_has_returned_and_not_before(monkeypatch):
    gate = Gate(monkeypatch)
    weight = torch.zeros(LARGE)
    copy, found = Snapshot(), {}
    copy.begin({"weight": weight}, [weight])
    copier = in_thread(lambda: found.update(copy.finish()))

    def step():
        copy.wait()
        weight.add_(1)

    optimiser = in_thread(step)
    optimiser.join(0.1)
    assert optimiser.is_alive() and not weight.any()
    gate.open.set()
    copier.join()
    optimiser.join()
    assert weight.all() and not found["weight"].any()


def test_without_waiting_the_copy_would_be_torn(monkeypatch):
    gate = Gate(monkeypatch)
    weight = torch.zeros(LARGE)
    copy, found = Snapshot(), {}
    copy.begin({"weight": weight}, [weight])
    copier = in_thread(lambda: found.update(copy.finish()))
    weight.add_(1)
    gate.open.set()
    copier.join()
    assert found["weight"].all()


def test_a_detached_alias_of_a_settled_tensor_is_settled(monkeypatch):
    Gate(monkeypatch)  # never opened: a copy at once would fail
    module = nn.Linear(512, 512)
    Snapshot().begin(module.state_dict(), module.parameters())


def test_aliases_stay_aliases_and_are_copied_once():
    weight = torch.randn(100, 10)
    found = taken({"a": weight, "b": weight[3:], "c": [weight.detach()]})
    pointers = {found[key].untyped_storage()._cdata for key in "ab"}
    assert pointers == {found["c"][0].untyped_storage()._cdata}
    assert found["b"].storage_offset() == 30


def test_memory_is_used_again_and_given_back_when_nobody_needs_it():
    copy = Snapshot()
    content = {"a": torch.randn(LARGE), "b": torch.randn(LARGE)}
    copy.begin(content)
    first = copy.finish()
    kept = {first["a"].data_ptr(), first["b"].data_ptr()}
    copy.begin(content)
    assert {tensor.data_ptr() for tensor in copy.finish().values()} == kept
    copy.begin({"a": content["a"]})
    copy.finish()
    assert sum(map(len, copy._buffers.values())) == 1


def test_reserved_memory_is_what_the_first_copy_uses(monkeypatch):
    weights = [torch.randn(LARGE), torch.randn(10)]
    copy = Snapshot()
    copy.reserve([*weights, weights[0][5:]])  # an alias needs nothing of its own
    reserved = [buffer.data_ptr() for group in copy._buffers.values() for buffer in group]
    copy.begin({"weights": weights}, weights)
    assert sorted(tensor.data_ptr() for tensor in copy.finish()["weights"]) == sorted(reserved)


def test_a_failed_copy_does_not_hold_up_the_training(monkeypatch):
    weight = torch.zeros(LARGE)
    copy = Snapshot()
    copy.begin({"weight": weight}, [weight])

    def broken(*_):
        raise MemoryError

    monkeypatch.setattr(snapshot.ctypes, "memmove", broken)
    with pytest.raises(MemoryError):
        copy.finish()
    copy.wait()


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    "value, words",
    [
        ({"x": [0, np.zeros(3)]}, r"\['x'\]\[1\] is a ndarray; expected tensors"),
        ({"x": {1, 2}}, r"\['x'\] is a set; .*convert it"),
        ({"x": (object(),)}, r"\['x'\]\[0\] is a object"),
        ({"x": Colour.RED}, r"\['x'\] is a Colour"),
        ({(1, 2): 3}, r"key is a tuple"),
        ({"x": torch.eye(3).to_sparse()}, r"\['x'\] is a tensor without dense storage"),
        ({"x": torch.empty(3, device="meta")}, r"\['x'\] is a tensor without dense storage"),
    ],
)
def test_what_could_not_be_read_back_is_refused_and_named(value, words):
    with pytest.raises(TypeError, match=words):
        Snapshot().begin(value)


def test_a_refused_content_leaves_the_training_free():
    copy = Snapshot()
    with pytest.raises(TypeError):
        copy.begin({"x": object()})
    copy.wait()


def test_numbers_of_numpy_and_strings_of_enums_become_plain():
    class Name(enum.StrEnum):
        A = "a"

    found = plain({"f": np.float64(0.5), "i": np.int64(3), "b": np.bool_(True), "s": Name.A}, id)
    assert equal(found, {"f": 0.5, "i": 3, "b": True, "s": "a"})


def test_the_versions_beside_a_state_dict_are_kept():
    state = nn.Sequential(nn.BatchNorm1d(3)).state_dict()
    found = taken(state)
    assert type(found) is OrderedDict and found._metadata == state._metadata
    assert found._metadata is not state._metadata


class FakeEvent:
    def __init__(self, log, name):
        self.log, self.name = log, name

    def synchronize(self):
        self.log.append(f"host waits for {self.name}")


class FakeStream:
    """Writes down what is asked of it, in order."""

    def __init__(self, log, name):
        self.log, self.name, self.events = log, name, 0

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for {other.name}")

    def wait_event(self, event):
        self.log.append(f"{self.name} waits for {event.name}")

    def record_event(self):
        self.events += 1
        self.log.append(f"event {self.events}")
        return FakeEvent(self.log, f"event {self.events}")

    def __enter__(self):
        self.log.append(f"on {self.name}")

    def __exit__(self, *_):
        self.log.append(f"off {self.name}")


class Copied:
    """A target that tells of copies into it."""

    def __init__(self, log, name):
        self.log, self.name = log, name

    def copy_(self, source, non_blocking=False):
        assert non_blocking
        self.log.append(f"copy {self.name}")


@pytest.fixture
def cuda(monkeypatch):
    """A log of what is asked of streams and events that stand in for CUDA's."""
    log = []
    training = FakeStream(log, "training")
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: FakeStream(log, "side"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: training)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    return log


def test_the_streams_wait_in_the_order_that_keeps_every_copy_whole(cuda):
    side = SideCopies(torch.device("cuda:0"))
    source = torch.zeros(1)
    statistics, weight = (Copied(cuda, name) for name in ("statistics", "weight"))
    side.start([(source, statistics)], [(source, weight)])
    assert cuda == [
        "side waits for training",  # the step before has computed what is copied
        "on side",
        "copy statistics",
        "event 1",
        "training waits for event 1",  # the next forward changes them
        "copy weight",
        "event 2",
        "off side",
    ]
    cuda.clear()
    side.release()
    side.release()
    assert cuda == ["training waits for event 2"]  # once, and never the host
    cuda.clear()
    side.synchronize()
    assert cuda == ["host waits for event 2"]


def test_the_training_stream_goes_on_at_once_where_all_is_settled(cuda):
    side = SideCopies(torch.device("cuda:0"))
    side.start([], [(torch.zeros(1), Copied(cuda, "weight"))])
    assert not any(line.startswith("training waits") for line in cuda)


def test_tensors_on_a_device_go_by_its_stream_and_the_others_by_the_thread(monkeypatch):
    started = []

    class Side:
        def __init__(self, device):
            started.append(self)
            self.calls = []

        def start(self, now, later):
            self.calls.append(("start", len(now), len(later)))
            for source, target in [*now, *later]:
                target.copy_(source)

        def release(self):
            self.calls.append("release")

        def synchronize(self):
            self.calls.append("synchronize")

    def fresh(size, pinned):
        sizes.append((size, pinned))
        return torch.empty(size, dtype=torch.uint8)

    sizes = []
    monkeypatch.setattr(snapshot, "SideCopies", Side)
    monkeypatch.setattr(snapshot, "on_cuda", lambda tensor: tensor.dtype == torch.float64)
    monkeypatch.setattr(snapshot, "fresh", fresh)
    weight, statistics = torch.randn(LARGE).double(), torch.randn(3).double()
    host = torch.randn(7)
    content = {"weight": weight, "statistics": statistics, "host": host}
    copy = Snapshot()
    copy.begin(content, [weight])
    (side,) = started
    found = copy.finish()
    copy.wait()
    assert side.calls == [("start", 1, 1), "synchronize", "release"]
    assert sorted(sizes) == [(24, True), (28, False), (8 * LARGE, True)]
    assert equal(found, content)
    copy.begin(content, [weight])  # the same stream, the same memory
    copy.finish()
    assert len(started) == 1 and len(sizes) == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_copy_off_a_real_device_is_whole_though_the_training_goes_on():
    weight = torch.zeros(1 << 24, device="cuda")
    statistics = torch.zeros(1 << 20, device="cuda")
    copy = Snapshot()
    for step in range(5):
        found = {}
        copy.begin({"weight": weight, "statistics": statistics}, [weight])
        statistics.add_(1)
        writer = in_thread(lambda found=found: found.update(copy.finish()))
        copy.wait()
        weight.add_(1)
        writer.join()
        assert (found["weight"] == step).all() and (found["statistics"] == step).all()
