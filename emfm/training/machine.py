"""What the machine can do for a training: number formats, and processes that cut crops."""

import logging
import multiprocessing
import os
import shutil
import sys
from pathlib import Path

import torch

from emfm.errors import EMError

SHARED = Path("/dev/shm")
PREFETCHED = 2  # batches that each process holds ready
logger = logging.getLogger(__name__)


def bf16_units() -> bool:
    """Tell whether a GPU, or a CPU's AMX or AVX512-BF16, computes bfloat16 in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def warn_of_emulated_bf16() -> None:
    """Log a warning where bf16 is asked for and the device has no units for it.

    A step of `unet4-rf200-w16` on such a CPU took thirty times as long as in fp32.
    """
    if not bf16_units():
        logger.warning("precision is bf16, for which this device has no units, many times slower: use --precision fp32")


def check_shared_memory(workers: int, batch_size: int, crop: int) -> None:
    """Raise an EMError where processes that cut crops could not pass their batches on.

    They would fail one by one, and training would wait for them for ever. Containers often have but
    64 MB of shared memory.
    """
    if not workers or not SHARED.is_dir():
        return
    needed = workers * PREFETCHED * batch_size * crop**2 * torch.float32.itemsize
    free = shutil.disk_usage(SHARED).free
    if free < needed:
        raise EMError(
            f"{workers} processes that cut crops need {needed / 1e6:,.0f} MB of shared memory, and {SHARED} has "
            f"{free / 1e6:,.0f} MB: use --workers 0, or give the container more (docker run --shm-size)"
        )


def worker_count(asked: int | None) -> int:
    """Return how many processes cut crops: as asked, or none on a CPU and up to 8 for each GPU.

    Where processes are not forked, each imports the script that was started. The command line
    allows that. A user's script may not, so there are none by default.
    """
    if asked is not None:
        return asked
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if not torch.cuda.is_available() or (method != "fork" and "emfm.cli" not in sys.modules):
        return 0
    return min(8, (os.cpu_count() or 1) // max(1, torch.cuda.device_count()))
