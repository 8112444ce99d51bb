"""From records to one HTML page."""

import math
from pathlib import Path

from markupsafe import Markup

from reidkit.files import write_atomically
from reidkit.report import charts
from reidkit.report.album import Album, Show
from reidkit.report.html import environment, file_name, part, policy
from reidkit.report.records import Match, Report
from reidkit.types import Sample

MOST_PAIRS = 40  # of cameras, the hardest
TALL = 1.5  # pictures taller than this times their width stand in narrow cells


def own_file(sample: Sample) -> None:
    """No picture beside the sample's own file."""


def write_report(path: str | Path, report: Report, show: Show = own_file) -> None:
    """Write the page; replaced atomically. It holds its pictures, and no request leaves it.

    `show` gives pictures (h, w, 3) in BGR of samples that are no files, such as packed silhouettes.
    """
    # A file's name may hold bytes that are no text.
    write_atomically(Path(path), render(report, show).encode(errors="replace"))


def render(report: Report, show: Show = own_file) -> str:
    """The page as text, equal for equal records and files; every word of theirs is escaped.

    Pictures that cannot be read are grey boxes with the file's name. Of a file only its name is
    shown, not its folder.
    """
    style, script = part("page.css"), part("page.js")
    album = Album(report.samples(), show=show)
    templates = environment()
    templates.filters.update(points=_points, near=_near)
    template = templates.from_string(part("page.html.jinja"))
    return template.render(
        report=report,
        album=album,
        charts=charts,
        name=file_name,
        shape="tall" if album.aspect > TALL else "wide",
        reach=_reach(report),
        most_pairs=MOST_PAIRS,
        style=Markup(style),
        script=Markup(script),
        policy=policy(style, script),
    )


def _points(value: float) -> str:
    """A difference of percentages, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def _near(match: Match) -> str:
    return f"{match.distance:.3f}"


def _reach(report: Report) -> float:
    """The largest end of any interval of a difference: the scale of their bars."""
    if report.comparison is None:
        return 1.0
    ends = [abs(end) for d in report.comparison.differences for end in (*d.interval, d.change)]
    return max((end for end in ends if math.isfinite(end)), default=1.0) or 1.0
