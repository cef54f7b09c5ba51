"""How long `import emfm` takes beside `import numpy`, each in fresh interpreters, in turn.

python -m benchmarks.import_time --json
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

RUNS = 15


def seconds(statement: str) -> float:
    """Return the wall time of an interpreter that runs one statement."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - started


def main() -> None:
    """Print the medians in seconds and their difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    times: dict[str, list[float]] = {"import numpy": [], "import emfm": []}
    for _ in range(RUNS):
        for statement, measured in times.items():
            measured.append(seconds(statement))
    result = {statement: round(statistics.median(measured), 4) for statement, measured in times.items()}
    result["difference"] = round(result["import emfm"] - result["import numpy"], 4)
    text = json.dumps(result) if as_json else "\n".join(f"{name}: {value:.3f} s" for name, value in result.items())
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
