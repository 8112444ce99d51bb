"""Tracklets cut from MOTChallenge sequences, or from what a tracker wrote in their form."""

from pathlib import Path

from reidkit.data.benchmarks import (
    BENCHMARKS,
    READERS,
    Finding,
    Reading,
    examples,
    is_image,
    settle,
)
from reidkit.types import Benchmark, CheckLevel, EvalProtocol, Sample

NAME = "mot"
PARENTS = ("mot", "MOT")
LAYOUT = "Expected layout: datasets/README.md#mot"
UNCUT = frozenset({"img1", "gt", "det"})


@BENCHMARKS.register(NAME)
def load(root: Path, check: CheckLevel = "strict") -> Benchmark:
    """Tracklets of MOTChallenge sequences (Milan et al., MOT16: A Benchmark for Multi-Object
    Tracking, 2016), as `tools/cut_mot_tracklets.py` cuts them.

    `root` holds `SEQUENCE/ID/FRAME.jpg`, or holds the folder `mot` that does. Each sequence is a
    camera, by its place in sorted order. An ID holds within its own sequence only, and a tracker's
    breaks where it loses somebody: who walks through two of them is not known, so identities are
    unknown (pid -1) and `condition` is "SEQUENCE/ID". `span` is in frames of the sequence. All of
    it trains, without labels; there is nobody to ask for.
    """
    return settle(read(root), check)


@READERS.register(NAME)
def read(root: Path) -> Reading:
    """Everything readable of the sequences under `root`, with what is wrong; see `load`.

    Raises FileNotFoundError where `root` is no folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{NAME}: no folder {root}. {LAYOUT}")
    folder = next((root / name for name in PARENTS if (root / name).is_dir()), root)
    findings: list[Finding] = []
    train: list[Sample] = []
    for camid, sequence in enumerate(folders(folder)):
        for tracklet in tracklets(sequence, findings):
            sample = read_tracklet(tracklet, camid, findings)
            if sample is not None:
                train.append(sample)
    if train:
        what = (
            "identities are unknown (pid -1, counted as one), for an ID holds within its sequence: "
            "to learn from without labels, and nothing to test on"
        )
        findings.append(Finding("note", what))
    elif not any(finding.severity == "error" for finding in findings):
        findings.append(Finding("error", f"no tracklets in {folder}", f"{LAYOUT}.", missing=True))
    return Reading(NAME, tuple(train), (), (), EvalProtocol("itself"), tuple(findings))


def folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def tracklets(sequence: Path, findings: list[Finding]) -> list[Path]:
    """The folders of a sequence's tracklets by number; other folders go to `findings`."""
    found = folders(sequence)
    numbered = [path for path in found if is_number(path.name)]
    strange = [path.name for path in found if not is_number(path.name)]
    if UNCUT.intersection(strange):
        what = f"{sequence} holds whole pictures of a sequence, expected crops of its tracklets"
        remedy = f"Cut them with tools/cut_mot_tracklets.py. {LAYOUT}."
        findings.append(Finding("error", what, remedy))
    elif strange:
        what = f"{len(strange):,} folders in {sequence} are no numbers of tracklets"
        remedy = "Rename them or move them out of the folder."
        findings.append(Finding("error", what, remedy, examples(strange)))
    return sorted(numbered, key=lambda path: (int(path.name), path.name))


def read_tracklet(folder: Path, camid: int, findings: list[Finding]) -> Sample | None:
    """The sample of a tracklet's folder, None where it holds no frame; both sorts of fault are
    added to `findings`."""
    pictures = [path for path in folder.iterdir() if is_image(path)]
    frames = sorted((int(path.stem), str(path)) for path in pictures if is_number(path.stem))
    strange = sorted(path.name for path in pictures if not is_number(path.stem))
    if strange:
        what = f"{len(strange):,} pictures in {folder} are not named by frame, as 000001.jpg is"
        findings.append(Finding("error", what, "Rename or remove them.", examples(strange)))
    elif not frames:
        findings.append(Finding("warning", f"{folder} holds no pictures", "Fill or delete it."))
    if not frames:
        return None
    paths = tuple(path for _, path in frames)
    span = (float(frames[0][0]), float(frames[-1][0]))
    track = f"{folder.parent.name}/{folder.name}"
    return Sample(paths, -1, camid, condition=track, domain=NAME, span=span)


def is_number(name: str) -> bool:
    """Whether a name is a plain number from 0."""
    return name.isascii() and name.isdigit()
