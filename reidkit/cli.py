"""The command line. Heavy imports stand inside the commands, so that --help answers at once."""

import json
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from reidkit.engine import Console

app = typer.Typer(
    name="reidkit",
    help="Finds the same individual again: train, evaluate, extract.",
    epilog="Any command takes --debug, which shows the traceback behind an error.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(help="Look at data, and make some.", no_args_is_help=True)
app.add_typer(data_app, name="data")

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and only that.")]
Root = Annotated[
    Path | None,
    typer.Option(help="Folder that holds the benchmarks; REIDKIT_DATA or datasets/ by default."),
]
Run = Annotated[Path, typer.Argument(help="A run folder, or a model.safetensors.")]


class WrongCall(ValueError):
    """The call cannot mean anything: exit code 2."""


def _console(as_json: bool) -> "Console":
    from reidkit.engine import Console

    # With --json standard output belongs to the JSON.
    return Console(sys.stderr if as_json else sys.stdout)


def _check_endings(*options: tuple[str, Path | None, str]) -> None:
    """Refuse an option whose file would get another kind of content than its name says."""
    for option, path, ending in options:
        if path is not None and path.suffix != ending:
            raise WrongCall(f"--{option} {path}: the file's name ends in {ending}")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


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
    as_json: AsJson = False,
) -> None:
    """Train a model, evaluate it, and write its run folder.

    Example: reidkit train configs/synthetic/quickstart.yaml optim.epochs=5
    """
    from reidkit import compose
    from reidkit.config import load_config
    from reidkit.engine import Interrupted

    settings = load_config(config, overrides or ())
    folder = out or (_last_folder(config) if resume else _new_folder(config))
    console = _console(as_json)
    try:
        scores = compose.train(settings, folder, resume=resume, console=console)
    except Interrupted as stop:
        words = ["reidkit", "train", str(config), *(overrides or ()), "--out", str(folder)]
        raise Interrupted(f"{stop}; go on with: {shlex.join(words)} --resume") from stop
    if as_json:
        found = {name: values.to_dict() for name, values in scores.items()}
        _print_json({"run": str(folder), "benchmarks": found})


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
    _check_endings(("report", report, ".html"), ("out", out, ".json"), ("picture", picture, ".png"))
    from datetime import date

    from reidkit.compose import reporting

    console = _console(as_json)
    today = date.today().isoformat()
    if run is not None:
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
            date=today,
        )
    if as_json:
        _print_json({name: scores.to_dict() for name, scores in found.items()})
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
            help="Folder of images, image, manifest, or benchmark:split (market1501:query)."
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
    from reidkit import compose, models

    if out.suffix not in (".npz", ".csv"):
        raise WrongCall(f"--out {out}: a feature file ends in .npz or .csv")
    samples = compose.find_samples(source, root)
    model = models.load_model(run).to(compose.choose_device())
    console = _console(as_json)
    features = compose.extract_to(
        model, samples, out, batch_size=batch_size, workers=workers, console=console
    )
    shape = list(features.vectors.shape)
    if as_json:
        _print_json({"out": str(out), "shape": shape, "parts": features.parts})
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
    _check_endings(("out", out, ".json"), ("plot", plot, ".png"))
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
        _print_json(found.to_dict())
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

    _check_endings(("gallery", gallery, ".npz"), ("picture", picture, ".png"))
    samples = [sample for source in sources for sample in compose.find_samples(source, root)]
    known = Features.load(gallery)
    model = models.load_model(run).to(compose.choose_device())
    console = _console(as_json)
    found = compose.search(
        model, samples, known, run=run, count=count, picture=picture, console=console
    )
    if as_json:
        _print_json([answer.to_dict() for answer in found])
        return
    for answer in found:
        console.say(answer.text())
    if picture is not None:
        console.say(f"ranked lists: {picture}")


@app.command("list")
def list_components(
    kind: Annotated[str | None, typer.Argument(help="One kind; all where absent.")] = None,
    as_json: AsJson = False,
) -> None:
    """Every registered component with its arguments: what a config may name."""
    from reidkit import compose

    found = compose.components(kind)
    if as_json:
        _print_json(found)
        return
    for title, entries in found.items():
        print(title)
        for name, signature in entries.items():
            print(f"  {name}: {signature}" if title == "protocol" else f"  {name}({signature})")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What this machine has: cores, memory, devices, versions, and what is missing."""
    from reidkit import compose

    facts = compose.diagnose()
    if as_json:
        _print_json(facts)
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")


@data_app.command("check")
def check_data(
    name: Annotated[str, typer.Argument(help="A benchmark, such as market1501 or manifest.")],
    root: Annotated[Path, typer.Argument(help="Its folder, or its manifest file.")],
    decode: Annotated[
        bool, typer.Option(help="Read every image, too; without it only names are checked.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Everything that is wrong with a data folder, in one report, each with its remedy."""
    from reidkit import data

    console = _console(as_json)
    with console.bar("read") as update:
        report = data.check_benchmark(
            name, root, decode=decode, progress=lambda done, total: update(done, total=total)
        )
    if as_json:
        _print_json(report.to_dict())
    else:
        console.say(report.text())
    if not report.ok:
        raise typer.Exit(1)


@data_app.command("synth")
def synthesise(
    out: Annotated[Path, typer.Argument(help="A new folder, written in Market-1501's layout.")],
    train_identities: Annotated[int, typer.Option(min=2)] = 200,
    test_identities: Annotated[int, typer.Option(min=2)] = 80,
    cameras: Annotated[int, typer.Option(min=2)] = 5,
    images: Annotated[int, typer.Option(min=1, help="Images of an identity in a camera.")] = 4,
    seed: int = 0,
    as_json: AsJson = False,
) -> None:
    """Render the synthetic world: procedural people seen by several cameras."""
    from reidkit.data import synthetic

    console = _console(as_json)
    with console.bar("render") as update:
        synthetic.write_market(
            out,
            train_identities=train_identities,
            test_identities=test_identities,
            cameras=cameras,
            images=images,
            seed=seed,
            progress=lambda done, total: update(done, total=total),
        )
    if as_json:
        _print_json({"out": str(out)})
    else:
        console.say(f"{out}: Market-1501 layout; load it as benchmark market1501 with check: off")


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


if __name__ == "__main__":
    main()
