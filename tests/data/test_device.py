"""What DeviceLoader asks of CUDA, in which order: the streams here only write it down."""

import threading
import weakref
from collections import OrderedDict, defaultdict
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import torch
from torch.testing import assert_close
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

from reidkit.data import DeviceLoader, Normalise
from reidkit.data import device as device_module
from reidkit.data.device import Streams, map_tensors
from reidkit.types import Batch, Preprocessing

# Normalising with these changes no value, so that a batch's number can be read from its pixels.
PLAIN = Preprocessing(size=(4, 2), mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
PARTS = len(Batch._fields)
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; none here")


def numbered(number):
    """A batch of two that has its number everywhere, channels last in memory."""
    frames = torch.full((2, 1, 4, 2, 3), number, dtype=torch.uint8).permute(0, 1, 4, 2, 3)
    return Batch(frames, *(torch.full((2,), number) for _ in range(PARTS - 1)))


def number_of(tensor):
    return int(tensor.flatten()[0])


def batches(count):
    return [numbered(number) for number in range(count)]


class Event:
    def __init__(self, number):
        self.number = number


class WrittenStream:
    """A stream that writes down what is asked of it. Its events are numbered as they are made."""

    def __init__(self, name, log):
        self.name = name
        self.log = log

    def record_event(self):
        number = sum(entry[0] == "record" for entry in self.log)
        self.log.append(("record", self.name, number))
        return Event(number)

    def wait_event(self, event):
        self.log.append(("wait", self.name, event.number))


class WrittenStreams(Streams):
    def __init__(self):
        super().__init__(torch.device("cpu"))
        self.log = []
        self.made = 0
        self.stream = self.consumer = WrittenStream("consumer", self.log)

    def side(self):
        self.made += 1
        return WrittenStream("side", self.log)

    @contextmanager
    def on(self, stream):
        before, self.stream = self.stream, stream
        yield
        self.stream = before

    def current(self):
        return self.stream

    def copy(self, tensor):
        self.log.append(("copy", self.stream.name, number_of(tensor)))
        return tensor.clone()

    def keep(self, tensor, stream):
        self.log.append(("keep", stream.name, number_of(tensor)))


@pytest.fixture
def written(monkeypatch):
    """Make (loader, its log): of that kind, over these batches, normalising written down too."""

    def make(source, kind=DeviceLoader):
        streams = WrittenStreams()

        class WrittenNormalise(Normalise):
            def __call__(self, frames):
                streams.log.append(("normalise", streams.stream.name, number_of(frames)))
                return super().__call__(frames)

        monkeypatch.setattr(device_module, "Normalise", WrittenNormalise)
        return kind(source, "cuda", PLAIN, streams=streams), streams.log

    return make


def take(loader, log):
    """All batches, with a line in the log for each that the consumer has got."""
    taken = []
    for batch in loader:
        log.append(("take", "consumer", number_of(batch.label)))
        taken.append(batch)
    return taken


def faults(log, count):
    """What is wrong with the order in this log of `count` batches."""
    found = set()

    def places(*entry):
        return [place for place, other in enumerate(log) if other == entry]

    ends = [(places("take", "consumer", number) or [len(log)])[0] for number in range(count)]
    for number, end in enumerate(ends):
        copies, normalised = (places(kind, "side", number) for kind in ("copy", "normalise"))
        recorded = (places("record", "side", number) or [-1])[0]
        waits = [place for place in places("wait", "consumer", number) if place < end]
        kept = [place for place in places("keep", "consumer", number) if place < end]
        if end == len(log):
            found.add("a batch did not come")
        if len(copies) != PARTS or len(normalised) != 1:
            found.add("not made on the side stream")
        if any(place > recorded for place in copies + normalised):
            found.add("event before the end of the work")
        if not waits or recorded > waits[0]:
            found.add("no wait for the event")
        if len(kept) != PARTS:
            found.add("memory not kept for the consumer")
        for later in range(number + 1, count):
            queued = [place for place in places("record", "side", later) if place < end]
            if later == number + 1 and not queued:
                found.add("the next batch is not queued")
            if later > number + 1 and queued:
                found.add("more than one batch ahead")
            if [place for place in places("wait", "consumer", later) if place < end]:
                found.add("waits for the batch after it")
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_batch_is_waited_for_and_kept_while_the_next_is_queued(written, count):
    loader, log = written(batches(count))
    taken = take(loader, log)
    assert faults(log, count) == set()
    assert [number_of(batch.index) for batch in taken] == list(range(count))


def test_the_log_of_two_batches_line_by_line(written):
    loader, log = written(batches(2))
    take(loader, log)
    made = [[("copy", "side", n)] * PARTS + [("normalise", "side", n)] for n in (0, 1)]
    handed = [[("wait", "consumer", n)] + [("keep", "consumer", n)] * PARTS for n in (0, 1)]
    assert log == [
        *made[0],
        ("record", "side", 0),
        *made[1],
        ("record", "side", 1),
        *handed[0],
        ("take", "consumer", 0),
        *handed[1],
        ("take", "consumer", 1),
    ]


class NoWait(DeviceLoader):
    def _hand_over(self, streams, batch, ready):
        for part in batch:
            streams.keep(part, streams.current())
        return batch


class NothingKept(DeviceLoader):
    def _hand_over(self, streams, batch, ready):
        streams.current().wait_event(ready)
        return batch


class OnlyFramesKept(DeviceLoader):
    def _hand_over(self, streams, batch, ready):
        streams.current().wait_event(ready)
        streams.keep(batch.frames, streams.current())
        return batch


class KeptForTheSideStream(DeviceLoader):
    def _hand_over(self, streams, batch, ready):
        streams.current().wait_event(ready)
        for part in batch:
            streams.keep(part, self._side)
        return batch


class WaitsTooLate(DeviceLoader):
    def __iter__(self):
        streams = self._streams
        for host in self.loader:
            batch, ready = self._queue(streams, host)
            yield batch
            self._hand_over(streams, batch, ready)


class WaitsForAllThatIsQueued(DeviceLoader):
    """As `wait_stream` would."""

    def _queue(self, streams, host):
        batch, self.latest = super()._queue(streams, host)
        return batch, self.latest

    def _hand_over(self, streams, batch, ready):
        streams.current().wait_event(self.latest)
        return super()._hand_over(streams, batch, ready)


class OnTheConsumersStream(DeviceLoader):
    def _queue(self, streams, host):
        batch = self._finish(map_tensors(streams.copy, host))
        return batch, streams.current().record_event()


class EventBeforeNormalising(DeviceLoader):
    def _queue(self, streams, host):
        with streams.on(self._side):
            batch = map_tensors(streams.copy, host)
            ready = streams.current().record_event()
            return self._finish(batch), ready


class NothingAhead(DeviceLoader):
    def _one_ahead(self, streams):
        for host in self.loader:
            yield self._hand_over(streams, *self._queue(streams, host))


class AllAhead(DeviceLoader):
    def _one_ahead(self, streams):
        queued = [self._queue(streams, host) for host in self.loader]
        for batch, ready in queued:
            yield self._hand_over(streams, batch, ready)


class LosesTheLast(DeviceLoader):
    def _one_ahead(self, streams):
        yield from list(super()._one_ahead(streams))[:-1]


@pytest.mark.parametrize(
    "kind, fault",
    [
        (NoWait, "no wait for the event"),
        (WaitsTooLate, "no wait for the event"),
        (NothingKept, "memory not kept for the consumer"),
        (OnlyFramesKept, "memory not kept for the consumer"),
        (KeptForTheSideStream, "memory not kept for the consumer"),
        (WaitsForAllThatIsQueued, "waits for the batch after it"),
        (OnTheConsumersStream, "not made on the side stream"),
        (EventBeforeNormalising, "event before the end of the work"),
        (NothingAhead, "the next batch is not queued"),
        (AllAhead, "more than one batch ahead"),
        (LosesTheLast, "a batch did not come"),
    ],
)
def test_the_check_sees_what_is_left_out(written, kind, fault):
    loader, log = written(batches(4), kind)
    take(loader, log)
    assert fault in faults(log, 4)


def test_one_side_stream_serves_all_epochs(written):
    loader, log = written(batches(2))
    for _ in range(3):
        log.clear()
        take(loader, log)
        assert faults(log, 2) == set()
    assert loader._streams.made == 1


def test_the_wait_goes_to_the_stream_that_the_consumer_is_on(written):
    loader, log = written(batches(3))
    iteration = iter(loader)
    next(iteration)
    with loader._streams.on(WrittenStream("other", log)):
        next(iteration)
    assert ("wait", "other", 1) in log
    assert log.count(("keep", "other", 1)) == PARTS
    assert ("wait", "consumer", 1) not in log


@pytest.mark.parametrize("device, streams", [("cpu", None), ("cuda", WrittenStreams)])
def test_an_empty_loader_gives_nothing(device, streams):
    loader = DeviceLoader([], device, PLAIN, streams=streams and streams())
    assert len(loader) == 0
    assert list(loader) == list(loader) == []
    assert streams is None or loader._streams.log == []


@pytest.mark.parametrize("carried", [True, False], ids=["as a value", "raised"])
@pytest.mark.parametrize("streams", [None, WrittenStreams])
def test_an_error_arrives_after_the_batches_before_it(streams, carried):
    fault = ValueError("pictures/7.jpg is empty")

    class Source:
        def __iter__(self):
            yield from batches(2)
            if not carried:
                raise fault
            yield fault

    loader, taken = DeviceLoader(Source(), "cpu", PLAIN, streams=streams and streams()), []
    with pytest.raises(ValueError, match=r"7\.jpg") as caught:
        taken.extend(number_of(batch.label) for batch in loader)
    assert caught.value is fault
    assert taken == [0, 1]


@pytest.mark.parametrize("streams", [None, WrittenStreams])
def test_an_error_holds_no_cycle_that_keeps_workers(streams):
    class Owner:
        def __iter__(self):
            yield numbered(0)
            raise OSError("gone")

    source = Owner()
    loader = DeviceLoader(source, "cpu", PLAIN, streams=streams and streams())
    gone = weakref.ref(source)
    message = ""
    try:
        list(loader)
    except OSError as error:
        message = str(error)
    del source, loader
    assert message == "gone"
    assert gone() is None  # without the garbage collector


@pytest.mark.parametrize("streams", [None, WrittenStreams])
def test_a_batch_that_the_consumer_lets_go_is_not_held(streams):
    seen = []

    class Source:
        def __iter__(self):
            yield numbered(0)
            yield numbered(1)
            assert seen[-1]() is None
            yield numbered(2)
            assert seen[-1]() is None

    loader = DeviceLoader(Source(), "cpu", PLAIN, streams=streams and streams())
    for batch in loader:
        seen.append(weakref.ref(batch.frames))
        del batch
    assert len(seen) == 3


class Clock:
    """Time that passes only when told."""

    now = 0.0

    def __call__(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


@pytest.mark.parametrize("streams", [None, WrittenStreams])
def test_waiting_counts_reading_and_nothing_of_the_consumer(monkeypatch, streams):
    clock = Clock()
    monkeypatch.setattr(device_module.time, "perf_counter", clock)

    class Slow:
        def __iter__(self):
            for batch in batches(4):
                clock.spend(1)
                yield batch
            clock.spend(0.5)

    loader = DeviceLoader(Slow(), "cpu", PLAIN, streams=streams and streams())
    for _ in loader:
        clock.spend(100)
    assert loader.seconds_waiting == 4.5
    for _ in loader:
        clock.spend(100)
        break
    read = 1 if streams is None else 2
    assert loader.seconds_waiting == 4.5 + read
    for _ in loader:
        pass
    assert loader.seconds_waiting == 9 + read


def test_waiting_for_an_error_counts_too(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(device_module.time, "perf_counter", clock)

    class Failing:
        def __iter__(self):
            clock.spend(3)
            yield OSError("gone")

    loader = DeviceLoader(Failing(), "cpu", PLAIN)
    with pytest.raises(OSError, match="gone"):
        list(loader)
    assert loader.seconds_waiting == 3


class Pair(NamedTuple):
    left: object
    right: object


def test_tensors_are_changed_wherever_they_are_and_all_else_stays():
    one, marker = torch.tensor(1), object()
    counts = defaultdict(list, {"a": [one]})
    nested = {
        "list": [one, "text", None, 3, (one, marker)],
        "pair": Pair(one, OrderedDict(z=one, a=2.5)),
        "counts": counts,
        "empty": [(), [], {}],
    }
    found = map_tensors(lambda tensor: tensor + 1, nested)
    assert found == {
        "list": [2, "text", None, 3, (2, marker)],
        "pair": Pair(2, OrderedDict(z=2, a=2.5)),
        "counts": {"a": [2]},
        "empty": [(), [], {}],
    }
    assert [type(found["pair"]), type(found["pair"].right)] == [Pair, OrderedDict]
    assert found["counts"].default_factory is list
    assert nested["list"][0] is one and counts["a"] == [1]
    assert map_tensors(lambda tensor: tensor + 1, "no tensor") == "no tensor"


@pytest.mark.parametrize("streams", [None, WrittenStreams])
def test_batches_of_other_forms_move_and_are_not_normalised(streams):
    source = [{"pixels": [torch.tensor([5, n])], "names": ("a", n)} for n in range(3)]
    loader = DeviceLoader(source, "cpu", PLAIN, streams=streams and streams())
    found = list(loader)
    assert [batch["names"] for batch in found] == [("a", n) for n in range(3)]
    assert [batch["pixels"][0].tolist() for batch in found] == [[5, n] for n in range(3)]
    if streams:
        kinds = [entry[0] for entry in loader._streams.log]
        assert {kind: kinds.count(kind) for kind in set(kinds)} == {
            kind: 3 for kind in ("copy", "record", "wait", "keep")
        }


def test_frames_are_normalised_where_they_lie():
    preprocessing = Preprocessing(size=(4, 2), mean=(0.5, 0.4, 0.2), std=(0.2, 0.1, 0.4))
    (batch,) = DeviceLoader([numbered(51)], "cpu", preprocessing)
    assert_close(batch.frames[1, 0, :, 3, 1], torch.tensor([-1.5, -2.0, 0.0]))
    assert batch.frames.stride() == numbered(0).frames.stride()
    assert batch.frames.stride(2) == 1  # channels last in memory, from the file to the network


def test_copying_keeps_strides():
    frames = numbered(1).frames
    copied = Streams(torch.device("meta")).copy(frames)  # the device that needs no hardware
    assert copied.device.type == "meta"
    assert copied.stride() == frames.stride()


class Listener:
    """A dataset of ten numbers that hears of epochs."""

    epoch = None

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return index

    def set_epoch(self, epoch):
        self.epoch = epoch


def test_an_epoch_is_told_to_the_dataset_and_to_a_sampler_within_the_batch_sampler():
    dataset = Listener()
    sampler = DistributedSampler(dataset, num_replicas=2, rank=0)
    data_loader = DataLoader(dataset, batch_sampler=BatchSampler(sampler, 2, True))
    loader = DeviceLoader(data_loader, "cpu", PLAIN)
    loader.set_epoch(3)
    assert (dataset.epoch, sampler.epoch) == (3, 3)
    assert len(list(loader)) == len(loader) == 2


def test_a_loader_that_cannot_skip_says_so_unless_there_is_nothing_to_skip():
    loader = DeviceLoader(batches(3), "cpu", PLAIN)
    loader.set_epoch(1)
    loader.skip(0)
    assert len(list(loader)) == 3
    with pytest.raises(ValueError, match="only a loader for training"):
        loader.skip(2)


@pytest.mark.parametrize("streams", [None, WrittenStreams])
def test_leaving_early_closes_the_source_at_once(streams):
    closed = []

    class Source:
        def __iter__(self):
            try:
                yield from batches(9)
            finally:
                closed.append(threading.current_thread())

    for _ in DeviceLoader(Source(), "cpu", PLAIN, streams=streams and streams()):
        break
    assert closed == [threading.current_thread()]


@pytest.mark.gpu
@cuda
def test_cuda_gives_what_the_cpu_gives_over_epochs():
    source = [map_tensors(torch.Tensor.pin_memory, batch) for batch in batches(20)]
    assert source[0].frames.stride() == numbered(0).frames.stride()  # pinning keeps strides
    loader = DeviceLoader(source, "cuda", PLAIN)
    for _ in range(3):
        found = list(loader)
        for ours, theirs in zip(found, DeviceLoader(batches(20), "cpu", PLAIN), strict=True):
            assert ours.frames.stride() == theirs.frames.stride()
            for left, right in zip(ours, theirs, strict=True):
                assert left.is_cuda
                assert_close(left.cpu(), right)


@pytest.mark.gpu
@cuda
def test_cuda_reuses_no_memory_that_the_consumer_still_reads():
    # Large batches on a consumer that lags behind: without record_stream their memory would be
    # written by a later copy before the sums below are taken.
    source = [torch.full((1 << 22,), number, dtype=torch.int32).pin_memory() for number in range(9)]
    loader = DeviceLoader(source, "cuda", PLAIN)
    sums = []
    for batch in loader:
        torch.cuda._sleep(20_000_000)
        sums.append(batch.sum())
        del batch
    assert [int(total) >> 22 for total in sums] == list(range(9))
