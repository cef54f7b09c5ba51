"""Faults of the machine, in one line each: files, memory, processes that died."""

import re
import sys
from traceback import walk_tb
from typing import Any

from emfm.files import reason_of

# What may be a fault of the machine; torch has no class of its own for most of its errors.
WORLD = (OSError, MemoryError, RuntimeError, ImportError)
# torch's words for memory that it did not get, on a GPU and on the CPU, and for a worker that died.
NO_MEMORY = re.compile(r"out of memory|can't allocate memory|cannot allocate memory", re.IGNORECASE)
WORKER_DIED = re.compile(r"DataLoader worker.*(killed by signal|exited unexpectedly)", re.DOTALL)
SHARED_MEMORY = re.compile(r"shared memory|unable to (mmap|open|write)|torch_shm_manager|/dev/shm")
LOCKS = "multiprocessing.synchronize"  # which lie in shared memory
# Options that take less memory when they are made smaller.
SMALLER = ("--batch-size", "--crop", "--tile", "--workers", "--discriminator-width", "--size", "--count")


def fault_line(error: BaseException, verb: Any) -> str | None:
    """Return a fault of the machine in one line, with the verb's remedy; None for others."""
    text = str(error)
    if WORKER_DIED.search(text):
        return f"a process that cuts crops was killed, most often for want of memory: use --workers 0{_smaller(verb)}"
    shared = isinstance(error, RuntimeError) and SHARED_MEMORY.search(text)
    if shared or (isinstance(error, OSError) and error.filename is None and _between_processes(error)):
        return f"there is too little shared memory (/dev/shm) for processes that cut crops: use --workers 0 ({text})"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_MEMORY.search(text)):
        return f"out of memory{_amount(text)}{_smaller(verb)}"
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename is not None else ""
        return f"{name}{reason_of(error)}"
    return None


def _between_processes(error: OSError) -> bool:
    """Tell whether it was raised where processes are made to wait for each other."""
    return any(frame.f_globals.get("__name__") == LOCKS for frame, _ in walk_tb(error.__traceback__))


def _amount(text: str) -> str:
    """Return how much was asked for, where an error says it."""
    found = re.search(r"[Tt]ried to allocate ([\d.]+ ?\w+)|Unable to allocate ([\d.]+ ?\w+)", text)
    return f" ({found[1] or found[2]} were asked for)" if found else ""


def _smaller(verb: Any) -> str:
    """Return advice: which of the verb's options to make smaller."""
    flags = [flag for known in getattr(verb, "params", ()) for flag in known.opts]
    known = [flag for flag in SMALLER if flag in flags]
    return f": use a smaller {' or '.join(known)}, or close other programs" if known else ": close other programs"


def end_bars() -> None:
    """Close progress bars, so that what is written next stands on a line of its own."""
    tqdm = sys.modules.get("tqdm")
    if tqdm is not None:
        for bar in list(tqdm.tqdm._instances):
            bar.close()
