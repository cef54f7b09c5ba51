"""Decoders in a process of their own, with limits on memory and time.

If a file breaks one, this process goes on. Question and answer are a line of JSON each; pixels go
through files.
"""

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from emfm.errors import EMError

# What the process finds of this one's environment: none of its settings and tokens.
KEPT_VARIABLES = ("PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP", "LD_LIBRARY_PATH", "HDF5_USE_FILE_LOCKING")


class Guarded:
    """A process that runs one function; it starts when it is first asked, and again if it died.

    Args:
        work: function of a module, with arguments and results that JSON can hold.
    """

    def __init__(self, work: Callable[..., Any]):
        self._work = work
        self._process: subprocess.Popen[str] | None = None
        self._owner = os.getpid()
        self._lock = threading.Lock()

    def ask(self, name: str, memory: int, seconds: float, **arguments: Any) -> Any:
        """Return what the function returns for these arguments.

        Args:
            name: of the file, for errors.
            memory: bytes of address space that the process may have, where the system can limit it.
            seconds: that the answer may take.
            arguments: of the function.

        Raises:
            EMError: the function raised it, broke down, or went beyond a limit.
        """
        if self._owner != os.getpid():  # a copy of this process may not share its helper
            self._process, self._owner, self._lock = None, os.getpid(), threading.Lock()
        question = json.dumps({"memory": memory, "seconds": seconds, "arguments": arguments})
        started = time.monotonic()
        with self._lock:
            answer = self._answer(question, seconds)
        if "result" in answer:
            return answer["result"]
        if "error" in answer:
            raise EMError(answer["error"])
        if time.monotonic() - started >= seconds:
            raise EMError(f"{name}: reading took more than {seconds:.0f} s and was stopped")
        raise EMError(f"{name}: the file is damaged, or unpacks to more than {memory / 2**30:.0f} GiB")

    def _answer(self, question: str, seconds: float) -> dict[str, Any]:
        """Return the process's answer; an empty one where it died, was late or out of memory."""
        process = self._process
        if process is None or process.poll() is not None:
            self._process = process = self._started()
        assert process.stdin is not None and process.stdout is not None
        alarm = threading.Timer(seconds, process.kill)
        alarm.start()
        answer = ""
        try:
            with suppress(OSError):  # where the process died
                print(question, file=process.stdin, flush=True)
                answer = process.stdout.readline()
        finally:
            alarm.cancel()
            complete = answer.endswith("}\n")
            if not complete:
                self.close()  # after Ctrl-C, too: the next question may not get this one's answer
        return json.loads(answer) if complete else {}

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.communicate()
            atexit.unregister(self.close)

    def _started(self) -> subprocess.Popen[str]:
        self.close()
        environment = {key: os.environ[key] for key in KEPT_VARIABLES if key in os.environ}
        # the same packages, but nothing of the folder that this process happens to stand in
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(place).absolute()) for place in sys.path if place)
        environment["OPENBLAS_NUM_THREADS"] = environment["OMP_NUM_THREADS"] = "1"
        command = [sys.executable, "-P", "-m", "emfm.io.guarded", self._work.__module__, self._work.__name__]
        atexit.register(self.close)
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere, encoding="utf-8", env=environment)


def main(module: str, function: str) -> None:
    """Answer the questions that come as lines, until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries may print
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the other process, which ends this one
    work = getattr(importlib.import_module(module), function)
    for line in sys.stdin:
        question = json.loads(line)
        _limit(question["memory"], question["seconds"])
        try:
            answer = {"result": work(**question["arguments"])}
        except EMError as error:
            answer = {"error": str(error)}
        except MemoryError:
            sys.exit(1)
        print(json.dumps(answer), file=answers, flush=True)


def _limit(memory: int, seconds: float) -> None:
    """Limit this process's memory, and the processor's time for a question whose asker is gone."""
    try:
        import resource
    except ImportError:  # Windows
        return
    until = int(time.process_time()) + 1 + 2 * int(seconds)
    limits = {resource.RLIMIT_AS: memory, resource.RLIMIT_CPU: until, resource.RLIMIT_CORE: 0}
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        within = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with suppress(ValueError, OSError):  # macOS knows some of them by name alone
            resource.setrlimit(kind, (within, hard))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
