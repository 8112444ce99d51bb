import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from reidkit.data.video.reading import FFMPEG_LOG, frames_of, video_facts

from .films import HEIGHT, WIDTH, film, write_film


@pytest.fixture
def walk(tmp_path):
    pictures, _ = film([(20, 3, 140, 80, (20, 20, 200))], frames=20)
    return write_film(tmp_path / "walk.mp4", pictures), pictures


def test_every_frame_comes_in_order_as_bgr(walk):
    path, pictures = walk
    found = list(frames_of(path))
    assert [frame.shape for frame in found] == [(HEIGHT, WIDTH, 3)] * 20
    assert all(frame.dtype == np.uint8 for frame in found)
    for frame, picture in zip(found, pictures, strict=True):
        assert np.abs(frame.astype(int) - picture).mean() < 6


def test_the_facts_are_those_that_were_written(walk):
    facts = video_facts(walk[0])
    assert (facts.frames, facts.fps, facts.size) == (20, 25.0, (HEIGHT, WIDTH))


def test_reading_leaves_the_environment_as_it_was(walk):
    before = os.environ.get(FFMPEG_LOG)
    video_facts(walk[0])
    assert os.environ.get(FFMPEG_LOG) == before


@pytest.mark.parametrize("read", [video_facts, lambda path: list(frames_of(path))])
@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "empty"),
        (b"\x00\x01junk" * 2000, "no video"),
        (b"just some text\n" * 50, "video|decoded"),
        (b"#EXTM3U\nhttp://127.0.0.1:9/a.ts\n", "playlist"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "playlist"),
    ],
)
def test_what_is_no_video_is_refused_in_one_line(tmp_path, content, words, read):
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        read(path)
    assert "\n" not in str(caught.value) and "bad.mp4" in str(caught.value)


def test_a_broken_file_makes_no_noise_beside_the_exception(walk):
    path, _ = walk
    path.write_bytes(path.read_bytes()[:5000])
    code = (
        "import sys; from reidkit.data.video.reading import video_facts\n"
        "try: video_facts(sys.argv[1])\n"
        "except ValueError: print('refused')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_a_missing_file_and_a_folder_are_said_to_be_that(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.mp4 is absent"):
        video_facts(tmp_path / "none.mp4")
    with pytest.raises(FileNotFoundError, match="a folder"):
        video_facts(tmp_path)


def test_an_mp4_that_was_cut_off_is_refused(walk):
    path, _ = walk
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="cut off"):
        list(frames_of(path))


def test_an_avi_that_ends_early_is_refused_after_its_last_frame(tmp_path):
    pictures, _ = film([(20, 3, 140, 80, (20, 20, 200))], frames=30)
    path = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (WIDTH, HEIGHT))
    for picture in pictures:
        writer.write(picture)
    writer.release()
    assert len(list(frames_of(path))) == 30
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="cut off"):
        list(frames_of(path))
