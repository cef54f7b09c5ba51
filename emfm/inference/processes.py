"""Several processes, started by torchrun or accelerate, that predict together."""

import atexit
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from emfm.errors import EMError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """This process among those that work together: its number, from 0, and how many there are."""

    rank: int
    count: int

    @classmethod
    def join(cls) -> "Processes":
        """Return where this process stands; without torchrun or accelerate it is alone."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(0, 1)
        import torch
        from accelerate import PartialState
        from accelerate.utils import parse_flag_from_env

        # without this accelerate takes processes without an accelerator for single ones
        cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
        # one of them may be at work for days before it meets the others
        state = PartialState(cpu=cpu, timeout=timedelta(days=30))
        # a process that ends with its threads of communication still running may abort
        atexit.register(state.destroy_process_group)
        return cls(state.process_index, state.num_processes)

    def gather(self, value: Value) -> list[Value]:
        """Return the value of every process, in their order, to all; waits for all."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        return gather_object([value])

    def together(self, work: Callable[[], Value]) -> Value:
        """Do something in every process, wait for all, and return what it returned in this one.

        Raises:
            EMError: what went wrong here, or else in the first of the others.
        """
        try:
            value = work()
        except (EMError, OSError) as error:
            self.gather(str(error) or type(error).__name__)
            raise
        problems = [text for text in self.gather("") if text]
        if problems:
            raise EMError(problems[0])
        return value


ALONE = Processes(0, 1)  # what one process does by itself
