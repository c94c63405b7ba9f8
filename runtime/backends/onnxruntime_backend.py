"""The ONNX Runtime backend, for NVIDIA GPUs without TensorRT and CPUs without OpenVINO. See `Backend` for its functions.

ONNX Runtime falls back from the GPU to the CPU, and from float16 to float32, without saying so. Here, falling back to
the CPU is an error, and `Engine.precision` reports what really runs, read from the profile of one small run. It never
computes below the graph's precision: TF32 is off on GPUs, and bfloat16 matrix products on ARM are off.
"""

from __future__ import annotations

import json
import os
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from runtime import tasks
from runtime.backends import shapes
from runtime.backends.base import Engine
from runtime.backends.nvidia_driver import no_gpu
from runtime.backends.precisions import narrowest
from runtime.bundle import Bundle
from runtime.errors import BackendUnavailable, EngineError
from runtime.manifest import EngineFile, Manifest
from runtime.sides import side_of
from runtime.tensors import Array, Precision, zero_inputs

NAME = "onnxruntime"
PACKAGES = ("onnxruntime", "onnxruntime-gpu")
TARGETS = ("onnx",)
Provider = Literal["CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"]
CPU: Provider = "CPUExecutionProvider"
CUDA: Provider = "CUDAExecutionProvider"
TENSORRT: Provider = "TensorrtExecutionProvider"

NATIVE: dict[str, tuple[Precision, ...]] = {"cpu": ("float32",), "cuda": ("float16", "float32")}
PROBE_SIDE_PX = 8
HEAVY = ("Conv", "ConvTranspose", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")
QUANTIZED = ("QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "QGemm")
TYPES: dict[str, Precision] = {
    "float": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "int8": "int8",
    "uint8": "int8",
}


def unavailable(bundle: Bundle, device: str | None) -> str | None:
    """The reason why ONNX Runtime cannot run this bundle on `device`, or None if it can."""
    if (missing := _missing()) is not None:
        return missing
    kind, index = parse(device)
    if kind is None:
        return f"it runs on CPU and cuda:0, cuda:1, …, not on device {device!r}"
    if kind == "cuda":
        return _no_cuda(index)
    if kind == "cpu" and bundle.manifest.precision == "bfloat16":
        return "it has no bfloat16 convolutions on a CPU; build the bundle with --fp32 or --fp16"
    return None


def _no_cuda(index: int) -> str | None:
    # Check for a GPU first: without one, the library need not be loaded.
    if (problem := no_gpu(index)) is not None:
        return problem
    if CUDA not in library().get_available_providers():
        return f"this onnxruntime was built without CUDA (pip install {PACKAGES[1]})"
    return None


def _missing() -> str | None:
    if find_spec("onnxruntime") is None:
        return f"the library is not installed (pip install {PACKAGES[0]}, or {PACKAGES[1]} for NVIDIA GPUs)"
    return None


def native_precisions(device: str | None = None) -> tuple[Precision, ...]:
    """On a CPU only float32, because ONNX Runtime has few float16 kernels there."""
    if _missing() is not None:
        return ()
    kind, index = parse(device)
    if kind == "cuda" and _no_cuda(index) is not None:
        return ()
    return NATIVE[kind] if kind is not None else ()


def cannot_make(target: str) -> str | None:
    """The reason why ONNX Runtime is not available here, or None."""
    return _missing()


def compile_engine(target: str, onnx: Path, manifest: Manifest) -> tuple[bytes, EngineFile] | None:
    """Returns None: ONNX Runtime runs the ONNX file, without a compiled engine."""
    return None


def open_engine(
    bundle: Bundle,
    device: str | None = None,
    *,
    min_precision: Precision | None = None,
    provider: Provider | None = None,
) -> Engine:
    """Load the bundle. device: "CPU", "cuda", "cuda:1"; None for the first GPU if there is one, else the CPU.

    min_precision: not used; ONNX Runtime computes in the graph's own precision or a wider one.
    provider: None chooses by device. TENSORRT uses ONNX Runtime's TensorRT, with CUDA for nodes that TensorRT lacks.
    Raises BackendUnavailable if the bundle cannot run there, EngineError if the graph cannot be loaded.
    """
    reason = unavailable(bundle, device)
    if reason is None and provider == TENSORRT and bundle.manifest.precision == "float32":
        # https://github.com/microsoft/onnxruntime/issues/26029: it has no option to turn TF32 off.
        reason = f"{TENSORRT} computes float32 in TF32, with 11 significand bits; take {CUDA}"
    if reason is not None:
        raise BackendUnavailable(f"{NAME}: {reason}")
    kind, index = parse(device)
    return ORTEngine(bundle, provider=provider or (CUDA if kind == "cuda" else CPU), index=index)


def parse(device: str | None) -> tuple[Literal["cpu", "cuda"] | None, int]:
    """ "cuda:1" → ("cuda", 1), "CPU" → ("cpu", 0), an unknown device → (None, 0).

    None is the first GPU if this build of ONNX Runtime can use it, else the CPU.
    """
    if device is None:
        return ("cuda", 0) if _no_cuda(0) is None else ("cpu", 0)
    name, _, index = device.lower().partition(":")
    if name == "cpu" and not index:
        return "cpu", 0
    return ("cuda", int(index or 0)) if name == "cuda" and (not index or index.isdecimal()) else (None, 0)


@cache
def library() -> Any:
    """The onnxruntime module."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # errors only; its warnings are about node placement
    return onnxruntime


class ORTEngine(Engine):
    """One ONNX Runtime session. Has one slot: a run uses all threads of the CPU, or the only stream on the GPU."""

    backend = NAME

    def __init__(self, bundle: Bundle, *, provider: Provider, index: int) -> None:
        batches = shapes.batch_sizes(bundle.manifest, "cpu" if provider == CPU else "cuda")
        self._gpu = None if provider == CPU else index
        precision = bundle.manifest.precision
        if provider == CUDA or (provider == CPU and precision != "float32"):
            precision = executed_precision(bundle, provider, index)
        self._session: Any = open_session(bundle, provider, index)
        device = "CPU" if provider == CPU else f"cuda:{index}"
        super().__init__(bundle, device=device, precision=precision, slots=1, batch_sizes=batches)

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        names = [spec.name for spec in self.manifest.outputs]
        arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        try:
            run = self._session.run if self._gpu is None else self._run_bound
            results = run(names, arrays)
        except Exception as error:  # ONNX Runtime's exceptions have no other common base
            shapes = {name: list(array.shape) for name, array in inputs.items()}
            raise EngineError(f"{self.manifest.name}: ONNX Runtime failed on {shapes}: {error}") from error
        return dict(zip(names, results, strict=True))

    def _run_bound(self, names: list[str], arrays: dict[str, Array]) -> list[Array]:
        """One copy in, one copy out; nothing crosses the bus between the nodes."""
        binding = self._session.io_binding()
        for name, array in arrays.items():
            binding.bind_ortvalue_input(
                name, library().OrtValue.ortvalue_from_numpy(array, "cuda", self._gpu)
            )
        for name in names:
            binding.bind_output(name, "cuda", self._gpu)
        self._session.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())

    def close(self) -> None:
        super().close()
        self._session = None


def open_session(bundle: Bundle, provider: Provider, index: int, profile_prefix: str | None = None) -> Any:
    """Load the bundle's graph on `provider`, without ONNX Runtime's fallback to the CPU.

    index: of the GPU. profile_prefix: path prefix of the profile that the session writes; None for no profile.
    Raises EngineError if the graph cannot be loaded, BackendUnavailable if the provider cannot.
    """
    ort = library()
    if provider != CPU and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # loads CUDA and cuDNN from Python packages if the system has none
    options = ort.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    # Between two batches the cores belong to decoding and encoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Heights and widths vary, and an arena keeps the most that any of them took.
    options.enable_cpu_mem_arena = tasks.items_of(bundle.manifest) == "samples"
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    try:
        session = ort.InferenceSession(
            bundle.onnx, options, providers=_providers(provider, index, bundle.manifest)
        )
    except Exception as error:
        raise EngineError(
            f"{bundle.manifest.name}: ONNX Runtime cannot load {bundle.onnx} on {provider}: {error}"
        ) from error
    session.disable_fallback()
    loaded = session.get_providers()
    if provider not in loaded:
        raise BackendUnavailable(
            f"{NAME}: {provider} did not load (are CUDA's and cuDNN's libraries installed, in the versions this "
            f"onnxruntime wants?), only {', '.join(loaded)} did; ask for device CPU to run there"
        )
    return session


def _providers(provider: Provider, index: int, manifest: Manifest) -> list[Any]:
    if provider == CPU:
        return [CPU]
    # TF32 is on by default and would run a float32 graph with 11 significand bits.
    cuda = (CUDA, {"device_id": str(index), "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})
    if provider == CUDA:
        return [cuda, CPU]
    half = {
        "trt_fp16_enable": manifest.precision == "float16",
        "trt_bf16_enable": manifest.precision == "bfloat16",
    }
    return [(TENSORRT, {"device_id": str(index)} | {k: "1" for k, on in half.items() if on}), cuda, CPU]


def executed_precision(bundle: Bundle, provider: Provider, index: int) -> Precision:
    """The narrowest precision in which a convolution or matrix product runs, from the profile of one small run.

    Raises EngineError if some of these nodes run on the CPU although `provider` is CUDA.
    """
    side_px = side_of(bundle.manifest, PROBE_SIDE_PX)
    inputs = zero_inputs(bundle.manifest.inputs, height=side_px, width=side_px)
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(bundle, provider, index, str(Path(folder) / "profile"))
        try:
            session.run(None, inputs)
        except Exception as error:
            raise EngineError(
                f"{bundle.manifest.name}: ONNX Runtime failed on {provider}: {error}"
            ) from error
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = [event["args"] for event in events if event.get("args", {}).get("op_name") in HEAVY + QUANTIZED]
    if provider == CUDA and any(node.get("provider") == CPU for node in nodes):
        raise EngineError(
            f"{bundle.manifest.name}: ONNX Runtime lacks {bundle.manifest.precision} kernels on CUDA and runs some nodes on "
            "the CPU; build the bundle in another precision or use another backend"
        )
    executed = [
        TYPES[kind]
        for node in nodes
        for kind in next(iter(node.get("input_type_shape") or [{}]), {})
        if kind in TYPES
    ]
    # No such node in the profile: TensorRT runs them all, in the graph's precision.
    return narrowest(executed) if executed else bundle.manifest.precision
