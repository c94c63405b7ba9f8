"""The paths that benchmarks.gpu compares: torch's own, and the engines of `runtime`.

`all_paths` lists them. A path opens a runner for one case. `run` gives the output, to be checked; `time` gives the speed:
of the work on the device for torch, from host memory to host memory for an engine, since a server uses it so.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu_models import Case, Model, manifest, write
from benchmarks.gpu_timing import calls_per_s, device_ms, wall_ms
from runtime import backends
from runtime.backends import onnxruntime_backend as portable
from runtime.backends import tensorrt_loading
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import GanforgeError
from runtime.tensors import Array, Precision

DTYPES: dict[Precision, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Timing:
    """ms: of one run. items_per_s: throughput with as many concurrent callers as the path takes."""

    ms: float
    items_per_s: float


class Runner(Protocol):
    """A path that is ready for one case."""

    @property
    def precision(self) -> str: ...

    def run(self, inputs: tuple[Tensor, ...]) -> Array:
        """Host tensors in, a host array out."""

    def time(self, inputs: tuple[Tensor, ...], budget_s: float) -> Timing:
        """Time runs of these inputs for about `budget_s` seconds."""

    def close(self) -> None:
        """Free what is held on the device."""


class RunPath(Protocol):
    """A path: one way to run a model. timed: what its time covers, "device" or "host to host"."""

    @property
    def name(self) -> str: ...

    @property
    def timed(self) -> str: ...

    @property
    def static(self) -> bool:
        """Whether each new shape is compiled again, which takes a minute."""

    def unavailable(self, model: Model, device: torch.device) -> str | None:
        """The reason why it cannot run `model` here; None if it can."""

    def open(self, model: Model, case: Case, device: torch.device, precision: Precision) -> Runner:
        """A runner that is ready for the case. Raises one of gpu.FAILURES."""


@dataclass(frozen=True)
class TorchPath:
    """torch at half precision."""

    channels_last: bool = False
    compiled: bool = False
    graph: bool = False
    timed: str = "device"

    @property
    def name(self) -> str:
        parts = ["torch", "compiled" if self.compiled else "eager"]
        parts += ["channels-last"] * self.channels_last + ["CUDA graph"] * self.graph
        return " ".join(parts)

    @property
    def static(self) -> bool:
        return self.compiled

    def unavailable(self, model: Model, device: torch.device) -> str | None:
        if self.graph and device.type != "cuda":
            return "CUDA graphs need a GPU"
        if self.compiled and device.type == "cuda" and find_spec("triton") is None:
            return "torch.compile needs triton on a GPU (pip install triton)"
        return None

    def open(self, model: Model, case: Case, device: torch.device, precision: Precision) -> Runner:
        return TorchRunner(self, model, device, precision)


class TorchRunner:
    def __init__(self, path: TorchPath, model: Model, device: torch.device, precision: Precision) -> None:
        self.precision = precision
        self._device = device
        self._format = torch.channels_last if path.channels_last else torch.contiguous_format
        self._dtype = DTYPES[precision]
        module = copy.deepcopy(model.module).to(device=device, dtype=self._dtype)
        module = module.to(memory_format=self._format)  # type: ignore[call-overload]  # missing in torch's stubs
        self._call: Callable[..., Tensor] = module
        if path.compiled:
            torch._dynamo.reset()
            # The compiler proper is for the GPU; elsewhere this only shows that the path works.
            compiler = "inductor" if device.type == "cuda" else "eager"
            self._call = torch.compile(module, backend=compiler, dynamic=False)
        self._graph = path.graph

    def _on_device(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        moved = [x.to(self._device, self._dtype if x.is_floating_point() else x.dtype) for x in inputs]
        return [x.contiguous(memory_format=self._format) if x.dim() == 4 else x for x in moved]

    def _ready(self, inputs: tuple[Tensor, ...]) -> tuple[Callable[[], object], Callable[[], Tensor]]:
        """(one run on the device, its output)."""
        held = self._on_device(inputs)
        if not self._graph:
            return lambda: self._call(*held), lambda: self._call(*held)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._call(*held)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self._call(*held)

        def replayed() -> Tensor:
            graph.replay()
            return output

        return graph.replay, replayed

    def run(self, inputs: tuple[Tensor, ...]) -> Array:
        with torch.inference_mode():
            return self._ready(inputs)[1]().float().cpu().numpy()

    def time(self, inputs: tuple[Tensor, ...], budget_s: float) -> Timing:
        with torch.inference_mode():
            ms = device_ms(self._ready(inputs)[0], self._device, budget_s=budget_s)
        return Timing(ms, 1000 * len(inputs[0]) / ms)

    def close(self) -> None:
        del self._call
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class EnginePath:
    """An engine of `runtime`, opened as a server opens it. option: name and value of an argument of its open_engine."""

    name: str
    backend: str
    option: tuple[str, str] | None
    folder: Path
    timed: str = "host to host"
    static: bool = False

    def unavailable(self, model: Model, device: torch.device) -> str | None:
        missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
        if missing:
            return f"writing the graph needs {' and '.join(missing)} (pip install {' '.join(missing)})"
        blank = Bundle(self.folder, manifest(model, "float16", Case(1)))
        return backends.load(self.backend).unavailable(blank, engine_device(device)) or self._lacks(
            blank, device
        )

    def _lacks(self, bundle: Bundle, device: torch.device) -> str | None:
        if self.backend == "tensorrt" and self.option is not None:
            capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
            usable, reasons = tensorrt_loading.usable_libraries(bundle.manifest, capability)
            return None if self.option[1] in usable else "; ".join(reasons)
        if self.option is not None and self.option[1] not in portable.library().get_available_providers():
            return f"this onnxruntime has no {self.option[1]}"
        return None

    def open(self, model: Model, case: Case, device: torch.device, precision: Precision) -> Runner:
        bundle = write(self.folder, model, precision)
        shaped = Bundle(
            bundle.path, replace(bundle.manifest, tile_sizes=manifest(model, precision, case).tile_sizes)
        )
        options: dict[str, Any] = dict([self.option] if self.option else [])
        engine = backends.load(self.backend).open_engine(shaped, engine_device(device), **options)
        if case.batch > engine.max_batch:
            with closing(engine):
                raise GanforgeError(f"takes batches of at most {engine.max_batch}")
        return EngineRunner(engine)


class EngineRunner:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.precision = engine.precision

    def _arrays(self, inputs: tuple[Tensor, ...]) -> dict[str, Array]:
        specs = self._engine.manifest.inputs
        return {spec.name: np.ascontiguousarray(x.numpy()) for spec, x in zip(specs, inputs, strict=True)}

    def run(self, inputs: tuple[Tensor, ...]) -> Array:
        return next(iter(self._engine.run(self._arrays(inputs)).values()))

    def time(self, inputs: tuple[Tensor, ...], budget_s: float) -> Timing:
        arrays = self._arrays(inputs)

        def call() -> object:
            return self._engine.run(arrays)

        # Every slot runs the shape twice before it is timed: the second run captures the CUDA graph.
        calls_per_s(call, callers=self._engine.slots, budget_s=0)
        ms = wall_ms(call, budget_s=budget_s)
        rate = calls_per_s(call, callers=self._engine.slots, budget_s=budget_s)
        return Timing(ms, rate * len(inputs[0]))

    def close(self) -> None:
        self._engine.close()


def all_paths(folder: Path) -> list[RunPath]:
    """Every path, whether it can run here or not. folder: where bundles are written."""
    torch_paths = [
        TorchPath(),
        TorchPath(channels_last=True),
        TorchPath(channels_last=True, graph=True),
        TorchPath(channels_last=True, compiled=True),
        TorchPath(channels_last=True, compiled=True, graph=True),
    ]
    engine_paths = [
        EnginePath("ONNX Runtime", "onnxruntime", None, folder),
        EnginePath("ONNX Runtime TensorRT", "onnxruntime", ("provider", portable.TENSORRT), folder),
        EnginePath("TensorRT", "tensorrt", ("library", "tensorrt"), folder),
        EnginePath("TensorRT-RTX", "tensorrt", ("library", "tensorrt_rtx"), folder),
        EnginePath("OpenVINO", "openvino", None, folder),
    ]
    return [*torch_paths, *engine_paths]


def engine_device(device: torch.device) -> str:
    return "CPU" if device.type == "cpu" else f"cuda:{device.index or 0}"
