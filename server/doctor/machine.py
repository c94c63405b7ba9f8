"""What the machine or container has: CPUs, memory, open files, temporary space and GPUs. command.py calls `check`."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from server.doctor.finding import Finding, Status, size
from server.machine import resources

SECTION = "machine"
# Instruction sets that decide how fast a CPU computes.
FAST_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "amx_fp16",
              "asimdhp", "bf16", "sve")  # fmt: skip
FEW_FILES = 4096
LITTLE_MEMORY_BYTES, LITTLE_SPACE_BYTES = 2 * 2**30, 2**30


def check() -> Iterator[Finding]:
    """Everything about this machine."""
    yield Finding(SECTION, "system", f"{platform.platform()}, {platform.machine()}")
    yield _cpu()
    yield _memory()
    yield _open_files()
    yield _temporary_space()
    yield from _gpus()


def _cpu() -> Finding:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    values = {name.strip(): value for name, _, value in (line.partition(": ") for line in lines)}
    flags = set((values.get("flags") or values.get("Features") or "").split())
    has = " ".join(flag for flag in FAST_FLAGS if flag in flags) or "no instruction set that we look for"
    name = values.get("model name") or platform.processor() or platform.machine()
    return Finding(
        SECTION, "cpu", f"{name}: {resources.usable_cpus():g} of {os.cpu_count()} cores usable; {has}"
    )


def _memory() -> Finding:
    usable = resources.memory_bytes()
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = f" of {size(whole)} (limited by the cgroup or ulimit -v)" if usable < whole else ""
    text = f"{size(usable)}{limit}"
    if usable < LITTLE_MEMORY_BYTES:
        return Finding(SECTION, "memory", f"{text}; a server needs {size(LITTLE_MEMORY_BYTES)}", "warning")
    return Finding(SECTION, "memory", text)


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{soft} (hard limit {hard})"
    if 0 <= soft < FEW_FILES:
        text += f"; each connection takes one: raise it to {FEW_FILES} (ulimit -n, LimitNOFILE=, --ulimit nofile=)"
        return Finding(SECTION, "open files", text, "warning")
    return Finding(SECTION, "open files", text)


def _temporary_space() -> Finding:
    """Uploads and the bands of large answers are files there."""
    try:
        folder = tempfile.gettempdir()
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        text = f"no folder for temporary files can be written ({error}); set TMPDIR to one that can"
        return Finding(SECTION, "temporary files", text, "error")
    free = resources.temporary_bytes()
    status: Status = "warning" if free < LITTLE_SPACE_BYTES else "ok"
    return Finding(SECTION, "temporary files", f"{folder}: {size(free)} free", status)


def _gpus() -> Iterator[Finding]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        yield Finding(SECTION, "gpu", "none of NVIDIA's (there is no nvidia-smi): models run on the CPU")
        return
    query = [tool, "--query-gpu=index,name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding(SECTION, "gpu", f"{tool} did not answer ({error}): the driver may hang", "warning")
        return
    if done.returncode != 0:
        sentence = (done.stdout + done.stderr).strip().partition("\n")[0]
        yield Finding(SECTION, "gpu", f"{tool} failed: {sentence}", "warning")
        return
    for line in done.stdout.splitlines():
        index, _, rest = line.partition(", ")
        yield Finding(SECTION, f"gpu {index}", rest)
