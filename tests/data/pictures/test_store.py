"""The store of pictures: what is packed is read, and what is broken is said in one line."""

import json
import multiprocessing
import os
import pickle
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from reidkit.data.pictures import store as store_module
from reidkit.data.pictures.pack import pack_pictures
from reidkit.data.pictures.store import PictureStore
from reidkit.types import Sample
from tests.data.conftest import write_picture
from tests.data.pictures.conftest import SIZE, as_read, read


def test_its_pixels_are_those_of_the_dataset_bit_for_bit(store, paths):
    np.testing.assert_array_equal(read(store, store.rows(paths)), as_read(paths))
    assert len(store) == 7 and store.size == SIZE


def test_red_is_the_first_channel(tmp_path):
    cv2.imwrite(str(tmp_path / "red.png"), np.full((8, 8, 3), (0, 0, 255), np.uint8))
    pack_pictures([Sample((str(tmp_path / "red.png"),), 0)], tmp_path / "s", size=(8, 8))
    assert (read(PictureStore.open(tmp_path / "s"), [0]) == (255, 0, 0)).all()


@pytest.mark.parametrize("rows", [[0], [6, 0, 3], [2, 2, 2], list(range(7)), []])
def test_rows_come_in_the_order_asked_for_and_as_often(store, paths, rows):
    expected = as_read(paths)
    np.testing.assert_array_equal(read(store, rows), expected[np.array(rows, np.int64)])


def test_a_store_larger_than_memory_reads_the_same(store, paths, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 1)
    large = PictureStore.open(store.folder)
    for _ in range(2):
        np.testing.assert_array_equal(read(large, store.rows(paths)), as_read(paths))


def test_a_piece_of_a_batch_can_be_filled(store, paths):
    batch = np.zeros((4, 3, *SIZE, 3), np.uint8)
    store.read_into(np.array([4, 5, 1]), batch[2])
    np.testing.assert_array_equal(batch[2], as_read(paths)[[4, 5, 1]])
    assert not batch[[0, 1, 3]].any()


@pytest.mark.parametrize("rows", [[-1], [7], [0, 7], [3, -2]])
def test_a_row_outside_the_store_is_refused(store, rows):
    with pytest.raises(ValueError, match=r"expected a row in \[0, 7\)"):
        read(store, rows)


@pytest.mark.parametrize(
    "out",
    [
        np.empty((2, *SIZE, 3), np.uint8),
        np.empty((1, *SIZE, 3), np.float32),
        np.empty((1, SIZE[1], SIZE[0], 3), np.uint8),
        np.empty((1, *SIZE, 6), np.uint8)[..., ::2],
    ],
)
def test_an_out_of_another_kind_is_refused(store, out):
    with pytest.raises(ValueError, match=r"expected uint8 \(1, 24, 12, 3\) in one piece"):
        store.read_into(np.array([0]), out)


def test_a_path_below_the_present_folder_finds_its_row(store, paths, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    relative = [os.path.relpath(path) for path in paths]
    np.testing.assert_array_equal(store.rows(relative), store.rows(paths))


def test_a_picture_that_is_not_there_is_named(store, paths, picture):
    other = str(picture("other.jpg"))
    with pytest.raises(ValueError, match=r"other\.jpg is not among the 7 .* Pack .* again"):
        store.rows([*paths, other])


def test_a_source_of_another_size_is_named(store, paths):
    with open(paths[4], "ab") as file:
        file.write(b"more")
    assert len(store.rows(paths[:4])) == 4
    with pytest.raises(ValueError, match=rf"{paths[4]} changed .* bytes, expected .* Pack"):
        store.rows(paths)


def test_a_source_of_another_time_is_named(store, paths):
    os.utime(paths[2], ns=(0, os.stat(paths[2]).st_mtime_ns + 1))
    with pytest.raises(ValueError, match=rf"{paths[2]} changed .* time of change .* Pack"):
        store.rows(paths)


def test_the_store_stands_in_for_sources_that_are_gone(store, paths):
    expected = as_read(paths)
    shutil.rmtree(os.path.dirname(paths[0]))
    np.testing.assert_array_equal(read(store, store.rows(paths)), expected)


def test_a_moved_store_is_the_same_store(packed, paths, tmp_path):
    moved = PictureStore.open(packed.rename(tmp_path / "elsewhere"))
    np.testing.assert_array_equal(read(moved, moved.rows(paths)), as_read(paths))


def test_each_source_is_asked_for_once(store, paths, monkeypatch):
    asked, stat = [], os.stat
    monkeypatch.setattr(store_module.os, "stat", lambda path: asked.append(path) or stat(path))
    store.rows(paths)
    assert asked == paths


def test_a_pickle_is_the_folder_and_no_index(store, paths):
    data = pickle.dumps(store)
    assert len(data) < 500
    again = pickle.loads(data)
    np.testing.assert_array_equal(read(again, [6, 1]), as_read(paths)[[6, 1]])
    np.testing.assert_array_equal(again.rows(paths), store.rows(paths))


def test_another_process_reads_the_same(store, paths):
    context = multiprocessing.get_context("forkserver")
    with context.Pool(1) as pool:
        found = pool.apply(read, (store, [3, 3, 0]))
    np.testing.assert_array_equal(found, as_read(paths)[[3, 3, 0]])


def test_a_pickle_of_a_store_that_was_packed_anew_is_refused(store, tracklets):
    data = pickle.dumps(store)
    pack_pictures(tracklets[:2], store.folder, size=SIZE, overwrite=True)
    with pytest.raises(ValueError, match="packed anew while it was in use"):
        pickle.loads(data)


def test_an_open_store_outlives_its_replacement(store, tracklets, paths):
    expected = as_read(paths)
    pack_pictures(tracklets[:2], store.folder, size=SIZE, overwrite=True)
    np.testing.assert_array_equal(read(store, range(7)), expected)


def test_threads_read_side_by_side(store, paths):
    expected = as_read(paths)
    draws = [np.random.default_rng(seed).integers(0, 7, 50) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for rows, found in zip(draws, pool.map(lambda rows: read(store, rows), draws), strict=True):
            np.testing.assert_array_equal(found, expected[rows])


def test_the_files_are_as_documented(packed, paths):
    header = json.loads((packed / "pictures.json").read_text())
    index = (packed / "pictures.csv").read_bytes()
    assert header == {
        "format": 1,
        "size": list(SIZE),
        "pictures": 7,
        "checksum": zlib.crc32(index),
    }
    pixels = as_read(paths)
    assert (packed / "pixels.bin").read_bytes() == pixels.tobytes()
    lines = index.decode().splitlines()
    assert lines[0] == "path,size,mtime_ns,row,crc32"
    facts = os.stat(paths[1])
    assert lines[2] == (
        f"{paths[1]},{facts.st_size},{facts.st_mtime_ns},1,{zlib.crc32(pixels[1].tobytes())}"
    )
    assert sorted(file.name for file in packed.iterdir()) == [
        "pictures.csv",
        "pictures.json",
        "pixels.bin",
    ]


def test_verify_is_silent_of_a_whole_store(store):
    store.verify()


def test_verify_names_the_damaged_picture(packed, paths):
    with (packed / "pixels.bin").open("r+b") as file:
        file.seek(5 * SIZE[0] * SIZE[1] * 3 + 17)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ValueError, match=rf"{paths[5]} \(row 5\) are damaged.*Pack"):
        PictureStore.open(packed).verify()


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", r"no JSON"),
        (b"[1]", r"format is None, expected 1"),
        (b'{"format": 2}', r"format is 2, expected 1"),
        (b'{"format": 1, "size": [8]}', r"size is \[8\], expected \[height, width\]"),
        (b'{"format": 1, "size": [0, 4]}', r"size is \[0, 4\]"),
        (b'{"format": 1, "size": [24, 12]}', r"pictures is None, expected a number"),
        (
            b'{"format": 1, "size": [24, 12], "pictures": -1, "checksum": 0}',
            r"pictures is -1, expected a number",
        ),
        (
            b'{"format": 1, "size": [24, 12], "pictures": 7, "checksum": "x"}',
            r"checksum is 'x', expected a number",
        ),
        (
            b'{"format": 1, "size": [24, 12], "pictures": 7, "checksum": null}',
            r"both known or neither",
        ),
        (
            b'{"format": 1, "size": [24, 12], "pictures": null, "checksum": null}',
            r"interrupted; the same `reidkit data pack` goes on",
        ),
        (
            b'{"format": 1, "size": [24, 13], "pictures": 7, "checksum": 0}',
            r"pictures\.csv is not the one that was packed",
        ),
    ],
)
def test_a_damaged_header_is_told_in_one_line(packed, content, words):
    (packed / "pictures.json").write_bytes(content)
    with pytest.raises(ValueError, match=words) as told:
        PictureStore.open(packed)
    assert "\n" not in str(told.value)


def test_a_header_of_another_size_does_not_fit_the_pixels(packed):
    path = packed / "pictures.json"
    path.write_text(path.read_text().replace("[24, 12]", "[24, 13]"))
    with pytest.raises(ValueError, match=r"6,048 bytes, expected 6,552 for 7 pictures"):
        PictureStore.open(packed)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0"])
def test_pixels_of_another_length_are_refused(packed, change):
    path = packed / "pixels.bin"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=r"cut short or not of this store\. Pack"):
        PictureStore.open(packed)


def checked(packed, content):
    """Write an index whose checksum the header knows, as a damaged writer might."""
    (packed / "pictures.csv").write_bytes(content)
    header = json.loads((packed / "pictures.json").read_text())
    header["checksum"] = zlib.crc32(content)
    (packed / "pictures.json").write_text(json.dumps(header))


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:-1],
        lambda lines: [b"path,row\n", *lines[1:]],
        lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]],
        lambda lines: [*lines[:3], b"torn\n", *lines[4:]],
        lambda lines: [*lines[:3], b"a,1,x,2,3\n", *lines[4:]],
        lambda lines: [*lines[:3], b"a,-1,1,2,3\n", *lines[4:]],
        lambda lines: [*lines[:-1], lines[-1][:-1]],
        lambda lines: [],
    ],
)
def test_an_index_that_does_not_hold_the_pictures_is_refused(packed, change):
    lines = (packed / "pictures.csv").read_bytes().splitlines(keepends=True)
    checked(packed, b"".join(change(lines)))
    with pytest.raises(ValueError, match=r"names \d pictures, pictures\.json says 7\. Pack"):
        PictureStore.open(packed)


def test_a_picture_named_twice_is_refused(packed, paths):
    lines = (packed / "pictures.csv").read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(os.fsencode(paths[2]), os.fsencode(paths[1]))
    checked(packed, b"".join(lines))
    with pytest.raises(ValueError, match=r"names a picture twice"):
        PictureStore.open(packed)


def test_a_flipped_byte_of_the_index_is_noticed(packed):
    path = packed / "pictures.csv"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"pictures\.csv is not the one that was packed"):
        PictureStore.open(packed)


@pytest.mark.parametrize("name", ["pictures.json", "pictures.csv", "pixels.bin"])
def test_a_missing_file_is_named(packed, name):
    (packed / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        PictureStore.open(packed)


def test_names_need_not_be_utf8_and_may_hold_commas_and_quotes(tmp_path):
    source = write_picture(tmp_path / "a.png")
    names = [os.fsdecode(os.fsencode(tmp_path) + b'/\xff, "b" \xc3\xa9.png'), str(tmp_path / "c,")]
    for name in names:
        shutil.copyfile(source, name)
    pack_pictures([Sample(tuple(names), 0)], tmp_path / "s", size=SIZE)
    np.testing.assert_array_equal(PictureStore.open(tmp_path / "s").rows(names), [0, 1])
