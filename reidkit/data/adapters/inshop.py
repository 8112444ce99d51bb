"""In-shop Clothes Retrieval of DeepFashion: the same garment in other poses."""

import re
from pathlib import Path
from typing import Literal

from reidkit.data.adapters.class_sets import (
    find_folder,
    line_faults,
    lost,
    read_table,
)
from reidkit.data.adapters.tracklets import missing_frames
from reidkit.data.benchmarks import BENCHMARKS, READERS, Finding, Reading, settle, wrong_counts
from reidkit.types import Benchmark, CheckLevel, EvalProtocol, Sample

# garments, images; 7,982 and 52,712 in all as published, the three parts from memory (unverified)
STATISTICS = {"train": (3997, 25882), "query": (3985, 14218), "gallery": (3985, 12612)}
LIST = "list_eval_partition.txt"
PARENTS = ("In-shop Clothes Retrieval Benchmark", "In-shop", "inshop", "DeepFashion", "In_shop")
PLACES = ("", "Eval", "Anno")  # of the list
HEADER_LINES = 2  # how many, then the names of the columns
ITEM = re.compile(r"id_(\d+)")
PROTOCOL = EvalProtocol("nothing", ("R@1", "R@10", "R@20", "R@30", "R@40", "R@50"))
Pictures = Literal["img", "img_highres"]


@BENCHMARKS.register("inshop")
def load(
    root: Path, check: CheckLevel = "strict", *, pictures: Pictures | None = None
) -> Benchmark:
    """In-shop Clothes Retrieval: Liu et al., DeepFashion: Powering Robust Clothes Recognition and
    Retrieval with Rich Annotations, CVPR 2016. No picture is both in query and gallery.

    `root`, or a folder such as `In-shop Clothes Retrieval Benchmark` in it, holds
    `list_eval_partition.txt` (there or in `Eval`), and `img` or `img_highres` (there or in `Img`).
    `pictures` says which of the two to read; without it `img` where it is there. Garments with one
    training picture stay, which some toolboxes leave out.
    """
    return settle(read(root, pictures=pictures), check)


@READERS.register("inshop")
def read(root: Path, *, pictures: Pictures | None = None) -> Reading:
    """Everything readable of In-shop under `root`, with what is wrong; see `load`.

    Raises FileNotFoundError where `root` is no folder, ValueError for a list that is none.
    """
    inside = [f"{place}/{LIST}".lstrip("/") for place in PLACES]
    folder = find_folder("inshop", root, PARENTS, inside)
    path = next((folder / name for name in inside if (folder / name).is_file()), None)
    if path is None:
        return lost("inshop", f"file {LIST!r}", folder)
    names = ("img", "img_highres") if pictures is None else (pictures,)
    places = [folder / at / name for name in names for at in ("", "Img")]
    base = next((place for place in places if place.is_dir()), None)
    if base is None:
        return lost("inshop", f"folder {' or '.join(map(repr, names))}", folder)
    splits, findings = read_list(path, base)
    everything = [sample for samples in splits.values() for sample in samples]
    findings += missing_frames(everything, base)
    findings += wrong_counts(splits, STATISTICS, "classes", "images")
    train, query, gallery = (tuple(splits[split]) for split in STATISTICS)
    return Reading("inshop", train, query, gallery, PROTOCOL, tuple(findings))


def read_list(path: Path, base: Path) -> tuple[dict[str, list[Sample]], list[Finding]]:
    """Samples of each split in the order of the list, whose pictures lie in `base`, and faults."""
    rows, findings = read_table(path, columns=3, skip=HEADER_LINES)
    splits: dict[str, list[Sample]] = {split: [] for split in STATISTICS}
    strange = []
    for name, item, split in rows:
        match = ITEM.fullmatch(item)
        if match is None or split not in splits or not name.startswith("img/"):
            strange.append(f"{name} {item} {split}")
        else:
            file = str(base / name.removeprefix("img/"))
            splits[split].append(Sample((file,), int(match[1]), domain="inshop"))
    findings += line_faults(path, strange)
    first = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    if first != str(len(rows)):
        what = f"{path} says {first!r} pictures in its first line and has {len(rows):,}"
        findings.append(Finding("error", what, "Get the original file again."))
    return splits, findings
