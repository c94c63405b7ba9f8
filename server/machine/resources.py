"""What this process may use of its machine: CPUs, memory, open files and temporary space, by cgroup and rlimits.

`ganforge doctor` compares the limits with it, and metrics show it beside what is used.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cpus() -> float:
    """The CPUs that this process may use: its affinity, or less if the cgroup has a quota."""
    count = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _cgroup("cpu.max").partition(" ")
    return min(count, int(quota) / int(period)) if quota.isdigit() and period.isdigit() else count


def memory_bytes() -> int:
    """The memory that this process may use: the machine's, or less by the cgroup or RLIMIT_AS."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    limits += [int(text) for text in (_cgroup("memory.max"), _cgroup("memory.high")) if text.isdigit()]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.append(soft)
    return min(limits)


def open_files() -> int:
    """The most files that this process may have open, sockets included."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 2**31


def temporary_bytes() -> int:
    """The free space where uploads and bands are spooled (TMPDIR)."""
    return shutil.disk_usage(tempfile.gettempdir()).free


def _cgroup(name: str) -> str:
    """A file of this process's cgroup (version 2), "" if there is none."""
    try:
        path = Path("/proc/self/cgroup").read_text(encoding="utf-8").partition("::")[2].splitlines()
        own = CGROUP / (path[0].lstrip("/") if path else "") / name
        return (own if own.is_file() else CGROUP / name).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
