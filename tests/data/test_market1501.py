import logging
import os
from pathlib import Path

import pytest

from reidkit.data import check_benchmark, load_benchmark
from reidkit.data.adapters import market1501
from reidkit.types import Sample


def test_names_become_identities_and_cameras_counted_from_zero(market):
    benchmark = market1501.load(market, "off")
    found = [(sample.pid, sample.camid) for sample in benchmark.train]
    assert found == [(2, 0), (2, 1), (7, 2), (7, 5), (10, 0), (10, 4)]
    first = market / "bounding_box_train" / "0002_c1s1_000451_03.jpg"
    assert benchmark.train[0] == Sample((str(first),), 2, 0, domain="market1501")


def test_junk_is_dropped_and_distractors_stay(market):
    benchmark = market1501.load(market, "off")
    assert [sample.pid for sample in benchmark.gallery] == [0, 1, 1, 3]


def test_a_doubled_suffix_is_read_and_thumbs_are_ignored(market):
    frames = [sample.frames[0] for sample in market1501.load(market, "off").train]
    assert any(frame.endswith(".jpg.jpg") for frame in frames)
    assert not any("Thumbs" in frame for frame in frames)


def test_answers_of_the_same_camera_do_not_count(market):
    assert market1501.load(market, "off").protocol.exclude == "same_camera"


def test_order_is_that_of_the_names_and_not_of_the_file_system(market, monkeypatch):
    straight = market1501.load(market, "off")
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: reversed(sorted(listing(path))))
    assert market1501.load(market, "off") == straight


@pytest.mark.parametrize("name", ["Market-1501-v15.09.15", "market1501"])
def test_the_parent_folder_is_accepted_too(market, name):
    market.rename(market.parent / name)
    assert len(load_benchmark("market1501", market.parent, "off").train) == 6


def test_strict_names_the_counts_expected_and_found(market):
    with pytest.raises(ValueError, match="train has 3 identities and 6 images, expected 751 and"):
        load_benchmark("market1501", market)


def test_warn_loads_and_logs_the_counts(market, caplog):
    with caplog.at_level(logging.WARNING):
        benchmark = load_benchmark("market1501", market, "warn")
    assert len(benchmark.query) == 2
    assert "query has 2 identities and 2 images, expected 750 and 3,368" in caplog.text


def test_off_says_nothing(market, caplog):
    with caplog.at_level(logging.WARNING):
        load_benchmark("market1501", market, "off")
    assert not caplog.records


@pytest.mark.parametrize("check", ["strict", "warn", "off"])
def test_a_missing_folder_is_named_at_every_level(market, check):
    for file in (market / "query").iterdir():
        file.unlink()
    (market / "query").rmdir()
    with pytest.raises(FileNotFoundError, match=r"no folder 'query'.*README.md#market1501"):
        load_benchmark("market1501", market, check)


def test_a_root_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        load_benchmark("market1501", tmp_path / "nowhere")


def test_a_name_that_does_not_parse_is_named(market):
    (market / "query" / "holiday.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1 names in query are not .*: holiday.jpg"):
        load_benchmark("market1501", market)


def test_an_unknown_benchmark_or_argument_is_refused(market):
    with pytest.raises(ValueError, match="Did you mean 'market1501'"):
        load_benchmark("market151", market)
    with pytest.raises(ValueError, match="unknown key 'folds'"):
        load_benchmark("market1501", market, folds=3)


def test_the_real_set_has_the_published_counts_and_no_faults():
    root = Path(os.environ.get("REIDKIT_DATA") or "datasets")
    if not (root / "Market-1501-v15.09.15").is_dir():
        pytest.skip("no Market-1501-v15.09.15 in REIDKIT_DATA")
    report = check_benchmark("market1501", root, decode=False)
    assert report.ok
    assert {finding.severity for finding in report.findings} <= {"note"}
    found = {split: (c.identities, c.images) for split, c in report.counts.items()}
    assert found == {"train": (751, 12936), "query": (750, 3368), "gallery": (751, 15913)}
    assert {count.cameras for count in report.counts.values()} == {6}
