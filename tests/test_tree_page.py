"""The page of the identity tree: whole and harmless as text, and at work in a browser."""

import base64
import contextlib
import csv
import hashlib
import io
import json
import os
import select
import shutil
import subprocess
import sys
import time
from importlib.resources import files

import cv2
import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from reidkit.report.tree_page import LARGEST, tree_page
from reidkit.types import Sample, StoredFrames
from tests.test_report import OUTSIDE, Page

EVIL = '</script><script>alert("x")</script>\'"&.jpg'
# Two pairs, joined, and a single: ((0 1) (2 3)) 4.
MERGES = [[0, 1], [2, 3], [5, 6], [4, 7]]
HEIGHTS = [0.1, 0.2, 0.6, 0.9]
LABELS = [0, 0, 1, 1, 2]
NODE = shutil.which("node")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)


@pytest.fixture
def samples(tmp_path):
    made = []
    for number in range(5):
        file = tmp_path / f"t{number}.png"
        cv2.imwrite(str(file), np.full((64, 32, 3), 50 * number, np.uint8))
        made.append(Sample((str(file),), number // 2, number % 2))
    return made


def held(text):
    """What the script reads, refused where it is no JSON by the book."""
    own = text.split('<script type="application/json" id="tree">')[1].split("</script>")[0]

    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(own, parse_constant=refuse)


def page_of(samples, labels=LABELS, heights=HEIGHTS, **options):
    return tree_page("A tree", MERGES, heights, samples, labels, **options)


def test_the_page_is_whole_and_asks_nobody_for_anything(samples):
    text = page_of(samples, confidences=[1, 0.5, 0.25, 0, np.nan])
    page = Page(text)
    assert not OUTSIDE.search(text.replace("ObjectURL(", ""))  # of the export, made in the page
    (policy,) = [one["content"] for one in page.all("meta") if "http-equiv" in one]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for name, opening in (("script", "<script>"), ("style", "<style>")):
        body = text.split(opening)[1].split(f"</{name}>")[0]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not any(name.startswith("on") or name == "style" for _, a in page.tags for name in a)
    assert "5 tracklets" in page.text


def test_the_page_holds_the_tree_as_it_was_given(samples):
    data = held(page_of(samples, confidences=[1, 0.5, 0.25, 0, np.nan]))
    assert data["merges"] == MERGES
    assert data["heights"] == HEIGHTS
    assert data["labels"] == LABELS
    assert data["paths"] == [sample.frames[0] for sample in samples]
    assert data["names"] == [f"t{number}.png" for number in range(5)]
    assert data["camids"] == [0, 1, 0, 1, 0]
    assert data["confidences"] == [1, 0.5, 0.25, 0, None]
    assert sorted(data["pictures"]) == ["0", "1", "2", "3", "4"]


def test_equal_arguments_give_an_equal_page(samples):
    assert page_of(samples) == page_of(list(samples), np.array(LABELS))


def test_forbidden_merges_and_those_left_out_are_valid_json(samples):
    data = held(page_of(samples, [0, 0, 1, -1, -1], [0.1, 0.2, np.inf, np.inf]))
    assert data["heights"] == [0.1, 0.2, None, None]
    assert data["labels"] == [0, 0, 1, -1, -1]
    assert data["confidences"] is None


def test_one_tracklet_is_a_tree_without_merges(samples):
    data = held(tree_page("one", np.empty((0, 2)), [], samples[:1], [0]))
    assert (data["merges"], data["heights"], data["labels"]) == ([], [], [0])
    assert "1 tracklet<" in tree_page("one", [], [], samples[:1], [0])


def test_names_that_are_tags_stay_text(samples):
    evil = Sample((f"folder/{EVIL}",), 1)
    text = tree_page(EVIL, MERGES, HEIGHTS, [evil, *samples[1:]], LABELS)
    assert "<script>alert" not in text
    assert held(text)["paths"][0] == f"folder/{EVIL}"
    page = Page(text)
    assert len(page.all("script")) == 2
    assert EVIL in page.text


def test_samples_without_files_and_of_a_store_are_named(samples):
    stored = Sample(StoredFrames("/x/store", 3, 4), 1, 0)
    data = held(page_of([Sample((), 7, 1), stored, *samples[2:]]))
    assert data["paths"][:2] == ["pid 7, camera 1", "/x/store#3+4"]
    assert sorted(data["pictures"]) == ["2", "3", "4"]


def test_pictures_that_cannot_be_read_are_left_out(samples, tmp_path):
    def show(sample):
        raise FileNotFoundError("gone")

    (tmp_path / "t1.png").write_bytes(b"no picture")
    (tmp_path / "t2.png").unlink()
    assert sorted(held(page_of(samples))["pictures"]) == ["0", "3", "4"]
    assert len(held(page_of(samples, show=show))["pictures"]) == 3
    everything_gone = page_of([Sample((), i) for i in range(5)])
    assert held(everything_gone)["pictures"] == {}


def test_show_gives_red_green_and_blue(samples):
    red = np.zeros((20, 10, 3), np.uint8)
    red[..., 0] = 255
    uri = held(page_of(samples, show=lambda sample: red))["pictures"]["0"]
    data = np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8)
    blue, green, first = cv2.imdecode(data, cv2.IMREAD_COLOR)[10, 5]
    assert first > 240 and green < 15 and blue < 15


def test_of_every_identity_some_have_a_picture_when_not_all_may(samples):
    text = page_of(samples, most=3)
    assert sorted(held(text)["pictures"]) == ["0", "2", "4"]
    assert "Pictures of 3 of 5 tracklets are in this page." in Page(text).text
    assert held(page_of(samples, most=0))["pictures"] == {}


def test_the_pictures_told_are_those_that_are_there(samples, tmp_path, monkeypatch):
    (tmp_path / "t2.png").unlink()
    text = Page(page_of(samples, most=3)).text
    assert "1 of 3 pictures could not be read." in text
    assert "Pictures of 2 of 5 tracklets are in this page." in text
    monkeypatch.setattr("reidkit.report.tree_page.LARGEST", len(page_of(samples, most=0)) + 100)
    noise = np.random.default_rng(0).integers(0, 255, (128, 64, 3), dtype=np.uint8)
    text = page_of(samples, most=3, show=lambda sample: noise)
    assert held(text)["pictures"] == {}
    assert "3 pictures are too many for one page: it is without pictures." in Page(text).text
    assert "are in this page" not in Page(text).text and "map" not in Page(text).text


@pytest.mark.parametrize("most", [0, 3])
def test_a_tree_too_large_without_any_picture_is_told(samples, monkeypatch, most):
    monkeypatch.setattr("reidkit.report.tree_page.LARGEST", 10_000)

    def show(sample):
        raise AssertionError("read for nothing")

    text = page_of(samples, most=most, show=show)
    assert held(text)["pictures"] == {}
    assert "more than the 0.0 million a page should have: it is without" in Page(text).text
    assert "are in this page" not in Page(text).text


def test_the_title_of_the_window_is_the_title(samples):
    assert "<title>A tree</title>" in page_of(samples)


def test_pictures_are_made_smaller_until_the_page_fits(samples, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (128, 64, 3), dtype=np.uint8)
    large = page_of(samples, show=lambda sample: noise)
    assert len(large) < LARGEST
    bound = len(page_of(samples, most=0)) + 12_000
    monkeypatch.setattr("reidkit.report.tree_page.LARGEST", bound)
    small = page_of(samples, show=lambda sample: noise)
    assert len(held(small)["pictures"]) == 5
    assert len(small) < min(bound + 2000, len(large))


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"merges": MERGES[:3]}, r"3 merges and heights of shape \(4,\) for 5 samples"),
        ({"heights": HEIGHTS[:3]}, r"heights of shape \(3,\)"),
        ({"labels": LABELS[:4]}, r"labels \(4,\)"),
        ({"merges": [[0, 1], [0, 3], [5, 6], [4, 7]]}, "no tree: each node but the root is joined"),
        ({"merges": [[0, 6], [2, 3], [5, 1], [4, 7]]}, "no tree"),
        ({"heights": [0.1, 0.6, 0.2, 0.9]}, "heights fall or are not numbers"),
        ({"heights": [0.1, np.nan, 0.2, 0.9]}, "heights fall or are not numbers"),
        ({"labels": [0, 0, 1, 1, -2]}, "label -2: expected identities from 0, or -1"),
        ({"confidences": [0.5]}, r"confidences have shape \(1,\); expected \(5,\)"),
        ({"merges": [], "heights": [], "labels": [], "samples": []}, "with N at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(samples, changes, told):
    parts = {"merges": MERGES, "heights": HEIGHTS, "labels": LABELS, "samples": samples} | changes
    with pytest.raises(ValueError, match=told):
        tree_page("x", **parts)


# The script's own arithmetic, run by node.

needs_node = pytest.mark.skipif(NODE is None, reason="no node here to run the page's script")


def run_model(source, value):
    """What `source`, with the model and `value` in reach, gives back."""
    model = (files("reidkit.report") / "tree.model.js").read_text(encoding="utf-8")
    program = f"{model}\nconst value = JSON.parse(require('fs').readFileSync(0, 'utf8'));\n"
    program += f"console.log(JSON.stringify((() => {{ {source} }})()));"
    done = subprocess.run(
        [NODE, "-e", program], input=json.dumps(value), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def random_tree(count, seed, digits=8):
    points = np.random.default_rng(seed).random((count, 2)).round(digits)
    found = linkage(points, "average")
    return found, found[:, :2].astype(int).tolist(), found[:, 2].tolist()


def first_appearance(labels):
    number = {}
    return [number.setdefault(label, len(number)) for label in labels]


@needs_node
@pytest.mark.parametrize("count, digits", [(2, 8), (3, 8), (17, 8), (40, 1), (60, 1)])
def test_the_scripts_cut_is_scipys_at_every_height(count, digits):
    found, merges, heights = random_tree(count, seed=count, digits=digits)
    cuts = run_model(
        "const t = buildTree(value[0], value[1], value[2]);"
        "return t.steps.map((height, i) => [height, Array.from(cutAt(t, heightAt(t, i + 1))),"
        " positionOf(t, cutAt(t, height))]);",
        [merges, heights, count],
    )
    assert [height for height, _, _ in cuts] == sorted(set(heights))
    for place, (height, labels, position) in enumerate(cuts, 1):
        assert labels == first_appearance(fcluster(found, height, "distance").tolist())
        assert position == {"near": place, "exact": True}


@needs_node
def test_before_all_merges_every_tracklet_is_an_identity_and_forbidden_ones_never_happen():
    cuts = run_model(
        "const t = buildTree(value, [0.1, 0.2, null, null], 5);"
        "return [0, 1, 2].map((p) => Array.from(cutAt(t, heightAt(t, p)))).concat([t.steps]);",
        MERGES,
    )
    assert cuts == [[0, 1, 2, 3, 4], [0, 0, 1, 2, 3], [0, 0, 1, 1, 2], [0.1, 0.2]]


@needs_node
@pytest.mark.parametrize("seed", range(4))
def test_the_scripts_branches_are_the_highest_of_one_identity_each(seed):
    count = 30
    _, merges, heights = random_tree(count, seed)
    labels = np.random.default_rng(seed).integers(-1, 3, count).tolist()
    below = [{leaf} for leaf in range(count)]
    for a, b in merges:
        below.append(below[a] | below[b])
    pure = [node for node, leaves in enumerate(below) if len({labels[i] for i in leaves}) == 1]
    highest = [n for n in pure if not any(below[n] < below[other] for other in pure)]
    wanted = {}
    for node in highest:
        wanted.setdefault(labels[min(below[node])], set()).add(node)
    found = run_model(
        "const t = buildTree(value[0], value[1], value[2].length);"
        "return sortIdentities(t, identitiesOf(t, value[2]), 'size');",
        [merges, heights, labels],
    )
    assert {one["label"]: set(one["branches"]) for one in found} == wanted
    assert sorted(leaf for one in found for leaf in one["leaves"]) == list(range(count))
    assert all(labels[leaf] == one["label"] for one in found for leaf in one["leaves"])
    sizes = [len(one["leaves"]) for one in found if one["label"] >= 0]
    assert sizes == sorted(sizes, reverse=True) and found[-1]["label"] == -1


@needs_node
def test_undo_brings_every_state_back_and_one_way_of_the_slider_is_one_step():
    states = run_model(
        "const h = new History([0, 0, 1, -1], 2), seen = [];"
        "const note = () => seen.push([Array.from(h.labels), h.cut, h.corrections]);"
        "note(); h.recut([0, 1, 2, 3], 0); h.recut([0, 0, 0, 0], 3); note();"
        "h.correct([1, 2], 7); note(); h.correct([1, 2], 7); h.correct(new Set([3]), h.unused());"
        "note(); h.undo(); note(); h.correct([0], -1); h.discard(); note(); h.undo(); note();"
        "return [seen, h.undo()];",
        None,
    )
    start, cut = [[0, 0, 1, -1], 2, 0], [[0, 0, 0, 0], 3, 0]
    once, twice = [[0, 7, 7, 0], 3, 1], [[0, 7, 7, 8], 3, 2]
    assert states == [[start, cut, once, twice, once, cut, start], None]


@needs_node
def test_exported_rows_are_read_back_by_pythons_csv():
    paths = ["plain.jpg", 'a "quoted", name.jpg', "two\nlines.jpg", EVIL, "Straße é.jpg"]
    text = run_model("return toCsv(value, [0, 1, -1, 2, 3], [0, 1, 2, -1, 4]);", paths)
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[0] == ["path", "label", "camid"]
    assert [row[0] for row in rows[1:]] == paths
    assert [row[1:] for row in rows[1:3]] == [["0", "0"], ["1", "1"]]
    assert [row[1] for row in rows[1:]] == ["0", "1", "-1", "2", "3"]


# The page at work, in a browser that is driven through a pipe.

START = (
    "import fcntl, os, sys\n"
    "r, w = (fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3])\n"
    "os.dup2(r, 3); os.dup2(w, 4)\n"
    "os.execv(sys.argv[3], sys.argv[3:])"
)


class Browser:
    """Chromium without a window, spoken to over `--remote-debugging-pipe`."""

    def __init__(self, folder):
        theirs, self.out = os.pipe()
        self.inn, answers = os.pipe()
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-pipe",
            f"--user-data-dir={folder / 'profile'}",
            "about:blank",
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, str(theirs), str(answers), CHROMIUM, *flags],
            pass_fds=(theirs, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(answers)
        self.number, self.rest, self.events = 0, b"", []
        self.downloads = folder / "downloads"
        where = {"behavior": "allow", "downloadPath": str(self.downloads), "eventsEnabled": True}
        self.ask("Browser.setDownloadBehavior", where)

    def ask(self, method, params=None, session=None):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params or {}}
        if session:
            message["sessionId"] = session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        number = self.number
        answer = self.until(lambda one: one.get("id") == number)
        assert "error" not in answer, answer
        return answer["result"]

    def until(self, wanted, seconds=30):
        """The first message that is wanted; events on the way are kept."""
        end = time.monotonic() + seconds
        while True:
            while b"\0" in self.rest:
                line, self.rest = self.rest.split(b"\0", 1)
                message = json.loads(line)
                if "method" in message:
                    self.events.append(message)
                if wanted(message):
                    return message
            left = end - time.monotonic()
            ready, _, _ = select.select([self.inn], [], [], max(left, 0))
            assert ready, "the browser does not answer"
            data = os.read(self.inn, 1 << 16)
            assert data, "the browser has gone"
            self.rest += data

    def event(self, method, **params):
        """Wait for an event, which may have come before the answer to what caused it."""

        def is_it(one):
            own = one.get("params", {})
            return one.get("method") == method and all(own.get(k) == v for k, v in params.items())

        if not any(map(is_it, self.events)):
            self.until(is_it)

    def close(self):
        with contextlib.suppress(AssertionError, OSError):
            self.ask("Browser.close")
        os.close(self.out)
        os.close(self.inn)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Tab:
    """One page that is open in the browser."""

    def __init__(self, browser, path):
        self.browser = browser
        browser.events.clear()
        self.target = browser.ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        attach = {"targetId": self.target, "flatten": True}
        self.session = browser.ask("Target.attachToTarget", attach)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        self.ask("Page.navigate", {"url": path.as_uri()})
        browser.event("Page.loadEventFired")

    def ask(self, method, params=None):
        return self.browser.ask(method, params, self.session)

    def js(self, source):
        """The value of an expression in the page."""
        params = {"expression": source, "returnByValue": True}
        answer = self.ask("Runtime.evaluate", params)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def click(self, key):
        self.js(f"document.querySelector('[data-key=\"{key}\"], #{key}').click()")

    def press(self, key, code=0, text="", modifiers=0):
        words = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.ask("Input.dispatchKeyEvent", {"type": "keyDown", "text": text, **words})
        self.ask("Input.dispatchKeyEvent", {"type": "keyUp", **words})

    @property
    def identities(self):
        """Label -> number of tracklets, as the cards say, in their order."""
        source = "Array.from(list.children, (c) => [c.dataset.label, c.querySelector('.facts')"
        rows = self.js(f"{source}.textContent])")
        return {int(label): int(words.split()[0]) for label, words in rows}

    @property
    def leaves(self):
        return self.js(
            "Array.from(document.querySelectorAll('[data-leaf]'), (l) => +l.dataset.leaf)"
        )

    @property
    def complaints(self):
        bad = {"Runtime.exceptionThrown", "Log.entryAdded"}
        return [one for one in self.browser.events if one["method"] in bad]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no Chromium here to open the page in")
    made = Browser(tmp_path_factory.mktemp("browser"))
    yield made
    made.close()


@pytest.fixture
def opened(browser, samples, tmp_path):
    """Open the page of some labels in the browser; it must not have complained at the end."""
    tabs = []

    def opening(labels=LABELS, merges=MERGES, heights=HEIGHTS, own=samples, **options):
        path = tmp_path / "tree.html"
        path.write_text(tree_page("A tree", merges, heights, own, labels, **options))
        tabs.append(Tab(browser, path))
        return tabs[-1]

    yield opening
    for tab in tabs:
        assert tab.complaints == []
        browser.ask("Target.closeTarget", {"targetId": tab.target})


def test_the_page_opens_at_the_identities_the_largest_first(opened):
    tab = opened([5, 3, 3, 3, -1])
    assert tab.identities == {3: 3, 5: 1, -1: 1}
    assert list(tab.identities) == [3, 5, -1]
    assert tab.leaves == []
    assert tab.js("byId('summary').textContent") == "5 tracklets, 2 identities, 1 left out"
    assert tab.js("document.querySelectorAll('.thumbs img').length") == 5
    assert "labels as given" in tab.js("byId('height').textContent")


def test_branches_open_and_close_by_click_and_by_key(opened):
    tab = opened([0, 0, 0, 0, 1])
    for key in ("i0", "n5", "n6", "i1"):
        tab.click(key)
    assert sorted(tab.leaves) == [0, 1, 2, 3, 4]
    assert tab.js("document.querySelector('[data-key=n5]').getAttribute('aria-expanded')") == "true"
    facts = tab.js("document.querySelector('[data-node=\"6\"] .facts').textContent")
    assert facts == "height 0.2 · cameras 1, 2"
    tab.js("document.querySelector('[data-key=n5]').focus()")
    tab.press("ArrowLeft", 37)
    assert sorted(tab.leaves) == [2, 3, 4]
    assert tab.js("document.activeElement.dataset.key") == "n5"
    tab.press("Enter", 13, "\r")
    assert sorted(tab.leaves) == [0, 1, 2, 3, 4]
    tab.click("i0")
    assert tab.leaves == [4]


def test_open_all_shows_every_tracklet_once(opened):
    tab = opened([0, 1, 0, 1, -1])
    for label in (0, 1, -1):
        tab.click(f"o{label}")
    assert sorted(tab.leaves) == [0, 1, 2, 3, 4]


def test_the_slider_moves_the_cut_and_labels_come_back(opened):
    tab = opened()
    assert tab.js("byId('height').textContent") == "height 0.2"
    tab.js("slider.focus()")
    tab.press("ArrowRight", 39)
    assert tab.identities == {0: 4, 1: 1}
    assert tab.js("byId('height').textContent") == "height 0.6"
    tab.press("Home", 36)
    assert tab.identities == dict.fromkeys(range(5), 1)
    tab.press("End", 35)
    assert tab.identities == {0: 5}
    tab.click("undo")
    assert tab.identities == {0: 2, 1: 2, 2: 1}
    tab.press("End", 35)
    tab.click("given")
    assert tab.identities == {0: 2, 1: 2, 2: 1}


def test_tracklets_are_moved_split_off_merged_left_out_and_all_of_it_undone(opened):
    tab = opened([0, 0, 0, 0, 2])
    seen = [tab.identities]
    tab.click("o0")
    tab.click("l0")
    tab.js("target.value = 2; target.dispatchEvent(new Event('input'))")
    tab.click("move")
    assert tab.identities == {0: 3, 2: 2}
    assert tab.js("byId('said').textContent") == "Moved 1 tracklet to identity 2."
    assert tab.js("slider.disabled") is True
    seen.append(tab.identities)
    tab.click("x6")  # the branch of 2 and 3
    assert tab.identities == {2: 2, 3: 2, 0: 1}
    seen.append(tab.identities)
    tab.click("a2")
    tab.click("a3")
    tab.click("merge")
    assert tab.identities == {2: 4, 0: 1}
    seen.append(tab.identities)
    tab.click("a0")
    tab.click("drop")
    assert tab.identities == {2: 4, -1: 1}
    seen.append(tab.identities)
    tab.click("i-1")
    tab.click("l1")
    tab.click("make")
    assert tab.identities == {2: 4, 3: 1}
    while seen:
        tab.press("z", 90, modifiers=2)
        assert tab.identities == seen.pop()
    assert tab.js("[slider.disabled, byId('undo').disabled]") == [False, True]


def test_corrections_are_discarded_at_once_and_the_cut_is_free_again(opened):
    tab = opened()
    for label in (0, 1):
        tab.click(f"a{label}")
        tab.click("make")
    assert tab.identities == {3: 2, 4: 2, 2: 1}
    tab.click("discard")
    assert tab.identities == {0: 2, 1: 2, 2: 1}
    assert tab.js("slider.disabled") is False


def test_corrected_labels_are_downloaded_with_their_paths(opened, browser, samples):
    evil = Sample((f'/a "b", c/{EVIL}',), 3, 1)
    own = [evil, *samples[1:]]
    tab = opened([0, 0, 1, 1, -1], own=own)
    assert tab.js("dispatchEvent(new Event('beforeunload', { cancelable: true }))") is True
    tab.click("a1")
    tab.click("make")
    assert tab.js("dispatchEvent(new Event('beforeunload', { cancelable: true }))") is False
    tab.click("export")
    browser.event("Browser.downloadProgress", state="completed")
    with (browser.downloads / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [sample.frames[0] for sample in own]
    assert [int(row["label"]) for row in rows] == [0, 0, 2, 2, -1]
    assert [int(row["camid"]) for row in rows] == [sample.camid for sample in own]
    assert tab.js("dispatchEvent(new Event('beforeunload', { cancelable: true }))") is True


def test_a_name_that_is_a_tag_is_shown_as_text_and_does_not_run(opened, samples):
    own = [Sample((EVIL,), 3, 1), *samples[1:]]
    tab = opened(own=own)
    tab.click("o0")
    words = tab.js("document.querySelector('[data-leaf=\"0\"] .name').textContent")
    assert words == held(page_of(own))["names"][0]
    assert tab.js("document.scripts.length") == 2


def test_identities_are_found_by_number_and_by_name(opened):
    tab = opened()
    for words, wanted in (
        ("1", {1: 2}),
        ("T4.png", {2: 1}),
        ("nothing", {}),
        ("", {0: 2, 1: 2, 2: 1}),
    ):
        tab.js(f"byId('find').value = '{words}'; byId('find').dispatchEvent(new Event('input'))")
        assert tab.identities == wanted


def test_a_tree_of_one_a_forbidden_one_and_one_of_nobody_open_too(opened, samples):
    one = opened([0], [], [], samples[:1])
    assert one.identities == {0: 1}
    assert one.js("slider.disabled") is True
    forbidden = opened(heights=[0.1, 0.2, np.inf, np.inf])
    forbidden.js("slider.focus()")
    forbidden.press("End", 35)
    assert forbidden.identities == {0: 2, 1: 2, 2: 1}
    whole = opened([0] * 5, heights=[0.1, 0.2, np.inf, np.inf])
    whole.click("i0")
    assert "height forbidden" in whole.js("list.textContent")
    nobody = opened([-1] * 5)
    assert nobody.identities == {-1: 5}


def test_many_identities_are_shown_a_page_at_a_time(opened):
    count = 90
    _, merges, heights = random_tree(count, seed=1)
    tab = opened(list(range(count)), merges, heights, [Sample((), i) for i in range(count)])
    assert len(tab.identities) == 40
    assert tab.js("byId('more').textContent") == "Show 40 more of 50"
    tab.click("more")
    tab.click("more")
    assert len(tab.identities) == count
    assert tab.js("byId('more').hidden") is True
