"""Commands around a model: train, evaluate, extract, decide, search, mean, list, doctor.

Heavy imports stand inside the commands, so that --help answers at once.
"""

import json
import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from reidkit.cli.common import AsJson, Root, Run, WrongCall, check_endings, console_for, print_json

app = typer.Typer(
    name="reidkit",
    help="Finds the same individual again: train, evaluate, extract, search.",
    epilog="Any command takes --debug, which shows the traceback behind an error.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _new_folder(config: Path, parent: Path = Path("runs")) -> Path:
    folder = parent / config.stem
    number = 2
    while folder.exists():
        folder = parent / f"{config.stem}-{number}"
        number += 1
    return folder


def _last_folder(config: Path, parent: Path = Path("runs")) -> Path:
    found = [path.parent for path in parent.glob(f"{config.stem}*/config.yaml")]
    mine = [
        path
        for path in found
        if path.name.removeprefix(config.stem).lstrip("-").isdigit() or path.name == config.stem
    ]
    if not mine:
        raise WrongCall(
            f"no run of {config.stem} in {parent}/: leave out --resume, or name its --out"
        )
    return max(mine, key=lambda path: (path / "config.yaml").stat().st_mtime)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A YAML file; configs/ holds complete ones.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="For example optim.lr=1e-4 losses.0.weight=2"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; a new one in runs/ by default.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run, bit for bit.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Resume although the config or the data changed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model, evaluate it, and write its run folder.

    Example: reidkit train configs/synthetic/quickstart.yaml optim.epochs=5

    Under torchrun the same config trains on all devices, one process each; a worker that dies
    continues by itself:

    torchrun --nproc-per-node 2 --max-restarts 3 tools/train.py CONFIG --out runs/mine
    """
    if force and not resume:
        raise WrongCall("--force is for --resume: it goes on although something changed")
    from reidkit import compose, distributed
    from reidkit.config import load_config
    from reidkit.engine import Interrupted

    settings = load_config(config, overrides or ())
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    if restarts and out is None:
        raise WrongCall("--max-restarts needs --out: a restarted worker has to find the run folder")
    # A restart by torchrun is the same call once more.
    again = restarts > 0 and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    console = console_for(as_json)
    try:
        with compose.together(settings.device):

            def choose() -> tuple[Path, bool]:
                folder = out or (_last_folder(config) if resume else _new_folder(config))
                begun = (folder / "config.yaml").is_file() and compose.is_of_this_launch(folder)
                return folder, resume or (again and begun)

            folder, going_on = compose.main_alone(choose)
            scores = compose.train(settings, folder, resume=going_on, force=force, console=console)
            main = distributed.is_main()
    except Interrupted as stop:
        words = ["reidkit", "train", str(config), *(overrides or ()), "--out", str(folder)]
        raise Interrupted(f"{stop}; go on with: {shlex.join(words)} --resume") from stop
    if as_json and main:
        found = {name: values.to_dict() for name, values in scores.items()}
        print_json({"run": str(folder), "benchmarks": found})


@app.command()
def evaluate(
    run: Annotated[Path | None, typer.Argument(help="A run folder or model.safetensors.")] = None,
    benchmark: Annotated[str | None, typer.Option(help="Another benchmark than the run's.")] = None,
    root: Root = None,
    query: Annotated[Path | None, typer.Option(help="Query features (.npz) from anywhere.")] = None,
    gallery: Annotated[Path | None, typer.Option(help="Gallery features (.npz).")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="market1501, mars, cuhk03_single_shot, same_class, no_camera ...; by default the "
            "benchmark's own, market1501 for files. `reidkit list protocol` tells all."
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="For files: cosine (the default) or euclidean. A RUN knows its own."),
    ] = None,
    gait_distance: Annotated[
        str | None,
        typer.Option(help="For files of gait features: parts (OpenGait) or flat (GaitSet)."),
    ] = None,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Also score after k-reciprocal re-ranking.")
    ] = False,
    picture: Annotated[Path | None, typer.Option(help="Write the ranked lists here (PNG).")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write one self-contained page here (HTML).")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Another run: the report tells what changed since.")
    ] = None,
    compare_query: Annotated[
        Path | None, typer.Option(help="The same, as query features of another model.")
    ] = None,
    compare_gallery: Annotated[
        Path | None, typer.Option(help="Gallery features of that model.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the scores here (JSON); RUN/scores.json by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a trained model, or features from any toolkit: CMC, mAP, mINP.

    Examples: reidkit evaluate runs/quickstart --report report.html

    reidkit evaluate --query q.npz --gallery g.npz --protocol market1501
    """
    files = [side for side in (query, gallery) if side is not None]
    if len(files) != (2 if run is None else 0):
        raise WrongCall("give a RUN, or both --query and --gallery")
    others = [side for side in (compare_query, compare_gallery) if side is not None]
    if len(others) == 1 or (others and run is not None):
        raise WrongCall("--compare-query and --compare-gallery go together, with --query")
    if compare is not None and run is None:
        raise WrongCall("--compare is for a RUN; features have --compare-query, --compare-gallery")
    if report is None and (compare is not None or others):
        raise WrongCall("a comparison is told in the report: add --report FILE.html")
    if run is not None and run.suffix == ".npz":
        raise WrongCall(f"{run} holds features, not a model: give them by --query and --gallery")
    if run is None and (benchmark is not None or root is not None):
        raise WrongCall(
            "--benchmark and --root are for a RUN: feature files are scored as they are"
        )
    for option, value, known in (
        ("metric", metric, ("cosine", "euclidean")),
        ("gait-distance", gait_distance, ("parts", "flat")),
    ):
        if value is not None and run is not None:
            raise WrongCall(f"--{option} is for feature files: a RUN was made for one")
        if value is not None and value not in known:
            raise WrongCall(f"--{option} {value}: expected {' or '.join(known)}")
    check_endings(("report", report, ".html"), ("out", out, ".json"), ("picture", picture, ".png"))
    from datetime import date

    from reidkit import compose, distributed
    from reidkit.compose import reporting

    console = console_for(as_json)
    today = date.today().isoformat()
    if run is not None:
        with compose.together():
            found = reporting.evaluate_run(
                run,
                benchmark=benchmark,
                root=root,
                protocol=protocol,
                picture=picture,
                page=report,
                compare=compare,
                rerank=rerank,
                date=today,
                console=console,
            )
            main = distributed.is_main()
        if not main:
            return
        out = out or (run / "scores.json" if run.is_dir() else None)
    else:
        assert query is not None and gallery is not None
        found = reporting.evaluate_files(
            query,
            gallery,
            protocol="market1501" if protocol is None else protocol,
            picture=picture,
            page=report,
            compare=(others[0], others[1]) if others else None,
            rerank=rerank,
            metric="euclidean" if metric == "euclidean" else "cosine",
            gait_distance=gait_distance,  # type: ignore[arg-type]  # checked above
            date=today,
        )
    if as_json:
        print_json({name: scores.to_dict() for name, scores in found.items()})
    else:
        for name, scores in found.items():
            console.say(scores.table(name))
        for what, path in (("ranked lists", picture), ("report", report)):
            if path is not None:
                console.say(f"{what}: {path}")
    if out is not None:
        # Scores by another protocol than the benchmark's own do not take the place of its own.
        by = f" by {protocol}" if protocol else ""
        told = {name + by: scores for name, scores in found.items()}
        reporting.write_scores(out, told, "features" if run is None else "trained")
        if not as_json:
            console.say(f"scores: {out}")


@app.command()
def extract(
    run: Run,
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of images, packed silhouettes, image, manifest, or benchmark:split "
            "(market1501:query)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Feature file to write: .npz, or .csv.")],
    root: Root = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write one feature vector for each image; an interrupted call goes on where it stopped.

    Example: reidkit extract runs/quickstart photos/ --out photos.npz
    """
    from reidkit import compose, distributed, models

    if out.suffix not in (".npz", ".csv"):
        raise WrongCall(f"--out {out}: a feature file ends in .npz or .csv")
    with compose.together() as device:
        samples = compose.find_samples(source, root)
        model = models.load_model(run).to(device)
        console = console_for(as_json)
        features = compose.extract_to(
            model, samples, out, batch_size=batch_size, workers=workers, console=console
        )
        main = distributed.is_main()
    shape = list(features.vectors.shape)
    if not main:
        return
    if as_json:
        print_json({"out": str(out), "shape": shape, "parts": features.parts})
    else:
        console.say(f"{shape[0]} features of {shape[1]} numbers: {out}")


@app.command()
def decide(
    features: Annotated[Path, typer.Argument(help="A feature file (.npz) of known identities.")],
    false_match_rate: Annotated[
        float, typer.Option(help="Share of pairs of two people that may be called the same.")
    ],
    confidence: Annotated[float, typer.Option(help="Of the promise, such as 0.95.")] = 0.95,
    run: Annotated[
        Path | None, typer.Option(help="Store the threshold in this run's model.json.")
    ] = None,
    independent: Annotated[
        str,
        typer.Option(
            help="What the promise rests on. identities: pairs that share nobody, exact. "
            "estimated: all pairs, needs fewer identities, no guarantee. pairs: all pairs as if "
            "independent, too good."
        ),
    ] = "identities",
    metric: Annotated[
        str | None, typer.Option(help="cosine or euclidean; the run's own, else cosine.")
    ] = None,
    prior: Annotated[
        float | None,
        typer.Option(help="Share of same-identity pairs where you work; that of the file."),
    ] = None,
    per_camera_pair: Annotated[
        bool, typer.Option("--per-camera-pair", help="Also a threshold for every two cameras.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Write the reliability of the probabilities here (PNG).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the decision here (JSON).")] = None,
    as_json: AsJson = False,
) -> None:
    """Fit the threshold for "same identity" that keeps a promised rate of false matches.

    The features must be of people the model was not trained on. 1 in 1,000 with 95 % confidence
    needs 5,990 identities; with 80 people ask for 0.08, or for --independent estimated.

    Example: reidkit extract runs/quickstart test.csv --out test.npz

    reidkit decide test.npz --false-match-rate 0.01 --run runs/quickstart --independent estimated
    """
    for name, value in (
        ("--false-match-rate", false_match_rate),
        ("--confidence", confidence),
        ("--prior", prior),
    ):
        if value is not None and not 0 < value < 1:
            raise WrongCall(f"{name} {value:g}: expected a fraction between 0 and 1")
    check_endings(("out", out, ".json"), ("plot", plot, ".png"))
    if metric not in (None, "cosine", "euclidean"):
        raise WrongCall(f"--metric {metric}: cosine or euclidean")
    if independent not in ("identities", "estimated", "pairs"):
        raise WrongCall(f"--independent {independent}: identities, estimated or pairs")
    from reidkit.compose import decision
    from reidkit.files import write_atomically

    found = decision.decide_file(
        features,
        false_match_rate,
        run=run,
        metric=metric,  # type: ignore[arg-type]  # checked above
        plot=plot,
        confidence=confidence,
        independent=independent,
        prior=prior,
        per_camera_pair=per_camera_pair,
    )
    if out is not None:
        write_atomically(out, (json.dumps(found.to_dict(), indent=2) + "\n").encode())
    if as_json:
        print_json(found.to_dict())
        return
    print(found.text())
    places = {"reliability": plot, "decision": out, "stored with the model of": run}
    for what, place in places.items():
        if place is not None:
            print(f"{what}: {place}")


@app.command()
def search(
    run: Run,
    sources: Annotated[
        list[str],
        typer.Argument(help="Images, folders, packed silhouettes, or benchmark:split."),
    ],
    gallery: Annotated[
        Path, typer.Option(help="Features of known identities: an .npz that `extract` wrote.")
    ],
    count: Annotated[int, typer.Option("-k", min=1, help="Identities to name.")] = 5,
    picture: Annotated[Path | None, typer.Option(help="Write the ranked lists here (PNG).")] = None,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Who is this: the nearest identities of each image, tracklet or gait sequence.

    Example: reidkit search runs/gaitset walk/ --gallery people.npz
    """
    from reidkit import compose, models
    from reidkit.types import Features

    check_endings(("gallery", gallery, ".npz"), ("picture", picture, ".png"))
    samples = [sample for source in sources for sample in compose.find_samples(source, root)]
    known = Features.load(gallery)
    model = models.load_model(run).to(compose.choose_device())
    console = console_for(as_json)
    found = compose.search(
        model, samples, known, run=run, count=count, picture=picture, console=console
    )
    if as_json:
        print_json([answer.to_dict() for answer in found])
        return
    for answer in found:
        console.say(answer.text())
    if picture is not None:
        console.say(f"ranked lists: {picture}")


@app.command()
def mean(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or their scores.json.")],
    as_json: AsJson = False,
) -> None:
    """Mean and deviation over several runs: the ten splits of a benchmark, or several seeds.

    Example: reidkit mean runs/split-1 runs/split-2 runs/split-3
    """
    from reidkit import compose

    found = compose.mean_of_runs(runs)
    if as_json:
        print_json(found.to_dict())
    else:
        print(found.text())


@app.command("list")
def list_components(
    kind: Annotated[str | None, typer.Argument(help="One kind; all where absent.")] = None,
    as_json: AsJson = False,
) -> None:
    """Every registered component with its arguments: what a config may name."""
    from reidkit import compose

    found = compose.components(kind)
    if as_json:
        print_json(found)
        return
    for title, entries in found.items():
        print(title)
        for name, signature in entries.items():
            told = title in ("protocol", "baseline")
            print(f"  {name}: {signature}" if told else f"  {name}({signature})")


@app.command()
def doctor(
    config: Annotated[
        Path | None,
        typer.Argument(help="Check with this run's data, loader and model, before training it."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="For example data.workers=4"),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="How long to measure, after the starts.")
    ] = 10.0,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Measure, or only tell what is here.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """What this machine has, what is missing, and whether loader or model holds a training up.

    Tells cores, memory, devices, versions, FAISS, the image decoder, threads and room on the disk;
    then measures images a second of the loader alone (without workers, with threads, with
    processes), of the model alone, and of both, and names the bottleneck. Without a CONFIG that is
    OSNet x0.25 on synthetic JPEGs.

    Examples: reidkit doctor

    reidkit doctor configs/synthetic/quickstart.yaml data.workers=2

    reidkit doctor --no-check --json
    """
    if config is not None and not check:
        raise WrongCall("--no-check measures nothing: leave out the CONFIG, or --no-check")
    from reidkit import compose
    from reidkit.config import load_config

    settings = load_config(config, overrides or ()) if config is not None else None
    facts = compose.diagnose()
    if not as_json:
        width = max(map(len, facts))
        for name, value in facts.items():
            print(f"{name:<{width}}  {value}")
    found = None
    if check:
        from reidkit.compose.throughput import measure

        console = console_for(as_json)
        console.say(f"\nmeasuring loader and model, about {seconds:g} s ...")
        found = measure(settings, seconds=seconds, console=console)
        if not as_json:
            print(found.text())
    if as_json:
        print_json(facts | ({"throughput": found.to_dict()} if found else {}))
