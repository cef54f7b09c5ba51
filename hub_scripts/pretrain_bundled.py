"""Pretrain the models that ship inside the package, and put them there.

    python hub_scripts/pretrain_bundled.py --data FOLDER [--only NAME] [--dry-run]

FOLDER holds one folder of unlabelled micrographs per source, as listed in SOURCES. Stopped runs go on where they were.
"""

import argparse
import shutil
import sys
from pathlib import Path

from emfm.training.pretrain import PretrainArguments, pretrain
from emfm.weights import BUNDLED

SOURCES = ("fib25_medulla", "emps", "catalyst_haadf", "atomic_stem", "cem500k_samples")
MODELS = ("unet4-rf200-w16", "unet4-rf200")


def recipe(name: str, data: Path, runs: Path) -> PretrainArguments:
    """Return the settings of one model: 60,800 crops of 80 x 80 pixels."""
    return PretrainArguments(
        data=tuple(str(data / source) for source in SOURCES),
        output=str(runs / name),
        generator=name,
        steps=3800,
        batch_size=16,
        crop=80,
        discriminator_width=16,
        precision="bf16",
        save_steps=200,
        resume=True,
    )


def main() -> None:
    """Run the recipes one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where checkpoints go")
    parser.add_argument("--only", choices=MODELS)
    parser.add_argument("--dry-run", action="store_true", help="print the settings and stop")
    arguments = parser.parse_args()
    for name in [arguments.only] if arguments.only else MODELS:
        settings = recipe(name, arguments.data, arguments.runs)
        if arguments.dry_run:
            sys.stdout.write(f"{settings}\n")
            continue
        folder = pretrain(settings)
        shutil.copytree(folder, BUNDLED / name, dirs_exist_ok=True)
        sys.stdout.write(f"{folder} -> {BUNDLED / name}\n")


if __name__ == "__main__":
    main()
