"""What a person sees while work goes on: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

Update = Callable[[int, str], None]


class Console:
    """Says lines and shows progress on a stream; quiet, it does neither.

    Args:
        stream: standard output by default; commands that print JSON there say the rest elsewhere.
        seconds: how often a plain line tells of progress where there is no terminal.
    """

    def __init__(
        self, stream: TextIO | None = None, *, quiet: bool = False, seconds: float = 15
    ) -> None:
        from rich.console import Console as RichConsole

        self.quiet = quiet
        self.seconds = seconds
        self._rich = RichConsole(file=stream or sys.stdout, quiet=quiet, highlight=False)

    def say(self, text: str = "") -> None:
        """Print a line, above a bar if one is shown."""
        self._rich.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Update]:
        """Show progress of long work; yields a function of (done so far, a note)."""
        if self._rich.is_terminal and not self.quiet:
            yield from self._live(title, total)
        else:
            yield self._lines(title, total)

    def _live(self, title: str, total: int) -> Iterator[Update]:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._rich) as progress:
            task = progress.add_task(title, total=total, note="")
            yield lambda done, note: progress.update(task, completed=done, note=note)

    def _lines(self, title: str, total: int) -> Update:
        start = last = time.monotonic()
        begun: int | None = None  # where a resumed work stood, so that the time left is right

        def update(done: int, note: str) -> None:
            nonlocal last, begun
            begun = done if begun is None else begun
            now = time.monotonic()
            if now - last >= self.seconds:
                last = now
                rate = (done - begun) / max(now - start, 1e-9)
                left = f", {(total - done) / rate:.0f} s left" if rate > 0 else ""
                self.say(f"{title}: {done}/{total} {note}{left}")

        return update
