"""Commands about data: check, pack, synth."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from reidkit.cli.common import AsJson, Root, WrongCall, console_for, print_json

data_app = typer.Typer(help="Look at data, pack it, and make some.", no_args_is_help=True)


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

    console = console_for(as_json)
    with console.bar("read") as update:
        report = data.check_benchmark(
            name, root, decode=decode, progress=lambda done, total: update(done, total=total)
        )
    if as_json:
        print_json(report.to_dict())
    else:
        console.say(report.text())
    if not report.ok:
        raise typer.Exit(1)


@data_app.command("pack")
def pack(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of raw silhouettes, or a video file; for pictures a config, whose "
            "training pictures are packed at its size, or benchmark:split (market1501:train)."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The packed store, a new folder.")],
    layout: Annotated[
        str,
        typer.Option(
            help="How the folder is laid out, casia_b (SUBJECT/CONDITION/VIEW), oumvlp, casia_a, "
            "grew or folder (one walk); auto finds out."
        ),
    ] = "auto",
    bits: Annotated[int, typer.Option(help="Bits a pixel: 8, or 1 without the grey edges.")] = 8,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove specks far from the body before aligning.")
    ] = False,
    as_published: Annotated[
        bool,
        typer.Option(
            "--as-published",
            help="Use cut and doubled frames too, as GaitSet's published preparation does.",
        ),
    ] = False,
    aligned: Annotated[
        bool,
        typer.Option(
            "--aligned",
            help="Frames are 64 x 64 and aligned: pass them unchanged, reject any other. Without "
            "it this is guessed of each sequence, and known of GREW.",
        ),
    ] = False,
    segmenter: Annotated[
        str,
        typer.Option(
            help="For a video: 'background' for a fixed camera, or a file with a torchvision "
            "(.pth, .safetensors) or ONNX model that segments persons."
        ),
    ] = "background",
    subject: Annotated[str, typer.Option(help="For a video: who walks, if known.")] = "",
    person: Annotated[
        int | None, typer.Option(help="For a video: the class of persons in an ONNX model.")
    ] = None,
    view: Annotated[str, typer.Option(help="For a video: the view in degrees, if known.")] = "",
    size: Annotated[
        str, typer.Option(help="For pictures of a benchmark: HEIGHTxWIDTH, such as 256x128.")
    ] = "",
    root: Root = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="For pictures: replace a store of other pictures.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Raw silhouettes or a video -> aligned 64 x 64 frames in one memory-mapped store; or pictures
    -> one store at the size they train at, which data.store of a config names.

    Every sequence gets a verdict: good, warned (used, and why it is odd) or rejected. An
    interrupted pack goes on where it stopped.

    Examples: reidkit data pack CASIA-B/silhouettes datasets/casia_b

    reidkit data pack walk.mp4 walk

    reidkit data pack configs/market1501/bnneck_r50.yaml market.store
    """
    if source.suffix in (".yaml", ".yml") or not source.exists():
        silhouettes_only = (layout != "auto", bits != 8, clean, as_published, aligned)
        if any(silhouettes_only) or segmenter != "background" or subject or view or person:
            raise WrongCall(
                f"{source} names pictures: only --size, --root and --overwrite are for them"
            )
        _pack_pictures(str(source), out, size, root, overwrite, as_json)
        return
    if size or root or overwrite:
        raise WrongCall(
            f"{source} is a folder or a video: --size, --root and --overwrite are for the pictures "
            "of a benchmark"
        )
    if bits not in (1, 8):
        raise WrongCall(f"--bits {bits}: expected 8 or 1")
    if source.is_file() and (layout != "auto" or clean or as_published or aligned):
        raise WrongCall(
            "--layout, --clean, --as-published and --aligned are for a folder of silhouettes, not "
            "for a video"
        )
    if clean and (as_published or aligned):
        raise WrongCall("--clean changes what --as-published and --aligned leave; choose one")
    if not source.is_file() and (
        segmenter != "background" or subject or view or person is not None
    ):
        raise WrongCall("--segmenter, --subject, --person and --view are for a video file")
    from reidkit.data.silhouettes.pack import pack_silhouettes
    from reidkit.data.video import pack_video

    console = console_for(as_json)
    with console.bar("pack") as update:

        def progress(done: int, total: int) -> None:
            update(done, total=total)

        if source.is_file():
            report = pack_video(
                source,
                out,
                segmenter=segmenter,
                subject=subject,
                view=view,
                person=person,
                bits=bits,
                progress=progress,
            )
        else:
            report = pack_silhouettes(
                source,
                out,
                layout=layout,
                bits=bits,
                clean=clean,
                as_published=as_published,
                aligned=True if aligned else None,
                workers=os.cpu_count() or 1,
                progress=progress,
            )
    if as_json:
        print_json(report.to_dict())
    else:
        console.say(report.text())
    if not any(report.counts[verdict] for verdict in ("good", "warned")):
        raise typer.Exit(1)


def _pack_pictures(
    source: str, out: Path, size: str, root: Path | None, overwrite: bool, as_json: bool
) -> None:
    from reidkit import compose, data
    from reidkit.config import load_config

    if source.endswith((".yaml", ".yml")):
        if size or root:
            raise WrongCall("a config knows its size and its data: leave out --size and --root")
        settings = load_config(source)
        compose.check(settings)
        if settings.data.pixels != "rgb":
            raise WrongCall(f"{source} trains on silhouettes; pack the folder that holds them")
        samples, _ = compose.load_benchmarks(settings)
        if settings.data.fit != "stretch":
            raise WrongCall(f"{source} has fit: {settings.data.fit}, which needs pictures unpacked")
        height, width = compose.preprocessing_of(settings).read_size
    else:
        if ":" not in source and source in data.BENCHMARKS:
            source += ":train"
        height, width = _size_of(size)
        samples = tuple(compose.find_samples(source, root))
    console = console_for(as_json)
    with console.bar("pack", len(samples)) as update:
        report = data.pack_pictures(
            samples,
            out,
            size=(height, width),
            workers=os.cpu_count() or 1,
            overwrite=overwrite,
            progress=lambda done, total: update(done, total=total),
        )
    if as_json:
        print_json(report.to_dict())
    else:
        console.say(report.text())


def _size_of(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise WrongCall(f"--size {text!r}: expected HEIGHTxWIDTH, such as 256x128")
    return int(height), int(width)


@data_app.command("synth")
def synthesise(
    out: Annotated[Path, typer.Argument(help="A new folder; with --layout video an .mp4 file.")],
    layout: Annotated[
        str,
        typer.Option(
            help="market1501 (pictures), mars (tracklets), casia_b (silhouettes of walks in 11 "
            "views), or video (subjects of the casia_b world cross a scene)."
        ),
    ] = "market1501",
    train_identities: Annotated[
        int | None, typer.Option(min=1, help="By default what suits the layout.")
    ] = None,
    test_identities: Annotated[int | None, typer.Option(min=1)] = None,
    cameras: Annotated[int | None, typer.Option(min=2)] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="market1501: images of an identity in a camera.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="mars, casia_b: frames of a sequence.")
    ] = None,
    pids: Annotated[
        str, typer.Option(help="video: who crosses, such as 41,45; one after the other.")
    ] = "",
    seed: int = 0,
    as_json: AsJson = False,
) -> None:
    """Render the synthetic world: procedural people, in the layouts of real benchmarks.

    Examples: reidkit data synth datasets/market1501

    reidkit data synth walk.mp4 --layout video --pids 41,45
    """
    numbers = {
        "train_identities": train_identities,
        "test_identities": test_identities,
        "cameras": cameras,
        "images": images,
        "frames": frames,
    }
    people = {"train_identities", "test_identities"}
    takes = {
        "market1501": people | {"cameras", "images"},
        "mars": people | {"cameras", "frames"},
        "casia_b": people | {"frames"},
        "video": set(),
    }
    if layout not in takes:
        raise WrongCall(f"--layout {layout}: expected one of {', '.join(takes)}")
    given: dict[str, Any] = {name: n for name, n in numbers.items() if n is not None}
    for name in given:
        if name not in takes[layout]:
            raise WrongCall(f"--{name.replace('_', '-')} is not for --layout {layout}")
    if (layout == "video") != bool(pids):
        raise WrongCall("--pids belongs to --layout video, and is needed there")
    from reidkit.data import synthetic

    console = console_for(as_json)
    if layout == "video":
        if not all(word.strip().isdigit() for word in pids.split(",")):
            raise WrongCall(f"--pids {pids}: expected numbers with commas between, such as 41,45")
        synthetic.write_video(out, pids=[int(word) for word in pids.split(",")], seed=seed)
        told = f"{out}: pids {pids} walk by; the truth is in {out.with_suffix('.json')}"
    else:
        with console.bar("render") as update:

            def progress(done: int, total: int) -> None:
                update(done, total=total)

            if layout == "market1501":
                synthetic.write_market(out, seed=seed, progress=progress, **given)
            elif layout == "mars":
                synthetic.write_mars(out, seed=seed, progress=progress, **given)
            else:
                given = {name.replace("identities", "subjects"): n for name, n in given.items()}
                synthetic.write_casia_b(out, seed=seed, progress=progress, **given)
        told = f"{out}: {layout} layout; load it as benchmark {layout} with check: off"
        if layout == "casia_b":
            told = (
                f"{out}: raw silhouettes in CASIA-B's layout; `reidkit data pack {out} STORE` "
                "packs them, then load STORE as benchmark silhouettes"
            )
    if as_json:
        print_json({"out": str(out)})
    else:
        console.say(told)
