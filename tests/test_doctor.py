import json
import math
import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from reidkit.compose import inspection, throughput
from reidkit.compose.inspection import decoder, diagnose, judge_threads, usable_cores
from reidkit.compose.throughput import AlwaysThis, Feeding, Throughput, judge, measure
from reidkit.config import ConfigError, load_config
from reidkit.engine import loop
from tests.engine.toy import ToyLoader, toy_state

SMOKE = str(Path(__file__).parent.parent / "configs/smoke/osnet_parts.yaml")
NONE, THREADS, PROCESSES = Feeding(0, "processes"), Feeding(2, "threads"), Feeding(2, "processes")


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    monkeypatch.setattr(loop, "time", clock)
    return clock


class Slow:
    """Batches that each take `seconds` to arrive, after the first, which takes longer."""

    def __init__(self, clock, seconds, batches=7, start=5.0):
        self.clock, self.seconds, self.start = clock, seconds, start
        self.toy = ToyLoader(batches=batches)
        self.epochs = []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)
        self.toy.set_epoch(epoch)

    def skip(self, batches):
        self.toy.skip(batches)

    def __len__(self):
        return len(self.toy)

    def __iter__(self):
        for batch in self.toy:
            self.clock.now += self.seconds + self.start
            self.start = 0.0
            yield batch


def test_the_machine_is_told_line_by_line(call):
    code, out, _ = call("doctor", "--no-check")
    assert code == 0
    for words in ("python ", "cores ", "memory ", "device ", "torch ", "libjpeg-turbo", "openmp "):
        assert words in out
    code, out, _ = call("doctor", "--no-check", "--json")
    facts = json.loads(out)
    assert code == 0 and facts.keys() == diagnose().keys()
    assert "throughput" not in facts


BUILD = """
  Media I/O:
    ZLib:                        /usr/lib64/libz.so (ver 1.2.11)
    JPEG:                        {}
      SIMD Support Request:      YES
      SIMD Support:              {}
    WEBP:                        build (ver decoder: 0x0210)
"""


@pytest.mark.parametrize(
    "line, simd, told",
    [
        ("build-libjpeg-turbo (ver 3.1.2-70)", "YES", "libjpeg-turbo 3.1.2"),
        ("libjpeg-turbo (ver 2.1.3-62)", "YES", "libjpeg-turbo 2.1.3"),
        ("build-libjpeg-turbo (ver 3.1.2-70)", "NO", "libjpeg-turbo 3.1.2, without SIMD"),
        ("/usr/lib/libjpeg.so (ver 80)", "YES", "/usr/lib/libjpeg.so 80: not libjpeg-turbo"),
        ("NO", "NO", "NO: not libjpeg-turbo"),
    ],
)
def test_the_image_decoder_is_named(line, simd, told):
    assert decoder(BUILD.format(line, simd)).startswith(told)


def test_an_opencv_without_jpeg_is_told_with_the_remedy():
    assert "pip install opencv-python-headless" in decoder("General configuration\n  PNG: YES")


GOMP = [("torch", "libgomp", 4), ("faiss_cpu", "libgomp", 4)]


@pytest.mark.parametrize(
    "runtimes, policy, remedy",
    [
        (GOMP, "PASSIVE", None),
        (GOMP[:1], "", None),
        (GOMP, "", "OMP_WAIT_POLICY=PASSIVE"),
        (GOMP, "active", "OMP_WAIT_POLICY=PASSIVE"),
        ([("torch", "libgomp", 8)], "", "OMP_NUM_THREADS=4"),
        ([("torch", "libgomp", 1)], "", "3 of 4 cores idle: unset OMP_NUM_THREADS"),
        ([GOMP[0], ("mkl", "libiomp", 4)], "PASSIVE", "two kinds in one process"),
        ([], "", "reinstall torch"),
    ],
)
def test_openmp_runtimes_are_judged(runtimes, policy, remedy):
    told = judge_threads(runtimes, cores=4, policy=policy)
    assert (remedy in told) if remedy else (";" not in told)
    for package, library, _ in runtimes:
        assert f"{library} of {package}" in told


@pytest.mark.parametrize(
    "quota, cores", [("max 100000", 8), ("150000 100000", 2), ("5000 100000", 1), ("?", 8), ("", 8)]
)
def test_cores_are_those_that_affinity_and_the_containers_quota_leave(
    tmp_path, monkeypatch, quota, cores
):
    monkeypatch.setattr(inspection, "CGROUP", tmp_path)
    monkeypatch.setattr(
        inspection.os, "sched_getaffinity", lambda process: set(range(8)), raising=False
    )
    if quota:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert usable_cores() == cores


def test_a_containers_memory_is_told_beside_the_machines(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("536870912\n")
    assert "512 MiB of it for this container" in diagnose()["memory"]


def test_little_room_is_told_with_the_remedy(monkeypatch):
    usage = SimpleNamespace(total=64 * 2**20, free=60 * 2**20)
    monkeypatch.setattr(inspection.shutil, "disk_usage", lambda folder: usage)
    monkeypatch.setattr(inspection, "SHARED", inspection.Path("/"))
    facts = diagnose()
    assert facts["shared memory"].startswith("60 MiB of 64 MiB free")
    assert "--shm-size" in facts["shared memory"]
    assert "free some" in facts["disk"]


def test_each_accelerator_is_told_by_name_and_memory(monkeypatch):
    properties = SimpleNamespace(name="Fast 9000", total_memory=24 * 2**30)
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda")
    )
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: properties)
    told = diagnose()["accelerators"]
    assert told == "cuda:0 Fast 9000 24.0 GiB, cuda:1 Fast 9000 24.0 GiB"


def test_a_faiss_that_cannot_be_loaded_is_told(monkeypatch):
    monkeypatch.setattr(inspection, "_version", lambda name: "1" if name == "faiss-cpu" else None)
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert "cannot be loaded" in diagnose()["faiss"]
    assert diagnose()["torch"] == "missing: reinstall reidkit"


def test_a_loaders_speed_leaves_out_its_start(clock):
    # 5.1 s to the first batch, then 12 images in 0.1 s.
    for ahead in (0, 2):
        loader = Slow(clock, 0.1)
        assert throughput.time_loader(loader, 2.0, ahead=ahead) == pytest.approx(120)
        assert loader.epochs == list(range(len(loader.epochs))) and len(loader.epochs) > 2


def test_a_loader_is_measured_by_one_batch_at_least(clock):
    assert throughput.time_loader(Slow(clock, 30.0), 0.1, ahead=1) == pytest.approx(12 / 30)


def test_a_training_is_timed_without_its_first_step_and_changes_no_weight(clock):
    state = toy_state()
    before = {name: value.clone() for name, value in state.model.named_parameters()}
    forward = state.forward

    def slowly(batch):
        clock.now += 0.3
        return forward(batch)

    state.forward = slowly
    speed, waiting = throughput.time_training(state, Slow(clock, 0.1), 3.0)
    assert speed == pytest.approx(12 / 0.4)
    assert waiting == pytest.approx(0.25)
    assert state.epoch > 0  # it went on over the end of an epoch
    for name, value in state.model.named_parameters():
        assert torch.equal(value, before[name])


def test_a_training_on_a_batch_that_is_there_never_waits(clock):
    state = toy_state(accumulate=2)
    batch = next(iter(ToyLoader()))
    forward = state.forward

    def slowly(batch):
        clock.now += 0.5
        return forward(batch)

    state.forward = slowly
    assert throughput.time_training(state, AlwaysThis(batch), 0.1) == (pytest.approx(24), 0)


@pytest.mark.parametrize("timed", ["loader", "training"])
def test_a_loader_without_a_batch_is_refused(timed):
    empty = ToyLoader(batches=0)
    with pytest.raises(ValueError, match="the loader gives no batch"):
        if timed == "loader":
            throughput.time_loader(empty, 1.0, ahead=0)
        else:
            throughput.time_training(toy_state(), empty, 1.0)


def verdict(loaders, chosen, waiting, cores=2, packed=False):
    return judge(loaders, 400.0, chosen, 300.0, waiting, cores=cores, packed=packed)


def test_the_model_is_the_bottleneck_where_it_hardly_waits():
    told = verdict({NONE: 900.0, THREADS: 1700.0}, THREADS, 0.02)
    assert told.startswith("bottleneck: the model; it takes 400 images/s")
    assert "2 threads can prepare 1,700" in told
    assert "waiting for data 2 % of the time" in told


@pytest.mark.parametrize(
    "loaders, chosen, cores, packed, knob",
    [
        ({NONE: 200, THREADS: 390, PROCESSES: 300}, NONE, 2, False, "workers=2 data.worker_kind=t"),
        ({NONE: 200, THREADS: 300, PROCESSES: 390}, NONE, 2, False, "data.workers=2, which"),
        ({NONE: 200, THREADS: 300, PROCESSES: 390}, THREADS, 2, False, "data.worker_kind=process"),
        ({NONE: 200, THREADS: 390, PROCESSES: 390}, THREADS, 8, False, "set data.workers=4"),
        ({NONE: 200, THREADS: 390, PROCESSES: 390}, THREADS, 2, False, "`reidkit data pack`"),
        ({NONE: 200, THREADS: 390, PROCESSES: 390}, PROCESSES, 2, True, "data.augment"),
        ({NONE: 390, THREADS: 300, PROCESSES: 300}, NONE, 2, False, "set data.workers=2"),
    ],
)
def test_the_loader_is_the_bottleneck_with_the_knob_that_was_measured(
    loaders, chosen, cores, packed, knob
):
    told = verdict(loaders, chosen, 0.45, cores, packed)
    assert told.startswith("bottleneck: the loader; ")
    assert knob in told
    assert "the model takes 400 images/s" in told and "45 % of the time" in told
    assert "\n" not in told


def test_ways_to_feed_are_the_configs_own_and_their_neighbours(monkeypatch):
    ways = throughput.ways_to_feed(load_config(SMOKE, ["data.workers=3"]))
    assert [str(way) for way in ways] == ["no workers", "3 processes", "3 threads"]
    ways = throughput.ways_to_feed(load_config(SMOKE))
    assert [str(way) for way in ways] == ["no workers", "2 processes", "2 threads"]
    assert [str(Feeding(1, kind)) for kind in ("threads", "processes")] == ["1 thread", "1 process"]


def test_a_table_holds_every_speed():
    found = Throughput("set", {"no workers": 1234.5}, 60.0, "no workers", 55.0, 0.031, "verdict.")
    assert re.search(r"loader, no workers +1,234 images/s", found.text())
    assert re.search(r"both, no workers +55 images/s", found.text())
    assert "waiting for data: 3.1 % of the time\nverdict." in found.text()
    assert json.loads(json.dumps(found.to_dict()))["model"] == 60.0


def test_a_config_is_checked_with_its_own_data_loader_and_model(call, tmp_path):
    words = (SMOKE, f"data.root={tmp_path}", "data.workers=1", "data.worker_kind=threads")
    code, out, error = call("doctor", *words, "--seconds", 0.5, "--json")
    assert code == 0, error
    found = json.loads(out)["throughput"]
    assert found["loaders"].keys() == {"no workers", "1 thread", "1 process"}
    assert all(speed > 0 for speed in [*found["loaders"].values(), found["model"]])
    assert found["feeding"] == "1 thread"
    assert 0 <= found["waiting"] <= 1
    assert "batches of 8 on" in found["setting"] and "at 64 x 32" in found["setting"]
    assert found["verdict"].startswith("bottleneck: the ")
    assert "measuring" in error
    for thread in threading.enumerate():
        if thread.name.startswith("reidkit-batches"):
            thread.join(timeout=60)  # it may be at its last batch
            assert not thread.is_alive()


def test_without_a_config_a_small_model_is_fed_synthetic_pictures(monkeypatch):
    monkeypatch.setattr(throughput, "PICTURES", throughput.PICTURES | {"train_identities": 16})
    found = measure(seconds=0.25)
    assert "synthetic JPEGs of 128 x 64, OSNet x0.25, batches of 64" in found.setting
    assert found.loaders[found.feeding] == max(found.loaders.values())
    assert found.together > 0


@pytest.mark.parametrize(
    "words, code, told",
    [
        (["nowhere.yaml"], 2, "there is no such config file"),
        ([SMOKE, "--no-check"], 2, "--no-check measures nothing"),
        ([SMOKE, "model.backbone.name=osnett"], 2, "Did you mean 'osnet'"),
        ([SMOKE, "data.train=[market1501]", "data.root=nowhere"], 1, "no folder nowhere"),
        ([SMOKE, "nonsense"], 2, "an override is key=value"),
        (["--seconds", "0"], 2, "--seconds"),
        (["--seconds", "-3"], 2, "--seconds"),
        (["--seconds", "soon"], 2, "--seconds"),
    ],
)
def test_a_wrong_call_is_one_line(call, words, code, told):
    found, _, error = call("doctor", *words)
    assert found == code
    assert told in error


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_a_time_that_cannot_be_is_refused(seconds):
    with pytest.raises(ValueError, match=r"expected a number above 0"):
        measure(seconds=seconds)


def test_a_config_with_faults_is_refused_before_any_data(tmp_path):
    config = load_config(SMOKE, ["losses.0.smothing=1", "data.root=nowhere"])
    with pytest.raises(ConfigError, match="smothing"):
        measure(config)
