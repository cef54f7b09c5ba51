"""What `benchmarks.trust` measures of one set, and what it costs."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from scipy.stats import rankdata

from benchmarks.tiling import Measured
from benchmarks.trust_tables import COSTS
from emfm import EMForSemanticSegmentation, EMTrainer, EMTrainingArguments, load_em_dataset, predict
from emfm.data.examples import LabelledMicrographs
from emfm.inference.blocks import turned, turned_back
from emfm.tasks.losses import entropy
from emfm.tasks.reliability import Reliability

SIDE = 512  # of the middle of a test micrograph that is measured, in pixels
SYMMETRIES = 8
OTHERS, CHANGED = 4, 2  # micrographs of each other set, and of the own that are changed
PIXELS = 20_000  # drawn from each micrograph to tell wrong from right ones
REPEATS, COST_SIDES = 3, (512, 1024)
# What is done to a micrograph, and the respect in which it is then unlike the training's.
REASONS = {"blurred": "texture", "inverted": "contrast", "enlarged 4 times": "scale", "drowned in noise": "noise"}


def measure_set(name: str, sets: Sequence[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return all figures of a set."""
    folder = arguments.data / name
    models = [fine_tuned(folder, arguments, seed) for seed in range(arguments.seeds)]
    test = load_em_dataset(folder, "test")
    assert isinstance(test, LabelledMicrographs)
    images = [_middle(image) for image in test.images[: arguments.images]]
    truths = [_middle(mask) for mask in test.masks[: arguments.images]]
    return {
        "set": name,
        "images": len(images),
        **_sureness(models, images, truths),
        "domain": _domain(models[0], images, [arguments.data / other for other in sets if other != name]),
        "changed": _changed(models[0], images[:CHANGED]),
    }


def fine_tuned(folder: Path, arguments: argparse.Namespace, seed: int) -> EMForSemanticSegmentation:
    """Return the model of a set and a seed, trained on all its training micrographs if it is not there yet."""
    output = arguments.work / f"{folder.name}-{seed}"
    if not (output / "domain.json").is_file():
        training, validation = load_em_dataset(folder, "train"), load_em_dataset(folder, "validation")
        torch.manual_seed(seed)
        fields = {"id2label": training.id2label, "class_weights": training.balanced_weights(0.5)}
        model = EMForSemanticSegmentation.from_pretrained(arguments.model, **fields)
        settings = EMTrainingArguments(
            output_dir=str(output),
            max_steps=arguments.steps,
            per_device_train_batch_size=4,
            crop=128,
            learning_rate=arguments.rate,
            seed=seed,
            eval_steps=max(1, arguments.steps // 2),
            eval_on_start=False,
            save_strategy="no",
            disable_tqdm=True,
        )
        EMTrainer(model, settings, training, validation).train()
    return EMForSemanticSegmentation.from_pretrained(output).eval()


def _middle(image: np.ndarray) -> np.ndarray:
    top, left = (max(0, (length - SIDE) // 2) for length in image.shape)
    return image[top : top + SIDE, left : left + SIDE]


def _sureness(
    models: list[EMForSemanticSegmentation], images: list[np.ndarray], truths: list[np.ndarray]
) -> dict[str, Any]:
    """Return error and Dice with and without calibration, and how well each kind of doubt finds errors."""
    config = models[0].config
    count = len(models[0].classes)
    ways = {"without": Way(1.0, None), "with": Way(config.temperature, config.class_offsets)}
    sums = {name: (Reliability(), np.zeros((count, count), np.int64)) for name in ways}
    gathered: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    rng = np.random.default_rng(0)
    for image, truth in zip(images, truths, strict=True):
        raw = probabilities(models[0], image, SYMMETRIES)  # (8, K, H, W)
        for name, way in ways.items():
            found = way.calibrated(raw[:1])[0].numpy()
            sums[name][0].add(found, truth)
            sums[name][1][:] += _table(found.argmax(axis=0), truth, count)
        answers = {"one pass, uncalibrated": raw[:1], "one pass": ways["with"].calibrated(raw[:1])}
        answers["eight symmetries"] = ways["with"].calibrated(raw)
        if len(models) > 1:
            others = [
                Way(model.config.temperature, model.config.class_offsets).calibrated(probabilities(model, image, 1))
                for model in models[1:]
            ]
            answers[f"{len(models)} seeds"] = torch.cat([answers["one pass"], *others])
        drawn = rng.permutation(np.flatnonzero(truth >= 0))[:PIXELS]
        for answer, maps in answers.items():
            wrong = (maps.mean(dim=0).argmax(dim=0).numpy() != truth).ravel()[drawn]
            for kind, doubt in doubts(maps).items():
                gathered.setdefault(f"{answer}: {kind}", []).append((doubt.numpy().ravel()[drawn], wrong))
    figures = {name: {"error": reliability.error, "dice": _dice(table)} for name, (reliability, table) in sums.items()}
    kept = {"temperature": config.temperature, "class_offsets": config.class_offsets}
    return {
        "calibration": {**figures, **kept},
        "uncertainty": {kind: _found(parts) for kind, parts in gathered.items()},
    }


def _found(parts: list[tuple[np.ndarray, np.ndarray]]) -> float | None:
    doubt, wrong = (np.concatenate([part[i] for part in parts]) for i in range(2))
    return auroc(doubt[~wrong], doubt[wrong])


def _table(found: np.ndarray, truth: np.ndarray, count: int) -> np.ndarray:
    known = truth >= 0
    return np.bincount(truth[known] * count + found[known], minlength=count * count).reshape(count, count)


def _dice(table: np.ndarray) -> float:
    """Return the mean Dice of all classes but the first, of a table (K, K) of pixels."""
    return float((2 * np.diag(table) / np.maximum(table.sum(axis=0) + table.sum(axis=1), 1))[1:].mean())


@dataclass(frozen=True)
class Way:
    """How probabilities (S, K, H, W) without calibration are made sure."""

    temperature: float
    offsets: Sequence[float] | None

    def calibrated(self, raw: torch.Tensor) -> torch.Tensor:
        """Return what these probabilities become."""
        logits = raw.clamp_min(1e-30).log()
        if self.offsets is not None:
            logits = logits + torch.tensor(self.offsets).view(1, -1, 1, 1)
        return (logits / self.temperature).softmax(dim=1)


@torch.no_grad()
def probabilities(model: EMForSemanticSegmentation, image: np.ndarray, symmetries: int) -> torch.Tensor:
    """Return probabilities (S, K, H, W) without calibration, in some symmetries of a micrograph, turned back."""
    values = torch.from_numpy(model.processor.normalize(image, model.processor.statistics(image)))[None, None]
    height, width = image.shape
    padded = model.padded(values)
    found = [
        turned_back(model(turned(padded, one).contiguous()).logits.float().softmax(dim=1), one)
        for one in range(symmetries)
    ]
    return torch.cat(found)[..., :height, :width]


def doubts(maps: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return kinds of uncertainty (H, W) of probabilities (S, K, H, W) that several passes gave."""
    average = maps.mean(dim=0, keepdim=True)
    of_mean = entropy(average)[0]
    found = {"entropy of the mean": of_mean, "1 - largest probability": 1 - average[0].max(dim=0).values}
    if len(maps) > 1:
        found["disagreement (mutual information)"] = of_mean - entropy(maps).mean(dim=0)
        found["spread of probabilities"] = maps.std(dim=0, correction=0).mean(dim=0)
    return found


def auroc(low: np.ndarray, high: np.ndarray) -> float | None:
    """Return how often a value of `high` is above one of `low`; None where one of them is empty."""
    if not len(low) or not len(high):
        return None
    ranks = rankdata(np.concatenate([low, high]))[len(low) :]
    return float((ranks.sum() - len(high) * (len(high) + 1) / 2) / (len(low) * len(high)))


def _distance(model: EMForSemanticSegmentation, image: np.ndarray) -> Any:
    return predict(model, image).domain


def _domain(model: EMForSemanticSegmentation, own: list[np.ndarray], others: list[Path]) -> dict[str, Any]:
    """Return how well micrographs of other sets are told from the model's own."""
    inside = np.array([_distance(model, image).distance for image in own])
    outside = {}
    for folder in others:
        images = load_em_dataset(folder, "test").images[:OTHERS]
        outside[folder.name] = np.array([_distance(model, _middle(image)).distance for image in images])
    together = np.concatenate(list(outside.values()))
    return {
        "auroc": auroc(inside, together),
        "false_alarms": float((inside > 1).mean()),
        "flagged": float((together > 1).mean()),
        "flagged_of": {name: float((found > 1).mean()) for name, found in outside.items()},
        "at_5_percent": float((together > np.quantile(inside, 0.95)).mean()),
    }


def changes(image: np.ndarray) -> dict[str, np.ndarray]:
    """Return a micrograph (H, W) as `REASONS` names it."""
    values = image.astype(np.float32)
    half = float(np.subtract(*np.percentile(values, [99, 1]))) / 2
    height, width = values.shape
    part = values[height * 3 // 8 : height * 5 // 8, width * 3 // 8 : width * 5 // 8]
    noise = np.random.default_rng(0).normal(0, half, values.shape).astype(np.float32)
    found = (ndimage.gaussian_filter(values, 2.0), -values, ndimage.zoom(part, 4, order=3), values + noise)
    return dict(zip(REASONS, found, strict=True))


def _changed(model: EMForSemanticSegmentation, images: list[np.ndarray]) -> dict[str, dict[str, float]]:
    """Return how often each change is flagged, named among the reasons, and named first."""
    places: dict[str, list[Any]] = {name: [] for name in REASONS}
    for image in images:
        for name, changed in changes(image).items():
            places[name].append(_distance(model, changed))
    return {
        name: {
            "flagged": float(np.mean([not place.inside for place in found])),
            "named": float(np.mean([REASONS[name] in place.unlike for place in found])),
            "first": float(np.mean([place.unlike[:1] == [REASONS[name]] for place in found])),
        }
        for name, found in places.items()
    }


def measure_costs(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return processor seconds and memory of a prediction with and without each check, in turn."""
    names = [path.name for path in sorted(arguments.work.iterdir()) if (path / "domain.json").is_file()]
    model = EMForSemanticSegmentation.from_pretrained(arguments.work / names[0]).eval()
    ways: dict[str, dict[str, Any]] = {
        "prediction alone": {"compare": False},
        "with the domain": {},
        "with uncertainty": {"compare": False, "uncertainty": True},
    }
    rng = np.random.default_rng(0)
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for side in COST_SIDES:
        image = ndimage.gaussian_filter(rng.normal(size=(side, side)), 3).astype(np.float32)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for _ in range(REPEATS):
            for name, how in ways.items():
                with Measured() as measured:
                    predict(model, image, **how)
                runs[name].append(measured.figures)
        rows[str(side)] = {
            name: {key: median(run[key] for run in found) for key in ("cpu_seconds", "peak_mib")}
            for name, found in runs.items()
        }
    return {"set": COSTS, "generator": model.config.generator, "rows": rows}
