import gc
import hashlib
import multiprocessing
import os
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

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
    PictureStore,
    StagedLoader,
    collate,
    eval_loader,
    labels_of,
    pack_pictures,
    train_loader,
)
from reidkit.data.loader import end_next_time
from reidkit.types import Preprocessing, Sample
from tests.data.conftest import write_picture

KINDS = ("processes", "threads")
SMALL = Preprocessing(size=(32, 16))


def training(samples, **options):
    options = {
        "preprocessing": SMALL,
        "identities": 2,
        "instances": 2,
        "augment": Augment(pad=4),
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


def test_collate_gives_what_the_dataset_gives_as_a_batch(samples):
    mixed = [Sample(samples[0].frames * 3, 1), *samples[1:4]]
    options = {"size": (32, 16), "frames": FrameSampling("every"), "augment": Augment(pad=4)}
    data = FrameDataset(mixed, [0, 1, 2, 3], **options)
    whole, collated = data.batch([2, 0, 3]), collate(data.__getitems__([2, 0, 3]))
    assert equal(whole, collated)
    assert whole.frames.stride() == collated.frames.stride()


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


def test_batches_without_crops_and_groups_are_those_of_before_there_were_any(samples):
    tracklets = [Sample(one.frames * 3, one.pid, one.camid) for one in samples]
    augment = Augment(0.5, 4, 0.2, erasing=0.5)
    loader = training(tracklets, frames=2, augment=augment)
    digest = hashlib.sha256()
    for epoch in range(2):
        loader.set_epoch(epoch)
        for batch in loader.loader:
            digest.update(batch.index.numpy().tobytes())
            digest.update(batch.frames.permute(0, 1, 3, 4, 2).contiguous().numpy().tobytes())
    # Pictures of the size of the batch, so that no resizing of this machine is in it.
    assert digest.hexdigest().startswith("41c2fcab3f86161227e9e212af1bd6f8")


def test_training_batches_are_p_times_k_on_the_device(samples):
    loader = training(samples, frames=2)
    batches = list(loader)
    assert len(batches) == len(loader) == 3
    for batch in batches:
        assert batch.frames.shape == (4, 2, 3, 32, 16)
        assert batch.frames.dtype == torch.float32
        assert len(set(batch.label.tolist())) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_workers_change_nothing_over_epochs(samples, kind):
    alone, helped = training(samples), training(samples, workers=2, worker_kind=kind)
    firsts = []
    for epoch in range(3):
        alone.set_epoch(epoch)
        helped.set_epoch(epoch)
        ours, theirs = list(alone), list(helped)
        assert len(ours) == len(theirs)
        assert all(map(equal, ours, theirs))
        firsts.append(ours[0])
    assert not equal(firsts[0], firsts[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_is_the_same_with_workers_of_either_kind(samples, kind, workers):
    long = [*samples, Sample(samples[0].frames * 3, 1)]
    options = {"preprocessing": SMALL, "batch_size": 3}
    alone = eval_loader(long, **options)
    helped = eval_loader(long, workers=workers, worker_kind=kind, **options)
    for _ in range(2):
        assert all(map(equal, alone, helped))
    assert len(alone) == len(helped) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_changes_no_batch(samples, tmp_path, kind):
    pack_pictures(samples, tmp_path / "store", size=SMALL.size)
    store = PictureStore.open(tmp_path / "store")
    packed = training(samples, store=store, workers=2, worker_kind=kind)
    for sample in samples:
        Path(sample.frames[0]).unlink()  # read from the store, then, and from nowhere else
    received = list(packed)
    for number, sample in enumerate(samples):
        write_picture(Path(sample.frames[0]), number)
    assert all(map(equal, training(samples), received))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_skipped_epoch_goes_on_as_the_whole_one_did(samples, kind, workers):
    whole, resumed = training(samples), training(samples, workers=workers, worker_kind=kind)
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
@pytest.mark.parametrize("kind", KINDS)
def test_a_corrupt_image_is_a_plain_error_with_and_without_workers(
    samples, tmp_path, workers, kind
):
    (tmp_path / "07.png").write_bytes(b"broken")
    loader = eval_loader(
        samples, preprocessing=SMALL, batch_size=4, workers=workers, worker_kind=kind
    )
    delivered, error, message = run_until_error(loader)
    assert (delivered, error) == (1, ValueError)
    assert message.startswith(str(tmp_path / "07.png"))
    assert "reidkit data check" in message
    assert "Traceback" not in message


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_an_absent_image_is_a_plain_error(samples, tmp_path, workers, kind):
    (tmp_path / "00.png").unlink()
    loader = eval_loader(samples, preprocessing=SMALL, workers=workers, worker_kind=kind)
    assert run_until_error(loader)[:2] == (0, FileNotFoundError)


@contextmanager
def nothing_left_running():
    """All threads and processes that were started within end soon after."""
    gc.collect()
    threads, children = set(threading.enumerate()), set(multiprocessing.active_children())
    yield
    gc.collect()
    # A queue's feeder thread ends by itself a moment after its queue was closed.
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
    for child in set(multiprocessing.active_children()) - children:
        child.join(10)
    assert set(threading.enumerate()) <= threads
    assert set(multiprocessing.active_children()) <= children


@pytest.mark.parametrize("kind", KINDS)
def test_leaving_an_epoch_early_leaves_nothing_running(samples, kind):
    with nothing_left_running():
        loader = training(samples, workers=2, worker_kind=kind)
        for _ in range(2):
            next(iter(loader))
        assert len(list(loader)) == 3
        del loader


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", [False, True])
def test_evaluation_leaves_nothing_running_although_the_loader_stays(
    samples, tmp_path, kind, fault
):
    if fault:
        (tmp_path / "07.png").write_bytes(b"broken")
    loader = eval_loader(samples, preprocessing=SMALL, batch_size=4, workers=2, worker_kind=kind)
    for _ in range(2):
        with nothing_left_running():
            assert run_until_error(loader)[0] == (1 if fault else 3)


@pytest.mark.parametrize("kind", KINDS)
def test_no_samples_give_no_batches(kind):
    with nothing_left_running():
        loader = eval_loader([], preprocessing=SMALL, workers=2, worker_kind=kind)
        assert len(loader) == 0
        assert list(loader) == []


def test_worker_processes_outlive_the_first_sigterm(samples):
    alone, helped = training(samples), training(samples, workers=1)
    with nothing_left_running():
        before = set(multiprocessing.active_children())
        batches = iter(helped)
        received = [next(batches)]
        (worker,) = set(multiprocessing.active_children()) - before
        os.kill(worker.pid, signal.SIGTERM)  # as torchrun sends it to the whole group
        os.kill(worker.pid, signal.SIGINT)  # as a terminal does
        received += batches
        assert all(map(equal, alone, received))
        del batches, helped


def test_the_second_sigterm_is_the_default_one_again():
    before = signal.signal(signal.SIGTERM, end_next_time)
    try:
        signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, 1])
def test_channels_stay_last_in_memory_from_reading_to_the_device(samples, kind, workers):
    (batch, *_) = training(samples, workers=workers, worker_kind=kind, frames=2)
    height, width = SMALL.size
    assert batch.frames.stride() == (2 * height * width * 3, height * width * 3, 1, width * 3, 3)


def test_an_unknown_kind_of_workers_is_refused(samples):
    with pytest.raises(ValueError, match="'fibres', expected processes or threads"):
        training(samples, worker_kind="fibres")


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


def test_ranks_together_see_the_augmented_batch_of_one_process(samples):
    for epoch in range(2):
        loaders = [training(samples), *(training(samples, rank=r, world=2) for r in (0, 1))]
        for loader in loaders:
            loader.set_epoch(epoch)
        for one, left, right in zip(*loaders, strict=True):
            assert torch.equal(one.frames, torch.cat([left.frames, right.frames]))
            assert torch.equal(one.index, torch.cat([left.index, right.index]))


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
@pytest.mark.parametrize("kind", KINDS)
def test_the_side_stream_gives_what_the_cpu_gives(samples, kind):
    cuda = [
        batch.frames.cpu()
        for batch in training(samples, device="cuda", workers=1, worker_kind=kind)
    ]
    cpu = [batch.frames for batch in training(samples)]
    for ours, theirs in zip(cuda, cpu, strict=True):
        assert_close(ours, theirs)
