"""What a person sees while work goes on: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress


class Update(Protocol):
    """Tells how far the work is, what to note beside it, and the total if only known by now."""

    def __call__(self, done: int, note: str = "", total: int | None = None) -> None:
        """Show that `done` of the total are done."""


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
        self._progress: Progress | None = None
        self._rich = RichConsole(file=stream or sys.stdout, quiet=quiet, highlight=False)

    def say(self, text: str = "") -> None:
        """Print a line, above a bar if one is shown."""
        self._rich.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int = 0) -> Iterator[Update]:
        """Show progress of long work; yields an `Update` to call as it goes on."""
        if not self._rich.is_terminal or self.quiet:
            yield self._lines(title, total)
        elif self._progress is not None:  # inside another bar: one more line of the same display
            yield from self._task(self._progress, title, total)
        else:
            with self._display() as self._progress:
                try:
                    yield from self._task(self._progress, title, total)
                finally:
                    self._progress = None

    def _display(self) -> "Progress":
        from rich import progress

        return progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[note]}"),
            progress.TimeRemainingColumn(),
            console=self._rich,
        )

    def _task(self, display: "Progress", title: str, expected: int) -> Iterator[Update]:
        task = display.add_task(title, total=expected or None, note="")

        def update(done: int, note: str = "", total: int | None = None) -> None:
            display.update(task, completed=done, note=note, total=total)

        try:
            yield update
        finally:
            if len(display.tasks) > 1:
                display.remove_task(task)

    def _lines(self, title: str, expected: int) -> Update:
        start = last = time.monotonic()
        begun: int | None = None  # where a resumed work stood, so that the time left is right

        def update(done: int, note: str = "", total: int | None = None) -> None:
            nonlocal last, begun
            total = expected if total is None else total
            begun = done if begun is None else begun
            now = time.monotonic()
            if now - last >= self.seconds:
                last = now
                rate = (done - begun) / max(now - start, 1e-9)
                left = f", {(total - done) / rate:.0f} s left" if rate > 0 else ""
                self.say(f"{title}: {done}/{total} {note}{left}")

        return update
