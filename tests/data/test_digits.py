"""Digits of scikit-learn, and idx and npz files whole, packed, damaged and lying."""

import gzip
import os
import pickle
import random
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from reidkit.data import check_benchmark, load_benchmark
from reidkit.data.adapters.digit_files import read_idx, read_npz


def some(count=20, size=(6, 5), seed=0):
    """Pictures (N, H, W) and labels, each digit equally often."""
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (count, *size), dtype=np.uint8)
    return images, np.arange(count, dtype=np.uint8) % 10


def idx(array, kind=0x08, shape=None):
    shape = array.shape if shape is None else shape
    header = bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    return header + array.tobytes()


def write_idx(folder, part="train", *, images=None, labels=None, packed=False, dot="-"):
    """Both files of a part; bytes given are written as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    some_images, some_labels = some()
    for what, axes, content in (
        ("images", 3, idx(some_images) if images is None else images),
        ("labels", 1, idx(some_labels) if labels is None else labels),
    ):
        name = f"{part}-{what}{dot}idx{axes}-ubyte"
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


def pixels(samples):
    return np.stack([cv2.imread(sample.frames[0], cv2.IMREAD_UNCHANGED) for sample in samples])


def written(root):
    """What lies in a folder beside the sources."""
    return sorted(path.name for path in root.iterdir() if path.is_dir() or path.name[0] == ".")


def test_the_digits_of_scikit_learn_need_no_files_and_use_the_whole_range(tmp_path):
    from sklearn.datasets import load_digits

    benchmark = load_benchmark("digits", tmp_path / "new")
    assert {sample.pid for sample in benchmark.train} == {1, 2, 3, 4, 5}
    assert {sample.pid for sample in benchmark.query} == {6, 7, 8, 9, 10}
    assert benchmark.query == benchmark.gallery
    assert len(benchmark.train) + len(benchmark.query) == 1797
    assert benchmark.protocol.exclude == "itself"
    found = load_digits()
    zeros = np.rint(found.images[found.target == 0] / 16 * 255).astype(np.uint8)
    np.testing.assert_array_equal(pixels(benchmark.train[: len(zeros)]), zeros)
    assert zeros.max() == 255


def test_pictures_are_written_once(tmp_path):
    first = load_benchmark("digits", tmp_path)
    before = os.stat(first.train[0].frames[0])
    assert load_benchmark("digits", tmp_path) == first
    assert os.stat(first.train[0].frames[0]) == before
    assert written(tmp_path) == ["uci_digits"]


def test_a_picture_that_is_lost_later_is_told(tmp_path):
    Path(load_benchmark("digits", tmp_path).query[0].frames[0]).unlink()
    with pytest.raises(ValueError, match=r"uci_digits has 1,796 pictures, expected 1,797. Delete"):
        load_benchmark("digits", tmp_path)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"test_classes": [4, 5]}, "digits: digit '4' is in both train and test"),
        ({"test_classes": [10]}, "digits: test names no digit '10'; there are: '0', '1'"),
        ({"train_classes": [1, 1]}, "digits: train names digit '1' twice"),
        ({"train_classes": ["one"]}, "train_classes.0 = 'one'"),
        ({"train_classes": [], "test_classes": []}, "train and test are both empty"),
    ],
)
def test_digits_that_do_not_go_together_are_refused(tmp_path, arguments, words):
    with pytest.raises(ValueError, match=words):
        load_benchmark("digits", tmp_path, "off", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_digits_are_chosen_and_keep_their_numbers(tmp_path):
    benchmark = load_benchmark("digits", tmp_path, train_classes=[9, 0], test_classes=[3])
    assert {sample.pid for sample in benchmark.train} == {1, 10}
    assert {sample.pid for sample in benchmark.query} == {4}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("place", ["", "mnist", "MNIST/raw", "mnist/MNIST/raw"])
def test_idx_files_are_found_where_they_usually_lie_and_read_whole(tmp_path, place, packed, dot):
    images, labels = some()
    write_idx(tmp_path / place, "train", packed=packed, dot=dot)
    write_idx(tmp_path / place, "t10k", packed=not packed, dot=dot)
    benchmark = load_benchmark("digits", tmp_path, source="mnist")
    names = [sample.frames[0].rsplit("/", 2)[1:] for sample in benchmark.train[:4]]
    assert names == [["0", f"{part}_{n:06d}.png"] for part in ("t10k", "train") for n in (0, 10)]
    np.testing.assert_array_equal(pixels(benchmark.train[:2]), images[labels == 0])
    assert {sample.domain for sample in benchmark.train} == {"mnist"}


@pytest.mark.parametrize(
    "source",
    ["mine", "mine/train-images-idx3-ubyte", "{root}/mine/train-images-idx3-ubyte"],
)
def test_a_path_names_a_folder_or_one_file(tmp_path, source):
    write_idx(tmp_path / "mine")
    benchmark = load_benchmark("digits", tmp_path, source=source.format(root=tmp_path))
    assert len(benchmark.train) == len(benchmark.query) == 10


@pytest.mark.parametrize(
    "names",
    [("images", "labels"), ("x_train", "y_train"), ("train_images", "train_labels")],
)
@pytest.mark.parametrize(
    "change",
    [
        lambda images: images,
        lambda images: images.astype(np.int64),
        lambda images: images / 255,
        lambda images: (images / 255).astype(np.float32),
        lambda images: images[..., None],
    ],
)
def test_npz_archives_read_the_same_whatever_their_names_and_types(tmp_path, names, change):
    images, labels = some()
    arrays = {names[0]: change(images), names[1]: labels.astype(np.int32), "more": np.zeros(3)}
    np.savez_compressed(tmp_path / "usps.npz", **arrays)
    benchmark = load_benchmark("digits", tmp_path, source="usps")
    np.testing.assert_array_equal(pixels(benchmark.train[:2]), images[labels == 0])
    same = load_benchmark("digits", tmp_path, source="usps.npz")
    assert same == benchmark and benchmark.train[0].domain == "usps"


def test_all_pairs_of_an_archive_are_one_source(tmp_path):
    images, labels = some()
    np.savez(tmp_path / "d.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    benchmark = load_benchmark("digits", tmp_path, source="d.npz")
    assert len(benchmark.train) == 20
    assert len({sample.frames for sample in benchmark.train}) == 20


def test_colours_stay_red_green_and_blue(tmp_path):
    images = np.zeros((2, 4, 4, 3), np.uint8)
    images[..., 0] = 200
    np.savez(tmp_path / "red.npz", images=images, labels=np.array([0, 5]))
    classes = {"train_classes": [0], "test_classes": [5]}
    sample = load_benchmark("digits", tmp_path, source="red.npz", **classes).train[0]
    assert cv2.imread(sample.frames[0], cv2.IMREAD_COLOR_RGB)[0, 0].tolist() == [200, 0, 0]


def test_another_content_under_the_same_name_is_not_mixed_up(tmp_path):
    for seed in (0, 1):
        images, labels = some(seed=seed)
        np.savez(tmp_path / "d.npz", images=images, labels=labels)
        benchmark = load_benchmark("digits", tmp_path, source="d.npz")
        np.testing.assert_array_equal(pixels(benchmark.train[:2]), images[labels == 0])


IMAGES, LABELS = some()
BAD_IDX = {
    "cut short": ({"images": idx(IMAGES)[:-1]}, r"has 599 bytes of values, but its header says"),
    "too long": ({"images": idx(IMAGES) + b"\0"}, r"has 601 bytes of values.*20 x 6 x 5 = 600"),
    "a lying header": (
        {"images": idx(IMAGES, shape=(2**31, 2**31, 28))},
        r"has 600 bytes of values, but its header says 2147483648 x",
    ),
    "floats": ({"images": idx(IMAGES, kind=0x0D)}, r"type 0x0d with 3 axes, expected unsigned"),
    "labels for images": ({"images": idx(LABELS)}, r"with 1 axes, expected unsigned bytes"),
    "empty": ({"images": b""}, r"is no idx file"),
    "a picture": ({"images": b"\x89PNG" + bytes(40)}, r"is no idx file"),
    "half a header": ({"images": idx(IMAGES)[:10]}, r"is no idx file"),
    "fewer labels": ({"labels": idx(LABELS[:-1])}, r"has 19 labels for 20 pictures"),
    "a label of 10": ({"labels": idx(LABELS + 1)}, r"goes from 1 to 10, expected digits 0 to 9"),
    "no pictures": (
        {"images": idx(IMAGES[:0]), "labels": idx(LABELS[:0])},
        r"has shape \(0, 6, 5\), expected",
    ),
    "hardly any light": ({"images": idx(IMAGES // 16)}, r"goes to 15 of 255 only"),
}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("case", BAD_IDX)
def test_idx_files_that_are_not_right_are_refused_and_nothing_is_written(tmp_path, case, packed):
    content, words = BAD_IDX[case]
    write_idx(tmp_path, packed=packed, **content)
    with pytest.raises(ValueError, match=words) as error:
        load_benchmark("digits", tmp_path, "off", source="mnist")
    assert "\n" not in str(error.value)
    assert written(tmp_path) == []
    report = check_benchmark("digits", tmp_path, args={"source": "mnist"})
    assert not report.ok and len(report.findings) == 1


def test_a_packed_file_that_is_cut_short_or_none_is_refused(tmp_path):
    write_idx(tmp_path, packed=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    for data in (whole[: len(whole) // 2], b"plain text", whole[:40] + b"\xff" * 20 + whole[60:]):
        file.write_bytes(data)
        with pytest.raises(ValueError, match=r"idx3-ubyte\.gz is no whole gzip file"):
            load_benchmark("digits", tmp_path, source="mnist")
    assert written(tmp_path) == []


def test_pictures_without_labels_are_refused(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"no train-labels-idx1-ubyte or .*\.gz beside"):
        load_benchmark("digits", tmp_path, source="mnist")


class Trap:
    """Unpickling it leaves a mark."""

    def __reduce__(self):
        return (Path.touch, (Path(os.environ["REIDKIT_TEST_MARK"]),))


BAD_NPZ = {
    "other names": ({"a": IMAGES, "b": LABELS}, r"holds 'a', 'b'; expected a pair of: images"),
    "half a pair": ({"images": IMAGES}, r"holds 'images'; expected a pair"),
    "flat": ({"images": IMAGES.reshape(20, 30), "labels": LABELS}, r"has shape \(20, 30\), exp"),
    "channels first": (
        {"images": np.stack([IMAGES] * 3, 1), "labels": LABELS},
        r"has shape \(20, 3, 6, 5\)",
    ),
    "complex": ({"images": IMAGES * 1j, "labels": LABELS}, r"has type complex128, expected uint8"),
    "text": ({"images": IMAGES.astype(str), "labels": LABELS}, r"has type <U3, expected uint8"),
    "not finite": (
        {"images": np.where(IMAGES > 9, np.nan, 0.0), "labels": LABELS},
        r"goes from nan to nan",
    ),
    "floats to 255": ({"images": IMAGES * 1.0, "labels": LABELS}, r"to 255.0, expected 0 to 255"),
    "negative": ({"images": IMAGES.astype(int) - 128, "labels": LABELS}, r"goes from -128 to"),
    "labels of floats": ({"images": IMAGES, "labels": LABELS * 1.0}, r"type float64, expected who"),
    "labels one-hot": ({"images": IMAGES, "labels": np.eye(20, dtype=int)}, r"shape \(20, 20\)"),
    "labels missing": ({"images": IMAGES, "labels": LABELS[1:]}, r"has 19 labels for 20 pictures"),
    "labels negative": ({"images": IMAGES, "labels": LABELS.astype(int) - 1}, r"from -1 to 8"),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_archives_that_are_not_right_are_refused_and_nothing_is_written(tmp_path, case):
    arrays, words = BAD_NPZ[case]
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(ValueError, match=words) as error:
        load_benchmark("digits", tmp_path, "off", source="d.npz")
    assert str(error.value).startswith("digits: ") and "\n" not in str(error.value)
    assert written(tmp_path) == []


def test_pickled_objects_are_never_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDKIT_TEST_MARK", str(tmp_path / "mark"))
    trap = np.empty(1, object)
    trap[0] = Trap()
    np.savez(tmp_path / "a.npz", images=trap, labels=LABELS, allow_pickle=True)
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Trap()))
    np.save(tmp_path / "c.npy", trap, allow_pickle=True)
    (tmp_path / "c.npy").rename(tmp_path / "c.npz")
    for name in ("a.npz", "b.npz", "c.npz"):
        with pytest.raises(ValueError, match=f"{name} is no npz archive of plain arrays"):
            load_benchmark("digits", tmp_path, "off", source=name)
    assert not (tmp_path / "mark").exists()


def test_damaged_files_are_a_value_error_and_nothing_worse(tmp_path):
    np.savez_compressed(tmp_path / "d.npz", images=IMAGES, labels=LABELS)
    (tmp_path / "d.gz").write_bytes(gzip.compress(idx(IMAGES)))
    readers = {"d.npz": read_npz, "d.gz": lambda path: read_idx(path, axes=3)}
    draw = random.Random(0)
    for name, read in readers.items():
        whole = (tmp_path / name).read_bytes()
        for trial in range(250):
            data = bytearray(whole)
            for _ in range(draw.choice([1, 3])):
                data[draw.randrange(len(data))] = draw.randrange(256)
            if trial % 4 == 0:
                del data[draw.randrange(len(data)) :]
            (tmp_path / name).write_bytes(data)
            try:
                read(tmp_path / name)
            except ValueError as error:
                assert name in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    "source, words",
    [
        ("mnist", r"digits: no mnist in .*, expected idx files or an npz.*README.md#digits"),
        ("nothing", r"digits: no nothing in .*, expected uci, mnist, usps or a path"),
        ("nothing.npz", r"digits: no nothing.npz in"),
        ("", r"digits: no source"),
    ],
)
def test_a_source_that_is_not_there_is_named(tmp_path, source, words):
    with pytest.raises((FileNotFoundError, ValueError), match=words):
        load_benchmark("digits", tmp_path, "off", source=source)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "digits.mat").write_bytes(b"")
    with pytest.raises(ValueError, match=r"digits\.mat is neither an \.npz nor an idx file"):
        load_benchmark("digits", tmp_path, source="digits.mat")


def test_a_disk_that_is_full_leaves_nothing_half_written(tmp_path, monkeypatch):
    count = iter(range(10**6))
    write = cv2.imwrite
    monkeypatch.setattr(cv2, "imwrite", lambda *args: next(count) < 500 and write(*args))
    with pytest.raises(OSError, match=r"digits: cannot write pictures into .*name a folder to"):
        load_benchmark("digits", tmp_path)
    assert written(tmp_path) == []
    monkeypatch.undo()
    assert len(load_benchmark("digits", tmp_path).train) == 901


def test_a_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="digits: cannot write pictures into"):
        load_benchmark("digits", tmp_path / "file")


@pytest.mark.parametrize(
    "source, count, shape",
    [
        ("mnist", 5000, (28, 28)),
        ("usps.npz", 3600, (16, 16)),
        ("mnist_m.npz", 2500, (32, 32, 3)),
    ],
)
def test_the_real_files_have_all_their_pictures(tmp_path, source, count, shape):
    folder = Path(os.environ.get("REIDKIT_DATA") or "datasets") / "digits-domains"
    if not folder.is_dir():
        pytest.skip("no digits-domains in REIDKIT_DATA")
    arguments = {"source": str(folder / source)}
    report = check_benchmark("digits", tmp_path, args=arguments)
    assert report.findings == ()
    assert report.counts["train"].images + report.counts["query"].images == count
    query = load_benchmark("digits", tmp_path, **arguments).query
    assert pixels(query[:9]).shape == (9, *shape)
