"""Speed of prediction: emfm, ONNX Runtime and OpenVINO in turn, in one run on one core.

Each gets the same network, a segmentation with two classes, and the same network values of 512 x
512 pixels; the others run what `emfm export` writes. Processor time counts, which other work on the
machine disturbs less than the clock. The fastest rival in fp32 is 1. A network is one line of JSON
in the results file, which takes the place of an older one.

    python -m benchmarks.inference

Needs OpenVINO and ONNX Runtime: pip install "emfm[benchmarks,export]".
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from emfm.files import write_text

GENERATORS = ("unet4-rf200", "unet4-rf200-w16", "hrnet-w18-small", "timm-tf-efficientnet-lite0")
RESULTS = Path("benchmarks/results/inference.jsonl")
SIDE = 512
WARM_UP = 2
RIVALS = ("ONNX Runtime, fp32", "OpenVINO, fp32")  # what the others are measured against


def runners(generator: str, folder: Path) -> dict[str, Callable[[], Any]]:
    """Return what runs a network once, by name; each on one core."""
    import openvino
    import torch

    from emfm import EMForSemanticSegmentation
    from emfm.export.onnx_file import export_onnx, session
    from emfm.inference.prepared import prepared
    from emfm.training.machine import bf16_units

    torch.set_num_threads(1)
    torch.manual_seed(0)
    labels = {0: "background", 1: "particle"}
    model = EMForSemanticSegmentation.from_pretrained(generator, id2label=labels).eval()
    values = torch.randn(1, 1, SIDE, SIDE)
    file = folder / f"{generator}.onnx"
    export_onnx(model, file, probabilities=True)
    onnx, core, array = session(file.read_bytes()), openvino.Core(), values.numpy()

    def compiled(precision: str) -> Any:
        options = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": precision}
        return core.compile_model(core.read_model(file), "CPU", options)

    exact, network = compiled("f32"), prepared(model, torch.float32)
    found: dict[str, Callable[[], Any]] = {
        "emfm, fp32": lambda: network.maps(values),
        RIVALS[0]: lambda: onnx.run(None, {"image": array}),
        RIVALS[1]: lambda: exact(array),
    }
    if bf16_units():
        rounded, quick = compiled("bf16"), prepared(model, torch.bfloat16)
        found["emfm, bf16"] = lambda: quick.maps(values)
        found["OpenVINO, bf16"] = lambda: rounded(array)
    return found


def measure(generator: str, repeats: int) -> dict[str, Any]:
    """Return medians of seconds, megapixels a second, and the ratios to the fastest rival in fp32."""
    seconds: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        running = runners(generator, Path(folder))
        for _ in range(WARM_UP + repeats):
            for name, run in running.items():
                clock, processor = time.perf_counter(), time.process_time()
                run()
                spent = time.process_time() - processor, time.perf_counter() - clock
                seconds.setdefault(name, []).append(spent)
    medians = {name: [median(part) for part in zip(*spent[WARM_UP:], strict=True)] for name, spent in seconds.items()}
    fastest = min(medians[name][0] for name in RIVALS)
    runs = {
        name: {
            "processor_seconds": processor,
            "seconds": clock,
            "megapixels_per_second": SIDE**2 / 1e6 / processor,
            "times_as_fast": fastest / processor,
        }
        for name, (processor, clock) in medians.items()
    }
    return {"generator": generator, "side": SIDE, "repeats": repeats, "runs": runs}


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of a results file by network; an empty dictionary where there is no file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {found["generator"]: found for found in map(json.loads, lines)}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the figures as Markdown."""
    lines = ["| network | by | megapixels a second | times as fast as the fastest rival in fp32 |", "|---|---|---|---|"]
    for generator, found in results.items():
        for name, run in found["runs"].items():
            speed, times = run["megapixels_per_second"], run["times_as_fast"]
            lines.append(f"| {generator} | {name} | {speed:.2f} | {times:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure networks, keep what is found, and print the table of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generators", nargs="+", choices=GENERATORS, default=list(GENERATORS))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    results = read_results(arguments.results)
    for generator in arguments.generators:
        results[generator] = measure(generator, arguments.repeats)
        ordered = sorted(results.values(), key=lambda found: GENERATORS.index(found["generator"]))
        write_text(arguments.results, "".join(json.dumps(found) + "\n" for found in ordered))
    sys.stdout.write(table(read_results(arguments.results)) + "\n")


if __name__ == "__main__":
    main()
