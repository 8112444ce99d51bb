"""Packing a folder of silhouettes: find, judge, align, and write one store."""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from reidkit.data.frames import read_image
from reidkit.data.silhouettes.align import align
from reidkit.data.silhouettes.judge import USUAL, Limits, inspect_and_clean, settle
from reidkit.data.silhouettes.layout import VERDICTS, StoredSequence
from reidkit.data.silhouettes.pickles import HostilePickleError, load_array_pickle
from reidkit.data.silhouettes.sources import ALIGNED, Source, find_sequences, known_layout
from reidkit.data.silhouettes.store import SilhouetteStore, StoreWriter

SIZE = 64
SHOWN = 20  # sequences a report prints of each verdict; all are in sequences.csv
Progress = Callable[[int, int], None]


class Choices(NamedTuple):
    """What changes the pixels of a pack; see `pack_silhouettes`."""

    limits: Limits = USUAL
    clean: bool = False
    aligned: bool | None = None


class Prepared(NamedTuple):
    """A sequence with its verdict; frames (T, 64, 64), none where it is rejected."""

    verdict: str
    why: str
    frames: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PackReport:
    """What became of every sequence of a pack."""

    folder: str
    sequences: tuple[StoredSequence, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Sequences of each verdict, and `frames`, all that are in the store."""
        found = Counter(sequence.verdict for sequence in self.sequences)
        frames = sum(sequence.length for sequence in self.sequences)
        return {**{verdict: found[verdict] for verdict in VERDICTS}, "frames": frames}

    @property
    def rejected(self) -> tuple[StoredSequence, ...]:
        """The sequences that are not used."""
        return tuple(s for s in self.sequences if s.verdict == "rejected")

    @property
    def warned(self) -> tuple[StoredSequence, ...]:
        """The sequences that are used although something is odd."""
        return tuple(s for s in self.sequences if s.verdict == "warned")

    def text(self) -> str:
        """A few lines a person can read."""
        counts = self.counts
        lines = [
            f"{len(self.sequences):,} sequences, {counts['frames']:,} frames in {self.folder}: "
            + ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in VERDICTS)
        ]
        for title, group in (("rejected", self.rejected), ("warned", self.warned)):
            lines += [f"  {title} {s.name}: {s.why}" for s in group[:SHOWN]]
            if len(group) > SHOWN:
                lines.append(f"  and {len(group) - SHOWN:,} more {title}: see sequences.csv")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain: dict[str, Any] = {"folder": self.folder, "counts": self.counts}
        for title, group in (("rejected", self.rejected), ("warned", self.warned)):
            plain[title] = [{"sequence": s.name, "why": s.why} for s in group]
        return plain


def pack_silhouettes(
    src: str | Path,
    out: str | Path,
    *,
    layout: str = "auto",
    bits: int = 8,
    workers: int = 0,
    limits: Limits = USUAL,
    clean: bool = False,
    as_published: bool = False,
    aligned: bool | None = None,
    progress: Progress | None = None,
) -> PackReport:
    """Write the store `out` of the silhouettes below `src`, and report what became of each.

    A pack that was killed goes on where it was and ends with the same bytes. A complete store of
    the same source and choices is only reported.

    Args:
        layout: of `src`, see `find_sequences`.
        bits: 8 keeps grey edges, 1 takes an eighth of the space.
        workers: threads that read and align; 0 does it here.
        limits: of what is used.
        clean: remove specks far from the body before aligning. As published, they are kept.
        as_published: use cut and doubled frames too, as GaitSet's published preparation does: it
            leaves out black ones only. They are counted and warned of all the same.
        aligned: whether the silhouettes are aligned already. True passes frames of 64 x 64
            unchanged, and a sequence with any other is rejected; False cuts and scales all. None
            is True for the layout "grew", and elsewhere guessed of each sequence: the body fills
            90 % of the height of most of its frames.
        progress: told how many sequences are done, and of how many.

    Raises FileNotFoundError or ValueError for a `src` without sequences, and ValueError for an
    `out` that holds something else or for choices that contradict each other.
    """
    layout = known_layout(src, layout)
    if aligned is None and layout in ALIGNED:
        aligned = True
    if clean and (aligned or as_published):
        other = "as_published keeps specks" if as_published else "aligned frames pass unchanged"
        raise ValueError(f"clean removes specks, but {other}; choose one")
    if as_published:
        limits = replace(limits, drop_spoilt=False)
    choices = Choices(limits, clean, aligned)
    sources = find_sequences(src, layout)
    out = Path(out)
    origin = fingerprint(sources, choices)
    if (out / "store.json").is_file():
        store = SilhouetteStore.open(out)
        if (store.origin, store.bits) != (origin, bits):
            raise ValueError(
                f"{out} is a complete store of another source or with other choices; name a new "
                "folder or remove it"
            )
        return PackReport(str(out), store.sequences)
    with StoreWriter(out, size=(SIZE, SIZE), bits=bits, origin=origin) as writer:
        todo = [source for source in sources if one_line(source.name) not in writer.done]
        done = len(sources) - len(todo)
        for source, made in prepare_all(todo, choices, workers):
            write(writer, source, made)
            done += 1
            if progress is not None:
                progress(done, len(sources))
    return PackReport(str(out), SilhouetteStore.open(out).sequences)


def write(writer: StoreWriter, source: Source, made: Prepared) -> None:
    """One sequence into the store."""
    words = (source.subject, source.condition, source.view, source.name, made.why)
    subject, condition, view, name, why = (one_line(word) for word in words)
    camid, verdict = source.camid, made.verdict
    if verdict == "rejected":
        writer.reject(subject, condition, view, camid=camid, why=why, source=name)
    else:
        writer.add(
            subject,
            condition,
            view,
            made.frames,
            camid=camid,
            verdict=verdict,
            why=why,
            source=name,
        )


def one_line(text: str) -> str:
    """The text with line breaks written out, as names of files may hold them."""
    return text.replace("\r", "\\r").replace("\n", "\\n").replace("\0", "\\0")


def prepare_all(
    sources: Sequence[Source], choices: Choices, workers: int
) -> Iterator[tuple[Source, Prepared]]:
    """Every source with what `prepare` makes of it, in order; a few are made ahead by threads."""
    if workers < 1:
        for source in sources:
            yield source, prepare(source, choices)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[Source, Future[Prepared]]] = deque()
        try:
            for source in sources:
                waiting.append((source, pool.submit(prepare, source, choices)))
                if len(waiting) > 2 * workers:  # so many are held in memory, not all
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def prepare(source: Source, choices: Choices) -> Prepared:
    """Read, judge and align one sequence; whatever is wrong with its files becomes its verdict."""
    nothing = np.empty((0, SIZE, SIZE), np.uint8)
    if source.fault:
        return Prepared("rejected", f"unreadable: {source.fault}", nothing)
    limits, clean, told = choices
    facts, made, raw = [], [], []
    try:
        for number, mask in enumerate(read_masks(source), 1):
            height, width = mask.shape
            if told and (height, width) != (SIZE, SIZE):
                why = f"not aligned: frame {number} is {height}x{width}, expected {SIZE}x{SIZE}"
                return Prepared("rejected", why, nothing)
            mask, binary = stretch(mask)
            fact, cleaned = inspect_and_clean(mask, limits)
            frame = mask if told else align(cleaned if clean else mask)
            facts.append(fact._replace(binary=binary, blank=fact.blank or frame is None))
            made.append(frame)
            raw.append(centre(mask) if height == SIZE >= width else None)
    except HostilePickleError as error:
        return Prepared("rejected", str(error), nothing)
    except (ValueError, OSError) as error:
        return Prepared("rejected", f"unreadable: {error}", nothing)
    verdict, why, used, ready = settle(facts, limits, cleaned=clean, aligned=told)
    frames = []
    for place in used:
        untouched = raw[place] if ready else None
        chosen = made[place] if untouched is None else untouched
        assert chosen is not None  # a frame that cannot be aligned is blank, and blank is not used
        frames.append(chosen)
    return Prepared(verdict, why, np.stack(frames) if frames else nothing)


def read_masks(source: Source) -> Iterator[NDArray[np.uint8]]:
    """The masks (H, W) of a source, one by one; a ValueError names what cannot be read."""
    if not isinstance(source.frames, Path):
        for path in source.frames:
            yield read_image(str(path), channels=1)
        return
    array = load_array_pickle(source.frames)
    if array.ndim != 3 or array.dtype not in (np.uint8, np.bool_):
        raise ValueError(
            f"{source.frames} holds {array.dtype} {array.shape}, expected uint8 (T, H, W)"
        )
    yield from array.astype(np.uint8)


def stretch(mask: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], bool]:
    """A mask of 0 and 1 as one of 0 and 255, and whether it was one."""
    if mask.size and cv2.minMaxLoc(mask)[1] == 1:
        return mask * np.uint8(255), True
    return mask, False


def centre(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An aligned mask (64, W), W at most 64, between columns of zeros that make it square."""
    left = (SIZE - mask.shape[1]) // 2
    return np.pad(mask, ((0, 0), (left, SIZE - mask.shape[1] - left)))


def fingerprint(sources: Sequence[Source], choices: Choices) -> str:
    """A word for what is packed and how: who walks in which files, the size of each sequence's
    first, and the choices that change pixels. The same for a folder that was moved."""
    digest = hashlib.sha256(repr(choices).encode())
    for source in sources:
        files = (source.frames,) if isinstance(source.frames, Path) else source.frames
        size = files[0].stat().st_size if files else 0
        names = [file.name for file in files]
        who = (source.subject, source.condition, source.view, source.camid)
        digest.update(repr((source.name, who, size, names)).encode())
    return digest.hexdigest()[:16]
