"""Memory and time of finding, measuring and drawing very many objects in a very large micrograph.

    python -m benchmarks.objects

What the results file has is not measured again. The micrograph holds cones on a grid, which say themselves what a
network would: how far a pixel is from its object's boundary. So nothing but the tiles, the watershed, the joining and
the reports is measured, by a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.json_lines import read_lines
from benchmarks.tiling import Measured

RESULTS = Path("benchmarks/results/objects.jsonl")
# Distance of two cones' tops and radius of a cone in pixels: neighbours touch.
STEP, RADIUS = 51, 26
# Grey value of the background, and of a cone's rim and top.
GROUND, RIM, TOP = 0, 40, 240


def write_cones(path: Path, side: int) -> int:
    """Write a square micrograph (.npy, uint8) of touching cones on a grid, row by row; return how many there are."""
    image = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(side, side))
    count = side // STEP
    across = np.minimum(np.arange(side) // STEP, count - 1) * STEP + STEP // 2 - np.arange(side)
    for top in range(0, side, STEP):
        rows = np.minimum(np.arange(top, min(top + STEP, side)) // STEP, count - 1) * STEP + STEP // 2
        down = rows - np.arange(top, min(top + STEP, side))
        share = 1 - np.hypot(down[:, None], across[None]) / RADIUS
        image[top : top + STEP] = np.where(share > 0, RIM + share * (TOP - RIM), GROUND).astype(np.uint8)
    image.flush()
    return count**2


def cone_reader() -> Any:
    """Return a model that takes the grey value for the distance to the boundary."""
    import torch

    from emfm import EMForInstanceSegmentation, EMFoundationConfig

    class ConeReader(EMForInstanceSegmentation):
        """Reads off the micrograph what the smallest network would have to learn."""

        @torch.no_grad()
        def maps(self, pixel_values: torch.Tensor) -> torch.Tensor:
            """Return foreground, boundary and distance (B, 3, H, W), each 0 to 1."""
            grey = (pixel_values + 1) / 2  # the background is 0, the brightest pixels are about 1
            foreground = grey > RIM / TOP / 2
            boundary = foreground & (grey < (RIM + 15) / TOP)
            return torch.cat([foreground.float(), boundary.float(), ((grey - RIM / TOP) * 1.2).clamp(0, 1)], dim=1)

    return ConeReader(EMFoundationConfig.from_name("unet2-rf44")).eval()


def run(side: int, folder: Path) -> dict[str, float]:
    """Predict a micrograph of cones to files, tables and pictures."""
    from emfm.inference.files import predict_files

    path = folder / "cones.npy"
    drawn = write_cones(path, side)
    model = cone_reader()
    with Measured() as figures:
        entry = predict_files(model, [path], folder / "out")[0]
    assert "output" in entry, entry
    summary = json.loads(Path(entry["summary"]).read_text(encoding="utf-8"))
    return {**figures.figures, "side": side, "drawn": drawn, "found": summary["objects"]}


def measured(side: int) -> dict[str, float]:
    """Return the figures of a square of some side, from a process of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "benchmarks.objects", "--folder", temporary, "--sides", str(side)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure what the results file lacks, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 16384], help="of the squares, in pixels")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        sys.stdout.write(json.dumps(run(arguments.sides[0], arguments.folder)) + "\n")
        return
    for side in arguments.sides:
        if all(one["side"] != side for one in read_results(arguments.results)):
            line = json.dumps(measured(side))
            with arguments.results.open("a") as results:
                results.write(line + "\n")
    sys.stdout.write(table(read_results(arguments.results)) + "\n")


def read_results(path: Path) -> list[dict[str, float]]:
    """Return what was measured, by the side."""
    return sorted(read_lines(path), key=lambda one: one["side"])


def table(found: list[dict[str, float]]) -> str:
    """Return the figures as Markdown."""
    lines = ["| side | objects drawn | found | peak MiB over base | processor s |", "|---|---|---|---|---|"]
    for one in found:
        cells = [f"{one[key]:.0f}" for key in ("side", "drawn", "found", "peak_mib", "cpu_seconds")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
