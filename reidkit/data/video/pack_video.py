"""A video of walking people -> tracklets of aligned silhouettes in one packed store."""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidkit.data.silhouettes.align import align
from reidkit.data.silhouettes.judge import FrameFacts, Limits, settle
from reidkit.data.silhouettes.pack import SIZE, PackReport, one_line
from reidkit.data.silhouettes.store import SilhouetteStore, StoreWriter
from reidkit.data.video.masks import Box, PersonMask
from reidkit.data.video.reading import Image, VideoFacts, frames_of, video_facts
from reidkit.data.video.segmentation import BACKGROUND, Segmenter, make_segmenter
from reidkit.data.video.tracking import Track, Tracker, first_seen

SAMPLES = 49  # pictures the background is the median of; odd, so that it is one of them
SAMPLE_BYTES = 400_000_000  # what they may take together
BATCH = 8  # frames a segmenter gets at once
# Who crosses a picture walks in at one border and out at another: cut frames are no fault there.
LIMITS = Limits(fewest_frames=10, ordinary_share=0.5)
ANYBODY, NO_CAMERA = "", -1
Progress = Callable[[int, int], None]


class Tracklet(NamedTuple):
    """A track with its verdict; frames (T, 64, 64), none where it is rejected."""

    begin: tuple[int, Box]
    verdict: str
    why: str
    frames: NDArray[np.uint8]


def pack_video(
    path: str | Path,
    out: str | Path,
    *,
    segmenter: str | Path | Segmenter = BACKGROUND,
    subject: str | None = None,
    condition: str = "",
    view: str = "",
    bits: int = 8,
    person: int | None = None,
    progress: Progress | None = None,
) -> PackReport:
    """Write the store `out` of the people who walk through a video, and report on each tracklet.

    The video is read twice: for its background, then for its people. Frames in which somebody
    touches the picture's border or stands before another are dropped. A pack that was killed
    starts its video again and ends with the same bytes; a complete one is only reported.

    Args:
        path: the video.
        out: a new folder.
        segmenter: "background" for a fixed camera, the file of a model, or what finds persons; see
            `make_segmenter`.
        subject: who walks, where it is one person; unknown people get an empty subject.
        condition: how they walk; by default tracklets are numbered, "track-001".
        view: from where, such as "090".
        bits: 8 keeps grey edges, 1 takes an eighth of the space.
        person: class of person in the model, see `make_segmenter`.
        progress: told how many frames are done, and of how many, over both readings.

    Raises FileNotFoundError or ValueError for a video that cannot be read, shows nobody, or moves
    where its background is asked for, and ValueError for an `out` that holds something else.
    """
    path, out = Path(path), Path(out)
    facts = video_facts(path)
    words = (subject or ANYBODY, condition, view)
    origin = fingerprint(path, segmenter, words, person)
    if (out / "store.json").is_file():
        store = SilhouetteStore.open(out)
        if (store.origin, store.bits) != (origin, bits):
            raise ValueError(
                f"{out} is a complete store of another video or with other choices; name a new "
                "folder or remove it"
            )
        return PackReport(str(out), store.sequences)
    if isinstance(segmenter, str | Path):
        segmenter = make_segmenter(segmenter, person=person)
    writer = StoreWriter(out, size=(SIZE, SIZE), bits=bits, origin=origin)
    resumed = writer.partial.exists()
    try:
        with writer:  # before the work: an `out` that cannot be written is told at once
            tracklets = read_tracklets(path, facts, segmenter, progress)
            write(writer, path.name, tracklets, words)
    except (ValueError, ImportError):
        if not resumed:  # nothing to go on with: another segmenter may be tried at once
            shutil.rmtree(writer.partial, ignore_errors=True)
        raise
    return PackReport(str(out), SilhouetteStore.open(out).sequences)


def read_tracklets(
    path: Path, facts: VideoFacts, segmenter: Segmenter, progress: Progress | None = None
) -> list[Tracklet]:
    """The tracklets of a video, by first frame; a ValueError where it shows no person."""
    count = Counter(2 * facts.frames, progress)
    samples, frames = sample(path, facts, count)
    count.total = 2 * frames
    try:
        segmenter.learn(samples)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    del samples
    tracker = Tracker(facts.size)
    tracklets: list[Tracklet] = []
    for persons in persons_of(path, segmenter, count):
        tracklets += [judged(track, facts.size) for track in tracker.update(persons)]
    tracklets += [judged(track, facts.size) for track in tracker.finish()]
    if not tracklets:
        raise ValueError(
            f"{path}: no person was found in {frames:,} frames; expected people who walk through "
            "the picture, at least a tenth of it tall: give a segmentation model "
            "(--segmenter FILE), or another video"
        )
    return sorted(tracklets, key=lambda tracklet: tracklet.begin)


def sample(path: Path, facts: VideoFacts, count: "Counter") -> tuple[list[Image], int]:
    """Pictures spread evenly over the video, and the number of its frames.

    Raises as `frames_of`: the whole video is decoded once, before anything is made of it.
    """
    most = max(9, min(SAMPLES, SAMPLE_BYTES // (3 * facts.size[0] * facts.size[1])))
    step = 1
    samples: list[Image] = []
    frames = 0
    for frame in frames_of(path):
        if frames % step == 0:
            if len(samples) == 2 * most:  # a count that is not promised: half of them will do
                samples, step = samples[::2], 2 * step
            if frames % step == 0:
                samples.append(frame)
        frames += 1
        count.tell()
    places = np.unique(np.linspace(0, len(samples) - 1, min(most, len(samples))).round())
    return [samples[int(place)] for place in places], frames


class Counter:
    """Counts what is done, and tells."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total = total
        self.done = 0
        self.progress = progress

    def tell(self) -> None:
        """One more is done."""
        self.done += 1
        self.total = max(self.total, self.done)
        if self.progress is not None:
            self.progress(self.done, self.total)


def persons_of(path: Path, segmenter: Segmenter, count: Counter) -> Iterator[list[PersonMask]]:
    """The persons of each frame."""
    for frames in batches(frames_of(path), BATCH):
        found = segmenter(frames)
        if len(found) != len(frames):
            raise ValueError(f"the segmenter gave {len(found)} lists for {len(frames)} frames")
        for persons in found:
            yield persons
            count.tell()


def batches(frames: Iterator[Image], size: int) -> Iterator[list[Image]]:
    """The frames, `size` at a time."""
    batch: list[Image] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def judged(track: Track, size: tuple[int, int], limits: Limits = LIMITS) -> Tracklet:
    """A track in a picture of this size with its verdict, and its usable frames aligned."""
    aligned = [align(mask) for mask in track.masks]
    facts = [
        FrameFacts(size, frame is None, False, cropped, doubled, False)
        for frame, cropped, doubled in zip(aligned, track.border, track.shared, strict=True)
    ]
    verdict, why, used, _ = settle(facts, limits)
    if verdict != "rejected" and len(used) < limits.fewest_frames:
        verdict, used = "rejected", ()
    frames = [frame for place in used if (frame := aligned[place]) is not None]
    stacked = np.stack(frames) if frames else np.empty((0, SIZE, SIZE), np.uint8)
    return Tracklet(first_seen(track), verdict, why, stacked)


def write(
    writer: StoreWriter,
    name: str,
    tracklets: Sequence[Tracklet],
    words: tuple[str, str, str],
) -> None:
    """All tracklets into the store, numbered from 1; those of an interrupted pack are there."""
    subject, condition, view = (one_line(word) for word in words)
    for number, tracklet in enumerate(tracklets, 1):
        source = one_line(f"{name}#track-{number:03d}")
        if source in writer.done:
            continue
        whose = (subject, condition or f"track-{number:03d}", view)
        told = {"why": tracklet.why, "source": source}
        if tracklet.verdict == "rejected":
            writer.reject(*whose, camid=NO_CAMERA, **told)
        else:
            writer.add(*whose, tracklet.frames, camid=NO_CAMERA, verdict=tracklet.verdict, **told)


def fingerprint(
    path: Path, segmenter: str | Path | Segmenter, words: tuple[str, ...], person: int | None
) -> str:
    """A word for what is packed and how: of the video its size, head and tail, and the choices."""
    named = segmenter if isinstance(segmenter, str | Path) else type(segmenter).__name__
    digest = hashlib.sha256(repr((path.name, str(named), words, person)).encode())
    files = [path]
    if isinstance(segmenter, str | Path) and Path(segmenter).is_file():
        files.append(Path(segmenter))
    for file in files:
        length = file.stat().st_size
        digest.update(str(length).encode())
        with file.open("rb") as stream:
            digest.update(stream.read(1 << 20))
            stream.seek(max(0, length - (1 << 20)))
            digest.update(stream.read())
    return digest.hexdigest()[:16]
