"""TensorRT plans: compiled by TensorRT-RTX, which needs no GPU, and by a fake TensorRT with two GPUs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from runtime.backends import tensorrt_library as libraries
from runtime.backends import tensorrt_plan as plan
from runtime.errors import BackendUnavailable, EngineError
from runtime.manifest import EngineFile
from runtime.tensors import Precision
from tests.runtime import graphs

needs_rtx = pytest.mark.skipif(
    libraries.missing("tensorrt_rtx") is not None, reason=str(libraries.missing("tensorrt_rtx"))
)


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    return save(tmp_path, graphs.upscaler())


def save(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


@needs_rtx
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_an_upscaler_compiles_for_every_gpu_that_has_its_precision(
    tmp_path: Path, precision: Precision
) -> None:
    path = save(tmp_path, graphs.upscaler(precision))
    blob, entry = plan.compile_plan(path, graphs.upscale_manifest(precision), "tensorrt_rtx")
    assert len(blob) > 1000
    assert entry.library == "tensorrt_rtx"
    assert entry.compute_capability == plan.ANY
    assert entry.onnx_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert entry.path.startswith("engines/tensorrt_rtx-")
    assert entry.library_version in entry.path


@needs_rtx
@pytest.mark.parametrize(
    "precision", ["float32", "float16", "bfloat16"]
)  # Turing has no float32 matrix product
def test_a_sampler_with_labels_compiles(tmp_path: Path, precision: Precision) -> None:
    blob, _ = plan.compile_plan(
        save(tmp_path, graphs.sampler(precision)), graphs.sample_manifest(precision), "tensorrt_rtx"
    )
    assert len(blob) > 1000


@needs_rtx
def test_one_gpu_can_be_named(onnx_file: Path) -> None:
    _, entry = plan.compile_plan(
        onnx_file, graphs.upscale_manifest(), "tensorrt_rtx", compute_capability="8.6"
    )
    assert entry.compute_capability == "8.6"


@needs_rtx
@pytest.mark.parametrize(("precision", "asked"), [("float32", "9.0"), ("bfloat16", "7.5")])
def test_a_gpu_that_is_not_supported_is_refused_with_those_that_are(
    onnx_file: Path, precision: Precision, asked: str
) -> None:
    with pytest.raises(BackendUnavailable, match=rf"{precision} for compute capability {asked}.* 8\.0, 8\.6"):
        plan.compile_plan(
            onnx_file, graphs.upscale_manifest(precision), "tensorrt_rtx", compute_capability=asked
        )


@needs_rtx
def test_the_parsers_message_is_in_the_error(tmp_path: Path) -> None:
    node = helper.make_node("NoSuchOperator", ["image"], ["upscaled"])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, "H", "W"])
        for name in ("image", "upscaled")
    ]
    path = save(tmp_path, helper.make_model(helper.make_graph([node], "odd", ends[:1], ends[1:])))
    with pytest.raises(EngineError, match="NoSuchOperator"):
        plan.compile_plan(path, graphs.upscale_manifest(), "tensorrt_rtx")


@needs_rtx
def test_a_graph_that_takes_other_inputs_than_the_manifest_says_is_refused(onnx_file: Path) -> None:
    with pytest.raises(EngineError, match=r"takes \['image'\], the manifest says \['label', 'latent'\]"):
        plan.compile_plan(onnx_file, graphs.sample_manifest(), "tensorrt_rtx")


def test_a_missing_library_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries.load_library.cache_clear()
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    said = libraries.missing("tensorrt_rtx")
    libraries.load_library.cache_clear()
    assert said is not None
    assert "pip install tensorrt-rtx-cu13-bindings tensorrt-rtx-cu13-libs" in said


def test_bindings_without_libraries_have_another_message_than_a_missing_package(tmp_path: Path) -> None:
    package = tmp_path / "tensorrt_bindings"
    package.mkdir()
    (package / "__init__.py").write_text(
        "raise ImportError('libnvinfer.so.11: cannot open shared object file')"
    )
    script = "from runtime.backends import tensorrt_library; print(tensorrt_library.missing('tensorrt'))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    said = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "its libraries are not (libnvinfer.so.11" in said
    assert "pip install tensorrt-cu13-libs" in said


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"scale": 4, "tile_sizes": (192,)}, "n1-8@4x1-192@192 n1-1@1x1-1024@512"),
        ({"scale": 4, "tile_sizes": (512,)}, "n1-4@4x1-512@512 n1-1@1x1-1024@512"),
        ({"scale": 8, "tile_sizes": (128, 256)}, "n1-4@4x1-256@256 n1-1@1x1-512@256"),
        ({"scale": 1, "size_multiple": 4, "tile_sizes": (1024,)}, "n1-8@4x4-1024@1024"),
        ({"scale": 4, "tile_sizes": (192,), "least_side_px": 8}, "n1-8@4x8-192@192 n1-1@1x8-1024@512"),
        ({"scale": 4, "tile_sizes": ()}, "n1-8@4x1-192@192 n1-1@1x1-1024@512"),
    ],
)
def test_profiles_cover_batches_of_tiles_and_whole_images_within_32_bit_indices(
    changes: dict[str, Any], expected: str
) -> None:
    manifest = graphs.upscale_manifest(**changes)
    assert plan.profile_key(manifest) == expected
    for profile in plan.profiles(manifest):
        assert profile.max_batch * (profile.max_side_px * manifest.scale) ** 2 * 64 <= 2**31 * 2
        assert profile.max_side_px % manifest.size_multiple == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_whole_px": 512 * 512}, "n1-1@1x1-1024@512"),
        ({"max_whole_px": 4096 * 4096, "scale": 4}, "n1-1@1x1-1024@512"),
        ({"max_whole_px": 512 * 512, "least_side_px": 6, "size_multiple": 4}, "n1-1@1x8-1024@512"),
        ({"max_whole_px": 64, "scale": 1, "size_multiple": 256}, "n1-1@1x256-256@256"),
        ({"max_whole_px": 500 * 500, "scale": 1, "size_multiple": 32}, "n1-1@1x32-1024@512"),
    ],
)
def test_whole_pictures_have_one_profile_up_to_twice_the_side_of_the_largest_square(
    changes: dict[str, Any], expected: str
) -> None:
    manifest = replace(graphs.upscale_manifest(tiled=False, tile_sizes=(), halo=0), **changes)
    assert plan.profile_key(manifest) == expected


class FakeCuda:
    """Two GPUs of different compute capability. current: the device of the calling thread."""

    current = 0

    def __init__(self, device: int) -> None:
        self.device = device

    @staticmethod
    def problem(device: int) -> None:
        return None

    def compute_capability(self) -> str:
        return ("8.9", "9.0")[self.device]

    def use(self) -> None:
        FakeCuda.current = self.device


class FakeTensorRT:
    """Compiles nothing: the plan says on which GPU it was made."""

    __version__ = "11.4"
    NetworkDefinitionCreationFlag = SimpleNamespace()
    BuilderFlag = SimpleNamespace(TF32="TF32")
    HardwareCompatibilityLevel = SimpleNamespace(SAME_COMPUTE_CAPABILITY="same capability")

    def __init__(self) -> None:
        self.cleared: list[str] = []

    def Builder(self, logger: object) -> Any:  # noqa: N802 - TensorRT's name
        network = SimpleNamespace(num_inputs=1, get_input=lambda i: SimpleNamespace(name="image"))
        config = SimpleNamespace(clear_flag=self.cleared.append, add_optimization_profile=lambda profile: 0)
        return SimpleNamespace(
            create_network=lambda flags: network,
            create_builder_config=lambda: config,
            create_optimization_profile=lambda: SimpleNamespace(set_shape=lambda *shapes: None),
            build_serialized_network=lambda network, config: (
                f"made on GPU {FakeCuda.current} for the {config.hardware_compatibility_level}".encode()
            ),
        )

    def OnnxParser(self, network: object, logger: object) -> Any:  # noqa: N802 - TensorRT's name
        return SimpleNamespace(parse_from_file=lambda path: True)


class TestMixedGpus:
    @pytest.fixture(autouse=True)
    def tensorrt(self, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
        fake = FakeTensorRT()
        monkeypatch.setattr(plan, "Cuda", FakeCuda)
        monkeypatch.setattr(plan, "load_library", lambda library: fake)
        monkeypatch.setattr(plan, "library_log", lambda library: SimpleNamespace(messages=deque()))
        monkeypatch.setattr(FakeCuda, "current", 0)
        return fake

    @pytest.mark.parametrize(("device", "capability"), [(0, "8.9"), (1, "9.0")])
    def test_tensorrt_compiles_on_the_gpu_that_will_run_the_plan(
        self, onnx_file: Path, device: int, capability: str
    ) -> None:
        blob, entry = plan.compile_plan(
            onnx_file, graphs.upscale_manifest(), "tensorrt", compute_capability=capability, device=device
        )
        assert blob == f"made on GPU {device} for the same capability".encode()
        assert entry.compute_capability == capability

    def test_a_plan_for_another_gpu_than_the_one_it_compiles_on_is_refused(self, onnx_file: Path) -> None:
        with pytest.raises(BackendUnavailable, match=r"compute capability 8\.9, GPU 1 here has 9\.0"):
            plan.compile_plan(
                onnx_file, graphs.upscale_manifest(), "tensorrt", compute_capability="8.9", device=1
            )

    def test_tf32_is_off(self, onnx_file: Path, tensorrt: FakeTensorRT) -> None:
        plan.compile_plan(onnx_file, graphs.upscale_manifest(), "tensorrt")
        assert tensorrt.cleared == ["TF32"]


@needs_rtx
def test_the_log_keeps_warnings_and_errors_for_the_next_message() -> None:
    log = libraries.library_log("tensorrt_rtx")
    log.take()
    severity = libraries.load_library("tensorrt_rtx").ILogger.Severity
    log.log(severity.INFO, "all is well")
    log.log(severity.WARNING, "memory is short")
    log.log(severity.ERROR, "no kernel")
    assert log.take() == "memory is short; no kernel"
    assert log.take() == "tensorrt_rtx gave no reason"


def entry_for(**changes: str) -> EngineFile:
    plain = EngineFile("engines/x.plan", "tensorrt", "11.4", "8.9", "0" * 64, "n1-8")
    return replace(plain, **changes)


@pytest.mark.parametrize(
    ("plan_changes", "fits"),
    [
        ({}, True),
        ({"path": "engines/other.plan"}, True),
        ({"compute_capability": "any"}, True),
        ({"compute_capability": "9.0"}, False),
        ({"library": "tensorrt_rtx"}, False),
        ({"library_version": "11.5"}, False),
        ({"onnx_sha256": "1" * 64}, False),
        ({"profile": "n1-4"}, False),
    ],
)
def test_a_plan_fits_only_if_all_its_fields_match(plan_changes: dict[str, str], fits: bool) -> None:
    assert plan.fits(entry_for(**plan_changes), entry_for()) is fits
