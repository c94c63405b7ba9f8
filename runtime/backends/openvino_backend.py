"""The OpenVINO backend, the default on CPUs. See `Backend` for its functions.

It always tells OpenVINO which precision to use. By default OpenVINO would run a float32 graph in bfloat16 on CPUs with
bfloat16 matrix units, and emulate a bfloat16 graph slowly on the others. `Engine.precision` reports what really runs,
read from the compiled graph.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import numpy as np

from runtime import tasks
from runtime.backends import shapes
from runtime.backends.base import Engine
from runtime.backends.cpu_features import cpu_features
from runtime.backends.precisions import WIDEST, fastest_allowed, narrowest
from runtime.bundle import Bundle
from runtime.errors import BackendUnavailable, EngineError
from runtime.manifest import EngineFile, Manifest
from runtime.tasks import ItemKind
from runtime.tensors import Array, Precision

NAME = "openvino"
PACKAGES = ("openvino",)
TARGETS = ("openvino",)
# Several tiles run in parallel, each on a few cores. A whole picture or a batch of samples uses all cores.
# "LATENCY" alone would leave all NUMA nodes but one idle; with this, each node runs one. Several tiles spread by themselves.
STREAMS: dict[str, str] = {"LATENCY": "NUMA"}
GOALS: dict[ItemKind, str] = {"tiles": "THROUGHPUT", "whole": "LATENCY", "samples": "LATENCY"}
HINTS: dict[Precision, str] = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
EXECUTED: dict[str, Precision] = {
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "u8": "int8",
    "i8": "int8",
}
HEAVY_LAYERS = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}


def unavailable(bundle: Bundle, device: str | None) -> str | None:
    """The reason why OpenVINO cannot run this bundle on `device`, or None if it can."""
    if device is not None and device.upper() != "CPU":
        return f"it runs on CPU, not on device {device!r}"
    return _missing()


def _missing() -> str | None:
    if find_spec("openvino") is None:
        return f"the library is not installed (pip install {PACKAGES[0]})"
    return None


def open_engine(
    bundle: Bundle, device: str | None = None, *, min_precision: Precision | None = None
) -> Engine:
    """Load the bundle on the CPU. device: "CPU" or None. min_precision: None for the bundle's own precision.

    Raises BackendUnavailable for another device or without the library, EngineError if the graph cannot be compiled.
    """
    reason = unavailable(bundle, device)
    if reason is not None:
        raise BackendUnavailable(f"{NAME}: {reason}")
    return OpenVINOEngine(bundle, min_precision=min_precision)


def cannot_make(target: str) -> str | None:
    """The reason why OpenVINO is not available here, or None."""
    return _missing()


def compile_engine(target: str, onnx: Path, manifest: Manifest) -> tuple[bytes, EngineFile] | None:
    """Returns None: OpenVINO compiles the graph for the CPU when the bundle is opened, in about a second."""
    return None


def native_precisions(device: str | None = None) -> tuple[Precision, ...]:
    """The floating-point precisions that this CPU computes in natively and no slower than float32, fastest first."""
    if _missing() is not None or (device or "CPU").upper() != "CPU":
        return ()
    return cpu_features(lambda: _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")).native_precisions


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()


class OpenVINOEngine(Engine):
    """The graph, compiled for any shape and once more for each tile shape. Each has infer requests for `slots` threads.

    asked: the precision to compute in; None for the fastest that the bundle and `min_precision` allow.
    """

    backend = NAME

    def __init__(
        self, bundle: Bundle, *, min_precision: Precision | None = None, asked: Precision | None = None
    ) -> None:
        manifest = bundle.manifest
        precision = asked or fastest_allowed(native_precisions(), manifest.precision, min_precision)
        goal = GOALS[tasks.items_of(manifest)]
        dynamic = compile_graph(bundle, precision, goal)
        slots = int(dynamic.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._compiled: dict[tuple[int, ...], Any] = {(): dynamic}  # () stands for any other shape
        for side in manifest.tile_sizes:
            tile = (1, cast(int, manifest.inputs[0].shape[1]), side, side)
            self._compiled[tile] = compile_graph(bundle, precision, goal, tile)
        self._idle: dict[tuple[int, ...], SimpleQueue[Any]] = {}
        for shape, compiled in self._compiled.items():
            self._idle[shape] = SimpleQueue()
            for _ in range(slots):
                self._idle[shape].put(compiled.create_infer_request())
        super().__init__(
            bundle,
            device="CPU",
            precision=narrowest(executed_precision(compiled) for compiled in self._compiled.values()),
            slots=slots,
            batch_sizes=shapes.batch_sizes(manifest, "cpu"),
            min_precision=min_precision,
        )

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        shape = next(iter(inputs.values())).shape
        idle = self._idle[shape if shape in self._idle else ()]
        request = idle.get()
        try:
            results = request.infer({name: np.ascontiguousarray(array) for name, array in inputs.items()})
            # infer() returns copies, so another thread can use the request right away.
            return {spec.name: results[spec.name] for spec in self.manifest.outputs}
        except RuntimeError as error:
            raise EngineError(f"{self.manifest.name}: OpenVINO failed on {list(shape)}: {error}") from error
        finally:
            idle.put(request)

    def wider(self) -> Callable[[], Engine] | None:
        if self.precision == WIDEST:
            return None
        return lambda: OpenVINOEngine(self.bundle, asked=WIDEST)

    def close(self) -> None:
        super().close()
        self._idle.clear()
        self._compiled.clear()


def compile_graph(
    bundle: Bundle, precision: Precision, goal: str, shape: tuple[int, ...] | None = None
) -> Any:
    """Compile the bundle's graph. Returns an openvino.CompiledModel that computes in `precision`, or wider.

    goal: OpenVINO's performance hint, "LATENCY" (one run on all cores of a NUMA node) or "THROUGHPUT" (several runs in parallel).
    shape: fixed shape of the graph's only input; None for any. Raises EngineError with OpenVINO's message.
    """
    options = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERFORMANCE_HINT": goal}
    if goal in STREAMS:
        options["NUM_STREAMS"] = STREAMS[goal]
    try:
        model = _core().read_model(bundle.onnx)
        if precision == "float32":
            widen(model)
        if shape is not None:
            model.reshape(list(shape))
        return _core().compile_model(model, "CPU", options)
    except RuntimeError as error:
        raise EngineError(
            f"{bundle.manifest.name}: OpenVINO cannot compile {bundle.onnx}: {error}"
        ) from error


def widen(model: Any) -> None:
    """Change a float16 or bfloat16 graph to compute in float32. The weights keep their rounded values."""
    import openvino
    from openvino import opset13

    narrow = (openvino.Type.f16, openvino.Type.bf16)
    for node in model.get_ordered_ops():
        if node.get_output_size() != 1 or node.get_output_element_type(0) not in narrow:
            continue
        if node.get_type_name() == "Constant":
            wide = opset13.constant(node.get_data(dtype=np.float32))
            node.output(0).replace(wide.output(0))
        elif node.get_type_name() == "Convert":
            node.output(0).replace(node.input_value(0))
    model.validate_nodes_and_infer_types()


def executed_precision(compiled: Any) -> Precision:
    """The narrowest precision in which a convolution or matrix product of a compiled graph runs; float32 without any."""
    layers = (dict(operation.get_rt_info()) for operation in compiled.get_runtime_model().get_ops())
    return narrowest(
        EXECUTED[str(info["runtimePrecision"].value)] for info in layers if _layer(info) in HEAVY_LAYERS
    )


def _layer(info: dict[str, Any]) -> str:
    return str(info["layerType"].value) if "layerType" in info else ""
