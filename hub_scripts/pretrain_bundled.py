"""Pretrain the models that ship inside the package, and put them there.

    python hub_scripts/pretrain_bundled.py --data FOLDER [--only NAME] [--threads N] [--dry-run]

FOLDER holds one folder of unlabelled micrographs per source. What is trained, on what and how stands in
`recipes/NAME.toml`, settings of `emfm pretrain`. Stopped runs go on where they were.
"""

import argparse
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundled_command import run_recipes
from script_command import say

from emfm.loading.names import BUNDLED
from emfm.pretraining.pretrain import PretrainArguments, pretrain

RECIPES = Path(__file__).parent / "recipes"
MODELS = sorted(path.stem for path in RECIPES.glob("*.toml"))


def recipe(name: str, data: Path, runs: Path) -> PretrainArguments:
    """Return the settings of one model."""
    fields: dict[str, Any] = tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
    fields["data"] = tuple(str(data / source) for source in fields["data"])
    return PretrainArguments(**fields, output=str(runs / name), resume=True)


def train(name: str, arguments: argparse.Namespace) -> Path | None:
    """Pretrain one model; returns its folder."""
    settings = recipe(name, arguments.data, arguments.runs)
    if arguments.dry_run:
        say(f"would pretrain with {settings}\nand copy the model to {BUNDLED / name}")
        return None
    return Path(pretrain(settings))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_recipes(__doc__, MODELS, train, BUNDLED, argv)


if __name__ == "__main__":
    sys.exit(main())
