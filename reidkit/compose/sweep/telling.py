"""A sweep's table as a person reads it."""

import textwrap
from collections.abc import Sequence
from statistics import fmean, stdev

from reidkit.compose.sweep.grid import short_keys
from reidkit.compose.sweep.table import SPENT, Row, Table

WIDEST = 36  # letters of a setting


def text_of(table: Table) -> str:
    """The table in percent, `~` before rows that the best is not clearly better than; beneath it
    the baselines, the notes and the failures."""
    head = ["", *short_keys(table.keys).values(), "runs", *table.metrics, *SPENT]
    if not table.keys:
        head.insert(1, "")
    cells = [_cells(table, row) for row in table.rows]
    settings = max(len(table.keys), 1)
    for name, scores in table.yardsticks().items():
        found = [scores.get(metric, []) for metric in table.metrics]
        means = [_score([fmean(values)] if values else []) for values in found]
        names = ["", name, *[""] * (settings - 1), ""]
        cells.append([*names, *means, *[""] * len(SPENT)])
    lines = _aligned([head, *cells], left=1 + settings)
    if any(map(table.tied, table.rows)):
        lines.append(
            f"~ {table.metrics[0]} differs from the best row's by no more than one standard error "
            "of the difference"
        )
    lines += table.notes()
    lines += [
        f"failed: {row.point.name} seed {seed}: {reason}"
        for row in table.rows
        for seed, reason in row.failed.items()
    ]
    return "\n".join(lines)


def _cells(table: Table, row: Row) -> list[str]:
    names = [_shown(row.point.settings.get(key, "")) for key in table.keys] or [row.point.name]
    runs = str(len(row.found))
    if len(row.found) < len(table.seeds):
        runs += f" of {len(table.seeds)}"
    scores = [_score(row.values(metric)) for metric in table.metrics]
    cost = [row.spent(what) for what in SPENT]
    numbers = [
        "-" if value is None else f"{value:,.{1 if what == 'seconds' else 0}f}"
        for what, value in zip(SPENT, cost, strict=True)
    ]
    return ["~" if table.tied(row) else "", *names, runs, *scores, *numbers]


def _score(values: Sequence[float]) -> str:
    """Percent, plus-minus the sample deviation where there are several values."""
    if not values:
        return "-"
    mean = f"{100 * fmean(values):.2f}"
    return f"{mean} +- {100 * stdev(values):.2f}" if len(values) > 1 else mean


def _shown(setting: str) -> str:
    """A setting's text, numbers of a search at four digits."""
    try:
        number = float(setting)
    except ValueError:
        return textwrap.shorten(setting, WIDEST, placeholder="...") if setting else "-"
    return f"{number:.4g}" if len(setting) > 6 else setting


def _aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Lines of equal columns: the first `left` at the left, numbers at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
