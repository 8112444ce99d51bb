import json
import logging
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from reidkit.data import load_benchmark
from reidkit.data.adapters import casia_b, gait3d, grew, ou_mvlp, silhouettes
from reidkit.data.benchmarks import read_benchmark
from reidkit.data.silhouettes.align import align
from reidkit.data.silhouettes.pack import pack_silhouettes
from reidkit.data.silhouettes.store import SilhouetteStore
from reidkit.data.synthetic.gait_stand_ins import (
    draw_body,
    write_casia_b_stand_in,
    write_gait3d,
    write_grew,
    write_ou_mvlp,
)
from reidkit.evaluation.gait.table import GAIT_PROTOCOLS
from reidkit.types import StoredFrames

WRITERS = {
    "casia_b": write_casia_b_stand_in,
    "ou_mvlp": write_ou_mvlp,
    "grew": write_grew,
    "gait3d": write_gait3d,
}
NAMES = {"casia_b": "CASIA-B", "ou_mvlp": "OUMVLP", "grew": "GREW", "gait3d": "Gait3D"}
COLUMNS = "subject,condition,view,camid,start,length,verdict,why,source"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Each stand-in once: read them, never change them."""
    folder = tmp_path_factory.mktemp("gait")
    return {name: write(folder / name, frames=2) for name, write in WRITERS.items()}


@pytest.fixture
def tree(written, tmp_path):
    """A copy to change: tree("casia_b") -> its folder."""

    def copy(name):
        return Path(shutil.copytree(written[name], tmp_path / "raw" / NAMES[name]))

    return copy


def write_store(folder, sequences):
    """One frame that all `sequences` share: (subject, condition, view[, verdict, why])."""
    folder.mkdir(parents=True)
    header = {"format": 1, "size": [64, 64], "bits": 8, "frames": 1}
    (folder / "store.json").write_text(json.dumps(header))
    (folder / "frames.bin").write_bytes(bytes(64 * 64))
    lines = [COLUMNS]
    for subject, condition, view, *rest in sequences:
        verdict, why = rest or ("good", "")
        length = 0 if verdict == "rejected" else 1
        lines.append(f"{subject},{condition},{view},0,0,{length},{verdict},{why},")
    (folder / "sequences.csv").write_text("\n".join(lines) + "\n")
    return folder


def sequences_of(samples):
    return {(sample.pid, sample.condition, sample.view, sample.camid) for sample in samples}


def counted(samples):
    """Each sequence with the number of its frames."""
    return sorted((s.pid, s.condition, s.view, s.camid, len(s.frames)) for s in samples)


def draw_aligned(*words):
    return align(draw_body(*words))


def sides(benchmark):
    return benchmark.train, benchmark.query, benchmark.gallery


def sentences(reading, severity):
    return " ".join(one.sentence for one in reading.findings if one.severity == severity)


# All of them


@pytest.mark.parametrize("name", WRITERS)
def test_strict_refuses_other_counts_than_the_published_ones(written, name):
    with pytest.raises(ValueError, match=rf"{name}: .*identities, expected [\d,]+.*check='warn'"):
        load_benchmark(name, written[name])


@pytest.mark.parametrize("name", WRITERS)
def test_warn_says_the_counts_and_off_says_nothing(written, name, caplog):
    with caplog.at_level(logging.WARNING):
        quiet = load_benchmark(name, written[name], "off")
        assert not caplog.records
        assert load_benchmark(name, written[name], "warn") == quiet
    assert "identities, expected" in caplog.text
    assert "1 sequence folders hold no frames and are left out" in caplog.text


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("check", ["strict", "warn", "off"])
def test_a_folder_without_the_set_is_named_at_every_level(tmp_path, name, check):
    with pytest.raises(FileNotFoundError, match=rf"neither a tree.*README.md#{name}"):
        load_benchmark(name, tmp_path, check)
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        load_benchmark(name, tmp_path / "nowhere", check)


def test_archives_that_wait_to_be_unpacked_are_named(tmp_path):
    (tmp_path / "CASIA-B").mkdir()
    (tmp_path / "CASIA-B" / "001.tar.gz").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"001.tar.gz. Unpack the archives"):
        load_benchmark("casia_b", tmp_path)


@pytest.mark.parametrize("name", WRITERS)
def test_train_and_test_share_no_identity(written, name):
    benchmark = load_benchmark(name, written[name], "off")
    train, query, gallery = ({sample.pid for sample in side} for side in sides(benchmark))
    assert train and query and gallery
    assert not train & (query | gallery)
    assert query <= gallery


@pytest.mark.parametrize("name", WRITERS)
def test_no_sequence_is_on_two_sides_and_every_frame_exists(written, name):
    found = [
        sample for side in sides(load_benchmark(name, written[name], "off")) for sample in side
    ]
    files = [file for sample in found for file in sample.frames]
    assert len(set(files)) == len(files)
    assert all(Path(file).suffix == ".png" and Path(file).is_file() for file in files)
    assert not any("gei" in file or "Thumbs" in file for file in files)
    assert {sample.domain for sample in found} == {name}
    assert {len(sample.frames) for sample in found} == {2}


@pytest.mark.parametrize("name", WRITERS)
def test_the_parent_folder_is_accepted_too(tree, name):
    folder = tree(name)
    assert load_benchmark(name, folder.parent, "off") == load_benchmark(name, folder, "off")


@pytest.mark.parametrize("name", WRITERS)
def test_order_is_that_of_the_names_and_not_of_the_file_system(written, name, monkeypatch):
    straight = load_benchmark(name, written[name], "off")
    listing, scanning = os.listdir, os.scandir

    class Backwards:
        def __init__(self, folder):
            with scanning(folder) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(os, "listdir", lambda path: sorted(listing(path), reverse=True))
    monkeypatch.setattr(os, "scandir", Backwards)
    assert load_benchmark(name, written[name], "off") == straight


@pytest.mark.parametrize("name", WRITERS)
def test_a_pack_of_the_tree_gives_the_same_samples_but_for_their_frames(tmp_path, name):
    whole = tmp_path / "raw"
    kind = {"rearranged": True} if name == "grew" else {}
    WRITERS[name](whole, frames=6, **kind)
    source = whole / "2D_Silhouettes" if name == "gait3d" else whole
    store = tmp_path / "packs" / f"{name}.pack"
    assert not pack_silhouettes(source, store).warned  # an energy image touches the border
    if name == "gait3d":
        shutil.copy(whole / "Gait3D.json", tmp_path / "packs")
    raw = load_benchmark(name, whole, "off")
    for root in (store, store.parent) if name != "gait3d" else (store.parent,):
        packed = load_benchmark(name, root, "off")
        for ours, theirs in zip(sides(packed), sides(raw), strict=True):
            assert counted(ours) == counted(theirs)
            assert all(isinstance(sample.frames, StoredFrames) for sample in ours)
        assert packed.protocol == raw.protocol


def test_a_pack_is_taken_before_the_tree_beside_it(tree):
    folder = tree("casia_b")
    pack_silhouettes(folder, folder.parent / "casia_b.pack")
    benchmark = load_benchmark("casia_b", folder.parent, "off")
    assert all(isinstance(sample.frames, StoredFrames) for sample in benchmark.train)


@pytest.mark.parametrize("name", WRITERS)
def test_a_tree_of_pickles_is_refused_with_the_way_out(tree, name):
    folder = tree(name)
    for file in folder.rglob("*.png"):
        file.with_suffix(".pkl").write_bytes(b"")
        file.unlink()
    with pytest.raises(ValueError, match=r"pack it first: reidkit data pack SRC OUT$") as caught:
        load_benchmark(name, folder, "off")
    assert "\n" not in str(caught.value)
    assert not read_benchmark(name, folder).train


def test_pictures_are_taken_before_pickles_beside_them(tree):
    folder = tree("casia_b")
    (folder.parent / "casia_b" / "001" / "nm-01" / "000").mkdir(parents=True)
    (folder.parent / "casia_b" / "001" / "nm-01" / "000" / "000.pkl").write_bytes(b"")
    assert load_benchmark("casia_b", folder.parent, "off").train


def test_pickles_among_pictures_are_named(tree):
    folder = tree("casia_b")
    for file in (folder / "075" / "nm-01" / "000").iterdir():
        file.unlink()
    (folder / "075" / "nm-01" / "000" / "000.pkl").write_bytes(b"")
    errors = sentences(casia_b.read(folder), "error")
    assert "1 sequence folders hold a .pkl and no frames: 075/nm-01/000." in errors


@pytest.mark.parametrize(
    "name, strange",
    [
        ("casia_b", ("001", "nm-07", "000")),
        ("casia_b", ("001", "nm-01", "010")),
        ("casia_b", ("125", "nm-01", "000")),
        ("casia_b", ("me", "nm-01", "000")),
        ("ou_mvlp", ("Silhouette_000-02", "00001")),
        ("ou_mvlp", ("Silhouette_100-00", "00001")),
        ("ou_mvlp", ("Silhouette_000-00", "10308")),
        ("ou_mvlp", ("Silhouette_000-00", "1")),
        ("grew", ("test", "gallery", "00001", "zzzzzzzz")),
        ("grew", ("test", "gallery", "1", "zzzzzzzz")),
        ("grew", ("train", "one", "zzzzzzzz")),
        ("gait3d", ("2D_Silhouettes", "0002", "cam1", "seq0")),
        ("gait3d", ("2D_Silhouettes", "0002", "camid1_videoid1", "0")),
        ("gait3d", ("2D_Silhouettes", "00002", "camid1_videoid1", "seq0")),
    ],
)
def test_a_name_that_does_not_parse_is_an_error_and_left_out(tree, name, strange):
    folder = tree(name)
    before = load_benchmark(name, folder, "off")
    folder.joinpath(*strange).mkdir(parents=True)
    (folder.joinpath(*strange) / "0001.png").write_bytes(b"")
    reading = read_benchmark(name, folder)
    assert "1 sequences are not named like" in sentences(reading, "error")
    assert sides(reading) == sides(before)


@pytest.mark.parametrize(
    "name, line",
    [
        ("casia_b", ("001", "nm-01", "000")),
        ("ou_mvlp", ("00001", "00", "000")),
        ("grew", ("00001train", "00", "abc")),
    ],
)
def test_a_sequence_that_is_there_twice_is_taken_once(tmp_path, name, line):
    store = write_store(tmp_path / "store", [line, line])
    reading = read_benchmark(name, store)
    assert "1 sequences are there more than once" in sentences(reading, "error")
    assert len(reading.train) == 1


def test_what_packing_said_is_repeated(tmp_path):
    rows = [
        ("001", "nm-01", "000", "rejected", "no frames"),
        ("001", "nm-02", "000", "warned", "too short (3 frames)"),
        ("075", "nm-05", "000"),
    ]
    reading = casia_b.read(write_store(tmp_path / "store", rows))
    assert "1 sequences were rejected" in sentences(reading, "warning")
    assert "001/nm-01/000: no frames" in sentences(reading, "warning")
    assert "001/nm-02/000: too short (3 frames)" in sentences(reading, "note")
    assert [sample.condition for sample in reading.train] == ["nm-02"]


def test_a_store_without_a_usable_sequence_is_an_error(tmp_path):
    store = write_store(tmp_path / "store", [("001", "nm-01", "000", "rejected", "all black")])
    with pytest.raises(ValueError, match="holds no usable sequence"):
        load_benchmark("casia_b", store)


# CASIA-B


def test_casia_b_conditions_views_and_cameras(written):
    benchmark = casia_b.load(written["casia_b"], "off")
    assert {sample.pid for sample in benchmark.train} == {1, 2}
    assert {(sample.view, sample.camid) for sample in benchmark.train} == {
        ("000", 0),
        ("090", 5),
        ("180", 10),
    }
    assert len(benchmark.train) == 2 * 10 * 3
    assert len(benchmark.gallery) == 2 * 4 * 3
    assert len(benchmark.query) == 2 * 6 * 3 - 2  # one empty, one missing
    first = written["casia_b"] / "001" / "bg-01" / "000"
    names = (str(first / "001-bg-01-000-001.png"), str(first / "001-bg-01-000-002.png"))
    assert benchmark.train[0].frames == names


def test_casia_b_equals_a_glob(written):
    root, benchmark = written["casia_b"], casia_b.load(written["casia_b"], "off")
    expected = {}
    for file in sorted(root.rglob("*.png")):
        subject, condition, view, _ = file.stem[:3], file.stem[4:9], file.stem[10:13], 0
        expected.setdefault((int(subject), condition, view), []).append(str(file))
    found = {
        (sample.pid, sample.condition, sample.view): list(sample.frames)
        for side in sides(benchmark)
        for sample in side
    }
    assert found == expected


@pytest.mark.parametrize("protocol", ["casia_b", "casia_b_cross_view"])
def test_casia_b_follows_the_gait_protocol_of_that_name(written, protocol):
    benchmark = casia_b.load(written["casia_b"], "off", protocol=protocol)
    rules = GAIT_PROTOCOLS[protocol]
    assert benchmark.protocol.report == ("gait_table",)
    assert benchmark.protocol.exclude == "same_view"
    assert dict(benchmark.protocol.groups) == dict(rules.probes)
    assert {sample.condition for sample in benchmark.gallery} == set(rules.gallery)
    asked = {condition for names in rules.probes.values() for condition in names}
    assert {sample.condition for sample in benchmark.query} == asked
    assert rules.views == casia_b.VIEWS


def test_casia_b_asks_bags_and_coats_of_normal_walks_only(written):
    benchmark = casia_b.load(written["casia_b"], "off")
    assert {sample.condition[:2] for sample in benchmark.gallery} == {"nm"}
    assert {sample.condition[:2] for sample in benchmark.query} == {"nm", "bg", "cl"}


@pytest.fixture(scope="module")
def whole_casia_b(tmp_path_factory):
    rows = [
        (f"{subject:03d}", condition, view)
        for subject in range(1, 125)
        for condition in casia_b.CONDITIONS
        for view in casia_b.VIEWS
    ]
    return write_store(tmp_path_factory.mktemp("whole") / "store", rows)


@pytest.mark.parametrize("split, trained", [("LT", 74), ("MT", 62), ("ST", 24)])
def test_casia_b_splits_are_the_published_ones(whole_casia_b, split, trained):
    reading = casia_b.read(whole_casia_b, split=split)
    assert not reading.findings
    benchmark = casia_b.load(whole_casia_b, split=split)
    assert {sample.pid for sample in benchmark.train} == set(range(1, trained + 1))
    assert {sample.pid for sample in benchmark.query} == set(range(trained + 1, 125))
    assert len(benchmark.train) == trained * 110
    assert (len(benchmark.query), len(benchmark.gallery)) == (
        (124 - trained) * 66,
        (124 - trained) * 44,
    )


@pytest.mark.parametrize("split, trained, tested", [("LT", 73, 50), ("ST", 23, 100)])
def test_subject_005_can_be_left_out(whole_casia_b, split, trained, tested):
    benchmark = casia_b.load(whole_casia_b, split=split, subject_005=False)
    assert len({sample.pid for sample in benchmark.train}) == trained
    assert len({sample.pid for sample in benchmark.gallery}) == tested
    assert 5 not in {sample.pid for sample in benchmark.train}


def test_missing_sequences_are_a_warning_that_names_some(tmp_path, caplog):
    rows = [
        (f"{subject:03d}", condition, view)
        for subject in range(1, 125)
        for condition in casia_b.CONDITIONS
        for view in casia_b.VIEWS
        if (subject, condition) != (5, "bg-01")
    ]
    store = write_store(tmp_path / "store", rows)
    with caplog.at_level(logging.WARNING):
        load_benchmark("casia_b", store, "strict")
    assert "11 of 13,640 sequences" in caplog.text
    assert "005/bg-01/000; 005/bg-01/018" in caplog.text


def test_a_missing_identity_is_an_error_that_names_it(tmp_path):
    rows = [(f"{subject:03d}", "nm-01", "000") for subject in range(1, 125) if subject != 80]
    rows.append(("081", "nm-05", "018"))
    with pytest.raises(ValueError, match="123 identities, expected 124: no 080"):
        load_benchmark("casia_b", write_store(tmp_path / "store", rows))


def test_frames_in_the_folder_of_another_sequence_are_left_out(tree):
    folder = tree("casia_b")
    before = casia_b.read(folder)
    stray = folder / "001" / "nm-01" / "000" / "002-nm-01-000-001.png"
    shutil.copy(folder / "002" / "nm-01" / "000" / "002-nm-01-000-001.png", stray)
    after = casia_b.read(folder)
    assert "1 frames lie in the folder of another sequence" in sentences(after, "error")
    assert after.train == before.train


def test_unknown_splits_and_protocols_are_refused(written):
    with pytest.raises(ValueError, match="split"):
        load_benchmark("casia_b", written["casia_b"], split="XT")
    with pytest.raises(ValueError, match="expected one of LT, MT, ST"):
        casia_b.load(written["casia_b"], split="XT")
    with pytest.raises(ValueError, match="expected one of casia_b, casia_b_cross_view"):
        casia_b.load(written["casia_b"], protocol="both")
    with pytest.raises(ValueError, match="expected local or submission"):
        grew.load(written["grew"], protocol="server")
    with pytest.raises(ValueError, match="unknown key 'fold'"):
        load_benchmark("ou_mvlp", written["ou_mvlp"], fold=1)


def test_a_side_without_a_sequence_is_an_error(tmp_path):
    store = write_store(tmp_path / "store", [("001", "nm-01", "000")])
    assert "no sequence to test with" in sentences(casia_b.read(store), "error")


# OU-MVLP


def test_ou_mvlp_identities_views_and_cameras(written):
    benchmark = ou_mvlp.load(written["ou_mvlp"], "off")
    assert {sample.pid for sample in benchmark.train} == {1, 3}
    assert {sample.pid for sample in benchmark.gallery} == {2, 4, 10307}
    assert {sample.condition for sample in benchmark.train} == {"00", "01"}
    assert {sample.condition for sample in benchmark.query} == {"00"}
    assert {sample.condition for sample in benchmark.gallery} == {"01"}
    cameras = {(sample.view, sample.camid) for sample in benchmark.train}
    assert cameras == {("000", 0), ("090", 6), ("270", 13)}
    assert (len(benchmark.query), len(benchmark.gallery)) == (9, 9 - 2)


def test_ou_mvlp_follows_the_gait_protocol_of_that_name(written):
    benchmark, rules = ou_mvlp.load(written["ou_mvlp"], "off"), GAIT_PROTOCOLS["ou_mvlp"]
    assert dict(benchmark.protocol.groups) == dict(rules.probes)
    assert {sample.condition for sample in benchmark.gallery} == set(rules.gallery)
    assert benchmark.protocol.report == ("gait_table",)
    assert rules.views == ou_mvlp.VIEWS


def test_ou_mvlp_rearranged_gives_the_same_samples(tree, tmp_path):
    folder = tree("ou_mvlp")
    straight = ou_mvlp.load(folder, "off")
    for part in sorted(folder.glob("Silhouette_*")):
        view, walk = part.name.removeprefix("Silhouette_").split("-")
        for subject in (entry for entry in part.iterdir() if entry.is_dir()):
            shutil.copytree(subject, tmp_path / "again" / subject.name / walk / view)
    again = ou_mvlp.load(tmp_path / "again", "off")
    for ours, theirs in zip(sides(again), sides(straight), strict=True):
        assert [sequences_of([sample]) for sample in ours] == [
            sequences_of([sample]) for sample in theirs
        ]


def test_ou_mvlp_splits_the_published_identities(tmp_path, caplog):
    rows = [(f"{subject:05d}", walk, "000") for subject in range(1, 10308) for walk in ("00", "01")]
    store = write_store(tmp_path / "store", rows)
    with caplog.at_level(logging.WARNING):
        benchmark = load_benchmark("ou_mvlp", store, "strict")
    assert len({sample.pid for sample in benchmark.train}) == 5153
    assert (len(benchmark.query), len(benchmark.gallery)) == (5154, 5154)
    assert "test has 10,308 sequences, expected 133,780" in caplog.text


# GREW


def test_grew_local_asks_the_gallery_with_its_second_walks(written):
    benchmark = grew.load(written["grew"], "off")
    assert {sample.condition for sample in benchmark.query} == {"02"}
    assert {sample.condition for sample in benchmark.gallery} == {"01"}
    assert {sample.pid for sample in benchmark.query} == {1, 2}
    assert benchmark.protocol.exclude == "nothing"
    assert benchmark.protocol.report == ("rank-1", "rank-5", "rank-10", "rank-20")


def test_grew_training_identities_are_other_people_than_those_tested(written):
    benchmark = grew.load(written["grew"], "off")
    assert {sample.pid for sample in benchmark.train} == {100001, 100002, 100003}
    assert {sample.camid for sample in benchmark.train} == {-1}
    assert len(benchmark.train) == 3 * 3 - 2


def test_grew_submission_has_unknown_probes_and_the_whole_gallery(written):
    benchmark = grew.load(written["grew"], "off", protocol="submission")
    assert {sample.pid for sample in benchmark.query} == {-1}
    folders = {path.name for path in (written["grew"] / "test" / "probe").iterdir()}
    assert {sample.view for sample in benchmark.query} == folders
    assert len(benchmark.query) == 4
    assert {sample.condition for sample in benchmark.gallery} == {"01", "02"}


def test_grew_submission_without_probes_is_refused(tree):
    folder = tree("grew")
    shutil.rmtree(folder / "test" / "probe")
    assert load_benchmark("grew", folder, "off").query
    with pytest.raises(FileNotFoundError, match="no folder of probes"):
        load_benchmark("grew", folder, "off", protocol="submission")


def test_grew_gives_the_same_samples_as_unpacked_and_rearranged(written, tmp_path):
    again = write_grew(tmp_path / "again", frames=2, rearranged=True)
    for protocol in ("local", "submission"):
        ours, theirs = (
            grew.load(root, "off", protocol=protocol) for root in (again, written["grew"])
        )
        for left, right in zip(sides(ours), sides(theirs), strict=True):
            assert sequences_of(left) == sequences_of(right)
            assert [sample.pid for sample in left] == [sample.pid for sample in right]


@pytest.mark.parametrize("layout", ["auto", "grew"])
def test_grew_packs_as_released(tmp_path, layout):
    raw = write_grew(tmp_path / "raw", frames=6, draw=draw_aligned)
    report = pack_silhouettes(raw, tmp_path / "grew.pack", layout=layout)
    found = grew.scan(raw)
    assert [(one.name, one.why) for one in report.rejected] == [
        (place, "no frames") for place in found.empty
    ]
    assert {one.subject for one in report.sequences} == {
        *("00001", "00002", "00001train", "00002train", "00003train", "probe")
    }
    for protocol in ("local", "submission"):
        packed, tree = (
            grew.load(root, "off", protocol=protocol) for root in (tmp_path / "grew.pack", raw)
        )
        for ours, theirs in zip(sides(packed), sides(tree), strict=True):
            assert ours and counted(ours) == counted(theirs)
    walks = {(w.subject, w.condition, w.view) for w in found.walks}
    assert walks == {
        (s.subject, s.condition, s.view) for s in report.sequences if s.verdict != "rejected"
    }


def test_grew_is_aligned_as_released_and_passes_unchanged(tmp_path):
    raw = write_grew(tmp_path / "raw", frames=6, draw=draw_aligned, odd=False)
    pack_silhouettes(raw, tmp_path / "store")
    store = SilhouetteStore.open(tmp_path / "store")
    assert {one.camid for one in store.sequences} == {-1}
    for one in store.sequences:
        files = sorted(f for f in (raw / one.source).glob("*.png") if "gei" not in f.name)
        frames = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files]
        np.testing.assert_array_equal(store.read(one.start + np.arange(one.length)), frames)


def test_grew_of_published_size_passes_strictly(tmp_path, caplog):
    rows = [(f"{subject:05d}train", "00", "a") for subject in range(1, 20001)]
    rows += [(f"{subject:05d}", c, c) for subject in range(1, 6001) for c in ("01", "02")]
    rows += [("probe", "03", f"v{number}") for number in range(12000)]
    store = write_store(tmp_path / "store", rows)
    with caplog.at_level(logging.WARNING):
        benchmark = load_benchmark("grew", store, "strict")
    assert not caplog.records
    assert len({sample.pid for side in sides(benchmark) for sample in side}) == 26000


# Gait3D


def test_gait3d_probes_are_those_listed_and_the_gallery_is_the_rest(written):
    benchmark = gait3d.load(written["gait3d"], "off")
    lists = json.loads((written["gait3d"] / "Gait3D.json").read_text())
    keys = {f"{s.pid:04d}-{s.condition}-{s.view}" for s in benchmark.query}
    assert keys == set(lists["PROBE_SET"])
    assert {sample.pid for sample in benchmark.train} == {0, 3, 5}
    assert {sample.pid for sample in benchmark.gallery} == {2, 7}
    assert (len(benchmark.train), len(benchmark.query), len(benchmark.gallery)) == (7, 2, 4)
    assert benchmark.protocol.exclude == "nothing"
    assert benchmark.protocol.report == ("rank-1", "rank-5", "rank-10", "mAP", "mINP")
    for sample in benchmark.gallery:
        assert sample.condition.startswith(f"camid{sample.camid}_")


def test_frames_stand_in_the_order_of_their_numbers(tmp_path):
    root = write_gait3d(tmp_path / "raw", frames=4)
    frames = gait3d.load(root, "off").query[0].frames
    numbers = [int(Path(file).stem.removeprefix("human_crop_f")) for file in frames]
    assert numbers == [9998, 9999, 10000, 10001]


def test_gait3d_needs_its_lists(tree):
    folder = tree("gait3d")
    path = folder / "Gait3D.json"
    for text, words in [
        ("{", "is no JSON"),
        ("[]", "no list of names 'TRAIN_SET'"),
        ('{"TRAIN_SET": [], "TEST_SET": [1], "PROBE_SET": []}', "no list of names 'TEST_SET'"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            load_benchmark("gait3d", folder, "off")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no Gait3D.json in "):
        load_benchmark("gait3d", folder, "off")


def test_gait3d_lists_that_contradict_themselves_or_the_data_are_errors(tree):
    folder = tree("gait3d")
    lists = json.loads((folder / "Gait3D.json").read_text())
    lists["TRAIN_SET"] = ["0000", "0002", "0999"]
    lists["PROBE_SET"] += ["0003-camid1_videoid1-seq0", "0002-camid38_videoid9-seq9"]
    (folder / "Gait3D.json").write_text(json.dumps(lists))
    reading = gait3d.read(folder)
    errors = sentences(reading, "error")
    assert "1 identities are in both TRAIN_SET and TEST_SET" in errors
    assert "1 probes of" in errors and "are of no identity in TEST_SET" in errors
    assert "no 0999" in errors
    assert "no 0002-camid38_videoid9-seq9" in errors
    assert "2 identities are in neither list" in sentences(reading, "warning")
    assert {sample.pid for sample in reading.train} == {0}


def test_gait3d_of_published_size_passes_strictly(tmp_path):
    rows, probes = [], []
    for subject in range(4000):
        rows += [(f"{subject:04d}", f"camid{c}_videoid0", "seq0") for c in (0, 38)]
        if subject >= 3000:
            probes.append(f"{subject:04d}-camid0_videoid0-seq0")
    store = write_store(tmp_path / "gait3d.pack", rows)
    names = [f"{subject:04d}" for subject in range(4000)]
    lists = {"TRAIN_SET": names[:3000], "TEST_SET": names[3000:], "PROBE_SET": probes}
    (tmp_path / "Gait3D.json").write_text(json.dumps(lists))
    assert not gait3d.read(tmp_path).findings
    benchmark = load_benchmark("gait3d", store)
    assert (len(benchmark.query), len(benchmark.gallery)) == (1000, 1000)


# Any store


@pytest.fixture
def walkers(tmp_path):
    """Four subjects, four walks, three views, as CASIA Dataset A has them."""
    rows = [
        (subject, walk, view)
        for subject in ("fyc", "hy", "ljg", "lqf")
        for walk in ("1", "2", "3", "4")
        for view in ("090", "000", "045")
    ]
    return write_store(tmp_path / "dataset_a.pack", rows)


def test_the_first_half_trains_and_the_first_conditions_answer(walkers):
    benchmark = load_benchmark("silhouettes", walkers)
    assert (len(benchmark.train), len(benchmark.query), len(benchmark.gallery)) == (24, 12, 12)
    assert {sample.pid for sample in benchmark.train} == {1, 2}
    assert {sample.pid for sample in benchmark.query} == {3, 4}
    assert {sample.condition for sample in benchmark.gallery} == {"1", "2"}
    assert {sample.condition for sample in benchmark.query} == {"3", "4"}
    assert dict(benchmark.protocol.groups) == {"all": ("3", "4")}
    assert benchmark.protocol.report == ("gait_table",)
    assert benchmark.protocol.exclude == "same_view"
    cameras = {(sample.view, sample.camid) for sample in benchmark.train}
    assert cameras == {("000", 0), ("045", 1), ("090", 2)}
    assert {sample.domain for sample in benchmark.train} == {"dataset_a"}


def test_subjects_and_conditions_may_be_named(walkers):
    args = {"train": ["hy"], "gallery": ["4"], "probe": {"A": ["1"], "B": ["2", "3"]}}
    benchmark = load_benchmark("silhouettes", walkers, **args)
    assert {sample.pid for sample in benchmark.train} == {2}
    assert {sample.pid for sample in benchmark.query} == {1, 3, 4}
    assert {sample.condition for sample in benchmark.gallery} == {"4"}
    assert dict(benchmark.protocol.groups) == {"A": ("1",), "B": ("2", "3")}


def test_the_side_that_is_not_named_is_all_the_rest(walkers):
    probe = load_benchmark("silhouettes", walkers, probe={"late": ["4"]})
    assert {sample.condition for sample in probe.gallery} == {"1", "2", "3"}
    gallery = load_benchmark("silhouettes", walkers, gallery=["4"])
    assert dict(gallery.protocol.groups) == {"all": ("1", "2", "3")}


def test_an_empty_list_trains_nobody(walkers):
    benchmark = load_benchmark("silhouettes", walkers, train=[])
    assert not benchmark.train
    assert {sample.pid for sample in benchmark.gallery} == {1, 2, 3, 4}


@pytest.mark.parametrize(
    "args, words",
    [
        ({"train": 0.0}, "train is 0.0, expected a share between 0 and 1"),
        ({"train": 1.0}, "expected a share between 0 and 1"),
        ({"train": ["zz"]}, "no subject 'zz'.*it has fyc, hy"),
        ({"train": ["fyc", "hy", "ljg", "lqf"]}, "the tested subjects have the conditions none"),
        ({"gallery": ["9"]}, "no condition '9'"),
        ({"probe": {"A": ["9"]}}, "no condition '9'"),
        ({"gallery": ["1"], "probe": {"A": ["1"]}}, "conditions 1 are in both gallery and probe"),
        ({"gallery": ["1", "2", "3", "4"]}, "one for each group of probes"),
        ({"probe": {"A": []}}, "one for each group of probes"),
        ({"probe": {}}, "one for each group of probes"),
    ],
)
def test_what_the_store_cannot_give_is_refused(walkers, args, words):
    with pytest.raises(ValueError, match=words):
        load_benchmark("silhouettes", walkers, **args)


def test_a_folder_that_is_no_store_is_refused(written):
    with pytest.raises(FileNotFoundError, match=r"no store.json.*reidkit data pack SRC OUT"):
        load_benchmark("silhouettes", written["casia_b"])


def test_repeated_sequences_and_a_single_view_are_warnings(tmp_path):
    rows = [(subject, walk, "090") for subject in "ab" for walk in "12"]
    reading = silhouettes.read(write_store(tmp_path / "store", [*rows, rows[0]]))
    assert "1 sequences share subject, condition and view" in sentences(reading, "warning")
    assert "all sequences are of one view, '090'" in sentences(reading, "warning")
    assert len(reading.train) == 3


# The writers


def test_stand_ins_are_the_same_bytes_again_and_want_an_empty_folder(tmp_path):
    for name, write in WRITERS.items():
        first, second = (write(tmp_path / name / side, frames=1) for side in "ab")
        files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
        assert files
        for file in files:
            assert (first / file).read_bytes() == (second / file).read_bytes()
        with pytest.raises(ValueError, match="not an empty folder"):
            write(first)


def test_stand_ins_draw_what_the_callback_gives(tmp_path):
    asked = []

    def draw(subject, condition, view, frame):
        asked.append((subject, condition, view, frame))
        return np.full((8, 6), 10 * frame, np.uint8)

    root = write_casia_b_stand_in(
        tmp_path / "raw", subjects=[7], views=["018"], conditions=["nm-01"], draw=draw, odd=False
    )
    assert asked == [("007", "nm-01", "018", frame) for frame in range(4)]
    second = cv2.imread(str(root / "007/nm-01/018/007-nm-01-018-002.png"), cv2.IMREAD_GRAYSCALE)
    assert second.shape == (8, 6) and (second == 10).all()


def test_a_drawn_body_walks_and_is_as_wide_as_its_subject():
    still, step = (draw_body("001", "nm-01", "090", frame) for frame in (0, 2))
    assert (still != step).any()
    areas = {int((draw_body(f"{n:03d}", "nm-01", "090", 0) > 0).sum()) for n in range(1, 9)}
    assert len(areas) > 3
    bag, coat = (draw_body("001", kind, "090", 0) for kind in ("bg-01", "cl-01"))
    assert (bag != still).any() and (coat != still).any()
