"""How many GPUs the NVIDIA driver of this machine can use: asked before any library is loaded that needs one."""

from __future__ import annotations

import ctypes
from functools import cache


@cache
def gpu_count() -> int:
    """GPUs that the driver can use; 0 where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    ready = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if ready else 0


def no_gpu(index: int) -> str | None:
    """Why GPU number `index` cannot be used here, or None where the driver has it."""
    count = gpu_count()
    if count == 0:
        return "no NVIDIA GPU that a driver can use"
    return None if index < count else f"there is no GPU number {index}: this machine has {count}"
