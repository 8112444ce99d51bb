"""Commands about data: check, pack, synth."""

import os
from pathlib import Path
from typing import Annotated

import typer

from reidkit.cli.common import AsJson, WrongCall, console_for, print_json

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
    source: Annotated[Path, typer.Argument(help="Folder of raw silhouettes, or a video file.")],
    out: Annotated[Path, typer.Argument(help="The packed store, a new folder.")],
    layout: Annotated[
        str, typer.Option(help="How the folder is laid out; found out by itself.")
    ] = "auto",
    bits: Annotated[int, typer.Option(help="Bits a pixel: 8, or 1 without the grey edges.")] = 8,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove specks far from the body before aligning.")
    ] = False,
    segmenter: Annotated[
        str,
        typer.Option(
            help="For a video: 'background' for a fixed camera, or a file with a torchvision "
            "(.pth, .safetensors) or ONNX model that segments persons."
        ),
    ] = "background",
    subject: Annotated[str, typer.Option(help="For a video: who walks, if known.")] = "",
    view: Annotated[str, typer.Option(help="For a video: the view in degrees, if known.")] = "",
    as_json: AsJson = False,
) -> None:
    """Raw silhouettes or a video -> aligned 64 x 64 frames in one memory-mapped store.

    Every sequence gets a verdict: good, warned (used, and why it is odd) or rejected. An
    interrupted pack goes on where it stopped.

    Examples: reidkit data pack CASIA-B/silhouettes datasets/casia_b

    reidkit data pack walk.mp4 walk
    """
    if bits not in (1, 8):
        raise WrongCall(f"--bits {bits}: expected 8 or 1")
    if source.is_file() and (layout != "auto" or clean):
        raise WrongCall("--layout and --clean are for a folder of silhouettes, not for a video")
    if not source.is_file() and (segmenter != "background" or subject or view):
        raise WrongCall("--segmenter, --subject and --view are for a video file")
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
                workers=os.cpu_count() or 1,
                progress=progress,
            )
    if as_json:
        print_json(report.to_dict())
    else:
        console.say(report.text())


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

    console = console_for(as_json)
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
        print_json({"out": str(out)})
    else:
        console.say(f"{out}: Market-1501 layout; load it as benchmark market1501 with check: off")
