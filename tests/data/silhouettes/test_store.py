"""The packed store: what is written is read, and what is broken is said in one line."""

import json
import pickle

import numpy as np
import pytest

from reidkit.data.silhouettes.store import (
    SilhouetteStore,
    StoreWriter,
    pids_of,
    store_samples,
)

SIZE = (8, 12)


def noise(frames, seed=0, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (frames, *size), dtype=np.uint8)


def fill(writer):
    writer.add("002", "nm-01", "090", noise(5, 1), camid=3, source="b")
    writer.reject("001", "nm-02", "000", why="no frames, none", source="c")
    writer.add("010", "cl-01", "180", noise(4, 2), verdict="warned", why="too short", source="d")


@pytest.fixture(params=[8, 1])
def store(request, tmp_path):
    with StoreWriter(tmp_path / "store", size=SIZE, bits=request.param) as writer:
        fill(writer)
    return SilhouetteStore.open(tmp_path / "store")


@pytest.fixture
def everything(store):
    frames = np.concatenate([noise(5, 1), noise(4, 2)])
    return frames if store.bits == 8 else np.where(frames >= 128, 255, 0).astype(np.uint8)


POSITIONS = [[0], [8], [3, 4, 5, 6], list(range(9)), [7, 0, 0, 3], [5, 4, 3], [2, 2, 4], [1, 3, 2]]


@pytest.mark.parametrize("positions", POSITIONS)
def test_frames_are_read_in_the_order_of_their_positions(store, everything, positions):
    found = store.read(np.array(positions))
    np.testing.assert_array_equal(found, np.stack([everything[place] for place in positions]))
    assert found.dtype == np.uint8 and found.flags.writeable


def test_no_positions_are_no_frames(store):
    assert store.read(np.array([], np.int64)).shape == (0, *SIZE)


@pytest.mark.parametrize("positions", [[-1], [9], [0, 9], [0, -3]])
def test_a_position_outside_the_store_is_refused(store, positions):
    with pytest.raises(ValueError, match=r"expected a position in \[0, 9\)"):
        store.read(np.array(positions))


def test_changing_what_was_read_does_not_change_the_store(store, everything):
    store.read(np.arange(9))[:] = 7
    np.testing.assert_array_equal(store.read(np.arange(9)), everything)


def test_a_store_is_pickled_as_its_folder(store, everything):
    data = pickle.dumps(store)
    assert len(data) < 500
    np.testing.assert_array_equal(pickle.loads(data).read(np.array([8, 1])), everything[[8, 1]])


def test_the_sequences_are_those_written(store):
    assert len(store) == 9 and store.size == SIZE
    assert [(s.subject, s.camid, s.start, s.length) for s in store.sequences] == [
        ("002", 3, 0, 5),
        ("001", 0, 5, 0),
        ("010", 0, 5, 4),
    ]
    assert [s.verdict for s in store.sequences] == ["good", "rejected", "warned"]
    assert store.sequences[1].why == "no frames, none" and store.sequences[1].source == "c"


def test_header_and_bytes_are_as_documented(tmp_path):
    with StoreWriter(tmp_path / "s", size=SIZE) as writer:
        fill(writer)
    header = json.loads((tmp_path / "s/store.json").read_text())
    assert header == {"format": 1, "size": [8, 12], "bits": 8, "frames": 9}
    assert (tmp_path / "s/frames.bin").read_bytes() == noise(5, 1).tobytes() + noise(4, 2).tobytes()
    lines = (tmp_path / "s/sequences.csv").read_text().splitlines()
    assert lines[0] == "subject,condition,view,camid,start,length,verdict,why,source"
    assert lines[1] == "002,nm-01,090,3,0,5,good,,b"


def test_one_bit_a_pixel_takes_an_eighth(tmp_path):
    with StoreWriter(tmp_path / "s", size=(64, 64), bits=1) as writer:
        writer.add("1", "", "", noise(3, size=(64, 64)))
    assert (tmp_path / "s/frames.bin").stat().st_size == 3 * 64 * 8


def test_a_store_without_frames_is_a_store(tmp_path):
    with StoreWriter(tmp_path / "s") as writer:
        writer.reject("1", "a", "b", why="all black")
    store = SilhouetteStore.open(tmp_path / "s")
    assert len(store) == 0 and store_samples(store, "x") == ()
    with pytest.raises(ValueError, match="expected a position"):
        store.read(np.array([0]))


def test_samples_are_the_usable_sequences(store):
    first, second = store_samples(store, "casia_b")
    assert (first.pid, first.camid, first.view, first.condition) == (2, 3, "090", "nm-01")
    assert second.pid == 10 and second.domain == "casia_b"
    assert len(second.frames) == 4 and second.frames[1] == f"{store.folder}#6"


@pytest.mark.parametrize(
    "subjects, pids",
    [
        (["005", "001", "005"], {"001": 1, "005": 5}),
        (["00007train", "00009"], {"00007train": 7, "00009": 9}),
        (["00001train", "00001"], {"00001": 1, "00001train": 2}),
        (["1", "01"], {"01": 1, "1": 2}),
        (["zc", "fyc", "12"], {"12": 1, "fyc": 2, "zc": 3}),
        (["²"], {"²": 1}),
        (["", "007", ""], {"": -1, "007": 7}),
        (["", "zc"], {"": -1, "zc": 1}),
        ([], {}),
    ],
)
def test_subjects_keep_their_numbers_where_these_tell_them_apart(subjects, pids):
    assert pids_of(subjects) == pids


@pytest.mark.parametrize("bits", [8, 1])
def test_an_interrupted_pack_goes_on_and_ends_with_the_same_bytes(tmp_path, bits):
    with StoreWriter(tmp_path / "whole", size=SIZE, bits=bits) as writer:
        fill(writer)
    with (
        pytest.raises(KeyboardInterrupt),
        StoreWriter(tmp_path / "s", size=SIZE, bits=bits) as writer,
    ):
        writer.add("002", "nm-01", "090", noise(5, 1), camid=3, source="b")
        raise KeyboardInterrupt
    assert not (tmp_path / "s").exists()
    with pytest.raises(ValueError, match="interrupted"):
        SilhouetteStore.open(tmp_path / "s.partial")
    with StoreWriter(tmp_path / "s", size=SIZE, bits=bits) as writer:
        assert writer.done == {"b"}
        with pytest.raises(ValueError, match="already"):
            writer.add("002", "nm-01", "090", noise(5, 1), source="b")
        writer.reject("001", "nm-02", "000", why="no frames, none", source="c")
        writer.add(
            "010", "cl-01", "180", noise(4, 2), verdict="warned", why="too short", source="d"
        )
    assert not (tmp_path / "s.partial").exists()
    for name in ("store.json", "frames.bin", "sequences.csv"):
        assert (tmp_path / "s" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_pack_killed_at_any_byte_goes_on_and_ends_with_the_same_bytes(tmp_path):
    with StoreWriter(tmp_path / "whole", size=SIZE) as writer:
        fill(writer)
    frames = (tmp_path / "whole/frames.bin").read_bytes()
    lines = (tmp_path / "whole/sequences.csv").read_bytes()
    header = json.dumps({"format": 1, "size": list(SIZE), "bits": 8, "frames": None})
    # Frames are written before their line, so a kill leaves at most one sequence without a line.
    ends = [(0, n) for n in range(0, 70, 9)] + [(480, n) for n in range(62, 91)]
    for number, (size, end) in enumerate([*ends, (864, len(lines) - 1), (864, len(lines))]):
        partial = tmp_path / f"{number}.partial"
        partial.mkdir()
        (partial / "store.json").write_text(header)
        (partial / "frames.bin").write_bytes(frames[:size] + b"torn")
        (partial / "sequences.csv").write_bytes(lines[:end])
        with StoreWriter(tmp_path / str(number), size=SIZE) as writer:
            if "b" not in writer.done:
                writer.add("002", "nm-01", "090", noise(5, 1), camid=3, source="b")
            if "c" not in writer.done:
                writer.reject("001", "nm-02", "000", why="no frames, none", source="c")
            if "d" not in writer.done:
                writer.add(
                    *("010", "cl-01", "180"), noise(4, 2), verdict="warned", why="too short",
                    source="d",
                )  # fmt: skip
        for name, expected in (("frames.bin", frames), ("sequences.csv", lines)):
            assert (tmp_path / str(number) / name).read_bytes() == expected, (size, end)


def test_an_interrupted_pack_of_something_else_is_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path / "s", origin="a"):
        raise KeyboardInterrupt
    for other in ({"origin": "b"}, {"origin": "a", "bits": 1}, {"origin": "a", "size": (32, 32)}):
        with (
            pytest.raises(ValueError, match="interrupted pack of"),
            StoreWriter(tmp_path / "s", **other),
        ):
            pass


def test_two_writers_of_one_store_are_refused(tmp_path):
    with (
        StoreWriter(tmp_path / "s"),
        pytest.raises(ValueError, match="another process"),
        StoreWriter(tmp_path / "s"),
    ):
        pass


def test_a_folder_with_content_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"), StoreWriter(tmp_path):
        pass
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "s").mkdir()
    with StoreWriter(tmp_path / "s", size=SIZE) as writer:
        fill(writer)
    assert len(SilhouetteStore.open(tmp_path / "s")) == 9


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((2, 8, 12), np.float32),
        np.zeros((8, 12), np.uint8),
        np.zeros((0, 8, 12), np.uint8),
    ],
)
def test_frames_of_another_kind_are_refused_and_leave_nothing(tmp_path, frames):
    with StoreWriter(tmp_path / "s", size=SIZE) as writer:
        with pytest.raises(ValueError, match=r"expected uint8|use reject"):
            writer.add("1", "a", "b", frames)
        fill(writer)
    assert len(SilhouetteStore.open(tmp_path / "s")) == 9


@pytest.mark.parametrize("odd", ["a\nb", "a\rb", "a\0b"])
def test_a_text_of_two_lines_is_refused(tmp_path, odd):
    with (
        StoreWriter(tmp_path / "s") as writer,
        pytest.raises(ValueError, match="expected a single line"),
    ):
        writer.reject("1", "a", "b", why=odd)


@pytest.mark.parametrize("text", ['say "no", please', "ünï—コード", "\udcff\udcfe", " "])
def test_any_other_text_comes_back(tmp_path, text):
    with StoreWriter(tmp_path / "s") as writer:
        writer.reject(text, text, text, why=text, source=text)
    (found,) = SilhouetteStore.open(tmp_path / "s").sequences
    assert {found.subject, found.condition, found.view, found.why, found.source} == {text}


def test_a_writer_outside_with_is_refused(tmp_path):
    with pytest.raises(ValueError, match="with"):
        StoreWriter(tmp_path / "s").reject("1", "a", "b", why="x")


def broken(store, name, content):
    path = store.folder / name
    path.write_bytes(content(path.read_bytes()))


HEADERS = [
    (b"{", "no JSON"),
    (b"\xff\xfe\xfa", "no JSON"),
    (b"[1]", "format is None"),
    (b'{"format": 2}', "format is 2"),
    (b'{"format": 1, "size": [64], "bits": 8, "frames": 9}', "size is"),
    (b'{"format": 1, "size": 64, "bits": 8, "frames": 9}', "size is"),
    (b'{"format": 1, "size": [8, -12], "bits": 8, "frames": 9}', "size is"),
    (b'{"format": 1, "size": [0, 12], "bits": 8, "frames": 9}', "size is"),
    (b'{"format": 1, "size": [8, 12], "bits": 4, "frames": 9}', "bits is 4"),
    (b'{"format": 1, "size": [8, 12], "bits": true, "frames": 9}', "bits is True"),
    (b'{"format": 1, "size": [8, 12], "bits": 8, "frames": "9"}', "frames is '9'"),
    (b'{"format": 1, "size": [8, 12], "bits": 8}', "frames is None"),
    (b'{"format": 1, "size": [8, 12], "bits": 8, "frames": -1}', "frames is -1"),
    (b'{"format": 1, "size": [8, 12], "bits": 8, "frames": 90}', "cut short"),
    (b'{"format": 1, "size": [8, 12], "bits": 8, "frames": null}', "interrupted"),
    (b'{"format": 1, "size": [8, 12], "bits": 8, "frames": 9, "origin": 3}', "origin is 3"),
]


@pytest.mark.parametrize("content, message", HEADERS)
def test_a_wrong_header_is_told_in_one_line(store, content, message):
    broken(store, "store.json", lambda _: content)
    with pytest.raises(ValueError, match=message) as caught:
        SilhouetteStore.open(store.folder)
    assert "\n" not in str(caught.value)


ROWS = [
    ("1,a,b,0,0,10,good,,", "expected inside"),
    ("1,a,b,0,-1,3,good,,", "expected inside"),
    ("1,a,b,0,5,-3,good,,", "expected inside"),
    ("1,a,b,0,9,1,good,,", "expected inside"),
    ("1,a,b,0,x,1,good,,", "expected integers"),
    ("1,a,b,0,0,1,fine,,", "verdict is 'fine'"),
    ("1,a,b,0,0,1,rejected,,", "a rejected sequence has none"),
    ("1,a,b,0,0,0,good,,", "a rejected sequence has none"),
    ("1,a,b,0,0,1", "6 fields"),
]


@pytest.mark.parametrize("row, message", ROWS)
def test_a_wrong_line_is_told_with_its_number(store, row, message):
    broken(store, "sequences.csv", lambda old: old + row.encode() + b"\n")
    with pytest.raises(ValueError, match=message) as caught:
        SilhouetteStore.open(store.folder)
    assert "line 5" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"a,b\n", b"\xff\xff\n"])
def test_a_list_with_other_columns_is_refused(store, content):
    broken(store, "sequences.csv", lambda _: content)
    with pytest.raises(ValueError, match="expected subject,condition"):
        SilhouetteStore.open(store.folder)


def test_frames_cut_short_are_refused(store):
    broken(store, "frames.bin", lambda old: old[:-1])
    with pytest.raises(ValueError, match="cut short"):
        SilhouetteStore.open(store.folder)


@pytest.mark.parametrize("name", ["store.json", "frames.bin", "sequences.csv"])
def test_an_absent_file_is_named(store, name):
    (store.folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        SilhouetteStore.open(store.folder)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="data pack"):
        SilhouetteStore.open(tmp_path / "nowhere")


@pytest.mark.parametrize("wrong", [{"bits": 2}, {"size": (0, 4)}])
def test_a_writer_of_another_kind_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="expected"):
        StoreWriter(tmp_path / "s", **wrong)
