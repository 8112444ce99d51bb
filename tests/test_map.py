"""`reidkit map`: which samples, where they lie, what the page holds, and what it refuses."""

import base64
import hashlib
import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from reidkit import models
from reidkit.compose import layout, mapping
from reidkit.report import map_page
from reidkit.report.map_page import MapPage, in_script, render_map, thumbnails, write_map
from reidkit.report.map_picture import draw_map
from reidkit.types import Features, Preprocessing, Sample
from tests.test_report import Page

MODEL = {
    "name": "reid",
    "backbone": {"name": "resnet", "depth": 18, "width": 0.125, "pretrained": False},
}
EVIL = "<img src=x onerror=alert(1)>.png"


@pytest.fixture
def call(call):
    """`reidkit map` with these words."""
    return lambda *words: call("map", *words)


def vectors_of(count=24, dim=6, identities=4, seed=0, noise=0.4):
    random = np.random.default_rng(seed)
    centres = random.standard_normal((identities, dim))
    pids = np.arange(count) % identities
    return centres[pids] + noise * random.standard_normal((count, dim)), pids


def make_features(folder, pictures=True, **changes):
    """Features of 24 pictures, one of them with a name that wants to be a tag."""
    vectors, pids = vectors_of(**changes)
    samples = []
    for number, pid in enumerate(pids.tolist()):
        path = folder / (EVIL if number == 5 else f"{number}.png")
        if pictures:
            done, data = cv2.imencode(".png", np.full((60, 30, 3), 40 * pid, np.uint8))
            assert done
            path.write_bytes(data.tobytes())
        samples.append(Sample((str(path),), pid, number % 3))
    return Features(torch.from_numpy(vectors).float(), tuple(samples))


@pytest.fixture
def file(tmp_path):
    """A feature file with pictures beside it."""
    make_features(tmp_path).save(tmp_path / "people.npz")
    return tmp_path / "people.npz"


def page_of(features, **changes):
    coordinates = features.vectors[:, :2].double().numpy()
    facts = {
        "title": "quickstart", "lead": "24 samples", "samples": features.samples,
        "coordinates": coordinates, "method": ["PCA."], "shares": (0.5, 0.25), "counted": 24,
    }  # fmt: skip
    return MapPage(**(facts | changes))


def held(text):
    """What the page's script reads."""
    (found,) = re.findall(r'<script type="application/json" id="points">(.*?)</script>', text)
    return json.loads(found)


# Coordinates


@pytest.mark.parametrize("method", layout.METHODS)
def test_one_seed_gives_one_map(method):
    vectors, _ = vectors_of(40)
    one, same, other = (
        layout.lay_out(vectors, method, perplexity=5, seed=seed).coordinates for seed in (0, 0, 1)
    )
    assert np.array_equal(one, same)
    assert one.shape == (40, 2) and np.isfinite(one).all()
    assert np.array_equal(one, other) == (method == "pca")


def test_open_tsne_is_used_where_it_is_installed_and_repeats_too():
    pytest.importorskip("openTSNE")
    vectors, _ = vectors_of(40)
    one, same = (layout.lay_out(vectors, "tsne", perplexity=5) for _ in range(2))
    assert one.made_by.startswith("openTSNE")
    assert np.array_equal(one.coordinates, same.coordinates)


def test_scikit_learn_draws_where_open_tsne_is_absent(monkeypatch):
    monkeypatch.setattr(layout.importlib.util, "find_spec", lambda name: None)
    found = layout.lay_out(vectors_of(40)[0], "tsne", perplexity=5)
    assert found.made_by.startswith("scikit-learn")


@pytest.mark.parametrize("dim", [1, 2, 6, 60])
def test_pca_is_the_singular_value_decomposition_up_to_sign(dim):
    vectors, _ = vectors_of(24, dim)
    found = layout.lay_out(vectors, "pca")
    left, values, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    wanted, shares = left * values, values**2 / (values**2).sum()
    wanted = np.pad(wanted, ((0, 0), (0, 1)))[:, :2]
    np.testing.assert_allclose(np.abs(found.coordinates), np.abs(wanted), atol=1e-9)
    np.testing.assert_allclose(found.variance, np.pad(shares, (0, 1))[:2], atol=1e-12)


def test_an_axis_of_a_pca_does_not_flip():
    coordinates = layout.lay_out(vectors_of()[0], "pca").coordinates
    assert (coordinates[np.abs(coordinates).argmax(0), [0, 1]] > 0).all()


@pytest.mark.parametrize("count", [3, 4, 10])
def test_few_samples_bring_the_perplexity_down_and_say_so(count):
    found = layout.lay_out(vectors_of(count, identities=2)[0], "tsne", perplexity=30)
    assert found.perplexity == max(1, (count - 1) / 3)
    assert re.search(r"Perplexity [\d.]+ in place of 30", *found.notes)
    assert np.isfinite(found.coordinates).all()


def test_vectors_on_one_line_and_copies_are_drawn():
    line = np.outer(np.arange(12) // 2, np.ones(5))
    assert np.isfinite(layout.lay_out(line, "tsne", perplexity=2).coordinates).all()
    assert layout.lay_out(line, "pca").variance == pytest.approx((1, 0))


@pytest.mark.parametrize(
    "words, told",
    [
        ({"method": "umap"}, r"unknown method 'umap'; known: tsne, pca"),
        ({"method": "tsne", "perplexity": 0.5}, r"perplexity 0\.5: expected .* at least 1"),
        ({"method": "tsne", "perplexity": float("nan")}, r"perplexity nan"),
    ],
)
def test_a_layout_refuses(words, told):
    with pytest.raises(ValueError, match=told):
        layout.lay_out(vectors_of()[0], **words)


def test_cosine_features_are_brought_to_unit_length_and_euclidean_ones_are_not():
    features = Features.from_arrays(3 * vectors_of()[0], vectors_of()[1])
    lengths = np.linalg.norm(layout.unit(features, "cosine"), axis=1)
    np.testing.assert_allclose(lengths, 1)
    np.testing.assert_allclose(layout.unit(features, "euclidean"), features.vectors)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_feature_that_is_not_finite_is_named(value, tmp_path):
    features = make_features(tmp_path)
    features.vectors[7, 2] = value
    with pytest.raises(ValueError, match=r"1 of 24 features are not finite.*7\.png"):
        layout.unit(features, "cosine")


def test_collapsed_features_are_nothing_to_map():
    with pytest.raises(ValueError, match=r"all 9 features are the same.*collapsed"):
        layout.unit(Features.from_arrays(np.ones((9, 4)), np.arange(9)), "cosine")


# Neighbours


def slow_share(vectors, identities, metric):
    """The share of samples nearer to one of their identity than to any other, by a double loop."""
    if metric == "cosine":
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    right = counted = 0
    for i, one in enumerate(vectors):
        same, others = [], []
        for j, other in enumerate(vectors):
            if i != j:
                side = same if identities[i] == identities[j] else others
                side.append(((one - other) ** 2).sum())
        if same:
            counted += 1
            right += min(same) < min(others, default=np.inf)
    return right / counted, counted


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("seed", range(3))
def test_first_neighbours_equal_the_double_loop(metric, seed):
    vectors, pids = vectors_of(30, seed=seed, noise=1.0)
    pids[0] = 9  # alone: not counted, and a wrong neighbour of others
    vectors[4], vectors[7] = vectors[9], vectors[3]  # ties: across identities, and within one
    found = layout.first_neighbours(torch.from_numpy(vectors), pids, metric)
    assert found == pytest.approx(slow_share(vectors, pids, metric))
    assert found[1] == 29


def test_nobody_who_is_there_twice_is_nothing_to_say():
    vectors, _ = vectors_of(8)
    assert layout.first_neighbours(torch.from_numpy(vectors), np.arange(8), "cosine") is None


# Choice


def sizes(counts, nobody=0):
    return [
        Sample((), pid) for pid, count in enumerate(counts) for _ in range(count)
    ] + [Sample((), -1)] * nobody  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_a_limit_leaves_identities_whole(seed):
    samples = sizes([5, 3, 8, 1, 4, 6, 2] * 3)
    chosen = mapping.choose(samples, 40, seed)
    assert chosen == sorted(set(chosen)) and 30 < len(chosen) <= 40
    pids = [samples[place].pid for place in chosen]
    everyone = [sample.pid for sample in samples]
    assert all(pids.count(pid) == everyone.count(pid) for pid in set(pids))
    assert chosen == mapping.choose(samples, 40, seed)
    assert chosen != mapping.choose(samples, 40, seed + 100)


def test_all_are_shown_where_all_fit_and_a_number_of_two_domains_is_two_identities():
    samples = sizes([2, 2], nobody=1)
    assert mapping.choose(samples, 5, 0) == [0, 1, 2, 3, 4]
    both = [Sample((), 1, domain=name) for name in ("a", "b", "a")] + sizes([], nobody=2)
    assert mapping.identities_of(both).tolist() == [0, 1, 0, 2, 3]


@pytest.mark.parametrize(
    "counts, limit, told",
    [([1, 1], 10, "at least 3 samples; there are 2"), ([9, 8], 7, "the smallest has 8")],
)
def test_too_few_samples_are_refused(counts, limit, told):
    with pytest.raises(ValueError, match=told):
        mapping.choose(sizes(counts), limit, 0)


def test_distractors_are_nobody_unless_a_query_asks_for_pid_0():
    gallery = sizes([2, 1])
    found, count = mapping.without_names(gallery, sizes([0, 1]))
    assert ([sample.pid for sample in found], count) == ([-1, -1, 1], 2)
    assert mapping.without_names(gallery, sizes([1])) == (tuple(gallery), 0)


# The page


def test_the_page_is_whole_asks_for_nothing_and_runs_only_its_own_script(tmp_path):
    text, remarks = render_map(page_of(make_features(tmp_path)))
    page = Page(text)
    assert remarks == []
    assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttp|WebSocket|\.src\s*=", text, re.I)
    assert [tag for tag, attributes in page.tags if "src" in attributes] == []
    policy = page.all("meta")[1]["content"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for part, opening in (("script", "<script>"), ("style", "<style>")):
        body = text.split(opening)[1].split(f"</{part}>")[0]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{part}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert "50.0%" in page.text and "25.0%" in page.text


def test_a_file_name_that_is_a_tag_stays_text(tmp_path):
    features = make_features(tmp_path)
    text, _ = render_map(page_of(features, title=EVIL, lead=EVIL, notes=[EVIL]))
    assert "<img src=x" not in text
    assert "onerror" not in "".join(key for _, attributes in Page(text).tags for key in attributes)
    assert held(text)["names"][5] == EVIL
    assert len(held(text)["pictures"][5]) > 100


@pytest.mark.parametrize(
    "name",
    ["</script><script>alert(1)</script>", "<!--<script>", "]]>&amp;", "\u2028\u2029", "caf\udce9"],
)
def test_no_name_breaks_out_of_the_data(tmp_path, name):
    sample = Sample((name,), 1)
    assert not re.search(r"[<>&\u2028\u2029]", in_script([name]))
    assert json.loads(in_script([name])) == [name]
    page = page_of(make_features(tmp_path))
    text, _ = render_map(replace(page, samples=(sample, *page.samples[1:])))
    assert text.count("<script") == text.count("</script>") == 2
    assert held(text)["names"][0] == name.split("/")[-1]
    write_map(tmp_path / "map.html", replace(page, samples=(sample, *page.samples[1:])))


def test_the_data_say_where_every_point_lies_and_whose_it_is(tmp_path):
    features = make_features(tmp_path)
    samples = [replace(sample, camid=sample.camid - 1) for sample in features.samples]
    samples = [replace(s, pid=-1 if s.pid == 3 else 10 * s.pid + 10) for s in samples]
    page = page_of(features, samples=samples)
    data = held(render_map(page, pictures=False)[0])
    placed = np.stack([data["x"], data["y"]], 1)
    spans = np.ptp(page.coordinates, axis=0)
    np.testing.assert_allclose(np.ptp(placed, axis=0), spans / spans.max(), atol=2e-5)
    assert np.abs(placed).max() == 0.5
    identity, camera = data["groupings"]
    assert (identity["name"], identity["labels"]) == ("identity", ["10", "20", "30"])
    assert identity["of"][:4] == [0, 1, 2, -1]
    assert camera["labels"] == ["1", "2"] and camera["of"][:3] == [-1, 0, 1]
    assert data["pictures"] == []


def test_domain_condition_and_view_are_offered_where_they_differ():
    samples = [
        Sample((), 1, domain="a", condition="nm", view="090"),
        Sample((), 1, domain="b", condition="bg", view="090"),
        Sample((), 2, domain="b", condition="", view="090"),
    ]
    found = {one.name: one for one in map_page.groupings(samples)}
    assert list(found) == ["identity", "camera", "domain", "condition"]
    assert found["identity"].labels == ("1 (a)", "1 (b)", "2 (b)")
    assert found["condition"].of == (1, 0, -1)


def test_coordinates_that_do_not_fit_the_samples_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(23, 2\) for 24 samples"):
        page_of(make_features(tmp_path), coordinates=np.zeros((23, 2)))


def decoded(uri):
    data = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def noisy(sample):
    return np.random.default_rng(sample.pid).integers(0, 255, (400, 100, 3), dtype=np.uint8)


def test_thumbnails_are_at_most_96_high_and_shrink_to_fit_the_budget():
    samples = sizes([2, 2])
    large, remarks = thumbnails(samples, noisy)
    assert [decoded(uri).shape for uri in large] == [(96, 24, 3)] * 4 and remarks == []
    budget = sum(map(len, large)) * 3 // 4
    small, _ = thumbnails(samples, noisy, budget)
    assert sum(map(len, small)) <= budget and decoded(small[0]).shape[0] < 96
    assert thumbnails(samples, noisy, 100) == (
        [], ["4 pictures are too many for one page: it is without pictures."]
    )  # fmt: skip


def test_pictures_that_cannot_be_read_are_told():
    samples = [Sample(("nowhere.png",), 1), *sizes([1, 1])]
    assert thumbnails(samples)[1] == ["No picture could be read: the page is without pictures."]
    some, remarks = thumbnails(samples, lambda sample: None if sample.pid else noisy(sample))
    assert [bool(uri) for uri in some] == [False, True, False]
    assert remarks == ["2 of 3 pictures could not be read."]


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    page = page_of(make_features(tmp_path))
    (tmp_path / "map.html").write_text("old")

    def refuse(*names):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reidkit.files.os.replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_map(tmp_path / "map.html", page)
    assert (tmp_path / "map.html").read_text() == "old"
    assert not list(tmp_path.glob(".map*"))


def test_a_png_has_a_panel_for_identities_and_one_for_several_cameras(tmp_path):
    features = make_features(tmp_path)
    draw_map(tmp_path / "two.png", page_of(features, title="a $x^ formula"))
    alone = tuple(replace(sample, camid=0) for sample in features.samples)
    draw_map(tmp_path / "one.png", page_of(replace(features, samples=alone), shares=None))
    two, one = (cv2.imread(str(tmp_path / f"{name}.png")) for name in ("two", "one"))
    assert two.shape[1] == 2 * one.shape[1]


# The command


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_a_feature_file_becomes_a_page_and_a_png(call, file, method):
    code, out, error = call(file, "--method", method, "--png", "--json")
    assert code == 0, error
    told = json.loads(out)
    page = file.with_name("people-map.html")
    assert told["out"] == str(page) and told["png"] == str(page.with_suffix(".png"))
    assert (told["samples"], told["identities"], told["method"]) == (24, 4, method)
    assert cv2.imread(told["png"]) is not None
    vectors, pids = vectors_of()
    wanted = slow_share(vectors, pids, "cosine")
    assert (told["first_neighbour"]["full"], told["first_neighbour"]["samples"]) == wanted
    placed = np.stack([held(page.read_text())[axis] for axis in "xy"], 1)
    flat = slow_share(placed, pids, "euclidean")[0]
    assert told["first_neighbour"]["map"] == pytest.approx(flat, abs=0.05)
    assert len([uri for uri in held(page.read_text())["pictures"] if uri]) == 24


def test_a_person_is_told_the_shares_what_is_left_out_and_where_the_page_is(call, file, tmp_path):
    code, out, error = call(file, "--limit", 13, "--out", tmp_path / "some.html")
    assert code == 0, error
    assert "people: 12 samples of 2 identities · t-SNE" in out
    assert re.search(r"same identity: \d+\.\d % in the full space, \d+\.\d % in the map", out)
    assert "12 of 24 samples are shown: all those of 2 out of 4 identities" in out
    assert "Perplexity 3.67 in place of 30" in out
    assert f"map: {tmp_path / 'some.html'}" in out
    assert "12 of 24 samples" in Page((tmp_path / "some.html").read_text()).text


def test_under_torchrun_it_refuses(call, file, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    code, _, error = call(file)
    assert code == 2 and "without torchrun" in error


def test_features_without_pictures_are_a_map_without_pictures(call, tmp_path):
    make_features(tmp_path, pictures=False).save(tmp_path / "bare.npz")
    code, out, error = call(tmp_path / "bare.npz", "--method", "pca")
    assert code == 0, error
    assert "No picture could be read: the page is without pictures." in out
    code, out, error = call(tmp_path / "bare.npz", "--method", "pca", "--no-thumbnails")
    assert code == 0 and "No picture" not in out, error
    assert held((tmp_path / "bare-map.html").read_text())["pictures"] == []


def test_features_of_unknown_people_are_drawn_without_shares(call, tmp_path):
    features = make_features(tmp_path, pictures=False)
    unknown = tuple(replace(sample, pid=-1, camid=-1) for sample in features.samples)
    replace(features, samples=unknown).save(tmp_path / "unknown.npz")
    code, out, error = call(tmp_path / "unknown.npz", "--method", "pca", "--png", "--json")
    assert code == 0, error
    assert json.loads(out)["first_neighbour"] == {"full": None, "map": None, "samples": 0}
    assert "No identity is here more than once" in (tmp_path / "unknown-map.html").read_text()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with an untrained model that was tested on a small manifest."""
    folder = tmp_path_factory.mktemp("runs")
    pixels = Preprocessing(size=(32, 16))
    for seed, name in enumerate(("mine", "other")):
        torch.manual_seed(seed)
        model = models.build_model(MODEL, num_classes=None, size=pixels.size, preprocessing=pixels)
        models.save_model(folder / name, model, MODEL, num_classes=None)
    random = np.random.default_rng(0)
    lines = ["path,pid,camid,split"]
    for pid in range(5):
        for split in ("gallery", "query") if pid else ("gallery",):
            for camid in range(2):
                path = folder / f"{pid}_{camid}_{split}.png"
                image = random.normal(40 * pid, 20, (32, 16, 3)).clip(0, 255).astype(np.uint8)
                cv2.imwrite(str(path), image)
                lines.append(f"{path.name},{pid},{camid},{split}")
    (folder / "people.csv").write_text("\n".join(lines) + "\n")
    return folder / "mine"


def test_a_run_is_mapped_by_its_gallery_with_distractors_as_nobody(call, run):
    where = ["--benchmark", "manifest", "--root", run.parent / "people.csv"]
    code, out, error = call(run, *where, "--json")
    assert code == 0, error
    told = json.loads(out)
    assert told["out"] == str(run / "map.html")
    assert (told["samples"], told["identities"]) == (10, 4)
    assert told["first_neighbour"]["samples"] == 8
    assert "2 distractors (pid 0)" in told["notes"][0]
    data = held((run / "map.html").read_text())
    assert data["names"][:2] == ["0_0_gallery.png", "0_1_gallery.png"]
    assert data["groupings"][0]["of"][:3] == [-1, -1, 0]
    code, out, error = call(run, *where, "--split", "query", "--json")
    assert code == 0, error
    assert json.loads(out)["samples"] == 8


def test_a_run_draws_features_that_its_own_model_extracted_and_no_others(call, run, tmp_path):
    from reidkit.compose.inference import weights_hash

    features = make_features(tmp_path)
    own = replace(features, model=weights_hash(models.load_model(run)))
    own.save(tmp_path / "own.npz")
    page = tmp_path / "map.html"
    code, out, error = call(run, "--features", tmp_path / "own.npz", "--out", page)
    assert code == 0, error
    assert "mine, own: 24 samples" in out
    code, _, error = call(run.parent / "other", "--features", tmp_path / "own.npz", "--out", page)
    assert code == 1
    assert re.search(r"own\.npz holds features of another model than", error)


@pytest.mark.parametrize(
    "words, told",
    [
        (["--method", "umap"], "--method umap: expected one of tsne, pca"),
        (["--metric", "dot"], "--metric dot: expected one of cosine, euclidean"),
        (["--perplexity", "0"], "--perplexity 0: expected"),
        (["--perplexity", "nan"], "--perplexity nan: expected"),
        (["--limit", "2"], "--limit 2: a map needs at least 3"),
        (["--seed", "-1"], "--seed -1: expected"),
        (["--out", "map.png"], "--out map.png: the file's name ends in .html"),
        (["--split", "query"], "--split is for a run"),
        (["--benchmark", "mars"], "--benchmark is for a run"),
        (["--features", "f.npz"], "--features is for a run"),
    ],
)
def test_a_call_that_means_nothing_is_refused_in_one_line(call, file, words, told):
    code, out, error = call(file, *words)
    assert (code, out) == (2, "")
    assert told in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "words, told",
    [
        (["--metric", "cosine"], "--metric is for a feature file"),
        (["--split", "test"], "--split test: expected one of query, gallery, train"),
        (["--features", "f.npz", "--split", "query"], "--split and --features"),
    ],
)
def test_a_run_refuses_what_belongs_to_files(call, run, words, told):
    code, _, error = call(run, *words)
    assert code == 2 and told in error


def test_work_that_fails_says_why_in_one_line(call, tmp_path):
    few, bad = tmp_path / "few.npz", tmp_path / "bad.npz"
    features = make_features(tmp_path, pictures=False)
    features.vectors[3, 0] = float("nan")
    features.save(bad)
    make_features(tmp_path, count=2, pictures=False).save(few)
    for path, told in (
        (few, "at least 3 samples; there are 2"),
        (bad, "not finite"),
        (tmp_path / "none.npz", "no feature file"),
        (tmp_path / "nowhere", "nowhere"),
    ):
        code, _, error = call(path)
        assert code == 1 and told in error and error.count("\n") == 1, error
    assert not list(tmp_path.glob("*.html"))
