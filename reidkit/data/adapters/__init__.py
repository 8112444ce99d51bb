"""One file a benchmark: reads names, not pixels; never downloads, prints or relabels."""

from reidkit.data.adapters import (
    casia_b,
    gait3d,
    grew,
    ilids_vid,
    manifest,
    market1501,
    mars,
    ou_mvlp,
    prid2011,
    silhouettes,
)

__all__ = [
    "casia_b",
    "gait3d",
    "grew",
    "ilids_vid",
    "manifest",
    "market1501",
    "mars",
    "ou_mvlp",
    "prid2011",
    "silhouettes",
]
