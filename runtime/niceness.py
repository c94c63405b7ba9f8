"""Niceness: how much less urgent than others a thread is to the operating system, 0 to 19, where a thread has its own.

server/core/fair_threads.py makes the threads that code large pictures nice, and runtime/pictures/rowfile.py those of libvips
that work for them.
"""

from __future__ import annotations

import os
import sys
import threading

# Elsewhere niceness is that of a process.
PER_THREAD = sys.platform == "linux"


def niceness() -> int:
    """Of this thread; 0 where threads have none."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) if PER_THREAD else 0


def give_way(least: int) -> None:
    """Make this thread at least so nice. It stays so: only root may take it back."""
    if niceness() < least:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), least)
