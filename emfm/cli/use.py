"""Verbs that use a model on micrographs."""

import json
from pathlib import Path
from typing import Annotated

import typer

from emfm.cli.application import Json, app, figures


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="Fine-tuned model: folder or Hub id.")],
    data: Annotated[str, typer.Option(help="Folder with images/ and masks/ or targets/, or a dataset.")],
    split: Annotated[str, typer.Option(help="Which list of splits.json, or split of the dataset.")] = "test",
    degrade: Annotated[
        str | None, typer.Option(help="Restoration: make pairs from clean images, as in training.")
    ] = None,
    tile: Annotated[int, typer.Option(help="Side of a tile in pixels.")] = 1024,
    as_json: Json = False,
) -> None:
    """Measure a fine-tuned model on one split, beside an answer that needs no network."""
    from emfm.training.evaluate import evaluate as run

    result = run(model, data, split, tile, degrade)
    if as_json:
        return typer.echo(json.dumps(result, indent=1))
    for label, measured in result.get("per_class", {}).items():
        shown = [f"{name} {'absent' if value is None else f'{value:.4f}'}" for name, value in measured.items()]
        typer.echo(f"{label:<24}{'  '.join(shown)}")
    typer.echo(f"{'model':<24}{figures(result)}  ({result['n']} images)")
    typer.echo(f"{'without a network':<24}{figures(result['trivial'])}")
    if "data_range" in result:
        typer.echo(f"data range: {result['data_range']}")


@app.command()
def predict(
    inputs: Annotated[list[str], typer.Argument(help="Micrograph files.", metavar="INPUT...")],
    model: Annotated[str, typer.Option(help="Model: zoo name, folder or Hub id.")],
    output: Annotated[str, typer.Option(help="Folder for the results.")],
    tile: Annotated[int, typer.Option(help="Side of a tile in pixels; smaller ones take less memory.")] = 1024,
    pixel_size: Annotated[float | None, typer.Option(help="nm per pixel, where the file does not say.")] = None,
    as_json: Json = False,
) -> None:
    """Predict micrographs: NAME.tif with the result and NAME_overlay.png to look at."""
    from emfm.inference.files import predict_files

    written = predict_files(model, [Path(path) for path in inputs], Path(output), tile, pixel_size)
    if as_json:
        return typer.echo(json.dumps(written, indent=1))
    for entry in written:
        typer.echo(f"{entry['input']} -> {entry['output']}, {entry['picture']}")
