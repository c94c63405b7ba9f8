"""OpenVINO on the CPU: the embedded default.

The graph's precision is asked for explicitly, because OpenVINO would run a float32 graph in bfloat16 by itself where
the CPU has matrix units for it, and would emulate a bfloat16 graph, slowly, where it has none. What really runs is read
from the compiled graph, not from the request.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib.util import find_spec
from queue import SimpleQueue
from typing import Any, cast

import numpy as np

from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import BackendUnavailable, EngineError
from runtime.tensors import Array, Precision

NAME = "openvino"
# Batches of tiles are no faster than single tiles on a CPU; samples are small, and are.
TILE_BATCHES = (1,)
SAMPLE_BATCHES = (1, 2, 4, 8, 16, 32, 64)
PRECISIONS: dict[str, Precision] = {
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "u8": "int8",
    "i8": "int8",
}
HEAVY_LAYERS = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}


def unavailable(bundle: Bundle, device: str | None) -> str | None:
    if find_spec("openvino") is None:
        return "the library is not installed (pip install openvino)"
    if device is not None and device.upper() != "CPU":
        return f"device {device!r} is not its own: it runs on CPU"
    return None


def open_engine(bundle: Bundle, device: str | None = None) -> Engine:
    reason = unavailable(bundle, device)
    if reason is not None:
        raise BackendUnavailable(f"{NAME}: {reason}")
    return OpenVINOEngine(bundle)


@cache
def native_precisions() -> tuple[Precision, ...]:
    """The floating-point precisions this CPU computes in at full speed, fastest first."""
    capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    # FP16 is left out on purpose: OpenVINO lists it on CPUs where its convolutions are slower than float32.
    return ("bfloat16", "float32") if "BF16" in capabilities else ("float32",)


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()


class OpenVINOEngine(Engine):
    """The graph compiled twice for tiles: once for the fixed tile shape, once for any shape (small images)."""

    backend = NAME

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        hint = "bf16" if manifest.precision != "float32" and "bfloat16" in native_precisions() else "f32"
        # Tiles run side by side, each on few cores; samples are small and come in batches, each on all cores.
        options = {
            "INFERENCE_PRECISION_HINT": hint,
            "PERFORMANCE_HINT": "THROUGHPUT" if manifest.task == "upscale" else "LATENCY",
        }
        dynamic = self._compile(bundle, options)
        slots = int(dynamic.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._compiled: dict[tuple[int, ...], Any] = {(): dynamic}  # () stands for any other shape
        for side in manifest.tile_sizes:
            tile = (1, cast(int, manifest.inputs[0].shape[1]), side, side)
            self._compiled[tile] = self._compile(bundle, options, tile)
        self._idle: dict[tuple[int, ...], SimpleQueue[Any]] = {}
        for shape, compiled in self._compiled.items():
            self._idle[shape] = SimpleQueue()
            for _ in range(slots):
                self._idle[shape].put(compiled.create_infer_request())
        batches = TILE_BATCHES if manifest.task == "upscale" else SAMPLE_BATCHES
        super().__init__(
            bundle, device="CPU", precision=executed_precision(dynamic), slots=slots, batch_sizes=batches
        )

    @staticmethod
    def _compile(bundle: Bundle, options: dict[str, str], shape: tuple[int, ...] | None = None) -> Any:
        try:
            model = _core().read_model(bundle.onnx)
            if bundle.manifest.precision != "float32" and "bfloat16" not in native_precisions():
                widen(model)
            if shape is not None:
                model.reshape(list(shape))
            return _core().compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise EngineError(
                f"{bundle.manifest.name}: OpenVINO cannot compile {bundle.onnx}: {error}"
            ) from error

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
        self._idle.clear()
        self._compiled.clear()


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
    """The precision most of the heavy layers of a compiled graph run in."""
    layers = (operation.get_rt_info() for operation in compiled.get_runtime_model().get_ops())
    counts = Counter(
        str(info["runtimePrecision"].value) for info in map(dict, layers) if _layer(info) in HEAVY_LAYERS
    )
    if not counts:
        return "float32"
    most = counts.most_common(1)[0][0]
    return PRECISIONS[most]


def _layer(info: dict[str, Any]) -> str:
    return str(info["layerType"].value) if "layerType" in info else ""
