"""Slots: a CUDA stream each, with execution contexts, buffers and CUDA graphs for the shapes that run on it.

`TensorRTEngine` keeps one slot for each run that may be in flight. A shape that comes again and again is prepared once:
a context and buffers of its own, and a CUDA graph, so that a run is one launch. Other shapes share one context.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from runtime.backends.tensorrt_cuda import Buffer, Cuda
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
    """A TensorRT execution context whose calls raise EngineError with the library's own words.

    reason: takes the library's log. keep: objects that must live as long as the context.
    """

    def __init__(self, context: Any, reason: Callable[[], str], keep: tuple[Any, ...] = ()) -> None:
        if context is None:
            raise EngineError(f"create_execution_context failed: {reason()}")
        self._context = context
        self._reason = reason
        self._keep = keep

    def bind(self, profile: int, shapes: Shapes, stream: int) -> int:
        """Choose the profile and the input shapes. Returns the bytes of scratch memory that a run takes."""
        self._check(self._context.set_optimization_profile_async(profile, stream), f"profile {profile}")
        for name, shape in shapes:
            self._check(self._context.set_input_shape(name, shape), f"{name}{list(shape)}")
        needed = int(self._context.update_device_memory_size_for_shapes())
        # 0 means none or an error. The profile's own size is enough for any of its shapes, and set_device_memory
        # reports nothing where the memory is too small.
        return needed or int(self._context.engine.get_device_memory_size_for_profile_v2(profile))

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(axis) for axis in self._context.get_tensor_shape(name))

    def place(self, addresses: Mapping[str, int], scratch: int, scratch_bytes: int) -> None:
        """Say where the tensors and the scratch memory lie on the device."""
        self._context.set_device_memory(scratch, scratch_bytes)
        for name, address in addresses.items():
            self._check(self._context.set_tensor_address(name, address), f"the address of {name}")

    def enqueue(self, stream: int) -> None:
        self._check(self._context.execute_async_v3(stream), "the run")

    def _check(self, accepted: bool, what: str) -> None:
        if not accepted:
            raise EngineError(f"TensorRT refused {what}: {self._reason()}")


class Prepared:
    """A context and its buffers. After `capture` it runs the shape that it is bound to as one CUDA graph."""

    def __init__(self, cuda: Cuda, stream: int, context: Context, outputs: tuple[str, ...]) -> None:
        self._cuda = cuda
        self._stream = stream
        self._context = context
        self._outputs = {name: Buffer(cuda) for name in outputs}
        self._inputs: dict[str, Buffer] = {}
        self._graph: Any = None

    def bind(
        self, profile: int, shapes: Shapes, dtypes: Mapping[str, np.dtype[Any]], scratch: Buffer
    ) -> None:
        """Fix shapes and addresses. `scratch` may move, which breaks every graph that was captured with it."""
        needed = self._context.bind(profile, shapes, self._stream)
        scratch.fit(max(needed, 1))
        for name, shape in shapes:
            self._inputs.setdefault(name, Buffer(self._cuda)).fit(int(np.prod(shape)) * dtypes[name].itemsize)
        for name, buffer in self._outputs.items():
            buffer.fit(int(np.prod(self._context.shape(name))) * np.dtype(np.float32).itemsize)
        buffers = self._inputs | self._outputs
        self._context.place(
            {name: buffer.device for name, buffer in buffers.items()}, scratch.device, scratch.size
        )

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

    make_context(fixed): makes a context for one fixed shape, or for any. outputs: the names of the graph's outputs.
    fixed: shapes that are prepared when they first come. capture: whether to capture CUDA graphs.
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
        self._shared: dict[int, Prepared] = {}
        self.graph_launches = 0
        self.plain_runs = 0

    def run(self, profile: int, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch in the optimisation profile number `profile`. Raises EngineError."""
        shapes = shapes_of(inputs)
        prepared = self._own.get((profile, shapes))
        worth_own = self._choice.visit(shapes)
        self._free_evicted()
        if prepared is not None:
            if prepared.captured:
                self.graph_launches += 1
            else:
                self.plain_runs += 1
            return prepared.run(inputs)
        self.plain_runs += 1
        # Making or freeing contexts and memory while another slot captures can break its capture.
        with self._cuda.lock:
            return self._run_own(profile, inputs) if worth_own else self._run_shared(profile, inputs)

    def _run_own(self, profile: int, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Prepare a context of its own for this shape, and run."""
        prepared = self._prepare(fixed=True)
        try:
            self._bind(prepared, profile, inputs)
            outputs = prepared.run(inputs)
        except EngineError:
            prepared.free()
            raise
        if self._capture:
            prepared.capture()
        self._own[profile, shapes_of(inputs)] = prepared
        return outputs

    def _run_shared(self, profile: int, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run in the context that all shapes of this profile share which have none of their own."""
        if profile not in self._shared:
            self._shared[profile] = self._prepare(fixed=False)
        self._bind(self._shared[profile], profile, inputs)
        return self._shared[profile].run(inputs)

    def _prepare(self, *, fixed: bool) -> Prepared:
        return Prepared(self._cuda, self._stream, self._make_context(fixed), self._outputs)

    def _bind(self, prepared: Prepared, profile: int, inputs: Mapping[str, Array]) -> None:
        scratch = self._scratch.device
        dtypes = {name: array.dtype for name, array in inputs.items()}
        try:
            prepared.bind(profile, shapes_of(inputs), dtypes, self._scratch)
        finally:
            # Graphs hold the scratch memory's old address. It may have moved before `bind` failed.
            if self._scratch.device != scratch:
                self._free_own()

    def _free_evicted(self) -> None:
        for shapes in self._choice.evicted():
            for key in [key for key in self._own if key[1] == shapes]:
                with self._cuda.lock:
                    self._own.pop(key).free()

    def _free_own(self) -> None:
        prepared, self._own = self._own, {}
        for one in prepared.values():
            one.free()

    def free(self) -> None:
        """Free all that the slot holds on the device. Raises EngineError where CUDA refuses a part; the rest is freed."""
        problems: list[EngineError] = []
        parts: list[Prepared | Buffer] = [*self._own.values(), *self._shared.values(), self._scratch]
        self._own, self._shared = {}, {}
        with self._cuda.lock:
            for part in parts:
                try:
                    part.free()
                except EngineError as error:
                    problems.append(error)
            self._cuda.call("cudaStreamDestroy", self._stream)
        if problems:
            raise problems[0]


class ShapeChoice:
    """Which shapes are worth a context, buffers and a graph of their own.

    The fixed ones are, and any other from the second time it comes, until DYNAMIC_GRAPHS more recent ones took its place.
    """

    def __init__(self, fixed: set[Shapes]) -> None:
        self._fixed = fixed
        self._seen_once: OrderedDict[Shapes, None] = OrderedDict()
        self._chosen: OrderedDict[Shapes, None] = OrderedDict()
        self._evicted: list[Shapes] = []

    def visit(self, shapes: Shapes) -> bool:
        """Count one run of `shapes`. Returns whether they are worth their own."""
        if shapes in self._fixed:
            return True
        if shapes in self._chosen:
            self._chosen.move_to_end(shapes)
            return True
        if shapes not in self._seen_once:
            self._seen_once[shapes] = None
            if len(self._seen_once) > REMEMBERED:
                self._seen_once.popitem(last=False)
            return False
        del self._seen_once[shapes]
        self._chosen[shapes] = None
        if len(self._chosen) > DYNAMIC_GRAPHS:
            self._evicted.append(self._chosen.popitem(last=False)[0])
        return True

    def evicted(self) -> list[Shapes]:
        """The shapes that lost their place since the last call."""
        shapes, self._evicted = self._evicted, []
        return shapes
