"""Long work of the page: a command of emfm in a process of its own, watched and stopped from it.

It goes on when the page is closed. What it writes is what the command line writes.
"""

import atexit
import json
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from emfm.errors import EMError

# Progress as tqdm shows it: "12/300 [00:05<02:10".
PROGRESS = re.compile(r"(\d+)/(\d+) \[")
TAIL = 20_000  # bytes of the log that are looked at
STOP_SECONDS = 60


class Job:
    """A command that runs.

    Args:
        kind: what it does, in a word, for the page.
        arguments: of the command line, without `emfm`.
        log: file for what it says.
        output: folder that it writes.
    """

    def __init__(self, kind: str, arguments: list[str], log: Path, output: Path):
        self.kind, self.output = kind, output
        self._log, self._stopped, self._started = log, False, time.monotonic()
        self._ended: float | None = None
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            command = [sys.executable, "-m", "emfm.cli", *arguments]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        atexit.register(self.stop, 0)

    @property
    def running(self) -> bool:
        """Whether it is still at work."""
        return self._process.poll() is None

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ask it to end after its step, and end it if it does not within some seconds."""
        if not self.running:
            return
        self._stopped = True
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        if self.running and seconds:
            self._process.kill()
            self._process.wait()

    def state(self) -> dict[str, Any]:
        """Return what the page shows: progress, curve, and how it ended."""
        running = self.running
        if not running and self._ended is None:
            self._ended = time.monotonic()
            atexit.unregister(self.stop)
        text = _tail(self._log)
        steps = PROGRESS.findall(text)
        done, total = map(int, steps[-1]) if steps else (0, 0)
        failed = not running and self._process.returncode != 0 and not self._stopped
        return {
            "kind": self.kind,
            "running": running,
            "done": done,
            "total": total,
            "seconds": round((self._ended or time.monotonic()) - self._started, 1),
            "stopped": self._stopped,
            "error": _last_line(text) if failed else None,
            "output": self.output.name,
            "curve": _curve(self.output),
        }


class Jobs:
    """The work of a session: one command at a time, since two would only share the same cores."""

    def __init__(self) -> None:
        self.latest: Job | None = None

    def start(self, kind: str, arguments: list[str], log: Path, output: Path) -> Job:
        """Start a command.

        Raises:
            EMError: another one is at work.
        """
        if self.latest is not None and self.latest.running:
            raise EMError(f"{self.latest.kind} is still at work: stop it or wait for its end")
        self.latest = Job(kind, arguments, log, output)
        return self.latest


def _tail(path: Path) -> str:
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        return file.read().decode("utf-8", "replace")
    return ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else "it ended without a word"


def _curve(output: Path) -> list[dict[str, Any]]:
    """Return step, seconds and Dice of each evaluation so far, and at the end what was left out."""
    with suppress(OSError, ValueError):
        entries = json.loads((output / "curve.json").read_text(encoding="utf-8"))
        return [{key: entry.get(key) for key in ("step", "seconds", "dice", "left_out")} for entry in entries]
    return []
