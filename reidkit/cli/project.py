"""The command `project`: fewer dimensions for a trained model."""

from pathlib import Path
from typing import Annotated

import typer

from reidkit.cli.common import AsJson, Root, Run, WrongCall, console_for, print_json


def project(
    run: Run,
    dim: Annotated[int, typer.Option(min=1, help="Numbers that a feature shall have.")],
    out: Annotated[Path, typer.Option(help="Run folder to write, with the projected model.")],
    whiten: Annotated[
        str,
        typer.Option(
            help="pca: all directions alike. learned: pairs of one identity alike in all "
            "directions, needs identities. none: PCA alone."
        ),
    ] = "pca",
    shrink: Annotated[
        float | None,
        typer.Option(
            help="For learned: how little to trust the training pairs, 0 to 1; 0.7 by default."
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            help="Fit on this: a folder of images, a manifest or benchmark:split; the run's "
            "training data by default."
        ),
    ] = None,
    root: Root = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Shorten a trained model's features by PCA or whitening, and score both.

    The folder it writes is used like a run: evaluate, extract, search.

    Example: reidkit project runs/quickstart --dim 128 --out runs/quickstart-128
    """
    if whiten not in ("none", "pca", "learned"):
        raise WrongCall(f"--whiten {whiten}: expected none, pca or learned")
    if shrink is not None and whiten != "learned":
        raise WrongCall("--shrink is for --whiten learned")
    if shrink is not None and not 0 <= shrink <= 1:
        raise WrongCall(f"--shrink {shrink:g}: expected a number from 0 to 1")
    from reidkit import compose, distributed
    from reidkit.compose.projecting import project_run
    from reidkit.compose.training import comparison

    console = console_for(as_json)
    with compose.together():
        found = project_run(
            run,
            out,
            dim=dim,
            whiten=whiten,  # type: ignore[arg-type]  # checked above
            shrink=shrink,
            source=on,
            root=root,
            batch_size=batch_size,
            workers=workers,
            console=console,
        )
        main = distributed.is_main()
    if not main:
        return
    if as_json:
        plain = {
            name: {row: scores.to_dict() for row, scores in rows.items()}
            for name, rows in found.items()
        }
        print_json({"out": str(out), "benchmarks": plain})
        return
    for name, rows in found.items():
        named = {"unprojected": rows["unprojected"], "projected": rows["trained"]}
        console.say(comparison(name, named))
    console.say(f"model: {out / 'model.safetensors'}")
