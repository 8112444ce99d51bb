"""The command that draws a map of embeddings."""

import os
from pathlib import Path
from typing import Annotated

import typer

from reidkit.cli.common import AsJson, Root, WrongCall, check_endings, console_for, print_json


def map_embeddings(
    source: Annotated[Path, typer.Argument(help="A run folder, or features (.npz).")],
    benchmark: Annotated[str | None, typer.Option(help="Another benchmark than the run's.")] = None,
    root: Root = None,
    split: Annotated[
        str | None, typer.Option(help="For a run: query, gallery (the default) or train.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="For a run: features (.npz) that it extracted already.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="For a file: cosine (the default) or euclidean. A run knows its own."),
    ] = None,
    method: Annotated[str, typer.Option(help="tsne or pca.")] = "tsne",
    perplexity: Annotated[float, typer.Option(help="Of t-SNE: about how many neighbours.")] = 30.0,
    limit: Annotated[int, typer.Option(help="Most samples shown; identities stay whole.")] = 3000,
    seed: Annotated[int, typer.Option(help="Of the choice and of t-SNE.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="The page (HTML); map.html in the run, or beside the file.")
    ] = None,
    png: Annotated[bool, typer.Option("--png", help="Also write a PNG beside the page.")] = False,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails/--no-thumbnails", help="Pictures within the page, or not.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Draw where a model puts samples: one page to zoom into, by identity and by camera.

    Examples: reidkit map runs/quickstart

    reidkit map features.npz --method pca --out features.html
    """
    if "RANK" in os.environ:
        raise WrongCall("a map is drawn by one process: call it without torchrun")
    is_file = source.suffix == ".npz"
    for option, value in (
        ("benchmark", benchmark),
        ("root", root),
        ("split", split),
        ("features", features),
    ):
        if value is not None and is_file:
            raise WrongCall(f"--{option} is for a run: {source} holds features already")
        if value is not None and features is not None and option != "features":
            raise WrongCall(f"--{option} and --features: the samples are those of the file")
    if metric is not None and not is_file:
        raise WrongCall("--metric is for a feature file: a run was made for one")
    for option, word, known in (
        ("split", split, ("query", "gallery", "train")),
        ("metric", metric, ("cosine", "euclidean")),
        ("method", method, ("tsne", "pca")),
    ):
        if word is not None and word not in known:
            raise WrongCall(f"--{option} {word}: expected one of {', '.join(known)}")
    if not 1 <= perplexity < float("inf"):
        raise WrongCall(f"--perplexity {perplexity:g}: expected a number of neighbours, at least 1")
    if limit < 3:
        raise WrongCall(f"--limit {limit}: a map needs at least 3 samples")
    if not 0 <= seed < 2**32:
        raise WrongCall(f"--seed {seed}: expected a whole number from 0 to 2^32 - 1")
    check_endings(("features", features, ".npz"), ("out", out, ".html"))
    from reidkit.compose import mapping

    console = console_for(as_json)
    if is_file:
        chosen = mapping.choose_of_file(
            source,
            metric="euclidean" if metric == "euclidean" else "cosine",
            limit=limit,
            seed=seed,
        )
        out = out or source.with_name(f"{source.stem}-map.html")
    else:
        chosen = mapping.choose_of_run(
            source,
            benchmark=benchmark,
            root=root,
            split=split or "gallery",  # type: ignore[arg-type]  # checked above
            features=features,
            limit=limit,
            seed=seed,
            console=console,
        )
        out = out or (source if source.is_dir() else source.parent) / "map.html"
    picture = out.with_suffix(".png") if png else None
    found = mapping.make_map(
        chosen,
        out,
        method=method,  # type: ignore[arg-type]  # checked above
        perplexity=perplexity,
        seed=seed,
        thumbnails=thumbnails,
        png=picture,
    )
    if as_json:
        files = {"out": str(out), "png": None if picture is None else str(picture)}
        print_json(files | found.to_dict())
        return
    console.say(found.text())
    for path in (out, picture):
        if path is not None:
            console.say(f"map: {path}")
