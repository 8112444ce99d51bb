from dataclasses import replace

import cv2
import numpy as np
import pytest

from reidkit.data.synthetic import Box, Camera, Place, Walker, render, see

CAMERA = replace(Camera.sample(1, 0), noise=0.0, blur=0.0)
WALKER = Walker.sample(0, 2)


def around(seen):
    box = seen.box
    height = 1.15 * box.height
    left = box.left + box.width / 2 - height / 4
    return Box(left, box.top - 0.07 * box.height, height / 2, height)


def view(walker=WALKER, camera=CAMERA, heading=np.pi, x=7.0, t=0.2, seed=0, **options):
    seen = see(walker, camera, Place(x, 0.0, heading, t))
    box = options.pop("box", around(seen))
    return render([seen], camera, box, np.random.default_rng(seed), **options)


def empty(camera=CAMERA, seed=0, box=None, **options):
    box = box or around(see(WALKER, camera, Place(7.0, 0.0, np.pi, 0.2)))
    return render([], camera, box, np.random.default_rng(seed), **options)


@pytest.mark.parametrize("size", [(128, 64), (64, 32), (256, 128), (37, 19)])
def test_image_and_mask_have_the_size_asked_for(size):
    image, mask = view(size=size)
    assert image.shape == (*size, 3) and image.dtype == np.uint8
    assert mask.shape == size and mask.dtype == np.uint8


def test_the_mask_is_where_the_person_is_drawn():
    image, mask = view()
    background, nothing = empty()
    assert not nothing.any()
    change = np.abs(image.astype(int) - background.astype(int)).max(2)
    # The shadow on the ground differs too, but reaches no higher than the hips.
    # Enlarging the sensor's pixels bleeds by one of ours.
    outside = cv2.dilate(mask, np.ones((3, 3)))[:64] == 0
    assert (change[:64][outside] <= 12).all()
    inside = cv2.erode((mask == 255).astype(np.uint8), np.ones((3, 3))) == 1
    assert (change[inside] > 12).mean() > 0.8
    assert 0.1 < (mask > 127).mean() < 0.5


def test_the_box_of_a_walker_is_the_box_of_its_mask():
    seen = see(WALKER, CAMERA, Place(6.0, 0.0, 0.4, 0.1))
    _, mask = render([seen], CAMERA, seen.box, np.random.default_rng(0), (256, 128))
    rows, columns = np.nonzero(mask > 0)
    assert rows.min() <= 3 and rows.max() >= 252
    assert columns.min() <= 3 and columns.max() >= 124


def test_front_and_back_of_a_backpack_carrier_differ():
    bag = next(w for w in (Walker.sample(0, n) for n in range(50)) if w.outfit.bag == "backpack")
    front, _ = view(bag, heading=np.pi)
    back, _ = view(bag, heading=0.0)
    assert np.abs(front.astype(int) - back.astype(int)).mean() > 4


def test_somebody_nearer_hides_the_first_person_in_picture_and_mask():
    far, near = (see(WALKER, CAMERA, Place(x, 0.0, np.pi, 0.2)) for x in (7.5, 7.0))
    box = around(far)
    alone = render([far], CAMERA, box, np.random.default_rng(0))[1]
    hidden = render([far, near], CAMERA, box, np.random.default_rng(0))[1]
    behind = render([near, far], CAMERA, around(near), np.random.default_rng(0))[1]
    assert (hidden > 127).sum() < 0.5 * (alone > 127).sum()
    unhidden = render([near], CAMERA, around(near), np.random.default_rng(0))[1]
    np.testing.assert_array_equal(behind, unhidden)


def test_an_obstacle_takes_the_person_out_of_the_mask_and_adds_nothing():
    for seed in range(12):
        _, free = view(seed=seed)
        _, blocked = view(seed=seed, occluded=True)
        assert (blocked <= free).all()
    assert any((view(seed=s, occluded=True)[1] < view(seed=s)[1]).any() for s in range(12))


def test_a_box_without_anybody_and_outside_the_picture_is_still_a_picture():
    for box in (Box(-900, -900, 50, 100), Box(5000, 5000, 10, 20), Box(0, 0, 1, 1)):
        image, mask = empty(box=box)
        assert image.shape == (128, 64, 3) and not mask.any()


def test_the_same_walker_looks_different_in_two_cameras():
    one, other = Camera.sample(1, 0), Camera.sample(2, 0)
    assert one != other and Camera.sample(1, 0) == one
    a, b = view(camera=one)[0], view(camera=other)[0]
    assert np.abs(a.astype(int) - b.astype(int)).mean() > 8


def test_same_random_numbers_same_pixels():
    np.testing.assert_array_equal(view(seed=4)[0], view(seed=4)[0])
    noisy = Camera.sample(1, 0)
    assert (view(camera=noisy, seed=4)[0] != view(camera=noisy, seed=5)[0]).any()


def test_a_brighter_cast_makes_a_redder_picture():
    plain, red = (replace(CAMERA, cast=cast) for cast in ((1.0, 1.0, 1.0), (1.4, 1.0, 0.8)))
    change = empty(red)[0].mean((0, 1)) - empty(plain)[0].mean((0, 1))
    assert change[0] > 5 and change[2] < -5
