"""Draw the picture with which the README opens: a micrograph, what a model finds in it, what pretraining is worth.

The micrograph is simulated, and so are the three on which the model is fine-tuned here. The curves
are means over the six real data sets of the study "segmentation", from its committed results.

    python -m benchmarks.opening
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.render import PICTURES, ROOT
from benchmarks.studies import STUDIES
from benchmarks.transfer import RESULTS
from benchmarks.transfer_cell import MARKS
from benchmarks.transfer_plots import COLOURS, RANDOM_COLOUR
from benchmarks.transfer_report import Results, curves, read_results
from emfm import EMForSemanticSegmentation, EMTrainer, EMTrainingArguments, load_em_dataset, predict
from emfm.files import write_atomically
from emfm.reports.pictures import overlay, to_display
from emfm.reports.prediction import Prediction
from emfm.simulate.folder import write_simulated_folder
from emfm.simulate.nanoparticles import NanoparticleParameters, simulate_nanoparticles

MODEL = "hrnet-w18-small"
IMAGES, STEPS, SEED = 3, 150, 0
# As in the study whose curves are shown; the model is taken as it is at the last step.
SETTINGS: dict[str, Any] = {
    "crop": 128,
    "per_device_train_batch_size": 4,
    "seed": SEED,
    "eval_strategy": "no",
    "eval_on_start": False,
    "save_strategy": "no",
}
# Gold of 10 nm at one magnification.
SAMPLE = NanoparticleParameters(nominal_diameters=(10.0,), pixels_across=(30.0, 40.0), dose=(30.0, 60.0))
UNSEEN_SEED, SIDE = 10_007, 448
NAMES = {"random": ("random weights", RANDOM_COLOUR), "zoo": (f"{MODEL}, pretrained", COLOURS[0])}


def fine_tuned(folder: Path) -> EMForSemanticSegmentation:
    """Return the model, fine-tuned on a few simulated micrographs."""
    data = str(write_simulated_folder("nanoparticles", folder / "data", 8, (512, 512), SEED, SAMPLE))
    training = load_em_dataset(data, "train").take(IMAGES, SEED)
    model = EMForSemanticSegmentation.from_pretrained(MODEL, id2label=training.id2label)
    arguments = EMTrainingArguments(output_dir=str(folder / "run"), max_steps=STEPS, **SETTINGS)
    EMTrainer(model, arguments, training, training).train()
    return model


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the Dice coefficient of two masks."""
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def mean_curves(results: Results) -> dict[str, np.ndarray]:
    """Return the Dice of each start, mean over the data sets: (seeds, marks)."""
    gathered: dict[str, list[np.ndarray]] = {}
    for cell, curve in curves(STUDIES["segmentation"].cells(results), results).items():
        if cell.generator == MODEL:
            gathered.setdefault(cell.start, []).append(curve.values)
    return {start: np.mean(values, axis=0) for start, values in gathered.items()}


def draw_curves(axes: Axes, found: dict[str, np.ndarray]) -> None:
    """Draw mean and spread over the seeds."""
    places = range(len(MARKS))
    for start, values in found.items():
        label, colour = NAMES[start]
        mean, spread = values.mean(axis=0), values.std(axis=0, ddof=1)
        axes.plot(places, mean, color=colour, marker="o", markersize=4, label=label)
        axes.fill_between(places, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)
    axes.set_xticks(places, [str(round(share * STEPS)) for share in MARKS])
    axes.set_xlabel("training steps")
    axes.set_ylabel("Dice")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower right")


def draw(prediction: Prediction, truth: np.ndarray, id2label: dict[int, str], found: dict[str, np.ndarray]) -> Figure:
    """Return the picture: micrograph, prediction and curves side by side."""
    image = prediction.image
    figure = Figure(figsize=(11.4, 4.1), layout="constrained")
    micrograph, result, plot = figure.subplots(1, 3)
    micrograph.imshow(to_display(image), cmap="gray", vmin=0, vmax=255)
    micrograph.set_title("A micrograph (simulated)")
    result.imshow(overlay(image, prediction.output, id2label))
    result.set_title(f"Particles, learnt from {IMAGES} labelled ones:\nDice {dice(prediction.output > 0, truth):.2f}")
    for axes in (micrograph, result):
        axes.set_axis_off()
    draw_curves(plot, found)
    plot.set_title(f"Six real data sets, {IMAGES} labelled images each:\nmean Dice on test images")
    return figure


def main() -> int:
    """Train, predict and draw; returns the exit code."""
    unseen = simulate_nanoparticles((SIDE, SIDE), UNSEEN_SEED, SAMPLE)
    with tempfile.TemporaryDirectory() as folder:
        model = fine_tuned(Path(folder))
    prediction = predict(model, unseen.image)
    figure = draw(prediction, unseen.mask > 0, model.classes, mean_curves(read_results(ROOT / RESULTS)))
    path = ROOT / PICTURES / "opening.png"
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110, format="png"))
    sys.stdout.write(f"{path.relative_to(ROOT)} drawn\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
