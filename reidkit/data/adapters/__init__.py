"""One file a benchmark: reads names, not pixels; never downloads, prints or relabels."""

from reidkit.data.adapters import (
    casia_b,
    gait3d,
    grew,
    manifest,
    market1501,
    ou_mvlp,
    silhouettes,
)

__all__ = [
    "casia_b",
    "gait3d",
    "grew",
    "manifest",
    "market1501",
    "ou_mvlp",
    "silhouettes",
]
