"""What a calibration predicted against what was so."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from reidkit.visualise.common import COLOURS, MUTED, save


def reliability(
    path: str | Path,
    predicted: Sequence[float],
    observed: Sequence[float],
    counts: Sequence[int],
    *,
    title: str = "",
) -> None:
    """Write a PNG: what was predicted against what was so, and how many pairs a point stands for.

    predicted and observed (B,) are probabilities in [0, 1], counts (B,) positive; a perfect
    calibration lies on the diagonal. Replaced atomically.
    """
    if not len(predicted) or len({len(predicted), len(observed), len(counts)}) != 1:
        raise ValueError(
            f"{len(predicted)} predicted, {len(observed)} observed and {len(counts)} counts; "
            "expected as many of each, at least one"
        )
    figure = Figure(figsize=(5, 6), dpi=110, facecolor="white", layout="constrained")
    curve, amounts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curve.plot((0, 1), (0, 1), "--", color=MUTED, lw=1.2, label="perfect")
    curve.plot(predicted, observed, color=COLOURS[0], lw=1.9, marker="o", label="held-out pairs")
    curve.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of the same identity")
    curve.legend(frameon=False, fontsize=8, loc="upper left")
    curve.set_title(title or "Reliability", loc="left", size=11, weight="bold")
    amounts.vlines(predicted, 0.5, counts, color=COLOURS[0], lw=8)
    amounts.set(yscale="log", ylim=(0.5, None), ylabel="pairs", xlabel="predicted probability")
    for axes in (curve, amounts):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    save(figure, Path(path))
