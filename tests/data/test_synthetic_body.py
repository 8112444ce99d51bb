import math

import numpy as np
import pytest

from reidkit.data.synthetic import BONES, JOINTS, Camera, Walker
from reidkit.data.synthetic.clothes import COLUMNS, ROWS

PEOPLE = [Walker.sample(0, number) for number in range(5)]
AT = {name: position for position, name in enumerate(JOINTS)}


@pytest.mark.parametrize("walker", PEOPLE)
def test_a_pose_comes_back_after_one_period(walker):
    for t in (0.0, 0.31, 2.7):
        np.testing.assert_allclose(walker.pose(t + walker.period), walker.pose(t), atol=1e-9)


@pytest.mark.parametrize("walker", PEOPLE)
def test_half_a_period_later_left_and_right_have_changed_places(walker):
    now, later = walker.pose(0.2), walker.pose(0.2 + walker.period / 2)
    for part in ("hip", "knee", "ankle", "toe"):
        left, right = now[AT[f"left_{part}"]], later[AT[f"right_{part}"]]
        np.testing.assert_allclose(right, left * (1, -1, 1), atol=1e-9)


@pytest.mark.parametrize("walker", PEOPLE)
def test_bones_are_rigid_over_the_walk(walker):
    poses = walker.poses(np.linspace(0, walker.period, 23))
    for a, b in BONES:
        length = np.linalg.norm(poses[:, AT[a]] - poses[:, AT[b]], axis=1)
        assert np.ptp(length) < 1e-9, f"{a}-{b} changes its length"
        assert length[0] > 0.02


def test_bones_reach_every_joint_once():
    assert sorted(["pelvis", *(end for _, end in BONES)]) == sorted(JOINTS)


def test_the_body_has_the_lengths_it_was_given():
    body, pose = PEOPLE[0].body, PEOPLE[0].pose(0.4)
    for a, b, length in (
        ("left_hip", "left_knee", body.thigh),
        ("right_knee", "right_ankle", body.shin),
        ("left_shoulder", "left_elbow", body.upper_arm),
        ("pelvis", "neck", body.torso),
    ):
        assert math.dist(pose[AT[a]], pose[AT[b]]) == pytest.approx(length)


@pytest.mark.parametrize("walker", PEOPLE)
def test_a_foot_is_always_on_the_ground_and_the_head_is_on_top(walker):
    body, poses = walker.body, walker.poses(np.linspace(0, walker.period, 31))
    ankles = poses[:, [AT["left_ankle"], AT["right_ankle"]], 2] - 0.042 * body.height
    toes = poses[:, [AT["left_toe"], AT["right_toe"]], 2] - 0.012 * body.height
    soles = np.concatenate([ankles, toes], axis=1)
    np.testing.assert_allclose(soles.min(1), 0, atol=1e-12)
    assert (poses[:, :, 2].argmax(1) == AT["crown"]).all()
    # Joint to joint a person is a little shorter standing than the nominal height, and bobs.
    assert np.all(np.abs(poses[:, AT["crown"], 2] / body.height - 0.95) < 0.10)


def test_knees_and_elbows_bend_one_way_only():
    for walker in PEOPLE:
        poses = walker.poses(np.linspace(0, walker.period, 40))
        for side in ("left", "right"):
            hip, knee, ankle = (poses[:, AT[f"{side}_{p}"]] for p in ("hip", "knee", "ankle"))
            thigh = np.arctan2(*(knee - hip).T[[0, 2]] * np.array([[1], [-1]]))
            shin = np.arctan2(*(ankle - knee).T[[0, 2]] * np.array([[1], [-1]]))
            assert (thigh - shin > 0).all()


def test_poses_equal_the_single_poses():
    times = np.array([0.0, 0.7, 1.9])
    stacked = np.stack([PEOPLE[1].pose(t) for t in times])
    np.testing.assert_allclose(PEOPLE[1].poses(times), stacked, atol=1e-12)


def test_the_same_seed_is_the_same_walker_and_another_is_not():
    assert Walker.sample(3, 8) == Walker.sample(3, 8)
    walkers = [Walker.sample(3, number) for number in range(40)]
    assert len({walker.outfit for walker in walkers}) == 40
    assert len({walker.body for walker in walkers}) == 40
    assert len({walker.gait for walker in walkers}) == 40


def test_walkers_share_their_colours():
    tops = [Walker.sample(0, number).outfit.top for number in range(60)]
    assert len(set(tops)) <= 10


def test_speed_is_that_of_a_pedestrian():
    speeds = [Walker.sample(0, number).speed for number in range(60)]
    assert min(speeds) > 0.5 and max(speeds) < 2.6


def test_every_surface_has_its_own_rows_of_the_atlas():
    atlas = PEOPLE[0].atlas
    covered = [row for rows in ROWS.values() for row in range(rows.start, rows.stop)]
    assert covered == list(range(len(atlas)))
    assert atlas.shape[1:] == (COLUMNS, 3) and atlas.dtype == np.uint8


def test_a_point_on_the_axis_is_in_the_middle_of_the_picture():
    camera = Camera(1, (0,), height=2.0, pitch=0.0)
    pixels, depth = camera.project(np.array([[7.0, 0.0, 2.0]]))
    assert pixels[0] == pytest.approx([320, 240]) and depth[0] == pytest.approx(7)


def test_projection_puts_left_to_the_left_up_above_and_far_small():
    camera = Camera(1, (0,), height=2.0, pitch=0.2)
    points = np.array([[6, 1, 1], [6, -1, 1], [6, 0, 2], [6, 0, 0], [12, 1, 1], [12, -1, 1]], float)
    (left, right, top, bottom, far_left, far_right), _ = camera.project(points)
    assert left[0] < right[0] and top[1] < bottom[1]
    assert 1.8 < (right[0] - left[0]) / (far_right[0] - far_left[0]) < 2.2
