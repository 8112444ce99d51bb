import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from reidkit.compose.inference import find_samples
from reidkit.data import check_benchmark, load_benchmark
from reidkit.data.adapters import mot
from reidkit.data.video.cutting import cut_tracklets, read_boxes

ROOT = Path(__file__).parents[2]
HEIGHT, WIDTH = 120, 160
GROUND_TRUTH = [
    # frame, id, left, top, width, height, considered, class, visibility; pixels from 1
    "1,1,11,21,40,80,1,1,1",
    "1,2,101,1,30,70,1,1,0.6",
    "2,1,13,21,40,80,1,1,1",
    "2,2,101,1,30,70,1,1,0.4",
    "3,1,141,41,40,100,1,1,1",
    "3,7,1,1,30,70,0,1,1",
    "3,8,1,1,30,70,1,3,1",
    "3,9,1,1,30,20,1,1,1",
    "4,2,101,1,30,70,1,1,0.9",
]


@pytest.fixture
def cut_tree(tmp_path, picture):
    """Two sequences of crops: two tracklets and one."""
    root = tmp_path / "mot"
    for name in (
        *("MOT-02/0010/000003.jpg", "MOT-02/0010/000012.jpg", "MOT-02/0010/000005.jpg"),
        *("MOT-02/0002/000001.jpg", "MOT-05/0002/000001.jpg", "MOT-05/0002/000002.jpg"),
    ):
        picture(f"mot/{name}")
    (root / "boxes.txt").write_text("beside\n")
    (root / ".MOT-09.partial").mkdir()
    return root


@pytest.fixture
def sequence(tmp_path):
    """A sequence of four pictures, each pixel of which says where it is, and its ground truth."""
    folder = tmp_path / "MOT-02"
    (folder / "img1").mkdir(parents=True)
    (folder / "gt").mkdir()
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for frame in range(1, 5):
        image = np.stack([x, y, np.full_like(x, 50 * frame)], 2).astype(np.uint8)
        cv2.imwrite(str(folder / "img1" / f"{frame:06d}.png"), image)
    write_boxes(folder, *GROUND_TRUTH)
    return folder


def write_boxes(sequence, *lines):
    path = sequence / "gt" / "gt.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def cut_here(sequence, **given):
    out = sequence.parent / "cut"
    report = cut_tracklets(sequence, sequence / "gt" / "gt.txt", out, **given)
    return report, sorted(str(path.relative_to(out)) for path in out.rglob("*.jpg"))


# The adapter


def test_a_sequence_is_a_camera_and_identities_are_unknown(cut_tree):
    train = load_benchmark("mot", cut_tree).train
    assert [(s.pid, s.camid, s.domain, s.condition) for s in train] == [
        (-1, 0, "mot", "MOT-02/0002"),
        (-1, 0, "mot", "MOT-02/0010"),
        (-1, 1, "mot", "MOT-05/0002"),
    ]
    assert list(find_samples("mot:train", cut_tree.parent)) == list(train)
    assert [Path(sample.frames[0]).parent.name for sample in train] == ["0002", "0010", "0002"]


def test_frames_are_in_time_order_and_give_the_span(cut_tree):
    sample = load_benchmark("mot", cut_tree).train[1]
    assert [Path(frame).stem for frame in sample.frames] == ["000003", "000005", "000012"]
    assert sample.span == (3.0, 12.0)


def test_frames_and_tracklets_are_sorted_by_number_and_not_by_letter(tmp_path, picture):
    for name in ("S/10/1.png", "S/9/10.png", "S/9/9.png"):
        picture(name)
    train = mot.load(tmp_path).train
    names = [[str(Path(f).relative_to(tmp_path)) for f in sample.frames] for sample in train]
    assert names == [["S/9/9.png", "S/9/10.png"], ["S/10/1.png"]]


def test_all_of_it_trains_and_the_parent_folder_is_accepted_too(cut_tree):
    benchmark = load_benchmark("mot", cut_tree.parent)
    assert benchmark == load_benchmark("mot", cut_tree)
    assert not benchmark.query and not benchmark.gallery
    report = check_benchmark("mot", cut_tree)
    assert report.decoded == 6
    (finding,) = report.findings
    assert finding.severity == "note"
    assert "identities are unknown" in finding.what and "nothing to test on" in finding.what


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("MOT-05/persons/000001.jpg", r"1 folders in .*MOT-05 are no numbers.*: persons"),
        ("MOT-05/0002/first.jpg", r"1 pictures in .*0002 are not named by frame.*: first\.jpg"),
        ("MOT-05/0003/first.jpg", r"1 pictures in .*0003 are not named by frame.*: first\.jpg"),
        ("MOT-05/0002/²1.jpg", r"not named by frame"),
        ("MOT-05/img1/000001.jpg", r"MOT-05 holds whole pictures.*cut_mot_tracklets\.py"),
    ],
)
def test_what_does_not_fit_is_named_and_left_out(cut_tree, picture, name, words):
    whole = mot.load(cut_tree)
    picture(f"mot/{name}")
    with pytest.raises(ValueError, match=words):
        mot.load(cut_tree)
    assert mot.load(cut_tree, "off") == whole


def test_an_empty_tracklet_is_a_warning(cut_tree, caplog):
    (cut_tree / "MOT-05" / "0004").mkdir()
    assert len(mot.load(cut_tree).train) == 3
    assert "0004 holds no pictures" in caplog.text


@pytest.mark.parametrize("check", ["strict", "warn", "off"])
def test_a_root_without_tracklets_is_named_at_every_level(tmp_path, check):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere.*README\.md#mot"):
        load_benchmark("mot", tmp_path / "nowhere", check)
    with pytest.raises(FileNotFoundError, match=r"no tracklets in .*README\.md#mot"):
        load_benchmark("mot", tmp_path, check)


# Cutting


def test_crops_are_the_boxes_of_pedestrians_that_can_be_seen(sequence):
    report, names = cut_here(sequence)
    assert names == [
        *("MOT-02/0001/000001.jpg", "MOT-02/0001/000002.jpg", "MOT-02/0001/000003.jpg"),
        *("MOT-02/0002/000001.jpg", "MOT-02/0002/000004.jpg"),
    ]
    assert report == (2, 5, 1)
    crop = cv2.imread(str(sequence.parent / "cut" / "MOT-02" / "0001" / "000002.jpg"))
    assert crop.shape == (80, 40, 3)
    corner, far = crop[0, 0].astype(int), crop[-1, -1].astype(int)
    assert np.abs(corner - [12, 20, 100]).max() <= 3
    assert np.abs(far - [51, 99, 100]).max() <= 3


def test_a_box_that_reaches_out_of_the_picture_is_cut_at_its_border(sequence):
    cut_here(sequence)
    crop = cv2.imread(str(sequence.parent / "cut" / "MOT-02" / "0001" / "000003.jpg"))
    assert crop.shape == (HEIGHT - 40, WIDTH - 140, 3)


def test_boxes_outside_the_picture_are_none(sequence):
    write_boxes(sequence, GROUND_TRUTH[0], "1,3,-50,1,30,80", "1,4,500,1,30,80", "1,5,1,-90,30,80")
    report, names = cut_here(sequence)
    assert (report.small, len(names)) == (3, 1)


def test_visibility_height_and_every_choose(sequence):
    _, names = cut_here(sequence, min_visibility=0.0, every=2)
    assert names == [f"MOT-02/{name}.jpg" for name in ("0001/000001", "0001/000003", "0002/000001")]
    write_boxes(sequence, *GROUND_TRUTH)
    (sequence.parent / "cut").rename(sequence.parent / "before")
    report, names = cut_here(sequence, min_height=75)
    assert (report.tracklets, report.small) == (1, 3)


def test_a_trackers_result_without_classes_is_taken_as_it_is(sequence):
    write_boxes(sequence, "1,0,11,21,40,80,0.7,-1,-1,-1", "2,0,11,21,40.5,80.2,1,-1,-1,-1")
    _, names = cut_here(sequence)
    assert names == ["MOT-02/0000/000001.jpg", "MOT-02/0000/000002.jpg"]


def test_the_adapter_reads_what_was_cut(sequence):
    told = []
    cut_here(sequence, progress=lambda done, total: told.append((done, total)))
    train = mot.load(sequence.parent / "cut").train
    assert [sample.span for sample in train] == [(1.0, 3.0), (1.0, 4.0)]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1,-1,11,21,40,80,0.9,-1,-1,-1", "line 1: id -1; these are detections, expected tracks"),
        ("1,2,3", "line 1 is '1,2,3', expected six or more numbers frame,id"),
        ("frame,id,x,y,w,h", "line 1 is 'frame,id,x,y,w,h', expected numbers"),
        ("1,1,nan,1,1,1", "line 1 .*expected six"),
        ("1,1.5,1,1,1,1", "frame 1.0 and id 1.5, expected whole numbers"),
        ("1,1,1,1,50,80\n1,1,1,1,50,80", "line 2: id 1 is in frame 1 already"),
        ("1,1,1,1,50,80,0,1,1", "no box of a pedestrian that is visible enough"),
        ("", "no box of a pedestrian"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(sequence, line, words):
    path = write_boxes(sequence, line)
    with pytest.raises(ValueError, match=words):
        read_boxes(path)


def test_a_cut_that_fails_leaves_nothing(sequence):
    write_boxes(sequence, "1,1,1,1,50,20")
    with pytest.raises(ValueError, match="all 1 boxes are lower than 64"):
        cut_here(sequence)
    write_boxes(sequence, "1,1,1,1,50,80", "2,1,1,1,50,80")
    (sequence / "img1" / "000002.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"000002\.png cannot be decoded"):
        cut_here(sequence)
    assert not list((sequence.parent / "cut").glob("*"))
    assert not list((sequence.parent / "cut").glob(".*"))


def test_missing_pictures_tables_and_a_second_cut_are_refused(sequence):
    write_boxes(sequence, "1,1,1,1,50,80", "9,1,1,1,50,80")
    with pytest.raises(FileNotFoundError, match=r"boxes in frame 9, but .*img1 has no picture"):
        cut_here(sequence)
    with pytest.raises(FileNotFoundError, match=r"no table .*absent\.txt"):
        read_boxes(sequence / "absent.txt")
    with pytest.raises(FileNotFoundError, match=r"no pictures such as .*img1"):
        cut_tracklets(sequence.parent, sequence / "gt" / "gt.txt", sequence.parent / "cut")
    write_boxes(sequence, *GROUND_TRUTH)
    cut_here(sequence)
    with pytest.raises(ValueError, match="MOT-02 is there already"):
        cut_here(sequence)


@pytest.mark.parametrize("given", [{"min_visibility": 1.5}, {"min_height": 0}, {"every": 0}])
def test_choices_that_cannot_be_are_refused(sequence, given):
    with pytest.raises(ValueError, match=r"expected within \[0, 1\], 1 or more, 1 or more"):
        cut_here(sequence, **given)


def tool(folder, *words):
    """The tool run in a folder: its exit code, what it said, and its complaint."""
    command = [sys.executable, ROOT / "tools" / "cut_mot_tracklets.py", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    return done.returncode, done.stdout, done.stderr


def test_the_tool_cuts_and_a_second_call_leaves_what_is_there(sequence):
    code, said, wrong = tool(sequence.parent, sequence, "--out", "cut")
    assert (code, wrong) == (0, "")
    assert "2 tracklets, 5 crops, 1 boxes too small" in said
    other = sequence.parent / "MOT-05"
    shutil.copytree(sequence, other)
    code, said, wrong = tool(sequence.parent, sequence, other, "--out", "cut")
    assert (code, wrong) == (0, "")
    assert "MOT-02: cut/MOT-02 is there already, left as it is" in said
    assert "MOT-05: 2 tracklets" in said


def test_the_tool_takes_a_table_of_the_current_folder_only_where_it_is_named(sequence):
    here = sequence.parent / "here"
    shutil.move(sequence / "gt", here / "gt")
    code, said, wrong = tool(here, sequence, "--out", "cut")
    assert (code, said) == (1, "")
    assert f"no table {sequence / 'gt' / 'gt.txt'}" in wrong and wrong.count("\n") == 1
    code, said, _ = tool(here, sequence, "--out", "cut", "--boxes", "gt/gt.txt")
    assert code == 0 and "2 tracklets" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--every", "0"), "--every 0: expected 1 or more"),
        (("--min-height", "0"), "--min-height 0: expected 1 or more"),
        (("--min-visibility", "1.5"), "--min-visibility 1.5: expected within [0, 1]"),
        (("--min-visibility", "nan"), "--min-visibility nan: expected within [0, 1]"),
    ],
)
def test_a_wrong_call_of_the_tool_is_refused_before_any_sequence(tmp_path, words, told):
    code, _, wrong = tool(tmp_path, "nowhere", "--out", "cut", *words)
    assert code == 2
    assert told in wrong
