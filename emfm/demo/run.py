"""`emfm demo`: the bundled model against its network from scratch, on eight labelled images."""

import base64
import io
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emfm.data.datasets import load_em_dataset
from emfm.demo import DemoArguments
from emfm.errors import EMError
from emfm.files import writable_folder, write_text
from emfm.finetuning.arguments import FinetuneArguments
from emfm.finetuning.finetune import finetune, plot_curves
from emfm.hub.card import TEMPLATES, figure, fill
from emfm.inference.predict import predict
from emfm.io.reading import Micrograph
from emfm.reports.pictures import overlay, to_display
from emfm.simulate.folder import LABELS, write_simulated_folder
from emfm.simulate.nanoparticles import NanoparticleParameters, simulate_nanoparticles
from emfm.tasks.metrics import SegmentationMetrics

MODEL = "unet4-rf200-w16"
IMAGES = 8
SIMULATED_SHAPE = (512, 512)  # of the images that are trained on
UNSEEN_SHAPE = (1024, 1536)  # height, width
UNSEEN_SEED = 10_000
CROP = 128
# One gold sample at a range of magnifications, so that eight images can show what there is.
SAMPLE = NanoparticleParameters(nominal_diameters=(5.0, 10.0), pixels_across=(20.0, 50.0))
# Start: the finished model's folder, and what fine-tuning is told.
STARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "pretrained": ("model", {"model": MODEL}),
    "scratch": ("model_scratch", {"scratch": MODEL}),
}


def run_demo(output: Path, data: str | None, steps: int, seed: int) -> dict[str, Any]:
    """Run the demonstration and write `report.html`, `summary.json` and the models.

    Args:
        output: folder for the results; one that an earlier demo made is replaced.
        data: labelled folder, or None for simulated micrographs.
        steps: training steps of each model.
        seed: decides images, crops and new weights.

    Returns:
        The summary, with the printed table under "table".

    Raises:
        EMError: a setting is wrong, the output holds something else, or the data are of no use.
    """
    DemoArguments(str(output), data, steps, seed)  # which checks them
    started = time.perf_counter()
    writable_folder(output)
    _clear(output)
    folder = data or str(
        write_simulated_folder("nanoparticles", output / "simulated", 12, SIMULATED_SHAPE, seed, SAMPLE)
    )
    training = load_em_dataset(folder, "train")
    micrograph, truth, id2label = _unseen(folder, simulated=data is None, seed=seed)
    settings: dict[str, Any] = {"num_images": min(IMAGES, len(training)), "steps": steps, "crop": CROP, "seed": seed}
    image = micrograph.array
    pictures = {"Input": to_display(image), "Truth": overlay(image, truth, id2label)}
    figures, curves = {}, {}
    for name, (place, start) in STARTS.items():
        record = finetune(FinetuneArguments("segmentation", folder, str(output / place), **start, **settings))
        curves[name] = json.loads((output / place / "curve.json").read_text())
        classes = predict(output / place, micrograph, progress=True).output
        counts = SegmentationMetrics(id2label)
        counts.add(classes, truth)
        figures[name] = counts.result()
        pictures[f"Predicted, {name}"] = overlay(image, classes, id2label)
    plot_curves(curves, output / "curves.png")
    summary = _summary(record, figures, curves, micrograph, time.perf_counter() - started)
    _write_report(output, summary, pictures)
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
    try:
        test = load_em_dataset(folder, "test")
    except EMError as error:
        raise EMError(f"the demo shows an image that no training saw, from the split 'test': {error}") from error
    return Micrograph(test.images[0], test.pixel_sizes[0], test.names[0]), test.masks[0], test.id2label


def _summary(
    record: dict[str, Any], figures: dict[str, Any], curves: dict[str, Any], micrograph: Micrograph, seconds: float
) -> dict[str, Any]:
    final = {name: curve[-1]["dice"] for name, curve in curves.items()}
    goal = math.inf if final["scratch"] is None else final["scratch"]
    reached = next((entry["step"] for entry in curves["pretrained"] if (entry["dice"] or 0) >= goal), None)
    lines = [f"{'':<12}{'unseen Dice':>12}{'unseen IoU':>12}{'validation Dice, first to last':>40}"]
    for name, result in figures.items():
        shown = " ".join(figure(entry["dice"], ".2f") for entry in curves[name][:: max(1, len(curves[name]) // 5)])
        unseen = "".join(f"{figure(result[measured], '.3f'):>12}" for measured in ("dice", "iou"))
        lines.append(f"{name:<12}{unseen}{shown:>40}")
    return {
        "table": "\n".join(lines),
        "model": MODEL,
        "data": record["data"],
        "images": record["images"],
        "steps": record["steps"],
        "unseen": {"name": micrograph.name, "shape": list(micrograph.image.shape), **figures},
        "pretrained_reaches_final_scratch_at_step": reached,
        "curves": curves,
        "seconds": round(seconds, 1),
    }


def _write_report(output: Path, summary: dict[str, Any], pictures: dict[str, np.ndarray]) -> None:
    """Write `report.html` with curves and pictures (caption: grey or RGB uint8) inside."""
    addresses = {}
    for caption, picture in pictures.items():
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format="JPEG", quality=88)
        addresses[caption] = _data_url(buffer.getvalue(), "jpeg")
    curves = _data_url((output / "curves.png").read_bytes(), "png")
    page = fill(TEMPLATES / "demo_report.html", summary=summary, pictures=addresses, curves=curves, figure=figure)
    write_text(output / "report.html", f"{page}\n")


def _data_url(content: bytes, kind: str) -> str:
    """Return an image file as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
