"""Slots of the TensorRT engine: each has a CUDA stream with execution contexts, buffers and CUDA graphs.

`TensorRTEngine` has one slot per run that may be in flight and calls `Slot.run` with arrays; it returns arrays. A common
shape gets its own context, buffers and CUDA graph, so that a run is a single launch. Rare shapes share a context.
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

# (name, shape) of every input. A CUDA graph is captured for one such combination.
Shapes = tuple[tuple[str, tuple[int, ...]], ...]
# How many shapes beyond the fixed ones have a graph, and how many shapes seen once are remembered.
DYNAMIC_GRAPHS = 8
REMEMBERED = 64
logger = logging.getLogger(__name__)


def shapes_of(inputs: Mapping[str, Array]) -> Shapes:
    """The shapes of a batch's inputs, sorted by name."""
    return tuple((name, tuple(array.shape)) for name, array in sorted(inputs.items()))


class Context:
    """A TensorRT execution context whose failed calls raise EngineError with the library's log.

    reason: returns the library's log. keep: objects that must live as long as the context.
    """

    def __init__(self, context: Any, reason: Callable[[], str], keep: tuple[Any, ...] = ()) -> None:
        if context is None:
            raise EngineError(f"create_execution_context failed: {reason()}")
        self._context = context
        self._reason = reason
        self._keep = keep

    def bind(self, profile: int, shapes: Shapes, stream: int) -> int:
        """Set the optimisation profile and the input shapes. Returns the bytes of scratch memory that a run needs."""
        self._check(self._context.set_optimization_profile_async(profile, stream), f"profile {profile}")
        for name, shape in shapes:
            self._check(self._context.set_input_shape(name, shape), f"{name}{list(shape)}")
        needed = int(self._context.update_device_memory_size_for_shapes())
        # 0 means none or an error. Then take the profile's size, which is enough for any of its shapes, because
        # set_device_memory does not report memory that is too small.
        return needed or int(self._context.engine.get_device_memory_size_for_profile_v2(profile))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor for the bound input shapes."""
        return tuple(int(axis) for axis in self._context.get_tensor_shape(name))

    def place(self, addresses: Mapping[str, int], scratch: int, scratch_bytes: int) -> None:
        """Set the device addresses of the tensors and the scratch memory."""
        self._context.set_device_memory(scratch, scratch_bytes)
        for name, address in addresses.items():
            self._check(self._context.set_tensor_address(name, address), f"the address of {name}")

    def enqueue(self, stream: int) -> None:
        """Enqueue one run on the stream."""
        self._check(self._context.execute_async_v3(stream), "the run")

    def _check(self, accepted: bool, request: str) -> None:
        if not accepted:
            raise EngineError(f"TensorRT refused {request}: {self._reason()}")


class Prepared:
    """An execution context with its buffers. After `capture`, a run is one launch of a CUDA graph."""

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
        """Set the shapes and allocate buffers. `scratch` may move, which breaks all graphs captured with it."""
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
        """Copy the inputs to the device, run, and return copies of the outputs, owned by the caller."""
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
        """Whether there is a CUDA graph."""
        return self._graph is not None

    def capture(self) -> None:
        """Capture copies and kernels as one CUDA graph. Call it after a plain run, which does the lazy initialisation.

        If the capture fails, a warning is logged and later runs enqueue kernels one by one.
        """
        self._cuda.begin_capture(self._stream)
        try:
            self._enqueue()
            self._graph = self._cuda.end_capture(self._stream)
        except EngineError as error:
            self._cuda.abandon_capture(self._stream)
            logger.warning("no CUDA graph was captured, kernels are enqueued one by one: %s", error)

    def _enqueue(self) -> None:
        for buffer in self._inputs.values():
            self._cuda.copy_in(buffer, self._stream)
        self._context.enqueue(self._stream)
        for buffer in self._outputs.values():
            self._cuda.copy_out(buffer, self._stream)

    def free(self) -> None:
        """Free the graph and the buffers."""
        if self._graph is not None:
            self._cuda.call("cudaGraphExecDestroy", self._graph)
            self._graph = None
        for buffer in (*self._inputs.values(), *self._outputs.values()):
            buffer.free()


class Slot:
    """A CUDA stream with its contexts, buffers and graphs. Used by one thread at a time.

    make_context(fixed): from `tensorrt_loading.context_maker`. outputs: names of the graph's outputs.
    fixed: shapes that are prepared on their first run. capture: whether to capture CUDA graphs.
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
        # Contexts on one stream never run at the same time, so all share one scratch memory.
        self._scratch = Buffer(cuda, pinned=False)
        self._own: dict[tuple[int, Shapes], Prepared] = {}
        self._shared: dict[int, Prepared] = {}
        self.graph_launches = 0
        self.plain_runs = 0

    def run(self, profile: int, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch. profile: number of the optimisation profile. inputs: arrays [N, …] by name.

        Returns the outputs [N, …] float32 by name. Raises EngineError.
        """
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
        # Creating or freeing contexts and memory while another slot captures can break its capture.
        with self._cuda.lock:
            return self._run_own(profile, inputs) if worth_own else self._run_shared(profile, inputs)

    def _run_own(self, profile: int, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Prepare a context for this shape and run it."""
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
        """Run in the context shared by all shapes of this profile that have none of their own."""
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
            # Graphs contain the old address of the scratch memory, which may have moved even if `bind` failed.
            if self._scratch.device != scratch:
                self._free_own()

    def _free_evicted(self) -> None:
        for shapes in self._choice.evicted():
            for key in [key for key in self._own if key[1] == shapes]:
                with self._cuda.lock:
                    self._own.pop(key).free()

    def _free_own(self) -> None:
        own, self._own = self._own, {}
        for prepared in own.values():
            prepared.free()

    def free(self) -> None:
        """Free everything on the device. Raises the first EngineError if CUDA fails to free a part; the rest is freed."""
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
    """Chooses the shapes that get their own context, buffers and graph.

    The fixed shapes always have their own. Any other gets one on its second run and loses it to more recently used ones
    when there are more than DYNAMIC_GRAPHS.
    """

    def __init__(self, fixed: set[Shapes]) -> None:
        self._fixed = fixed
        self._seen_once: OrderedDict[Shapes, None] = OrderedDict()
        self._chosen: OrderedDict[Shapes, None] = OrderedDict()
        self._evicted: list[Shapes] = []

    def visit(self, shapes: Shapes) -> bool:
        """Count a run of `shapes`. Returns whether they get their own context."""
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
        """The shapes that lost their context since the last call."""
        shapes, self._evicted = self._evicted, []
        return shapes
