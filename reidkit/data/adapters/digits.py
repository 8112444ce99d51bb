"""Handwritten digits, some to learn from and others to find: a whole run in a minute."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from reidkit.data.adapters.digit_files import (
    IDX_IMAGES,
    IdxPair,
    Part,
    fingerprint,
    idx_pairs,
    labels_beside,
    read_npz,
    read_pair,
)
from reidkit.data.benchmarks import BENCHMARKS, READERS, Finding, Reading, is_image, settle
from reidkit.data.splits import by_name
from reidkit.types import Benchmark, CheckLevel, EvalProtocol, Sample

UCI_PICTURES = 1797  # scikit-learn has the test part of UCI's optdigits
LAYOUT = "Expected layout: datasets/README.md#digits"
# Where idx files lie: as published, in a folder of their own, and as torchvision unpacks them.
IDX_FOLDERS = {
    "mnist": ("", "raw", "MNIST/raw", "mnist", "mnist/raw", "mnist/MNIST/raw", "MNIST"),
    "usps": ("usps", "usps/raw", "USPS", "USPS/raw"),
}
PROTOCOL = EvalProtocol("itself", ("R@1", "R@2", "R@4", "R@8", "MAP@R", "mAP"))


class Source(NamedTuple):
    """Where digits come from: an npz archive, or pairs of idx files, and what to call them."""

    name: str
    npz: Path | None = None
    pairs: tuple[IdxPair, ...] = ()

    def files(self) -> list[Path]:
        """All files of this source."""
        found = [path for pair in self.pairs for path in (pair.images, pair.labels)]
        return found if self.npz is None else [self.npz]

    def parts(self) -> list[Part]:
        """All digits of this source, read and checked."""
        found = [read_pair(pair) for pair in self.pairs]
        return found if self.npz is None else read_npz(self.npz)


@BENCHMARKS.register("digits")
def load(
    root: Path,
    check: CheckLevel = "strict",
    *,
    source: str = "uci",
    train_classes: tuple[int, ...] = (0, 1, 2, 3, 4),
    test_classes: tuple[int, ...] = (5, 6, 7, 8, 9),
) -> Benchmark:
    """Digits as classes that were never seen: train on some, search among the others.

    `source` is "uci" (1,797 digits of 8 x 8, Alpaydin and Kaynak 1998; scikit-learn brings them,
    no file is needed), "mnist" or "usps" in `root`, or a path, relative to `root`: an `.npz`, an
    idx file of pictures, or a folder of idx files. All parts of a source (training, test) are
    one. They are written once as PNGs into `root`. Pid is the digit + 1, because pid 0 stands for
    distractors; each test picture asks all others.
    """
    reading = read(root, source=source, train_classes=train_classes, test_classes=test_classes)
    return settle(reading, check)


@READERS.register("digits")
def read(
    root: Path,
    *,
    source: str = "uci",
    train_classes: tuple[int, ...] = (0, 1, 2, 3, 4),
    test_classes: tuple[int, ...] = (5, 6, 7, 8, 9),
) -> Reading:
    """Everything readable of the digits of `source`, with what is wrong; see `load`.

    Raises ValueError for digits that are not there or on both lists, and for a source that cannot
    be read; FileNotFoundError for one that is not there; OSError where nothing can be written.
    """
    wanted = strings(train_classes), strings(test_classes)
    try:
        by_name(strings(range(10)), *wanted, kind="digit")  # before anything is written
        folder, domain = pictures_of(root, source)
        digits = read_folder(folder, domain)
        sides = by_name(sorted(digits), *wanted, kind="digit")
    except ValueError as error:
        raise ValueError(f"digits: {error}") from error
    findings = []
    count = sum(map(len, digits.values()))
    if source == "uci" and count != UCI_PICTURES:
        what = f"{folder} has {count:,} pictures, expected {UCI_PICTURES:,}"
        findings.append(Finding("error", what, "Delete it: it is written again."))
    train, test = (tuple(sample for name in side for sample in digits[name]) for side in sides)
    return Reading("digits", train, test, test, PROTOCOL, tuple(findings))


def strings(digits: Sequence[int]) -> list[str]:
    """Digits as names of classes, in order."""
    return [str(digit) for digit in sorted(digits)]


def pictures_of(root: Path, source: str) -> tuple[Path, str]:
    """The folder with a source's pictures, written where it is not there yet, and its domain.

    Everything is read and checked before the first picture is written.
    """
    # The synthetic world imports adapters.
    from reidkit.data.synthetic.benchmark import rendered

    if source == "uci":
        name, domain = "uci_digits", "uci_digits"
    else:
        found = find_source(root, source)
        name, domain = f"{found.name}_digits-{fingerprint(found.files())}", found.name
    if (root / name).is_dir():
        return root / name, domain
    parts = [uci()] if source == "uci" else found.parts()
    try:
        return rendered(root, name, lambda out: write_parts(out, parts)), domain
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            error.errno,
            f"digits: cannot write pictures into {root} ({reason}); name a folder to write to, "
            "and the source by its whole path",
        ) from error


def find_source(root: Path, source: str) -> Source:
    """The files that `source` means. Raises FileNotFoundError where there are none."""
    if not source:
        raise ValueError("no source; expected uci, mnist, usps or a path")
    if source in IDX_FOLDERS:
        for place in ("", source, source.upper()):
            if (path := root / place / f"{source}.npz").is_file():
                return Source(source, npz=path)
        folders = [root / place for place in IDX_FOLDERS[source]]
    else:
        path = root / source
        if path.suffix == ".npz" and path.is_file():
            return Source(path.stem, npz=path)
        match = IDX_IMAGES.fullmatch(path.name)
        if match and path.is_file():
            pair = IdxPair(match[1] or "", path, labels_beside(path))
            return Source(match[1] or "digits", pairs=(pair,))
        if path.is_file():
            raise ValueError(
                f"{path} is neither an .npz nor an idx file of pictures such as "
                f"train-images-idx3-ubyte.gz. {LAYOUT}"
            )
        folders = [path, path / "raw", path / "MNIST" / "raw"]
    name = source if source in IDX_FOLDERS else Path(source).name
    for folder in folders:
        if pairs := idx_pairs(folder):
            return Source(name, pairs=tuple(pairs))
    what = "uci, mnist, usps or a path" if source not in IDX_FOLDERS else "idx files or an npz"
    raise FileNotFoundError(f"digits: no {source} in {root}, expected {what}. {LAYOUT}")


def uci() -> Part:
    """The digits that scikit-learn brings, 8 x 8, their 17 levels spread over 0 to 255."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.rint(found.images * (255 / 16)).astype(np.uint8)
    return Part("", images, found.target.astype(np.int64))


def write_parts(out: Path, parts: Sequence[Part]) -> None:
    """A folder a digit, a PNG a picture, named by its part and its place in it."""
    for part in parts:
        for place, (image, digit) in enumerate(zip(part.images, part.digits, strict=True)):
            folder = out / str(digit)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{part.name}_{place:06d}.png".removeprefix("_")
            if not cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image):
                raise OSError(f"could not write {path}")


def read_folder(folder: Path, domain: str) -> dict[str, list[Sample]]:
    """The samples of each digit in a folder that `write_parts` wrote."""
    digits = sorted(entry for entry in folder.iterdir() if entry.name in "0123456789")
    return {
        entry.name: [
            Sample((str(path),), int(entry.name) + 1, domain=domain)
            for path in sorted(entry.iterdir())
            if is_image(path)
        ]
        for entry in digits
    }
