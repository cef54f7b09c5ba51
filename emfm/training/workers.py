"""How many processes cut crops."""

import multiprocessing
import os
import sys

import torch

MOST_WORKERS = 8


def worker_count(asked: int | None) -> int:
    """Return how many processes cut crops: as asked, or none on a CPU and up to 8 for each GPU.

    Where processes are not forked, each imports the script that was started. The command line allows that. A user's
    script may not, so there are none by default.
    """
    if asked is not None:
        return asked
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if not torch.cuda.is_available() or (method != "fork" and "emfm.cli" not in sys.modules):
        return 0
    return min(MOST_WORKERS, (os.cpu_count() or 1) // max(1, torch.cuda.device_count()))
