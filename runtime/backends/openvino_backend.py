"""The OpenVINO backend: the default on CPUs.

The precision is asked for explicitly: by itself OpenVINO runs a float32 graph in bfloat16 where the CPU has matrix units
for it, and emulates a bfloat16 graph, slowly, where it has none. What really runs is read from the compiled graph.
"""

from __future__ import annotations

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
from runtime.backends.precisions import fastest_allowed, narrowest
from runtime.bundle import Bundle
from runtime.errors import BackendUnavailable, EngineError
from runtime.manifest import EngineFile, Manifest
from runtime.tasks import ItemKind
from runtime.tensors import Array, Precision

NAME = "openvino"
PACKAGES = ("openvino",)
TARGETS = ("openvino",)
# Tiles run side by side, each on few cores; whole pictures, and samples in batches, each take all cores.
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
    reason = unavailable(bundle, device)
    if reason is not None:
        raise BackendUnavailable(f"{NAME}: {reason}")
    return OpenVINOEngine(bundle, min_precision=min_precision)


def cannot_make(target: str) -> str | None:
    return _missing()


def compile_engine(target: str, onnx: Path, manifest: Manifest) -> tuple[bytes, EngineFile] | None:
    """None: OpenVINO compiles the graph for the CPU that it finds when the bundle is opened, in a second or so."""
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
    """The graph compiled for any shape, and once more for each tile shape, with infer requests for `slots` threads each."""

    backend = NAME

    def __init__(self, bundle: Bundle, *, min_precision: Precision | None = None) -> None:
        manifest = bundle.manifest
        precision = fastest_allowed(native_precisions(), manifest.precision, min_precision)
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
            # infer() returns copies, so the request can serve another thread at once.
            return {spec.name: results[spec.name] for spec in self.manifest.outputs}
        except RuntimeError as error:
            raise EngineError(f"{self.manifest.name}: OpenVINO failed on {list(shape)}: {error}") from error
        finally:
            idle.put(request)

    def close(self) -> None:
        super().close()
        self._idle.clear()
        self._compiled.clear()


def compile_graph(
    bundle: Bundle, precision: Precision, goal: str, shape: tuple[int, ...] | None = None
) -> Any:
    """The bundle's graph as an openvino.CompiledModel that computes in `precision`, or wider where the CPU lacks it.

    goal: OpenVINO's performance hint, "LATENCY" (one run on all cores) or "THROUGHPUT" (several side by side).
    shape: of the one input, None for any. Raises EngineError with OpenVINO's words.
    """
    options = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERFORMANCE_HINT": goal}
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
    """Let a float16 or bfloat16 graph compute in float32: its weights keep their rounding, its arithmetic adds none."""
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
    """The narrowest precision that any heavy layer of a compiled graph runs in; float32 where it has none."""
    layers = (dict(operation.get_rt_info()) for operation in compiled.get_runtime_model().get_ops())
    return narrowest(
        EXECUTED[str(info["runtimePrecision"].value)] for info in layers if _layer(info) in HEAVY_LAYERS
    )


def _layer(info: dict[str, Any]) -> str:
    return str(info["layerType"].value) if "layerType" in info else ""
