import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from reidkit.data.adapters import mars as mars_adapter
from reidkit.data.benchmarks import BENCHMARKS
from reidkit.data.silhouettes.align import align
from reidkit.data.silhouettes.store import SilhouetteStore
from reidkit.data.synthetic import casia_b, gait_room, mars
from reidkit.data.synthetic.body import Body
from reidkit.data.synthetic.casia_b import spread, write_casia_b, write_casia_b_store
from reidkit.data.synthetic.gait_room import (
    CONDITIONS,
    SIZE,
    VIEWS,
    on_a_walk,
    silhouettes,
    subject,
    watch,
)
from reidkit.data.synthetic.mars import write_mars
from reidkit.data.synthetic.video import write_video
from reidkit.data.synthetic.walker import Walker
from reidkit.data.synthetic.walking_benchmarks import load_casia_b, load_mars

ROOM = {"train_subjects": 2, "test_subjects": 1, "frames": 3, "views": 3}
STREET = {
    "train_identities": 3, "test_identities": 2, "cameras": 3, "tracklets": 2, "frames": 4,
    "size": (32, 16),
}  # fmt: skip
TIMES = np.arange(12) / 15


def rng(*seed):
    return np.random.default_rng(seed)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def energy(masks) -> np.ndarray:
    return np.mean([align(mask) for mask in masks], axis=0)


# ---------------------------------------------------------------- the room


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("view", ["000", "054", "090", "180"])
def test_a_silhouette_is_one_body_inside_the_picture(view, condition):
    for number in range(1, 9):
        masks = silhouettes(
            subject(number, 0), float(view), TIMES, condition=condition, rng=rng(number)
        )
        assert masks.shape == (len(TIMES), *SIZE) and masks.dtype == np.uint8
        assert set(np.unique(masks)) == {0, 255}
        border = (masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1])
        assert not any(side.any() for side in border)
        assert all(align(mask) is not None for mask in masks)
        _, _, facts, _ = cv2.connectedComponentsWithStats(masks[0])
        assert facts[1:, cv2.CC_STAT_AREA].max() > 0.8 * (masks[0] > 0).sum()


def test_long_sequences_stay_in_the_picture():
    masks = silhouettes(subject(1, 0), 90, np.arange(150) / 15, rng=rng(0))
    assert masks.any((1, 2)).all()
    assert not masks[:, :, [0, -1]].any() and not masks[:, [0, -1]].any()


def test_no_times_no_masks():
    assert silhouettes(subject(1, 0), 90, np.empty(0), rng=rng(0)).shape == (0, *SIZE)


def test_from_the_side_people_cross_and_from_the_front_they_come_nearer():
    def columns(masks):
        return [np.nonzero(mask.any(0))[0].mean() for mask in masks]

    def rows(masks):
        return [mask.any(1).sum() for mask in masks]

    person = subject(2, 0)
    times = np.arange(9) / 15
    side, front, back = (silhouettes(person, view, times, rng=rng(4)) for view in (90, 0, 180))
    assert columns(side)[0] - columns(side)[-1] > 15  # to the left
    assert abs(columns(front)[0] - columns(front)[-1]) < 8
    assert rows(front)[-1] - rows(front)[0] > 3
    assert rows(back)[0] - rows(back)[-1] > 3


def test_a_stride_is_wide_from_the_side_only():
    def widths(masks):
        return [mask[mask.any(1)][-25:].any(0).sum() for mask in masks]

    for number in range(1, 6):
        side, front = (
            silhouettes(subject(number, 0), view, TIMES, rng=rng(number)) for view in (90, 0)
        )
        assert max(widths(side)) > 1.3 * max(widths(front))


def test_a_clean_mask_is_the_one_of_the_renderer(monkeypatch):
    # The slow twin: the textured picture's own silhouette of the same body at the same place.
    from reidkit.data.synthetic.render import Box, Place, Seen, render

    shapes = []
    real = gait_room.surfaces
    monkeypatch.setattr(gait_room.Faults, "spoil", lambda self, mask: None)
    monkeypatch.setattr(
        gait_room, "surfaces", lambda *args: shapes.append((real(*args), args)) or shapes[-1][0]
    )
    masks = silhouettes(subject(5, 0), 54, TIMES[:4], condition="bg", rng=rng(1))
    for mask, (shape, (walker, camera, _, x, y, heading)) in zip(masks, shapes, strict=True):
        seen = Seen(walker, Place(x, y, heading), shape, 0.0)
        box = Box(0, 0, SIZE[1], SIZE[0])
        _, drawn = render([seen], camera, box, rng(0), SIZE)
        either, both = (drawn > 127) | (mask > 0), (drawn > 127) & (mask > 0)
        assert both.sum() > 0.93 * either.sum()


def area(masks, first, last) -> float:
    """Foreground between two shares of the aligned height, as a share of the frame."""
    return float(energy(masks)[int(64 * first) : int(64 * last)].mean() / 255)


def test_a_coat_covers_the_thighs_and_thickens_the_trunk():
    wider = []
    for number in range(1, 9):
        person = replace(
            subject(number, 0), outfit=replace(subject(number, 0).outfit, bottom="trousers")
        )
        plain, coat = (
            silhouettes(person, 90, TIMES, condition=condition, rng=rng(number))
            for condition in ("nm", "cl")
        )
        wider.append(
            (
                area(coat, 0.5, 0.75) / area(plain, 0.5, 0.75),
                area(coat, 0.2, 0.5) / area(plain, 0.2, 0.5),
            )
        )
    assert (np.mean(wider, axis=0) > 1.1).all()


def test_a_bag_adds_to_the_body():
    more = []
    for number in range(1, 13):
        plain, bag = (
            silhouettes(subject(number, 0), 90, TIMES, condition=condition, rng=rng(number))
            for condition in ("nm", "bg")
        )
        more.append(area(bag, 0, 1) / area(plain, 0, 1))
    assert np.mean(more) > 1.02


def test_bags_and_coats_differ_from_walk_to_walk():
    bags = [on_a_walk(subject(1, 0), "bg", rng(n)).outfit for n in range(20)]
    assert {bag.bag for bag in bags} == {"shoulder_bag", "handbag", "backpack"}
    assert {bag.bag_side for bag in bags} == {-1, 1}
    assert len({bag.bag_size for bag in bags}) == 20
    coats = [on_a_walk(subject(1, 0), "cl", rng(n)).outfit for n in range(20)]
    assert all(coat.coat and 0.7 < coat.coat_length < 1.15 for coat in coats)
    assert len({coat.padding for coat in coats}) == 20


def test_subjects_come_without_bag_and_coat_and_walks_of_one_day_are_alike():
    for number in range(1, 30):
        person = subject(number, 0)
        assert person.outfit.bag == "none" and not person.outfit.coat
        walk = on_a_walk(person, "nm", rng(number))
        assert walk != person
        assert 0.9 < walk.speed / person.speed < 1.1 or walk.gait.stride != person.gait.stride
        assert 0.9 < walk.gait.cadence / person.gait.cadence < 1.1
        assert walk.body.thigh == person.body.thigh


def test_an_unknown_condition_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'coat', expected one of nm, bg, cl"):
        on_a_walk(subject(1, 0), "coat", rng(0))


def test_same_chances_same_masks_and_others_others():
    walk = on_a_walk(subject(1, 0), "nm", rng(1))
    one, again, other = (watch(walk, 36, TIMES, rng(seed)) for seed in (2, 2, 3))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_segmentation_has_faults(monkeypatch):
    walk = on_a_walk(subject(1, 0), "nm", rng(1))
    spoilt = watch(walk, 90, TIMES, rng(2))
    monkeypatch.setattr(gait_room.Faults, "spoil", lambda self, mask: None)
    clean = watch(walk, 90, TIMES, rng(2))
    wrong = ((spoilt > 0) != (clean > 0)).sum((1, 2)) / (clean > 0).sum((1, 2))
    assert (wrong > 0.01).all() and np.median(wrong) < 0.2


def test_energy_images_know_people_in_one_view_and_hardly_across_views():
    people = range(1, 9)

    def of(view, walk):
        return [
            energy(silhouettes(subject(n, 0), view, np.arange(18) / 15, rng=rng(n, walk, view)))
            for n in people
        ]

    def rank_1(probes, gallery):
        nearest = [int(np.argmin([((p - g) ** 2).sum() for g in gallery])) for p in probes]
        return np.mean([place == found for place, found in enumerate(nearest)])

    assert rank_1(of(90, 1), of(90, 2)) >= 0.75
    assert rank_1(of(90, 1), of(0, 2)) <= 0.5


def test_variety_stretches_proportions_only_when_asked_for():
    for number in range(20):
        plain, strong = (Body.sample(rng(number), variety=v) for v in (1.0, 2.0))
        assert Body.sample(rng(number)) == plain
        assert strong.height == plain.height and strong.girth == plain.girth
        for part, ratio in (("thigh", 0.245), ("shoulder_width", 0.112)):
            usual = ratio * plain.height
            assert getattr(strong, part) - usual == pytest.approx(
                2 * (getattr(plain, part) - usual), abs=1e-9
            )
    assert Walker.sample(0, 3).gait == Walker.sample(0, 3, variety=2.0).gait


# ---------------------------------------------------------------- CASIA-B


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    out = tmp_path_factory.mktemp("casia_b") / "tree"
    write_casia_b(out, **ROOM, seed=3)
    return out


NAME = re.compile(r"(\d{3})-((?:nm|bg|cl)-\d\d)-(\d{3})-(\d{3})\.png")


def test_the_tree_has_the_layout_of_casia_b(tree):
    pictures = sorted(tree.rglob("*.png"))
    assert len(pictures) == 3 * 10 * 3 * 3
    for path in pictures:
        subject_, walk, view, _ = NAME.fullmatch(path.name).groups()
        assert path.parent == tree / subject_ / walk / view
    assert sorted(p.name for p in tree.iterdir()) == ["001", "002", "003"]
    assert sorted(p.name for p in (tree / "001" / "nm-01").iterdir()) == ["000", "090", "180"]
    walks = sorted(p.name for p in (tree / "003").iterdir())
    assert walks == sorted(walk for _, walk in casia_b.WALKS)
    mask = cv2.imread(str(pictures[0]), cv2.IMREAD_UNCHANGED)
    assert mask.shape == SIZE and set(np.unique(mask)) == {0, 255}


def test_the_tree_is_the_same_for_the_same_seed_and_another_for_another(tree, tmp_path):
    write_casia_b(tmp_path / "again", **ROOM, seed=3)
    assert files(tmp_path / "again") == files(tree)
    write_casia_b(tmp_path / "other", **ROOM, seed=4)
    assert files(tmp_path / "other") != files(tree)


def test_the_store_holds_the_aligned_silhouettes_of_the_tree(tree, tmp_path):
    write_casia_b_store(tmp_path / "store", **ROOM, seed=3)
    store = SilhouetteStore.open(tmp_path / "store")
    assert len(store.sequences) == 3 * 10 * 3
    for one in store.sequences:
        assert one.verdict == "good" and one.camid == VIEWS.index(one.view)
        folder = tree / one.subject / one.condition / one.view
        masks = [cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in sorted(folder.iterdir())]
        expected = np.stack([align(mask) for mask in masks])
        found = store.read(np.arange(one.start, one.start + one.length))
        np.testing.assert_array_equal(found, expected)


def test_more_subjects_or_views_leave_a_sequence_as_it_is():
    few = casia_b.sequences(subjects=1, frames=2, views=2, seed=0)
    many = casia_b.sequences(subjects=2, frames=2, views=3, seed=0)
    many = {seen[:3]: seen.masks for seen in many}
    for seen in few:
        np.testing.assert_array_equal(seen.masks, many[seen[:3]])


def test_views_are_spread_with_both_ends():
    assert spread(11) == VIEWS and spread(2) == ("000", "180")
    assert spread(3) == ("000", "090", "180")
    for views in range(2, 12):
        assert len(set(spread(views))) == views


@pytest.mark.parametrize(
    "key, value",
    [("train_subjects", 0), ("test_subjects", 0), ("frames", 0), ("views", 1), ("views", 12)],
)
@pytest.mark.parametrize("write", [write_casia_b, write_casia_b_store])
def test_impossible_numbers_of_a_room_are_named_before_anything_is_written(
    tmp_path, write, key, value
):
    with pytest.raises(ValueError, match=f"{key} = {value}, expected"):
        write(tmp_path / "out", **{**ROOM, key: value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [write_casia_b, write_casia_b_store, write_mars])
def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path, write):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match="empty"):
        write(tmp_path, **(STREET if write is write_mars else ROOM))
    assert files(tmp_path) == {"mine.txt": b"keep"}


def test_progress_counts_sequences_to_the_total(tmp_path):
    calls = []
    write_casia_b_store(tmp_path / "a", **ROOM, progress=lambda *numbers: calls.append(numbers))
    assert calls == [(done, 90) for done in range(1, 91)]


def test_the_room_as_a_benchmark_has_the_protocol_of_casia_b(tmp_path, monkeypatch):
    found = load_casia_b(tmp_path, **ROOM)
    assert found.name == "synthetic_casia_b"
    assert found.protocol.exclude == "same_view" and found.protocol.report == ("gait_table",)
    assert set(found.protocol.groups) == {"NM", "BG", "CL"}
    assert {s.pid for s in found.train} == {1, 2} and len(found.train) == 2 * 10 * 3
    assert {s.pid for s in found.query} == {s.pid for s in found.gallery} == {3}
    assert {s.condition for s in found.gallery} == {f"nm-0{n}" for n in range(1, 5)}
    assert len(found.query) == 6 * 3 and len(found.gallery) == 4 * 3
    assert {(s.view, s.camid) for s in found.query} == {("000", 0), ("090", 5), ("180", 10)}
    assert {s.domain for s in found.train + found.query} == {"synthetic_casia_b"}
    monkeypatch.setattr(casia_b, "sequences", None)
    assert BENCHMARKS.build("synthetic_casia_b", ROOM, root=tmp_path) == found
    assert len(list(tmp_path.iterdir())) == 1


def test_an_interrupted_room_leaves_nothing_behind(tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(casia_b, "watch", stop)
    with pytest.raises(KeyboardInterrupt):
        load_casia_b(tmp_path, **ROOM)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- MARS


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    out = tmp_path_factory.mktemp("mars") / "street"
    write_mars(out, **STREET, seed=3)
    return out


def test_the_street_has_the_layout_of_mars(street):
    name = re.compile(r"(\d{4}|00-1)C[1-3]T\d{4}F\d{3}\.jpg")
    for side in ("bbox_train", "bbox_test"):
        for path in (street / side).rglob("*.jpg"):
            assert name.fullmatch(path.name) and path.parent.name == path.name[:4]
            assert cv2.imread(str(path)).shape == (32, 16, 3)
    people = {p.name for p in (street / "bbox_test").iterdir()}
    assert {"0000", "00-1"} < people and len(people) == 4
    assert len(list((street / "bbox_train").iterdir())) == 3
    assert not people & {p.name for p in (street / "bbox_train").iterdir()}
    for side in ("train", "test"):
        names = (street / "info" / f"{side}_name.txt").read_text().splitlines()
        assert sorted(names) == sorted(p.name for p in (street / f"bbox_{side}").rglob("*.jpg"))


def test_the_street_is_read_by_the_adapter_of_mars_without_faults(street):
    found = mars_adapter.read(street)
    numbers = mars_adapter.compare(mars_adapter.read_tracks(street / "info"))
    faults = [f for f in found.findings if f.severity != "note" and f not in numbers]
    assert faults == []
    assert all(len(sample.frames) == 4 for sample in found.train + found.gallery)
    assert len({sample.pid for sample in found.train}) == 3


def test_the_street_is_the_same_for_the_same_seed_and_another_for_another(street, tmp_path):
    def pictures(folder):
        return {name: data for name, data in files(folder).items() if name.endswith("jpg")}

    write_mars(tmp_path / "again", **STREET, seed=3)
    assert pictures(tmp_path / "again") == pictures(street)
    write_mars(tmp_path / "other", **STREET, seed=4)
    assert pictures(tmp_path / "other") != pictures(street)


@pytest.mark.parametrize("protocol", ["mars", "without_queries"])
def test_every_query_of_the_street_has_an_answer_in_another_camera(tmp_path, protocol):
    found = load_mars(tmp_path, **STREET, protocol=protocol)
    assert found.name == "synthetic_mars" and found.query
    for query in found.query:
        assert any(s.pid == query.pid and s.camid != query.camid for s in found.gallery)
    assert {s.domain for s in found.train + found.query + found.gallery} == {"synthetic_mars"}
    assert (set(found.query) <= set(found.gallery)) == (protocol == "mars")


def test_the_street_renders_once(tmp_path, monkeypatch):
    found = load_mars(tmp_path, **STREET)
    monkeypatch.setattr(mars, "render_walk", None)
    arguments = {**STREET, "size": [32, 16]}
    assert BENCHMARKS.build("synthetic_mars", arguments, root=tmp_path) == found


def test_a_street_with_a_lost_frame_is_refused(tmp_path):
    found = load_mars(tmp_path, **STREET)
    Path(found.train[0].frames[1]).unlink()
    with pytest.raises(ValueError, match="synthetic_mars"):
        load_mars(tmp_path, **STREET)


def test_a_third_of_the_frames_is_bad_and_bad_ones_come_in_stretches():
    found = [mars.faults(40, rng(n)) for n in range(200)]
    bad = np.array([[fault != "" for fault in row] for row in found])
    assert 0.30 < bad.mean() < 0.42
    stays = (bad[:, 1:] & bad[:, :-1]).sum() / bad[:, :-1].sum()
    assert stays > 0.5
    assert {fault for row in found for fault in row} == {"", "occluded", "boxed", "covered"}
    assert all(len(row) == 40 for row in found) and mars.faults(1, rng(0)) in ([""], ["boxed"])


@pytest.mark.parametrize("key, value", [("cameras", 7), ("tracklets", 1), ("size", (4, 4))])
def test_impossible_numbers_of_a_street_are_named(tmp_path, key, value):
    with pytest.raises(ValueError, match="height" if key == "size" else key):
        write_mars(tmp_path / "out", **{**STREET, key: value})
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- video

SHORT = {"fps": 5.0, "size": (96, 128), "seed": 0}


def frames_of(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (found := capture.read())[0]:
        frames.append(found[1])
    return frames


def test_people_are_where_the_truth_says_and_nobody_in_the_first_second(tmp_path):
    write_video(tmp_path / "a.mp4", pids=[4, 2], **SHORT)
    truth = json.loads((tmp_path / "a.json").read_text())
    frames = frames_of(tmp_path / "a.mp4")
    assert len(frames) == truth["frames"] and frames[0].shape == (96, 128, 3)
    scene = np.median(np.stack(frames[:5]), axis=0)
    change = [np.abs(frame - scene).max(2) > 40 for frame in frames]
    assert all(changed.mean() < 0.002 for changed in change[:5])
    assert [c["pid"] for c in truth["crossings"]] == [4, 2]
    assert [c["subject"] for c in truth["crossings"]] == ["004", "002"]
    first, second = truth["crossings"]
    assert 1 <= first["start"] < first["end"] < second["start"]
    for crossing in truth["crossings"]:
        assert crossing["first_frame"] >= 5
        middle = (crossing["first_frame"] + crossing["last_frame"]) // 2
        left, top, right, bottom = crossing["boxes"][str(middle)]
        inside = change[middle][top:bottom, left:right]
        assert inside.mean() > 0.15
        assert change[middle][: top - 2].sum() < 10
    seen = {int(n) for c in truth["crossings"] for n in c["boxes"]}
    assert all(change[n].mean() < 0.002 for n in range(len(frames)) if n not in seen)


def test_people_together_keep_their_distance(tmp_path):
    write_video(tmp_path / "a.mp4", pids=[1, 2, 3], together=True, **SHORT)
    crossings = json.loads((tmp_path / "a.json").read_text())["crossings"]
    boxes = [{int(n): box for n, box in crossing["boxes"].items()} for crossing in crossings]
    shared = 0
    for ahead, behind in pairwise(boxes):
        for number in ahead.keys() & behind.keys():
            shared += 1
            assert ahead[number][2] <= behind[number][0]
    assert shared > 3


def test_people_go_left_as_in_view_090_unless_asked_for_both_ways(tmp_path):
    write_video(tmp_path / "a.mp4", pids=[1, 2], both_ways=True, **SHORT)
    crossings = json.loads((tmp_path / "a.json").read_text())["crossings"]
    moves = []
    for crossing in crossings:
        first, last = (
            crossing["boxes"][str(crossing[f"{end}_frame"])] for end in ("first", "last")
        )
        moves.append(last[0] - first[0])
    assert moves[0] < 0 < moves[1]


def test_a_video_is_the_same_for_the_same_arguments(tmp_path):
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", pids=[1], **SHORT)
    for one, other in zip(
        frames_of(tmp_path / "a.mp4"), frames_of(tmp_path / "b.mp4"), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.mp4", "b.json", "b.mp4"]


def test_a_video_is_as_long_as_asked_for(tmp_path):
    write_video(tmp_path / "a.mp4", pids=[1], seconds=12, **SHORT)
    assert len(frames_of(tmp_path / "a.mp4")) == 60


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"pids": []}, "different numbers from 1 on"),
        ({"pids": [1, 1]}, "different numbers from 1 on"),
        ({"pids": [0]}, "different numbers from 1 on"),
        ({"seconds": 2.0}, "but these 1 people need"),
        ({"fps": 0}, "fps is 0"),
        ({"size": (95, 128)}, "even height and width"),
        ({"size": (96, 4000)}, "even height and width"),
        ({"together": True, "both_ways": True}, "leave out together"),
    ],
)
def test_impossible_videos_are_refused_and_nothing_is_written(tmp_path, arguments, words):
    with pytest.raises(ValueError, match=words):
        write_video(tmp_path / "a.mp4", **{"pids": [1], **SHORT, **arguments})
    with pytest.raises(ValueError, match="expected one that ends in"):
        write_video(tmp_path / "a.avi", pids=[1])
    assert list(tmp_path.iterdir()) == []
