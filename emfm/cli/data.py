"""Verbs that make data sets and give them to others."""

import json
from pathlib import Path
from typing import Annotated

import typer

from emfm.cli.application import Json, app


@app.command()
def simulate(
    kind: Annotated[str, typer.Argument(help="nanoparticles, atomic-stem or structures")],
    output: Annotated[str, typer.Option(help="Folder for the images and their masks or targets.")],
    count: Annotated[int, typer.Option(help="How many micrographs.")] = 16,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 512,
    seed: Annotated[int, typer.Option(help="Decides every image.")] = 0,
) -> None:
    """Simulate micrographs with exact masks (a labelled folder) or targets (a folder of pairs for each task)."""
    from emfm.simulate.folder import write_simulated_folder

    folder = write_simulated_folder(kind, Path(output), count, (size, size), seed)
    typer.echo(f"{count} simulated micrographs: {folder}")


@app.command("push-dataset")
def push_dataset(
    folder: Annotated[
        str,
        typer.Argument(help="images/ with masks/ or targets/, micrographs alone, or parquet with its card."),
    ],
    repo_id: Annotated[str, typer.Argument(help="Dataset repository on the Hub: owner/name.")],
    license: Annotated[
        str | None, typer.Option(help="The Hub's identifier, as cc-by-4.0; unknown where none is named. Required.")
    ] = None,
    citation: Annotated[str | None, typer.Option(help="Whom to cite: one line or BibTeX. Required.")] = None,
    source: Annotated[str | None, typer.Option(help="Where the images are from, for the card.")] = None,
    summary: Annotated[str | None, typer.Option(help="What the images show, for the card.")] = None,
    private: Annotated[bool | None, typer.Option(help="Whether a new repository is private.")] = None,
    branch: Annotated[str | None, typer.Option(help="Branch to push to, made where it is missing.")] = None,
    tag: Annotated[str | None, typer.Option(help="Name for this revision, such as v1.0.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Propose the change instead of making it.")] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, say what would be pushed, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Push micrographs to the Hub as a dataset, in one commit that replaces what the repository held.

    Licence and citation are required, unless the folder has a card that says them.
    """
    from emfm.hub.datasets.push import describe_dataset
    from emfm.hub.datasets.push import push_dataset as push

    where = {"private": private, "branch": branch, "tag": tag, "create_pr": create_pr, "message": message}
    if dry_run:
        text = describe_dataset(folder, repo_id, license, citation, **where)
        typer.echo(json.dumps({"repo_id": repo_id, "would_push": text}) if as_json else f"would push {repo_id}\n{text}")
        return
    address = push(folder, repo_id, license, citation, source, summary, **where)
    typer.echo(json.dumps({"repo_id": repo_id, "commit": address}) if as_json else f"pushed: {address}")
