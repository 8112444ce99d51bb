"""The command that finds identities among unlabelled tracklets."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from reidkit.cli.common import AsJson, Root, WrongCall, check_endings, console_for, print_json

LINKAGES = ("average", "complete", "single", "ward")
Options = dict[str, Any]
METHODS = ("tree", "dbscan", "hdbscan")


def label(
    run: Annotated[
        Path | None, typer.Argument(help="A run folder, or a model.safetensors.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Argument(
            help="Folder of images, packed silhouettes, manifest, or benchmark:split "
            "(mars:gallery)."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write, or to correct.")] = Path("labelled"),
    clusters: Annotated[int | None, typer.Option(help="Cut the tree into so many.")] = None,
    height: Annotated[float | None, typer.Option(help="Cut the tree at this distance.")] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Cut the tree where the mean silhouette is highest (silhouette, the default) or "
            "below the largest step in height (gap)."
        ),
    ] = None,
    linkage: Annotated[
        str | None,
        typer.Option(help="Of the tree: average (the default), complete, single or ward."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="tree (the default) labels everybody; dbscan and hdbscan leave out who has too "
            "few neighbours."
        ),
    ] = None,
    eps: Annotated[
        float | None,
        typer.Option(help="For dbscan: a neighbour's largest Jaccard distance; 0.6 by default."),
    ] = None,
    min_samples: Annotated[
        int | None,
        typer.Option(help="For dbscan and hdbscan: neighbours that make a core; 4 by default."),
    ] = None,
    k1: Annotated[
        int | None,
        typer.Option(
            help="For dbscan and hdbscan: neighbours compared; 30 by default, better about twice "
            "the samples that an identity has."
        ),
    ] = None,
    cannot_link: Annotated[
        str | None,
        typer.Option(
            help="Who are two people for certain: those whom one camera saw at one time (time, the "
            "default), or all whom one camera saw (camera: for sparse tracklets)."
        ),
    ] = None,
    no_cannot_link: Annotated[
        bool, typer.Option("--no-cannot-link", help="Nobody is known to be two people.")
    ] = False,
    apply: Annotated[
        Path | None,
        typer.Option(help="Without RUN and SOURCE: labels corrected by hand, a CSV path,label."),
    ] = None,
    root: Root = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="64 by default.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that read images; 0 by default.")
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Draw the tree and each identity.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Find who is who among tracklets or images without labels, to correct and to train from.

    Examples: reidkit label runs/mine tracklets.csv

    reidkit label runs/mine tracklets.csv --out people

    reidkit label runs/mine photos/ --clusters 40 --out forty

    reidkit label runs/mine mars:train --method dbscan --out found

    reidkit label --apply corrected.csv --out people

    The folder then holds labels.csv, a manifest with a label and a confidence in [0, 1] for each
    (how much nearer, by cosine, to its own identity than to the next; no probability); tree.html,
    to browse and correct; tree.png, a picture of each identity in identities/, and label.json. A
    second call with other settings uses the features of the first. What tree.html exports goes back
    with --apply. To train on it: reidkit train CONFIG "data.train=[{name: manifest, root:
    people/labels.csv}]"
    """
    if "RANK" in os.environ:
        raise WrongCall("identities are found by one process: call it without torchrun")
    cuts: Options = {"clusters": clusters, "height": height, "by": by}
    knobs: Options = {"eps": eps, "min-samples": min_samples, "k1": k1}
    if apply is not None:
        options: Options = {
            "linkage": linkage,
            "method": method,
            "cannot-link": cannot_link,
            "root": root,
            "batch-size": batch_size,
            "workers": workers,
        }
        options |= {"no-cannot-link": no_cannot_link or None, **cuts, **knobs}
        given: Options = {"RUN": run, "SOURCE": source} | {f"--{n}": v for n, v in options.items()}
        for name, value in given.items():
            if value is not None:
                raise WrongCall(f"{name} beside --apply: corrections need only --out, their folder")
        check_endings(("apply", apply, ".csv"))
    elif run is None or source is None:
        raise WrongCall(
            "expected RUN and SOURCE, such as `reidkit label runs/mine photos/ --out people`, or "
            "--apply with corrected labels"
        )
    cannot_link = _links(cannot_link, no_cannot_link)
    for option, word, known in (
        ("linkage", linkage, LINKAGES),
        ("method", method, METHODS),
        ("by", by, ("silhouette", "gap")),
    ):
        if word is not None and word not in known:
            raise WrongCall(f"--{option} {word}: expected one of {', '.join(known)}")
    _check_numbers(clusters, height, eps, min_samples, k1)
    _check_together(method or "tree", cuts, knobs)
    from reidkit.compose import labelling

    console = console_for(as_json)
    if apply is not None:
        found = labelling.apply_to(out, apply, pictures=pictures, console=console)
    else:
        assert run is not None and source is not None
        settings = labelling.Settings(
            method=method or "tree",  # type: ignore[arg-type]  # checked above
            linkage=linkage or "average",  # type: ignore[arg-type]
            clusters=clusters,
            height=height,
            by=by or "silhouette",  # type: ignore[arg-type]
            cannot_link=cannot_link,  # type: ignore[arg-type]
            eps=0.6 if eps is None else eps,
            min_samples=4 if min_samples is None else min_samples,
            k1=30 if k1 is None else k1,
        )
        found = labelling.label_to(
            run,
            source,
            out,
            settings,
            root=root,
            batch_size=64 if batch_size is None else batch_size,
            workers=0 if workers is None else workers,
            pictures=pictures,
            console=console,
        )
    if as_json:
        print_json({"out": str(out), **labelling.to_json(found)})
        return
    console.say(found.text())
    console.say(f"labels: {out / 'labels.csv'}\ntree: {out / 'tree.html'}")


def _links(word: str | None, nobody: bool) -> str:
    if nobody and word is not None:
        raise WrongCall(f"--cannot-link {word} and --no-cannot-link: choose one")
    if word is not None and word not in ("time", "camera"):
        raise WrongCall(
            f"--cannot-link {word}: expected time or camera; --no-cannot-link turns it off"
        )
    return "none" if nobody else word or "time"


def _check_numbers(
    clusters: int | None,
    height: float | None,
    eps: float | None,
    min_samples: int | None,
    k1: int | None,
) -> None:
    for name, value in (("clusters", clusters), ("min-samples", min_samples), ("k1", k1)):
        if value is not None and value < 1:
            raise WrongCall(f"--{name} {value}: expected at least 1")
    if height is not None and not 0 <= height < float("inf"):
        raise WrongCall(f"--height {height:g}: expected a distance, 0 or more")
    if eps is not None and not 0 < eps < 1:
        raise WrongCall(f"--eps {eps:g}: expected a Jaccard distance, above 0 and below 1")


def _check_together(method: str, cuts: Options, knobs: Options) -> None:
    """Refuse options that the method would not look at."""
    given = [f"--{name}" for name, value in cuts.items() if value is not None]
    if len(given) > 1:
        raise WrongCall(f"{' and '.join(given)}: each says where to cut the tree; choose one")
    if given and method != "tree":
        raise WrongCall(f"{given[0]} cuts the tree: it is not for --method {method}")
    for name, value in knobs.items():
        if value is not None and (method == "tree" or (method, name) == ("hdbscan", "eps")):
            raise WrongCall(f"--{name} is not for --method {method}")
