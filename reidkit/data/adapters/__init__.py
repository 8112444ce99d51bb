"""One file a benchmark: reads names, not pixels; never downloads, prints or relabels."""

from reidkit.data.adapters import (
    cars196,
    casia_b,
    cub200,
    digits,
    gait3d,
    grew,
    ilids_vid,
    inshop,
    manifest,
    market1501,
    mars,
    omniglot,
    ou_mvlp,
    prid2011,
    silhouettes,
    sop,
)

__all__ = [
    "cars196",
    "casia_b",
    "cub200",
    "digits",
    "gait3d",
    "grew",
    "ilids_vid",
    "inshop",
    "manifest",
    "market1501",
    "mars",
    "omniglot",
    "ou_mvlp",
    "prid2011",
    "silhouettes",
    "sop",
]
