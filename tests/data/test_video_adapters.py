import json
import logging
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from reidkit.data import check_benchmark, load_benchmark
from reidkit.data.adapters import ilids_vid, mars, matlab, prid2011
from reidkit.data.adapters.matlab import read_mat
from reidkit.data.adapters.tracklets import find_root
from reidkit.data.synthetic.mars_layout import Track, frame_name, write_mars_info
from reidkit.data.synthetic.video_stand_ins import (
    write_ilids_vid,
    write_mars_stand_in,
    write_prid2011,
)
from reidkit.evaluation.protocols import protocol as registered
from reidkit.types import EvalProtocol

PAIRS = [(ilids_vid, write_ilids_vid), (prid2011, write_prid2011)]


@pytest.fixture
def root(tmp_path):
    """A stand-in for MARS: 3 + 3 people in 2 cameras, 2 junk and 2 distractor tracklets."""
    return write_mars_stand_in(tmp_path / "MARS")


def alter(path, key, change):
    """Change the table under `key` of a MATLAB file in place, and keep its type."""
    table = loadmat(path)[key]
    changed = change(table)
    savemat(path, {key: table if changed is None else changed})


def edit(root, split, row, column, value):
    """Set one number of a table of MARS; `row` from 1."""
    path, key = root / "info" / f"tracks_{split}_info.mat", f"track_{split}_info"
    table = loadmat(path)[key]
    table[row - 1, column] = value
    savemat(path, {key: table})


def errors(reading):
    """The sentences of a reading's errors, but for counts that a stand-in never has."""
    return [
        finding.sentence
        for finding in reading.findings
        if finding.severity == "error" and ", expected" not in finding.what
    ]


# MARS


def test_a_sample_is_a_tracklet_with_its_frames_in_the_order_of_the_list(root):
    train = mars.load(root, "off").train
    first = train[0]
    names = [f"{root}/bbox_train/0001/0001C1T0001F{frame:03d}.jpg" for frame in (1, 2, 3)]
    assert list(first.frames) == names
    assert (first.pid, first.camid, first.domain) == (1, 0, "mars")
    assert [len(sample.frames) for sample in train[:4]] == [3, 4, 5, 6]
    assert all(Path(frame).is_file() for sample in train for frame in sample.frames)


def test_every_frame_of_the_list_is_in_exactly_one_tracklet(root):
    benchmark = mars.load(root, "off")
    for samples, split in ((benchmark.train, "train"), (benchmark.gallery, "test")):
        listed = (root / "info" / f"{split}_name.txt").read_text().split()
        used = [Path(frame).name for sample in samples for frame in sample.frames]
        assert used == [name for name in listed if not name.startswith("00-1")]


def test_the_number_of_a_frame_is_a_time_only_where_one_says_so(root):
    plain, timed = mars.load(root, "off"), mars.load(root, "off", times=True)
    assert {sample.span for sample in (*plain.train, *plain.gallery)} == {None}
    assert [sample.span for sample in timed.train[:3]] == [(1.0, 3.0), (1.0, 4.0), (1.0, 5.0)]
    assert set(timed.query) <= set(timed.gallery)
    assert [sample.frames for sample in timed.gallery] == [s.frames for s in plain.gallery]


def test_times_may_be_large(root):
    path = root / "info" / "train_name.txt"
    path.write_text(path.read_text().replace("0001C1T0001F00", "0001C1T0001F123456700"))
    sample = mars.read(root, times=True, files=False).train[0]
    assert sample.span == (1_234_567_001.0, 1_234_567_003.0)
    assert load_benchmark("mars", root, "off", times=True).train[0] == sample


def test_cameras_count_from_zero(root):
    benchmark = mars.load(root, "off")
    for sample in (*benchmark.train, *benchmark.gallery):
        assert all(int(Path(frame).name[5]) - 1 == sample.camid for frame in sample.frames)
    assert {sample.camid for sample in benchmark.gallery} == {0, 1}


def test_junk_tracklets_are_dropped_and_distractors_stay(root):
    reading = mars.read(root)
    assert Counter(sample.pid for sample in reading.gallery) == {0: 2, 2: 4, 4: 4, 6: 2}
    assert any("2 junk tracklets" in finding.what for finding in reading.findings)
    folders = {Path(sample.frames[0]).parent.name for sample in reading.gallery}
    assert folders == {"0000", "0002", "0004", "0006"}


def test_the_authors_gallery_holds_the_queries_and_every_query_has_an_answer(root):
    benchmark = mars.load(root, "off")
    assert benchmark.protocol == registered("mars")
    assert set(benchmark.query) <= set(benchmark.gallery)
    assert [(sample.pid, sample.camid) for sample in benchmark.query] == [
        (pid, camid) for pid in (2, 4, 6) for camid in (0, 1)
    ]


def test_the_other_protocol_has_no_query_in_the_gallery_and_leaves_some_without_answer(root):
    benchmark = mars.load(root, "off", protocol="without_queries")
    assert benchmark.protocol == registered("mars_torchreid")
    assert not set(benchmark.query) & set(benchmark.gallery)
    assert Counter(sample.pid for sample in benchmark.gallery) == {0: 2, 2: 2, 4: 2}
    report = check_benchmark("mars", root, args={"protocol": "without_queries"})
    assert any(f.what.startswith("2 of 6 queries, of 1 identities") for f in report.findings)


def test_an_unknown_protocol_is_refused(root):
    with pytest.raises(ValueError, match="protocol"):
        load_benchmark("mars", root, "off", protocol="torchreid")
    for call in (mars.read, mars.load):
        with pytest.raises(ValueError, match=r"^mars: protocol is 'x', expected mars or without_q"):
            call(root, protocol="x")


def test_only_the_counts_of_a_whole_stand_in_are_wrong(root):
    report = check_benchmark("mars", root)
    wrong = [finding for finding in report.findings if finding.severity == "error"]
    assert [finding.what.split()[0] for finding in wrong] == list(mars.STATISTICS)
    assert report.decoded == 54 + 50
    assert not errors(mars.read(root))


def test_strict_names_both_counts_and_warn_loads(root, caplog):
    with pytest.raises(ValueError, match=r"12 tracklets of 3 identities .* expected 8,298 "):
        load_benchmark("mars", root)
    with caplog.at_level(logging.WARNING):
        assert len(load_benchmark("mars", root, "warn").train) == 12
    assert "test has 14 tracklets of 5 identities with 57 frames" in caplog.text


def test_two_readings_are_equal_whatever_the_order_of_the_folders(root, monkeypatch):
    straight = mars.read(root)
    listing = mars.missing_frames.__globals__["os"].listdir
    monkeypatch.setattr("os.listdir", lambda place: listing(place)[::-1])
    assert mars.read(root) == straight


def test_the_parent_folder_is_accepted_too(root):
    assert mars.read(root.parent) == mars.read(root)


def test_the_tables_count_from_zero_once_they_are_read(root):
    tracks = mars.read_tracks(root / "info")
    assert tracks.train[:2].tolist() == [[0, 3, 1, 0], [3, 7, 1, 0]]
    assert tracks.test[0].tolist() == [0, 3, -1, 0]
    assert tracks.query.tolist() == [4, 6, 8, 10, 12, 13]
    assert {table.dtype for table in tracks} == {np.dtype(np.int64)}
    found = mars.statistics(tracks)
    assert found["train"] == (12, 3, 54, 3, 6)
    assert found["junk"][:2] == (2, 1)
    assert found["people"][:2] == (10, 3)


def test_the_stand_in_has_the_released_types(root):
    tables = {
        name: loadmat(root / "info" / file)[name]
        for name, file in (
            ("track_train_info", "tracks_train_info.mat"),
            ("track_test_info", "tracks_test_info.mat"),
            ("query_IDX", "query_IDX.mat"),
        )
    }
    assert [table.dtype for table in tables.values()] == [np.int32, np.int32, np.uint16]
    assert tables["query_IDX"].shape == (1, 6)
    assert (root / "bbox_test" / "00-1" / "00-1C1T0001F001.jpg").is_file()
    assert (root / "bbox_test" / "Thumbs.db").is_file()


def test_a_query_index_of_zero_does_not_wrap_to_the_last_of_65536(root):
    alter(root / "info" / "query_IDX.mat", "query_IDX", lambda t: t * (t != t[0, 0]))
    assert mars.read_tracks(root / "info").query[0] == -1
    reading = mars.read(root)
    assert len(reading.query) == 5
    assert "query 1 is row 0, expected 1 to 14" in " ".join(f.sentence for f in reading.findings)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (15, "is row 15, expected 1 to 14"),
        (1, "is row 1 with pid -1, expected a person's"),
        (3, "is row 3 with pid 0, expected a person's"),
        (7, "is row 7 a second time"),
    ],
)
def test_a_query_that_cannot_ask_is_named_and_left_out(root, row, what):
    def change(table):
        table[0, 2] = row

    alter(root / "info" / "query_IDX.mat", "query_IDX", change)
    reading = mars.read(root)
    if row == 7:  # what was query 2 stays, the repetition leaves
        assert len({sample.frames for sample in reading.query}) == len(reading.query)
    assert len(reading.query) == 5
    sentences = " ".join(finding.sentence for finding in reading.findings)
    assert "1 entries of query_IDX.mat" in sentences
    assert what in sentences


@pytest.mark.parametrize(
    ("split", "row", "column", "value", "what"),
    [
        ("train", 1, 0, 0, "row 1: starts at 0, expected 1 or more"),
        ("train", 2, 0, 8, "row 2: starts at 8 and ends at 7"),
        ("train", 12, 1, 55, "row 12: ends at 55, but the list has 54 names"),
        ("train", 2, 0, 3, "row 2: starts at 3, where another goes to 3"),
        ("test", 14, 1, 10**9, "row 14: ends at 1,000,000,000, but the list has 57"),
        ("train", 5, 2, 1, "row 5: pid 1, camera 1, but it holds '0003C1T0001F001.jpg'"),
        ("train", 5, 2, 0, "row 5: pid 0, expected 1 or more"),
        ("test", 5, 2, -2, "row 5: pid -2, expected -1 or more"),
        ("test", 5, 3, 2, "row 5: pid 2, camera 2, but it holds '0002C1T0001F001.jpg'"),
        ("test", 5, 3, 0, "row 5: camera 0, expected 1 to 6"),
        ("test", 5, 3, 7, "row 5: camera 7, expected 1 to 6"),
    ],
)
def test_a_row_that_contradicts_the_list_is_named_and_left_out(
    root, split, row, column, value, what
):
    whole = mars.read(root)
    edit(root, split, row, column, value)
    reading = mars.read(root)
    found = [f for f in reading.findings if f.what.startswith("1 rows of")]
    assert len(found) == 1
    assert found[0].severity == "error"
    assert what in found[0].sentence
    side = "train" if split == "train" else "gallery"
    assert len(getattr(reading, side)) == len(getattr(whole, side)) - 1


def test_ranges_that_are_off_by_one_are_no_tracklets(root):
    """Ends one too early leave names over; starts one too early reach into the one before."""

    def shorten(table):
        table[:, 1] -= 1

    def lengthen(table):
        table[1:, 0] -= 1

    path = root / "info" / "tracks_train_info.mat"
    alter(path, "track_train_info", shorten)
    assert "12 names of train_name.txt are in no row" in " ".join(errors(mars.read(root)))
    alter(path, "track_train_info", lambda table: table + np.int32([[0, 1, 0, 0]]))
    assert not errors(mars.read(root))
    alter(path, "track_train_info", lengthen)
    assert "11 rows of tracks_train_info.mat are wrong" in " ".join(errors(mars.read(root)))


@pytest.mark.parametrize("name", ["holiday.jpg", "", "0001C1T0001F001.jpg/../x.jpg", "0001C1.png"])
def test_a_name_of_another_form_is_named_with_its_row(root, name):
    path = root / "info" / "train_name.txt"
    lines = path.read_text().split("\n")
    lines[4] = name
    path.write_text("\n".join(lines))
    reading = mars.read(root)
    assert f"row 2: pid 1, camera 1, but it holds {name!r}" in " ".join(errors(reading))
    assert len(reading.train) == 11


def test_windows_ends_of_lines_and_lines_at_the_end_do_not_matter(root):
    whole = mars.read(root)
    path = root / "info" / "train_name.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
    assert mars.read(root) == whole


def test_names_of_junk_are_not_held_against_a_copy(root):
    path = root / "info" / "test_name.txt"
    path.write_text(path.read_text().replace("00-1C1", "junk"))
    assert not errors(mars.read(root))


def test_a_list_that_is_no_text_is_refused(root):
    (root / "info" / "test_name.txt").write_bytes(b"\xff\xfe0001")
    with pytest.raises(ValueError, match=r"test_name.txt is no text in UTF-8"):
        mars.read(root)


def test_frames_that_are_listed_but_not_there_are_counted(root):
    (root / "bbox_test" / "0004" / "0004C1T0001F002.jpg").unlink()
    shutil.rmtree(root / "bbox_test" / "0000")
    (found,) = errors(mars.read(root))
    assert f"8 listed frames are not in {root}/bbox_test" in found
    assert "0000C1T0001F001.jpg" in found
    assert "and 3 more" in found
    assert not errors(mars.read(root, files=False))
    assert len(mars.load(root, "off").gallery) == 12


def test_an_unreadable_frame_is_found_by_the_check(root):
    frame = root / "bbox_train" / "0003" / "0003C2T0003F002.jpg"
    frame.write_bytes(b"no picture")
    report = check_benchmark("mars", root)
    assert any("1 images cannot be read" in finding.what for finding in report.findings)


@pytest.mark.parametrize("check", ["strict", "warn", "off"])
@pytest.mark.parametrize("name", [*mars.FILES])
def test_a_missing_file_is_named_at_every_level(root, check, name):
    (root / "info" / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"no file 'info/{name}'.*README.md#mars"):
        load_benchmark("mars", root, check)


def test_everything_that_is_missing_is_named_at_once(root):
    shutil.rmtree(root / "bbox_test")
    (root / "info" / "query_IDX.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"'bbox_test'.*'info/query_IDX.mat'"):
        load_benchmark("mars", root, "off")
    with pytest.raises(FileNotFoundError, match=r"no file .*query_IDX.mat"):
        mars.read_tracks(root / "info")


@pytest.mark.parametrize("module", [mars, ilids_vid, prid2011])
def test_a_root_that_is_not_there_is_named(tmp_path, module):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere\. Expected layout"):
        module.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="Expected layout"):
        module.load(tmp_path)


def test_the_writer_refuses_what_the_tables_cannot_say(tmp_path):
    track = Track(1, 0, (frame_name(1, 0, 1, 1),))
    with pytest.raises(ValueError, match=r"queries \[1\] are no positions in the 1 test"):
        write_mars_info(tmp_path, [track], [track], [1])
    with pytest.raises(ValueError, match="tracklet 1 has no frames"):
        write_mars_info(tmp_path, [track, Track(1, 0, ())], [track], [0])
    with pytest.raises(ValueError, match="does not fit into 16 bits"):
        write_mars_info(tmp_path, [track], [track] * 65_536, [65_535])
    assert frame_name(-1, 2, 3, 4) == "00-1C3T0003F004.jpg"


# MATLAB files


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("shape", [(1, 3), (7, 1), (10, 33)])
def test_tables_are_read_as_scipy_reads_them_but_in_64_bits(tmp_path, compressed, kind, shape):
    path = tmp_path / "a.mat"
    table = np.random.default_rng(0).integers(0, 128, shape).astype(kind)
    variables = {"a": np.ones(9), "text": "b", "a_much_longer_name": table, "x": table, "z": {}}
    savemat(path, variables, do_compression=compressed)
    for key in ("x", "a_much_longer_name"):
        found = read_mat(path, key)
        assert found.dtype == np.int64
        assert np.array_equal(found, loadmat(path)[key])
    savemat(path, {"x": np.zeros((1, 2), kind)})
    assert (read_mat(path, "x") - 1).tolist() == [[-1, -1]]


@pytest.mark.parametrize(
    "value",
    [
        *(np.array([[odd]]) for odd in (0.5, np.nan, np.inf, -np.inf, 1e12, 1j)),
        *(np.zeros((2, 2, 2)), np.zeros((0, 4)), "text", {"a": 1}),
    ],
)
def test_a_table_of_anything_but_whole_numbers_is_refused(tmp_path, value):
    savemat(tmp_path / "a.mat", {"x": value})
    with pytest.raises(ValueError, match=r"a\.mat.*'x'.* table of "):
        read_mat(tmp_path / "a.mat", "x")


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    savemat(tmp_path / "a.mat", {"x": np.zeros((1000, 100))}, do_compression=True)
    assert read_mat(tmp_path / "a.mat", "x").shape == (1000, 100)
    monkeypatch.setattr(matlab, "_LARGEST", 10_000)
    with pytest.raises(ValueError, match="cut short or too large"):
        read_mat(tmp_path / "a.mat", "x")


def test_a_file_without_the_key_is_refused(root):
    savemat(root / "info" / "query_IDX.mat", {"query": np.array([[5]], np.uint16)})
    with pytest.raises(ValueError, match=r"query_IDX.mat holds no 'query_IDX'"):
        mars.read(root)


def test_a_table_of_another_shape_is_refused(root):
    path = root / "info" / "tracks_test_info.mat"
    alter(path, "track_test_info", lambda table: table[:, :3])
    with pytest.raises(ValueError, match="has 3 columns, expected 4: start, end, pid, camera"):
        mars.read(root)
    write_mars_info(root, [Track(1, 0, ("a",))], [Track(1, 0, ("a",))], [0])
    savemat(root / "info" / "query_IDX.mat", {"query_IDX": np.ones((2, 2), np.uint16)})
    with pytest.raises(ValueError, match=r"shape \(2, 2\), expected one row"):
        mars.read_tracks(root / "info")


@pytest.mark.parametrize("content", [b"", b"MATLAB", b"MATLAB 7.3 MAT-file" + bytes(200)])
def test_what_is_no_file_of_matlab_is_refused(root, content):
    (root / "info" / "tracks_train_info.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"tracks_train_info.mat cannot be read as a MATLAB file"):
        load_benchmark("mars", root, "off")


@pytest.mark.parametrize("compressed", [False, True])
def test_cut_and_altered_files_are_refused_or_read_but_never_crash(tmp_path, compressed):
    """Among them are types of elements that make scipy end the process."""
    path = tmp_path / "a.mat"
    savemat(path, {"x": np.arange(40, dtype=np.int32).reshape(10, 4)}, do_compression=compressed)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for trial in range(400):
        damaged = bytearray(whole)
        if trial % 4 == 0:
            del damaged[generator.integers(len(whole)) :]
        else:
            for place in generator.integers(120, 230, size=1 + trial % 3):
                damaged[min(place, len(whole) - 1)] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            read_mat(path, "x")
        except ValueError as error:
            assert "a.mat" in str(error)
            assert "\n" not in str(error)


# iLIDS-VID and PRID 2011


@pytest.mark.parametrize(("module", "write"), PAIRS)
@pytest.mark.parametrize("split", range(1, 11))
def test_each_split_trains_on_one_half_and_tests_the_other(tmp_path, module, write, split):
    write(tmp_path)
    reading = module.read(tmp_path, split=split)
    assert not errors(reading)
    train = {sample.pid for sample in reading.train}
    asked = [sample.pid for sample in reading.query]
    assert len(train) == len(asked) == 4
    assert not train & set(asked)
    assert train | set(asked) == {1, 2, 3, 5, 6, 7, 9, 10}
    assert [sample.pid for sample in reading.gallery] == asked == sorted(asked)
    assert {sample.camid for sample in reading.query} == {0}
    assert {sample.camid for sample in reading.gallery} == {1}
    pairs = [(sample.pid, sample.camid) for sample in reading.train]
    assert pairs == [(pid, camid) for pid in sorted(train) for camid in (0, 1)]


@pytest.mark.parametrize(("module", "write"), PAIRS)
def test_splits_differ_and_none_is_outside_one_to_ten(tmp_path, module, write):
    write(tmp_path)
    tested = [
        tuple(sample.pid for sample in module.read(tmp_path, split=split).query)
        for split in range(1, 11)
    ]
    assert len(set(tested)) > 1
    for split in (0, 11, -1):
        with pytest.raises(ValueError, match=rf"split {split}, expected 1 to 10"):
            module.load(tmp_path, "off", split=split)


def test_the_first_half_of_a_row_is_tested_by_places_in_the_sorted_list(tmp_path):
    write_ilids_vid(tmp_path)
    path = tmp_path / "train-test people splits" / "train_test_splits_ilidsvid.mat"
    row = loadmat(path)["ls_set"][3].astype(int)
    people = [1, 2, 3, 5, 6, 7, 9, 10]
    reading = ilids_vid.read(tmp_path, split=4)
    assert [s.pid for s in reading.query] == sorted(people[place - 1] for place in row[:4])
    assert {s.pid for s in reading.train} == {people[place - 1] for place in row[4:]}


def test_frames_are_sorted_and_other_files_ignored(tmp_path):
    write_ilids_vid(tmp_path)
    reading = ilids_vid.read(tmp_path)
    first = reading.train[0]
    folder = tmp_path / "i-LIDS-VID" / "sequences" / "cam1" / f"person{first.pid:03d}"
    assert list(first.frames) == [str(path) for path in sorted(folder.glob("*.png"))]
    assert len(first.frames) == 3
    assert (folder / "Thumbs.db").is_file()


def test_the_order_is_not_that_of_the_file_system(tmp_path, monkeypatch):
    write_prid2011(tmp_path)
    straight = prid2011.read(tmp_path)
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: reversed(sorted(listing(path))))
    assert prid2011.read(tmp_path) == straight


@pytest.mark.parametrize(("module", "write"), PAIRS)
def test_ranks_are_reported_and_the_own_camera_is_left_out(tmp_path, module, write):
    write(tmp_path)
    scores = ("rank-1", "rank-5", "rank-10", "rank-20", "mAP")
    assert module.load(tmp_path, "off").protocol == EvalProtocol("same_camera", scores)


@pytest.mark.parametrize(("module", "write"), PAIRS)
def test_a_pair_in_strict_names_both_counts(tmp_path, module, write):
    write(tmp_path)
    people = module.STATISTICS["train"][0]
    with pytest.raises(ValueError, match=f"train has 4 identities and 8 tracklets, .* {people}"):
        module.load(tmp_path)
    report = check_benchmark(module.PAIR.name, tmp_path, args={"split": 2})
    assert all(", expected" in f.what for f in report.findings)
    assert report.decoded == 48


def test_a_set_of_the_published_size_passes_strict(tmp_path):
    def grey(pid, camid, tracklet, frame):
        return np.full((2, 2, 3), 128, np.uint8)

    write_ilids_vid(tmp_path / "i", people=300, frames=1, draw=grey)
    found = load_benchmark("ilids_vid", tmp_path / "i", split=10)
    assert (len(found.train), len(found.query), len(found.gallery)) == (300, 150, 150)
    write_prid2011(tmp_path / "p", people=178, frames=1, draw=grey, splits="mat")
    found = load_benchmark("prid2011", tmp_path / "p", split=10)
    assert (len(found.train), len(found.query), len(found.gallery)) == (178, 89, 89)


@pytest.mark.parametrize("split", [1, 10])
def test_both_forms_of_prids_splits_name_the_same_people(tmp_path, split):
    write_prid2011(tmp_path / "json")
    write_prid2011(tmp_path / "mat", splits="mat")
    found = [
        [sample.pid for side in (reading.train, reading.query) for sample in side]
        for reading in (prid2011.read(tmp_path / kind, split=split) for kind in ("json", "mat"))
    ]
    assert found[0] == found[1]


def test_without_a_list_of_people_prid_takes_those_with_enough_pictures(tmp_path, monkeypatch):
    write_prid2011(tmp_path, splits="mat")
    whole = prid2011.read(tmp_path)
    splits = tmp_path / "splits_prid2011.mat"
    table = loadmat(splits)["ls_set"]
    splits.unlink()
    (tmp_path / "train-test people splits").mkdir()
    savemat(tmp_path / "train-test people splits" / "train_test_splits_prid.mat", {"ls_set": table})
    with pytest.raises(ValueError, match="splits 8 people, but there are 0"):
        prid2011.read(tmp_path)
    monkeypatch.setattr(prid2011, "SHORTEST", 3)
    assert prid2011.read(tmp_path) == whole


def test_splits_are_found_in_the_set_beside_it_and_in_the_root(tmp_path):
    write_ilids_vid(tmp_path)
    whole = ilids_vid.read(tmp_path)
    inside = tmp_path / "i-LIDS-VID"
    assert ilids_vid.read(inside) == whole
    (tmp_path / "train-test people splits").rename(inside / "train-test people splits")
    assert ilids_vid.read(tmp_path) == ilids_vid.read(inside) == whole


@pytest.mark.parametrize(("module", "write"), PAIRS)
def test_missing_cameras_and_splits_are_named_at_every_level(tmp_path, module, write):
    write(tmp_path)
    folder = find_root(tmp_path, module.PAIR.parents, module.PAIR.cameras[0])
    shutil.rmtree(folder / module.PAIR.cameras[1])
    for path in [*tmp_path.rglob("*.mat"), *tmp_path.rglob("*.json")]:
        path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"no folder '{module.PAIR.cameras[1]}'.*splits"):
        module.load(tmp_path, "off")


@pytest.mark.parametrize(("module", "write"), PAIRS)
def test_a_person_without_pictures_in_one_camera_is_named(tmp_path, module, write):
    write(tmp_path)
    folder = find_root(tmp_path, module.PAIR.parents, module.PAIR.cameras[0])
    whole = module.read(tmp_path)
    lost = whole.query[0].pid
    person = Path(whole.gallery[0].frames[0]).parent
    shutil.rmtree(person)
    reading = module.read(tmp_path)
    assert f"no pictures in {module.PAIR.cameras[1]}: {person.name}" in " ".join(errors(reading))
    assert lost not in {sample.pid for sample in reading.gallery}
    assert {sample.pid for sample in reading.train} == {sample.pid for sample in whole.train}
    (folder / module.PAIR.cameras[0] / "holiday").mkdir()
    assert "1 folders in" in " ".join(errors(module.read(tmp_path)))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda table: table[:, :6], "splits 6 people, but there are 8"),
        (lambda table: table - np.uint16(1), "does not name each of 1 to 8 once"),
        (lambda table: np.ones_like(table), "does not name each of 1 to 8 once"),
        (lambda table: table[:2], "has 2 splits, so there is none of number 3"),
    ],
)
def test_a_table_of_splits_that_cannot_be_right_is_refused(tmp_path, change, what):
    write_ilids_vid(tmp_path)
    path = tmp_path / "train-test people splits" / "train_test_splits_ilidsvid.mat"
    alter(path, "ls_set", change)
    with pytest.raises(ValueError, match=rf"train_test_splits_ilidsvid.mat.*{what}"):
        ilids_vid.load(tmp_path, "off", split=3)


def test_a_list_of_people_with_somebody_twice_is_refused(tmp_path):
    write_prid2011(tmp_path, splits="mat")
    path = tmp_path / "splits_prid2011.mat"
    tables = {key: loadmat(path)[key] for key in ("ls_set", "select_idx")}
    tables["select_idx"][0, 1] = 1
    savemat(path, tables)
    with pytest.raises(ValueError, match="'select_idx' does not hold the number of each person"):
        prid2011.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"{", "is no JSON"),
        (b"\xff", "is no JSON"),
        (b"{}", "is no list of splits"),
        (b"[]", "has 0 splits, so there is none of number 1"),
        (b"[3]", "split 1 has no list 'train'"),
        (b'[{"train": [], "test": [1]}]', "split 1 has no list 'test'"),
        (b'[{"train": [], "test": ["../x"]}]', "split 1 has no list 'test'"),
        (
            json.dumps([{"train": ["person_0001"], "test": ["person_0001"]}]).encode(),
            "names person_0001 more than once",
        ),
    ],
)
def test_a_json_of_splits_that_cannot_be_right_is_refused(tmp_path, content, what):
    write_prid2011(tmp_path)
    (tmp_path / "splits_prid2011.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"splits_prid2011.json.*{what}"):
        prid2011.load(tmp_path, "off")


@pytest.mark.parametrize("write", [write_mars_stand_in, write_ilids_vid, write_prid2011])
def test_a_stand_in_is_the_same_twice_draws_by_callback_and_spares_what_is_there(tmp_path, write):
    asked = []

    def draw(pid, camid, tracklet, frame):
        asked.append((pid, camid, tracklet, frame))
        return np.full((8, 4, 3), (200, 100, 0), np.uint8)

    one, two = write(tmp_path / "one", draw=draw), write(tmp_path / "two", draw=draw)
    files = [path.relative_to(one) for path in sorted(one.rglob("*")) if path.is_file()]
    for file in files:
        if file.suffix != ".mat":  # these carry the time of writing
            assert (one / file).read_bytes() == (two / file).read_bytes()
    assert len(asked) == len(set(asked)) * 2
    picture = next(file for file in files if file.suffix in (".png", ".jpg"))
    blue, green, red = cv2.imread(str(one / picture)).mean((0, 1))
    assert red > green > blue
    with pytest.raises(ValueError, match="is not an empty folder"):
        write(one)
