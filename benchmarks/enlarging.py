"""Super-resolution beside interpolation, on micrographs that no model was trained on.

FOLDER holds labelled sets, of which the test lists are used; simulated atomic columns are added. The middle of a
micrograph, brought to 0..1, is the truth. Its pixels are joined, two by two along both axes, to their mean, which is
what each method enlarges. No noise is added: the micrographs have their own. Each cell is one line of JSON in the
results file; what is there is not measured again. Example:

    python -m benchmarks.enlarging --data FOLDER --model superresolver-2x
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.filters import unsharp_mask
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from benchmarks.denoising import SETS, SIMULATED, clean_micrographs
from benchmarks.json_lines import read_lines
from benchmarks.transfer_cell import weights_digest
from emfm import predict
from emfm.loading.names import locate
from emfm.simulate.folder import write_simulated_folder
from emfm.tasks import load_model

RESULTS = Path("benchmarks/results/enlarging.jsonl")
SCALE = 2
# Radius in pixels, and strength that was best of .25, .5, .75 and 1 on training lists.
RADIUS, AMOUNT = 1.0, 0.25


def bicubic(image: np.ndarray) -> np.ndarray:
    """Return an image (H, W) enlarged by PyTorch's bicubic interpolation, which is sharper than Pillow's."""
    enlarged = F.interpolate(torch.from_numpy(image)[None, None], scale_factor=SCALE, mode="bicubic")
    return enlarged[0, 0].numpy()


def lanczos(image: np.ndarray) -> np.ndarray:
    """Return an image (H, W) enlarged by Pillow's Lanczos interpolation."""
    height, width = (SCALE * length for length in image.shape)
    return np.asarray(Image.fromarray(image.astype(np.float32)).resize((width, height), Image.Resampling.LANCZOS))


def sharpened(image: np.ndarray, amount: float = AMOUNT) -> np.ndarray:
    """Return an image (H, W) enlarged by Lanczos's interpolation, and then sharpened by an unsharp mask."""
    return unsharp_mask(lanczos(image), RADIUS, amount, preserve_range=True)


METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "bicubic": bicubic,
    "Lanczos": lanczos,
    "Lanczos, sharpened": sharpened,
}


@cache
def method(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a method by its name: one of METHODS, else a model, which is loaded once."""
    if name in METHODS:
        return METHODS[name]
    model = load_model(name)
    return lambda image: predict(model, image).output


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the settings of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the labelled sets")
    parser.add_argument("--model", action="append", default=[], help="zoo name or folder; repeatable")
    parser.add_argument("--set", action="append", help="these sets alone; repeatable")
    parser.add_argument("--micrographs", type=int, default=3, help="of each set (default %(default)s)")
    parser.add_argument("--side", type=int, default=256, help="of the part in the middle, px (default %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(argv)


def cells(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return everything that is measured, method by method."""
    weights = dict.fromkeys(METHODS) | {name: weights_digest(Path(locate(name))) for name in arguments.model}
    return [
        {"method": name, "set": data, "micrograph": number, "side": arguments.side, "weights": digest}
        for name, digest in weights.items()
        for data in arguments.set or SETS
        for number in range(arguments.micrographs)
    ]


def measure(cell: dict[str, Any], clean: np.ndarray) -> dict[str, Any]:
    """Return the cell with the figures of the enlarged micrograph and the seconds that it took."""
    half = cell["side"] // SCALE
    small = clean.reshape(half, SCALE, half, SCALE).mean(axis=(1, 3)).astype(np.float32)
    began = time.process_time()
    shown = np.clip(method(cell["method"])(small), 0, 1)
    return {
        **cell,
        "took": time.process_time() - began,
        "psnr": float(peak_signal_noise_ratio(clean, shown, data_range=1)),
        "ssim": float(structural_similarity(clean, shown, data_range=1)),
    }


def table(results: list[dict[str, Any]]) -> str:
    """Return a row for each set, PSNR of each method in dB, then means, SSIM and seconds over all."""
    names = list(dict.fromkeys(result["method"] for result in results))

    def means(key: str, form: str, chosen: list[dict[str, Any]]) -> list[str]:
        return [format(np.mean([r[key] for r in chosen if r["method"] == name]), form) for name in names]

    rows = [["set", "n", *names], ["---"] * (2 + len(names))]
    for data in dict.fromkeys(result["set"] for result in results):
        mine = [result for result in results if result["set"] == data]
        rows.append([data, str(len(mine) // len(names)), *means("psnr", ".2f", mine)])
    count = str(len(results) // len(names))
    for title, key, form in (("PSNR, all", "psnr", ".2f"), ("SSIM, all", "ssim", ".3f"), ("seconds", "took", ".2f")):
        rows.append([title, count, *means(key, form, results)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Measure what the results file lacks, then print the table."""
    arguments = parse()
    torch.set_num_threads(1)
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    done, shown = read_lines(arguments.results), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_simulated_folder(SIMULATED, folder / SIMULATED, 12, (arguments.side, arguments.side), 1)
        for cell in cells(arguments):
            data = folder if cell["set"] == SIMULATED else arguments.data
            found = next((line for line in done if all(line.get(key) == value for key, value in cell.items())), None)
            if found is None:
                images = list(clean_micrographs(data, cell["set"], arguments.side))
                if cell["micrograph"] >= len(images):
                    continue
                found = measure(cell, images[cell["micrograph"]])
                with arguments.results.open("a") as results:
                    results.write(json.dumps(found) + "\n")
            shown.append(found)
    sys.stdout.write(table(shown) + "\n")


if __name__ == "__main__":
    main()
