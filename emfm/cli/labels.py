"""Verbs about labels: from other programs, to them, drafts, and what is reviewed of those."""

from pathlib import Path
from typing import Annotated, Any

import typer

from emfm.cli.application import Json, answer, app
from emfm.cli.options import takes
from emfm.labels.arguments import ExportArguments, ImportArguments, ReviewArguments

labels = typer.Typer(
    name="labels",
    help="Labels: from other programs and to them; predictions as drafts, which people correct and review.",
)
app.add_typer(labels)
Folder = Annotated[str, typer.Argument(help="Labelled folder: images/ and masks/ with labels.json.")]


@labels.command("import")
@takes(ImportArguments)
def import_command(
    source: Annotated[str, typer.Argument(help="File or folder of labels.")],
    output: Annotated[str, typer.Option(help="New labelled folder.")],
    given: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Make a labelled folder of labels from labelme, COCO, VIA, QuPath, ImageJ, napari, ilastik."""
    from emfm.labels.importing import import_labels

    made = import_labels(source, output, ImportArguments(**given))
    result = {
        "folder": str(made.folder),
        "format": made.format,
        "images": made.images,
        "shapes": made.shapes,
        "classes": list(made.classes),
    }
    classes = ", ".join(made.classes)
    text = f"{made.images} images with {made.shapes} shapes of {made.format}, classes {classes}: {made.folder}"
    answer(as_json, result, text, indent=1)


@labels.command("export")
@takes(ExportArguments)
def export_command(
    folder: Folder,
    output: Annotated[str, typer.Option(help="New folder for the files of labels.")],
    given: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Write masks as labels that another program opens; they say how to import them again."""
    from emfm.labels.exporting import export_labels

    how = ExportArguments(**given)
    made = export_labels(folder, output, how)
    words = ["emfm labels import", str(made.folder), "--format", how.format, "--images", str(Path(folder) / "images")]
    words += ["--unlabelled", made.unlabelled]
    words += [word for name in made.classes or () for word in ("--classes", name)]
    words += ["--instances"] if how.instances else []
    back = " ".join(f"'{word}'" if " " in word and index else word for index, word in enumerate(words))
    result = {"folder": str(made.folder), "images": made.images, "objects": made.objects, "import": back}
    text = f"{made.objects} objects in {made.images} images: {made.folder}\nback again: {back} --output NEW"
    answer(as_json, result, text, indent=1)


@labels.command("draft")
def draft_command(
    model: Annotated[str, typer.Argument(help="Model for segmentation: folder or Hub id.")],
    inputs: Annotated[list[str], typer.Argument(help="Micrographs: files, patterns, folders.", metavar="INPUT...")],
    output: Annotated[str, typer.Option(help="Labelled folder for images and drafts; may hold some.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace drafts that are there.")] = False,
    as_json: Json = False,
) -> None:
    """Predict micrographs as drafts of labels; none counts before it is reviewed."""
    from emfm.inference.inputs import expand_inputs
    from emfm.labels.drafts import draft_labels

    made = draft_labels(model, expand_inputs(inputs, Path(output)), output, overwrite)
    result = {"folder": str(made.folder), "images": made.images, "classes": list(made.classes)}
    text = f"{len(made.images)} drafts: correct {made.folder / 'drafts'}, then emfm labels review {made.folder} FILE"
    answer(as_json, result, text, indent=1)


@labels.command("review")
@takes(ReviewArguments)
def review_command(
    folder: Annotated[str, typer.Argument(help="Folder with drafts.")],
    file: Annotated[str, typer.Argument(help="Name of the image.")],
    given: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Mark an image's draft, or regions of it, as right: they become its mask, to train on."""
    from emfm.labels.review import mark_reviewed

    made = mark_reviewed(folder, file, ReviewArguments(**given))
    result = {"file": made.file, "share": made.share, "reviewed": [list(box) for box in made.boxes]}
    answer(as_json, result, f"{made.file}: {made.share:.1%} of the pixels are reviewed")
