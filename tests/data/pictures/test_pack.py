"""Packing pictures: resumed after any end, refused with one line, and never half there."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from reidkit.data.pictures import writer as writer_module
from reidkit.data.pictures.pack import pack_pictures
from reidkit.data.pictures.store import PictureStore
from reidkit.data.pictures.writer import PictureWriter
from reidkit.types import Sample, StoredFrames
from tests.data.conftest import write_picture
from tests.data.pictures.conftest import SIZE, as_read, read

FILES = ("pictures.csv", "pictures.json", "pixels.bin")


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture
def together(monkeypatch):
    """Two pictures at once, so that a pack of seven has four steps."""
    monkeypatch.setattr("reidkit.data.pictures.pack.TOGETHER", 2)


def stop_at(count):
    def progress(done, total):
        if done >= count:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("stop", [2, 4, 6])
def test_an_interrupted_pack_goes_on_and_ends_with_the_same_bytes(
    tracklets, packed, tmp_path, together, workers, stop
):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        pack_pictures(tracklets, out, size=SIZE, workers=workers, progress=stop_at(stop))
    assert not out.exists()
    report = pack_pictures(tracklets, out, size=SIZE, workers=workers)
    assert (report.pictures, report.packed) == (7, 7 - stop)
    assert f"{stop} of them from an interrupted pack" in report.text()
    assert contents(out) == contents(packed)
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda partial: (partial / "pixels.bin").open("ab").write(b"half a picture"),
        lambda partial: (partial / "pictures.csv").open("ab").write(b"/a/torn,12"),
        lambda partial: os.truncate(partial / "pixels.bin", 3 * SIZE[0] * SIZE[1] * 3 + 5),
        lambda partial: os.truncate(partial / "pictures.csv", 40),
        lambda partial: (partial / "pictures.csv").unlink(),
        lambda partial: (partial / "pixels.bin").write_bytes(bytes(4 * SIZE[0] * SIZE[1] * 3)),
        lambda partial: (partial / "pictures.json").unlink(),
    ],
)
def test_what_a_crash_may_leave_does_not_spoil_the_next_pack(
    tracklets, packed, tmp_path, together, damage
):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        pack_pictures(tracklets, out, size=SIZE, progress=stop_at(4))
    damage(tmp_path / "out.partial")
    pack_pictures(tracklets, out, size=SIZE)
    assert contents(out) == contents(packed)


def test_a_picture_that_changed_since_the_interruption_is_read_again(
    tracklets, paths, tmp_path, together
):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        pack_pictures(tracklets, out, size=SIZE, progress=stop_at(6))
    write_picture(Path(paths[3]), seed=99)
    report = pack_pictures(tracklets, out, size=SIZE)
    assert report.packed == 4
    store = PictureStore.open(out)
    np.testing.assert_array_equal(read(store, store.rows(paths)), as_read(paths))


KILLED = """
import os, signal, sys
from reidkit.data.pictures import pack
from reidkit.types import Sample
pack.TOGETHER = 2
def progress(done, total):
    if done >= int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
pack.pack_pictures(
    [Sample(tuple(sys.argv[3:]), 0)], sys.argv[1], size=(24, 12), workers=2, progress=progress
)
"""


def test_a_killed_pack_goes_on(paths, packed, tmp_path):
    out, stop = tmp_path / "out", 4
    words = [sys.executable, "-c", KILLED, str(out), str(stop), *paths]
    assert subprocess.run(words, timeout=60).returncode == -signal.SIGKILL
    assert not out.exists()
    assert pack_pictures([Sample(tuple(paths), 0)], out, size=SIZE).packed == 7 - stop
    assert contents(out) == contents(packed)


def test_a_complete_store_is_left_alone(tracklets, packed):
    before = {name: os.stat(packed / name).st_mtime_ns for name in FILES}
    report = pack_pictures(tracklets, packed, size=SIZE)
    assert report.packed == 0 and "is complete and up to date: 7 pictures" in report.text()
    assert {name: os.stat(packed / name).st_mtime_ns for name in FILES} == before


def test_a_complete_store_whose_sources_are_gone_is_up_to_date(tracklets, packed, paths):
    shutil.rmtree(os.path.dirname(paths[0]))
    assert pack_pictures(tracklets, packed, size=SIZE).packed == 0


def test_another_size_is_refused_unless_overwritten(tracklets, packed, paths):
    before = contents(packed)
    with pytest.raises(ValueError, match=r"of size \(24, 12\), not \(16, 8\); .* overwrite"):
        pack_pictures(tracklets, packed, size=(16, 8))
    assert contents(packed) == before
    pack_pictures(tracklets, packed, size=(16, 8), overwrite=True)
    store = PictureStore.open(packed)
    np.testing.assert_array_equal(read(store, store.rows(paths)), as_read(paths, (16, 8)))
    assert sorted(packed.parent.iterdir()) == [packed.parent / "pictures", packed]


def test_other_pictures_are_refused_unless_overwritten(tracklets, packed):
    with pytest.raises(ValueError, match=r"store of 7 other pictures; .* overwrite"):
        pack_pictures(tracklets[:3], packed, size=SIZE)
    assert pack_pictures(tracklets[:3], packed, size=SIZE, overwrite=True).pictures == 6
    assert len(PictureStore.open(packed)) == 6


def test_changed_pictures_are_refused_unless_overwritten(tracklets, packed, paths):
    write_picture(Path(paths[3]), seed=99)
    with pytest.raises(ValueError, match=rf"1 of 7 pictures changed .* {paths[3]} first; "):
        pack_pictures(tracklets, packed, size=SIZE)
    pack_pictures(tracklets, packed, size=SIZE, overwrite=True)
    store = PictureStore.open(packed)
    np.testing.assert_array_equal(read(store, store.rows(paths)), as_read(paths))


def test_a_damaged_store_is_refused_unless_overwritten(tracklets, packed):
    whole = contents(packed)
    os.truncate(packed / "pixels.bin", 5)
    with pytest.raises(ValueError, match=r"cut short .* overwrite"):
        pack_pictures(tracklets, packed, size=SIZE)
    pack_pictures(tracklets, packed, size=SIZE, overwrite=True)
    assert contents(packed) == whole


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_replaced(tracklets, tmp_path, overwrite):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("ten years")
    with pytest.raises(ValueError, match=r"mine exists and is no empty folder"):
        pack_pictures(tracklets, tmp_path / "mine", size=SIZE, overwrite=overwrite)
    assert (tmp_path / "mine/thesis.tex").read_text() == "ten years"
    assert not (tmp_path / "mine.partial").exists()


def test_an_empty_folder_is_filled(tracklets, packed, tmp_path):
    (tmp_path / "out").mkdir()
    pack_pictures(tracklets, tmp_path / "out", size=SIZE)
    assert contents(tmp_path / "out") == contents(packed)


@pytest.mark.parametrize(
    "other, words",
    [
        ({"size": (16, 8)}, r"interrupted pack of size \(24, 12\), not of \(16, 8\)"),
        ({"first": 1}, r"interrupted pack of other pictures, .*0\.png among them"),
        ({"last": 2}, r"interrupted pack of other pictures, .*4\.jpg among them"),
    ],
)
def test_an_interrupted_pack_of_something_else_is_refused_unless_overwritten(
    tracklets, tmp_path, together, other, words
):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        pack_pictures(tracklets, out, size=SIZE, progress=stop_at(6))
    size = other.get("size", SIZE)
    chosen = tracklets[other.get("first", 0) : other.get("last", 4)]
    with pytest.raises(ValueError, match=words):
        pack_pictures(chosen, out, size=size)
    pack_pictures(chosen, out, size=size, overwrite=True)
    wanted = [path for sample in chosen for path in sample.frames]
    store = PictureStore.open(out)
    np.testing.assert_array_equal(read(store, store.rows(wanted)), as_read(wanted, size))


def test_a_picture_of_several_samples_is_packed_once(tracklets, packed, tmp_path):
    report = pack_pictures([*tracklets, *tracklets[::-1]], tmp_path / "out", size=SIZE)
    assert report.pictures == 7
    assert contents(tmp_path / "out") == contents(packed)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unreadable_picture_is_named_and_the_rest_is_kept(
    tracklets, paths, packed, tmp_path, together, workers
):
    source = Path(paths[5])
    whole, facts = source.read_bytes(), source.stat()
    source.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=rf"{paths[5]} is no readable image") as told:
        pack_pictures(tracklets, tmp_path / "out", size=SIZE, workers=workers)
    assert "\n" not in str(told.value) and not (tmp_path / "out").exists()
    source.write_bytes(whole)
    os.utime(source, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert pack_pictures(tracklets, tmp_path / "out", size=SIZE).packed == 3
    assert contents(tmp_path / "out") == contents(packed)


def test_a_missing_picture_is_named(tracklets, paths, tmp_path):
    os.unlink(paths[2])
    with pytest.raises(FileNotFoundError, match=rf"no image {paths[2]}"):
        pack_pictures(tracklets, tmp_path / "out", size=SIZE)


def test_silhouettes_are_refused(tracklets, tmp_path):
    walk = Sample(StoredFrames("walks", 3, 20), 1)
    with pytest.raises(ValueError, match=r"walks#3 is a packed silhouette, expected pictures"):
        pack_pictures([*tracklets, walk], tmp_path / "out", size=SIZE)
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    "samples, options, words",
    [
        ([], {}, "no pictures in 0 samples"),
        ([Sample((), 0)], {}, "no pictures in 1 samples"),
        ([Sample(("a\nb.jpg",), 0)], {}, "has a line break"),
        ([Sample(("a.jpg",), 0)], {"size": (0, 8)}, r"size is \(0, 8\)"),
        ([Sample(("a.jpg",), 0)], {"workers": 0}, "workers is 0, expected 1 or more"),
    ],
)
def test_a_wrong_call_is_told_before_anything_is_written(tmp_path, samples, options, words):
    with pytest.raises(ValueError, match=words):
        pack_pictures(samples, tmp_path / "out", **{"size": SIZE, **options})
    assert not list(tmp_path.iterdir())


Usage = namedtuple("Usage", "total used free")


def test_too_little_space_is_told_before_the_first_picture(tracklets, tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module.shutil, "disk_usage", lambda path: Usage(0, 0, 5000))
    with pytest.raises(OSError, match=r"7 pictures of 24x12 take .* GB free; make room") as told:
        pack_pictures(tracklets, tmp_path / "out", size=SIZE)
    assert told.value.errno == errno.ENOSPC and "\n" not in str(told.value)


def test_an_interrupted_pack_needs_space_only_for_the_rest(
    tracklets, tmp_path, together, monkeypatch
):
    with pytest.raises(KeyboardInterrupt):
        pack_pictures(tracklets, tmp_path / "out", size=SIZE, progress=stop_at(4))
    monkeypatch.setattr(writer_module.shutil, "disk_usage", lambda path: Usage(0, 0, 5000))
    assert pack_pictures(tracklets, tmp_path / "out", size=SIZE).packed == 3


@contextmanager
def full_disk():
    """No file may grow beyond 2,000 bytes: a write stops in the middle, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    held = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, held)


def test_a_full_disk_leaves_what_was_there(tracklets, packed, together):
    before = contents(packed)
    words = r"while writing .*store\.partial; what is there is kept"
    with full_disk(), pytest.raises(OSError, match=words) as told:
        pack_pictures(tracklets[:3], packed, size=SIZE, overwrite=True)
    assert "\n" not in str(told.value)
    assert contents(packed) == before


def test_a_pack_goes_on_after_a_full_disk(tracklets, packed, tmp_path, together):
    out = tmp_path / "out"
    with full_disk(), pytest.raises(OSError, match="the same pack goes on"):
        pack_pictures(tracklets, out, size=SIZE)
    assert not out.exists()
    assert pack_pictures(tracklets, out, size=SIZE).packed == 5
    assert contents(out) == contents(packed)


def test_a_kill_between_the_two_moves_is_put_right_by_the_next_pack(
    tracklets, packed, tmp_path, monkeypatch
):
    move = os.replace

    def replace(source, target):
        if str(source).endswith(".partial"):
            raise KeyboardInterrupt  # before the second move, and without the handler's way back
        move(source, target)

    monkeypatch.setattr(writer_module.os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        pack_pictures(tracklets[:3], packed, size=SIZE, overwrite=True)
    monkeypatch.undo()
    assert not packed.exists()
    assert pack_pictures(tracklets[:3], packed, size=SIZE).pictures == 6
    assert len(PictureStore.open(packed)) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "store"]


def test_a_failed_move_brings_the_old_store_back(tracklets, packed, monkeypatch):
    before, move = contents(packed), os.replace

    def replace(source, target):
        if str(source).endswith(".partial"):
            raise OSError(errno.EIO, "input/output error")
        move(source, target)

    monkeypatch.setattr(writer_module.os, "replace", replace)
    with pytest.raises(OSError, match="input/output"):
        pack_pictures(tracklets[:3], packed, size=SIZE, overwrite=True)
    assert contents(packed) == before


def test_two_processes_do_not_write_one_store(tracklets, paths, tmp_path):
    with (
        PictureWriter(tmp_path / "out", paths, SIZE),
        pytest.raises(ValueError, match=r"another process writes .*out\.partial"),
    ):
        pack_pictures(tracklets, tmp_path / "out", size=SIZE)


def test_a_writer_refuses_pictures_of_another_size(paths, tmp_path):
    with PictureWriter(tmp_path / "out", paths[:1], SIZE) as writer:
        with pytest.raises(ValueError, match=r"expected uint8 \(1, 24, 12, 3\)"):
            writer.add([os.stat(paths[0])], np.zeros((1, 8, 8, 3), np.uint8))
        writer.add([os.stat(paths[0])], np.zeros((1, *SIZE, 3), np.uint8))
    with pytest.raises(ValueError, match="in a `with` statement"):
        writer.add([], np.zeros((0, *SIZE, 3), np.uint8))


def test_the_report_speaks_to_people_and_programs(tracklets, tmp_path):
    told = []
    report = pack_pictures(
        tracklets, tmp_path / "out", size=SIZE, progress=lambda *step: told.append(step)
    )
    assert told == [(7, 7)]
    assert report.text().startswith(f"{tmp_path}/out: 7 pictures of 24x12, 0.0 MB; 7 packed in ")
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain.pop("seconds") >= 0
    assert plain == {
        "folder": f"{tmp_path}/out",
        "size": [24, 12],
        "pictures": 7,
        "packed": 7,
        "bytes": 7 * 24 * 12 * 3,
    }


def test_a_stopped_pack_leaves_no_thread_behind(tracklets, tmp_path, together):
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        pack_pictures(tracklets, tmp_path / "o", size=SIZE, workers=3, progress=stop_at(2))
    assert threading.active_count() == before
