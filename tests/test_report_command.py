"""`reidkit evaluate` with a report, a comparison and `scores.json`, and what the page is told."""

import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from reidkit import models
from reidkit.compose import reporting
from reidkit.evaluation import PROTOCOLS, evaluate, find_hits, nearest
from reidkit.evaluation.metrics import average_precision, recall_at
from reidkit.types import EvalProtocol, Features, Preprocessing, Sample, Scores

MODEL = {
    "name": "reid",
    "backbone": {"name": "resnet", "depth": 18, "width": 0.125, "pretrained": False},
}


@pytest.fixture
def call(call):
    """`reidkit evaluate` with these words."""
    return lambda *words: call("evaluate", *words)


def make_sides(folder, noise=0.8, seed=0, identities=6, distractors=4):
    """Query and gallery features, with a small picture for each."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(100).standard_normal((identities + 1, 8))
    sides = []
    for side, cameras in (("query", (0,)), ("gallery", (0, 1, 2))):
        pids = [pid for pid in range(1, identities + 1) for _ in cameras]
        camids = list(cameras) * identities
        if side == "gallery":
            pids, camids = pids + [0] * distractors, camids + [1] * distractors
        vectors = centres[pids] + noise * random.standard_normal((len(pids), 8))
        samples = []
        for number, (pid, camid) in enumerate(zip(pids, camids, strict=True)):
            path = folder / f"{side}_{pid}_{number}.png"
            if not path.exists():
                cv2.imwrite(str(path), np.full((40, 20, 3), 30 * pid + camid, np.uint8))
            samples.append(Sample((str(path),), pid, camid))
        sides.append(Features(torch.from_numpy(vectors.astype(np.float32)), tuple(samples)))
    return sides


@pytest.fixture
def files(tmp_path):
    """Feature files of two models on the same pictures: q.npz, g.npz and old-q.npz, old-g.npz."""
    for prefix, noise in (("", 0.8), ("old-", 1.6)):
        for name, side in zip("qg", make_sides(tmp_path, noise), strict=True):
            side.save(tmp_path / f"{prefix}{name}.npz")
    return tmp_path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two folders with untrained models, and a manifest of pictures that they are scored on."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("new", "old")):
        torch.manual_seed(seed)
        pixels = Preprocessing(size=(32, 16))
        model = models.build_model(MODEL, num_classes=None, size=pixels.size, preprocessing=pixels)
        models.save_model(folder / name, model, MODEL, num_classes=None)
    random = np.random.default_rng(0)
    lines = ["path,pid,camid,split"]
    for pid in range(1, 5):
        for camid in range(2):
            for split in ("query", "gallery"):
                path = folder / f"{pid}_{camid}_{split}.png"
                image = random.normal(40 * pid, 20, (32, 16, 3)).clip(0, 255).astype(np.uint8)
                cv2.imwrite(str(path), image)
                lines.append(f"{path.name},{pid},{camid},{split}")
    (folder / "people.csv").write_text("\n".join(lines) + "\n")
    return folder


def sections(path):
    return re.findall(r'<section id="(\w+)">', path.read_text(encoding="utf-8"))


def test_features_give_a_page_with_everything_but_a_comparison(call, files):
    page = files / "report.html"
    code, out, error = call(
        "--query", files / "q.npz", "--gallery", files / "g.npz", "--report", page
    )
    assert code == 0, error
    assert f"report: {page}" in out
    assert sections(page) == ["scores", "curves", "worst", "cameras", "labels"]
    text = page.read_text(encoding="utf-8")
    assert "<h1>q</h1>" in text
    assert "its own identity in its own camera" in text
    assert text.count("data:image/jpeg") > 6 * 10
    assert not list(files.glob("scores.json"))


def test_two_sets_of_features_are_compared_query_by_query(call, files):
    page = files / "report.html"
    words = ["--query", files / "q.npz", "--gallery", files / "g.npz", "--report", page]
    others = ["--compare-query", files / "old-q.npz", "--compare-gallery", files / "old-g.npz"]
    code, _, error = call(*words, *others)
    assert code == 0, error
    assert sections(page)[-1] == "changes"
    assert "From <b>old-q</b> to <b>q</b>" in page.read_text(encoding="utf-8")


def test_a_run_gives_a_page_and_its_scores(call, runs):
    page = runs / "report.html"
    where = ["--benchmark", "manifest", "--root", runs / "people.csv"]
    code, out, error = call(
        runs / "new", *where, "--report", page, "--compare", runs / "old", "--json"
    )
    assert code == 0, error
    assert sections(page)[-1] == "changes"
    assert "<h1>new</h1>" in page.read_text(encoding="utf-8")
    (name,) = printed = json.loads(out)
    stored = json.loads((runs / "new" / "scores.json").read_text())
    assert stored[name] == {"trained": printed[name]}
    # Another protocol's scores stand beside the benchmark's own.
    code, _, error = call(runs / "new", *where, "--protocol", "no_camera")
    assert code == 0, error
    assert set(json.loads((runs / "new" / "scores.json").read_text())) == {
        name,
        f"{name} by no_camera",
    }


FILES = ["--query", "q", "--gallery", "g"]
PAGE = ["--report", "r.html"]


@pytest.mark.parametrize(
    "words, told",
    [
        (["RUN", "--compare", "OTHER"], "--report"),
        (["RUN", "--compare-query", "a", "--compare-gallery", "b", *PAGE], "--query"),
        ([*FILES, "--compare", "OTHER", *PAGE], "RUN"),
        ([*FILES, "--compare-query", "a", *PAGE], "together"),
        (["RUN", "--report", "report.pdf"], r"ends in \.html"),
        (["RUN", "--out", "scores.txt"], r"ends in \.json"),
    ],
)
def test_calls_that_mean_nothing_are_refused_before_anything_is_read(call, words, told):
    code, out, error = call(*words)
    assert (code, out) == (2, "")
    assert re.search(told, error)


def test_scores_are_merged_by_benchmark_and_row(tmp_path):
    path = tmp_path / "scores.json"
    before = {"sop": {"trained": {"scores": {"R@1": 0.5}}}, "market": {"pixels": {}, "trained": {}}}
    path.write_text(json.dumps(before))
    reporting.write_scores(path, {"market": Scores({"mAP": 0.25}, queries=4)}, "trained")
    after = json.loads(path.read_text())
    assert after["sop"] == before["sop"]
    assert after["market"]["pixels"] == {}
    assert after["market"]["trained"]["scores"] == {"mAP": 0.25}
    assert Scores.from_dict(after["market"]["trained"]).queries == 4


@pytest.mark.parametrize("content", ["no json", "[1]", '{"market": 3}'])
def test_a_file_that_holds_something_else_is_not_overwritten(tmp_path, content):
    path = tmp_path / "scores.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"is no scores\.json .* move it away"):
        reporting.write_scores(path, {"market": Scores({})}, "trained")
    assert path.read_text() == content


def evaluated(query, gallery, protocol="market1501", run="new", metric="cosine"):
    rules = PROTOCOLS[protocol] if isinstance(protocol, str) else protocol
    scores = evaluate(query, gallery, rules, metric=metric)
    return reporting.Evaluated(run, "people", query, gallery, rules, scores, metric)


def test_the_worst_queries_come_first_with_what_evaluation_says_of_them(tmp_path):
    query, gallery = make_sides(tmp_path, noise=1.5)
    found = reporting.gather(evaluated(query, gallery), date="2031-05-06", count=4)
    rules = PROTOCOLS["market1501"]
    hits = find_hits(query, gallery, rules)
    precision = average_precision(hits)
    assert [row.average_precision for row in found.worst] == precision.sort().values[:4].tolist()
    indices, distances = nearest(query, gallery, rules, 10)
    everyone = nearest(query, gallery, rules, len(gallery))[0]
    for row in found.worst:
        q = query.samples.index(row.query)
        assert [match.sample for match in row.matches] == [gallery.samples[i] for i in indices[q]]
        assert [m.distance for m in row.matches] == pytest.approx(distances[q].tolist())
        assert [m.right for m in row.matches] == [
            m.sample.pid == row.query.pid for m in row.matches
        ]
        order = [gallery.samples[i] for i in everyone[q].tolist() if i >= 0]
        right = [place for place, sample in enumerate(order) if sample.pid == row.query.pid]
        assert row.first.sample == order[right[0]]
        assert (row.first_rank, row.right_answers) == (right[0] + 1, len(right))
        assert row.candidates == len(order)
    assert found.scores[0].name == "mAP"
    assert [score.value for score in found.scores] == list(evaluate(query, gallery, rules).values())


def test_every_curve_and_camera_pair_is_there(tmp_path):
    query, gallery = make_sides(tmp_path, noise=1.5)
    one = evaluated(query, gallery)
    found = reporting.gather(one, before=evaluated(*make_sides(tmp_path, seed=1), run="old"))
    assert [curve.name for curve in found.cmc] == ["new", "old"]
    assert found.cmc[0].y == pytest.approx(one.scores.cmc.tolist())
    assert [curve.name for curve in found.roc] == ["new", "old"]
    # Queries of camera 1; its own camera is left out.
    assert {(p.query_camera, p.gallery_camera) for p in found.pairs} == {
        ("camera 1", "camera 2"),
        ("camera 1", "camera 3"),
    }
    assert found.pairs[0].scores["mAP"] <= found.pairs[1].scores["mAP"]


def test_differences_are_those_of_the_scores_and_pairs_are_counted_by_hand(tmp_path):
    new, old = (
        evaluated(*make_sides(tmp_path, 1.0)),
        evaluated(*make_sides(tmp_path, 2.0), run="old"),
    )
    found = reporting.gather(new, before=old).comparison
    assert (found.before, found.after) == ("old", "new")
    for difference in found.differences:
        assert difference.before == pytest.approx(old.scores[difference.name])
        assert difference.after == pytest.approx(new.scores[difference.name])
        low, high = difference.interval
        assert low <= difference.change <= high
    hits = [find_hits(one.query, one.gallery, one.protocol) for one in (old, new)]
    for movement, values in zip(
        found.movements, (average_precision, lambda h: recall_at(h, 1)), strict=True
    ):
        a, b = (values(h).tolist() for h in hits)
        better = sum(y > x + 1e-9 for x, y in zip(a, b, strict=True))
        worse = sum(y < x - 1e-9 for x, y in zip(a, b, strict=True))
        assert (movement.better, movement.worse) == (better, worse)
        assert movement.same == len(a) - better - worse
    assert all(change.change < 0 for change in found.losses)
    gains = [change.change for change in found.gains]
    assert gains == sorted(gains, reverse=True) and all(gain > 0 for gain in gains)
    assert all(change.before.query == change.after.query for change in found.gains)


def test_a_run_compared_with_itself_has_not_changed(tmp_path):
    one = evaluated(*make_sides(tmp_path))
    found = reporting.gather(one, before=one).comparison
    assert [(d.change, d.interval) for d in found.differences] == [(0.0, (0.0, 0.0))] * 2
    assert not found.losses and not found.gains
    assert [(m.better, m.worse) for m in found.movements] == [(0, 0)] * 2


def test_other_queries_or_another_gallery_cannot_be_compared(tmp_path):
    query, gallery = make_sides(tmp_path)
    one = evaluated(query, gallery)
    shuffled = replace(query, samples=query.samples[::-1])
    with pytest.raises(ValueError, match="number 0 of the queries"):
        reporting.gather(one, before=evaluated(shuffled, gallery, run="old"))
    fewer = Features(gallery.vectors[:-1], gallery.samples[:-1])
    with pytest.raises(ValueError, match="22 and 21 gallery items; expected new and old"):
        reporting.gather(one, before=evaluated(query, fewer, run="old"))


def test_leave_one_out_of_arrays_without_files_never_shows_the_query_itself(clustered):
    vectors, labels = clustered(5, 4, 8, noise=2.0)
    side = Features.from_arrays(vectors.float(), labels)
    found = reporting.gather(evaluated(side, side, "same_class"))
    assert len(found.worst) == 20
    for row in found.worst:
        assert row.query not in [match.sample for match in row.matches]
        assert row.right_answers == 3
    assert found.pairs == []  # one camera


def test_queries_in_the_gallery_are_not_shown_where_the_protocol_leaves_them_out(tmp_path):
    query, gallery = make_sides(tmp_path, noise=1.5)
    both = Features(torch.cat([gallery.vectors, query.vectors]), (*gallery.samples, *query.samples))
    rules = EvalProtocol("nothing", ("mAP",), gallery="without_queries")
    found = reporting.gather(evaluated(query, both, rules))
    shown = {match.sample for row in found.worst for match in row.matches}
    assert not shown & set(query.samples)
    assert any("a query themselves" in sentence for sentence in found.protocol)


def test_skipped_and_tied_queries_are_told_in_words(tmp_path):
    query, gallery = make_sides(tmp_path)
    samples = (replace(query.samples[0], pid=99), *query.samples[1:])
    vectors = gallery.vectors.clone()
    # For the second query a wrong answer stands where all its right ones do.
    for place, sample in enumerate(gallery.samples):
        if sample.pid in (2, 3):
            vectors[place] = vectors[-1]
    found = reporting.gather(
        evaluated(replace(query, samples=samples), replace(gallery, vectors=vectors))
    )
    assert found.notes[0].startswith("1 query has no right answer in the gallery")
    assert any("decided by a tie" in note for note in found.notes)
    assert all(row.query.pid != 99 for row in found.worst)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_every_protocol_is_told_in_sentences(name, metric):
    words = reporting.in_words(PROTOCOLS[name], metric)
    assert len(words) >= 3
    assert all(sentence[0].isupper() and sentence[-1] == "." for sentence in words)


def test_two_runs_of_one_name_are_told_apart(tmp_path):
    assert reporting.short_names(tmp_path / "a" / "x", None) == ("x", "")
    assert reporting.short_names(tmp_path / "a" / "x", tmp_path / "b" / "y") == ("x", "y")
    assert reporting.short_names(tmp_path / "a" / "x", tmp_path / "b" / "x") == ("a/x", "b/x")
    model = tmp_path / "a" / "x" / "model.safetensors"
    assert reporting.short_names(model, tmp_path / "v1.2")[0] == "x"
    assert reporting.short_names(tmp_path / "v1.2", None)[0] == "v1.2"
