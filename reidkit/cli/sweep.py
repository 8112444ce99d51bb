"""Many trainings of one config: a grid or a search."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reidkit.cli.common import AsJson, WrongCall, console_for, print_json

if TYPE_CHECKING:
    from reidkit.compose.sweep import Run, Sweep
    from reidkit.config import RunConfig


def sweep(
    config: Annotated[Path, typer.Argument(help="A YAML file; configs/ holds complete ones.")],
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=A,B]...",
            help="What varies, such as losses.0.margin=0.2,0.4; one value holds for all. With "
            "--search also ranges: 0.1..0.5, 1..8, log:1e-4..1e-2.",
        ),
    ] = None,
    grid: Annotated[
        Path | None,
        typer.Option(help="A YAML file of named variants: name -> list of overrides."),
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="How many (3: seeds 0, 1, 2), or which (3,7,11).")
    ] = "3",
    metrics: Annotated[
        str, typer.Option(help="Scores to compare, such as R@1,MAP@R; the first one decides.")
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(
            help="The sweep's folder; runs/sweep-FOLDER-CONFIG by default: the config's folder "
            "and name."
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Trainings at the same time, which share the cores.")
    ] = 1,
    search: Annotated[
        int | None, typer.Option(min=1, help="Let Optuna choose so many points instead.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="With --search: begin no point after this time.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, list the runs, and end.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a grid of settings with several seeds each, and compare them in one table.

    The same call again goes on: finished runs are kept, interrupted ones resumed, failed ones
    tried anew (of a --search they stay failed). The table (sweep.csv, sweep.json, sweep.png) has
    mean and standard deviation over the seeds, and what was spent: rows of unequal budgets are no
    comparison, and it says so.

    WARNING: whoever chooses by the test set overfits to it, a search above all. Choose by a
    validation benchmark in data.test, then score the winner once on the real one:
    reidkit evaluate RUN --benchmark NAME.

    Examples: reidkit sweep CONFIG losses.0.margin=0.2,0.4 losses.0.temperature=5,10 --seeds 3

    reidkit sweep CONFIG optim.lr=log:1e-4..1e-2 losses.0.margin=0.1..0.5 --search 30 --seeds 1
    """
    if "RANK" in os.environ:
        raise WrongCall("a sweep starts its trainings itself: call it without torchrun")
    if minutes is not None and search is None:
        raise WrongCall("--minutes is for --search: a grid ends when all its runs have")
    from reidkit.compose import sweep as sweeping
    from reidkit.engine import Interrupted

    folder = out or Path("runs") / _folder_name(config)
    in_the_way = [
        place for place in (folder, *folder.parents) if place.exists() and not place.is_dir()
    ]
    if in_the_way:
        raise WrongCall(f"--out {folder}: {in_the_way[0]} is a file; name a folder")
    assignments = sweeping.read_assignments(values or ())
    variants = sweeping.read_variants(grid) if grid is not None else {}
    chosen = sweeping.read_seeds(seeds)
    names = tuple(dict.fromkeys(name.strip() for name in metrics.split(",") if name.strip()))
    if search is None:
        sweeping.refuse_ranges(assignments)
        points = sweeping.make_points(assignments, variants, otherwise=config.stem)
        keys = sweeping.varying(assignments, variants)
        configs = sweeping.configure(config, points)
        runs = sweeping.make_runs(configs, chosen, folder)
        expected = len(runs)
        sweeping.refuse_changed_data(runs)
    else:
        sweeping.require_optuna()
        space, fixed = sweeping.read_space(assignments, variants)
        points = sweeping.corners(space, fixed, variants)
        keys = tuple(space)
        configs = sweeping.configure(config, points)
        runs = []
        expected = search * len(chosen)
    sweeping.refuse_unknown(names, next(iter(configs.values())))
    if dry_run:
        _list_runs(runs, configs, expected, folder, as_json)
        return
    console = console_for(as_json)
    with sweeping.alone_in(folder) as lock:
        work = sweeping.Sweep(
            out=folder,
            trainer=sweeping.Processes(jobs=jobs, lock=lock),
            keys=keys,
            seeds=chosen,
            metrics=names,
            jobs=jobs,
            expected=expected,
            console=console,
        )
        work.tell_replaced()
        console.say(f"{expected} runs in {folder}, {jobs} at a time; each prints to console.txt")
        with sweeping.stopping(work.trainer):
            if search is None:
                work.perform(points, runs)
            else:
                sweeping.Search(config, work, space, fixed, variants).run(search, minutes)
        _tell(work, config, as_json)
        drawn = _draw(work, as_json)
    if work.trainer.stopped:
        again = shlex.join(["reidkit", *sys.argv[1:]])
        finished = f"{len(work.found)} of {expected} runs are finished"
        saved = f", {work.saved} more begun and saved" if work.saved else ""
        raise Interrupted(f"stopped; {finished}{saved}; go on with: {again}")
    if work.failed or not drawn:
        raise typer.Exit(1)


def _list_runs(
    runs: Sequence["Run"],
    configs: Mapping[str, "RunConfig"],
    expected: int,
    folder: Path,
    as_json: bool,
) -> None:
    """Print what a sweep would do."""
    if as_json:
        plain: list[dict[str, Any]] = [
            {"point": run.point, "seed": run.seed, "run": str(run.folder), "state": run.state}
            for run in runs
        ]
        print_json({"out": str(folder), "expected": expected, "runs": plain})
        return
    for run in runs:
        print(f"{run.state:<8}  {run.folder}")
    if not runs:
        print("ends of the ranges, and categories: " + ", ".join(configs))
    print(f"{expected} runs in {folder}")


def _folder_name(config: Path) -> str:
    """`sweep-FOLDER-CONFIG`: many configs are called like others in another folder."""
    parent = Path(os.path.abspath(config)).parent.name
    return "-".join(word for word in ("sweep", parent, config.stem) if word)


def _tell(work: "Sweep", config: Path, as_json: bool) -> None:
    """Print the table, and where it is."""
    from reidkit.compose.sweep import text_of

    table = work.table()
    if as_json:
        print_json({"out": str(work.out), **table.to_dict()})
        return
    work.console.say(f"\n{text_of(table)}")
    if table.best is not None:
        words = ["reidkit", "train", str(config), *table.best.point.overrides]
        work.console.say(f"the first row again: {shlex.join(words)}")
    work.console.say(f"table: {work.out / 'sweep.csv'}, {work.out / 'sweep.json'}")


def _draw(work: "Sweep", as_json: bool) -> bool:
    """Draw the table and print where, or why not; whether that went well."""
    try:
        picture = work.draw()
    except Exception as error:  # whatever a drawing raises, the table is there
        why = " ".join(str(error).split()) or type(error).__name__
        work.console.say(f"not drawn: {work.out / 'sweep.png'}: {why}")
        return False
    if picture is not None and not as_json:
        work.console.say(f"picture: {picture}")
    return True
