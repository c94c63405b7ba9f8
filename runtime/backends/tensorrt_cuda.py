"""CUDA for the tensorrt backend: checked calls of cuda-python's runtime bindings, and growing host and device buffers.

tensorrt_backend.py, tensorrt_library.py and tensorrt_plan.py call `Cuda`; tensorrt_slot.py also uses `Buffer`. Failed
calls raise EngineError.

cuda-core, which has buffers, streams and graph builders too, is not used. It creates them only with a driver, so the
failures handled here and in tensorrt_slot.py (out of memory, a broken capture) could not be tested without a GPU; the
functions of the runtime bindings can be replaced in a test. It also has no buffer with pinned host memory and device
memory that grows.
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
    """The CUDA runtime on one device. Every method raises EngineError with the name of a failed call.

    device: number of the GPU. runtime: the module `cuda.bindings.runtime`, or another with the same functions.
    lock: hold it while creating or freeing contexts and memory, and while capturing a graph. Creating and freeing may
    synchronise the whole device, which breaks a capture on any stream (TensorRT issue 2888).
    """

    def __init__(self, device: int = 0, runtime: Any = None) -> None:
        self.device = device
        self.lock = _lock(device)
        self._cudart = runtime if runtime is not None else _cudart()

    @staticmethod
    def problem(device: int = 0, runtime: Any = None) -> str | None:
        """The reason why GPU number `device` cannot be used here, or None if it can."""
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
        """Call a function of the CUDA runtime by name. Returns its results without the return code."""
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
        """Make this the calling thread's device. CUDA has a current device per thread."""
        self.call("cudaSetDevice", self.device)

    def compute_capability(self) -> str:
        """The GPU's compute capability, such as "8.9"."""
        attributes = self._cudart.cudaDeviceAttr
        major = self.call("cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMajor, self.device)
        minor = self.call("cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMinor, self.device)
        return f"{major}.{minor}"

    def stream(self) -> int:
        """Create a non-blocking stream. The default stream would wait for every other stream."""
        non_blocking = 1
        return int(self.call("cudaStreamCreateWithFlags", non_blocking))

    def copy_in(self, buffer: Buffer, stream: int) -> None:
        """Enqueue the copy of a buffer from host to device."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.call("cudaMemcpyAsync", buffer.device, buffer.host, buffer.used, kind, stream)

    def copy_out(self, buffer: Buffer, stream: int) -> None:
        """Enqueue the copy of a buffer from device to host."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.call("cudaMemcpyAsync", buffer.host, buffer.device, buffer.used, kind, stream)

    def synchronize(self, stream: int) -> None:
        """Wait until everything enqueued on the stream is done."""
        self.call("cudaStreamSynchronize", stream)

    def begin_capture(self, stream: int) -> None:
        """Start capturing a CUDA graph of what is enqueued on the stream."""
        # Thread-local, so that another thread's allocations do not break this capture.
        mode = self._cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> Any:
        """End the capture. Returns the executable graph of what was enqueued since `begin_capture`."""
        graph = self.call("cudaStreamEndCapture", stream)
        try:
            return self.call("cudaGraphInstantiate", graph, 0)
        finally:
            self.call("cudaGraphDestroy", graph)

    def abandon_capture(self, stream: int) -> None:
        """End a failed capture and discard its graph."""
        with suppress(EngineError):
            graph = self.call("cudaStreamEndCapture", stream)
            if graph is not None and int(graph) != 0:
                self.call("cudaGraphDestroy", graph)
        # Clear the thread's last error, which the next call would otherwise report as its own.
        with suppress(EngineError):
            self.call("cudaGetLastError")


@cache
def _lock(device: int) -> threading.RLock:
    return threading.RLock()


def _cudart() -> Any:
    from cuda.bindings import runtime

    return runtime


class Buffer:
    """Memory of one tensor: on the device and, if `pinned`, page-locked on the host too. Grows, never shrinks.

    host, device: addresses, 0 if not allocated. size: allocated bytes. used: bytes of the latest `fit`.
    """

    def __init__(self, cuda: Cuda, *, pinned: bool = True) -> None:
        self._cuda = cuda
        self._pinned = pinned
        self.host = 0
        self.device = 0
        self.size = 0
        self.used = 0

    def fit(self, size_bytes: int) -> bool:
        """Grow to at least `size_bytes`. Returns whether the addresses changed."""
        self.used = size_bytes
        if size_bytes <= self.size:
            return False
        self.free()
        self.device = int(self._cuda.call("cudaMalloc", size_bytes))
        self.host = int(self._cuda.call("cudaMallocHost", size_bytes)) if self._pinned else 0
        self.size = self.used = size_bytes
        return True

    def view(self, shape: Sequence[int], dtype: str) -> Array:
        """The host memory as an array, without a copy. Valid until the buffer grows or is freed."""
        raw = (ctypes.c_byte * self.used).from_address(self.host)
        return np.frombuffer(memoryview(raw), dtype=dtype).reshape(tuple(shape))

    def free(self) -> None:
        """Free the memory on both sides. Freeing again does nothing."""
        device, host = self.device, self.host
        self.device = self.host = self.size = self.used = 0
        if device:
            self._cuda.call("cudaFree", device)
        if host:
            self._cuda.call("cudaFreeHost", host)
