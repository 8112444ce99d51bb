import numpy as np
import pytest

from reidkit.data.video.boxes import overlapping, overlaps, shares, touches_border
from reidkit.data.video.masks import PersonMask, persons_in
from reidkit.data.video.tracking import TrackRules, track

SIZE = (200, 400)


def person(x, y=50, width=20, height=60):
    x, y = round(x), round(y)
    return PersonMask((x, y, x + width, y + height), np.full((height, width), 255, np.uint8))


def slow_overlap(a, b):
    """Intersection, area of a, and union by counting pixels."""
    cells_a = {(x, y) for x in range(a[0], a[2]) for y in range(a[1], a[3])}
    cells_b = {(x, y) for x in range(b[0], b[2]) for y in range(b[1], b[3])}
    return len(cells_a & cells_b), len(cells_a), len(cells_a | cells_b)


def test_overlaps_and_shares_equal_counted_pixels():
    rng = np.random.default_rng(0)
    low = rng.integers(0, 12, (9, 2))
    boxes = np.hstack([low, low + rng.integers(1, 9, (9, 2))])
    a, b = boxes[:4], boxes[4:]
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            common, area, union = slow_overlap(one.tolist(), other.tolist())
            assert overlaps(a.astype(float), b.astype(float))[i, j] == pytest.approx(common / union)
            assert shares(a.astype(float), b.astype(float))[i, j] == pytest.approx(common / area)


def test_no_frames_and_empty_frames_give_no_tracks():
    assert track([], SIZE) == []
    assert track([[]] * 5, SIZE) == []


def test_one_walker_is_one_track_with_every_frame():
    (found,) = track([[person(20 + 4 * t)] for t in range(30)], SIZE)
    assert found.frames == list(range(30))
    assert found.boxes[3] == (32, 50, 52, 110)
    assert not any(found.border) and not any(found.shared)
    assert len(found.masks) == len(found) == 30


def test_two_walkers_far_apart_are_two_tracks_whatever_the_order_in_a_frame():
    both = [[person(20 + 4 * t), person(350 - 4 * t, y=120)] for t in range(30)]
    turned = [frame[::-1] if t % 2 else frame for t, frame in enumerate(both)]
    first, second = track(turned, SIZE)
    assert [box[1] for box in first.boxes] == [50] * 30
    assert [box[1] for box in second.boxes] == [120] * 30


def crossing(frames=60, speed=4):
    """Two people of one size who pass each other; while they touch there is one box for both."""
    for t in range(frames):
        a, b = person(40 + speed * t), person(280 - speed * t, y=54)
        if abs(a.box[0] - b.box[0]) < 20:
            low, high = min(a.box[0], b.box[0]), max(a.box[2], b.box[2])
            yield [person(low, 50, high - low, 64)]
        else:
            yield [a, b]


def test_people_who_pass_each_other_keep_their_tracks_and_the_shared_frames_are_marked():
    first, second = track(crossing(), SIZE)
    assert first.boxes[0][0] == 40 and first.boxes[-1][0] == 40 + 4 * 59
    assert second.boxes[0][0] == 280 and second.boxes[-1][0] == 280 - 4 * 59
    for found in (first, second):
        wide = [right - left > 20 or bottom - top > 60 for left, top, right, bottom in found.boxes]
        assert sum(wide) > 3
        assert all(shared for shared, w in zip(found.shared, wide, strict=True) if w)


def test_no_track_holds_two_people_when_they_meet_and_part_unclearly():
    frames = []
    for t in range(60):
        apart = max(0, 30 - t) * 2 if t < 30 else max(0, t - 45) * 2
        if apart < 12:
            frames.append([person(190 - apart, 50, 20 + 2 * apart)])
        else:
            frames.append([person(190 - apart), person(190 + apart)])
    for found in track(frames, SIZE):
        alone = [
            box[0] < 190
            for box, shared in zip(found.boxes, found.shared, strict=True)
            if not shared
        ]
        assert len(set(alone)) <= 1


def test_a_gap_is_bridged_up_to_the_rule_and_not_beyond():
    def walk(gap):
        return [[] if 10 <= t < 10 + gap else [person(20 + 3 * t)] for t in range(40)]

    rules = TrackRules(max_gap=5)
    (bridged,) = track(walk(5), SIZE, rules)
    assert bridged.frames == [*range(10), *range(15, 40)]
    assert [len(found) for found in track(walk(6), SIZE, rules)] == [10, 24]


def test_a_track_shorter_than_the_rule_is_left_out():
    frames = [[person(50)]] * 4 + [[]] * 20
    assert track(frames, SIZE, TrackRules(min_length=5)) == []
    assert len(track(frames, SIZE, TrackRules(min_length=4))) == 1


@pytest.mark.parametrize(
    "box", [(0, 5, 20, 60), (5, 0, 20, 60), (380, 5, 400, 60), (5, 140, 9, 200)]
)
def test_boxes_at_the_border_are_marked(box):
    assert touches_border(box, SIZE)
    mask = np.full((box[3] - box[1], box[2] - box[0]), 255, np.uint8)
    (found,) = track([[PersonMask(box, mask)]] * 5, SIZE)
    assert found.border == [True] * 5


def test_a_box_one_pixel_inside_does_not_touch_the_border():
    assert not touches_border((1, 1, 399, 199), SIZE)


def test_boxes_that_overlap_mark_both_and_no_third():
    boxes = np.array([[0, 0, 10, 10], [8, 0, 18, 10], [40, 0, 50, 10]], float)
    assert overlapping(boxes, 0.1) == [True, True, False]
    assert overlapping(boxes[:0], 0.1) == []
    found = track([[person(50), person(62), person(200)]] * 5, SIZE)
    assert [any(one.shared) for one in found] == [True, True, False]


def test_a_box_that_suddenly_grows_is_marked_as_shared():
    frames = [[person(20 + 3 * t)] for t in range(20)]
    frames[15] = [person(20 + 45, 30, 24, 84)]
    (found,) = track(frames, SIZE)
    assert [t for t, shared in zip(found.frames, found.shared, strict=True) if shared] == [15]


def test_parts_of_a_mask_are_persons_unless_small_or_lying():
    mask = np.zeros((200, 200), np.uint8)
    mask[20:100, 20:50] = 255
    mask[20:60, 120:140] = 255  # a torso and, below a belt,
    mask[63:100, 120:140] = 255  # its legs
    mask[150:160, 20:150] = 255  # a shadow
    mask[190:193, 190:193] = 255  # a speck
    first, second = persons_in(mask)
    assert first.box == (20, 20, 50, 100) and (first.mask == 255).all()
    assert second.box == (120, 20, 140, 100)
    assert not second.mask[40:43].any() and second.mask.dtype == np.uint8
    assert persons_in(np.zeros((50, 50), np.uint8)) == []


def test_a_foot_that_enters_before_the_body_is_no_second_person():
    frames = []
    for t in range(30):
        body = person(-10 + 3 * t) if t >= 4 else None
        foot = PersonMask((0, 100, 4 + 3 * t, 110), np.full((10, 4 + 3 * t), 255, np.uint8))
        frames.append(
            [foot]
            if body is None
            else [PersonMask((max(0, body.box[0]), *body.box[1:]), body.mask)]
        )
    found = track(frames, SIZE)
    assert sum(not any(one.shared) and len(one) > 20 for one in found) == 1


def test_three_people_who_stand_together_for_long_come_out_as_new_tracks():
    frames = [[person(40 + 4 * t), person(340 - 4 * t), person(190)] for t in range(30)]
    frames += [[person(150, 50, 80)] for _ in range(60)]
    frames += [[person(150 - 4 * t), person(200 + 4 * t), person(180, 120)] for t in range(1, 20)]
    for found in track(frames, SIZE):
        apart = [t for t, shared in zip(found.frames, found.shared, strict=True) if not shared]
        assert not (min(apart) < 30 and max(apart) >= 90)
