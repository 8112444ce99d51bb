import json
import math

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from reidkit.data import (
    Augment,
    FrameDataset,
    FrameSampling,
    Normalise,
    PictureStore,
    eval_loader,
    labels_of,
    pack_pictures,
    train_loader,
)
from reidkit.data.draws import Draws, Stream, uniform
from reidkit.data.frames import read_image, resize
from reidkit.data.framing import (
    Window,
    central_window,
    frame_into,
    part_of,
    random_windows,
    white_square,
)
from reidkit.models.weights import read_card
from reidkit.types import Preprocessing, Sample, StoredFrames

RNG = np.random.default_rng
ASPECT = (3 / 4, 4 / 3)


def smooth(height, width, seed=0):
    """A picture without edges, which every way to resize it brings to nearly the same."""
    small = RNG(seed).integers(0, 256, (4, 3, 3)).astype(np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def framed(picture, size, read, **options):
    place = np.empty((*size, 3), np.uint8)
    frame_into(picture, place, read, **options)
    return place


def close(found, expected, mean=1.0):
    assert found.shape == np.asarray(expected).shape
    assert np.abs(found.astype(int) - np.asarray(expected)).mean() < mean


def slow_window(size, share, aspect, index):
    """One window by a loop, as a student would write torchvision's rule down."""
    height, width = size
    for attempt in range(10):
        chances = uniform(4, 1, [index], [0], Stream.CROP + attempt, 4)[0].tolist()
        area = share[0] + (share[1] - share[0]) * chances[0]
        low, high = math.log(aspect[0]), math.log(aspect[1])
        factor = math.exp(low + (high - low) * chances[1])
        rows = round(math.sqrt(area / factor) * height)
        columns = round(math.sqrt(area * factor) * width)
        if 0 < rows <= height and 0 < columns <= width:
            top = math.floor(chances[2] * (height - rows + 1))
            return top, math.floor(chances[3] * (width - columns + 1)), rows, columns
    rows, columns = height, width
    if aspect[0] > 1:
        rows = round(height / aspect[0])
    elif aspect[1] < 1:
        columns = round(width * aspect[1])
    return (height - rows) // 2, (width - columns) // 2, rows, columns


@pytest.mark.parametrize("size", [(64, 64), (256, 128), (7, 300)])
@pytest.mark.parametrize(
    "share, aspect",
    [
        ((0.5, 1.0), ASPECT),
        ((0.08, 1.0), ASPECT),
        ((0.9, 1.0), (1.5, 2.0)),  # never fits: the middle
        ((0.95, 1.0), (0.3, 0.5)),
        ((1.0, 1.0), ASPECT),  # hardly ever fits
        ((0.001, 0.002), (0.05, 20.0)),
    ],
)
def test_random_windows_are_those_of_the_slow_rule(size, share, aspect):
    found = random_windows(size, share, aspect, Draws.of(4, 1, range(200), [0] * 200))
    assert found == [slow_window(size, share, aspect, index) for index in range(200)]
    for top, left, rows, columns in found:
        assert 0 <= top <= top + rows <= size[0] and rows > 0
        assert 0 <= left <= left + columns <= size[1] and columns > 0


def test_random_windows_spread_over_areas_forms_and_places():
    draws = Draws.of(0, 0, range(4000), [0] * 4000)
    windows = np.array(random_windows((512, 256), (0.2, 0.6), (0.5, 2.0), draws))
    top, left, rows, columns = windows.T
    area = rows * columns / (512 * 256)
    assert (np.abs(np.quantile(area, [0, 0.5, 1]) - [0.2, 0.4, 0.6]) < 0.02).all()
    form = np.log2(columns / rows * 2)  # of the picture's own form
    assert (np.abs(np.quantile(form, [0, 0.5, 1]) - [-1, 0, 1]) < 0.05).all()
    for start, length, whole in ((top, rows, 512), (left, columns, 256)):
        place = start[length < whole] / (whole - length[length < whole])
        assert (np.abs(np.quantile(place, [0, 0.25, 0.5, 0.75, 1]) * 4 - range(5)) < 0.15).all()


def test_one_share_and_one_form_are_a_crop_of_fixed_size_at_random_places():
    share = (227 / 256) ** 2
    draws = Draws.of(0, 0, range(500), [0] * 500)
    windows = random_windows((256, 256), (share, share), (1.0, 1.0), draws)
    assert {window[2:] for window in windows} == {(227, 227)}
    assert {window.top for window in windows} == set(range(30))


def test_the_middle_of_a_form_out_of_reach_is_as_large_as_can_be():
    assert central_window((100, 50), (0.75, 1.333)) == (0, 0, 100, 50)
    assert central_window((100, 50), (2.0, 3.0)) == (25, 0, 50, 50)
    assert central_window((100, 50), (0.2, 0.5)) == (0, 12, 100, 25)


def test_a_window_is_a_view_of_the_same_part_of_the_picture():
    picture = smooth(100, 40)
    part = part_of(picture, Window(5, 10, 20, 20), (50, 40))
    assert part.base is not None and np.shares_memory(part, picture)
    np.testing.assert_array_equal(part, picture[10:50, 10:30])
    for read in ((3, 3), (50, 40), (300, 400)):
        for window in random_windows(
            read, (0.01, 1.0), ASPECT, Draws.of(0, 0, range(50), [0] * 50)
        ):
            rows, columns = part_of(picture[:2, :1], window, read).shape[:2]
            assert rows in (1, 2) and columns == 1


@pytest.mark.parametrize("shape", [(300, 150), (231, 499)])
def test_a_window_is_near_the_same_box_resized_by_pillow(shape):
    picture, read, size = smooth(*shape), (128, 64), (112, 56)
    draws = Draws.of(2, 0, range(20), [0] * 20)
    for window in random_windows(read, (0.5, 1.0), ASPECT, draws):
        scale = shape[1] / read[1], shape[0] / read[0]
        left, top = window.left * scale[0], window.top * scale[1]
        box = (left, top, left + window.width * scale[0], top + window.height * scale[1])
        expected = Image.fromarray(picture).resize(size[::-1], Image.Resampling.BILINEAR, box=box)
        close(framed(picture, size, read, window=window), expected, 1.5)  # half a pixel off


def test_without_a_window_the_middle_of_the_resized_picture_comes():
    picture = smooth(90, 40)
    whole = Image.fromarray(picture).resize((64, 128), Image.Resampling.BILINEAR)
    close(framed(picture, (113, 57), (128, 64)), whole.crop((3, 7, 60, 120)))
    np.testing.assert_array_equal(
        framed(picture, (113, 57), (128, 64)), resize(picture, (128, 64))[7:120, 3:60]
    )
    np.testing.assert_array_equal(framed(picture, (9, 8), (9, 8)), resize(picture, (9, 8)))


def slow_white_square(picture, side):
    rows, columns = picture.shape[:2]
    luma = picture @ [0.299, 0.587, 0.114]
    inside = [
        (row, column)
        for row in range(rows)
        for column in range(columns)
        if round(luma[row, column]) < 250
    ]
    box = (0, 0, rows, columns)
    if inside:
        ys, xs = [place[0] for place in inside], [place[1] for place in inside]
        box = (
            max(min(ys) - 15, 0),
            max(min(xs) - 15, 0),
            min(max(ys) + 16, rows),
            min(max(xs) + 16, columns),
        )
    image = Image.fromarray(picture[box[0] : box[2], box[1] : box[3]])
    scale = side / max(image.size)
    width, height = (max(round(length * scale), 1) for length in image.size)
    square = Image.new("RGB", (side, side), (255, 255, 255))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return np.asarray(square)


@pytest.mark.parametrize(
    "shape, thing",
    [
        ((80, 90), (slice(20, 60), slice(30, 50))),
        ((80, 90), (slice(0, 10), slice(70, 90))),  # the margin ends with the picture
        ((40, 100), (slice(0, 40), slice(0, 100))),
        ((100, 9), (slice(3, 4), slice(2, 3))),
        ((50, 50), (slice(0, 0), slice(0, 0))),  # all white
    ],
)
def test_a_white_square_is_that_of_the_slow_way(shape, thing):
    picture = np.full((*shape, 3), 253, np.uint8)
    spot = picture[thing]
    spot[:] = smooth(200, 200)[: spot.shape[0], : spot.shape[1]] // 2
    for side in (128, 97):
        found = white_square(picture, side)
        close(found, slow_white_square(picture, side))
        corner = framed(picture, (90, 90), (side, side), fit="white_square")
        start = (side - 90) // 2
        np.testing.assert_array_equal(corner, found[start : start + 90, start : start + 90])
        window = Window(3, 4, 90, 90)
        np.testing.assert_array_equal(
            framed(picture, (90, 90), (side, side), fit="white_square", window=window),
            found[3:93, 4:94],
        )


def test_grey_250_is_background_and_249_is_not():
    for grey, alone in ((250, False), (249, True)):
        picture = np.full((60, 60, 3), 255, np.uint8)
        picture[30, 30] = grey
        square = white_square(picture, 31)  # the pixel and its margin are 31 long
        assert (square[15, 15] == grey).all() == alone


TRACKLET = [f"{place}.png" for place in range(3)]


@pytest.fixture
def tracklets(picture):
    """Two tracklets of pictures of two sizes."""
    return [
        Sample(tuple(str(picture(f"{pid}/{name}", pid, size)) for name in TRACKLET), pid)
        for pid, size in enumerate([(64, 32), (100, 60)])
    ]


def dataset(samples, **options):
    options = {"size": (32, 16), "frames": FrameSampling("every")} | options
    return FrameDataset(samples, labels_of(samples)[0], **options)


def pixels(data, indices):
    return data.batch(indices).frames.permute(0, 1, 3, 4, 2).numpy()


@pytest.mark.parametrize("crop, fit", [(1.0, "stretch"), (0.8, "stretch"), (0.8, "white_square")])
def test_a_training_batch_is_windows_alike_in_all_frames(tracklets, crop, fit):
    size = (32, 32) if fit == "white_square" else (32, 16)
    read = tuple(round(side / crop) for side in size)
    data = dataset(
        tracklets, size=size, augment=Augment(0, 0, crop=(0.3, 0.9)), crop=crop, fit=fit, seed=4
    )
    assert data.read_size == read
    data.set_epoch(1)
    indices, repeats = [1, 0, 1], [0, 0, 1]
    draws = Draws.of(4, 1, indices, repeats)
    windows = random_windows(read, (0.3, 0.9), ASPECT, draws)
    assert len(set(windows)) == 3
    found = pixels(data, indices)
    for row, (index, window) in enumerate(zip(indices, windows, strict=True)):
        for place, name in enumerate(tracklets[index].frames):
            expected = framed(read_image(name), size, read, fit=fit, window=window)
            np.testing.assert_array_equal(found[row, place], expected)
        assert (found[row] == found[row, :1]).all()
    np.testing.assert_array_equal(pixels(data, [1])[0], found[0])


def test_windows_draw_for_themselves_and_the_rest_follows(tracklets):
    flips = [pixels(dataset(tracklets, augment=Augment(0.5, 0)), [0] * 8)]
    whole = Augment(0.5, 0, crop=(1.0, 1.0), aspect=(1.0, 1.0))
    flips.append(pixels(dataset(tracklets, augment=whole), [0] * 8))
    np.testing.assert_array_equal(*flips)


def test_a_clip_by_hand_is_cropped_as_a_picture_read_at_its_size():
    clip = np.repeat(smooth(32, 16)[None], 2, axis=0)
    found = Augment(0, 0, crop=(0.3, 0.6))(clip, seed=5)
    (window,) = random_windows((32, 16), (0.3, 0.6), ASPECT, Draws.of(5, 0, [0], [0]))
    for frame in found:
        np.testing.assert_array_equal(frame, framed(clip[0], (32, 16), (32, 16), window=window))


@pytest.mark.parametrize("packed", [(40, 20), (64, 32), (25, 30)])
@pytest.mark.parametrize("augment", [None, Augment(0.5, 2, crop=(0.3, 0.9))])
def test_a_packed_store_gives_parts_of_the_pictures_it_holds(tracklets, tmp_path, packed, augment):
    pack_pictures(tracklets, tmp_path / "store", size=packed)
    files = []
    for sample in tracklets:
        names = []
        for place, name in enumerate(sample.frames):
            names.append(str(tmp_path / f"packed_{sample.pid}_{place}.png"))
            cv2.imwrite(names[-1], resize(read_image(name), packed)[:, :, ::-1])
        files.append(Sample(tuple(names), sample.pid))
    options = {"crop": 0.8, "augment": augment, "seed": 2}
    from_store = dataset(tracklets, store=PictureStore.open(tmp_path / "store"), **options)
    found = pixels(from_store, [1, 0, 1])
    np.testing.assert_array_equal(found, pixels(dataset(files, **options), [1, 0, 1]))


def test_what_cannot_be_framed_is_refused_in_one_line(tracklets, tmp_path):
    pack_pictures(tracklets, tmp_path / "store", size=(32, 32))
    store = PictureStore.open(tmp_path / "store")
    with pytest.raises(ValueError, match=r"'white_square' needs the pictures as they are"):
        dataset(tracklets, size=(32, 32), fit="white_square", store=store)
    with pytest.raises(ValueError, match=r"'white_square' needs a square size, got \(32, 16\)"):
        dataset(tracklets, fit="white_square")
    with pytest.raises(ValueError, match=r"crop is \(0\.5, 1\.0\), expected None for silhouettes"):
        dataset(tracklets, channels=1, augment=Augment(crop=(0.5, 1.0)))
    with pytest.raises(ValueError, match=r"expected 1\.0 and 'stretch' for silhouettes"):
        dataset(tracklets, channels=1, crop=0.9)
    walk = [Sample(StoredFrames("nowhere", 0, 3), 0)]
    with pytest.raises(ValueError, match=r"nowhere#0 is a silhouette; crop and fit are for RGB"):
        dataset(walk, crop=0.9).batch([0])


@pytest.mark.parametrize(
    "values, words",
    [
        ({"crop": 0.0}, r"crop is 0\.0, expected in \(0, 1\]"),
        ({"crop": 1.1}, r"crop is 1\.1, expected in \(0, 1\]"),
        ({"crop": math.nan}, "crop is nan"),
        ({"fit": "squash"}, "fit is 'squash', expected stretch or white_square"),
        ({"fit": "white_square", "size": (256, 128)}, "needs a square size"),
        ({"mean": (0.0,), "std": (1.0,), "crop": 0.5}, "for silhouettes, which are aligned"),
    ],
)
def test_preprocessing_that_cannot_be_is_refused(values, words):
    with pytest.raises(ValueError, match=words):
        Preprocessing(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"crop": (0.0, 1.0)},
        {"crop": (0.8, 0.5)},
        {"crop": (0.5, 1.1)},
        {"crop": (math.nan, 1.0)},
        {"aspect": (0.0, 1.0)},
        {"aspect": (2.0, 1.0)},
        {"aspect": (1.0, math.inf)},
    ],
)
def test_windows_out_of_range_are_refused(values):
    with pytest.raises(ValueError, match=f"{next(iter(values))} is .* expected two rising"):
        Augment(**values)


def test_a_picture_is_read_at_its_size_over_the_crop():
    assert Preprocessing(size=(227, 227), crop=0.887).read_size == (256, 256)
    assert Preprocessing().read_size == Preprocessing().size
    assert Preprocessing(size=(224, 112), crop=0.875).read_size == (256, 128)


@pytest.mark.parametrize("fit", ["stretch", "white_square"])
@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_obeys_the_preprocessing_of_the_model(tracklets, fit, workers):
    asked = Preprocessing(size=(28, 28), crop=0.875, fit=fit)
    (batch,) = eval_loader(tracklets, preprocessing=asked, workers=workers, worker_kind="threads")
    for row, index in enumerate(batch.index.tolist()):
        for place, name in enumerate(tracklets[index].frames):
            expected = framed(read_image(name), (28, 28), (32, 32), fit=fit)
            frame = torch.from_numpy(expected).permute(2, 0, 1)[None, None]
            plain = Normalise(asked.mean, asked.std)(frame)[0, 0]
            torch.testing.assert_close(batch.frames[row, place], plain)


def test_training_without_random_windows_sees_the_middle(tracklets):
    asked = Preprocessing(size=(28, 14), crop=0.875)
    options = {"preprocessing": asked, "identities": 2, "instances": 1}
    (batch,) = train_loader(tracklets, labels_of(tracklets)[0], **options)
    (plain,) = eval_loader(tracklets, preprocessing=asked, frames="every")
    for row, index in enumerate(batch.index.tolist()):
        torch.testing.assert_close(batch.frames[row, 0], plain.frames[index, 0])


def card(tmp_path, **preprocessing):
    plain = {"size": [28, 28], "mean": [0.5] * 3, "std": [0.2] * 3} | preprocessing
    content = {"format": 1, "preprocessing": plain, "spec": {"name": "reid"}, "num_classes": 2}
    content |= {"embedding_size": 4, "parts": 1}
    (tmp_path / "model.json").write_text(json.dumps(content))
    return tmp_path


def test_cards_from_before_take_the_whole_picture_and_new_ones_what_they_say(tmp_path):
    old = read_card(card(tmp_path)).preprocessing
    assert (old.crop, old.fit) == (1.0, "stretch")
    new = read_card(card(tmp_path, crop=0.875, fit="white_square")).preprocessing
    assert new == Preprocessing((28, 28), (0.5,) * 3, (0.2,) * 3, 0.875, "white_square")
    for wrong in ({"crop": 2}, {"crop": "x"}, {"crop": None}, {"fit": "squash"}, {"fit": []}):
        with pytest.raises(ValueError, match="value of the wrong kind"):
            read_card(card(tmp_path, **wrong))
