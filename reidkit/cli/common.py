"""What the commands share: options that mean the same everywhere, the console, JSON, refusals."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from reidkit.engine import Console

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and only that.")]
Root = Annotated[
    Path | None,
    typer.Option(help="Folder that holds the benchmarks; REIDKIT_DATA or datasets/ by default."),
]
Run = Annotated[Path, typer.Argument(help="A run folder, or a model.safetensors.")]


class WrongCall(ValueError):
    """The call cannot mean anything: exit code 2."""


def console_for(as_json: bool) -> "Console":
    """Where a command speaks: standard output, or standard error where that belongs to JSON; of
    several processes only the first."""
    from reidkit.engine import Console

    return Console(sys.stderr if as_json else sys.stdout, quiet=process() > 0)


def process() -> int:
    """This process's number among those that torchrun started, 0 without it."""
    return int(os.environ.get("RANK", "0"))


def check_endings(*options: tuple[str, Path | None, str]) -> None:
    """Refuse an option whose file would get another kind of content than its name says."""
    for option, path, ending in options:
        if path is not None and path.suffix != ending:
            raise WrongCall(f"--{option} {path}: the file's name ends in {ending}")


def print_json(value: Any) -> None:
    """Print a plain value as JSON."""
    print(json.dumps(value, indent=2))
