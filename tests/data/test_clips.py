import shutil

import cv2
import numpy as np
import pytest
import torch

from reidkit.data import Augment, FrameSampling, eval_loader, train_loader
from reidkit.data.baselines import gait_energy_image
from reidkit.data.clips import Wanted, fill_clips, fit, is_store, read_clip, show
from reidkit.data.silhouettes.store import SilhouetteStore, StoreWriter, store_samples
from reidkit.types import SILHOUETTES, Preprocessing, Sample, StoredFrames

RNG = np.random.default_rng


def walk(length, seed):
    """Silhouettes (T, 64, 64) of noise in the middle columns."""
    clip = np.zeros((length, 64, 64), np.uint8)
    clip[:, :, 20:44] = RNG(seed).integers(0, 256, (length, 64, 24))
    return clip


@pytest.fixture
def packed(tmp_path):
    """A store of six walks of two people, and the walks."""
    walks = [walk(5 + seed, seed) for seed in range(6)]
    with StoreWriter(tmp_path / "store") as writer:
        for number, frames in enumerate(walks):
            writer.add(
                f"{1 + number % 2:03d}", f"nm-0{1 + number // 2}", "090", frames, source=str(number)
            )
    return store_samples(SilhouetteStore.open(tmp_path / "store"), "gait"), walks


def test_a_packed_sequence_gives_the_frames_that_were_chosen_without_its_outer_columns(packed):
    samples, walks = packed
    clip = read_clip(samples[2], [3, 0, 3], (64, 44), channels=1)
    assert clip.shape == (3, 64, 44, 1)
    np.testing.assert_array_equal(clip[..., 0], walks[2][[3, 0, 3]][:, :, 10:54])


def test_files_of_aligned_silhouettes_read_like_the_store(packed, tmp_path):
    samples, walks = packed
    paths = []
    for number, frame in enumerate(walks[1]):
        paths.append(str(tmp_path / f"{number}.png"))
        cv2.imwrite(paths[-1], frame)
    loose = Sample(tuple(paths), 1)
    for chosen in ([0, 1, 2], [4, 4, 1]):
        np.testing.assert_array_equal(
            read_clip(loose, chosen, (64, 44), channels=1),
            read_clip(samples[1], chosen, (64, 44), channels=1),
        )


def test_a_raw_silhouette_is_refused_with_the_way_out(tmp_path):
    cv2.imwrite(str(tmp_path / "raw.png"), np.zeros((240, 320), np.uint8))
    sample = Sample((str(tmp_path / "raw.png"),), 1)
    with pytest.raises(ValueError, match=r"240 x 320, expected a square.*reidkit data pack"):
        read_clip(sample, [0], (64, 44), channels=1)


@pytest.mark.parametrize("kind", ["packed", "files", "both"])
def test_clips_are_filled_one_after_the_other_as_they_are_read(packed, tmp_path, kind):
    samples, walks = packed
    files = []
    for number, frame in enumerate(walks[1]):
        files.append(str(tmp_path / f"{number}.png"))
        cv2.imwrite(files[-1], frame)
    loose = Sample(tuple(files), 1)
    chosen = {"packed": samples[:3], "files": [loose] * 3, "both": [*samples[:2], loose]}[kind]
    wanted = [Wanted(sample, [0, 2, 2]) for sample in chosen]
    places = list(np.full((3, 3, 64, 44, 1), 7, np.uint8))
    for number, place in enumerate(fill_clips(wanted, places)):
        assert place is places[number]
        np.testing.assert_array_equal(place, read_clip(*wanted[number], (64, 44), channels=1))
        assert all((later == 7).all() for later in places[number + 1 :])


def test_a_model_of_pictures_refuses_silhouettes(packed):
    samples, _ = packed
    with pytest.raises(ValueError, match="takes RGB pictures"):
        read_clip(samples[0], [0], (64, 44))


def test_another_height_scales_and_keeps_the_share_of_the_width():
    clip = np.zeros((2, 64, 64), np.uint8)
    clip[:, :, 32:] = 255
    large = fit(clip, (128, 88), Sample(("x",), 1))
    assert large.shape == (2, 128, 88)
    assert (large[:, :, :43] == 0).all()
    assert (large[:, :, 45:] == 255).all()
    with pytest.raises(ValueError, match="width is at most its height"):
        fit(clip, (44, 64), Sample(("x",), 1))


def test_batches_for_training_hold_frames_of_their_own_sequence(packed):
    samples, walks = packed
    loader = train_loader(
        samples,
        [sample.pid - 1 for sample in samples],
        preprocessing=SILHOUETTES,
        identities=2,
        instances=2,
        frames=FrameSampling("replacement", 9),
        augment=Augment(flip=0, pad=0),
    )
    for batch in loader:
        assert batch.frames.shape == (4, 9, 1, 64, 44)
        assert float(batch.frames.max()) <= 1
        for frames, index in zip(batch.frames, batch.index, strict=True):
            own = {frame[:, 10:54].tobytes() for frame in walks[int(index)]}
            for frame in frames[:, 0]:
                assert (frame * 255).round().to(torch.uint8).numpy().tobytes() in own


def test_evaluation_reads_every_frame_of_a_silhouette_sequence(packed):
    samples, walks = packed
    lengths = {}
    for batch in eval_loader(samples, preprocessing=SILHOUETTES, batch_size=4):
        lengths |= dict(zip(batch.index.tolist(), batch.mask.sum(1).tolist(), strict=True))
    assert lengths == {number: len(frames) for number, frames in enumerate(walks)}


def test_a_mirrored_silhouette_is_the_mirror_image(packed):
    samples, _ = packed
    clip = read_clip(samples[0], [0, 1], (64, 44), channels=1)
    np.testing.assert_array_equal(Augment(flip=1, pad=0)(clip), clip[:, :, ::-1])


def test_the_gait_energy_image_is_the_mean_silhouette(packed):
    samples, walks = packed
    features = gait_energy_image(samples)
    assert features.samples == tuple(samples)
    for row, frames in zip(features.vectors, walks, strict=True):
        expected = (frames[:, :, 10:54].astype(np.float64) / 255).mean(0).ravel()
        np.testing.assert_allclose(row.numpy(), expected, atol=1e-6)
    with pytest.raises(ValueError, match="no samples"):
        gait_energy_image([])


def test_what_is_shown_of_a_sequence_is_its_energy_image_and_of_a_file_the_file(packed, tmp_path):
    samples, _ = packed
    image = show(samples[0])
    assert image is not None
    assert image.shape == (64, 44, 3)
    assert show(Sample(("x.png",), 1)) is None
    assert is_store(tmp_path / "store")
    assert not is_store(tmp_path)


def test_stored_frames_are_named_like_files_and_compare_by_value():
    frames = StoredFrames("store", 3, 4)
    assert list(frames) == ["store#3", "store#4", "store#5", "store#6"]
    assert frames[-1] == "store#6"
    assert frames[1:3] == ("store#4", "store#5")
    assert frames == StoredFrames("store", 3, 4)
    assert hash(frames) == hash(StoredFrames("store", 3, 4))
    with pytest.raises(IndexError):
        frames[4]


def test_preprocessing_knows_its_channels():
    assert Preprocessing().channels == 3
    assert SILHOUETTES.channels == 1


def test_a_store_that_was_packed_anew_is_read_anew(tmp_path):
    for value in (255, 100):
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        with StoreWriter(tmp_path / "store") as writer:
            writer.add("1", "nm-01", "090", np.full((3, 64, 64), value, np.uint8), source="a")
        (sample,) = store_samples(SilhouetteStore.open(tmp_path / "store"), "gait")
        assert (read_clip(sample, [0], (64, 44), channels=1) == value).all()
