"""Start a page as its user does, as a process on loopback, and wait until it answers."""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
SECONDS = 180


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def served(command: list[str], port: int, log: Path, **environment: str) -> Iterator[str]:
    """Run a command until the block ends; yields the page's address."""
    address = f"http://127.0.0.1:{port}"
    quiet = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(log.parent)}
    with log.open("w") as output:
        running = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **quiet, **environment}, cwd=log.parent
        )
        try:
            deadline = time.time() + SECONDS
            while not _answers(address):
                assert running.poll() is None, log.read_text()
                assert time.time() < deadline, log.read_text()
                time.sleep(0.3)
            yield address
        finally:
            running.terminate()
            try:
                running.wait(60)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/config", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
