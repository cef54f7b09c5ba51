"""Processes that share one piece of work, without each of them importing torch and transformers anew.

They are forked off a server that has imported the libraries. Where the system has no fork, they
are started afresh.
"""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.context import BaseContext
from pathlib import Path
from subprocess import CompletedProcess

from page_server import free_port

HAS_FORK = "forkserver" in multiprocessing.get_all_start_methods()
OUTPUTS = ("out", "err")
LIBRARIES = [
    "torch.distributed",
    "accelerate",
    "datasets",
    "transformers.trainer",
    "torch.utils.tensorboard",
    "emfm.cli",
    "emfm.finetuning.finetune",
    "emfm.pretraining.pretrain",
    "emfm.inference.files",
]


def quick_context() -> BaseContext:
    """Return the context whose processes start at once."""
    context = multiprocessing.get_context("forkserver" if HAS_FORK else "spawn")
    if HAS_FORK:
        context.set_forkserver_preload(LIBRARIES)
    return context


def share(function: Callable, *arguments: object, processes: int = 2, seconds: float = 120) -> list[CompletedProcess]:
    """Call a function of a test's module in several processes that find what torchrun would tell them.

    Args:
        function: called with `arguments` in each process; defined at the top of its module.
        processes: how many there are.
        seconds: after which all of them are ended.

    Returns:
        What became of each process.
    """
    context = quick_context()
    port = str(free_port())
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for rank in range(processes):
            environment = {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "LOCAL_WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "ACCELERATE_USE_CPU": "1",
                "CUDA_VISIBLE_DEVICES": "",
            }
            task = (function, arguments, environment, Path(folder), multiprocessing.get_start_method())
            started.append(context.Process(target=_work, args=task))
            started[-1].start()
        for process in started:
            process.join(seconds)
        for process in started:
            process.kill()
            process.join()
        return [
            CompletedProcess(
                arguments, process.exitcode, *((Path(folder) / f"{rank}.{name}").read_text() for name in OUTPUTS)
            )
            for rank, process in enumerate(started)
        ]


def share_without_fault(function: Callable, *arguments: object, processes: int = 2) -> None:
    """Do the same, and expect every process to end well."""
    for done in share(function, *arguments, processes=processes):
        assert done.returncode == 0, done.stderr[-3000:]


def _work(function: Callable, arguments: tuple, environment: dict[str, str], folder: Path, start_method: str) -> None:
    import torch

    multiprocessing.set_start_method(start_method, force=True)  # data workers start as everywhere else
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.stdout, sys.stderr = ((folder / f"{environment['RANK']}.{name}").open("w", buffering=1) for name in OUTPUTS)
    os.dup2(sys.stdout.fileno(), 1)
    os.dup2(sys.stderr.fileno(), 2)
    function(*arguments)  # an exception ends in a traceback and the code 1
