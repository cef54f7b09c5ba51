"""Verbs that use a model on micrographs."""

import json
from pathlib import Path
from typing import Annotated

import typer

from emfm.cli.application import Json, app, figures
from emfm.errors import EMError


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="Fine-tuned model: folder or Hub id.")],
    data: Annotated[str, typer.Option(help="Folder with images/ and masks/ or targets/, or a dataset.")],
    split: Annotated[str, typer.Option(help="Which list of splits.json, or split of the dataset.")] = "test",
    degrade: Annotated[
        str | None, typer.Option(help="Restoration: make pairs from clean images, as in training.")
    ] = None,
    tile: Annotated[
        int | None, typer.Option(help="Largest side of a tile in pixels.", show_default="by the free memory")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a fine-tuned model on one split, beside an answer that needs no network."""
    from emfm.finetuning.evaluate import evaluate as run

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
    inputs: Annotated[list[str], typer.Argument(help="Micrographs: files, patterns, folders.", metavar="INPUT...")],
    model: Annotated[str, typer.Option(help="Model: zoo name, folder or Hub id.")],
    output: Annotated[str, typer.Option(help="Folder for the results.")],
    tile: Annotated[
        int | None, typer.Option(help="Largest side of a tile in pixels.", show_default="by the free memory")
    ] = None,
    pixel_size: Annotated[float | None, typer.Option(help="nm per pixel, where the file does not say.")] = None,
    match_pixel_size: Annotated[
        bool, typer.Option("--match-pixel-size", help="Resample to the pixel sizes of the training, and back.")
    ] = False,
    form: Annotated[str, typer.Option("--format", help="Of the results: tif, npy or zarr.")] = "tif",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Predict again what is finished.")] = False,
    index: Annotated[int | None, typer.Option(help="Slice of a stack, from 0; -1 is the last.")] = None,
    colour: Annotated[
        str | None, typer.Option(help="Grey from colour: luminance, mean, red, green or blue; refused by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict micrographs: NAME.tif with the result, pictures to look at, measurements or a line profile.

    A run that was stopped goes on where it was. Under torchrun or accelerate several processes share the work.
    """
    from emfm.inference.files import expand_inputs, predict_files
    from emfm.inference.one_file import PredictArguments
    from emfm.inference.processes import Processes

    arguments = PredictArguments(tile, pixel_size, match_pixel_size, form, overwrite, index, colour)
    files = expand_inputs(inputs, Path(output))
    entries = predict_files(model, files, Path(output), arguments)
    wrong = [entry["error"] for entry in entries if "error" in entry]
    if Processes.join().rank > 0:  # the first process speaks for all, with its exit code, too
        return
    if as_json:
        typer.echo(json.dumps(entries, indent=1))
    for entry in entries:
        if "output" in entry and not as_json:
            done = " (done before)" if entry["skipped"] else ""
            typer.echo(f"{entry['input']} -> {entry['output']}, {entry['picture']}{done}")
    if wrong:
        raise EMError("; ".join(wrong if len(entries) == 1 else [f"{len(wrong)} of {len(entries)} failed", *wrong]))
