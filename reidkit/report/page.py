"""From records to one HTML page."""

import base64
import hashlib
import math
from importlib.resources import files
from pathlib import Path, PurePath

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from reidkit.files import write_atomically
from reidkit.report import charts
from reidkit.report.album import Album, Show
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
    style, script = _part("page.css"), _part("page.js")
    album = Album(report.samples(), show=show)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(percent=_percent, points=_points, near=_near, number=_number)
    template = environment.from_string(_part("page.html.jinja"))
    return template.render(
        report=report,
        album=album,
        charts=charts,
        name=_name,
        shape="tall" if album.aspect > TALL else "wide",
        reach=_reach(report),
        most_pairs=MOST_PAIRS,
        style=Markup(style),
        script=Markup(script),
        # Nothing may be asked for; the one script and the one style are known by their hashes, so
        # that none that came in by a file's name could run.
        policy=(
            "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
            f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
        ),
    )


def _part(name: str) -> str:
    return (files("reidkit.report") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _name(sample: Sample) -> str:
    """A file's own name, or what the sample is called."""
    if not sample.frames:
        return sample.name
    return PurePath(sample.frames[len(sample.frames) // 2].replace("\\", "/")).name


def _percent(value: float, digits: int = 1) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f}%"


def _points(value: float) -> str:
    """A difference of percentages, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def _near(match: Match) -> str:
    return f"{match.distance:.3f}"


def _number(value: int) -> str:
    return f"{value:,}"


def _reach(report: Report) -> float:
    """The largest end of any interval of a difference: the scale of their bars."""
    if report.comparison is None:
        return 1.0
    ends = [abs(end) for d in report.comparison.differences for end in (*d.interval, d.change)]
    return max((end for end in ends if math.isfinite(end)), default=1.0) or 1.0
