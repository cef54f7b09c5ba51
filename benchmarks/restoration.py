"""How well a pretrained generator restores micrographs that its pretraining held out.

Data, damage, crop and held-out micrographs are those of the model's own pretraining, which its config.json holds; each
draw takes other crops and other damage. A draw is one line of JSON in the results file; what is there is not measured
again. FOLDER holds one folder per source. Example:

    python -m benchmarks.restoration --data FOLDER --model unet4-rf200 --model unet4-rf200-w16 --draws 5
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emfm.data.degradations import Corruption, CorruptionStrength
from emfm.modeling import EMFoundation
from emfm.pretraining.arguments import PretrainArguments
from emfm.pretraining.batches import open_data
from emfm.pretraining.validation import validate

FIGURES = (("l1", "L1", ".4f"), ("psnr", "PSNR (dB)", ".2f"), ("ssim", "SSIM", ".3f"))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the settings of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the folders of micrographs")
    parser.add_argument("--model", action="append", required=True, help="zoo name or folder; repeatable")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/restoration.jsonl"))
    return parser.parse_args(argv)


def cells(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return model and draw of everything that is measured."""
    return [{"model": model, "draw": draw} for model in arguments.model for draw in range(arguments.draws)]


def measure(cell: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the cell with the figures of the damaged and of the restored crops."""
    model = EMFoundation.from_pretrained(cell["model"])
    run = model.config.pretraining
    args = PretrainArguments(
        data=tuple(str(folder / name) for name in run["data"]),
        output="nowhere",
        generator=run["generator"],
        crop=run["crop"],
        seed=run["seed"] + cell["draw"],
    )
    data = open_data(args, model.processor)
    strength = CorruptionStrength(**{name: _tuple(value) for name, value in run["strength"].items()})
    figures, _ = validate(model, data.validation, Corruption(run["corruption"], strength, args.seed))
    trained = run["micrographs"]
    if data.count != trained:
        raise SystemExit(f"{cell['model']} was trained on {trained} micrographs; {folder} has {data.count} of its data")
    return {**cell, "micrographs": len(data.calibration.micrographs) - data.count, **figures}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def table(results: list[dict[str, Any]]) -> str:
    """Return mean and standard deviation over the draws, a row for each model."""
    rows = ["| model | draws | " + " | ".join(label for _, label, _ in FIGURES) + " |", "|---|---|" + "---|" * 3]
    for model in dict.fromkeys(result["model"] for result in results):
        mine = [result for result in results if result["model"] == model]
        shown = []
        for name, _, form in FIGURES:
            values, before = [r[name] for r in mine], np.mean([r[f"{name}_input"] for r in mine])
            spread = np.std(values, ddof=1 if len(values) > 1 else 0)
            shown.append(f"{before:{form}} to {np.mean(values):{form}} ± {spread:{form}}")
        rows.append(f"| {model} | {len(mine)} | {' | '.join(shown)} |")
    return "\n".join(rows)


def main() -> None:
    """Measure what the results file lacks, then print the table."""
    arguments = parse()
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    lines = arguments.results.read_text().splitlines() if arguments.results.exists() else []
    done = {(result["model"], result["draw"]): result for result in map(json.loads, lines)}
    asked = []
    for cell in cells(arguments):
        key = cell["model"], cell["draw"]
        if key not in done:
            done[key] = measure(cell, arguments.data)
            with arguments.results.open("a") as results:
                results.write(json.dumps(done[key]) + "\n")
        asked.append(done[key])
    sys.stdout.write(table(asked) + "\n")


if __name__ == "__main__":
    main()
