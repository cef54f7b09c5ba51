"""Damaged files against all readers: crashes, hangs, errors that name no file, and peaks of memory.

Every file is read in a worker process whose address space may grow by 1 GiB; a worker that dies or
takes too long is counted and replaced. Each read opens the file, takes a corner, a strided sample
and, if it is not larger than 64 MiB, the whole. The damage follows from the seed and the file's
number alone: `--first 1234 --count 1` repeats one. Memory is told and limited as on Linux.

    python -m benchmarks.fuzz_readers --count 10000 --json
"""

import argparse
import json
import logging
import multiprocessing
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from tqdm.auto import tqdm

from benchmarks.damage import damaged_copy
from benchmarks.sound_files import write_sound_files

ALLOWED_GROWTH = 1 << 30
# Processor time that one file may take, that of guarded readers included, which give up after 30 s;
# and how many times as long on the clock of a busy machine.
SECONDS, PATIENCE = 40.0, 8
# What must never happen.
FAILURES = ("crash", "hang", "memory", "unclear error", "other exception")


def read_everything(path: Path) -> None:
    """Read a file as far as a user would: a corner, a sample, and the whole of what is not large."""
    from emfm.io.reading import read_micrograph

    try:
        image = read_micrograph(path).image
    except ValueError as error:
        if "index=0" not in str(error):
            raise
        image = read_micrograph(path, index=-1).image
    image[:64, :64]
    step = max(1, int(np.sqrt(image.size / 1e5)))
    if image.size * image.dtype.itemsize <= 64 << 20:
        np.asarray(image).sum()
    elif image.shape[0] // step * image.shape[1] < 1e8:
        image[: 256 * step : step, : 256 * step : step]


def outcome(path: Path) -> tuple[str, str]:
    """Read a file and return what became of it, with the error's text."""
    from emfm.errors import EMError

    try:
        read_everything(path)
    except EMError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                return "memory", str(error)
            cause = cause.__cause__
        clear = path.name in str(error) and "\n" not in str(error)
        return ("refused" if clear else "unclear error"), str(error)
    except BaseException as error:
        return ("memory" if isinstance(error, MemoryError) else "other exception"), f"{type(error).__name__}: {error}"
    return "read", ""


def _memory(field: str) -> int:
    """Return VmRSS, VmHWM or VmSize of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) << 10
    return 0


def work(pipe: Connection, warm_up: list[str]) -> None:
    """Read the files whose paths come through the pipe, until None comes."""
    import resource

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.stderr = Path("/dev/null").open("w")  # noqa: SIM115  (libraries print what they stumble over)
    for path in warm_up:
        outcome(Path(path))
    limit = _memory("VmSize") + ALLOWED_GROWTH
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    pipe.send(None)
    while (path := pipe.recv()) is not None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before, started = _memory("VmRSS"), time.process_time()
        found = outcome(Path(path))
        pipe.send((*found, _memory("VmHWM") - before, time.process_time() - started))


class Worker:
    """A process that reads files, replaced when it dies or hangs."""

    def __init__(self, warm_up: list[str]):
        self._warm_up = warm_up
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=work, args=(other, self._warm_up), daemon=True)
        self._process.start()
        other.close()
        self._pipe.recv()

    def read(self, path: Path) -> tuple[str, str, int, float]:
        """Return outcome, error, growth of memory in bytes, and seconds of processor time."""
        used = self._seconds()
        self._pipe.send(str(path))
        try:
            for _ in range(int(PATIENCE * SECONDS)):
                if self._pipe.poll(1):
                    return self._pipe.recv()
                if self._seconds() - used > SECONDS:
                    break
            found = ("hang", f"over {SECONDS} s", 0, SECONDS)
        except (EOFError, ConnectionError, psutil.NoSuchProcess):
            self._process.join(5)
            found = ("crash", f"exit code {self._process.exitcode}", 0, 0.0)
        self._process.kill()
        self._process.join()
        self._start()
        return found

    def _seconds(self) -> float:
        worker = psutil.Process(self._process.pid)
        times = [process.cpu_times() for process in (worker, *worker.children(recursive=True))]
        return sum(time.user + time.system for time in times)

    def stop(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join(10)


def fuzz(count: int, seed: int = 0, first: int = 0, keep: Path | None = None) -> dict[str, Any]:
    """Damage `count` files and read them; returns the counts, and every failure with how to repeat it.

    Args:
        count: files.
        seed: of all damage.
        first: number of the first file.
        keep: folder for copies of the files that failed.
    """
    outcomes: Counter[str] = Counter()
    by_suffix: dict[str, Counter[str]] = {}
    failures, peak, slowest = [], (0, ""), (0.0, "")
    with tempfile.TemporaryDirectory() as temporary:
        sound, place = Path(temporary) / "sound", Path(temporary) / "damaged"
        sound.mkdir()
        place.mkdir()
        files = write_sound_files(sound)
        worker = Worker([str(path) for path in files])
        for number in tqdm(range(first, first + count), unit="file", leave=False):
            rng = np.random.default_rng([seed, number])
            original = files[number % len(files)]
            path = place / f"{number}{''.join(original.suffixes)}"
            way = damaged_copy(original, path, rng)
            found, error, growth, seconds = worker.read(path)
            outcomes[found] += 1
            by_suffix.setdefault(original.suffix, Counter())[found] += 1
            described = f"{original.name} {way} #{number}"
            peak, slowest = max(peak, (growth, described)), max(slowest, (seconds, described))
            if found in FAILURES:
                failures.append({"file": described, "outcome": found, "error": error[:300]})
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (shutil.copytree if path.is_dir() else shutil.copy)(path, keep / path.name)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        worker.stop()
    return {
        "count": count,
        "seed": seed,
        "kinds": len(files),
        "outcomes": dict(outcomes),
        "by_suffix": {suffix: dict(counts) for suffix, counts in sorted(by_suffix.items())},
        "largest_growth_mib": round(peak[0] / 2**20, 1),
        "largest_growth_of": peak[1],
        "slowest_seconds": round(slowest[0], 2),
        "slowest": slowest[1],
        "failures": failures,
    }


def main() -> None:
    """Run and print; leaves with 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--keep", type=Path, help="folder for copies of the files that failed")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = fuzz(arguments.count, arguments.seed, arguments.first, arguments.keep)
    if arguments.json:
        sys.stdout.write(json.dumps(result, indent=1) + "\n")
    else:
        lines = [f"{name}: {number}" for name, number in result["outcomes"].items()]
        lines += [f"{failure['outcome']}: {failure['file']}: {failure['error']}" for failure in result["failures"]]
        lines += [f"largest growth of memory: {result['largest_growth_mib']} MiB ({result['largest_growth_of']})"]
        lines += [f"slowest: {result['slowest_seconds']} s ({result['slowest']})"]
        sys.stdout.write("\n".join(lines) + "\n")
    sys.exit(bool(result["failures"]))


if __name__ == "__main__":
    main()
