"""CUDA for the tensorrt backend: calls of cuda-python's runtime bindings, each checked, and buffers that are freed once.

cuda-core has buffers, streams and graph builders as well. It makes none of them without a driver, so the failures that
this file and `tensorrt_slot.py` handle (no memory, a broken capture) could not be tested on a machine without a GPU; the
functions of the runtime bindings can be called, checked and replaced there. Nor has it a buffer that is pinned on the
host, plain on the device, and grows.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from runtime.backends.nvidia_driver import no_gpu
from runtime.errors import EngineError
from runtime.tensors import Array


class Cuda:
    """The CUDA runtime on one device. Raises EngineError naming the call that failed.

    runtime: the module `cuda.bindings.runtime`, or one with the same functions.
    lock: held by whoever makes or frees contexts and memory on the device, or captures a graph: a device-wide
    synchronisation, which the former may do, breaks a capture on any stream (TensorRT issue 2888).
    """

    def __init__(self, device: int = 0, runtime: Any = None) -> None:
        self.device = device
        self.lock = _lock(device)
        self._cudart = runtime if runtime is not None else _cudart()

    @staticmethod
    def problem(device: int = 0, runtime: Any = None) -> str | None:
        """Why GPU number `device` cannot be used here, or None."""
        if runtime is None and (problem := no_gpu(device)) is not None:
            return problem
        if runtime is None and (find_spec("cuda") is None or find_spec("cuda.bindings") is None):
            return "cuda-python is not installed (pip install cuda-python)"
        cuda = Cuda(device, runtime)
        try:
            count = int(cuda.call("cudaGetDeviceCount"))
        except EngineError as error:
            return f"no NVIDIA GPU can be used: {error}"
        if device >= count:
            return f"there is no GPU number {device}: this machine has {count}"
        return None

    def call(self, name: str, *arguments: Any) -> Any:
        """One function of the CUDA runtime; its result without the return code."""
        try:
            code, *results = getattr(self._cudart, name)(*arguments)
        except RuntimeError as error:  # cuda-python could not load the library itself
            raise EngineError(f"{name} failed: {error}") from error
        if int(code) != 0:
            raise EngineError(f"{name} failed: {self._words('Name', code)} ({self._words('String', code)})")
        return results[0] if len(results) == 1 else tuple(results) or None

    def _words(self, which: str, code: Any) -> str:
        _, text = getattr(self._cudart, f"cudaGetError{which}")(code)
        return text.decode() if isinstance(text, bytes) else str(text)

    def use(self) -> None:
        """Make this the calling thread's device: CUDA keeps that per thread."""
        self.call("cudaSetDevice", self.device)

    def compute_capability(self) -> str:
        attributes = self._cudart.cudaDeviceAttr
        major = self.call("cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMajor, self.device)
        minor = self.call("cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMinor, self.device)
        return f"{major}.{minor}"

    def stream(self) -> int:
        """A stream of its own: the default stream waits for every other one."""
        non_blocking = 1
        return int(self.call("cudaStreamCreateWithFlags", non_blocking))

    def copy_in(self, buffer: Buffer, stream: int) -> None:
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.call("cudaMemcpyAsync", buffer.device, buffer.host, buffer.used, kind, stream)

    def copy_out(self, buffer: Buffer, stream: int) -> None:
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.call("cudaMemcpyAsync", buffer.host, buffer.device, buffer.used, kind, stream)

    def synchronize(self, stream: int) -> None:
        self.call("cudaStreamSynchronize", stream)

    def begin_capture(self, stream: int) -> None:
        # Thread-local: another thread's allocations do not spoil this capture.
        mode = self._cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> Any:
        """An executable graph of what was enqueued since `begin_capture`."""
        graph = self.call("cudaStreamEndCapture", stream)
        try:
            return self.call("cudaGraphInstantiate", graph, 0)
        finally:
            self.call("cudaGraphDestroy", graph)

    def abandon_capture(self, stream: int) -> None:
        """Leave capture mode after a failure; the graph, if there is one, is broken."""
        with suppress(EngineError):
            graph = self.call("cudaStreamEndCapture", stream)
            if graph is not None and int(graph) != 0:
                self.call("cudaGraphDestroy", graph)
        # The failed capture is also the thread's last error, which the next call would report as its own.
        with suppress(EngineError):
            self.call("cudaGetLastError")


@cache
def _lock(device: int) -> threading.RLock:
    return threading.RLock()


def _cudart() -> Any:
    from cuda.bindings import runtime

    return runtime


class Buffer:
    """One tensor's memory on both sides: pinned on the host, plain on the device. Grows when asked, never shrinks."""

    def __init__(self, cuda: Cuda, *, pinned: bool = True) -> None:
        self._cuda = cuda
        self._pinned = pinned
        self.host = 0
        self.device = 0
        self.size = 0
        self.used = 0

    def fit(self, size_bytes: int) -> bool:
        """Make room for `size_bytes`. True where the addresses changed."""
        self.used = size_bytes
        if size_bytes <= self.size:
            return False
        self.free()
        self.device = int(self._cuda.call("cudaMalloc", size_bytes))
        self.host = int(self._cuda.call("cudaMallocHost", size_bytes)) if self._pinned else 0
        self.size = self.used = size_bytes
        return True

    def view(self, shape: Sequence[int], dtype: str) -> Array:
        """The pinned memory as an array, without a copy. Valid until the buffer grows or is freed."""
        raw = (ctypes.c_byte * self.used).from_address(self.host)
        return np.frombuffer(memoryview(raw), dtype=dtype).reshape(tuple(shape))

    def free(self) -> None:
        device, host = self.device, self.host
        self.device = self.host = self.size = self.used = 0
        if device:
            self._cuda.call("cudaFree", device)
        if host:
            self._cuda.call("cudaFreeHost", host)
