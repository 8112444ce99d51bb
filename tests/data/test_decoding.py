import sys
from importlib import import_module, reload

import cv2
import numpy as np
import pytest

from reidkit.data import decoding


def encoded(name=".jpg", seed=0, size=(48, 32), channels=3, **options):
    small = np.random.default_rng(seed).integers(0, 256, (6, 4, channels), dtype=np.uint8)
    image = cv2.resize(small, size[::-1])
    flags = [value for key, number in options.items() for value in (getattr(cv2, key), number)]
    return cv2.imencode(name, image, flags)[1].tobytes()


class Counting:
    """The faster decoder, and how often it was asked."""

    def __init__(self, decode):
        self.decode = decode
        self.asked = 0

    def decode_jpeg(self, data):
        self.asked += 1
        return self.decode(data)


def by_opencv(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


@pytest.fixture
def faster(monkeypatch):
    """Stands in for simplejpeg, so that its answers are known: all 1."""
    decoder = Counting(lambda data: np.ones((4, 3, 3), np.uint8))
    monkeypatch.setattr(decoding, "FASTER", decoder)
    return decoder


def test_pictures_come_in_rgb_and_silhouettes_grey(monkeypatch):
    monkeypatch.setattr(decoding, "FASTER", None)
    for name in (".jpg", ".png"):
        data = encoded(name)
        np.testing.assert_array_equal(decoding.decode(data), by_opencv(data))
        assert decoding.decode(data, channels=1).shape == (48, 32)
    assert decoding.decode(b"text") is None
    assert decoding.decode(b"text", channels=1) is None


def test_the_faster_decoder_is_asked_for_plain_jpegs_alone(faster):
    assert (decoding.decode(encoded()) == 1).all()
    assert faster.asked == 1
    turned = encoded()[:2] + b"\xff\xe1\x00\x0aExif\0\0II" + encoded()[2:]
    for data in (encoded(".png"), turned):
        np.testing.assert_array_equal(decoding.decode(data), by_opencv(data))
    decoding.decode(encoded(), channels=1)
    assert faster.asked == 1


def test_where_the_faster_decoder_gives_up_opencv_decides(faster):
    def give_up(data):
        raise ValueError("Corrupt JPEG data")

    faster.decode = give_up
    data = encoded()
    np.testing.assert_array_equal(decoding.decode(data), by_opencv(data))
    assert decoding.decode(b"\xff\xd8nothing") is None
    assert faster.asked == 2


def test_without_the_faster_decoder_there_is_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    try:
        assert reload(decoding).FASTER is None
        np.testing.assert_array_equal(decoding.decode(encoded()), by_opencv(encoded()))
    finally:
        monkeypatch.undo()
        reload(decoding)


@pytest.mark.parametrize("quality", [30, 75, 95, 100])
@pytest.mark.parametrize("sampling", ["411", "420", "422", "440", "444"])
@pytest.mark.parametrize("progressive", [0, 1])
def test_both_decoders_give_the_same_pixels(quality, sampling, progressive):
    pytest.importorskip("simplejpeg")
    fast = import_module("simplejpeg").decode_jpeg
    for channels, size in ((3, (48, 32)), (3, (37, 53)), (1, (9, 7))):
        data = encoded(
            size=size,
            channels=channels,
            IMWRITE_JPEG_QUALITY=quality,
            IMWRITE_JPEG_PROGRESSIVE=progressive,
            IMWRITE_JPEG_SAMPLING_FACTOR=getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}"),
        )
        np.testing.assert_array_equal(fast(data), by_opencv(data))


def test_a_jpeg_without_its_end_is_cut_short():
    data = encoded()
    assert not decoding.is_cut_short(data)
    assert not decoding.is_cut_short(data + b"tail")
    assert decoding.is_cut_short(data[: len(data) // 2])
    assert not decoding.is_cut_short(encoded(".png")[:50])
