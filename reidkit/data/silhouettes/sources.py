"""Finding sequences of silhouettes below a folder, by names alone."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from reidkit.data.benchmarks import is_image
from reidkit.types import UNKNOWN_CAMERA

OUMVLP = re.compile(r"Silhouette_(\d{3})-(\d{2})")
CASIA_A = re.compile(r"(\d{1,3})_(\w+)")
GREW = re.compile(r"\d{5}")
# GREW puts a gait energy image, the mean of a walk, beside its frames.
MEAN_IMAGE = "gei.png"
EXPECTED = {
    "casia_b": "subject/condition/view/*.png or *.pkl",
    "oumvlp": "Silhouette_{view}-{seq}/{id}/*.png",
    "casia_a": "name/{view}_{walk}/*.png",
    "grew": "train/{id}/{video}/*.png, test/gallery/{id}/{video}/*.png, test/probe/{video}/*.png",
    "folder": "*.png of one walk",
}
LAYOUTS = ("auto", *EXPECTED)
ALIGNED = frozenset({"grew"})  # released with the body already cut out and scaled


@dataclass(frozen=True, slots=True)
class Source:
    """A sequence before any pixel is read: files in time order, or one pickled array.

    `name` is its folder below the one that was searched, `camid` the place of its view among all
    views in sorted order, or unknown where views are no cameras. A `fault` says why its files
    cannot be used.
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
    - "grew": train/{id}/{video}, test/gallery/{id}/{video} and test/probe/{video} with pictures,
      as released, or a part of it; named as OpenGait rearranges it, and cameras are unknown
    - "folder": one walk, whose subject is the folder's name
    - "auto": whichever of these it is

    What is no picture and no pickle is ignored. Raises FileNotFoundError where `src` is no folder,
    ValueError where it has no such layout.
    """
    src = Path(src)
    layout = known_layout(src, layout)
    finders = {
        "casia_b": casia_b,
        "oumvlp": oumvlp,
        "casia_a": casia_a,
        "grew": grew,
        "folder": one_folder,
    }
    found = list(finders[layout](src))
    if not found:
        raise ValueError(f"no sequences in {src}; expected {EXPECTED[layout]}")
    if layout != "grew":
        views = sorted({source.view for source in found}, key=natural)
        order = {view: place for place, view in enumerate(views)}
        found = [replace(source, camid=order[source.view]) for source in found]
    return sorted(found, key=lambda s: (s.subject, s.condition, natural(s.view), s.name))


def known_layout(src: str | Path, layout: str = "auto") -> str:
    """The layout itself, or where it is "auto" the one that the names below `src` tell.

    Raises as `find_sequences` does.
    """
    src = Path(src)
    if layout not in LAYOUTS:
        raise ValueError(f"layout {layout!r}, expected one of {', '.join(LAYOUTS)}")
    if not src.is_dir():
        raise FileNotFoundError(f"no folder {src}; expected one of silhouettes: {_expected()}")
    return guess_layout(src) if layout == "auto" else layout


def guess_layout(src: Path) -> str:
    """The layout that the names below `src` tell; a ValueError that draws all of them if none."""
    first = folders(src)
    if any(OUMVLP.fullmatch(folder.name) for folder in first):
        return "oumvlp"
    if is_grew(src):
        return "grew"
    second = [inner for folder in first for inner in folders(folder)]
    if second and all(CASIA_A.fullmatch(folder.name) for folder in second):
        return "casia_a"
    if any(folders(folder) for folder in second):
        return "casia_b"
    if not first and list_frames(src)[0]:
        return "folder"
    raise ValueError(f"unknown layout of {src}; expected {_expected()}")


def is_grew(src: Path) -> bool:
    """Whether a folder holds GREW as released, or one of its two halves."""
    train = src / "train"
    if train.is_dir() and any(GREW.fullmatch(folder.name) for folder in folders(train)):
        return True
    return (src / "test" / "gallery").is_dir()


def casia_b(src: Path) -> Iterator[Source]:
    """CASIA-B, and every tree of subject, condition and view."""
    for subject in folders(src):
        _refuse_stray(subject, src, "casia_b")
        for condition in folders(subject):
            _refuse_stray(condition, src, "casia_b")
            for view in folders(condition):
                yield make(src, view, subject.name, condition.name, view.name)


def oumvlp(src: Path) -> Iterator[Source]:
    """OU-MVLP as it is released."""
    for part in folders(src):
        match = OUMVLP.fullmatch(part.name)
        if match is None:
            raise ValueError(
                f"{part} is no Silhouette_VIEW-SEQUENCE; expected {EXPECTED['oumvlp']} and nothing "
                f"else in {src}: pack other trees by themselves"
            )
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


def grew(src: Path) -> Iterator[Source]:
    """GREW as it is released: identities of `train` have it added to their names.

    The videos of a gallery identity become conditions 01 and 02 by sorted order.
    """
    gallery, probe = src / "test" / "gallery", src / "test" / "probe"
    for part in (src / "train", gallery):
        for subject in folders(part) if part.is_dir() else ():
            _refuse_stray(subject, src, "grew")
            for number, video in enumerate(folders(subject), start=1):
                if part == gallery:
                    yield make(src, video, subject.name, f"{number:02d}", video.name)
                else:
                    yield make(src, video, f"{subject.name}train", "00", video.name)
    if probe.is_dir():
        _refuse_stray(probe, src, "grew")
        for video in folders(probe):
            yield make(src, video, "probe", "03", video.name)


def one_folder(src: Path) -> Iterator[Source]:
    """One walk: the pictures, or the pickle, in `src` itself."""
    frames, fault = list_frames(src)
    if frames or fault:
        name = src.resolve().name
        yield Source(name, "", "", 0, frames, name, fault)


def make(src: Path, folder: Path, subject: str, condition: str, view: str) -> Source:
    """The sequence in `folder`, its camera unknown as yet."""
    frames, fault = list_frames(folder)
    return Source(
        subject, condition, view, UNKNOWN_CAMERA, frames, folder.relative_to(src).as_posix(), fault
    )


def is_frame(name: str) -> bool:
    """Whether a file is one silhouette of a sequence, by its name."""
    return is_image(Path(name)) and not name.endswith(MEAN_IMAGE)


def list_frames(folder: Path) -> tuple[tuple[Path, ...] | Path, str]:
    """Pictures of a folder in time order or its one pickle, and what is wrong with that."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_file()]
    pictures = [name for name in names if is_frame(name)]
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
