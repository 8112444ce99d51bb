"""The command line."""

import logging
import os
import sys

from reidkit.cli.commands import app
from reidkit.cli.data import data_app

__all__ = ["app", "main"]

app.add_typer(data_app, name="data")


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
        text = str(error) or type(error).__name__
        print(f"reidkit: {text}", file=sys.stderr)
        sys.stderr.flush()
        # 2: the call or the config is wrong; 1: the work failed.
        wrong_call = type(error).__name__ in ("WrongCall", "ConfigError", "UnknownName")
        sys.exit(2 if wrong_call else 1)
