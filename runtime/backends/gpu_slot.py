"""A stream with the shapes prepared on it: fixed buffers and, for shapes that come again, one CUDA graph each."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from runtime.backends.cuda_memory import Buffer, Cuda
from runtime.errors import EngineError
from runtime.tensors import Array

# (name, shape) of every input: what a CUDA graph is captured for.
Shapes = tuple[tuple[str, tuple[int, ...]], ...]
# Shapes beyond the fixed ones that may have a graph at once, and how many shapes are remembered as seen once.
DYNAMIC_GRAPHS = 8
REMEMBERED = 64
logger = logging.getLogger(__name__)


def shapes_of(inputs: Mapping[str, Array]) -> Shapes:
    return tuple((name, tuple(array.shape)) for name, array in sorted(inputs.items()))


class Context:
    """A TensorRT execution context whose calls raise EngineError. keep: objects that must live as long."""

    def __init__(self, context: Any, keep: tuple[Any, ...] = ()) -> None:
        if context is None:
            raise EngineError("create_execution_context failed: is the GPU's memory full?")
        self._context = context
        self._keep = keep

    def bind(self, profile: int, shapes: Shapes, stream: int) -> int:
        """Choose the profile and the input shapes; the bytes of scratch memory that they take."""
        self._check(self._context.set_optimization_profile_async(profile, stream), f"profile {profile}")
        for name, shape in shapes:
            self._check(self._context.set_input_shape(name, shape), f"{name}{list(shape)}")
        return int(self._context.update_device_memory_size_for_shapes())

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(axis) for axis in self._context.get_tensor_shape(name))

    def place(self, addresses: Mapping[str, int], scratch: int, scratch_bytes: int) -> None:
        self._context.set_device_memory(scratch, scratch_bytes)
        for name, address in addresses.items():
            self._check(self._context.set_tensor_address(name, address), f"the address of {name}")

    def enqueue(self, stream: int) -> None:
        self._check(self._context.execute_async_v3(stream), "the run")

    @staticmethod
    def _check(accepted: bool, what: str) -> None:
        if not accepted:
            raise EngineError(f"TensorRT refused {what}")


class Prepared:
    """A context with its buffers, bound to one shape at a time; with a graph, to one shape for good."""

    def __init__(self, cuda: Cuda, stream: int, context: Context, outputs: tuple[str, ...]) -> None:
        self._cuda = cuda
        self._stream = stream
        self._context = context
        self._outputs = {name: Buffer(cuda) for name in outputs}
        self._inputs: dict[str, Buffer] = {}
        self._graph: Any = None

    def bind(
        self, profile: int, shapes: Shapes, dtypes: Mapping[str, np.dtype[Any]], scratch: Buffer
    ) -> bool:
        """Fix shapes and addresses. True where `scratch` had to move, which breaks every other graph that uses it."""
        needed = self._context.bind(profile, shapes, self._stream)
        moved = scratch.fit(max(needed, 1))
        for name, shape in shapes:
            self._inputs.setdefault(name, Buffer(self._cuda)).fit(int(np.prod(shape)) * dtypes[name].itemsize)
        for name, buffer in self._outputs.items():
            buffer.fit(int(np.prod(self._context.shape(name))) * np.dtype(np.float32).itemsize)
        every = self._inputs | self._outputs
        self._context.place(
            {name: buffer.device for name, buffer in every.items()}, scratch.device, scratch.size
        )
        return moved

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Copy in, run, copy out; returns when it is done. Outputs are the caller's."""
        for name, array in inputs.items():
            self._inputs[name].view(array.shape, str(array.dtype))[...] = array
        if self._graph is None:
            self._enqueue()
        else:
            self._cuda.call("cudaGraphLaunch", self._graph, self._stream)
        self._cuda.synchronize(self._stream)
        return {
            name: buffer.view(self._context.shape(name), "float32").copy()
            for name, buffer in self._outputs.items()
        }

    @property
    def captured(self) -> bool:
        return self._graph is not None

    def capture(self) -> None:
        """Make copies and kernels one graph. Call after one plain run, which does what may not happen in a capture."""
        self._cuda.begin_capture(self._stream)
        try:
            self._enqueue()
            self._graph = self._cuda.end_capture(self._stream)
        except EngineError as error:
            self._cuda.abandon_capture(self._stream)
            logger.warning("no CUDA graph, kernels are enqueued one by one: %s", error)

    def _enqueue(self) -> None:
        for buffer in self._inputs.values():
            self._cuda.copy_in(buffer, self._stream)
        self._context.enqueue(self._stream)
        for buffer in self._outputs.values():
            self._cuda.copy_out(buffer, self._stream)

    def free(self) -> None:
        if self._graph is not None:
            self._cuda.call("cudaGraphExecDestroy", self._graph)
            self._graph = None
        for buffer in (*self._inputs.values(), *self._outputs.values()):
            buffer.free()


class Slot:
    """One stream and all that runs on it. Used by one thread at a time.

    make_context(fixed) gives a context for one shape for good, or for any. capture: capture our own CUDA graphs.
    """

    def __init__(
        self,
        cuda: Cuda,
        make_context: Callable[[bool], Context],
        *,
        outputs: tuple[str, ...],
        fixed: set[Shapes],
        capture: bool,
    ) -> None:
        self._cuda = cuda
        self._make_context = make_context
        self._outputs = outputs
        self._capture = capture
        self._choice = ShapeChoice(fixed)
        self._stream = cuda.stream()
        # Contexts on one stream never run at once, so all share one scratch memory.
        self._scratch = Buffer(cuda, pinned=False)
        self._own: dict[tuple[int, Shapes], Prepared] = {}
        self._loose: dict[int, Prepared] = {}
        self.graph_launches = 0
        self.plain_runs = 0

    def run(self, profile: int, inputs: Mapping[str, Array]) -> dict[str, Array]:
        shapes = shapes_of(inputs)
        dtypes = {name: array.dtype for name, array in inputs.items()}
        prepared = self._own.get((profile, shapes))
        own = self._choice.visit(shapes)
        for gone in self._choice.evicted():
            for key in [key for key in self._own if key[1] == gone]:
                self._own.pop(key).free()
        if prepared is not None:
            if prepared.captured:
                self.graph_launches += 1
            else:
                self.plain_runs += 1
            return prepared.run(inputs)
        self.plain_runs += 1
        if not own:
            if profile not in self._loose:
                self._loose[profile] = self._prepare(fixed=False)
            self._bind(self._loose[profile], profile, shapes, dtypes)
            return self._loose[profile].run(inputs)
        prepared = self._prepare(fixed=True)
        try:
            self._bind(prepared, profile, shapes, dtypes)
            outputs = prepared.run(inputs)
        except EngineError:
            prepared.free()
            raise
        if self._capture:
            prepared.capture()
        self._own[profile, shapes] = prepared
        return outputs

    def _prepare(self, *, fixed: bool) -> Prepared:
        return Prepared(self._cuda, self._stream, self._make_context(fixed), self._outputs)

    def _bind(
        self, prepared: Prepared, profile: int, shapes: Shapes, dtypes: Mapping[str, np.dtype[Any]]
    ) -> None:
        if prepared.bind(profile, shapes, dtypes, self._scratch):
            self._drop()  # their graphs hold the scratch memory's old address

    def _drop(self) -> None:
        for prepared in self._own.values():
            prepared.free()
        self._own.clear()

    def free(self) -> None:
        self._drop()
        for prepared in self._loose.values():
            prepared.free()
        self._loose.clear()
        self._scratch.free()
        self._cuda.call("cudaStreamDestroy", self._stream)


class ShapeChoice:
    """Which shapes are worth a context, buffers and a graph of their own: the fixed ones, and others from the second
    time they come, the least recently used of which make room."""

    def __init__(self, fixed: set[Shapes]) -> None:
        self._fixed = fixed
        self._seen: OrderedDict[Shapes, None] = OrderedDict()
        self._chosen: OrderedDict[Shapes, None] = OrderedDict()
        self._evicted: list[Shapes] = []

    def visit(self, shapes: Shapes) -> bool:
        """Count one run of `shapes`; whether it has its own."""
        if shapes in self._fixed:
            return True
        if shapes in self._chosen:
            self._chosen.move_to_end(shapes)
            return True
        if shapes not in self._seen:
            self._seen[shapes] = None
            if len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
            return False
        del self._seen[shapes]
        self._chosen[shapes] = None
        if len(self._chosen) > DYNAMIC_GRAPHS:
            self._evicted.append(self._chosen.popitem(last=False)[0])
        return True

    def evicted(self) -> list[Shapes]:
        """The shapes that made room since the last call."""
        gone, self._evicted = self._evicted, []
        return gone
