import json
import logging

import pytest
from PIL import Image

from reidkit.data import BENCHMARKS, check_benchmark


def kinds(report, severity):
    return [finding.sentence for finding in report.findings if finding.severity == severity]


@pytest.fixture
def own(tmp_path, picture):
    """Check a manifest of (path, pid, camid, split) rows, with pictures for all of them."""

    def check(*rows, **options):
        for number, (path, *_) in enumerate(rows):
            picture(path, number)
        lines = ["path,pid,camid,split", *(",".join(map(str, row)) for row in rows)]
        (tmp_path / "own.csv").write_text("\n".join(lines))
        return check_benchmark("manifest", tmp_path / "own.csv", **options)

    return check


SOUND = [
    ("a.png", 1, 0, "train"),
    ("b.png", 1, 1, "train"),
    ("c.png", 2, 0, "query"),
    ("d.png", 2, 1, "gallery"),
]


def test_a_sound_folder_has_no_findings_and_is_counted(own):
    report = own(*SOUND)
    assert report.ok
    assert report.findings == ()
    assert report.decoded == 4
    train = report.counts["train"]
    assert (train.identities, train.samples, train.images, train.cameras) == (1, 2, 2, 2)


def test_the_market_layout_is_reported_in_whole(market):
    (market / "bounding_box_train" / "picture.jpg").write_bytes(b"")
    for file in (market / "query").iterdir():
        file.unlink()
    (market / "query").rmdir()
    report = check_benchmark("market1501", market)
    errors = " | ".join(kinds(report, "error"))
    assert not report.ok
    assert "no folder 'query'" in errors
    assert "picture.jpg" in errors
    assert "train has 3 identities and 6 images" in errors
    assert "gallery has 3 identities and 4 images" in errors
    notes = " | ".join(kinds(report, "note"))
    assert "1 junk images" in notes
    assert "Thumbs.db" in notes


def test_every_error_and_warning_comes_with_a_remedy(market):
    (market / "query" / "0001_c1s1_001051_00.jpg").write_bytes(b"")
    report = check_benchmark("market1501", market)
    for finding in report.findings:
        assert finding.remedy or finding.severity == "note"


def test_unreadable_images_are_named(own, tmp_path):
    sound = own(*SOUND)
    assert sound.ok
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(b"no picture at all")
    report = check_benchmark("manifest", tmp_path / "own.csv")
    (error,) = kinds(report, "error")
    assert "2 images cannot be read" in error
    assert "a.png is empty (0 bytes)" in error
    assert "b.png is no readable image" in error


def test_a_jpeg_that_is_cut_short_is_unreadable(market):
    file = market / "query" / "0001_c1s1_001051_00.jpg"
    file.write_bytes(file.read_bytes()[:-100])
    report = check_benchmark("market1501", market)
    assert any("0001_c1s1_001051_00.jpg is cut short" in line for line in kinds(report, "error"))


def test_without_decoding_no_image_is_opened(own, tmp_path):
    own(*SOUND)
    (tmp_path / "a.png").write_bytes(b"")
    report = check_benchmark("manifest", tmp_path / "own.csv", decode=False)
    assert report.ok
    assert report.decoded == 0


def test_training_identities_with_one_image_are_a_warning(own):
    report = own(*SOUND, ("e.png", 7, 0, "train"))
    (warning,) = kinds(report, "warning")
    assert "1 training identities have one image" in warning
    assert "e.png" in warning
    assert report.ok


def test_queries_that_no_other_camera_saw_are_a_warning(own):
    report = own(*SOUND, ("e.png", 5, 2, "query"), ("f.png", 5, 2, "gallery"))
    (warning,) = kinds(report, "warning")
    assert "1 of 2 queries, of 1 identities that no other camera saw" in warning
    assert "e.png" in warning


def test_no_query_with_an_answer_is_an_error(own):
    report = own(("c.png", 2, 0, "query"), ("d.png", 2, 0, "gallery"))
    (error,) = kinds(report, "error")
    assert "No query can be scored" in error


def test_the_same_identity_in_train_and_test_is_an_error(own):
    report = own(*SOUND, ("e.png", 2, 0, "train"), ("f.png", 2, 1, "train"))
    (error,) = kinds(report, "error")
    assert "1 identities are in both train and test" in error
    assert "pid 2" in error


def test_distractors_with_pid_zero_are_no_leak(own):
    rows = ("e.png", 0, 0, "train"), ("f.png", 0, 1, "train"), ("g.png", 0, 0, "gallery")
    assert own(*SOUND, *rows).ok


def test_a_query_in_a_gallery_that_leaves_nothing_out_is_an_error(own, picture, tmp_path):
    picture("a.png")
    (tmp_path / "two.csv").write_text("path,pid,split\na.png,1,query\na.png,1,gallery\n")
    report = check_benchmark("manifest", tmp_path / "two.csv")
    assert any("would find themselves" in line for line in kinds(report, "error"))


def test_faults_of_a_manifest_are_in_the_report_and_the_rest_is_checked(own, tmp_path):
    own(*SOUND)
    file = tmp_path / "own.csv"
    file.write_text(file.read_text() + "\nabsent.png,1,0,train\nx.png,,0,train\n")
    report = check_benchmark("manifest", file)
    (error,) = kinds(report, "error")
    assert "line 6: no file" in error
    assert "line 7: no pid" in error
    assert report.counts["query"].images == 1


@pytest.mark.parametrize("name", ["market1501", "manifest"])
def test_a_root_that_is_not_there_is_a_finding(tmp_path, name):
    report = check_benchmark(name, tmp_path / "nowhere")
    (error,) = kinds(report, "error")
    assert "nowhere" in error
    assert "nowhere" in report.text()


def test_a_wrong_name_or_argument_raises(tmp_path):
    with pytest.raises(ValueError, match="unknown benchmark 'market'"):
        check_benchmark("market", tmp_path)
    with pytest.raises(ValueError, match="unknown key 'fold_count'"):
        check_benchmark("manifest", tmp_path, args={"fold_count": 2})


def test_the_identities_of_a_closed_set_are_no_leak(tmp_path):
    for person in ("ann", "bob"):
        (tmp_path / person).mkdir()
        for number in range(4):
            Image.new("RGB", (8, 8)).save(tmp_path / person / f"{number}.png")
    assert check_benchmark("manifest", tmp_path, args={"by": "picture"}).ok


def test_progress_ends_at_all_images(own):
    calls = []
    own(*SOUND, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (4, 4)


def test_the_report_is_text_and_json(own):
    report = own(*SOUND, ("e.png", 7, 0, "train"))
    assert "0 errors, 1 warnings; 5 images opened" in report.text()
    assert "-> Add images" in report.text()
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["ok"] is True
    assert plain["counts"]["train"]["images"] == 3
    assert plain["findings"][0]["severity"] == "warning"


def test_a_benchmark_without_a_reader_is_checked_by_its_adapter(market, caplog):
    from reidkit.data.adapters import market1501

    def load_plain(root, check="strict"):
        return market1501.load(root, check)

    name = "only_for_this_test"
    BENCHMARKS.register(name)(load_plain)
    try:
        with caplog.at_level(logging.WARNING):
            report = check_benchmark(name, market)
    finally:
        del BENCHMARKS._constructors[name]
    assert report.counts["train"].images == 6
