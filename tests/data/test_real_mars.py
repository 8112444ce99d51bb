"""The real tables of MARS; skipped where they are not.

REIDKIT_DATA names the folder that holds mars-info/info (the three .mat files of the authors'
evaluation code). The lists of names are made up to fit them, and there are no frames.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from reidkit.data.adapters import mars
from reidkit.data.synthetic.mars_layout import frame_name
from reidkit.evaluation.protocols import protocol as registered

INFO = Path(os.environ.get("REIDKIT_DATA") or "datasets") / "mars-info" / "info"
pytestmark = pytest.mark.skipif(
    not all((INFO / name).is_file() for name in mars.FILES if name.endswith(".mat")),
    reason="REIDKIT_DATA holds no mars-info/info with the tables of MARS",
)


@pytest.fixture(scope="module")
def tracks():
    return mars.read_tracks(INFO)


@pytest.fixture(scope="module")
def root(tracks, tmp_path_factory):
    """The real tables with made-up lists of names that fit them."""
    folder = tmp_path_factory.mktemp("MARS")
    (folder / "info").mkdir()
    for name in mars.FILES:
        if name.endswith(".mat"):
            shutil.copy(INFO / name, folder / "info")
    for split, table in (("train", tracks.train), ("test", tracks.test)):
        (folder / f"bbox_{split}").mkdir()
        with (folder / "info" / f"{split}_name.txt").open("w") as file:
            for row, (start, stop, pid, camid) in enumerate(table.tolist()):
                frames = range(1, stop - start + 1)
                file.writelines(f"{frame_name(pid, camid, row + 1, n)}\n" for n in frames)
    return folder


def test_the_real_tables_have_the_published_counts(tracks):
    found = mars.statistics(tracks)
    assert found == mars.STATISTICS
    assert found["train"] == (8_298, 625, 509_914, 5, 900)
    assert found["test"][:3] == (12_180, 636, 681_089)
    assert found["junk"].tracklets == 870
    assert found["distractors"].tracklets == 3_248
    assert found["people"][:2] == (8_062, 634)
    assert found["query"][:2] == (1_980, 626)


def test_the_real_ranges_follow_one_another_without_a_gap(tracks):
    for table, frames in ((tracks.train, 509_914), (tracks.test, 681_089)):
        assert table[0, 0] == 0
        assert np.array_equal(table[1:, 0], table[:-1, 1])
        assert table[-1, 1] == frames
        assert set(table[:, 3].tolist()) == set(range(6))
    assert not set(tracks.train[:, 2].tolist()) & set(tracks.test[:, 2].tolist())


def test_the_whole_reader_accepts_the_real_tables_and_every_query_has_an_answer(root):
    reading = mars.read(root, files=False)
    assert {finding.severity for finding in reading.findings} == {"note"}
    assert reading.protocol == registered("mars")
    assert len(reading.train) == 8_298
    assert len({sample.pid for sample in reading.train}) == 625
    assert sum(len(sample.frames) for sample in reading.train) == 509_914
    assert len(reading.query) == 1_980
    assert len({sample.pid for sample in reading.query}) == 626
    assert len(reading.gallery) == 12_180 - 870
    assert sum(sample.pid == 0 for sample in reading.gallery) == 3_248
    assert set(reading.query) <= set(reading.gallery)
    cameras = {(sample.pid, sample.camid) for sample in reading.gallery}
    for sample in reading.query:
        assert any((sample.pid, other) in cameras for other in range(6) if other != sample.camid)


def test_without_queries_140_real_queries_have_no_answer(root):
    reading = mars.read(root, protocol="without_queries", files=False)
    assert reading.protocol == registered("mars_torchreid")
    assert len(reading.gallery) == 9_330
    assert len({sample.pid for sample in reading.gallery if sample.pid}) == 620
    cameras = {(sample.pid, sample.camid) for sample in reading.gallery}
    answered = [
        any((sample.pid, other) in cameras for other in range(6) if other != sample.camid)
        for sample in reading.query
    ]
    assert (sum(answered), len(answered) - sum(answered)) == (1_840, 140)


def test_strict_loads_but_for_the_frames_that_are_not_there(root):
    with pytest.raises(ValueError, match=r"^mars: 509,914 listed frames are not in .*bbox_train"):
        mars.load(root)
    assert len(mars.load(root, "off").train) == 8_298
