import pickle

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from reidkit.data import Augment, FrameDataset, FrameSampling, labels_of
from reidkit.data.frames import read_image
from reidkit.types import Sample

ONE = FrameSampling("random", 1)


def dataset(samples, **options):
    labels, _ = labels_of(samples)
    options = {"size": (32, 16), "frames": ONE} | options
    return FrameDataset(samples, labels, **options)


def test_labels_number_the_identities_of_all_domains_in_sorted_order():
    pids = [("b", 3), ("a", 9), ("b", 1), ("a", 9), ("a", -1), ("a", 3)]
    samples = [Sample(("x",), pid, domain=domain) for domain, pid in pids]
    assert labels_of(samples) == ([3, 1, 2, 1, -1, 0], 4)


def test_an_item_holds_the_pixels_in_rgb_and_what_is_known(samples):
    item = dataset(samples)[7]
    image = read_image(samples[7].frames[0])
    assert item.frames.dtype == torch.uint8
    assert_close(item.frames[0], torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy()))
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


def test_it_survives_the_way_to_another_process(samples):
    data = dataset(samples, augment=Augment(), seed=3)
    copy = pickle.loads(pickle.dumps(data))
    assert_close(copy[1].frames, data[1].frames)
