"""Verbs that bring a model to other programs and to other people."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from emfm.app.arguments import ServeArguments
from emfm.cli.application import Json, app
from emfm.cli.options import takes
from emfm.export.arguments import PackageArguments


class Format(StrEnum):
    """What `emfm export` writes."""

    ONNX = "onnx"
    BIOIMAGEIO = "bioimageio"


@app.command()
@takes(PackageArguments)
def export(
    model: Annotated[str, typer.Argument(help="Zoo name, folder or Hub id.")],
    output: Annotated[
        str, typer.Option(help="File (.onnx; .zip for bioimageio), or folder for the file or the package.")
    ],
    format: Annotated[
        Format,
        typer.Option(help="onnx: one file for images of any size. bioimageio: a package of the bioimage.io zoo."),
    ] = Format.ONNX,
    *,
    given: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Write a model for other programs, after a comparison with torch. Needs emfm's extra 'export'."""
    from emfm.export.onnx_file import TOLERANCE

    path = Path(output)
    if format is Format.BIOIMAGEIO:
        from emfm.export.bioimageio_package import export_package

        difference = export_package(model, path, PackageArguments(**given))
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
@takes(ServeArguments)
def app_command(
    model: Annotated[
        list[str] | None,
        typer.Option(help="Folder or Hub id to offer beside the bundled models; may be repeated, the first is chosen."),
    ] = None,
    *,
    given: dict[str, Any],
) -> None:
    """Open a page that runs models on micrographs in the browser. Needs emfm's extra 'app'."""
    from emfm.app.page import build_page, named, serve
    from emfm.loading.names import bundled_names

    page = build_page(named([*(model or []), *bundled_names()]))
    typer.echo(f"emfm app: http://{given['host']}:{given['port']} (Ctrl-C stops it)")
    serve(page, **given)
