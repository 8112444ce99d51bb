"""An embedding map as a PNG, for papers and terminals: by identity, and by what else differs."""

import colorsys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from reidkit.files import replacing
from reidkit.report.map_page import Grouping, MapPage, groupings

UNKNOWN = (0.6, 0.6, 0.6)
LIGHTNESS = (0.42, 0.56, 0.34)
MOST_NAMED = 12  # groups that a legend has room for


def draw_map(path: str | Path, page: MapPage) -> None:
    """Write the PNG, a panel for identities and one for several cameras; replaced atomically."""
    shown = [one for one in groupings(page.samples)[:2] if len(set(one.of)) > 1]
    shown = shown or groupings(page.samples)[:1]
    figure = Figure(
        figsize=(6.5 * len(shown), 7.2), dpi=110, facecolor="white", layout="constrained"
    )
    title = f"{page.title}: {page.lead}".replace("$", r"\$")  # no formula
    figure.suptitle(title, size=11, weight="bold", x=0.01, ha="left", wrap=True)
    for axes, grouping in zip(np.ravel(figure.subplots(1, len(shown))), shown, strict=True):
        _panel(axes, page, grouping)
    if page.shares is not None:
        full, flat = (f"{100 * share:.1f} %" for share in page.shares)
        words = f"first neighbour of the same identity: {full} in the full space, {flat} in the map"
        figure.supxlabel(words, size=9, x=0.01, ha="left", color="#626a73")
    with replacing(Path(path)) as file:
        FigureCanvasAgg(figure).print_png(file)


def _panel(axes: Axes, page: MapPage, grouping: Grouping) -> None:
    of = np.array(grouping.of)
    size = float(np.clip(6000 / len(of), 5, 36))
    colours = np.array([colour(number) for number in of])
    axes.scatter(page.coordinates[:, 0], page.coordinates[:, 1], s=size, c=colours, linewidths=0)
    axes.set_title(f"by {grouping.name} ({len(grouping.labels):,})", loc="left", size=10)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("#e3e1dc")
    if 0 < len(grouping.labels) <= MOST_NAMED:
        for number, label in enumerate(grouping.labels):
            axes.scatter([], [], s=30, color=[colour(number)], label=label.replace("$", r"\$"))
        axes.legend(frameon=False, fontsize=8, title=grouping.name, loc="best")


def colour(number: int) -> tuple[float, float, float]:
    """Red, green and blue in [0, 1] of a group, the page's own; grey for the unknown (-1)."""
    if number < 0:
        return UNKNOWN
    # Steps of the golden angle: the first few hues lie far apart, whatever their number.
    hue = (215 + 137.508 * number) % 360
    return colorsys.hls_to_rgb(hue / 360, LIGHTNESS[number % len(LIGHTNESS)], 0.68)
