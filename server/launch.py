"""Starts `python -m server` in a process of its own and stops it. The demo, benchmarks and tests use `launched`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import BackendUnavailable

READY = "serving on "
LOG_TAIL_LINES = 12


@dataclass(frozen=True)
class Launched:
    """A running server whose models are warm. address: "HOST:PORT". log: its log file, one JSON object per line."""

    address: str
    pid: int
    log: Path

    def errors(self) -> list[str]:
        """The lines of its log that are errors, or not its own at all: a traceback, a library's message."""
        return [line for line in self.log.read_text(encoding="utf-8").splitlines() if _is_error(line)]


def _is_error(line: str) -> bool:
    try:
        return json.loads(line)["level"] in ("error", "critical")
    except (ValueError, TypeError, KeyError):
        return True


@contextmanager
def launched(
    bundles: Path,
    *,
    log: Path,
    flags: Sequence[str] = (),
    timeout_s: float = 300.0,
    module: str = "server",
) -> Iterator[Launched]:
    """Context manager: runs `python -m server --bundles DIR --port 0 FLAGS`, and drains and stops it at the end.

    The server imports the same modules as this process, whatever files are in the working folder: -P keeps that folder
    off the import path, and this process's import path is passed on.

    log: file for its log. module: another one that takes the same flags, for tests.
    Raises BackendUnavailable with the last lines of the log if the server ends, or is not ready within `timeout_s` seconds.
    """
    command = [sys.executable, "-P", "-m", module, "--bundles", str(bundles), "--port", "0", *flags]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
    assert process.stdout is not None
    kill_timer = threading.Timer(timeout_s, process.kill)
    kill_timer.start()
    try:
        line = next((line for line in process.stdout if line.startswith(READY)), None)
        kill_timer.cancel()
        if line is None:
            code = process.wait()
            tail = "".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-LOG_TAIL_LINES:])
            raise BackendUnavailable(
                f"the server ended with exit code {code} before it was ready; the end of {log}:\n{tail}"
            )
        yield Launched(line.removeprefix(READY).strip(), process.pid, log)
    finally:
        kill_timer.cancel()
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
