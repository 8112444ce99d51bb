"""Pickled arrays are read; a pickle that wants anything else gets nothing."""

import builtins
import os
import pickle
import struct

import numpy as np
import pytest

from reidkit.data.silhouettes.pickles import HostilePickleError, load_array_pickle

ARRAY = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)


def write(tmp_path, data):
    path = tmp_path / "00.pkl"
    path.write_bytes(data if isinstance(data, bytes) else pickle.dumps(data))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "array",
    [
        ARRAY,
        np.asfortranarray(ARRAY),
        ARRAY[:, ::2, ::-1],
        ARRAY > 100,
        ARRAY.astype(np.float32),
        ARRAY.astype(">i4"),
        ARRAY[:0],
        np.array(7, np.int64),
    ],
    ids=["plain", "fortran", "strided", "bool", "float", "big-endian", "empty", "scalar"],
)
def test_an_array_comes_back_whatever_the_protocol(tmp_path, array, protocol):
    found = load_array_pickle(write(tmp_path, pickle.dumps(array, protocol)))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=") and found.shape == array.shape


def test_names_of_numpy_1_are_known(tmp_path):
    data = pickle.dumps(ARRAY, 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    np.testing.assert_array_equal(load_array_pickle(write(tmp_path, data)), ARRAY)


def test_an_array_of_python_2_is_read(tmp_path):
    raw = bytes(range(8))
    data = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01(cnumpy\nndarray\nq\x02K\x00\x85U\x01btR"
        b"(K\x01K\x02K\x04\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08" + raw + b"tb."
    )
    expected = np.arange(8, dtype=np.uint8).reshape(2, 4)
    np.testing.assert_array_equal(load_array_pickle(write(tmp_path, b"\x80\x02" + data)), expected)


class Calls:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "function, template",
    [
        (os.system, "touch {}"),
        (builtins.eval, "open({!r}, 'w')"),
        (builtins.exec, "open({!r},'w')"),
    ],
)
def test_nothing_in_a_hostile_pickle_is_executed(tmp_path, function, template, protocol):
    target = tmp_path / "executed"
    data = pickle.dumps(Calls(function, template.format(str(target))), protocol)
    path = write(tmp_path, data)
    with pytest.raises(HostilePickleError, match=r"hostile pickle: .*00\.pkl.*asks for") as caught:
        load_array_pickle(path)
    assert not target.exists() and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "payload",
    [
        Calls(getattr, "text", "upper"),
        Calls(np.zeros, 10),
        Calls(np.load, "x"),
        Calls(bytes, 10**12),
        Calls(os.getcwd),
        np.float64(3.0),
        np.zeros(2).view(np.recarray),
        2**70,
        "text",
        b"bytes",
        None,
        (ARRAY, ARRAY),
        [ARRAY],
        {"a": ARRAY},
        [[1, 2], [3, 4]],
        np.array([None, 1]),
        np.array(["a", "b"]),
        np.array([(1, 2)], dtype=[("a", "i4"), ("b", "i4")]),
        np.array([b"ab"]),
        np.array(["2020-01-01"], "M8[D]"),
        np.array([1j]),
        np.dtype("u1"),
        np.ndarray,
    ],
    ids=lambda payload: type(payload).__name__,
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_anything_but_one_array_of_numbers_is_a_value_error(tmp_path, payload, protocol):
    path = write(tmp_path, pickle.dumps(payload, protocol))
    with pytest.raises(ValueError, match="expected one numpy array of numbers") as caught:
        load_array_pickle(path)
    assert "\n" not in str(caught.value)


def lying(shape):
    """A pickle that declares `shape` and holds the bytes of ARRAY."""
    rebuild, arguments, _ = ARRAY.__reduce__()
    state = (1, shape, np.dtype("u1"), False, ARRAY.tobytes())

    class Lie:
        def __reduce__(self):
            return rebuild, arguments, state

    return pickle.dumps(Lie())


@pytest.mark.parametrize("shape", [(10**6, 64, 64), (10**30,), (3, 64, 63), (0,), ()])
def test_a_shape_that_its_bytes_do_not_fill_is_hostile(tmp_path, shape):
    with pytest.raises(HostilePickleError, match=r"it declares shape .* and holds 12,288"):
        load_array_pickle(write(tmp_path, lying(shape)))


@pytest.mark.parametrize("shape", [(-3, 64, -64), (3.0, 64, 64), "abc", 5, None, (True, 12288)])
def test_a_shape_that_is_none_is_refused(tmp_path, shape):
    with pytest.raises(ValueError, match="expected one numpy array"):
        load_array_pickle(write(tmp_path, lying(shape)))


BOMBS = {
    "bytes of 1 TB": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"abc.",
    "bytes beyond memory": b"\x80\x04\x8e" + struct.pack("<Q", 2**63 - 1) + b".",
    "bytearray of 1 TB": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "memo of four billion": b"\x80\x02Nr\xff\xff\xff\xff.",
    "memo by text": b"Np4294967295\n.",
    "frame of 1 TB": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.",
    "long of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "ten thousand instructions": b"\x80\x02" + b"N0" * 10_000 + b"N.",
    "a tuple in a tuple, often": b"\x80\x02)" + b"\x85" * 100_000 + b".",
    "persistent": b"\x80\x02Pabc\n.",
    "extension": b"\x80\x02\x82\x01.",
    "new object": b"\x80\x02cnumpy\ndtype\n)\x81.",
    "old instance": b"(S'true'\nios\nsystem\n.",
    "out of band": b"\x80\x05\x97.",
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_does_not_go_off(tmp_path, data):
    with pytest.raises(ValueError, match="expected one numpy array of numbers") as caught:
        load_array_pickle(write(tmp_path, data))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_codec_is_not_run(tmp_path):
    data = b"\x80\x02c_codecs\nencode\nX\x03\x00\x00\x00abcX\x03\x00\x00\x00hex\x86R."
    with pytest.raises(HostilePickleError, match="codec 'hex'"):
        load_array_pickle(write(tmp_path, data))


def test_a_file_cut_anywhere_is_a_value_error(tmp_path):
    data = pickle.dumps(ARRAY[:1, :4, :4])
    for end in range(len(data)):
        path = write(tmp_path, data[:end])
        with pytest.raises(ValueError, match=r"00\.pkl"):
            load_array_pickle(path)


def test_a_file_with_any_byte_changed_never_fails_otherwise(tmp_path):
    data = pickle.dumps(ARRAY[:1, :4, :4])
    for place in range(len(data)):
        for value in (0, 46, 82, 255, data[place] ^ 1):
            changed = data[:place] + bytes([value]) + data[place + 1 :]
            try:
                found = load_array_pickle(write(tmp_path, changed))
            except ValueError as error:
                assert "\n" not in str(error)
            else:
                assert isinstance(found, np.ndarray) and found.dtype.kind in "biuf"


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no pickle"):
        load_array_pickle(tmp_path / "none.pkl")


def test_a_folder_is_no_pickle(tmp_path):
    with pytest.raises(ValueError, match="cannot read"):
        load_array_pickle(tmp_path)
