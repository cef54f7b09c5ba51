"""Reading what a stranger uploaded: in a process of its own, with limits on memory, time and pixels.

Decoders are large programs in C. Whatever a file makes them do, the page's process goes on.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import emfm
from emfm.errors import EMError
from emfm.io.reading import Micrograph, read_micrograph

MEMORY = 4 * 2**30  # bytes of address space
SECONDS = 120
MAX_PIXELS = 150_000_000  # about 12k x 12k
EM_ERROR = 2


def read_upload(path: str | Path, folder: Path) -> Micrograph:
    """Read an uploaded file, and leave its pixels as `micrograph.npy` in a folder.

    Args:
        path: the file, with the suffix that its user gave it.
        folder: an own folder for this upload.

    Raises:
        EMError: no micrograph can be read within the limits; the message is fit to be shown to the user.
    """
    path, pixels = Path(path), folder / "micrograph.npy"
    command = [sys.executable, "-m", "emfm.app.reading", str(path), str(pixels), str(MAX_PIXELS)]
    # nothing of the server's own settings, tokens among them
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TMPDIR") if name in os.environ}
    environment = {**kept, "PYTHONPATH": str(Path(emfm.__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment, check=False)
    except subprocess.TimeoutExpired as error:
        raise EMError(f"{path.name}: reading took more than {SECONDS} s and was stopped") from error
    if done.returncode == EM_ERROR:
        raise EMError(done.stderr.strip().replace(str(path), path.name))
    if done.returncode:
        raise EMError(
            f"{path.name}: the file could not be read; it is damaged, or unpacks to more than {MEMORY // 2**30} GiB"
        )
    return Micrograph(np.load(pixels, mmap_mode="r", allow_pickle=False), json.loads(done.stdout), path.name)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(path: str, pixels: str, max_pixels: int) -> None:
    """Read a file, write its pixels as NPY and its pixel size (nm or null) on standard output."""
    _limit_memory()
    micrograph = read_micrograph(path)
    if micrograph.image.size > max_pixels:
        height, width = micrograph.image.shape
        raise EMError(
            f"{path}: {height} x {width} pixels; this page takes up to {max_pixels / 1e6:.0f} million: "
            "use emfm predict on your own machine"
        )
    np.save(pixels, np.asarray(micrograph.image))
    sys.stdout.write(json.dumps(micrograph.pixel_size))


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    except EMError as problem:
        sys.stderr.write(str(problem))
        sys.exit(EM_ERROR)
