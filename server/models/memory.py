"""Memory for models: what opening one takes, and how much this process may still take.

server/models/models.py asks before it opens a model while others serve: a refused model is better than a killed server.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

from runtime.bundle import MANIFEST, Bundle

# Measured for warm engines on a CPU, above the library's own 45 MiB. OpenVINO: ×6 for 66 MiB of float32 weights (it keeps
# them once for any shape and once for each tile shape), 63 MiB for the 2.4 MiB of a small ESRGAN (its activations).
# ONNX Runtime: ×3 and 45 MiB. float16 weights that a CPU widens to float32 take twice that.
BYTES_PER_FILE_BYTE = 6
WIDENED = 2
ACTIVATIONS_BYTES = 64 * 2**20
# Below this much memory, nothing is opened beside what serves.
RESERVE_BYTES = 64 * 2**20

CGROUPS, MEMINFO = Path("/sys/fs/cgroup"), Path("/proc/meminfo")
OWN_CGROUPS, OWN_STATUS = Path("/proc/self/cgroup"), Path("/proc/self/status")
# Controller in /proc/self/cgroup → folder below /sys/fs/cgroup, and its files for limit, use and statistics.
HIERARCHIES = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def bytes_to_open(bundle: Bundle) -> int:
    """Estimate of the memory that the open model takes, from its files' sizes. Compiled plans of other machines count too."""
    listed = bundle.manifest.files
    weights = sum(info.bytes for name, info in listed.items() if name != MANIFEST and not _is_extra(name))
    widened = 1 if bundle.manifest.precision == "float32" else WIDENED
    return ACTIVATIONS_BYTES + weights * widened * BYTES_PER_FILE_BYTE


def _is_extra(name: str) -> bool:
    """Whether no engine reads the file: the report and the preview of a build."""
    return name.endswith((".json", ".png"))


def available_bytes() -> int | None:
    """How much more memory this process may take before it is killed; None if the system does not say.

    The least of what the machine has, and what each of the process's control groups and RLIMIT_AS still allow.
    """
    return min([*_machine(), *_control_groups(), *_address_space()], default=None)


def _machine() -> Iterator[int]:
    for line in _lines(MEMINFO):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _control_groups() -> Iterator[int]:
    for line in _lines(OWN_CGROUPS):
        _, _, rest = line.partition(":")
        controller, _, path = rest.partition(":")
        if controller not in HIERARCHIES:
            continue
        folder, limit, usage, cache = HIERARCHIES[controller]
        group = Path(path.strip().lstrip("/"))
        for part in (group, *group.parents):
            room = _room(CGROUPS / folder / part, limit, usage, cache)
            if room is not None:
                yield room


def _address_space() -> Iterator[int]:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        for line in _lines(OWN_STATUS):
            if line.startswith("VmSize:"):
                yield max(0, limit - int(line.split()[1]) * 1024)


def _room(group: Path, limit: str, usage: str, cache: str) -> int | None:
    """The limit of one control group less what it uses; pages of files that it can drop count as free."""
    limits, used = "".join(_lines(group / limit)).strip(), "".join(_lines(group / usage)).strip()
    if not limits.isdecimal() or not used.isdecimal():
        return None  # "max", or no such group
    droppable = (line.split() for line in _lines(group / "memory.stat"))
    cached = next((int(words[1]) for words in droppable if words[0] == cache), 0)
    return max(0, int(limits) - int(used) + cached)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []
