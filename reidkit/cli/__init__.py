"""The command line."""

import logging
import os
import sys

from reidkit.cli.commands import app
from reidkit.cli.common import process
from reidkit.cli.data import data_app
from reidkit.cli.label import label
from reidkit.cli.map import map_embeddings
from reidkit.cli.project import project
from reidkit.cli.sweep import sweep

__all__ = ["app", "main"]

app.add_typer(data_app, name="data")
app.command()(sweep)
app.command("map")(map_embeddings)
app.command()(project)
app.command()(label)


def main() -> None:
    """Run the command line: one line for an error, a traceback only with --debug."""
    # Threads that wait by spinning bring a training to a crawl as soon as another process wants a
    # core; torch reads this when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # What the library has to say while it works: a set being rendered, features that collapsed.
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("reidkit").setLevel(logging.INFO)
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except Exception as error:
        if debug:
            raise
        kind = type(error).__name__
        # 2: the call or the config is wrong; 1: the work failed.
        wrong_call = kind in ("WrongCall", "ConfigError", "UnknownName")
        # Of several processes the first says what all would say alike.
        if not process() or not (wrong_call or kind in ("FailedElsewhere", "Interrupted")):
            where = f" (process {process()})" if process() else ""
            print(f"reidkit{where}: {str(error) or kind}", file=sys.stderr)
            sys.stderr.flush()
        sys.exit(2 if wrong_call else 1)
