"""Verbs that use a model on micrographs."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from emfm.cli.application import Json, app, figures
from emfm.cli.options import takes
from emfm.errors import EMError
from emfm.inference.arguments import PredictArguments


@app.command()
@takes(PredictArguments, only=("tile",))
def evaluate(
    model: Annotated[str, typer.Option(help="Fine-tuned model: folder or Hub id.")],
    data: Annotated[str, typer.Option(help="Folder with images/ and masks/ or targets/, or a dataset.")],
    split: Annotated[str, typer.Option(help="Which list of splits.json, or split of the dataset.")] = "test",
    degrade: Annotated[
        str | None, typer.Option(help="Restoration: make pairs from clean images, as in training.")
    ] = None,
    *,
    given: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Measure a fine-tuned model on one split, beside an answer that needs no network."""
    from emfm.finetuning.evaluate import evaluate as run

    result = run(model, data, split, given["tile"], degrade)
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
@takes(PredictArguments)
def predict(
    inputs: Annotated[list[str], typer.Argument(help="Micrographs: files, patterns, folders.", metavar="INPUT...")],
    model: Annotated[str, typer.Option(help="Model: zoo name, folder or Hub id.")],
    output: Annotated[str, typer.Option(help="Folder for the results.")],
    given: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Predict micrographs: NAME.tif with the result, pictures to look at, measurements or a line profile.

    A run that was stopped goes on where it was. Under torchrun or accelerate several processes share the work.
    """
    from emfm.inference.files import expand_inputs, predict_files
    from emfm.inference.processes import Processes

    files = expand_inputs(inputs, Path(output))
    entries = predict_files(model, files, Path(output), PredictArguments(**given))
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
