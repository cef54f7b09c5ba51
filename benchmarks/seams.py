"""Instance norm in tiles: how far the result is from that of the whole micrograph, at seams and elsewhere.

Compares statistics that each tile takes of itself with those that emfm measures once for the
micrograph. Example:

    python -m benchmarks.seams --model out --json FILE...
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emfm.inference import blocks
from emfm.inference.blocks import Blocks
from emfm.inference.plan import Plan
from emfm.inference.tiling import Tiling
from emfm.io.reading import read_micrograph
from emfm.tasks import load_model

RAMP = 16


class OwnStatistics(Blocks):
    """Tiles that pass through the network as it is, each normalised by itself."""

    def _network(self) -> Any:
        return self._model


def maps_of(kind: type[Blocks], model: Any, image: np.ndarray, tiling: Tiling) -> np.ndarray:
    """Return the blended maps (C, H, W)."""
    result = np.empty((0,))
    for row, column, maps in kind(model, image, model.processor.statistics(image), Plan(tiling, 1, 1)):
        if not result.size:
            result = np.empty((len(maps), *image.shape), dtype=np.float32)
        result[:, row : row + maps.shape[1], column : column + maps.shape[2]] = maps
    return result


def seams(shape: tuple[int, int], tiling: Tiling) -> np.ndarray:
    """Return the mask (H, W) of the ramps between tiles."""
    mask = np.zeros(shape, dtype=bool)
    for axis, side in enumerate(shape):
        for start, _ in tiling.spans(side)[1:]:
            begin = start + tiling.margin
            mask[(slice(None),) * axis + (slice(begin, begin + tiling.ramp),)] = True
    return mask


def measure(model: Any, path: Path, tile: int) -> dict[str, Any]:
    """Return mean differences from the whole's maps, and the share of pixels of another class."""
    image = np.asarray(read_micrograph(path).image)
    values = torch.from_numpy(model.processor.normalize(image, model.processor.statistics(image)))[None, None]
    whole = model.maps(values)[0].numpy()
    tiling = Tiling(tile, model.reach, RAMP, model.trunk.stride)
    mask = seams(image.shape, tiling)
    found: dict[str, Any] = {"name": path.name, "shape": image.shape, "tile": tile}
    statistics = model.processor.statistics(image)
    reference = blocks.frozen_network(model, image, statistics)
    with torch.no_grad():
        untiled = reference.maps(values)[0].numpy()
    for name, kind in (("each tile's own", OwnStatistics), ("measured once", Blocks)):
        maps = maps_of(kind, model, image, tiling)
        difference = np.abs(maps - whole).mean(axis=0)
        found[name] = {
            "at_seams": float(difference[mask].mean()),
            "elsewhere": float(difference[~mask].mean()),
            "classes_changed": float((maps.argmax(0) != whole.argmax(0)).mean()),
            "from_untiled": float(np.abs(maps - untiled).max()) if kind is Blocks else None,
        }
    return found


def table(results: list[dict[str, Any]]) -> str:
    """Return the figures as Markdown."""
    lines = [
        "| micrograph | statistics | at seams | elsewhere | other class | tiled - untiled, largest |",
        "|---|" * 1 + "---|" * 5,
    ]
    for found in results:
        for name in ("each tile's own", "measured once"):
            run = found[name]
            largest = "" if run["from_untiled"] is None else f"{run['from_untiled']:.0e}"
            lines.append(
                f"| {found['name']}, {found['shape'][0]} x {found['shape'][1]} | {name} | "
                f"{run['at_seams']:.4f} | {run['elsewhere']:.4f} | "
                f"{100 * run['classes_changed']:.2f} % | {largest} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tile", type=int, default=768)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    model = load_model(arguments.model).eval()
    results = [measure(model, path, arguments.tile) for path in arguments.files]
    sys.stdout.write(json.dumps(results, indent=1) + "\n" if arguments.json else table(results))


if __name__ == "__main__":
    main()
