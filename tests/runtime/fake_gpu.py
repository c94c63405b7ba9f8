"""A CUDA runtime and a TensorRT context in host memory: streams, captures and stale addresses behave as on a GPU."""

# ruff: noqa: N802, N815 - the names are CUDA's own

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Code(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorIllegalState = 401


class FakeCudart:
    """The functions of `cuda.bindings.runtime` that we call.

    fail: function name → the code it answers with. watch: function name → what is called with it beforehand.
    """

    def __init__(self, *, devices: int = 1, capability: tuple[int, int] = (8, 9)) -> None:
        self.devices = devices
        self.capability = capability
        self.fail: dict[str, Code] = {}
        self.watch: dict[str, Callable[[str], None]] = {}
        self.memory: dict[int, Any] = {}
        self.graphs: set[int] = set()
        self.captures: dict[int, list[Callable[[], None]]] = {}
        self.recorded: dict[int, list[Callable[[], None]]] = {}
        self.next_handle = 1
        self.lock = threading.Lock()
        self.cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
        self.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
        self.cudaDeviceAttr = SimpleNamespace(
            cudaDevAttrComputeCapabilityMajor=0, cudaDevAttrComputeCapabilityMinor=1
        )

    def __getattribute__(self, name: str) -> Any:
        state = object.__getattribute__(self, "__dict__")
        if name in state.get("watch", {}):
            state["watch"][name](name)
        if name in state.get("fail", {}):
            return lambda *arguments: (state["fail"][name],)
        return object.__getattribute__(self, name)

    def handle(self) -> int:
        with self.lock:
            self.next_handle += 1
            return self.next_handle

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        if stream in self.captures:
            self.captures[stream].append(work)
        else:
            work()

    def check_live(self, *addresses: int) -> None:
        stale = [address for address in addresses if address not in self.memory]
        assert not stale, "a kernel or a copy uses memory that was freed"

    # What follows is CUDA's.
    def cudaGetErrorName(self, code: Code) -> tuple[Code, bytes]:
        return Code.cudaSuccess, code.name.encode()

    def cudaGetErrorString(self, code: Code) -> tuple[Code, bytes]:
        return Code.cudaSuccess, b"in words"

    def cudaGetLastError(self) -> tuple[Code]:
        return (Code.cudaSuccess,)

    def cudaGetDeviceCount(self) -> tuple[Code, int]:
        return Code.cudaSuccess, self.devices

    def cudaDeviceGetAttribute(self, attribute: int, device: int) -> tuple[Code, int]:
        return Code.cudaSuccess, self.capability[attribute]

    def cudaSetDevice(self, device: int) -> tuple[Code]:
        return (Code.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Code, int]:
        return Code.cudaSuccess, self.handle()

    def cudaStreamDestroy(self, stream: int) -> tuple[Code]:
        return (Code.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Code]:
        assert stream not in self.captures, "synchronizing inside a capture"
        return (Code.cudaSuccess,)

    def cudaMalloc(self, size: int) -> tuple[Code, int]:
        block = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(block)] = block
        return Code.cudaSuccess, ctypes.addressof(block)

    cudaMallocHost = cudaMalloc

    def cudaFree(self, address: int) -> tuple[Code]:
        del self.memory[address]
        return (Code.cudaSuccess,)

    cudaFreeHost = cudaFree

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> tuple[Code]:
        def copy() -> None:
            self.check_live(to, source)
            ctypes.memmove(to, source, size)

        self.enqueue(stream, copy)
        return (Code.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Code]:
        self.captures[stream] = []
        return (Code.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Code, int | None]:
        if stream not in self.captures:
            return Code.cudaErrorIllegalState, None
        graph = self.handle()
        self.recorded[graph] = self.captures.pop(stream)
        return Code.cudaSuccess, graph

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Code, int]:
        executable = self.handle()
        self.recorded[executable] = self.recorded[graph]
        self.graphs.add(executable)
        return Code.cudaSuccess, executable

    def cudaGraphDestroy(self, graph: int) -> tuple[Code]:
        del self.recorded[graph]
        return (Code.cudaSuccess,)

    def cudaGraphExecDestroy(self, graph: int) -> tuple[Code]:
        del self.recorded[graph]
        self.graphs.remove(graph)
        return (Code.cudaSuccess,)

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Code]:
        for work in self.recorded[graph]:
            work()
        return (Code.cudaSuccess,)


class FakeContext:
    """A TensorRT execution context whose network repeats each pixel `scale` times along both sides.

    sample: the shape of what it gives for each latent instead, zeros. accepts: whether it takes any shape.
    scratch_known: whether it says how much scratch memory the shapes take.
    """

    def __init__(
        self,
        cudart: FakeCudart,
        scale: int,
        *,
        sample: tuple[int, ...] = (),
        accepts: bool = True,
        scratch_known: bool = True,
    ) -> None:
        self.cudart = cudart
        self.scale = scale
        self.sample = sample
        self.accepts = accepts
        self.scratch_known = scratch_known
        self.engine = SimpleNamespace(get_device_memory_size_for_profile_v2=lambda profile: 1 << 20)
        self.profile = 0
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}
        self.scratch = (0, 0)

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.profile = profile
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return self.accepts

    def update_device_memory_size_for_shapes(self) -> int:
        return int(np.prod(self.shape)) if self.scratch_known else 0

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if self.sample:
            return (self.shape[0], *self.sample)
        n, c, h, w = self.shape
        return self.shape if name == "image" else (n, c, h * self.scale, w * self.scale)

    def set_device_memory(self, address: int, size: int) -> None:
        self.scratch = (address, size)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        # What a kernel uses is fixed when it is enqueued, and so is what a graph captures.
        shape, addresses, (scratch, size) = self.shape, dict(self.addresses), self.scratch
        larger = self.get_tensor_shape("upscaled")

        def kernel() -> None:
            self.cudart.check_live(scratch, *addresses.values())
            assert size >= np.prod(shape)
            if self.sample:
                _floats(addresses["sample"], larger)[...] = 0
                return
            image = _floats(addresses["image"], shape)
            repeated = image.repeat(self.scale, axis=2).repeat(self.scale, axis=3)
            _floats(addresses["upscaled"], larger)[...] = repeated

        self.cudart.enqueue(stream, kernel)
        return True


def _floats(address: int, shape: tuple[int, ...]) -> Array:
    count = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)
