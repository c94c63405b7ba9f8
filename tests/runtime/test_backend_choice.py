"""The choice of a backend: preference, reasons, and no silent fallback of ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import backends
from runtime.backends import cpu_features, nvidia_driver
from runtime.backends import onnxruntime_backend as portable
from runtime.backends import openvino_backend as cpu
from runtime.backends import tensorrt_backend as tensorrt
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import BackendUnavailable, EngineError
from runtime.tensors import Precision
from tests.runtime import graphs

pytestmark = pytest.mark.cpu

ROOT = Path(__file__).resolve().parents[2]


def make_bundle(folder: Path, precision: Precision) -> Bundle:
    return graphs.write_bundle(folder, graphs.upscaler(precision), graphs.upscale_manifest(precision))


def test_importing_every_backend_imports_no_engine_library() -> None:
    script = (
        "import sys; from runtime import backends; [backends.load(name) for name in backends.NAMES]; "
        "print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for library in ("openvino", "onnxruntime", "tensorrt", "tensorrt_rtx", "cuda", "torch"):
        assert f"'{library}'" not in output


def test_auto_says_which_backend_and_why(tmp_path: Path) -> None:
    engine, why = backends.open_engine(make_bundle(tmp_path, "float32"), device="CPU")
    assert engine.backend == "openvino"
    assert why == "tiny-upscaler runs on openvino (CPU) in float32: the first backend that can"


def test_auto_takes_a_gpu_through_onnxruntime_before_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine with a GPU and without TensorRT."""
    bundle = make_bundle(tmp_path, "float32")
    tried: list[str] = []

    def on_cuda(bundle: Bundle, device: str | None, *, min_precision: Precision | None = None) -> Engine:
        tried.append(f"onnxruntime on {device}")
        return cpu.open_engine(bundle)

    monkeypatch.setattr(tensorrt, "unavailable", lambda bundle, device: f"no TensorRT for {device}")
    monkeypatch.setattr(portable, "unavailable", lambda bundle, device: None)
    monkeypatch.setattr(portable, "open_engine", on_cuda)
    _, why = backends.open_engine(bundle)
    assert tried == ["onnxruntime on cuda"]
    assert why.endswith("the first backend that can (tensorrt: no TensorRT for cuda)")
    assert backends.open_engine(bundle, device="cpu")[0].backend == "openvino"
    assert len(tried) == 1


def test_no_backend_is_an_error_with_every_reason_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (tensorrt, portable, cpu):
        monkeypatch.setattr(module, "unavailable", lambda bundle, device: "it rains")
    bundle = make_bundle(tmp_path, "float32")
    with pytest.raises(BackendUnavailable) as caught:
        backends.open_engine(bundle)
    assert str(caught.value) == (
        "tiny-upscaler cannot run here; tensorrt: it rains; onnxruntime: it rains; openvino: it rains"
    )
    with pytest.raises(BackendUnavailable, match=r"openvino: it rains$"):
        backends.open_engine(bundle, "openvino")
    with pytest.raises(
        BackendUnavailable, match="got 'abacus', expected one of tensorrt, onnxruntime, openvino"
    ):
        backends.open_engine(bundle, "abacus")


def test_native_precisions_are_those_of_the_first_backend_that_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_a_gpu = {"cuda": ("float16", "float32")}
    monkeypatch.setattr(tensorrt, "native_precisions", lambda device: ())
    monkeypatch.setattr(portable, "native_precisions", lambda device: on_a_gpu.get(device, ("float32",)))
    monkeypatch.setenv(cpu_features.IMITATE, "amx")
    assert backends.native_precisions() == ("float16", "float32")
    assert backends.native_precisions({"openvino"}) == ("bfloat16", "float32")
    assert backends.native_precisions(set()) == ()


class TestONNXRuntime:
    def test_bfloat16_on_a_cpu_is_refused_before_it_is_tried(self, tmp_path: Path) -> None:
        bundle = make_bundle(tmp_path, "bfloat16")
        with pytest.raises(BackendUnavailable, match="no bfloat16 convolutions on a CPU"):
            portable.open_engine(bundle, "CPU")

    @pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:1"])
    def test_a_device_that_it_does_not_have_is_refused(self, tmp_path: Path, device: str) -> None:
        bundle = make_bundle(tmp_path, "float32")
        assert f"not on device {device!r}" in str(portable.unavailable(bundle, device))

    def test_tf32_is_off_on_gpus_and_its_tensorrt_which_cannot_turn_it_off_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bundle = make_bundle(tmp_path, "float32")
        sessions: list[Any] = []

        def session(onnx: Path, options: Any, providers: list[Any]) -> Any:
            sessions.append(providers)
            raise RuntimeError("no GPU here")

        monkeypatch.setattr(portable, "unavailable", lambda bundle, device: None)
        monkeypatch.setattr(portable.library(), "InferenceSession", session)
        with pytest.raises(EngineError, match="no GPU here"):
            portable.open_engine(bundle, "cuda:0")
        ((cuda, settings), last) = sessions[0]
        assert (cuda, settings["use_tf32"], last) == (portable.CUDA, "0", portable.CPU)
        with pytest.raises(BackendUnavailable, match="computes float32 in TF32, with 11 significand bits"):
            portable.open_engine(bundle, "cuda:0", provider=portable.TENSORRT)

    def test_a_gpu_is_never_silently_a_cpu(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As where onnxruntime-gpu is installed and cuDNN is not: the session comes up on the CPU."""
        bundle = make_bundle(tmp_path, "float32")
        if portable.CUDA in portable.library().get_available_providers():
            pytest.skip("this onnxruntime has CUDA")
        monkeypatch.setattr(nvidia_driver, "gpu_count", lambda: 1)
        assert "built without CUDA" in str(portable.unavailable(bundle, "cuda:0"))
        assert portable.unavailable(bundle, "cuda:1") == "there is no GPU number 1: this machine has 1"
        monkeypatch.setattr(nvidia_driver, "gpu_count", lambda: 0)
        assert portable.unavailable(bundle, "cuda:0") == "there is no NVIDIA GPU with a working driver"
        monkeypatch.setattr(portable, "unavailable", lambda bundle, device: None)
        with (
            pytest.warns(UserWarning, match="not in available provider names"),
            pytest.raises(BackendUnavailable, match="CUDAExecutionProvider did not load"),
        ):
            portable.open_engine(bundle, "cuda:0")

    def test_float16_that_a_cpu_runs_in_float32_is_called_float32(self, tmp_path: Path) -> None:
        """On x86 it has no float16 convolutions and inserts casts; where it has them, it may say float16."""
        engine = portable.open_engine(make_bundle(tmp_path, "float16"), "CPU")
        inputs = graphs.draw(engine.manifest, 1, 16, 16)
        error = np.abs(engine.run(inputs)["upscaled"] - graphs.reference(engine.manifest, inputs)).max()
        assert engine.precision in ("float32", "float16")
        assert error > 1e-6  # its weights are float16 all the same
