"""Verbs that bring a model to other programs and to other people."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from emfm.cli.application import Json, app


class Format(StrEnum):
    """What `emfm export` writes."""

    ONNX = "onnx"
    BIOIMAGEIO = "bioimageio"


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Zoo name, folder or Hub id.")],
    output: Annotated[
        str, typer.Option(help="File (.onnx; .zip for bioimageio), or folder for the file or the package.")
    ],
    format: Annotated[
        Format,
        typer.Option(help="onnx: one file for images of any size. bioimageio: a package of the bioimage.io zoo."),
    ] = Format.ONNX,
    author: Annotated[list[str] | None, typer.Option(help="bioimageio: name of an author; may be repeated.")] = None,
    name: Annotated[str | None, typer.Option(help="bioimageio: the model's name; by default MODEL's.")] = None,
    license: Annotated[
        str | None, typer.Option(help="bioimageio: SPDX identifier, as in Apache-2.0; by default the card's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model for other programs, after a comparison with torch. Needs emfm's extra 'export'."""
    from emfm.export.onnx_file import TOLERANCE

    path = Path(output)
    if format is Format.BIOIMAGEIO:
        from emfm.export.bioimageio_package import PackageArguments, export_package

        difference = export_package(model, path, PackageArguments(name, tuple(author or ()), license))
    else:
        from emfm.export.onnx_file import export_onnx
        from emfm.tasks import load_model

        path = path if path.suffix == ".onnx" else path / f"{Path(model).name}.onnx"
        difference = export_onnx(load_model(model), path)
    if as_json:
        facts = {"model": model, "output": str(path), "largest_difference": difference, "tolerance": TOLERANCE}
        return typer.echo(json.dumps(facts))
    typer.echo(f"{path}: agrees with torch within {difference:.1g} of the output's largest magnitude")


@app.command("app")
def app_command(
    model: Annotated[
        list[str] | None,
        typer.Option(help="Folder or Hub id to offer beside the bundled models; may be repeated, the first is chosen."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 opens the page to the network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port.")] = 7860,
    share: Annotated[
        bool, typer.Option("--share/--no-share", help="Tunnel the page through Gradio's servers to a public address.")
    ] = False,
    upload_mb: Annotated[int, typer.Option(help="Largest file that is accepted, in MB.")] = 500,
) -> None:
    """Open a page that runs models on micrographs in the browser. Needs emfm's extra 'app'."""
    from emfm.app.page import build_page, named, serve
    from emfm.loading.names import bundled_names

    page = build_page(named([*(model or []), *bundled_names()]))
    typer.echo(f"emfm app: http://{host}:{port} (Ctrl-C stops it)")
    serve(page, host, port, share, upload_mb)
