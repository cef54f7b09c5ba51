"""Prediction in tiles beside MONAI's sliding_window_inference, and its memory for micrographs of growing size.

Every measurement is a process of its own; those that are compared alternate, and their medians are
compared.

    python -m benchmarks.tiling --json

Needs MONAI: pip install "emfm[benchmarks]".
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

SIDE, ROI, OVERLAP = 4096, 512, 0.25
MEMORY_SIDES = (4096, 16384, 32768)
VARIANTS = ("monai", "emfm_same_tiles", "emfm_defaults")


def prepare(folder: Path, generator: str) -> None:
    """Write a micrograph of 4096 x 4096 pixels, a model with batch norm, and the classes of the untiled result."""
    import torch

    from emfm import EMForSemanticSegmentation, EMFoundationConfig
    from emfm.simulate.nanoparticles import simulate_nanoparticles

    part = np.concatenate([simulate_nanoparticles((1024, 1024), seed).image for seed in range(2)], axis=1)
    half = np.concatenate([part, part[::-1, ::-1]])
    image = np.tile(half, (SIDE // half.shape[0], SIDE // half.shape[1]))
    np.save(folder / "image.npy", image)
    torch.manual_seed(0)
    labels = {0: "background", 1: "particle"}
    model = EMForSemanticSegmentation(EMFoundationConfig.from_name(generator, norm="batch", id2label=labels))
    statistics = model.processor.statistics(image)
    values = torch.from_numpy(model.processor.normalize(image, statistics))[None, None]
    with torch.no_grad():
        model.train()(values[..., :512, :512])  # running statistics of this micrograph
        logits = model.eval()(values[..., :512, :512]).logits
        model.class_head.bias -= logits.mean(dim=(0, 2, 3))  # so that both classes occur
        model.save_pretrained(folder / "model")
        np.save(folder / "untiled.npy", model.maps(values)[0].argmax(0).numpy().astype(np.uint8))


def run_variant(name: str, folder: Path) -> np.ndarray:
    """Return the class map of the prepared micrograph."""
    from emfm import predict
    from emfm.tasks import load_model

    model = load_model(folder / "model").eval()
    image = np.load(folder / "image.npy", mmap_mode="r")
    with Measured() as measured:
        if name == "monai":
            classes = monai_classes(model, image)
        elif name == "emfm_defaults":
            classes = predict(model, image).output
        else:
            classes = same_tiles(model, image)
    untiled = np.load(folder / "untiled.npy")
    return {**measured.figures, "classes_changed": float((classes != untiled).mean())}


def monai_classes(model: Any, image: np.ndarray) -> np.ndarray:
    """Return the class map as one writes it with MONAI: windows of 512 px, a quarter shared, Gaussian weights."""
    import torch
    from monai.inferers import sliding_window_inference

    values = torch.from_numpy(model.processor.normalize(image, model.processor.statistics(image)))[None, None]
    with torch.no_grad():
        maps = sliding_window_inference(values, (ROI, ROI), 4, model.maps, overlap=OVERLAP, mode="gaussian")
    return maps[0].argmax(0).numpy().astype(np.uint8)


def same_tiles(model: Any, image: np.ndarray) -> np.ndarray:
    """Return emfm's class map with MONAI's tile and overlap."""
    import torch

    from emfm.inference.blocks import Blocks
    from emfm.inference.plan import Plan
    from emfm.inference.tiling import Tiling

    statistics = model.processor.statistics(image)
    tiling = Tiling(ROI, (int(ROI * OVERLAP) - 16) // 2, 16, model.trunk.stride)
    classes = np.empty(image.shape, np.uint8)
    for row, column, maps in Blocks(model, image, statistics, Plan(tiling, 1, torch.get_num_threads())):
        block = model.result(maps, statistics, image.dtype)
        classes[row : row + block.shape[0], column : column + block.shape[1]] = block
    return classes


def run_memory(side: int, folder: Path) -> dict[str, float]:
    """Predict a sparse file of a square micrograph to a file."""
    from emfm import EMForSemanticSegmentation, EMFoundationConfig
    from emfm.inference.files import predict_files

    model = EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label={0: "a", 1: "b"})).eval()
    path = folder / f"{side}.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint16, shape=(side, side))
    with Measured() as measured:
        entry = predict_files(model, [path], folder / "out")[0]
    assert "output" in entry, entry
    return {**measured.figures, "file_mib": side**2 * 2 / 2**20}


class Measured:
    """Seconds, seconds of the processor, and by how much memory grew at its peak, in MiB."""

    figures: dict[str, float]

    def __enter__(self) -> "Measured":
        self._base, self._started, self._cpu = _status("VmRSS"), time.perf_counter(), time.process_time()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        return self

    def __exit__(self, *error: object) -> None:
        self.figures = {
            "seconds": time.perf_counter() - self._started,
            "cpu_seconds": time.process_time() - self._cpu,
            "peak_mib": (_status("VmHWM") - self._base) / 1024,
        }


def _status(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return float(line.split()[1])


def measure(folder: Path, *arguments: str) -> dict[str, float]:
    """Return the figures of one measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.tiling", "--folder", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def compare(generator: str, repeats: int, threads: int, folder: Path) -> dict[str, Any]:
    """Return medians of MONAI and emfm in turn, and how they compare."""
    measure(folder, "--prepare", "--generator", generator)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for _ in range(repeats):
        for name in VARIANTS:
            runs[name].append(measure(folder, "--variant", name, "--threads", str(threads)))
            sys.stderr.write(f"{name} {runs[name][-1]}\n")
    medians = {name: {key: median(run[key] for run in found) for key in found[0]} for name, found in runs.items()}
    result: dict[str, Any] = {"generator": generator, "threads": threads, "repeats": repeats, "medians": medians}
    for name in VARIANTS[1:]:
        result[name] = {
            "times_as_fast": medians["monai"]["seconds"] / medians[name]["seconds"],
            "times_as_fast_by_cpu": medians["monai"]["cpu_seconds"] / medians[name]["cpu_seconds"],
            "share_of_memory": medians[name]["peak_mib"] / medians["monai"]["peak_mib"],
        }
    return result


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", default="unet4-rf200", help="with batch norm and random weights")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[], help="default: as many as there are processors")
    parser.add_argument("--sides", type=int, nargs="*", default=MEMORY_SIDES, help="of the squares for the memory")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        return _one_measurement(arguments)
    import torch

    result: dict[str, Any] = {"comparison": [], "memory": {}}
    with tempfile.TemporaryDirectory() as temporary:
        for threads in arguments.threads or [torch.get_num_threads()]:
            if arguments.repeats:
                result["comparison"].append(compare(arguments.generator, arguments.repeats, threads, Path(temporary)))
        for side in arguments.sides:
            result["memory"][side] = measure(Path(temporary), "--memory", str(side))
    sys.stdout.write(json.dumps(result, indent=1) + "\n" if arguments.json else table(result))


def _one_measurement(arguments: argparse.Namespace) -> None:
    import torch

    if arguments.threads:
        torch.set_num_threads(arguments.threads[0])
    if arguments.prepare:
        prepare(arguments.folder, arguments.generator)
        found = {}
    elif arguments.variant:
        found = run_variant(arguments.variant, arguments.folder)
    else:
        found = run_memory(arguments.memory, arguments.folder)
    sys.stdout.write(json.dumps(found) + "\n")


def table(result: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = []
    for found in result["comparison"]:
        threads = f"{found['threads']} thread{'s' * (found['threads'] > 1)}"
        lines += [
            f"| {found['generator']}, {threads} | s | processor s | peak MiB | classes changed |",
            "|---|" + "---|" * 4,
        ]
        for name, run in found["medians"].items():
            lines.append(
                f"| {name.replace('_', ' ')} | {run['seconds']:.1f} | {run['cpu_seconds']:.1f} | "
                f"{run['peak_mib']:.0f} | {100 * run['classes_changed']:.4f} % |"
            )
        lines.append("")
    lines += ["| side | file MiB | peak MiB over base | s |", "|---|---|---|---|"]
    for side, run in result["memory"].items():
        lines.append(f"| {side} | {run['file_mib']:.0f} | {run['peak_mib']:.0f} | {run['seconds']:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
