"""Finding sequences of silhouettes below a folder, by names alone."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from reidkit.data.benchmarks import is_image

OUMVLP = re.compile(r"Silhouette_(\d{3})-(\d{2})")
CASIA_A = re.compile(r"(\d{1,3})_(\w+)")
EXPECTED = {
    "casia_b": "subject/condition/view/*.png or *.pkl",
    "oumvlp": "Silhouette_{view}-{seq}/{id}/*.png",
    "casia_a": "name/{view}_{walk}/*.png",
    "folder": "*.png of one walk",
}
LAYOUTS = ("auto", *EXPECTED)


@dataclass(frozen=True, slots=True)
class Source:
    """A sequence before any pixel is read: files in time order, or one pickled array.

    `name` is its folder below the one that was searched, `camid` the place of its view among all
    views in sorted order. A `fault` says why its files cannot be used.
    """

    subject: str
    condition: str
    view: str
    camid: int
    frames: tuple[Path, ...] | Path
    name: str
    fault: str = ""


def find_sequences(src: str | Path, layout: str = "auto") -> list[Source]:
    """Every sequence below `src`, sorted by subject, condition and view; empty ones too.

    - "casia_b": subject/condition/view with pictures, or with one pickle as OpenGait writes it
    - "oumvlp": Silhouette_{view}-{seq}/{id} with pictures; the condition is the seq
    - "casia_a": name/{view}_{walk} with pictures; the condition is the walk
    - "folder": one walk, whose subject is the folder's name
    - "auto": whichever of these it is

    What is no picture and no pickle is ignored. Raises FileNotFoundError where `src` is no folder,
    ValueError where it has no such layout.
    """
    src = Path(src)
    if layout not in LAYOUTS:
        raise ValueError(f"layout {layout!r}, expected one of {', '.join(LAYOUTS)}")
    if not src.is_dir():
        raise FileNotFoundError(f"no folder {src}; expected one of silhouettes: {_expected()}")
    if layout == "auto":
        layout = guess_layout(src)
    finders = {"casia_b": casia_b, "oumvlp": oumvlp, "casia_a": casia_a, "folder": one_folder}
    found = list(finders[layout](src))
    if not found:
        raise ValueError(f"no sequences in {src}; expected {EXPECTED[layout]}")
    order = {view: place for place, view in enumerate(sorted({s.view for s in found}, key=natural))}
    numbered = [replace(source, camid=order[source.view]) for source in found]
    return sorted(numbered, key=lambda s: (s.subject, s.condition, natural(s.view), s.name))


def guess_layout(src: Path) -> str:
    """The layout that the names below `src` tell; a ValueError that draws all of them if none."""
    first = folders(src)
    if any(OUMVLP.fullmatch(folder.name) for folder in first):
        return "oumvlp"
    second = [inner for folder in first for inner in folders(folder)]
    if second and all(CASIA_A.fullmatch(folder.name) for folder in second):
        return "casia_a"
    if any(folders(folder) for folder in second):
        return "casia_b"
    if not first and list_frames(src)[0]:
        return "folder"
    raise ValueError(f"unknown layout of {src}; expected {_expected()}")


def casia_b(src: Path) -> Iterator[Source]:
    """CASIA-B, and every tree of subject, condition and view."""
    for subject in folders(src):
        for condition in folders(subject):
            _refuse_stray(condition, src, "casia_b")
            for view in folders(condition):
                yield make(src, view, subject.name, condition.name, view.name)


def oumvlp(src: Path) -> Iterator[Source]:
    """OU-MVLP as it is released."""
    for part in folders(src):
        match = OUMVLP.fullmatch(part.name)
        if match is not None:
            _refuse_stray(part, src, "oumvlp")
            for subject in folders(part):
                yield make(src, subject, subject.name, match[2], match[1])


def casia_a(src: Path) -> Iterator[Source]:
    """CASIA Dataset A as it is released; views are written in three digits, as elsewhere."""
    for subject in folders(src):
        _refuse_stray(subject, src, "casia_a")
        for walk in folders(subject):
            match = CASIA_A.fullmatch(walk.name)
            if match is None:
                raise ValueError(f"{walk} is no view_walk; expected {EXPECTED['casia_a']} in {src}")
            yield make(src, walk, subject.name, match[2], match[1].zfill(3))


def one_folder(src: Path) -> Iterator[Source]:
    """One walk: the pictures, or the pickle, in `src` itself."""
    frames, fault = list_frames(src)
    if frames or fault:
        name = src.resolve().name
        yield Source(name, "", "", 0, frames, name, fault)


def make(src: Path, folder: Path, subject: str, condition: str, view: str) -> Source:
    """The sequence in `folder`, its camera not yet numbered."""
    frames, fault = list_frames(folder)
    return Source(
        subject, condition, view, 0, frames, folder.relative_to(src).as_posix(), fault=fault
    )


def list_frames(folder: Path) -> tuple[tuple[Path, ...] | Path, str]:
    """Pictures of a folder in time order or its one pickle, and what is wrong with that."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_file()]
    pictures = [name for name in names if is_image(Path(name))]
    pickles = [name for name in names if name.endswith(".pkl") and not name.startswith(".")]
    if pickles and (pictures or len(pickles) > 1):
        return (
            (),
            f"{len(pickles)} pickles and {len(pictures)} pictures, expected either one pickle",
        )
    if pickles:
        return folder / pickles[0], ""
    # Numbers without leading zeros: 2 comes before 10.
    pictures.sort(key=None if len({len(name) for name in pictures}) < 2 else natural)
    return tuple(folder / name for name in pictures), ""


def natural(text: str) -> tuple[tuple[int, str], ...]:
    """A key that sorts numbers in a text by their value."""
    parts = re.split(r"([0-9]+)", text)
    numbers = ((int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts))
    return (*numbers, (0, text))


def folders(folder: Path) -> list[Path]:
    """The folders in a folder by name, without hidden ones."""
    with os.scandir(folder) as entries:
        return sorted(
            Path(entry.path)
            for entry in entries
            if entry.is_dir() and not entry.name.startswith(".")
        )


def _refuse_stray(folder: Path, src: Path, layout: str) -> None:
    # Left out without a word, these would be missing from every score.
    frames, fault = list_frames(folder)
    if frames or fault:
        raise ValueError(f"{folder} holds frames itself; expected {EXPECTED[layout]} in {src}")


def _expected() -> str:
    return "; ".join(f"{drawing} ({name})" for name, drawing in EXPECTED.items())
