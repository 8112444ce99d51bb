import math
import pickle

import cv2
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from reidkit.data import Augment, FrameDataset, FrameSampling, RandomErasing, collate, labels_of
from reidkit.data.draws import Stream, uniform
from reidkit.data.erasing import MEAN_PIXEL
from reidkit.data.frames import read_image
from reidkit.data.pictures.pack import pack_pictures
from reidkit.data.pictures.store import PictureStore
from reidkit.data.silhouettes.store import SilhouetteStore, StoreWriter, store_samples
from reidkit.types import Sample

ONE = FrameSampling("random", 1)


def dataset(samples, **options):
    labels, _ = labels_of(samples)
    options = {"size": (32, 16), "frames": ONE} | options
    return FrameDataset(samples, labels, **options)


def equal(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.fixture
def tracklets(picture):
    """Five tracklets of two to six frames in several sizes, as PNG and JPEG."""
    names = [
        [f"{number}/{place}.{'jpg' if place % 2 else 'png'}" for place in range(number + 2)]
        for number in range(5)
    ]
    sizes = [(32, 16), (48, 24), (64, 24), (100, 60), (16, 8)]
    return [
        Sample(
            tuple(str(picture(name, 10 * i + j, size)) for j, name in enumerate(files)), i, i % 2
        )
        for i, (files, size) in enumerate(zip(names, sizes, strict=True))
    ]


def slow_item(sample, index, repeat, *, size, chosen, seed, epoch, augment):
    """Decode, resize, mirror, shift and erase one frame after the other, in plain NumPy."""
    height, width = size

    def chances(stream, count):
        return uniform(seed, epoch, [index], [repeat], stream, count)[0].tolist()

    of_flip, of_down, of_right = chances(Stream.MOVE, 3)
    down, right = (
        math.floor(chance * (2 * augment.pad + 1)) - augment.pad for chance in (of_down, of_right)
    )
    box = None
    if chances(Stream.ERASING, 1)[0] < augment.erasing.p:
        for attempt in range(100):
            of_area, of_ratio, of_top, of_left = chances(Stream.RECTANGLE + attempt, 4)
            area, ratio = height * width * (0.02 + 0.38 * of_area), 0.3 + 3.0 * of_ratio
            rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < rows < height and 0 < columns < width:
                box = (
                    math.floor(of_top * (height - rows + 1)),
                    math.floor(of_left * (width - columns + 1)),
                    rows,
                    columns,
                )
                break
    frames = []
    for place in chosen:
        image = np.ascontiguousarray(cv2.imread(sample.frames[place])[:, :, ::-1])
        while image.shape[0] >= 2 * height or image.shape[1] >= 2 * width:
            steps = zip(image.shape[:2], (height, width), strict=True)
            pass_to = [now // 2 if now >= 2 * end else min(now, end) for now, end in steps]
            image = cv2.resize(image, pass_to[::-1])
        image = cv2.resize(image, (width, height))
        if of_flip < augment.flip:
            image = image[:, ::-1]
        pad = augment.pad
        padded = np.zeros((height + 2 * pad, width + 2 * pad, 3), np.uint8)
        padded[pad : pad + height, pad : pad + width] = image
        image = padded[pad - down : pad - down + height, pad - right : pad - right + width].copy()
        if box is not None:
            top, left, rows, columns = box
            image[top : top + rows, left : left + columns] = MEAN_PIXEL
        frames.append(image.transpose(2, 0, 1))
    return np.stack(frames)


@pytest.mark.parametrize("size", [(32, 16), (40, 24)])
@pytest.mark.parametrize("choice", ["every", "random"])
def test_a_batch_equals_the_slow_way_frame_by_frame(tracklets, size, choice):
    augment = Augment(0.5, 7, erasing=0.5)
    options = {"size": size, "augment": augment, "seed": 3, "frames": FrameSampling(choice, 2)}
    data = dataset(tracklets, **options)
    plain = dataset(tracklets, **options | {"augment": None})
    indices, repeats = [4, 0, 3, 3, 1, 2, 3, 0], [0, 0, 0, 1, 0, 0, 2, 1]
    for epoch in (0, 5):
        data.set_epoch(epoch)
        plain.set_epoch(epoch)
        batch, unchanged = data.batch(indices), plain.batch(indices)
        for row, (index, repeat) in enumerate(zip(indices, repeats, strict=True)):
            found = batch.frames[row][batch.mask[row]]
            chosen = range(len(tracklets[index].frames))
            if choice == "random":  # which of them follows from the unchanged batch
                every = FrameSampling("every")
                own = dataset(tracklets, size=size, frames=every)[index].frames
                chosen = [
                    [torch.equal(frame, other) for other in own].index(True)
                    for frame in unchanged.frames[row]
                ]
            expected = slow_item(
                tracklets[index],
                index,
                repeat,
                size=size,
                chosen=chosen,
                seed=3,
                epoch=epoch,
                augment=augment,
            )
            np.testing.assert_array_equal(found.numpy(), expected)
            assert not batch.frames[row][~batch.mask[row]].any()


def test_a_batch_is_a_view_of_contiguous_pixels_and_equals_collated_items(tracklets):
    everything = Augment(0.5, 3, 0.3, 0.5, 0.5, 0.3, 0.5, RandomErasing(0.5, fill="random"))
    data = dataset(tracklets, frames=FrameSampling("unfixed", 1, 4), augment=everything)
    batch = data.batch([0, 1, 2, 3, 4, 1])
    assert batch.frames.dtype == torch.uint8
    assert batch.frames.shape[2:] == (3, 32, 16)
    assert batch.frames.permute(0, 1, 3, 4, 2).is_contiguous()
    assert equal(batch, collate(data.__getitems__([0, 1, 2, 3, 4, 1])))
    assert batch.mask.sum(1).tolist() != [batch.mask.shape[1]] * 6


def test_an_item_is_the_same_whatever_batch_it_comes_in(tracklets):
    data = dataset(tracklets, frames=FrameSampling("random", 2), augment=Augment(0.5, 5, 0.2))
    alone = data[3].frames
    for indices in ([3], [0, 3], [4, 3, 1, 2], range(5)):
        batch = data.batch(indices)
        assert torch.equal(batch.frames[list(indices).index(3)], alone)
    again = data.batch([3, 3, 1, 3])
    assert torch.equal(again.frames[0], alone)
    assert not torch.equal(again.frames[1], alone)
    assert torch.equal(again.frames[1], data.batch([3, 3]).frames[1])


def test_a_batch_tells_what_is_known_of_its_samples(samples):
    batch = dataset(samples).batch([7, 0, 11])
    assert batch.label.tolist() == [2, 0, 3]
    assert batch.camid.tolist() == [1, 0, 1]
    assert batch.domain.tolist() == [1, 0, 1]
    assert batch.index.tolist() == [7, 0, 11]
    assert {part.dtype for part in batch[2:]} == {torch.int64}


def test_a_batch_does_not_change_with_the_indices_it_was_made_of(samples):
    indices = np.array([3, 1])
    batch = dataset(samples).batch(indices)
    indices[:] = 0
    assert batch.index.tolist() == [3, 1]


def test_places_that_do_not_exist_are_refused(samples):
    for indices in ([12], [0, -1]):
        with pytest.raises(IndexError, match=r"expected each in \[0, 12\)"):
            dataset(samples).batch(indices)
    with pytest.raises(ValueError, match="at least one index"):
        dataset(samples).batch([])
    assert len(list(dataset(samples))) == 12  # a loop ends where the places do


@pytest.mark.parametrize("packed, size", [((32, 16), (32, 16)), ((48, 24), (32, 16))])
def test_from_a_store_come_the_pixels_that_were_packed(tracklets, tmp_path, packed, size):
    pack_pictures(tracklets, tmp_path / "store", size=packed)
    store = PictureStore.open(tmp_path / "store")
    options = {"size": size, "frames": FrameSampling("random", 3), "augment": Augment(0.5, 5)}
    found = dataset(tracklets, store=store, **options).batch([3, 0, 3, 2])
    if packed == size:
        assert equal(found, dataset(tracklets, **options).batch([3, 0, 3, 2]))
    else:  # resized twice: as the pictures at the packed size, written to files
        files = []
        for number, sample in enumerate(tracklets):
            names = []
            for place, frame in enumerate(sample.frames):
                names.append(str(tmp_path / f"{number}_{place}.png"))
                image = dataset([Sample((frame,), 0)], size=packed)[0].frames[0]
                cv2.imwrite(names[-1], image.permute(1, 2, 0).numpy()[:, :, ::-1])
            files.append(Sample(tuple(names), sample.pid, sample.camid))
        assert equal(found, dataset(files, **options).batch([3, 0, 3, 2]))


def test_a_store_without_a_picture_and_one_for_silhouettes_are_refused(samples, tmp_path):
    pack_pictures(samples[:3], tmp_path / "store", size=(32, 16))
    store = PictureStore.open(tmp_path / "store")
    with pytest.raises(ValueError, match=r"03\.png is not among"):
        dataset(samples, store=store)
    with pytest.raises(ValueError, match="these samples are silhouettes"):
        dataset(samples[:3], store=store, channels=1)


def test_a_dataset_with_a_store_survives_the_way_to_another_process(samples, tmp_path):
    pack_pictures(samples, tmp_path / "store", size=(32, 16))
    data = dataset(samples, store=PictureStore.open(tmp_path / "store"), augment=Augment())
    copy = pickle.loads(pickle.dumps(data))
    assert equal(copy.batch([5, 2]), data.batch([5, 2]))


def test_packed_silhouettes_are_mirrored_shifted_warped_and_erased_with_black(tmp_path):
    clip = np.full((4, 64, 64), 255, np.uint8)
    with StoreWriter(tmp_path / "store") as writer:
        for number in range(8):
            writer.add(f"{number:03d}", "nm-01", "090", clip, source=str(number))
    walks = store_samples(SilhouetteStore.open(tmp_path / "store"), "gait")
    augment = Augment(0.5, 5, affine=0.5, erasing=1.0)
    options = {"channels": 1, "size": (64, 44), "frames": FrameSampling("replacement", 6)}
    batch = dataset(walks, augment=augment, **options).batch(range(8))
    assert batch.frames.shape == (8, 6, 1, 64, 44)
    assert (batch.frames == batch.frames[:, :1]).all()
    assert ((batch.frames == 0).float().mean(dim=(1, 2, 3, 4)) > 0.01).all()
    plain = dataset(walks, **options).batch(range(8))
    assert (plain.frames == 255).all()


def test_labels_number_the_identities_of_all_domains_in_sorted_order():
    pids = [("b", 3), ("a", 9), ("b", 1), ("a", 9), ("a", -1), ("a", 3)]
    samples = [Sample(("x",), pid, domain=domain) for domain, pid in pids]
    assert labels_of(samples) == ([3, 1, 2, 1, -1, 0], 4)


def test_an_item_holds_the_pixels_in_rgb_and_what_is_known(samples):
    item = dataset(samples)[7]
    image = read_image(samples[7].frames[0])
    assert item.frames.dtype == torch.uint8
    assert_close(item.frames[0], torch.from_numpy(image.transpose(2, 0, 1).copy()))
    assert (item.label, item.camid, item.domain, item.index) == (2, 1, 1, 7)


def test_frames_come_in_the_size_asked_for(samples):
    assert dataset(samples, size=(24, 20))[0].frames.shape == (1, 3, 24, 20)


def test_a_tracklet_is_read_in_order_and_changed_alike_in_all_frames(samples):
    still = [Sample(samples[0].frames * 3, 0)]
    item = dataset(still, frames=FrameSampling("every"), augment=Augment(0.5, 6, 0.4))[0]
    assert_close(item.frames[0], item.frames[1])
    assert_close(item.frames[0], item.frames[2])
    moving = [Sample((samples[0].frames[0], samples[1].frames[0]), 0)]
    frames = dataset(moving, frames=FrameSampling("every"))[0].frames
    assert_close(frames[1], dataset(samples)[1].frames[0])


def test_augmentation_follows_from_seed_epoch_and_index_alone(samples):
    first = dataset(samples, augment=Augment(), seed=1)
    again = dataset(samples, augment=Augment(), seed=1)
    again[3], again[0]
    np.random.seed(5)
    assert_close(first[5].frames, again[5].frames)
    epochs = []
    for epoch in range(4):
        first.set_epoch(epoch)
        epochs.append(first[5].frames)
    assert any(not torch.equal(epochs[0], other) for other in epochs[1:])
    first.set_epoch(0)
    assert_close(first[5].frames, epochs[0])
    other = dataset(samples, augment=Augment(), seed=2)
    assert any(not torch.equal(first[i].frames, other[i].frames) for i in range(4))


def test_an_index_that_comes_twice_in_a_batch_is_drawn_anew(samples):
    items = dataset(samples, augment=Augment(pad=12)).__getitems__([4] * 4)
    assert any(not torch.equal(items[0].frames, item.frames) for item in items[1:])
    assert_close(items[0].frames, dataset(samples, augment=Augment(pad=12))[4].frames)


def test_without_augmentation_every_epoch_is_the_same(samples):
    data = dataset(samples)
    before = data[2].frames
    data.set_epoch(9)
    assert_close(data[2].frames, before)


def test_a_corrupt_image_is_a_value_error_with_its_name(samples, tmp_path):
    (tmp_path / "05.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"05\.png is no readable image.*reidkit data check"):
        dataset(samples)[5]


def test_what_does_not_fit_together_is_refused(samples):
    with pytest.raises(ValueError, match="12 samples but 1 labels"):
        FrameDataset(samples, [0], size=(8, 8), frames=ONE)
    with pytest.raises(ValueError, match="size is"):
        dataset(samples, size=(0, 8))
    with pytest.raises(ValueError, match="pad is 10"):
        dataset(samples, size=(16, 8), augment=Augment(pad=10))
    with pytest.raises(ValueError, match="without frames: pid 3, camera 1"):
        dataset([Sample((), 3, 1)])
    with pytest.raises(ValueError, match="channels is 4"):
        dataset(samples, channels=4)
    with pytest.raises(ValueError, match=r"jitter is 0.1, expected 0 for silhouettes"):
        dataset(samples, channels=1, augment=Augment(jitter=0.1))


def test_it_survives_the_way_to_another_process(samples):
    data = dataset(samples, augment=Augment(), seed=3)
    copy = pickle.loads(pickle.dumps(data))
    assert_close(copy[1].frames, data[1].frames)
