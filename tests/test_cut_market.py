"""Market-1501's own boxes become tracklets in MARS' layout."""

import subprocess
import sys
from pathlib import Path

import pytest

from reidkit.data import load_benchmark
from reidkit.unsupervised.tracklets import cannot_link

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tools"))

import cut_market_tracklets as tool  # noqa: E402

# identity, camera, sequence, frames of the video
PATHS = [
    (2, 1, 1, [100, 150, 300, 451, 500, 600]),  # a tracklet to 300, and 151 later another
    (2, 2, 1, [10, 20]),  # too short
    (7, 1, 1, [100, 150, 200]),
    (7, 1, 2, [210, 220, 230, 240]),  # another sequence
    (9, 1, 1, [290, 310, 330]),
    (9, 3, 4, [5, 6, 7]),
]
TRAINED = (2, 7)


@pytest.fixture
def market(tmp_path):
    """A Market-1501 with gt_bbox; one name is odd, and two files are no boxes."""
    root = tmp_path / "Market-1501-v15.09.15"
    for folder in ("gt_bbox", "bounding_box_train"):
        (root / folder).mkdir(parents=True)
    for pid, camera, sequence, frames in PATHS:
        for frame in frames:
            name = f"{pid:04d}_c{camera}s{sequence}_{frame:06d}_00.jpg"
            name += ".jpg" if frame == 150 else ""
            (root / "gt_bbox" / name).write_bytes(name.encode())
        if pid in TRAINED:
            (root / "bounding_box_train" / f"{pid:04d}_c1s1_000100_01.jpg").write_bytes(b"x")
    (root / "gt_bbox" / "Thumbs.db").write_bytes(b"none")
    (root / "gt_bbox" / "holiday.jpg").write_bytes(b"none")
    return root


def cut(market, out, *words):
    assert tool.main([str(market), str(out), *words]) == 0
    return load_benchmark("mars", out, "off", times=True)


def told(samples):
    return [
        (s.pid, s.camid, tuple(moment - 1_000_000 * (moment // 1_000_000) for moment in s.span))
        for s in samples
    ]


def test_tracklets_end_where_neighbours_are_further_apart_than_the_gap(market, tmp_path):
    found = cut(market, tmp_path / "out")
    assert told(found.train) == [
        (2, 0, (100, 300)),
        (2, 0, (451, 600)),
        (7, 0, (100, 200)),
        (7, 0, (210, 240)),
    ]
    assert told(found.gallery) == [(9, 0, (290, 330)), (9, 2, (5, 7))]


def test_a_wider_gap_joins_and_fewer_boxes_suffice(market, tmp_path):
    found = cut(market, tmp_path / "out", "--gap", "151", "--least", "2")
    assert told(found.train)[:2] == [(2, 0, (100, 600)), (2, 1, (10, 20))]


def test_sequences_of_a_camera_follow_each_other_on_its_clock(market, tmp_path):
    found = cut(market, tmp_path / "out")
    assert [sample.span for sample in found.train[2:]] == [
        (1_000_100, 1_000_200),
        (2_000_210, 2_000_240),
    ]
    samples = found.train + found.gallery
    pairs = cannot_link(samples).pairs
    assert sorted(sorted(samples[i].span for i in pair) for pair in pairs.tolist()) == [
        [(1_000_100, 1_000_200), (1_000_100, 1_000_300)],
        [(1_000_100, 1_000_300), (1_000_290, 1_000_330)],
    ]


def test_each_identity_asks_once_in_each_camera(market, tmp_path):
    for frame in (900, 910, 920):
        (market / "gt_bbox" / f"0009_c1s1_{frame:06d}_00.jpg").write_bytes(b"later")
    found = cut(market, tmp_path / "out")
    assert len(found.gallery) == 3
    assert told(found.query) == [(9, 0, (290, 330)), (9, 2, (5, 7))]


@pytest.mark.parametrize("words", [[], ["--link"]])
def test_the_frames_are_those_of_market_in_time_order(market, tmp_path, words):
    found = cut(market, tmp_path / "out", *words)
    first = found.train[0]
    assert [Path(frame).name for frame in first.frames] == [
        f"0002C1T0001F{1_000_000 + frame}.jpg" for frame in (100, 150, 300)
    ]
    read = [Path(frame).read_bytes().decode() for frame in first.frames]
    assert read == [
        "0002_c1s1_000100_00.jpg",
        "0002_c1s1_000150_00.jpg.jpg",
        "0002_c1s1_000300_00.jpg",
    ]
    source = market / "gt_bbox" / read[0]
    assert Path(first.frames[0]).samefile(source) == bool(words)


def test_the_counts_are_told(market, tmp_path, capsys):
    (market / "gt_bbox" / "0002_c1s1_000100_01.jpg").write_bytes(b"twice")
    cut(market, tmp_path / "out")
    said = capsys.readouterr().out
    assert "train: 4 tracklets of 2 identities in 1 cameras, 13 frames" in said
    assert "test: 2 tracklets of 1 identities in 2 cameras, 6 frames" in said
    assert "tracklets of an identity in a camera: 2 in 2 cases" in said
    assert "2 boxes in tracklets that are too short, 1 second boxes" in said


def test_a_cut_that_was_killed_is_not_taken_for_whole_and_is_begun_anew(
    market, tmp_path, monkeypatch
):
    out, partial = tmp_path / "out", tmp_path / "out.partial"

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tool, "write_mars_info", die)
        tool.main([str(market), str(out)])
    assert partial.is_dir() and not out.exists()
    (partial / "bbox_train" / "left.jpg").write_bytes(b"over")
    out.mkdir()
    assert len(cut(market, out).train) == 4
    assert not partial.exists() and not list(out.rglob("left.jpg"))


def test_folders_of_others_are_left_alone(market, tmp_path, capsys):
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert tool.main([str(market), str(out)]) == 2
    assert "out is there already; name a new folder" in capsys.readouterr().err
    partial.mkdir()
    (partial / "mine.txt").write_text("mine")
    (out / "mine.txt").rename(tmp_path / "mine.txt")
    assert tool.main([str(market), str(out)]) == 1
    assert "out.partial is not this tool's" in capsys.readouterr().err
    assert (partial / "mine.txt").is_file()


@pytest.mark.parametrize("absent", ["gt_bbox", "bounding_box_train"])
def test_a_market_without_its_folders_is_named_in_one_line(market, tmp_path, absent):
    (market / absent).rename(market / "elsewhere")
    words = [sys.executable, ROOT / "tools" / "cut_market_tracklets.py", market, tmp_path / "out"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"no boxes in {market / absent}, expected pictures such as" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--gap", "0"], 2, "--gap 0 --least 3, expected 1 or more"),
        (["--least", "0"], 2, "--gap 150 --least 0, expected 1 or more"),
        (["--least", "4"], 1, "1 tracklets to train and 0 to test; expected some of each"),
    ],
)
def test_choices_that_leave_nothing_are_refused(market, tmp_path, capsys, words, code, said):
    assert tool.main([str(market), str(tmp_path / "out"), *words]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_link_across_disks_says_how_to_go_on(market, tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    assert tool.main([str(market), str(tmp_path / "out"), "--link"]) == 1
    assert "leave out --link to copy" in capsys.readouterr().err
