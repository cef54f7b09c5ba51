"""How many processes cut crops."""

import os

import torch

MOST_WORKERS = 8


def worker_count(asked: int | None) -> int:
    """Return how many processes cut crops: as asked, or none on a CPU and up to 8 for each GPU."""
    if asked is not None:
        return asked
    if not torch.cuda.is_available():
        return 0
    return min(MOST_WORKERS, (os.cpu_count() or 1) // max(1, torch.cuda.device_count()))
