"""`emfm demo`: a pretrained network, the same from scratch, a random forest; three labels."""

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from emfm.data.datasets import load_em_dataset
from emfm.data.examples import LabelledMicrographs
from emfm.demo import DemoArguments
from emfm.demo.forest import Forest
from emfm.demo.page import write_report
from emfm.errors import EMError
from emfm.files import writable_folder, write_text
from emfm.finetuning.arguments import FinetuneArguments
from emfm.finetuning.finetune import finetune, plot_curves
from emfm.hub.card import figure
from emfm.inference.predict import predict
from emfm.modeling import EMPreTrainedModel
from emfm.tasks import load_model
from emfm.tasks.metrics import SegmentationMetrics

MODEL = "hrnet-w18-small"
BUNDLED = Path(__file__).with_name("micrographs")
IMAGES = 3  # labelled ones
UNSEEN = 4  # at most so many are shown
CROP = 128
# Start: the finished model's folder, and what fine-tuning is told.
STARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "pretrained": ("model", {"model": MODEL}),
    "scratch": ("model_scratch", {"scratch": MODEL}),
}
FOREST = "random forest"


def _output(model: EMPreTrainedModel, image: np.ndarray) -> np.ndarray:
    return predict(model, image).output


@dataclass
class Contender:
    """What one way made of the unseen micrographs.

    Attributes:
        seconds: that learning took.
        figures: of all unseen micrographs together.
        dice: of each of them.
        class_maps: its answers (H, W).
        curve: evaluations on the validation images, where there are any.
    """

    seconds: float
    figures: dict[str, Any] = field(default_factory=dict)
    dice: list[float | None] = field(default_factory=list)
    class_maps: list[np.ndarray] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, unseen: LabelledMicrographs, classes_of: Callable[[np.ndarray], np.ndarray]) -> None:
        """Let it find the classes of every unseen micrograph, and measure them."""
        together = SegmentationMetrics(unseen.id2label)
        for image, truth in zip(unseen.images, unseen.masks, strict=True):
            found, alone = classes_of(image), SegmentationMetrics(unseen.id2label)
            for counts in (together, alone):
                counts.add(found, truth)
            self.class_maps.append(found)
            self.dice.append(alone.result()["dice"])
        self.figures = together.result()


def run_demo(output: Path, data: str | None, steps: int, seed: int) -> dict[str, Any]:
    """Run the demonstration and write `report.html`, `summary.json` and the models.

    Args:
        output: folder for the results; one that an earlier demo made is replaced.
        data: labelled folder, or None for the bundled micrographs.
        steps: training steps of each network.
        seed: decides images, crops, new weights and trees.

    Returns:
        The summary, with the printed table under "table".

    Raises:
        EMError: a setting is wrong, the output holds something else, or the data are of no use.
    """
    DemoArguments(str(output), data, steps, seed)  # which checks them
    started = time.perf_counter()
    writable_folder(output)
    _clear(output)
    folder = data or str(BUNDLED)
    training = load_em_dataset(folder, "train")
    training = training.take(min(IMAGES, len(training)), seed)
    unseen = _unseen(folder)
    found = {}
    for name, (place, start) in STARTS.items():
        settings = {"num_images": len(training), "steps": steps, "crop": CROP, "seed": seed, **start}
        began = time.perf_counter()
        record = finetune(FinetuneArguments("segmentation", folder, str(output / place), **settings))
        curve = json.loads((output / place / "curve.json").read_text())
        found[name] = Contender(time.perf_counter() - began, curve=curve)
        model = load_model(output / place)
        found[name].answer(unseen, partial(_output, model))
    began = time.perf_counter()
    forest = Forest(training, seed)
    found[FOREST] = Contender(time.perf_counter() - began)
    found[FOREST].answer(unseen, forest.predict)
    plot_curves({name: contender.curve for name, contender in found.items() if contender.curve}, output / "curves.png")
    summary = _summary(record, found, unseen, time.perf_counter() - started)
    write_report(output, summary, unseen, {name: contender.class_maps for name, contender in found.items()})
    write_text(output / "summary.json", json.dumps(summary, indent=1))
    return summary


def _clear(output: Path) -> None:
    """Make room: an earlier demo's folder goes, anything else is left alone."""
    if not output.exists():
        return
    if any(output.iterdir()) and not (output / "summary.json").is_file() and not _stopped(output):
        raise EMError(f"{output} holds files that no demo wrote: choose another --output")
    shutil.rmtree(output)


def _stopped(output: Path) -> bool:
    """Return whether a folder holds what a demo leaves that was stopped, and nothing else."""
    return {path.name for path in output.iterdir()} <= {place for place, _ in STARTS.values()} | {"curves.png"}


def _unseen(folder: str) -> LabelledMicrographs:
    """Return micrographs that no training saw."""
    try:
        test = load_em_dataset(folder, "test")
    except EMError as error:
        raise EMError(f"the demo shows images that no training saw, of the split 'test': {error}") from error
    return test.part(0, min(UNSEEN, len(test)))


def _summary(
    record: dict[str, Any], found: dict[str, Contender], unseen: LabelledMicrographs, seconds: float
) -> dict[str, Any]:
    curves = {name: contender.curve for name, contender in found.items() if contender.curve}
    last = curves["scratch"][-1]["dice"]
    goal = math.inf if last is None else last
    reached = next((entry["step"] for entry in curves["pretrained"] if (entry["dice"] or 0) >= goal), None)
    lines = [f"{'':<15}{'unseen Dice':>12}{'unseen IoU':>12}{'seconds':>9}  Dice of each unseen image"]
    for name, contender in found.items():
        measured = "".join(f"{figure(contender.figures[key], '.3f'):>12}" for key in ("dice", "iou"))
        each = " ".join(figure(value, ".3f") for value in contender.dice)
        lines.append(f"{name:<15}{measured}{contender.seconds:>9.0f}  {each}")
    return {
        "table": "\n".join(lines),
        "model": MODEL,
        "data": record["data"],
        "images": record["images"],
        "steps": record["steps"],
        "cores": os.cpu_count(),
        "unseen": {
            "names": list(unseen.names),
            **{name: {**contender.figures, "each": contender.dice} for name, contender in found.items()},
        },
        "learning_seconds": {name: round(contender.seconds, 1) for name, contender in found.items()},
        "pretrained_reaches_final_scratch_at_step": reached,
        "curves": curves,
        "seconds": round(seconds, 1),
    }
