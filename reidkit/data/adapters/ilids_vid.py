"""iLIDS-VID: 300 people in an airport, one tracklet from either of two cameras."""

import re
from pathlib import Path

from reidkit.data.adapters.matlab import read_mat
from reidkit.data.adapters.tracklets import (
    PROTOCOL,
    Pair,
    assemble,
    halves,
    open_pair,
)
from reidkit.data.benchmarks import BENCHMARKS, READERS, Finding, Reading, settle
from reidkit.types import Benchmark, CheckLevel

PAIR = Pair(
    "ilids_vid",
    ("i-LIDS-VID", "iLIDS-VID", "ilids-vid", "ilids-vid/i-LIDS-VID", "iLIDS-VID/i-LIDS-VID"),
    ("sequences/cam1", "sequences/cam2"),
    re.compile(r"person(\d+)"),
    "person001",
)
# identities, tracklets
STATISTICS = {"train": (150, 300), "query": (150, 150), "gallery": (150, 150)}
SPLIT_FILE = Path("train-test people splits") / "train_test_splits_ilidsvid.mat"


@BENCHMARKS.register("ilids_vid")
def load(root: Path, check: CheckLevel = "strict", *, split: int = 1) -> Benchmark:
    """iLIDS-VID: Wang et al., Person Re-Identification by Video Ranking, ECCV 2014.

    `root` holds `sequences`, or holds the folder `i-LIDS-VID` that does; the folder `train-test
    people splits` lies in it, beside it, or in `root`. `split` is one of ten, counted from 1: the
    first half of its row in `ls_set` is tested, the camera `cam1` asks and `cam2` answers. Papers
    give the mean over all ten. pid is the number in a folder's name, which goes up to 319 for 300
    people (unverified): the numbers in the file of splits are places in the sorted list.
    """
    return settle(read(root, split=split), check)


@READERS.register("ilids_vid")
def read(root: Path, *, split: int = 1) -> Reading:
    """Everything readable of iLIDS-VID under `root`, with what is wrong; see `load`.

    Raises ValueError for a split outside 1 to 10 or a file of splits that cannot be used,
    FileNotFoundError where `root` is no folder.
    """
    folder, cameras, findings = open_pair(PAIR, root, split, "sequences")
    path = find_splits(root, folder)
    if path is None:
        what = f"no {SPLIT_FILE} in {root}, which says who trains and who is tested"
        findings.append(Finding("error", what, f"{PAIR.expected}.", missing=True))
    if path is None or not all(cameras):
        return Reading(PAIR.name, (), (), (), PROTOCOL, tuple(findings))
    # Places in the file count everybody, so one who is missing in one camera still has a place.
    people = sorted({*cameras[0], *cameras[1]})
    chosen = halves(path, read_mat(path, "ls_set"), split, people)
    return assemble(PAIR, folder, chosen, STATISTICS, findings)


def find_splits(root: Path, folder: Path) -> Path | None:
    """The file of splits in the set's folder, beside it, or in `root`."""
    places = (folder, folder.absolute().parent, root)
    return next((place / SPLIT_FILE for place in places if (place / SPLIT_FILE).is_file()), None)
