"""The C library's memory allocator: lets it return freed memory to the system. Does nothing where that is not glibc.

glibc keeps large freed blocks for later by default, and more of them the longer a process runs: a server that decoded a
few large pictures would hold several times what its running requests need. So `python -m server` calls `return_memory` at its
start. `trim` is called after what leaves many small blocks behind: large messages (server/core/transit.py) and closed models
(server/models/engines.py).
"""

from __future__ import annotations

import ctypes

# mallopt's parameters (malloc.h).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Blocks of at least this size are mapped on their own, and go back to the system when they are freed.
MAPPED_FROM_BYTES = 2**19


def return_memory() -> None:
    """Give large blocks back to the system as soon as they are freed, from now on."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)
        mallopt(M_TRIM_THRESHOLD, MAPPED_FROM_BYTES)


def trim() -> None:
    """Give what was freed until now back to the system: of a closed ESRGAN in ONNX Runtime, 45 MiB."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
