"""Verbs that use a model on micrographs, and that bring it to other programs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from emfm.app import LOOPBACK, ServeArguments
from emfm.cli.application import Json, Model, answer, app, figures, say
from emfm.cli.options import takes
from emfm.errors import EMError
from emfm.export import PackageArguments
from emfm.files import writable_file
from emfm.inference.arguments import PredictArguments
from emfm.reports.measure_arguments import MeasureArguments


class Format(StrEnum):
    """What `emfm export` writes."""

    ONNX = "onnx"
    BIOIMAGEIO = "bioimageio"


@app.command()
@takes(PredictArguments, only=("tile", "tta", "nodata", "dataset", "colour"))
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
    from emfm.hub.card import figure
    from emfm.io.reading import FileChoice

    choice = FileChoice(given["dataset"], given["colour"])
    result = run(model, data, split, given["tile"], degrade, given["nodata"], choice, given["tta"])
    lines = []
    for label, measured in result.get("per_class", {}).items():
        shown = "  ".join(f"{name} {figure(value)}" for name, value in measured.items())
        lines.append(f"{label:<24}{shown}")
    lines.append(f"{'model':<24}{figures(result)}  ({result['n']} images)")
    lines.append(f"{'without a network':<24}{figures(result['trivial'])}")
    if result.get("calibration_error") is not None:
        lines.append(f"{'calibration error':<24}{result['calibration_error']:.4f}")
    if "data_range" in result:
        lines.append(f"data range: {result['data_range']}")
    answer(as_json, result, "\n".join(lines), indent=1)


@app.command()
@takes(PredictArguments)
def predict(
    inputs: Annotated[list[str], typer.Argument(help="Micrographs: files, patterns, folders.", metavar="INPUT...")],
    model: Annotated[
        list[str], typer.Option(help="Model: zoo name, folder or Hub id; of several, such as seeds, the mean.")
    ],
    output: Annotated[str, typer.Option(help="Folder for the results.")],
    given: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Predict micrographs: NAME.tif with the result, pictures, measurements or a line profile.

    FILE::DATASET names a dataset of an HDF5, Zarr, DM or EMD file.
    A run that was stopped goes on. Under torchrun or accelerate several processes share the work.
    """
    from emfm.inference.files import predict_files
    from emfm.inference.inputs import expand_inputs
    from emfm.inference.processes import Processes

    files = expand_inputs(inputs, Path(output))
    entries = predict_files(model, files, Path(output), PredictArguments(**given))
    if Processes.join().rank > 0:  # the first process speaks for all, with its exit code, too
        return
    wrong, lines = [], []
    for entry in entries:
        if "error" in entry:
            wrong.append(entry["error"])
        if "output" in entry:
            done = " (done before)" if entry["skipped"] else ""
            lines.append(f"{entry['input']} -> {entry['output']}, {entry['picture']}{done}{_unsure(entry)}")
    if lines or as_json:
        answer(as_json, entries, "\n".join(lines), indent=1)
    if wrong:
        raise EMError("; ".join(wrong if len(entries) == 1 else [f"{len(wrong)} of {len(entries)} failed", *wrong]))


def _unsure(entry: dict[str, Any]) -> str:
    """Return how much of a result is less sure than stated."""
    sure = entry.get("confidence")
    return f"; {sure['share_below']:.1%} less sure than {sure['stated']:g}" if sure else ""


@app.command()
@takes(PackageArguments)
def export(
    model: Model,
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
    """Write a model for other programs and compare it with torch. Needs the extra 'export'."""
    from emfm.export.onnx_file import TOLERANCE, export_onnx

    path, package = Path(output), PackageArguments(**given)
    if format is Format.BIOIMAGEIO:
        from emfm.export.bioimageio_package import export_package

        difference = export_package(model, path, package)
    else:
        from emfm.tasks import load_model

        if package != PackageArguments():
            raise EMError("an ONNX file holds no name, author or licence: leave them out, or give --format bioimageio")
        path = path if path.suffix == ".onnx" else path / f"{Path(model).resolve().name}.onnx"
        difference = export_onnx(load_model(model), writable_file(path))
    result = {"model": model, "output": str(path), "largest_difference": difference, "tolerance": TOLERANCE}
    answer(as_json, result, f"{path}: agrees with torch within {difference:.1g} of the output's largest magnitude")


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

    serving = ServeArguments(**given)
    local = serving.host in LOOPBACK and not serving.share
    page = build_page(named([*(model or []), *bundled_names()]), label=serving.session, local=local)
    say(f"emfm app: http://{given['host']}:{given['port']} (Ctrl-C stops it)")
    serve(page, **given)


@app.command()
@takes(MeasureArguments)
def measure(
    masks: Annotated[list[str], typer.Argument(help="Masks: files, patterns, folders.", metavar="MASK...")],
    output: Annotated[str, typer.Option(help="Folder for tables and figures.")],
    given: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Measure the objects of masks that are there: sizes, shapes, neighbours, one by one."""
    from emfm.inference.inputs import expand_inputs
    from emfm.reports.measure_files import measure_files

    files = [found.file for found in expand_inputs(masks, Path(output))]
    entries = measure_files(files, Path(output), MeasureArguments(**given))
    lines = [
        f"{entry['file']}: {entry['objects']} objects, median diameter {entry['median_diameter']} {entry['unit']}"
        for entry in entries
    ]
    answer(as_json, entries, "\n".join(lines), indent=1)
