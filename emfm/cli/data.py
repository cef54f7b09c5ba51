"""Verbs that make data sets."""

from pathlib import Path
from typing import Annotated

import typer

from emfm.cli.application import app


@app.command()
def simulate(
    kind: Annotated[str, typer.Argument(help="nanoparticles or atomic-stem")],
    output: Annotated[str, typer.Option(help="Folder for the images and their masks or targets.")],
    count: Annotated[int, typer.Option(help="How many micrographs.")] = 16,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 512,
    seed: Annotated[int, typer.Option(help="Decides every image.")] = 0,
) -> None:
    """Simulate micrographs with exact masks (a labelled folder) or targets (a folder of pairs for each task)."""
    from emfm.data.simulated_folder import write_simulated_folder

    folder = write_simulated_folder(kind, Path(output), count, (size, size), seed)
    typer.echo(f"{count} simulated micrographs: {folder}")
