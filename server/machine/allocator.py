"""Settings of the C library's memory allocator. `python -m server` calls `return_memory` at its start.

glibc keeps large freed blocks for later by default, and more of them the longer a process runs: a server that decoded a
few large pictures would hold several times what its running requests need.
"""

from __future__ import annotations

import ctypes

# mallopt's parameters (malloc.h).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Blocks of at least this size are mapped on their own, and go back to the system when they are freed.
MAPPED_FROM_BYTES = 2**19


def return_memory() -> None:
    """Give large blocks back to the system as soon as they are freed. Does nothing where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)
        mallopt(M_TRIM_THRESHOLD, MAPPED_FROM_BYTES)
