"""Whole stacks: memory, stopping and going on, and what planes in all three directions are worth.

Parts, each a line of JSON in the results file; what is there is not measured again:

- `memory`: 500 slices of 1024 x 1024 pixels, all of which are predicted: by how much memory grows, and whether a run
  that SIGTERM stopped half-way and that went on ends with the bytes of one that was not stopped;
- `restored`: noise on consecutive slices of an isotropic volume, restored by slices and by planes of all directions;
- `balls`: a network that learns from a stack of 24 slices of simulated balls, on another volume.

FOLDER holds `fib25_medulla/contiguous_*.png`. Needs Linux. Example:

    python -m benchmarks.volumes --data FOLDER
"""

import argparse
import hashlib
import json
import multiprocessing
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from benchmarks.ball_volume import simulate_balls, write_labelled_balls, write_volume
from benchmarks.json_lines import read_lines
from benchmarks.tiling import Measured
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.inference.arguments import PredictArguments
from emfm.inference.files import predict_files
from emfm.io.reading import read_micrograph
from emfm.tasks import load_model
from emfm.tasks.instance_metrics import InstanceMetrics

RESULTS = Path("benchmarks/results/volumes.jsonl")
DEEP, SIDE, PERIOD = 500, 1024, 128  # slices, their side in pixels, and after how many they repeat within
KNOWN = 50  # every so many slices one is known to the model
NOISE = 25.0  # grey values of 255
RESTORER, START = "unet4-rf200", "unet3-rf96"
STEPS = {"segmentation": 200, "instances": 300}
TEST = (48, 128, 128)
FORK = multiprocessing.get_context("fork")  # a child begins with everything imported


def predicted(model: Any, stack: Path, output: Path, orthoplanes: bool = False) -> np.ndarray:
    """Return the volume that a model makes of a stack."""
    arguments = PredictArguments(index="all", orthoplanes=orthoplanes)
    (entry,) = predict_files(model, [stack], output / ("planes" if orthoplanes else "slices"), arguments)
    return tifffile.imread(entry["output"])


def memory(folder: Path, data: Path) -> list[dict[str, Any]]:
    """Measure a stack; then stop half-way, and go on."""
    import torch

    from emfm import EMForSemanticSegmentation, EMFoundationConfig
    from emfm.inference.domain import domain_of

    torch.manual_seed(0)
    # with batch norm a slice passes through the network once
    config = EMFoundationConfig.from_name("unet2-rf44", norm="batch", id2label={0: "matrix", 1: "ball"})
    model, stack = EMForSemanticSegmentation(config).eval(), folder / f"{DEEP}.tif"
    part = simulate_balls((DEEP, PERIOD, PERIOD), 0).image
    write_volume(stack, np.tile(part, (1, SIDE // PERIOD, SIDE // PERIOD)))
    slices = tifffile.memmap(stack, mode="r")
    model.domain = domain_of(model, [np.array(slices[number]) for number in range(0, DEEP, KNOWN)])
    del slices
    found = {"depth": DEEP, "side": SIDE, **_run(model, stack, folder / "whole")}
    found["slices_done"] = _stop(model, stack, folder / "stopped", DEEP // 2)
    found["resumed_peak_mib"] = _run(model, stack, folder / "stopped")["peak_mib"]
    names = [stack.name, f"{stack.stem}_slices.csv"]
    ends = [[_digest(folder / at / name) for name in names] for at in ("whole", "stopped")]
    return [{**found, "same_bytes": ends[0] == ends[1]}]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(model: Any, stack: Path, output: Path) -> dict[str, float]:
    """Predict a stack in a process of its own, and return its figures."""
    results = FORK.SimpleQueue()
    child = FORK.Process(target=_measured, args=(model, stack, output, results))
    child.start()
    child.join()
    return results.get()


def _stop(model: Any, stack: Path, output: Path, after: int) -> int:
    """Predict a stack until some slices are done, send SIGTERM, and return how many were."""
    child = FORK.Process(target=_measured, args=(model, stack, output, FORK.SimpleQueue()))
    child.start()
    while child.is_alive() and _slices(output) < after:
        time.sleep(0.1)
    child.terminate()
    child.join()
    assert child.exitcode == -signal.SIGTERM, child.exitcode
    return _slices(output)


def _slices(output: Path) -> int:
    """Return how many slices of a run that is under way are done."""
    return len(list(output.glob(".*.slices/[0-9]*.json")))


def _measured(model: Any, stack: Path, output: Path, results: Any) -> None:
    with Measured() as measured:
        (entry,) = predict_files(model, [stack], output, PredictArguments(index="all"))
    assert "output" in entry, entry
    results.put({"file_mib": stack.stat().st_size / 2**20, **measured.figures})


def restored(folder: Path, data: Path) -> list[dict[str, Any]]:
    """Compare a restored noisy volume with the one before the noise, both ways."""
    files = sorted((data / "fib25_medulla").glob("contiguous_*.png"))
    clean = np.stack([read_micrograph(file).array for file in files])
    noisy = clean + np.random.default_rng(0).normal(scale=NOISE, size=clean.shape)
    write_volume(folder / "noisy.tif", np.clip(np.rint(noisy), 0, 255).astype(np.uint8), 10.0)
    noisy, model = tifffile.imread(folder / "noisy.tif"), load_model(RESTORER).eval()
    found = {"model": RESTORER, "noise": NOISE, "shape": clean.shape, "psnr_input": psnr(noisy, clean)}
    for orthoplanes in (False, True):
        volume = predicted(model, folder / "noisy.tif", folder, orthoplanes)
        found["psnr_planes" if orthoplanes else "psnr_slices"] = psnr(volume, clean)
    return [found]


def psnr(volume: np.ndarray, clean: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of 8 bits in dB."""
    return float(10 * np.log10(255**2 / np.mean((volume.astype(float) - clean) ** 2)))


def balls(folder: Path, data: Path) -> list[dict[str, Any]]:
    """Train on stacks of balls with classes and with numbers, and compare both ways on another volume."""
    test = simulate_balls(TEST, 7)
    write_volume(folder / "test.tif", test.image)
    inside, found = test.ids > 0, []
    for task, steps in STEPS.items():
        write_labelled_balls(folder / task, "masks" if task == "segmentation" else "instances")
        output = folder / f"{task}-model"
        finetune(FinetuneArguments(task, str(folder / task), str(output), model=START, steps=steps, crop=96))
        model = load_model(output).eval()
        cell: dict[str, Any] = {"task": task, "model": START, "steps": steps, "balls": len(np.unique(test.ids)) - 1}
        for orthoplanes in (False, True):
            volume = predicted(model, folder / "test.tif", folder / f"{task}-out", orthoplanes)
            way = "planes" if orthoplanes else "slices"
            cell[f"dice_{way}"] = float(2 * (inside & (volume > 0)).sum() / (inside.sum() + (volume > 0).sum()))
            if task == "instances":
                metrics = InstanceMetrics()
                metrics.add(volume.astype(np.int64), test.ids.astype(np.int64))
                cell |= {f"ap50_{way}": metrics.result()["ap50"], f"count_{way}": int(volume.max())}
        found.append(cell)
    return found


PARTS = {"balls": balls, "restored": restored, "memory": memory}


def plane_table(results: Sequence[dict[str, Any]]) -> str:
    """Return what planes of all directions are worth, as Markdown."""
    rows = ["| isotropic volume | figure | before | slices | planes |", "|---|---|---|---|---|"]
    for one in (result for result in results if result["part"] == "restored"):
        shape = " x ".join(map(str, one["shape"]))
        name = f"fib25_medulla, {shape}, noise of {one['noise']:g}, restored by {one['model']}"
        rows.append(
            f"| {name} | PSNR (dB) | {one['psnr_input']:.2f} | {one['psnr_slices']:.2f} | {one['psnr_planes']:.2f} |"
        )
    for one in (result for result in results if result["part"] == "balls"):
        name = f"simulated balls, {one['task']}, {one['model']}, {one['steps']} steps"
        rows.append(f"| {name} | Dice | | {one['dice_slices']:.3f} | {one['dice_planes']:.3f} |")
        if "ap50_slices" in one:
            rows.append(f"| {name} | AP50 in 3-D | | {one['ap50_slices']:.3f} | {one['ap50_planes']:.3f} |")
            rows.append(f"| {name} | objects of {one['balls']} | | {one['count_slices']} | {one['count_planes']} |")
    return "\n".join(rows)


def stack_table(results: Sequence[dict[str, Any]]) -> str:
    """Return memory and time of whole stacks, as Markdown."""
    rows = [
        "| stack | file MiB | peak MiB over base | stopped and resumed: peak MiB | processor s | ends with |",
        "|---|---|---|---|---|---|",
    ]
    for one in (result for result in results if result["part"] == "memory"):
        stack = f"{one['depth']} x {one['side']} x {one['side']}"
        cells = [f"{one[key]:.0f}" for key in ("file_mib", "peak_mib", "resumed_peak_mib", "cpu_seconds")]
        ended = "the same bytes" if one["same_bytes"] else "other bytes"
        rows.append(f"| {stack} | {' | '.join(cells)} | {ended}, stopped after {one['slices_done']} slices |")
    return "\n".join(rows)


def main() -> None:
    """Measure what the results file lacks, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds fib25_medulla")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    for name in arguments.parts:
        if any(result["part"] == name for result in read_lines(arguments.results)):
            continue
        with tempfile.TemporaryDirectory() as temporary:
            found = [{"part": name, **one} for one in PARTS[name](Path(temporary), arguments.data)]
        with arguments.results.open("a") as results:
            results.writelines(json.dumps(one) + "\n" for one in found)
    done = read_lines(arguments.results)
    sys.stdout.write(f"{plane_table(done)}\n\n{stack_table(done)}\n")


if __name__ == "__main__":
    main()
