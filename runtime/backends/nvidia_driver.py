"""Counts the GPUs of the NVIDIA driver without loading an engine library.

The tensorrt and onnxruntime backends call `no_gpu` first, so that a machine without a GPU loads no GPU library.
"""

from __future__ import annotations

import ctypes
from functools import cache


@cache
def gpu_count() -> int:
    """The number of GPUs that the driver can use; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    ready = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if ready else 0


def no_gpu(index: int) -> str | None:
    """The reason why GPU number `index` cannot be used here, or None if it can."""
    count = gpu_count()
    if count == 0:
        return "there is no NVIDIA GPU with a working driver"
    return None if index < count else f"there is no GPU number {index}: this machine has {count}"
