"""Describes the machine for a benchmark's report, and measures the memory of a process. All benchmarks but gpu use it."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

MIB = 2**20
SAMPLED_EVERY_S = 0.01


def describe() -> dict[str, object]:
    """CPU, cores, memory, load and library versions, for a report's "machine" entry."""
    names = ("openvino", "onnxruntime", "grpcio", "pyvips", "numpy")
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )


def resident_mib(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    return psutil.Process(pid).memory_info().rss / MIB


@dataclass
class Peak:
    """The highest resident memory so far, in MiB."""

    mib: float = 0.0


@contextmanager
def watched(pid: int) -> Iterator[Peak]:
    """A context manager that samples a process's resident memory every 10 ms until it ends, and gives the peak."""
    peak, over = Peak(resident_mib(pid)), threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLED_EVERY_S):
            peak.mib = max(peak.mib, resident_mib(pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()
