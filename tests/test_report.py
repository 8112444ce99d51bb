"""The page itself, from records: whole, harmless, and complete in itself."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from reidkit import report
from reidkit.report import charts
from reidkit.report.album import HEIGHT, WIDTH, Album, thumbnail
from reidkit.types import Sample

VOID = {"meta", "link", "img", "br", "input"}
# In quotes or not, with its namespace or not: whatever could ask for something.
OUTSIDE = re.compile(r"https?:|//[a-z]|url\(|@import|src\s*=(?!\s*\"data:)|srcset|fetch\(", re.I)


class Page(HTMLParser):
    """Tags with their attributes, the texts, and whether every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def picture(tmp_path):
    """Make a sample with a picture of some size: seed, identity and camera tell it apart."""

    def make(seed, pid=1, camid=0, size=(128, 64), name=None):
        path = tmp_path / (name or f"{seed}.jpg")
        noise = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
        done, data = cv2.imencode(".png", noise)
        assert done
        path.write_bytes(data.tobytes())
        return Sample((str(path),), pid, camid)

    return make


def ranked(query, *others, precision=0.25, rank=3):
    matches = [
        report.Match(other, 0.1 * i, other.pid == query.pid) for i, other in enumerate(others)
    ]
    first = report.Match(replace(query, camid=4), 0.9, True)
    return report.RankedList(query, matches, precision, rank, first, 2, 100)


def whole(picture, **changes):
    """A report with every section."""
    samples = [picture(i, pid=i % 3, camid=i % 4) for i in range(8)]
    rows = [ranked(samples[0], *samples[1:5]), ranked(samples[1], *samples[2:6], precision=0.5)]
    doubted = report.Doubted(
        samples[2], "gallery", 7, [report.Match(samples[3], 0.05, False)], None
    )
    change = report.Change(rows[0], replace(rows[0], average_precision=0.75))
    facts = {
        "title": "quickstart",
        "benchmark": "market1501",
        "date": "2031-05-06",
        "protocol": ["Nothing is left out."],
        "notes": ["3 queries have no right answer."],
        "queries": 1234,
        "gallery": 5,
        "scores": [report.ScoreLine("mAP", 0.4321, (0.4, 0.46)), report.ScoreLine("rank-1", 0.6)],
        "cmc": [report.Curve("quickstart", [1, 2, 3], [0.6, 0.7, 0.8])],
        "roc": [report.Curve("quickstart", [1e-4, 1e-2, 1.0], [0.2, 0.6, 1.0])],
        "roc_note": "9 pairs.",
        "worst": rows,
        "pairs": [report.CameraPair("1", "2", 17, {"mAP": 0.1, "rank-1": 0.2})],
        "doubts": report.Doubts([doubted], 3, 50, "The rule."),
        "comparison": report.Comparison(
            before="older",
            after="quickstart",
            differences=[report.Difference("mAP", 0.4, 0.45, (0.01, 0.09))],
            movements=[report.Movement("Queries by mAP", 5, 2, 1)],
            losses=[report.Change(rows[1], replace(rows[1], average_precision=0.125))],
            gains=[change],
        ),
    }
    return report.Report(**{**facts, **changes})


def test_a_page_holds_every_section_in_order_and_every_tag_is_closed(picture):
    page = Page(report.render(whole(picture)))
    sections = [attributes["id"] for attributes in page.all("section")]
    assert sections == ["scores", "curves", "worst", "cameras", "labels", "changes"]
    for words in (
        "quickstart on market1501 · 1,234 queries, 5 gallery items · 2031-05-06",
        "Nothing is left out.",
        "3 queries have no right answer.",
        "43.21% 40.0% – 46.0%",
        "25.0% average precision · first right answer at rank 3 of 100 · 2 right answers",
        "Labelled 2 , looks like 7",
        "3 of 50 items that were looked at are in doubt; the 1 strongest",
        "+5.0 +1.0 to +9.0",
        "2 worse · 1 the same · 5 better",
        "−37.5 points · average precision 50.0% → 12.5%",
    ):
        assert words in page.text, words


def test_what_is_not_there_is_left_out(picture):
    page = Page(
        report.render(whole(picture, roc=[], pairs=[], doubts=None, comparison=None, worst=[]))
    )
    assert [a["id"] for a in page.all("section")] == ["scores", "curves", "worst"]
    assert "No query is shown." in page.text
    assert not page.all("img")


def test_no_request_leaves_the_page(picture):
    text = report.render(whole(picture))
    without_pictures = re.sub(r'"data:image/jpeg;base64,[A-Za-z0-9+/=]+"', '"data:"', text)
    assert not OUTSIDE.findall(without_pictures)
    page = Page(text)
    assert len(page.all("img")) > 20
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data", "poster", "background", "xlink:href"):
            assert attributes.get(name, "#").startswith(("data:", "#")), (tag, name)
    (policy,) = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


def test_the_policy_knows_the_one_style_and_the_one_script_by_their_hashes(picture):
    text = report.render(whole(picture))
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in text
    # Neither would be allowed in an attribute.
    for _, attributes in Page(text).tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)<script>",
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='alert(1)",
        "{{ 7 * 7 }}{% raw %}",
        "]]><svg onload=alert(1)>",
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_names_are_words_and_never_markup(picture, name, exists):
    query = picture(0, name=name) if exists else Sample((f"/nowhere/{name}",), 1)
    hostile = whole(
        picture,
        title=name,
        benchmark=name,
        date=name,
        protocol=[name],
        notes=[name],
        roc_note=name,
        scores=[report.ScoreLine(name, 0.5)],
        cmc=[report.Curve(name, [1, 2], [0.5, 0.6])] * 2,
        worst=[ranked(query, query)],
        pairs=[report.CameraPair(name, name, 1, {name: 0.5})],
        doubts=report.Doubts([report.Doubted(query, "query", 1, [], None)], 1, 1, name),
        comparison=report.Comparison(
            name, name, [report.Difference(name, 0.1, 0.2, (0.0, 0.1))],
            [report.Movement(name, 1, 1, 1)], [report.Change(ranked(query), ranked(query))], [],
        ),
    )  # fmt: skip
    plain, page = Page(report.render(whole(picture))), Page(report.render(hostile))
    assert len(page.all("script")) == len(plain.all("script")) == 1
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags} | {"img"}
    assert {n for _, a in page.tags for n in a} <= {n for _, a in plain.tags for n in a}
    assert all(a["src"].startswith("data:image/jpeg;base64,") for a in page.all("img"))
    assert page.texts.count(name) >= 10


def test_a_missing_or_broken_picture_is_a_box_with_its_name(picture, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    empty = tmp_path / "empty.jpg"
    empty.touch()
    names = [str(broken), str(empty), str(tmp_path / "gone.jpg"), "\0.jpg", str(tmp_path)]
    row = ranked(picture(1), *(Sample((name,), 2) for name in names), Sample((), 9, 3))
    page = Page(report.render(whole(picture, worst=[row], doubts=None, comparison=None)))
    assert len(page.all("img")) == 2  # the query, and the first right answer
    boxes = [a["title"] for a in page.all("span") if a.get("class") == "missing"]
    files = ["broken.jpg", "empty.jpg", "gone.jpg", "\0.jpg", tmp_path.name]
    assert boxes == [*files, "pid 9, camera 3"]
    assert "gone.jpg" in page.text


def test_folders_are_not_told(picture, tmp_path):
    text = report.render(whole(picture, worst=[ranked(Sample((r"C:\secret\a.jpg",), 1))]))
    assert str(tmp_path) not in text
    assert tmp_path.parent.name not in text
    assert "secret" not in text


def test_equal_records_give_equal_pages_and_the_date_is_theirs(picture):
    facts = whole(picture)
    assert report.render(facts) == report.render(facts)
    other = report.render(replace(facts, date="2032-01-01"))
    assert other.replace("2032-01-01", "2031-05-06") == report.render(facts)


def test_the_page_is_written_whole(picture, tmp_path):
    facts = whole(picture)
    report.write_report(tmp_path / "new" / "page.html", facts)
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8") == report.render(facts)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_a_name_that_is_no_text_is_written_all_the_same(picture, tmp_path):
    row = ranked(Sample(("/nowhere/caf\udce9.jpg",), 1))
    report.write_report(tmp_path / "page.html", whole(picture, worst=[row]))
    assert "caf?.jpg" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "size, expected",
    [((128, 64), (128, 64)), ((500, 250), (128, 64)), ((60, 300), (19, 96)), ((40, 20), (40, 20))],
)
def test_thumbnails_keep_their_shape_and_never_grow(picture, size, expected):
    small = thumbnail(picture(0, size=size))
    assert small.shape == (*expected, 3)
    assert small.shape[0] <= HEIGHT and small.shape[1] <= WIDTH


def test_of_a_tracklet_the_middle_frame_is_shown(picture):
    first, middle, last = (picture(seed).frames[0] for seed in range(3))
    tracklet = Sample((first, middle, last), 1)
    np.testing.assert_array_equal(thumbnail(tracklet), thumbnail(Sample((middle,), 1)))


def test_pictures_that_would_not_fit_are_made_coarser_until_they_do(picture):
    samples = [picture(seed) for seed in range(3)]
    fine = Album(samples)
    size = sum(len(uri) for uri in fine.values())
    coarse = Album(samples, budget=size - 1)
    assert set(coarse) == set(fine)
    assert sum(len(uri) for uri in coarse.values()) < size
    # A picture that is shown twice counts twice.
    twice = Album(samples * 2, budget=size)
    assert sum(len(uri) for uri in twice.values()) < size


def numbers(path):
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", path)]


def lines(chart):
    return [a["d"] for a in Page(str(chart)).all("path") if a["class"].startswith("line ")]


def test_a_curve_goes_where_its_points_are():
    # The plot is 398 wide from 60 and 240 high down to 254. From rank 1 to 3, rank 2 is half way;
    # the axis begins at 40 %, so 70 % is half way up.
    (line,) = lines(charts.cmc_chart([report.Curve("a", [1, 2, 3], [0.45, 0.7, 1.0])]))
    assert numbers(line) == pytest.approx([60, 234, 259, 134, 458, 14])


def test_a_decade_is_as_wide_as_the_next_on_the_logarithmic_axis():
    curve = report.Curve("a", [0.0, 1e-5, 1e-3, 1e-2, 1e-1, 1.0], [0.0, 0.1, 0.25, 0.5, 0.75, 1.0])
    across = numbers(lines(charts.roc_chart([curve]))[0])[::2]
    left, right = across[0], across[-1]
    assert (left, right) == (60, 458)  # 1e-5 and 1: five decades
    assert across == pytest.approx(
        [left + i * (right - left) / 5 for i in (0, 2, 3, 4, 5)], abs=0.1
    )


def test_axes_and_marks_are_in_words():
    text = Page(str(charts.roc_chart([report.Curve("a", [1e-4, 1e-2, 1.0], [0.2, 0.6, 1.0])]))).text
    for words in ("impostor pairs accepted (FAR, log)", "0.01%", "100%", "20.0%", "60.0%"):
        assert words in text


@pytest.mark.parametrize(
    "curves", [[], [report.Curve("a", [], [])], [report.Curve("a", [1], [0.5])]]
)
def test_curves_of_little_or_nothing_still_make_a_chart(curves):
    for chart in (charts.cmc_chart(curves), charts.roc_chart(curves)):
        assert "<svg" in chart and "nan" not in chart


def test_a_curve_of_many_points_is_thinned_but_keeps_its_ends():
    count = 5000
    curve = report.Curve("a", list(range(1, count + 1)), np.linspace(0, 1, count).tolist())
    points = numbers(lines(charts.cmc_chart([curve]))[0])
    assert len(points) == 800
    assert points[:2] == [60, 254] and points[-2:] == [458, 14]


def test_bars_say_better_worse_or_unsure_by_their_interval():
    for interval, kind in (
        ((0.01, 0.02), "better"),
        ((-0.2, -0.1), "worse"),
        ((-0.1, 0.1), "unsure"),
    ):
        assert f"point {kind}" in charts.difference_bar(0.0, interval, 0.2)


def test_curves_and_lists_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="2 x for 1 y"):
        report.Curve("a", [1, 2], [0.5])
