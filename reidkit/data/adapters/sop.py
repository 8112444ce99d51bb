"""Stanford Online Products: things for sale, many of them, each with few pictures."""

from pathlib import Path

from reidkit.data.adapters.class_sets import (
    find_folder,
    line_faults,
    lost,
    read_table,
    retrieval,
)
from reidkit.data.benchmarks import BENCHMARKS, READERS, Finding, Reading, settle
from reidkit.types import Benchmark, CheckLevel, EvalProtocol, Sample

# products, images; 22,634 and 120,053 in all as published, the two parts from memory (unverified)
STATISTICS = {"train": (11318, 59551), "test": (11316, 60502)}
LISTS = {"train": "Ebay_train.txt", "test": "Ebay_test.txt"}
HEADER = ["image_id", "class_id", "super_class_id", "path"]
PARENTS = ("Stanford_Online_Products", "sop", "SOP")
PROTOCOL = EvalProtocol("itself", ("R@1", "R@10", "R@100", "R@1000", "NMI"))


@BENCHMARKS.register("sop")
def load(root: Path, check: CheckLevel = "strict") -> Benchmark:
    """Stanford Online Products: Song et al., Deep Metric Learning via Lifted Structured Feature
    Embedding, CVPR 2016. Each test picture asks all others; no product is in both lists. The
    condition of a sample is its super-class, such as "1" for bicycles.

    `root` holds `Ebay_train.txt` and `Ebay_test.txt`, or holds the folder
    `Stanford_Online_Products` that does.
    """
    return settle(read(root), check)


@READERS.register("sop")
def read(root: Path) -> Reading:
    """Everything readable of Stanford Online Products under `root`, with what is wrong; see `load`.

    Raises FileNotFoundError where `root` is no folder, ValueError for a list that is none.
    """
    folder = find_folder("sop", root, PARENTS, list(LISTS.values()))
    for name in LISTS.values():
        if not (folder / name).is_file():
            return lost("sop", f"file {name!r}", folder)
    findings: list[Finding] = []
    train, test = (read_list(folder, name, findings) for name in LISTS.values())
    return retrieval("sop", folder, train, test, PROTOCOL, STATISTICS, findings)


def read_list(folder: Path, name: str, findings: list[Finding]) -> tuple[Sample, ...]:
    """The samples of one list in its order; faulty lines are added to `findings`."""
    path = folder / name
    head, _ = read_table(path, columns=len(HEADER), skip=0)
    if head[:1] != [HEADER]:
        raise ValueError(
            f"sop: {path} does not begin with the line {' '.join(HEADER)}; get the original file "
            "again"
        )
    rows, faults = read_table(path, columns=len(HEADER), skip=1)
    strange = [f"product {row[1]!r} of {row[3]}" for row in rows if not row[1].isdecimal()]
    findings += faults + line_faults(path, strange)
    return tuple(
        Sample((str(folder / row[3]),), int(row[1]), condition=row[2], domain="sop")
        for row in rows
        if row[1].isdecimal()
    )
