"""Fine-tune the models of the package that are used as they are, and put them there.

    python hub_scripts/finetune_bundled.py --data FOLDER [--only NAME] [--threads N] [--dry-run]

FOLDER holds one folder of unlabelled micrographs per source. What is trained, on what and how stands in
`recipes/ready/NAME.toml`, settings of `emfm finetune`. Stopped runs go on where they were.
"""

import argparse
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundled_command import run_recipes
from clean_micrographs import write_clean_folder
from script_command import say

from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.loading.names import BUNDLED

RECIPES = Path(__file__).parent / "recipes" / "ready"
# In this order: one may go on from the one before.
MODELS = sorted(path.stem for path in RECIPES.glob("*.toml"))


def recipe(name: str, runs: Path) -> tuple[list[str], list[str], FinetuneArguments]:
    """Return sources, kinds of simulated micrographs, and the settings of one model."""
    fields: dict[str, Any] = tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
    sources, simulated = fields.pop("data"), fields.pop("simulated")
    if "dose" in fields:
        fields["dose"] = tuple(fields["dose"])
    clean, output = str(runs / "clean"), str(runs / name)
    return sources, simulated, FinetuneArguments(**fields, data=clean, output=output, resume=True)


def train(name: str, arguments: argparse.Namespace) -> Path | None:
    """Fine-tune one model; returns its folder."""
    sources, simulated, settings = recipe(name, arguments.runs)
    if arguments.dry_run:
        say(f"would fine-tune with {settings}\nand copy the model to {BUNDLED / name}")
        return None
    if not (Path(settings.data) / "splits.json").is_file():
        write_clean_folder(arguments.data, sources, simulated, Path(settings.data))
    finetune(settings)
    return Path(settings.output)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_recipes(__doc__, MODELS, train, BUNDLED, argv)


if __name__ == "__main__":
    sys.exit(main())
