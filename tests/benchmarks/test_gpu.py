"""Tests of benchmarks.gpu, run on the CPU with tiny models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from benchmarks import gpu
from benchmarks.gpu_models import Case, Model
from benchmarks.gpu_paths import EnginePath, TorchPath, all_paths
from benchmarks.gpu_timing import calls_per_s, matrix_ceiling_tflops, wall_ms
from export import families
from runtime.errors import EngineError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _same_threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def invoke(output: Path, *arguments: str) -> Result:
    return CliRunner().invoke(
        gpu.main, ["--device", "cpu", "--quick", "--output", str(output), *arguments], catch_exceptions=False
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_and_stops() -> None:
    result = CliRunner().invoke(gpu.main, [])
    assert result.exit_code == gpu.NO_GPU
    assert "There is no NVIDIA GPU" in result.output


def test_torch_is_checked_timed_tabled_and_plotted(tmp_path: Path) -> None:
    result = invoke(tmp_path, "--only", "torch eager", "--precision", "bfloat16")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert all(row["ok"] for row in report["correctness"])
    assert {row["path"] for row in report["results"]} == {"torch eager", "torch eager channels-last"}
    assert {row["model"] for row in report["results"]} == {"esrgan", "dcgan"}
    for row in report["results"]:
        assert row["ms"] > 0
        assert row["items_per_s"] > 0
    assert any("CUDA graphs need a GPU" in why for why in report["left_out"])
    assert "TFLOP/s" in result.output
    assert (tmp_path / "gpu.png").stat().st_size > 1000


@pytest.mark.slow
def test_every_path_that_a_cpu_has_gives_the_right_output(tmp_path: Path) -> None:
    result = invoke(tmp_path)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    paths = {row["path"] for row in report["results"]}
    assert {"torch compiled channels-last", "ONNX Runtime", "OpenVINO"} <= paths
    assert any(why.startswith("TensorRT, ") for why in report["left_out"])
    assert any(why.startswith("TensorRT-RTX, ") for why in report["left_out"])


class FakeRunner:
    """Gives the reference, plus an error; or fails."""

    precision = "float16"

    def __init__(self, model: Model, off: float, failure: Exception | None) -> None:
        self.model, self.off, self.failure = model, off, failure

    def run(self, inputs: tuple[torch.Tensor, ...]) -> Any:
        if self.failure is not None:
            raise self.failure
        return self.model.reference(inputs, CPU) + self.off

    def time(self, inputs: tuple[torch.Tensor, ...], budget_s: float) -> Any:
        raise EngineError("cannot be timed")

    def close(self) -> None:
        """Holds nothing."""


class FakePath:
    name = "a fake"
    timed = "device"
    static = False

    def __init__(self, off: float = 0.0, failure: Exception | None = None) -> None:
        self.off, self.failure = off, failure

    def unavailable(self, model: Model, device: torch.device) -> str | None:
        return None

    def open(self, model: Model, case: Case, device: torch.device, precision: str) -> FakeRunner:
        return FakeRunner(model, self.off, self.failure)


@pytest.fixture(scope="module")
def dcgan() -> Model:
    spec = families.get("dcgan")
    return Model.make("dcgan", spec, spec.tiny)


def test_a_wrong_output_is_named_and_ends_with_an_exit_code_of_its_own(
    dcgan: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "all_paths", lambda folder: [FakePath(off=0.5)])
    result = invoke(tmp_path)
    assert result.exit_code == 1
    assert "WRONG: a fake, dcgan" in result.output


@pytest.mark.parametrize("failure", [EngineError("no plan\nlong story"), RuntimeError("CUDA out of memory")])
def test_a_path_that_fails_is_left_out_with_its_error(dcgan: Model, failure: Exception) -> None:
    report = gpu.Report({}, "float16", 1.0)
    gpu.check(FakePath(failure=failure), dcgan, (Case(2),), CPU, report)
    gpu.measure(FakePath(), dcgan, Case(2), CPU, 0.01, report)
    words = str(failure).splitlines()[0]
    assert report.left_out == [
        f"a fake, dcgan, 2 samples: {words}",
        "a fake, dcgan, 2 samples: cannot be timed",
    ]
    assert not report.wrong


def test_operations_are_counted_as_two_a_product() -> None:
    """RRDB-23 at scale 4 is 17.93 million products with sums an input pixel."""
    spec = families.get("esrgan")
    with torch.device("meta"):
        module = spec.module(spec.config())
    model = Model("rrdb-23", spec, module, spec.signature(spec.config()))
    assert model.flop(Case(2, 128)) / (2 * 2 * 128**2) == pytest.approx(17.93e6, rel=1e-3)


def test_random_weights_fill_the_range(dcgan: Model) -> None:
    outputs = dcgan.reference(dcgan.inputs(Case(16)), CPU)
    assert 0.1 < outputs.std() < 0.6


def test_every_path_has_a_name_of_its_own(tmp_path: Path) -> None:
    names = [path.name for path in all_paths(tmp_path)]
    assert len(set(names)) == len(names)
    assert "torch compiled channels-last CUDA graph" in names


def test_reasons_name_what_is_missing(dcgan: Model, tmp_path: Path) -> None:
    assert "need a GPU" in str(TorchPath(graph=True).unavailable(dcgan, CPU))
    rtx = EnginePath("TensorRT-RTX", "tensorrt", ("library", "tensorrt_rtx"), tmp_path)
    assert "cuda:0" in str(rtx.unavailable(dcgan, CPU))


def test_times_and_rates_agree() -> None:
    ran: list[int] = []
    assert wall_ms(lambda: ran.append(1), budget_s=0) > 0
    assert len(ran) >= 5
    ran.clear()
    assert calls_per_s(lambda: ran.append(1), callers=3, budget_s=0) > 0
    assert len(ran) == 1 + 3 * 5
    assert matrix_ceiling_tflops(CPU, torch.float32, budget_s=0.01) > 0
