"""Stopping a long run in order: Ctrl-C or SIGTERM lets the step end, and the run is saved."""

import logging
import signal
import threading
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator

logger = logging.getLogger(__name__)
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Context manager that turns the first signal into a request; a second one stops at once.

    The request of one process counts for all. Signals that are ignored before it stay ignored.
    """

    def __init__(self, accelerator: Accelerator):
        self._accelerator, self._received = accelerator, 0
        self._previous: dict[signal.Signals, object] = {}
        # exchanged on the CPU, so that no step has to wait for a GPU's queue
        self._group: Any = None
        if accelerator.num_processes > 1:
            self._group = torch.distributed.new_group(backend="gloo")

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # as Python demands
            for number in SIGNALS:
                # a job in the background ignores Ctrl-C, which is meant for another
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()
        if self._group is not None:
            torch.distributed.destroy_process_group(self._group)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        self._restore()
        if self._accelerator.is_main_process:
            logger.warning("%s: the run is saved after this step; once more stops at once", signal.Signals(number).name)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}

    def received(self) -> int:
        """Return the signal's number, 0 if there was none; every process gets the same answer."""
        if self._group is None:
            return self._received
        number = torch.tensor(self._received)
        torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX, group=self._group)
        return int(number)


def leave(number: int, message: str) -> None:
    """Raise what Python raises for the signal: KeyboardInterrupt, or SystemExit(128 + number)."""
    logger.warning("%s", message)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
