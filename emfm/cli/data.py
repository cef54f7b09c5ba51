"""Verbs that make data sets and give them to others."""

from pathlib import Path
from typing import Annotated, Any

import typer

from emfm.cli.application import Json, answer, app, say
from emfm.cli.options import takes
from emfm.hub.arguments import PushArguments
from emfm.simulate import SimulateArguments


@app.command()
@takes(SimulateArguments)
def simulate(
    output: Annotated[str, typer.Option(help="Folder for the images and their masks or targets.")],
    given: dict[str, Any],
) -> None:
    """Simulate micrographs with exact masks (one folder) or targets (a folder for each task)."""
    from emfm.simulate.folder import write_simulated_folder

    settings = SimulateArguments(**given)
    shape = (settings.size, settings.size)
    folder = write_simulated_folder(settings.kind, Path(output), settings.count, shape, settings.seed)
    say(f"{settings.count} simulated micrographs: {folder}")


@app.command("push-dataset")
@takes(PushArguments)
def push_dataset(
    folder: Annotated[
        str, typer.Argument(help="images/ with masks/ or targets/, micrographs alone, or parquet with its card.")
    ],
    license: Annotated[
        str | None, typer.Option(help="The Hub's identifier, as cc-by-4.0; unknown where none is named. Required.")
    ] = None,
    citation: Annotated[str | None, typer.Option(help="Whom to cite: one line or BibTeX. Required.")] = None,
    source: Annotated[str | None, typer.Option(help="Where the images are from, for the card.")] = None,
    summary: Annotated[str | None, typer.Option(help="What the images show, for the card.")] = None,
    *,
    given: dict[str, Any],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, say what would be pushed, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Push micrographs to the Hub as a dataset, in one commit that replaces the old files.

    Licence and citation are required, unless the folder has a card that says them.
    """
    from emfm.hub.datasets.push import describe_dataset
    from emfm.hub.datasets.push import push_dataset as push

    repo_id = given.pop("repo_id")
    if dry_run:
        content = describe_dataset(folder, repo_id, license, citation, **given)
        answer(as_json, {"repo_id": repo_id, "would_push": content}, f"would push {repo_id}\n{content}")
    else:
        address = push(folder, repo_id, license, citation, source, summary, **given)
        answer(as_json, {"repo_id": repo_id, "commit": address}, f"pushed: {address}")
