"""Limits of a server that do not fit together or not to this machine. command.py calls `check`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from server.doctor.finding import Finding, Status, size
from server.limits import Limits

SECTION = "limits"
# Files that a server has open beside its connections: libraries, logs, spooled uploads.
OTHER_FILES = 256
# What libraries, models and the interpreter take of the memory before the first request.
OF_MODELS = 0.5


@dataclass(frozen=True)
class Machine:
    """What the limits are compared with. files: that may be open. memory_bytes, temporary_bytes: usable."""

    memory_bytes: int
    temporary_bytes: int
    files: int


def check(limits: Limits, machine: Machine) -> Iterator[Finding]:
    """A finding for each pair that does not fit, or one that says that all do."""
    rows: list[tuple[bool, str, str, Status]] = [
        (
            limits.max_active_bytes > machine.memory_bytes,
            "max_active_bytes",
            f"{size(limits.max_active_bytes)} is more than the {size(machine.memory_bytes)} of memory here: "
            "requests may end the process",
            "error",
        ),
        (
            OF_MODELS * machine.memory_bytes < limits.max_active_bytes <= machine.memory_bytes,
            "max_active_bytes",
            f"{size(limits.max_active_bytes)} is more than half of the {size(machine.memory_bytes)} of memory here, "
            "of which models and libraries need a part",
            "warning",
        ),
        (
            limits.max_message_bytes > limits.max_active_bytes,
            "max_message_bytes",
            f"one message ({size(limits.max_message_bytes)}) may be larger than --max-active-bytes "
            f"({size(limits.max_active_bytes)})",
            "warning",
        ),
        (
            limits.max_upload_bytes > limits.max_uploads_bytes,
            "max_upload_bytes",
            f"one upload ({size(limits.max_upload_bytes)}) may be larger than --max-uploads-bytes "
            f"({size(limits.max_uploads_bytes)}), which refuses it",
            "error",
        ),
        (
            limits.max_message_bytes > limits.max_upload_bytes,
            "max_upload_bytes",
            f"a picture in one message ({size(limits.max_message_bytes)}) may be larger than one in pieces "
            f"({size(limits.max_upload_bytes)})",
            "warning",
        ),
        (
            limits.max_disk_bytes > machine.temporary_bytes,
            "max_disk_bytes",
            f"{size(limits.max_disk_bytes)} is more than the {size(machine.temporary_bytes)} of free space for "
            "temporary files; lower it, or set TMPDIR to a larger disk",
            "warning",
        ),
        (
            limits.max_calls + OTHER_FILES > machine.files,
            "max_calls",
            f"{limits.max_calls} calls and {OTHER_FILES} other files are more than the {machine.files} files that may "
            "be open; raise ulimit -n",
            "warning",
        ),
    ]
    problems = [Finding(SECTION, name, text, status) for applies, name, text, status in rows if applies]
    yield from problems or [Finding(SECTION, "all", "fit together and to this machine")]
