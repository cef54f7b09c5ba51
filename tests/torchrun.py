"""What processes that a test starts with torchrun find around them."""

import os


def environment() -> dict[str, str]:
    """Return the environment of processes on the CPU, one thread each."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # imports once
    return {**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "1"}
