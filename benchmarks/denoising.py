"""Denoisers side by side on micrographs that they were not trained on, with counted doses and with unsteady lines.

FOLDER holds labelled sets (their test lists are used) and, where it is there, `hrtem_clean`; simulated atomic columns
are added. A micrograph is brought to 0..1; its pixels count as many electrons as a Poisson distribution gives for
value times dose. Methods that learn from the micrograph itself are given the same seconds of one core each. Each cell
is one line of JSON in the results file; what is there is not measured again. Example:

    python -m benchmarks.denoising --data FOLDER --model denoiser --model denoiser-strong --micrographs 2
"""

import argparse
import json
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from benchmarks.denoisers import METHODS, STARTS, TRAINED, Budget, cannot, method, processor_time
from benchmarks.denoising_tables import NOISES, table
from benchmarks.transfer_cell import weights_digest
from emfm import read_micrograph
from emfm.data.degradations import displace_lines
from emfm.loading.names import locate
from emfm.reports.residual import measure_residual
from emfm.simulate.folder import write_simulated_folder

RESULTS = Path("benchmarks/results/denoising.jsonl")
SIMULATED = "atomic-stem"
SETS = (
    "alumina_pt",
    "axon_myelin",
    "emps_particles",
    "hrtem_clean",
    "isbi_membrane",
    "superalloy_precipitates",
    "vnc_mitochondria",
    SIMULATED,
)
# "lines" has this dose, and each line is displaced by about so many pixels.
LINE_DOSE, LINE_SHIFT = 20, 0.5
FIGURES = (("psnr", "PSNR (dB)", ".2f"), ("ssim", "SSIM", ".3f"))
# So many clean micrographs of a set are what a supervised training learns from.
CLEAN = 8


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the settings of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the labelled sets")
    parser.add_argument("--model", action="append", default=[], help="zoo name or folder of a denoiser; repeatable")
    parser.add_argument("--method", action="append", choices=METHODS, help="these alone; by default all; repeatable")
    parser.add_argument("--set", action="append", help="these sets alone; repeatable")
    parser.add_argument("--noise", action="append", choices=NOISES, help="these alone; repeatable")
    parser.add_argument("--micrographs", type=int, default=2, help="of each set (default %(default)s)")
    parser.add_argument(
        "--draws", type=int, default=3, help="of the noise; one where a method trains (default %(default)s)"
    )
    parser.add_argument("--side", type=int, default=256, help="of the part in the middle, px (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="of training per micrograph (default %(default)s)")
    parser.add_argument("--share", type=float, default=1.0, help="of the seconds that are used (default %(default)s)")
    parser.add_argument("--careamics", help="the Python of an environment with careamics; without it none is measured")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(argv)


def cells(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return everything that is measured, method by method."""
    sets = arguments.set or SETS
    starts = dict.fromkeys(METHODS) | STARTS | {name: name for name in arguments.model}
    weights = {name: start and weights_digest(Path(locate(start))) for name, start in starts.items()}
    methods = [*(METHODS if arguments.method is None else arguments.method), *arguments.model]
    return [
        {
            "method": name,
            "set": data,
            "micrograph": number,
            "noise": noise,
            "draw": draw,
            "side": arguments.side,
            "seconds": arguments.seconds * arguments.share if name in TRAINED else None,
            "weights": weights[name],
        }
        for name in methods
        for data in sets
        for noise in arguments.noise or NOISES
        for draw in range(1 if name in TRAINED else arguments.draws)
        for number in range(arguments.micrographs)
    ]


def clean_micrographs(data: Path, name: str, side: int) -> Iterator[np.ndarray]:
    """Yield the middle of the test micrographs of a set, values of 0 to 1, evenly drawn from its list."""
    for path in _paths(data, name, "test"):
        pixels = np.asarray(read_micrograph(path).image, dtype=np.float64)
        low, high = (0.0, 255.0) if name != SIMULATED else (pixels.min(), pixels.max())
        top, left = ((length - side) // 2 for length in pixels.shape)
        if min(top, left) >= 0:
            yield (pixels[top : top + side, left : left + side] - low) / (high - low)


def _paths(data: Path, name: str, split: str) -> list[Path]:
    if name == SIMULATED:
        return sorted((data / SIMULATED / "denoising" / "targets").glob("*.tif"))
    lists = data / name / "splits.json"
    if not lists.is_file():
        raise SystemExit(f"there is no {lists}: give the folder of the labelled sets, or others with --set")
    names = json.loads(lists.read_text(encoding="utf-8")).get(split, [])
    return [data / name / "images" / file for file in sorted(names)]


def counted(clean: np.ndarray, noise: str, key: str) -> np.ndarray:
    """Return a micrograph as its electrons were counted, float32; the key decides the noise."""
    random = np.random.default_rng(zlib.crc32(f"{key} {noise}".encode()))
    dose = LINE_DOSE if noise == "lines" else int(noise)
    if noise == "lines":
        shifts = torch.from_numpy(random.normal(0, LINE_SHIFT, (1, 1, clean.shape[0], 1)))
        clean = displace_lines(torch.from_numpy(clean)[None, None], shifts)[0, 0].numpy()
    return (random.poisson(clean * dose) / dose).astype(np.float32)


def measure(cell: dict[str, Any], clean: np.ndarray, budget: Budget) -> dict[str, Any]:
    """Return the cell with figures of the restored micrograph, seconds, and what its residual looks like."""
    noisy = counted(clean, cell["noise"], f"{cell['set']} {cell['micrograph']} {cell['draw']}")
    started = processor_time()
    restored = method(cell["method"])(noisy, budget)
    took = processor_time() - started
    shown = np.clip(restored, 0, 1)
    facts = measure_residual(noisy, restored)[0].to_dict() if cell["method"] != "noisy" else {}
    return {
        **cell,
        "took": took,
        "psnr": float(peak_signal_noise_ratio(clean, shown, data_range=1)),
        "ssim": float(structural_similarity(clean, shown, data_range=1)),
        "residual": facts,
    }


def read_results(path: Path) -> list[dict[str, Any]]:
    """Return what was measured, in the order of the methods; nothing where there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    order = list(METHODS)
    found = [json.loads(line) for line in lines]
    return sorted(found, key=lambda one: order.index(one["method"]) if one["method"] in order else len(order))


def main() -> None:
    """Measure what the results file lacks, then print the table."""
    arguments = parse()
    torch.set_num_threads(1)
    budget = Budget(arguments.seconds, share=arguments.share, careamics=arguments.careamics)
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    done = read_results(arguments.results)
    shown = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_simulated_folder(SIMULATED, folder / SIMULATED, 12, (arguments.side, arguments.side), 1)
        for cell in cells(arguments):
            data = folder if cell["set"] == SIMULATED else arguments.data
            found = next((line for line in done if all(line.get(key) == value for key, value in cell.items())), None)
            why = cannot(cell["method"], budget)
            if found is None and why:
                sys.stderr.write(f"{cell['method']} is left out: {why}\n")
                continue
            if found is None:
                images = list(clean_micrographs(data, cell["set"], arguments.side))
                if cell["micrograph"] >= len(images):
                    continue
                own = replace(budget, seed=cell["micrograph"], clean=_clean_of(data, cell["set"]))
                found = measure(cell, images[cell["micrograph"]], own)
                with arguments.results.open("a") as results:
                    results.write(json.dumps(found) + "\n")
            shown.append(found)
    sys.stdout.write(table(shown) + "\n")


def _clean_of(data: Path, name: str) -> list[np.ndarray]:
    """Return clean micrographs of a set that are not among those measured: of the training list."""
    if name == SIMULATED:
        return []
    return [np.asarray(read_micrograph(path).image) for path in _paths(data, name, "train")[:CLEAN]]


if __name__ == "__main__":
    main()
