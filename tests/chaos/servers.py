"""Starts servers with small models and faulty engines in surroundings of four kinds, and looks at them from outside."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict
from pathlib import Path

import psutil

from tests.chaos.expectations import Flavour
from tests.faulty_engine import Fault
from tests.server.bundles import write_generator, write_translator, write_upscaler

ROOT = Path(__file__).resolve().parents[2]
READY = "serving on "
STOP_S = 60.0
NEVER_ENDED = -999
IDLE_S, GRACE_S, MIN_RATE_BYTES_S = 1.5, 20.0, 400_000
SMALL_DISK_BYTES, FEW_FILES = 3 * 2**20, 192
GENERATOR_SIDE_PX, MOST_WHOLE_PX = 32, 200_000
GAUGES = ("ganforge_open_calls", "ganforge_active_bytes", "ganforge_queue_requests", "ganforge_uploads_bytes")


class CannotRun(Exception):
    """This machine lacks what a flavour needs; the message says what."""


def write_bundles(folder: Path) -> None:
    """The models that all servers serve."""
    write_upscaler(folder)
    write_translator(folder, max_whole_px=MOST_WHOLE_PX)
    write_generator(folder, side=GENERATOR_SIDE_PX)


class Server:
    """A server's process. Start it again with `start` after it ended; its folder for temporary files stays the same."""

    def __init__(self, flavour: Flavour, bundles: Path, folder: Path) -> None:
        self.flavour, self._bundles, self._folder = flavour, bundles, folder
        self._temporary, self._clock = folder / "tmp", folder / "clock"
        self._faults = folder / "faults.json"
        self._log_number = 0
        self.process: subprocess.Popen[str] | None = None
        self.address, self.pid = "", 0
        self._temporary.mkdir(parents=True)
        self.set_clock(0)
        self.set_faults()

    def start(self) -> None:
        """Start the process and wait until its models are warm. Raises CannotRun, or RuntimeError with the log's end."""
        self._log_number += 1
        self._metrics_port = free_port()
        self._log = self._folder / f"server-{self._log_number}.log"
        command = [
            *self._prefix(),
            *(sys.executable, "-P", "-m", "tests.chaos.faulty_server", "--faults", str(self._faults)),
            *("--bundles", str(self._bundles), "--port", "0", "--backend", "onnxruntime"),
            *("--idle-s", str(IDLE_S), "--grace-s", str(GRACE_S), "--metrics-port", str(self._metrics_port)),
            *("--min-rate-bytes-s", str(MIN_RATE_BYTES_S)),
        ]
        environment = (
            os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(self._temporary)} | self._environment()
        )
        few_files = self.flavour == "few files"
        with self._log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                preexec_fn=_limit_files if few_files else None,
            )
        assert self.process.stdout is not None
        line = next((line for line in self.process.stdout if line.startswith(READY)), None)
        if line is None:
            tail = self._log.read_text(encoding="utf-8")[-2000:]
            if "unshare" in tail or "mount" in tail:
                raise CannotRun(f"no private mount here: {tail.strip()}")
            raise RuntimeError(f"the server did not start:\n{tail}")
        self.address = line.removeprefix(READY).strip()
        self.pid = self.process.pid

    def _prefix(self) -> list[str]:
        """What the command runs under: a small disk of its own, mounted where only the server sees it."""
        if self.flavour != "small disk":
            return []
        if shutil.which("unshare") is None:
            raise CannotRun("there is no unshare command")
        script = f'mount -t tmpfs -o size={SMALL_DISK_BYTES} tmpfs "$TMPDIR" && exec "$@"'
        return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]

    def _environment(self) -> dict[str, str]:
        if self.flavour != "moved clock":
            return {}
        shim = self._folder / "clock_shim.so"
        if not shim.exists():
            compiler = shutil.which("gcc") or shutil.which("cc")
            if compiler is None:
                raise CannotRun("there is no C compiler to build clock_shim.c with")
            source = Path(__file__).with_name("clock_shim.c")
            subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
        return {"LD_PRELOAD": str(shim), "CHAOS_CLOCK": str(self._clock)}

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the process to end. Returns its exit code; kills it after STOP_S."""
        assert self.process is not None
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return NEVER_ENDED
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()

    def stop(self) -> None:
        """End the process, gently."""
        if self.running:
            self.send(signal.SIGTERM)
            self.wait()

    def set_faults(self, *faults: Fault) -> None:
        """The engines' faults from their next batch on; none ends them."""
        unfinished = self._faults.with_suffix(".new")
        unfinished.write_text(json.dumps([asdict(fault) for fault in faults]), encoding="utf-8")
        unfinished.replace(self._faults)

    def set_clock(self, offset_s: int) -> None:
        """Move the wall clock of a server of the flavour "moved clock"."""
        with self._clock.open("r+b" if self._clock.exists() else "w+b") as file:
            file.write(struct.pack("q", offset_s))

    def memory_mib(self) -> float:
        """The resident memory."""
        return float(psutil.Process(self.pid).memory_info().rss) / 2**20

    def open_files(self) -> int:
        """How many file descriptors are open."""
        return int(psutil.Process(self.pid).num_fds())

    def temporary_files(self) -> list[str]:
        """Our files in the folder for temporary files, as the server sees it; libraries leave some of theirs."""
        seen = Path(f"/proc/{self.pid}/root") if self.running else Path("/")
        names = os.listdir(seen / self._temporary.relative_to("/"))
        return sorted(name for name in names if name.startswith("ganforge"))

    def gauges(self) -> dict[str, float]:
        """The server's own word on what is open, active, queued and uploaded."""
        address = f"http://127.0.0.1:{self._metrics_port}/metrics"
        with urllib.request.urlopen(address, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        values: dict[str, float] = dict.fromkeys(GAUGES, 0.0)
        for line in lines:
            name = line.partition("{")[0].partition(" ")[0]
            if name in values:
                values[name] += float(line.rpartition(" ")[2])
        return values

    def log_lines(self, start: int = 0) -> list[str]:
        """The log's lines from number `start` on."""
        return self._log.read_text(encoding="utf-8").splitlines()[start:]

    def logged(self, request_id: str, timeout_s: float = 10.0) -> str:
        """The code in the log line of a call; "" if there is none in time."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            for line in self.log_lines():
                if request_id in line and line.startswith("{"):
                    record = json.loads(line)
                    if record.get("request_id") == request_id and record["event"] == "call":
                        return str(record["code"])
            time.sleep(0.05)
        return ""

    def errors(self, start: int) -> list[str]:
        """The log's lines from number `start` on that are errors or no log lines at all, cut short."""
        found = []
        for line in self.log_lines(start):
            if line.startswith("{"):
                record = json.loads(line)
                if record["level"] in ("error", "critical"):
                    found.append(f"{record['event']}: {record.get('message', '')}"[:200])
            elif "Traceback" in line or "Error" in line:
                found.append(line[:200])
        return found


def _limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW_FILES, FEW_FILES))


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for servers, on a short path."""
    return tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True)
