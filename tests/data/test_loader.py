import gc
import multiprocessing
import threading
import time

import pytest
import torch
from torch.testing import assert_close
from torch.utils.data import DataLoader

from reidkit.data import (
    Augment,
    DeviceLoader,
    FrameDataset,
    FrameSampling,
    Item,
    Normalise,
    RandomErasing,
    StagedLoader,
    collate,
    eval_loader,
    labels_of,
    train_loader,
)
from reidkit.types import Preprocessing, Sample

SMALL = Preprocessing(size=(32, 16))


def training(samples, **options):
    options = {
        "preprocessing": SMALL,
        "identities": 2,
        "instances": 2,
        "augment": Augment(pad=4),
        "erasing": 0.5,
        "seed": 3,
    } | options
    return train_loader(samples, labels_of(samples)[0], **options)


def item(length, value):
    frames = torch.full((length, 3, 4, 2), value, dtype=torch.uint8)
    return Item(frames, label=value, camid=1, domain=0, index=9)


def equal(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def run_until_error(loader):
    """Batches delivered, kind and text of the error; keeps no traceback, which holds workers."""
    delivered = 0
    try:
        for _ in loader:
            delivered += 1
    except (ValueError, OSError) as error:
        return delivered, type(error), str(error)
    return delivered, None, ""


def test_collate_pads_and_masks():
    batch = collate([item(1, 5), item(3, 7)])
    assert batch.frames.shape == (2, 3, 3, 4, 2)
    assert batch.mask.tolist() == [[True, False, False], [True, True, True]]
    assert (batch.frames[0, 0] == 5).all()
    assert not batch.frames[0, 1:].any()
    assert batch.label.tolist() == [5, 7]
    assert batch.index.dtype == batch.camid.dtype == batch.domain.dtype == torch.int64


def test_evaluation_gives_every_sample_once_normalised_and_unchanged(samples):
    batches = list(eval_loader(samples, preprocessing=SMALL, batch_size=5))
    assert [len(batch.label) for batch in batches] == [5, 5, 2]
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(12))
    assert set(torch.cat([batch.label for batch in batches]).tolist()) == {-1}
    plain = FrameDataset(samples, [0] * 12, size=(32, 16), frames=FrameSampling())
    pixels = Normalise(SMALL.mean, SMALL.std)(collate(plain.__getitems__(range(5))).frames)
    assert_close(batches[0].frames, pixels)


def test_evaluation_reads_at_most_sixteen_frames_unless_told(samples):
    long = [Sample(samples[0].frames * 40, 1), Sample(samples[1].frames * 3, 2)]
    (batch,) = eval_loader(long, preprocessing=SMALL)
    assert batch.mask.sum(1).tolist() == [16, 3]
    (batch,) = eval_loader(long, preprocessing=SMALL, frames="every")
    assert batch.mask.sum(1).tolist() == [40, 3]


def test_training_batches_are_p_times_k_on_the_device(samples):
    loader = training(samples, frames=2)
    batches = list(loader)
    assert len(batches) == len(loader) == 3
    for batch in batches:
        assert batch.frames.shape == (4, 2, 3, 32, 16)
        assert batch.frames.dtype == torch.float32
        assert len(set(batch.label.tolist())) == 2


def test_workers_change_nothing_over_epochs(samples):
    alone, helped = training(samples), training(samples, workers=2)
    firsts = []
    for epoch in range(3):
        alone.set_epoch(epoch)
        helped.set_epoch(epoch)
        ours, theirs = list(alone), list(helped)
        assert len(ours) == len(theirs)
        assert all(map(equal, ours, theirs))
        firsts.append(ours[0])
    assert not equal(firsts[0], firsts[1])


def test_a_skipped_epoch_goes_on_as_the_whole_one_did(samples):
    whole, resumed = training(samples), training(samples)
    whole.set_epoch(2)
    resumed.set_epoch(2)
    resumed.skip(1)
    assert all(map(equal, list(whole)[1:], list(resumed)))
    assert all(map(equal, list(whole), list(resumed)))


def test_the_global_random_state_is_neither_read_nor_moved(samples):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = list(training(samples))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert all(map(equal, first, training(samples)))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_is_a_plain_error_with_and_without_workers(samples, tmp_path, workers):
    (tmp_path / "07.png").write_bytes(b"broken")
    loader = eval_loader(samples, preprocessing=SMALL, batch_size=4, workers=workers)
    delivered, kind, message = run_until_error(loader)
    assert (delivered, kind) == (1, ValueError)
    assert message.startswith(str(tmp_path / "07.png"))
    assert "reidkit data check" in message
    assert "Traceback" not in message


@pytest.mark.parametrize("workers", [0, 1])
def test_an_absent_image_is_a_plain_error(samples, tmp_path, workers):
    (tmp_path / "00.png").unlink()
    loader = eval_loader(samples, preprocessing=SMALL, workers=workers)
    assert run_until_error(loader)[:2] == (0, FileNotFoundError)


def test_leaving_an_epoch_early_leaves_nothing_running(samples):
    gc.collect()
    threads, children = threading.active_count(), len(multiprocessing.active_children())
    loader = training(samples, workers=1)
    for _ in range(2):
        next(iter(loader))
    assert len(list(loader)) == 3
    del loader
    gc.collect()
    # A queue's feeder thread ends by itself a moment after its queue was closed.
    deadline = time.monotonic() + 10
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == threads
    assert len(multiprocessing.active_children()) == children


def test_waiting_is_counted(samples):
    loader = training(samples)
    assert loader.seconds_waiting == 0
    list(loader)
    once = loader.seconds_waiting
    assert once > 0
    list(loader)
    assert loader.seconds_waiting > once


def test_plain_random_batches_take_all_samples(samples):
    (batch, *rest) = training(samples, sampling="random")
    found = torch.cat([batch.index, *(other.index for other in rest)])
    assert sorted(found.tolist()) == list(range(12))


def test_ranks_see_their_slice_of_one_batch_and_erase_differently(samples):
    options = {"augment": None, "erasing": None}
    (one, *_) = training(samples, **options)
    left, right = (next(iter(training(samples, rank=r, world=2, **options))) for r in (0, 1))
    assert torch.equal(one.frames, torch.cat([left.frames, right.frames]))
    erasing = RandomErasing(1.0)
    seeds = [training(samples, rank=r, world=2, erasing=erasing).seed for r in (0, 1)]
    assert seeds[0] != seeds[1]


def test_erasing_follows_normalising(samples):
    options = {"augment": None, "sampling": "random", "identities": 12, "instances": 1}
    (plain,) = training(samples, erasing=0.0, **options)
    (covered,) = training(samples, erasing=1.0, **options)
    changed = covered.frames != plain.frames
    assert changed.flatten(1).any(1).all()
    assert not covered.frames[changed].any()


def test_a_loader_for_evaluation_cannot_skip(samples):
    with pytest.raises(ValueError, match="only a loader for training"):
        eval_loader(samples, preprocessing=SMALL).skip(1)


def test_a_plain_data_loader_is_taken_too(samples):
    data = FrameDataset(samples, [0] * 12, size=(32, 16), frames=FrameSampling())
    loader = DeviceLoader(DataLoader(data, batch_size=6, collate_fn=collate), "cpu", SMALL)
    assert [len(batch.label) for batch in loader] == [6, 6]


def test_stages_follow_one_another(samples):
    small, large = training(samples), training(samples, preprocessing=Preprocessing(size=(48, 24)))
    staged = StagedLoader([(0, small), (2, large)])
    heights = []
    for epoch in range(4):
        staged.set_epoch(epoch)
        heights.append(next(iter(staged)).frames.shape[-2])
    assert heights == [32, 32, 48, 48]
    assert staged.seconds_waiting == small.seconds_waiting + large.seconds_waiting > 0
    staged.skip(1)
    assert len(list(staged)) == len(staged) - 1


@pytest.mark.parametrize("starts", [[], [1], [0, 3, 2]])
def test_stages_out_of_order_are_refused(samples, starts):
    loader = training(samples)
    with pytest.raises(ValueError, match="stages start"):
        StagedLoader([(start, loader) for start in starts])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_side_stream_gives_what_the_cpu_gives(samples):
    cuda = [batch.frames.cpu() for batch in training(samples, device="cuda", erasing=None)]
    cpu = [batch.frames for batch in training(samples, erasing=None)]
    for ours, theirs in zip(cuda, cpu, strict=True):
        assert_close(ours, theirs)
