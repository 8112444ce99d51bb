"""Identities for unlabelled tracklets: who is kept apart, what is told, what a folder holds."""

import csv
import json
import tracemalloc

import numpy as np
import pytest
import torch

from reidkit import data
from reidkit.compose import label_folder, labelling
from reidkit.compose.labelling import Settings
from reidkit.types import Features, Sample, StoredFrames
from reidkit.unsupervised import CannotLink
from reidkit.unsupervised.identity_tree import IdentityTree


def people(counts=(3, 3, 2), noise=0.05, seed=0, known=True):
    """Features of so many samples of each person, far apart from one another."""
    random = np.random.default_rng(seed)
    pids = np.repeat(np.arange(len(counts)), counts)
    vectors = np.eye(len(counts), 8)[pids] + noise * random.standard_normal((len(pids), 8))
    samples = [
        Sample((f"/{i}a.png", f"/{i}b.png"), int(pid) + 1 if known else -1, i % 2)
        for i, pid in enumerate(pids)
    ]
    return Features(torch.from_numpy(vectors).float(), tuple(samples))


def found_in(features, labels=None, **settings):
    links = CannotLink.nothing(len(features))
    tree = IdentityTree.build(features)
    if labels is None:
        labels = labelling.find(features, tree, links, Settings(**settings))
    facts = {"of": {"model": "m", "files": "f"}, "run": "r", "source": "s", "settings": {}}
    return labelling.judged(features, tree, np.asarray(labels, np.int64), facts, [])


def written(folder, found, pictures=False):
    rows = list(label_folder.rows_of(found.features.samples))
    label_folder.begin(folder, found.facts["of"])
    found.features.save(folder / "features.npz")
    label_folder.write(
        folder, found, rows, pictures, labelling.QUIET, meanwhile={"of": found.facts["of"]}
    )
    return rows


@pytest.fixture
def folder(tmp_path):
    """A folder to be."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


# Finding


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"by": "gap"},
        {"clusters": 3},
        {"height": 0.5},
        {"method": "dbscan", "min_samples": 2, "k1": 5},
        {"method": "hdbscan", "k1": 9},
    ],
)
def test_people_far_apart_are_told_apart_however_one_asks(settings):
    found = found_in(people((5, 5, 5)), **settings)
    assert found.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert ((found.confidences > 0.5) & (found.confidences <= 1)).all()
    quality = found.facts["quality"]
    assert (quality["identities"], quality["left_out"]) == (3, 0)
    judged = quality["by_the_source"]
    assert [judged[name] for name in ("precision", "recall", "f1", "purity")] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "method, knob", [("dbscan", "raise --eps (now 0.6) or lower"), ("hdbscan", "lower")]
)
def test_where_all_are_left_out_the_knob_is_named(method, knob):
    features = people((1, 1, 1))
    with pytest.raises(ValueError) as error:
        found_in(features, method=method)
    assert str(error.value) == (
        f"{method} left out all 3 samples: {knob} --min-samples (now 4), or use --method tree"
    )


def test_one_sample_is_one_identity_of_which_nothing_is_known():
    features = people((1,))
    for settings in ({}, {"method": "dbscan"}, {"clusters": 1}):
        found = found_in(features, **settings)
        assert (found.labels.tolist(), found.confidences.tolist()) == ([0], [0])
    links, notes = labelling.constraints(features.samples, "time")
    assert len(links) == 1
    assert any("One sample is one identity; its confidence of 0" in note for note in notes)


def test_two_samples_need_a_threshold():
    assert found_in(people((2,)), clusters=1).labels.tolist() == [0, 0]
    assert found_in(people((1, 1)), height=0.1).labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"2 samples, first joined .* use --clusters or --height"):
        found_in(people((1, 1)))


def test_heights_that_do_not_differ_have_no_gap():
    with pytest.raises(ValueError, match=r"do not tell by gap who is who"):
        found_in(people((1, 1, 1), noise=0), by="gap")


@pytest.mark.parametrize("by", ["silhouette", "gap"])
def test_where_nobody_may_be_joined_each_is_alone(by):
    features = people((2, 2))
    links = CannotLink(np.zeros(4, np.int64), np.empty((0, 2), np.int64))
    tree = IdentityTree.build(features, cannot_link=links)
    assert labelling.find(features, tree, links, Settings(by=by)).tolist() == [0, 1, 2, 3]


# Confidence and quality


def test_a_confidence_is_the_silhouette_and_never_negative():
    features = people((3, 3))
    wrong = found_in(features, [0, 0, 0, 0, 1, 1])
    vectors = torch.nn.functional.normalize(features.vectors.double(), dim=1).numpy()
    for i in range(6):
        distance = 1 - vectors @ vectors[i]
        own = [j for j in range(6) if wrong.labels[j] == wrong.labels[i] and j != i]
        other = [j for j in range(6) if wrong.labels[j] != wrong.labels[i]]
        a, b = distance[own].mean(), distance[other].mean()
        assert wrong.confidences[i] == pytest.approx(max((b - a) / max(a, b), 0), abs=1e-6)
    assert wrong.confidences[3] == 0


def test_quality_says_what_is_known_without_labels_and_what_the_source_knows():
    found = found_in(people((3, 3, 2)), [0, 0, 0, 1, 1, -1, 2, 3])
    quality = found.facts["quality"]
    assert quality["sizes"] == {"smallest": 1, "median": 1.5, "largest": 3, "single": 2}
    assert (quality["identities"], quality["left_out"]) == (4, 1)
    assert quality["by_the_source"]["precision"] == 1
    assert quality["by_the_source"]["recall"] == pytest.approx(4 / 7)
    assert "judged by the source's own identities (3 in 8 samples), over pairs" in found.text()
    unknown = found_in(people(known=False))
    assert unknown.facts["quality"]["by_the_source"] is None
    assert "judged" not in unknown.text()


def test_what_cannot_be_said_is_null_in_json():
    found = found_in(people((3, 3)), range(6))
    assert found.facts["quality"]["by_the_source"]["precision"] is None
    assert "precision -" in found.text()
    assert json.loads(json.dumps(found.facts, allow_nan=False))


@pytest.mark.parametrize(
    "labels, told",
    [
        ([0] * 6, "All are one identity"),
        (range(6), "Each is an identity of its own"),
        ([-1] * 6, "All samples are left out"),
    ],
)
def test_labels_that_say_nothing_are_told(labels, told):
    found = found_in(people((3, 3)), list(labels))
    assert found.confidences.tolist() == [0] * 6
    assert any(told in note for note in found.notes) and told in found.text()


def test_one_cluster_of_everybody_comes_with_the_knobs():
    features = people((3, 3))
    settings = {"settings": {"method": "dbscan", "eps": 0.6, "k1": 30}}
    tree = IdentityTree.build(features)
    found = labelling.judged(features, tree, np.zeros(6, np.int64), settings, [])
    assert "lower --k1 (now 30) or --eps (now 0.6)." in found.notes[0]


# Who is kept apart


def at(*rows):
    return [Sample((f"{i}.png",), -1, camid, span=span) for i, (camid, span) in enumerate(rows)]


def test_who_is_seen_at_one_time_by_one_camera_is_kept_apart():
    samples = at((0, (0, 5)), (0, (3, 9)), (1, (0, 9)), (0, (10, 12)))
    links, notes = labelling.constraints(samples, "time")
    assert sorted(map(sorted, links.pairs.tolist())) == [[0, 1]]
    assert notes == []
    assert len(labelling.constraints(samples, "none")[0].pairs) == 0
    groups = labelling.constraints(samples, "camera")[0].groups
    assert groups[0] == groups[1] == groups[3] != groups[2]


@pytest.mark.parametrize(
    "samples, by, told",
    [
        (at((0, None), (1, None)), "time", "No times are known"),
        (at((0, (0, 1)), (0, (2, 3))), "time", "All samples are of one camera"),
        (at((0, (0, 3)), (0, (0, 4)), (0, (0, 5)), (1, (0, 2))), "time", "--no-cannot-link"),
    ],
)
def test_what_is_not_known_or_not_likely_is_told(samples, by, told):
    (note,) = labelling.constraints(samples, by)[1]
    assert told in note


def test_all_of_one_camera_kept_apart_would_be_nothing_found():
    with pytest.raises(ValueError, match=r"all 2 samples are of one camera.*--cannot-link time"):
        labelling.constraints(at((0, None), (0, None)), "camera")


# The source


def test_one_file_in_two_samples_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    table = tmp_path / "two.csv"
    table.write_text("path,pid,split,tracklet\na.png,1,train,1\na.png,2,test,2\n")
    with pytest.raises(ValueError, match=r"a\.png is in two samples of .*two\.csv: take it out"):
        labelling.find_tracklets(str(table), None)


def test_paths_are_whole_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.png").write_bytes(b"")
    (sample,), notes = labelling.find_tracklets("own", None)
    assert sample.frames == (str(tmp_path / "own" / "a.png"),) and notes == []


def test_people_and_cameras_of_two_domains_are_not_mixed_up(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(b"")
    table = tmp_path / "two.csv"
    table.write_text(
        "path,pid,camid,split,domain\na.png,1,0,train,x\nb.png,1,0,train,y\nc.png,-1,1,train,y\n"
    )
    samples, _ = labelling.find_tracklets(str(table), None)
    assert [(s.pid, s.camid) for s in samples] == [(1, 0), (2, 1), (-1, 2)]


# The folder


def test_the_manifest_is_one_that_trains(folder):
    frames = []
    for name in "abcde":
        (folder.parent / f"{name}, 1.png").write_bytes(b"")
        frames.append(str(folder.parent / f"{name}, 1.png"))
    samples = (
        Sample(tuple(frames[:3]), 7, 1, span=(10.0, 14.0)),
        Sample((frames[3],), 8, 0, span=(3.0, 3.0)),
        Sample((frames[4],), 9, 2),
    )
    features = Features(torch.eye(3), samples)
    written(folder, found_in(features, [0, 1, -1]))
    train = data.load_benchmark("manifest", folder / "labels.csv").train
    assert [s.frames for s in train] == [s.frames for s in samples[:2]]
    assert [(s.pid, s.camid, s.span) for s in train] == [(1, 1, (10, 14)), (2, 0, (3, 3))]
    assert data.labels_of(train) == ([0, 1], 2)  # who is left out is there, but does not train
    rows = list(csv.DictReader((folder / "labels.csv").open(newline="")))
    assert [row["frame"] for row in rows] == ["10", "12", "14", "3", ""]
    assert [row["label"] for row in rows] == ["0", "0", "0", "1", "-1"]
    assert all(0 <= float(row["label_confidence"]) <= 1 for row in rows)


def column(name, *samples):
    return [row[name] for row in label_folder.rows_of(samples)]


def test_unknown_cameras_stay_unknown_in_the_manifest():
    assert column("camid", *(Sample((f"{i}",), -1, -1) for i in range(2))) == ["", ""]
    assert column("camid", Sample(("0",), -1, -1), Sample(("1",), -1, 3)) == ["-1", "3"]


def test_times_that_are_no_whole_numbers_become_thousandths():
    samples = Sample(("a", "b", "c"), -1, 0, span=(0.5, 1.0)), Sample(("d",), -1, 0, span=(2, 2))
    assert column("frame", *samples) == ["500", "750", "1000", "2000"]
    assert "thousandths" in label_folder.notes_of(samples)[0]
    assert label_folder.notes_of(samples[1:]) == []


def test_a_packed_sequence_is_one_row_and_comes_back(folder):
    samples = tuple(Sample(StoredFrames("/walks", 4 * i, 4), i, 0, "090", "nm") for i in range(3))
    found = found_in(Features(torch.eye(3), samples), [0, 0, 1])
    rows = written(folder, found)
    assert "cannot read" in label_folder.notes_of(samples)[0]
    assert [row["path"] for row in rows] == ["/walks#0+4", "/walks#4+4", "/walks#8+4"]
    features, _, labels = label_folder.read(folder)
    assert [sample.frames for sample in features.samples] == [s.frames for s in samples]
    assert labels.tolist() == [0, 0, 1]


def test_a_folder_comes_back_as_it_was_written(folder):
    found = found_in(people())
    written(folder, found)
    features, tree, labels = label_folder.read(folder)
    assert labels.tolist() == found.labels.tolist()
    assert [s.frames for s in features.samples] == [s.frames for s in found.features.samples]
    assert np.array_equal(tree.merges, found.tree.merges)
    assert len(list(label_folder.rows_in(folder))) == 16
    told = label_folder.read_facts(folder)
    assert "not a probability" in told["confidence"]
    assert told["quality"]["identities"] == 3


def test_sheets_of_earlier_labels_go(folder):
    written(folder, found_in(people(), [0, 0, 0, 1, 1, 1, 5, -1]), pictures=True)
    names = sorted(path.name for path in (folder / "identities").iterdir())
    assert names == ["0000.jpg", "0001.jpg", "0005.jpg"]
    assert (folder / "tree.png").is_file()
    written(folder, found_in(people(), [0] * 8), pictures=True)
    assert [path.name for path in (folder / "identities").iterdir()] == ["0000.jpg"]
    written(folder, found_in(people()), pictures=False)
    assert not list((folder / "identities").iterdir()) and not (folder / "tree.png").exists()


def test_only_the_largest_identities_have_a_sheet(folder, monkeypatch):
    monkeypatch.setattr(label_folder, "MOST_SHEETS", 2)
    written(folder, found_in(people((1, 3, 2)), [0, 1, 1, 1, 2, 2]), pictures=True)
    names = sorted(path.name for path in (folder / "identities").iterdir())
    assert names == ["0001.jpg", "0002.jpg"]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds other things: name a new folder"):
        label_folder.begin(tmp_path, {"model": "m", "files": "f"})
    with pytest.raises(FileExistsError, match=r"holds other things"):
        label_folder.begin(tmp_path / "note.txt", {"model": "m", "files": "f"})
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


@pytest.mark.parametrize(
    "mark, told",
    [
        ({"model": "other", "files": "f"}, "with another model"),
        ({"model": "m", "files": "other"}, "with another source, or files changed"),
    ],
)
def test_a_folder_of_another_model_or_source_is_left_alone(folder, mark, told):
    written(folder, found_in(people()))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FileExistsError, match=told):
        label_folder.begin(folder, mark)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("text", ["", "[]", "{", '{"of": 3}'])
def test_a_damaged_record_is_told(folder, text):
    (folder / "label.json").write_text(text)
    with pytest.raises(ValueError, match=r"label\.json is damaged"):
        label_folder.read_facts(folder)


# Corrections


def test_corrections_change_what_they_name_and_nothing_else(folder, tmp_path):
    found = found_in(people())
    written(folder, found)
    rows = list(csv.DictReader((folder / "labels.csv").open(newline="")))
    mine = [{**row, "note": "seen"} for row in rows]
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(mine[0]))
        writer.writeheader()
        writer.writerows(mine)
    sheet = tmp_path / "corrected.csv"
    sheet.write_text("path,label,camid\n/0a.png,7,0\n/1b.png,-1,0\n")
    again = labelling.apply_to(folder, sheet, pictures=False)
    assert again.labels.tolist() == [7, -1, 0, 1, 1, 1, 2, 2]
    rows = list(csv.DictReader((folder / "labels.csv").open(newline="")))
    assert [row["pid"] for row in rows[:6]] == ["8", "8", "-1", "-1", "1", "1"]
    assert {row["note"] for row in rows} == {"seen"}
    splits = ["train"] * 2 + ["test"] * 2 + ["train"] * 12
    assert [row["split"] for row in rows] == splits
    sheet.write_text("path,label\n/1a.png,0\n")
    labelling.apply_to(folder, sheet, pictures=False)
    rows = list(csv.DictReader((folder / "labels.csv").open(newline="")))
    assert {row["split"] for row in rows} == {"train"} and rows[2]["pid"] == "1"
    told = label_folder.read_facts(folder)
    assert told["corrected"] == 3 and told["quality"]["by_the_source"]["recall"] < 1
    assert "2 of 8 labels changed by corrected.csv." in again.notes
    with pytest.raises(FileExistsError, match="corrected by hand: name a new folder"):
        label_folder.begin(folder, found.facts["of"])


@pytest.mark.parametrize(
    "text, told",
    [
        ("", "has no column 'path'; it has: none. Expected path,label"),
        ("path,pid\n/0a.png,1\n", "has no column 'label'; it has: path, pid"),
        ("path,label\n", "corrects nothing"),
        ("path,label\n/0a.png,anna\n", "line 2: label 'anna', expected an identity's number"),
        ("path,label\n/0a.png,1.0\n", "line 2: label '1.0'"),
        ("path,label\n/0a.png,\n", "line 2: label ''"),
        ("path,label\n/0a.png,-2\n", "line 2: label '-2'"),
        ("path,label\n/0a.png,99999999999999999999\n", "line 2: label '9999"),
        ("path,label\n/0a.png,1\nelse.png,1\n", "line 3: unknown path 'else.png'"),
        ("path,label\n/0a.png,1\n/0b.png,2\n", "line 3: label 2 for /0b.png, whose sample has 1"),
        ("path,label\n/0a.png,1,2\n", "line 2: 3 cells, expected 2"),
        ("path,label\n/0a.png," + 5000 * "9" + "\n", "line 2: label '99999"),
        ('path,label\n/0a.png,"1\n', "corrected.csv is no CSV file in UTF-8 with all its quotes"),
        (b"\xff\xfe", "is no CSV file in UTF-8"),
        ("path,label\n/0a.png,1\n".encode("utf-16"), "corrected.csv is no CSV file in UTF-8"),
    ],
)
def test_corrections_that_mean_nothing_are_told_by_their_line(folder, tmp_path, text, told):
    written(folder, found_in(people()))
    sheet = tmp_path / "corrected.csv"
    sheet.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = (folder / "labels.csv").read_bytes()
    with pytest.raises(ValueError) as error:
        labelling.apply_to(folder, sheet)
    assert told in str(error.value) and "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    assert (folder / "labels.csv").read_bytes() == before


def test_corrections_need_labels_and_a_file(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no labels in .* to correct: `reidkit label"):
        labelling.apply_to(folder, tmp_path / "corrected.csv")
    written(folder, found_in(people()))
    with pytest.raises(FileNotFoundError, match=r"no file .*corrected\.csv; tree\.html exports"):
        labelling.apply_to(folder, tmp_path / "corrected.csv")


def test_a_manifest_that_lost_rows_is_not_built_upon(folder, tmp_path):
    written(folder, found_in(people()))
    lines = (folder / "labels.csv").read_text().splitlines()
    (folder / "labels.csv").write_text("\n".join(lines[:3]) + "\n")
    (tmp_path / "corrected.csv").write_text("path,label\n/0a.png,1\n")
    with pytest.raises(ValueError, match=r"labels\.csv no longer fits .*features\.npz"):
        labelling.apply_to(folder, tmp_path / "corrected.csv")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("labels.csv", lambda old: old.decode().encode("utf-16"), "labels.csv is no CSV file"),
        ("labels.csv", lambda old: old + b'"', "labels.csv is no CSV file"),
        ("labels.csv", lambda old: old.replace(b",tracklet", b",track"), "no column 'tracklet'"),
        ("labels.csv", lambda old: old.replace(b"/0b.png,1", b"/0b.png,2"), "line 3: pid 2 for"),
        ("labels.csv", lambda old: old.replace(b"/0b.png,1", b"/0b.png,x"), "line 3 is faulty"),
        ("label.json", lambda old: old.replace(b'"run"', b'"walk"'), "'run' is nothing"),
        ("label.json", lambda old: old.replace(b'"run": "r"', b'"run": 3'), "'run' is 3, expected"),
        ("label.json", lambda old: b'{"corrected": "two",' + old[1:], "'corrected' is 'two'"),
        ("label.json", lambda old: b'{"corrected": -1,' + old[1:], "'corrected' is -1"),
        ("features.npz", lambda old: old[:99], "features.npz is not a feature file"),
        ("tree.npz", lambda old: old[:99], "tree.npz is no tree file"),
    ],
)
def test_corrections_of_a_damaged_folder_name_the_file_and_write_nothing(
    folder, tmp_path, name, content, told
):
    written(folder, found_in(people()))
    (folder / name).write_bytes(content((folder / name).read_bytes()))
    (tmp_path / "corrected.csv").write_text("path,label\n/0a.png,1\n")
    before = contents(folder)
    with pytest.raises(ValueError) as error:
        labelling.apply_to(folder, tmp_path / "corrected.csv", pictures=False)
    assert told in str(error.value) and "\n" not in str(error.value)
    assert contents(folder) == before


@pytest.mark.parametrize(
    "counts, told",
    [((2, 2), "a tree of 4 samples, expected the 8 of"), ((4, 4), "a tree of other samples")],
)
def test_the_tree_of_another_folder_is_refused_before_anything_is_written(
    folder, tmp_path, counts, told
):
    written(folder, found_in(people()))
    other = people(counts)
    samples = [Sample((f"/else/{i}.png",), -1, 0) for i in range(len(other))]
    IdentityTree.build(Features(other.vectors, tuple(samples))).save(folder / "tree.npz")
    (tmp_path / "corrected.csv").write_text("path,label\n/0a.png,1\n")
    before = contents(folder)
    with pytest.raises(ValueError, match=told):
        labelling.apply_to(folder, tmp_path / "corrected.csv", pictures=False)
    assert contents(folder) == before


def test_a_page_that_fails_leaves_the_folder_as_it_was(folder, tmp_path, monkeypatch):
    written(folder, found_in(people()))
    (tmp_path / "corrected.csv").write_text("path,label\n/0a.png,1\n")
    before = contents(folder)

    def failing(*_, **__):
        raise ValueError("no page")

    monkeypatch.setattr(label_folder, "tree_page", failing)
    with pytest.raises(ValueError, match="no page"):
        labelling.apply_to(folder, tmp_path / "corrected.csv", pictures=False)
    assert contents(folder) == before


@pytest.mark.parametrize(
    "by, told",
    [
        ("time", "1 pair of samples seen by one camera at one time, so of two people"),
        ("camera", "3 pairs of samples of one camera, so of two people"),
        ("none", None),
    ],
)
def test_corrections_that_join_two_people_for_certain_are_told(folder, tmp_path, by, told):
    spans = ((0, 5), (3, 9), (20, 30))
    samples = tuple(Sample((f"/{i}.png",), -1, 0, span=span) for i, span in enumerate(spans))
    found = found_in(Features(torch.eye(3), samples), [0, 1, 2])
    found.facts["settings"]["cannot_link"] = by
    written(folder, found)
    (tmp_path / "corrected.csv").write_text("path,label\n/1.png,0\n/2.png,0\n")
    again = labelling.apply_to(folder, tmp_path / "corrected.csv", pictures=False)
    warnings = [note for note in again.notes if "so of two people" in note]
    assert len(warnings) == (told is not None) and all(told in note for note in warnings)
    (tmp_path / "corrected.csv").write_text("path,label\n/1.png,1\n/2.png,2\n")
    again = labelling.apply_to(folder, tmp_path / "corrected.csv", pictures=False)
    assert not any("so of two people" in note for note in again.notes)


def test_one_file_under_two_spellings_is_one_file(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.png").write_bytes(b"")
    table = tmp_path / "two.csv"
    table.write_text("path,pid,split,tracklet\na.png,1,train,1\nsub/../a.png,2,train,2\n")
    with pytest.raises(ValueError, match=r"a\.png is in two samples"):
        labelling.find_tracklets(str(table), None)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_copies_of_one_picture_are_told_to_be_arbitrary(metric):
    random = np.random.default_rng(0)
    vectors = np.repeat(random.standard_normal((1, 64)), 6, axis=0)
    vectors *= 1 + 1e-7 * random.standard_normal(vectors.shape)
    samples = tuple(Sample((f"/{i}.png",), -1, -1) for i in range(6))
    features = Features(torch.from_numpy(vectors).float(), samples)
    tree = IdentityTree.build(features, metric=metric)
    links = CannotLink.nothing(6)
    labels = labelling.find(features, tree, links, Settings(), metric)
    found = labelling.judged(features, tree, labels, {"settings": {}}, [])
    (note,) = labelling.doubts(found, Settings(), metric)
    assert "All are joined at one height" in note and "--clusters 1" in note
    assert labelling.doubts(found, Settings(clusters=2), metric) == []
    with pytest.raises(ValueError, match="do not tell by gap"):
        labelling.find(features, tree, links, Settings(by="gap"), metric)
    good = found_in(people())
    assert labelling.doubts(good, Settings()) == []


def test_where_no_cut_has_a_silhouette_above_0_it_is_told():
    found = found_in(people((3, 3)), [0, 1, 0, 1, 0, 1])
    assert found.facts["quality"]["silhouette"] <= 0
    assert "No cut has a mean silhouette above 0" in labelling.doubts(found, Settings())[0]


def test_rows_of_a_large_source_are_never_all_in_memory(tmp_path):
    frames = tuple(f"/{i}.png" for i in range(1000))
    samples = tuple(Sample(frames, -1, 0, span=(0, 999)) for _ in range(40))
    found = label_folder.Found(
        Features(torch.eye(40), samples),
        IdentityTree.build(Features(torch.eye(40), samples)),
        np.zeros(40, np.int64),
        np.zeros(40),
        {},
    )
    tracemalloc.start()
    label_folder._write_table(tmp_path / "labels.csv", found, label_folder.rows_of(samples))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "labels.csv").read_bytes().count(b"\n") == 40_001
    assert peak < 2_000_000  # all rows would be some 10 million


def test_a_folder_with_only_a_mark_is_taken_again_and_one_with_features_is_not(folder):
    label_folder.begin(folder, {"model": "m", "files": "f"})
    label_folder.begin(folder, {"model": "m", "files": "mended"})
    told = json.loads((folder / "label.json").read_text())
    assert told == {"of": {"model": "m", "files": "mended"}}
    people().save(folder / "features.npz")
    with pytest.raises(FileExistsError, match="another source, or files changed"):
        label_folder.begin(folder, {"model": "m", "files": "f"})
