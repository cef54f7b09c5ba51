"""`emfm demo`: the bundled model and the same network from scratch, eight labelled images, one unseen micrograph."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from emfm.data.datasets import load_em_dataset
from emfm.data.examples import LabelledMicrographs
from emfm.demo.arguments import DemoArguments
from emfm.demo.report import write_report
from emfm.errors import EMError
from emfm.files import write_text
from emfm.finetuning.arguments import FinetuneArguments
from emfm.finetuning.finetune import finetune
from emfm.inference.predict import predict
from emfm.io.reading import Micrograph
from emfm.reports.pictures import overlay, to_display
from emfm.reports.prediction import Prediction
from emfm.simulate.folder import LABELS, write_simulated_folder
from emfm.simulate.nanoparticles import NanoparticleParameters, simulate_nanoparticles
from emfm.tasks.metrics import SegmentationMetrics
from emfm.training.curves import plot_curves

MODEL = "unet4-rf200-w16"
IMAGES = 8
SIMULATED_SHAPE = (512, 512)  # of the images that are trained on
UNSEEN_SHAPE = (1024, 1536)  # height, width
UNSEEN_SEED = 10_000
CROP = 128
# One gold sample at a range of magnifications, so that eight images can show what there is.
SAMPLE = NanoparticleParameters(nominal_diameters=(5.0, 10.0), pixels_across=(20.0, 50.0))
STARTS: dict[str, dict[str, Any]] = {"pretrained": {"model": MODEL}, "scratch": {"scratch": MODEL}}


def run_demo(output: Path, data: str | None, steps: int, seed: int) -> dict[str, Any]:
    """Run the demonstration and write `report.html`, `summary.json`, `model/` and the pictures.

    Args:
        output: folder for the results; one that an earlier demo made is replaced.
        data: labelled folder, or None for simulated micrographs.
        steps: training steps of each model.
        seed: decides images, crops and new weights.

    Returns:
        The summary, with the printed table under "table".

    Raises:
        EMError: a setting has a value that it cannot have, the output folder holds something else, or the data cannot
            be used.
    """
    DemoArguments(str(output), data, steps, seed)  # which checks them
    started = time.perf_counter()
    _clear(output)
    folder = data or str(
        write_simulated_folder("nanoparticles", output / "simulated", 12, SIMULATED_SHAPE, seed, SAMPLE)
    )
    training = load_em_dataset(folder, "train")
    micrograph, truth, id2label = _unseen(folder, simulated=data is None, seed=seed)
    facts, predictions, figures = {}, {}, {}
    for name, start in STARTS.items():
        target = output / ("model" if name == "pretrained" else "model_scratch")
        arguments = FinetuneArguments(
            "segmentation",
            folder,
            str(target),
            num_images=min(IMAGES, len(training)),
            steps=steps,
            crop=CROP,
            seed=seed,
            **start,
        )
        facts[name] = finetune(arguments)
        predictions[name] = predict(target, micrograph, progress=True)
        counts = SegmentationMetrics(id2label)
        counts.add(predictions[name].output, truth)
        figures[name] = counts.result()
    curves = {
        name: json.loads((output / folder_name / "curve.json").read_text())
        for name, folder_name in (("pretrained", "model"), ("scratch", "model_scratch"))
    }
    plot_curves(curves, output / "curves.png")
    summary = _summary(facts, figures, curves, micrograph, time.perf_counter() - started)
    pictures = _pictures(micrograph, truth, predictions, id2label)
    write_report(output, summary, pictures)
    write_text(output / "summary.json", json.dumps(summary, indent=1))
    return summary


def _clear(output: Path) -> None:
    """Make room: an earlier demo's folder goes, anything else is left alone."""
    if not output.exists():
        return
    if any(output.iterdir()) and not (output / "summary.json").is_file() and not (output / "simulated").is_dir():
        raise EMError(f"{output} holds files that no demo wrote: choose another --output")
    shutil.rmtree(output)


def _unseen(folder: str, simulated: bool, seed: int) -> tuple[Micrograph, np.ndarray, dict[int, str]]:
    """Return a micrograph that no training saw, its class map and the class names."""
    if simulated:
        drawn = simulate_nanoparticles(UNSEEN_SHAPE, UNSEEN_SEED + seed, SAMPLE)
        labels = dict(enumerate(LABELS.values()))
        return Micrograph(drawn.image, drawn.pixel_size, "unseen.tif"), drawn.mask.astype(np.int64), labels
    test = _held_out(folder)
    return Micrograph(test.images[0], test.pixel_sizes[0], test.names[0]), test.masks[0], test.id2label


def _held_out(folder: str) -> LabelledMicrographs:
    try:
        return load_em_dataset(folder, "test")
    except EMError as error:
        raise EMError(f"the demo shows an image that no training saw, from the split 'test': {error}") from error


def _summary(
    facts: dict[str, Any], figures: dict[str, Any], curves: dict[str, Any], micrograph: Micrograph, seconds: float
) -> dict[str, Any]:
    final = {name: curve[-1]["dice"] for name, curve in curves.items()}
    reached = next((entry["step"] for entry in curves["pretrained"] if entry["dice"] >= final["scratch"]), None)
    lines = [f"{'':<12}{'unseen Dice':>12}{'unseen IoU':>12}{'validation Dice, first to last':>40}"]
    for name, result in figures.items():
        shown = " ".join(f"{entry['dice']:.2f}" for entry in curves[name][:: max(1, len(curves[name]) // 5)])
        lines.append(f"{name:<12}{result['dice']:>12.3f}{result['iou']:>12.3f}{shown:>40}")
    return {
        "table": "\n".join(lines),
        "model": MODEL,
        "data": facts["pretrained"]["data"],
        "images": facts["pretrained"]["images"],
        "steps": facts["pretrained"]["steps"],
        "unseen": {"name": micrograph.name, "shape": list(micrograph.image.shape), **figures},
        "pretrained_reaches_final_scratch_at_step": reached,
        "curves": curves,
        "seconds": round(seconds, 1),
    }


def _pictures(
    micrograph: Micrograph, truth: np.ndarray, predictions: dict[str, Prediction], id2label: dict[int, str]
) -> dict[str, np.ndarray]:
    image = micrograph.array
    pictures = {"Input": to_display(image), "Truth": overlay(image, truth, id2label)}
    for name, prediction in predictions.items():
        pictures[f"Predicted, {name}"] = overlay(image, prediction.output, id2label)
    return pictures
