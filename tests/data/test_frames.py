import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reidkit.data.draws import Draws
from reidkit.data.frames import FrameSampling, read_image, resize, resize_into

RNG = np.random.default_rng


@given(
    choice=st.sampled_from(["random", "evenly", "every"]),
    count=st.integers(1, 40),
    frames=st.integers(1, 60),
    seed=st.integers(0, 5),
)
def test_chosen_frames_exist_ascend_and_are_as_many_as_promised(choice, count, frames, seed):
    sampling = FrameSampling(choice, count)
    chosen = sampling.choose(frames, RNG(seed))
    assert len(chosen) == sampling.length(frames)
    assert chosen == sorted(chosen)
    assert all(0 <= place < frames for place in chosen)
    if frames >= count or choice == "evenly":
        assert len(set(chosen)) == len(chosen)


def test_an_image_always_gives_its_frame():
    for choice in ("random", "evenly", "every"):
        assert FrameSampling(choice, 1).choose(1, RNG(0)) == [0]


def test_evenly_takes_the_middle_of_equal_stretches():
    assert FrameSampling("evenly", 3).choose(9, RNG(0)) == [1, 4, 7]
    assert FrameSampling("evenly", 2).choose(10, RNG(0)) == [2, 7]
    assert FrameSampling("evenly", 5).choose(3, RNG(0)) == [0, 1, 2]


def test_random_of_a_short_tracklet_has_all_frames_and_repeats():
    chosen = FrameSampling("random", 5).choose(3, RNG(0))
    assert len(chosen) == 5
    assert set(chosen) == {0, 1, 2}


def test_random_reaches_every_frame_and_repeats_with_its_generator():
    sampling = FrameSampling("random", 2)
    assert sampling.choose(50, RNG(3)) == sampling.choose(50, RNG(3))
    seen = {place for seed in range(60) for place in sampling.choose(6, RNG(seed))}
    assert seen == set(range(6))


def test_a_count_or_word_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        FrameSampling("random", 0)
    with pytest.raises(ValueError, match="random, replacement, ordered, unfixed, evenly, every"):
        FrameSampling("stride", 2)  # type: ignore[arg-type]
    for least, most in ((3, None), (3, 2)):
        with pytest.raises(ValueError, match="expected count <= most"):
            FrameSampling("unfixed", least, most)
    with pytest.raises(ValueError, match="for the choice 'unfixed' alone"):
        FrameSampling("random", 3, 4)


def test_with_replacement_every_frame_is_as_likely_and_may_come_again():
    drawn = FrameSampling("replacement", 3000).choose(3, RNG(0))
    assert len(drawn) == 3000
    assert all(900 < drawn.count(place) < 1100 for place in range(3))
    assert drawn != sorted(drawn)  # a set in no order
    assert any(
        len(set(FrameSampling("replacement", 5).choose(5, RNG(seed)))) < 5 for seed in range(5)
    )


def test_ordered_frames_follow_one_another_from_every_start():
    starts = set()
    for seed in range(60):
        chosen = FrameSampling("ordered", 4).choose(8, RNG(seed))
        assert chosen == list(range(chosen[0], chosen[0] + 4))
        starts.add(chosen[0])
    assert starts == {0, 1, 2, 3, 4}
    assert FrameSampling("ordered", 7).choose(3, RNG(0)) == [0, 1, 2, 0, 1, 2, 0]


def test_unfixed_draws_every_number_of_frames_between_its_ends():
    sampling = FrameSampling("unfixed", 3, 6)
    lengths = {len(sampling.choose(20, RNG(seed))) for seed in range(60)}
    assert lengths == {3, 4, 5, 6}
    assert sampling.length(20) == 6


class Untouched:
    """Stands in for a generator that nobody may ask."""


@pytest.mark.parametrize(
    "sampling",
    [
        FrameSampling("random", 1),
        FrameSampling("random", 3),
        FrameSampling("replacement", 3),
        FrameSampling("ordered", 3),
        FrameSampling("unfixed", 3, 3),
        FrameSampling("evenly", 3),
        FrameSampling("every"),
    ],
)
def test_of_an_image_nothing_is_drawn(sampling):
    chosen = sampling.choose(1, Untouched())
    assert chosen == [0] * sampling.length(1)
    assert not sampling.is_drawn(1)


@pytest.mark.parametrize("choice", ["random", "replacement", "ordered", "unfixed", "evenly"])
def test_the_frames_of_an_item_do_not_depend_on_its_batch(choice):
    sampling = FrameSampling(choice, 3, 5 if choice == "unfixed" else None)
    lengths = [90, 1, 40, 2, 90]
    draws = Draws.of(2, 1, range(5), [0] * 5)
    whole = sampling.choose_each(lengths, draws)
    for row, frames in enumerate(lengths):
        assert sampling.choose_each([frames], draws.take([row])) == [whole[row]]
        assert all(0 <= place < frames for place in whole[row])
    if choice != "evenly":
        assert whole[0] != whole[4]
        assert sampling.choose_each(lengths, Draws.of(2, 2, range(5), [0] * 5)) != whole


def test_an_image_of_unfixed_length_is_repeated_as_often_as_drawn():
    draws = Draws.of(0, 0, range(60), [0] * 60)
    chosen = FrameSampling("unfixed", 2, 4).choose_each([1] * 60, draws)
    assert {tuple(places) for places in chosen} == {(0,) * 2, (0,) * 3, (0,) * 4}


def test_grey_and_transparent_pictures_come_with_three_channels(tmp_path):
    grey, clear = tmp_path / "grey.png", tmp_path / "clear.png"
    cv2.imwrite(str(grey), np.full((5, 4), 77, np.uint8))
    cv2.imwrite(str(clear), np.full((5, 4, 4), 88, np.uint8))
    assert (read_image(str(grey)) == 77).all()
    assert read_image(str(clear)).shape == (5, 4, 3)


@pytest.mark.parametrize("content, words", [(b"", "is empty"), (b"text", "is no readable image")])
def test_what_is_no_picture_is_named_with_the_way_out(tmp_path, content, words):
    file = tmp_path / "bad.jpg"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"bad.jpg {words}.*reidkit data check"):
        read_image(str(file))


def test_a_jpeg_without_its_end_is_refused_and_one_with_a_tail_is_read(picture):
    file = picture("a.jpg", size=(64, 32))
    whole = file.read_bytes()
    file.write_bytes(whole + b"written behind the picture")
    assert read_image(str(file)).shape == (64, 32, 3)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.jpg is cut short"):
        read_image(str(file))


def test_an_absent_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image .*gone\.jpg"):
        read_image(str(tmp_path / "gone.jpg"))
    with pytest.raises(ValueError, match="cannot read"):
        read_image(str(tmp_path))


@pytest.mark.parametrize("size", [(500, 400), (301, 447), (1000, 130), (224, 448)])
def test_shrinking_is_near_the_mean_over_the_area(size):
    draw = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    image = cv2.resize(draw, size[::-1], interpolation=cv2.INTER_CUBIC)
    by_area = cv2.resize(image, (112, 112), interpolation=cv2.INTER_AREA)
    assert np.abs(resize(image, (112, 112)).astype(int) - by_area).mean() < 2


def test_shrinking_more_than_twice_averages_over_the_area():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert (resize(stripes, (16, 16)) == 100).all()


@pytest.mark.parametrize("size", [(12, 6), (24, 12), (5, 3), (7, 30)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_into_a_batch_touches_its_place_alone(size, channels):
    image = RNG(0).integers(0, 256, (12, 6, channels), dtype=np.uint8)
    batch = np.full((3, *size, channels), 7, np.uint8)
    resize_into(image, batch[1])
    np.testing.assert_array_equal(batch[1].reshape(*size, -1), resize(image, size))
    assert (batch[[0, 2]] == 7).all()


def test_resizing_to_the_same_size_changes_nothing():
    image = RNG(0).integers(0, 256, (12, 6, 3), dtype=np.uint8)
    assert (resize(image, (12, 6)) == image).all()
